"""The answer to one request as its caller sees it: whole, or streamed.

The connection writes into an answer and never waits for anybody; a caller waits on one future. Errors are kept as
values and raised where the caller asks, so none is lost or reported twice.

What has ended lets go of what it held, at once and without Python's cyclic collector: an answer that failed keeps no
piece, and no exception that has been raised stays in anything that its frames know.
"""

import asyncio
from collections.abc import AsyncIterable, Callable
from io import BytesIO
from typing import Final, Protocol

from msgspec import Struct

from tollway.http1.budget import COUNTED, Budget, Hold
from tollway.http1.errors import Disconnected, NoRoom, ResponseTooLarge, UpstreamError

_UNBOUNDED: Final = Budget()


class Line(Protocol):
    """What an answer needs of its connection."""

    answer: "Answer | None"
    full: bool
    """The upstream takes no more for now; the answer is woken when it does again."""

    @property
    def unsent(self) -> int: ...
    def begin(self, answer: "Answer", message: bytes) -> None: ...
    def write(self, data: bytes) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def cut(self) -> None: ...
    def fail(self, error: Exception) -> None: ...


class Answer(Struct, eq=False):
    """What is known of an answer, and the times that the sweeper judges (in seconds).

    ``deadline`` (loop time) and ``max_body`` may be moved while the answer runs.
    """

    is_head: bool
    first_byte_s: float
    idle_s: float
    deadline: float
    max_body: int
    budget: Budget = _UNBOUNDED
    status: int = 0
    """0 until the head is there."""
    headers: dict[bytes, bytes] = {}
    """Names in lower case, repeated ones joined; there is no ``set-cookie``."""
    received: int = 0
    """Bytes of the decoded body so far."""
    complete: bool = False
    error: Exception | None = None
    first_byte_at: float = 0.0
    """When the first byte is due, in loop time."""
    first_byte_due: bool = False
    """Set by a caller that has seen nothing but empty talk so far: while it is true, bytes do not stop the first-byte
    clock. Afterwards silence counts."""
    connection: Line | None = None
    waiter: asyncio.Future[None] | None = None
    sent: bool = True
    """False while a request's body is still being sent piece by piece."""
    request: Hold | None = None
    """The request that was sent, if it is large; of one that is sent in pieces, what waits for the upstream."""
    hold: Hold | None = None
    """What has come and is kept, if it is large."""
    waits: bool = False
    """For room: the connection does not read."""

    def send(
        self, connection: Line, message: bytes, on_sent: "Callable[[Answer], None] | None" = None
    ) -> asyncio.Future[None]:
        """Send the request; the future is done when the caller can be answered, by ``status`` or by ``error``."""
        loop = asyncio.get_running_loop()
        self.connection = connection
        self.error = None
        self.first_byte_at = loop.time() + self.first_byte_s
        self.waiter = waiter = loop.create_future()
        if len(message) > COUNTED:
            self.request = self.budget.take(len(message))
        connection.begin(self, message)
        if on_sent is not None:
            on_sent(self)
        return waiter

    def begun(self) -> None:
        """Note that ``status`` and ``headers`` are there. For the connection."""

    def take(self, piece: bytes) -> bool | None:
        """Take a piece of the decoded body, straight from the socket's callback. For the connection.

        False says that there was nothing in it: the silence goes on.
        """
        raise NotImplementedError

    def ended(self, error: Exception | None) -> None:
        """Note that the answer is complete or never will be. For the connection, once."""
        self.complete = error is None
        self.error = error
        if self.request is not None:
            self._request_gone()
        if error is not None and not self.readable:
            self.drop()
        if self.hold is not None:
            self.hold.settle()
        waiter = self.waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _request_gone(self) -> None:
        if self.request is not None:
            self.request.release()
            self.request = None

    @property
    def line(self) -> Line | None:
        """The connection while it works for this answer; afterwards it may work for another."""
        connection = self.connection
        return connection if connection is not None and connection.answer is self else None

    @property
    def readable(self) -> bool:
        """Whether there is something to be had although there was an error."""
        return False

    @property
    def stale(self) -> bool:
        """Whether the connection ended before one byte of the answer came."""
        return isinstance(self.error, Disconnected) and self.error.nothing_received

    def failure(self) -> Exception:
        """Hand over what ended the answer, to be raised.

        A raised exception knows the frames that it passed, and they know the answer: one that stayed here would keep
        both alive. What stays is a fresh one.
        """
        error = self.error
        assert error is not None
        self.error = error.again() if isinstance(error, UpstreamError) else _given_up(nothing_received=False)
        return error

    def close(self) -> None:
        """Give the answer up: unless it has ended, its connection is cut, and nothing of it is kept.

        At any time, any number of times.
        """
        connection = self.connection
        if connection is not None and connection.answer is self:
            connection.cut()
            self.ended(_given_up(nothing_received=self.status == 0))
        elif self.error is not None:
            self.failure()
        self.drop()

    def drop(self) -> None:
        """Let go of what has come of the body."""
        if self.hold is not None:
            self.hold.release()
            self.hold = None

    # The owner of ``hold``.

    def keep(self, size: int) -> None:
        """Count that so many bytes are held; where there is no room for them, the connection waits."""
        hold = self.hold
        if hold is None:
            if size <= COUNTED:
                return
            hold = self.hold = self.budget.take(0) if self.line is None else self.budget.watch(0, self)
        if hold.owner is None or size <= hold.size:
            hold.resize(size)
        elif not hold.grow(size - hold.size) and (line := self.line) is not None:
            self.waits = True
            line.pause()

    def is_held_up(self) -> bool:
        return self.waits

    def read_on(self) -> None:
        self.waits = False
        if (line := self.line) is not None:
            line.resume()

    def give_up(self) -> None:
        if (line := self.line) is not None:
            line.fail(NoRoom("there was no room for an answer that came so slowly", nothing_received=False))
        self.drop()

    def wake(self) -> None:
        """Let the caller look again."""
        waiter = self.waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class Response(Answer, eq=False):
    """A whole answer: its caller is woken once, when everything is there."""

    piece: bytes = b""
    """All of it, if it came in one."""
    pieces: BytesIO | None = None
    """Which gives its buffer away as it is, where joining pieces would hold them twice."""

    def take(self, piece: bytes) -> None:
        if self.pieces is not None:
            self.pieces.write(piece)
        elif not self.piece:
            self.piece = piece
        else:
            self.pieces = BytesIO()
            self.pieces.write(self.piece)
            self.pieces.write(piece)
            self.piece = b""
        if self.received > COUNTED:
            self.keep(self.received)

    def drop(self) -> None:
        self.piece, self.pieces = b"", None
        if self.hold is not None:
            super().drop()

    @property
    def body(self) -> bytes:
        """The decoded body; nothing once the answer was closed."""
        return self.piece if self.pieces is None else self.pieces.getvalue()


