"""Work on large texts, away from the event loop.

A thread does not make it faster, for one interpreter runs one thread at a time; but the loop gets its turn after each
call into C, and none of those is long, because what is read has been counted first (``wire/structure.py``). One thread:
several would only take the loop's turns from it.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tollway.wire.structure import UNCOUNTED_BYTES

T = TypeVar("T")

AT_ONCE_BYTES = UNCOUNTED_BYTES
"""What is not longer is worked on where it came: it takes less time than the way to another thread and back would."""

SWITCH_INTERVAL_S = 0.001
"""How long a thread may keep the interpreter when the loop wants it; CPython's own 5 ms would add up at each turn."""


class Offload:
    """A thread for what would hold up the loop. Its work must not touch what the loop's own work changes."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "offload")

    async def run(self, work: Callable[..., T], *arguments: object) -> T:
        """What the work returns or raises."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def close(self) -> None:
        """Drop what has not begun."""
        self._thread.shutdown(wait=False, cancel_futures=True)
