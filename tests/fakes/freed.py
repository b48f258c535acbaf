"""For tests that what has ended is let go of at once: with Python's cyclic collector switched off, nothing is left."""

import asyncio
import gc
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

MIB = 1 << 20


@contextmanager
def no_collector() -> Iterator[None]:
    """Only what no reference leads to any more goes; and memory is traced."""
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()
        gc.enable()


async def leaves_nothing(once: Callable[[], Awaitable[None]], kinds: tuple[type, ...]) -> None:
    """The same again and again, with a mebibyte each time, needs no more memory and no more objects than once."""
    await once()
    await _quiet()
    before, objects = tracemalloc.get_traced_memory()[0], _alive(kinds)
    for _ in range(4):
        await once()
    await _quiet()
    assert _alive(kinds) == objects
    assert tracemalloc.get_traced_memory()[0] - before < MIB // 2


def _alive(kinds: tuple[type, ...]) -> list[str]:
    return sorted(type(each).__name__ for each in gc.get_objects() if isinstance(each, kinds))


async def _quiet() -> None:
    """Connections need a few turns of the loop to be lost."""
    for _ in range(10):
        await asyncio.sleep(0.002)