class StreamedResponse(Answer, eq=False):
    """An answer whose head has arrived. Either pull it (``read``) or have it pushed (``attach``), not both at a time.

    Call ``close`` in the end, in every outcome: a complete and clean answer has already given its connection back.
    """

    high_water: int = 256 * 1024
    sink: Callable[[bytes], bool | None] | None = None
    detached: bool = False
    """By the caller, who has had a sink."""
    pieces: list[bytes] = []
    held: int = 0
    """Bytes that nobody has taken."""
    kept: int = 0
    """Bytes that the caller has taken and still keeps."""
    paused: bool = False
    """By the caller."""

    @property
    def readable(self) -> bool:
        return self.status != 0  # what came before the error

    async def read(self) -> bytes:
        """Return what has arrived, as soon as there is something; ``b""`` at the end. Raises UpstreamError."""
        pieces = self.pieces
        while not pieces:
            if self.error is not None:
                raise self.failure()
            if self.complete:
                return b""
            await self._wait()
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._taken()
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
            self.keeps(size)
        self.keeps(0)
        return b"".join(pieces)

    def keeps(self, size: int) -> None:
        """Say how much of what has been handed over is still kept, such as the beginning of a large event."""
        self.kept = size
        self.keep(self.held + size)

    def attach(self, sink: Callable[[bytes], bool | None]) -> None:
        """Hand every piece to ``sink``, first what has arrived already, without waking a task for each.

        ``sink`` runs in the socket's callback: it must be quick. What it raises there ends the answer and comes out
        of ``finished``. A piece for which it returns False, such as a comment, does not break the silence.
        """
        self.detached = False
        if self.line is not None:
            self.sink = sink
        while self.pieces and not self.detached:
            piece = self.pieces.pop(0)
            self.held -= len(piece)
            sink(piece)
        if not self.detached:
            self._taken()

    def detach(self, piece: bytes = b"") -> None:
        """Keep what comes from now on, and ``piece`` before it, for ``read`` or the next sink; ``finished`` returns."""
        self.sink = None
        self.detached = True
        if piece:
            self.pieces.insert(0, piece)
            self.held += len(piece)
            self.keep(self.held + self.kept)
        self.wake()

    async def finished(self) -> None:
        """Wait until an attached answer has ended or is detached. Raises UpstreamError, or what the sink raised."""
        while not (self.complete or self.detached):
            if self.error is not None:
                raise self.failure()
            await self._wait()

    def pause(self) -> None:
        """Let the upstream wait until ``resume``, by not reading. Meanwhile only the deadline counts."""
        self.paused = True
        if (line := self.line) is not None:
            line.pause()

    def resume(self) -> None:
        """Read on after ``pause``."""
        self.paused = False
        self._read_on()

    def begun(self) -> None:
        self.wake()

    def take(self, piece: bytes) -> bool | None:
        if self.sink is not None:
            return self.sink(piece)
        self.pieces.append(piece)
        self.held += len(piece)
        self.wake()
        if self.held > COUNTED:
            self.keep(self.held + self.kept)
        if self.held > self.high_water and (line := self.line) is not None:
            line.pause()
        return None

    def ended(self, error: Exception | None) -> None:
        self.sink = None  # which may know the caller, who knows us
        super().ended(error)

    def drop(self) -> None:
        self.pieces.clear()
        self.held = self.kept = 0
        super().drop()

    def is_held_up(self) -> bool:
        return self.waits or self.paused or self.held > self.high_water

    def read_on(self) -> None:
        self.waits = False
        self._read_on()

    async def upload(
        self, connection: Line, head: bytes, body: AsyncIterable[bytes], on_sent: "Callable[[Answer], None] | None"
    ) -> None:
        """Send a request as its body comes, at the upstream's pace, until the answer's head is there."""
        loop = asyncio.get_running_loop()
        self.sent = False
        self.send(connection, head, on_sent)
        async for piece in body:
            if self._answered:
                return  # what is left of the body is not wanted any more
            connection.write(piece)
            self.first_byte_at = loop.time() + self.first_byte_s
            if connection.full:
                self.request = self.budget.take(connection.unsent)
                while connection.full and not self._answered:
                    await self._wait()
                self._request_gone()
        self.sent = True
        while not self._answered:
            await self._wait()

    @property
    def _answered(self) -> bool:
        return self.status != 0 or self.error is not None

    def _taken(self) -> None:
        """Note that nothing is left that nobody has taken."""
        self.held = 0
        if self.hold is not None:
            self.keep(self.kept)
        self._read_on()

    def _read_on(self) -> None:
        """Let the connection read, if neither the caller nor what is held stands against it."""
        if not self.is_held_up() and (line := self.line) is not None:
            line.resume()

    async def _wait(self) -> None:
        self.waiter = waiter = asyncio.get_running_loop().create_future()
        try:
            await waiter
        except BaseException:
            self.close()
            raise


def _given_up(*, nothing_received: bool) -> Disconnected:
    return Disconnected("the answer was given up", nothing_received=nothing_received)
