"""Work on large texts, away from the event loop.

1. A thread does not make it faster, for one interpreter runs one thread at a time; but the loop gets its turn after
   each call into C, and none of those is long, because what is read has been counted first (``wire/structure.py``).
2. Of each key one piece of work runs at a time, and keys take turns: who sends much waits for himself.
3. Two threads: what is short does not wait for somebody's long one. More would only take the loop's turns from it.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Final, Generic, TypeVar

from tollway.wire.structure import UNCOUNTED_BYTES

T = TypeVar("T")

AT_ONCE_BYTES = UNCOUNTED_BYTES
"""What is not longer is worked on where it came: it takes less time than the way to another thread and back would."""

SWITCH_INTERVAL_S = 0.001
"""How long a thread may keep the interpreter when the loop wants it; CPython's own 5 ms would add up at each turn."""

THREADS: Final = 2


class _Job(Generic[T]):
    __slots__ = ("key_id", "result", "work")

    def __init__(self, key_id: str, work: Callable[[], T]) -> None:
        self.key_id = key_id
        self.work = work
        self.result: asyncio.Future[T] = asyncio.get_running_loop().create_future()


class Offload:
    """Threads for what would hold up the loop. Their work must not touch what the loop's own work changes."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, "offload")
        self._running: set[str] = set()  # keys
        self._waiting: dict[str, deque[_Job[Any]]] = {}  # by key; whose turn is next stands first

    async def run(self, key_id: str, work: Callable[..., T], *arguments: object) -> T:
        """What the work returns or raises. Who is cancelled before it has begun leaves the queue."""
        job = _Job(key_id, partial(work, *arguments))
        self._waiting.setdefault(key_id, deque()).append(job)
        self._start()
        try:
            return await job.result
        except asyncio.CancelledError:
            self._leave(job)
            raise

    def close(self) -> None:
        """Drop what has not begun."""
        for jobs in self._waiting.values():
            for job in jobs:
                job.result.cancel()
        self._waiting.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _start(self) -> None:
        """Begin as much as there are threads for."""
        while len(self._running) < THREADS:
            key_id = next((key_id for key_id in self._waiting if key_id not in self._running), None)
            if key_id is None:
                return
            jobs = self._waiting.pop(key_id)
            job = jobs.popleft()
            if jobs:
                self._waiting[key_id] = jobs  # behind all others
            self._running.add(key_id)
            loop, done = job.result.get_loop(), self._threads.submit(job.work)
            done.add_done_callback(partial(_tell, loop, self._ended, job))

    def _ended(self, job: _Job[Any], done: Future[Any]) -> None:
        self._running.discard(job.key_id)
        self._start()
        if not job.result.done():
            error = done.exception()
            if error is None:
                job.result.set_result(done.result())
            else:
                job.result.set_exception(error)

    def _leave(self, job: _Job[Any]) -> None:
        jobs = self._waiting.get(job.key_id)
        if jobs is None or job not in jobs:
            return  # it has begun, and a thread cannot be stopped
        jobs.remove(job)
        if not jobs:
            del self._waiting[job.key_id]


def _tell(
    loop: asyncio.AbstractEventLoop, ended: Callable[[_Job[Any], Future[Any]], None], job: _Job[Any], done: Future[Any]
) -> None:
    """In the thread: the loop may have ended meanwhile."""
    if not done.cancelled():
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(ended, job, done)
