"""For tests that what has ended is let go of at once: with Python's cyclic collector switched off, nothing is left."""

import asyncio
import gc
import ssl
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

MIB = 1 << 20
PATIENCE_S = 10.0
"""Only a failing test waits this long."""


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
    """The same again and again, with a mebibyte each time, needs no more memory and no more objects than once.

    Connections need a few turns of the loop to be lost, on both sides; nothing but references ends what is left.
    """
    await once()
    await asyncio.sleep(0.02)
    objects = _alive(kinds)
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(4):
        await once()
    until = time.monotonic() + PATIENCE_S
    while (left := _alive(kinds)) != objects or tracemalloc.get_traced_memory()[0] - before > MIB // 2:
        assert time.monotonic() < until, (left, objects, tracemalloc.get_traced_memory()[0] - before)
        await asyncio.sleep(0.02)


def _alive(kinds: tuple[type, ...]) -> list[str]:
    return sorted(type(each).__name__ for each in gc.get_objects() if type(each) in kinds)  # isinstance() wakes proxies


class Peer:
    """A server that keeps nothing: reads a head, sends the same bytes, and then waits, closes or resets."""

    def __init__(self, answer: bytes, end: str) -> None:
        self.answer, self.end = answer, end
        self.answered = 0
        self.port = 0
        self._running: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        del task
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(self.answer)
                await writer.drain()
                self.answered += 1
                while self.end == "wait" and await reader.read(65536):
                    pass
        finally:
            writer.close() if self.end == "close" else writer.transport.abort()

    async def gone(self) -> None:
        """Wait until no connection is left."""
        async with asyncio.timeout(PATIENCE_S):
            while self._running:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def peer(answer: bytes = b"", end: str = "wait", tls: ssl.SSLContext | None = None) -> AsyncIterator[Peer]:
    """One on a free port, until the end of the block; by then its clients must have gone."""
    serving = Peer(answer, end)
    listening = await asyncio.start_server(serving.serve, "127.0.0.1", 0, ssl=tls)
    serving.port = listening.sockets[0].getsockname()[1]
    try:
        yield serving
    finally:
        listening.close()
        await serving.gone()
        await asyncio.sleep(0)
