"""The answer to one request as its caller sees it: whole, or streamed.

The connection writes into an answer and never waits for anybody; a caller waits on one future. Errors are kept as
values and raised where the caller asks, so none is lost or reported twice.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from tollway.http1.errors import Disconnected, ResponseTooLarge


class Line(Protocol):
    """What an answer needs of its connection."""

    answer: "Answer | None"

    def begin(self, answer: "Answer", message: bytes) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def cut(self) -> None: ...


def _ignore(data: bytes) -> None:
    """Take pieces after the end: there are none, but the slot must not keep the last taker alive."""


class Answer:
    """What is known of an answer, and the times that the sweeper judges (seconds; loop time where it says ``at``)."""

    __slots__ = (
        "complete",
        "connection",
        "deadline",
        "error",
        "first_byte_at",
        "first_byte_s",
        "headers",
        "idle_s",
        "is_head",
        "max_body",
        "piece",
        "received",
        "status",
        "waiter",
    )

    connection: Line
    first_byte_at: float
    headers: dict[bytes, bytes]
    """Names in lower case, repeated ones joined; there is no ``set-cookie``."""
    piece: Callable[[bytes], object]
    """Takes each piece of the decoded body, straight from the socket's callback."""

    def __init__(self, is_head: bool, first_byte_s: float, idle_s: float, deadline: float, max_body: int) -> None:
        self.is_head = is_head
        self.first_byte_s = first_byte_s
        self.idle_s = idle_s
        self.deadline = deadline
        self.max_body = max_body
        self.status = 0
        self.received = 0
        self.complete = False
        self.error: Exception | None = None
        self.waiter: asyncio.Future[None] | None = None

    async def request(self, connection: Line, message: bytes) -> None:
        """Send the message and wait until the caller can be answered: by ``status``, or by ``error``."""
        loop = asyncio.get_running_loop()
        self.connection = connection
        self.error = None
        self.first_byte_at = loop.time() + self.first_byte_s
        self.waiter = waiter = loop.create_future()
        connection.begin(self, message)
        try:
            await waiter
        except BaseException:
            self.close()
            raise

    @property
    def stale(self) -> bool:
        """Whether the connection ended before one byte of the answer came."""
        return isinstance(self.error, Disconnected) and self.error.nothing_received

    def begun(self) -> None:
        """Note that ``status`` and ``headers`` are there. For the connection."""

    def ended(self, error: Exception | None) -> None:
        """Note that the answer is complete or never will be. For the connection, once."""
        self.complete = error is None
        self.error = error
        self._wake()

    def close(self) -> None:
        """Give the answer up: unless it has ended, its connection is cut. At any time, any number of times."""
        if self.connection.answer is self:
            self.connection.cut()
            self.ended(Disconnected("the answer was given up", nothing_received=self.status == 0))

    def _wake(self) -> None:
        waiter = self.waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class WholeAnswer(Answer):
    """Wakes its caller once, when everything is there."""

    __slots__ = ("_pieces",)

    def __init__(self, is_head: bool, first_byte_s: float, idle_s: float, deadline: float, max_body: int) -> None:
        super().__init__(is_head, first_byte_s, idle_s, deadline, max_body)
        self._pieces: list[bytes] = []
        self.piece = self._pieces.append

    @property
    def body(self) -> bytes:
        """The decoded body."""
        pieces = self._pieces
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class StreamedResponse(Answer):
    """An answer whose head has arrived. Either pull it (``read``) or have it pushed (``attach``), not both.

    Call ``close`` in the end, in every outcome: a complete and clean answer has already given its connection back.
    """

    __slots__ = ("_high_water", "_pieces", "_size")

    def __init__(
        self, is_head: bool, first_byte_s: float, idle_s: float, deadline: float, max_body: int, high_water: int
    ) -> None:
        super().__init__(is_head, first_byte_s, idle_s, deadline, max_body)
        self._high_water = high_water
        self._pieces: list[bytes] = []
        self._size = 0
        self.piece = self._keep

    async def read(self) -> bytes:
        """Return what has arrived, as soon as there is something; ``b""`` at the end. Raises UpstreamError."""
        while not self._pieces:
            if self.error is not None:
                raise self.error
            if self.complete:
                return b""
            await self._wait()
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        self.resume()
        return data

    async def read_all(self, limit: int) -> bytes:
        """Return the rest of the body; above ``limit`` bytes it raises ResponseTooLarge and cuts the connection."""
        pieces = []
        size = 0
        while data := await self.read():
            size += len(data)
            if size > limit:
                self.close()
                raise ResponseTooLarge("the answer is too large", nothing_received=False)
            pieces.append(data)
        return b"".join(pieces)

    def attach(self, sink: Callable[[bytes], object]) -> None:
        """Hand every piece to ``sink``, first what has arrived already, without waking a task for each.

        ``sink`` runs in the socket's callback: it must be quick. What it raises there ends the answer and comes out
        of ``finished``.
        """
        pieces, self._pieces = self._pieces, []
        if self.connection.answer is self:
            self.piece = sink
            self.resume()
        for piece in pieces:
            sink(piece)

    async def finished(self) -> None:
        """Wait for the end of an attached answer. Raises UpstreamError, or what the sink raised."""
        while not self.complete:
            if self.error is not None:
                raise self.error
            await self._wait()

    def pause(self) -> None:
        """Let the upstream wait, by not reading. Silence does not count while paused; the deadline does."""
        if self.connection.answer is self:
            self.connection.pause()

    def resume(self) -> None:
        """Read on after ``pause``."""
        if self.connection.answer is self:
            self.connection.resume()

    def begun(self) -> None:
        self._wake()

    def ended(self, error: Exception | None) -> None:
        if self.status:  # else there may be a repeat
            self.piece = _ignore
        super().ended(error)

    def _keep(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size += len(data)
        self._wake()
        if self._size > self._high_water:
            self.connection.pause()

    async def _wait(self) -> None:
        self.waiter = waiter = asyncio.get_running_loop().create_future()
        try:
            await waiter
        except BaseException:
            self.close()
            raise
