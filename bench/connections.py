"""Many client connections at once, in this process: streams whose events are counted, and connections that idle."""

import asyncio
from collections.abc import Iterable
from typing import cast

from bench import exchange, processes
from bench.programs import Program

_AT_ONCE = 100
"""Connections being opened at the same time: below every backlog and every upstream pool."""

_PATIENCE_S = 60
_EVENT = b"data: "
_LAST_EVENT = b"data: [DONE]"


class Connection(asyncio.Protocol):
    """Sends one chat request and watches what comes back."""

    __slots__ = ("_request", "_transport", "_unfinished_line", "begun", "ended", "events", "lost")

    def __init__(self, request: bytes) -> None:
        loop = asyncio.get_running_loop()
        self._request = request
        self._unfinished_line = b""
        self.events = 0
        self.begun: asyncio.Future[None] = loop.create_future()
        """Done when the first bytes of the answer are there."""
        self.ended: asyncio.Future[None] = loop.create_future()
        """Done after ``data: [DONE]``, or when the connection is lost."""
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self._unfinished_line:
            data = self._unfinished_line + data
        cut = data.rfind(b"\n") + 1
        self._unfinished_line = data[cut:]  # an event may be cut anywhere, and must count once
        self.events += data.count(_EVENT, 0, cut)
        if not self.begun.done():
            self.begun.set_result(None)
        if _LAST_EVENT in data and not self.ended.done():
            self.ended.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        for future in (self.begun, self.ended):
            if not future.done():
                future.set_result(None)

    def close(self) -> None:
        """Hang up."""
        self._transport.abort()


class Crowd:
    """The connections to one program, opened step by step."""

    def __init__(self, program: Program, body: str) -> None:
        self._program = program
        self._request = exchange.request(program.key, body)
        self.connections: list[Connection] = []

    @property
    def events(self) -> int:
        """Events received so far on all connections, the closing ``[DONE]`` of each included."""
        return sum(connection.events for connection in self.connections)

    async def grow_to(self, count: int) -> None:
        """Open more until there are ``count``; return when each has begun to get its answer."""
        loop = asyncio.get_running_loop()
        while (missing := count - len(self.connections)) > 0:
            opened = await asyncio.gather(
                *(
                    loop.create_connection(lambda: Connection(self._request), "127.0.0.1", self._program.port)
                    for _ in range(min(missing, _AT_ONCE))
                )
            )
            fresh = [connection for _, connection in opened]
            self.connections += fresh
            await _all(connection.begun for connection in fresh)
        self.check_open()

    async def ended(self) -> None:
        """Return when every stream has got its ``[DONE]``."""
        await _all(connection.ended for connection in self.connections)
        self.check_open()

    def check_open(self) -> None:
        """Raise :class:`BenchError` when connections have been lost."""
        if lost := sum(connection.lost for connection in self.connections):
            raise processes.BenchError(f"{self._program.name} closed {lost} of {len(self.connections)} connections")

    def close(self) -> None:
        """Hang up everywhere."""
        for connection in self.connections:
            connection.close()


async def _all(futures: Iterable[asyncio.Future[None]]) -> None:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await asyncio.gather(*futures)
    except TimeoutError:
        raise processes.BenchError(f"answers were still missing after {_PATIENCE_S} s") from None
