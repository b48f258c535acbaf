"""What a handler holds: the :class:`Request`, its body as it arrives, and the answer in one piece or in many."""

import asyncio
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from io import BytesIO
from typing import TYPE_CHECKING, Final

from tollway.http1.budget import COUNTED, Budget, Hold
from tollway.http1.errors import BodyTooLarge, MessageError, NoRoomForBody, UnsupportedCoding
from tollway.http1.framing import NO_LIMIT, body_decoder
from tollway.http1.head import RequestHead

if TYPE_CHECKING:
    from tollway.http1.inbound import Connection

ONE_WRITE: Final = 64 * 1024
"""Bytes of a body above which it is written by itself rather than copied behind its head."""
_BODILESS: Final = frozenset((204, 304))

# States of an answer.
OPEN: Final = 0
STREAMING: Final = 1
ANSWERED: Final = 2


class _StatusLines(dict[int, bytes]):
    def __missing__(self, status: int) -> bytes:
        return b"HTTP/1.1 %d \r\n" % status


STATUS_LINES: Final = _StatusLines({s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus})


class Upload:
    """A body that had not arrived with its head.

    Where its handler wants it whole, room for all of it is taken at once, if its length is known; otherwise as it
    comes. Where there is none, or it comes too slowly while others need the room, it fails.
    """

    __slots__ = (
        "_budget",
        "_buffer",
        "continue_due",
        "decoder",
        "ends",
        "error",
        "held_up",
        "hold",
        "kept",
        "length",
        "limit",
        "received",
        "size",
        "waiter",
        "whole",
    )

    def __init__(self, head: RequestHead, framing: int, max_body: int, budget: Budget) -> None:
        self.length = framing
        self.decoder = body_decoder(framing, max_body)
        self._budget = budget
        # Not a list: tiny pieces must not cost more than their bytes. And it gives its buffer away as it is.
        self._buffer = BytesIO()
        self.size = 0  # bytes that nobody has taken
        self.kept = 0  # bytes that the handler has taken and still keeps
        self.hold: Hold | None = None
        self.held_up = False  # it is we who let the client wait
        self.received = 0  # bytes since the last look at the rate
        self.ends = 0.0  # the hard end, in loop time
        self.whole = False  # wanted in one piece …
        self.limit = NO_LIMIT  # … of so many bytes at most
        self.waiter: asyncio.Future[None] | None = None
        self.continue_due = head.expect_continue
        self.error: MessageError | None = None
        if framing > max_body:
            self.error = BodyTooLarge("the body is too large")
        elif head.headers.get(b"content-encoding", b"identity").lower() != b"identity":
            self.error = UnsupportedCoding("the body is compressed")

    @property
    def complete(self) -> bool:
        """Whether all of it has come and may be had."""
        return self.decoder.complete and self.error is None

    def feed(self, data: bytes) -> None:
        """Take what arrived. An error is kept for whoever asks for the body."""
        if self.error is not None:
            return
        try:
            piece = self.decoder.feed(data)
        except MessageError as error:
            self.fail(error.again())
            return
        self.received += len(data)
        self._buffer.write(piece)
        self.size += len(piece)
        if self.size > self.limit:
            self.fail(BodyTooLarge("the body is too large"))
            return
        if self.size > COUNTED or self.hold is not None:
            self._count(self.size + self.kept, must_fit=self.whole)
            if self.hold is not None:
                self.hold.moved += len(piece)
        if self.decoder.complete or (piece and not self.whole):
            self.wake()

    def want_whole(self, limit: int) -> None:
        """Collect from now on; what is already known to be above the limit is an error at once."""
        if self.error is not None:
            return
        self.whole = True
        self.limit = limit
        if max(self.length, self.size) > limit:
            self.fail(BodyTooLarge("the body is too large"))
        elif self.length > COUNTED:
            self._count(self.length, must_fit=True)

    def keeps(self, size: int) -> None:
        self.kept = size
        if self.error is None:
            self._count(self.size + size, must_fit=True)

    def fail(self, error: MessageError) -> None:
        """Keep the first error for whoever asks for the body, and nothing else."""
        if self.error is None:
            self.error = error
        self.let_go()
        self.wake()

    def take(self) -> bytes:
        """What has come and nobody has taken."""
        data = self._buffer.getvalue()
        self._buffer = BytesIO()
        self.size = 0
        if self.hold is not None and not self.whole:
            self._count(self.kept)
        return data

    def take_whole(self) -> tuple[bytes, Hold | None]:
        """A complete body of which nothing was taken, and what it counts."""
        body = self._buffer.getvalue()
        hold, self.hold = self.hold, None
        if hold is not None:
            hold.settle()
        self.let_go()
        return body, hold

    def let_go(self) -> None:
        """Keep nothing of the body."""
        self._buffer = BytesIO()
        self.size = 0
        if self.hold is not None:
            self.hold.release()
            self.hold = None

    def _count(self, size: int, *, must_fit: bool = False) -> None:
        """Hold so much, but never less than was taken for all of a body; an error where there is no room for it."""
        held = 0 if self.hold is None else self.hold.size
        if self.whole and size <= held:
            return
        if must_fit and not self._budget.fits(size - held):
            self.fail(NoRoomForBody("there is no room for the body at the moment"))
        elif self.hold is not None:
            self.hold.resize(size)
        elif size > COUNTED:
            self.hold = self._budget.watch(size, self)

    # The owner of ``hold``.

    def is_held_up(self) -> bool:
        return self.held_up or self.decoder.complete

    def read_on(self) -> None:
        """A body never waits for room."""

    def give_up(self) -> None:
        self.fail(NoRoomForBody("there was no room for a body that came so slowly"))

    def wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


class Request:
    """One request, and the way to answer it: :meth:`respond` once, or :meth:`start` once.

    ``body`` is the complete body if it arrived with the head, else ``None`` until :meth:`read_body` has returned.
    ``closed`` says that the client has gone; answering is then allowed and does nothing. ``lines`` are header lines
    for whatever answer it gets, those that no handler gives included.
    """

    __slots__ = (
        "_connection",
        "body",
        "closed",
        "headers",
        "hold",
        "keep_alive",
        "lines",
        "method",
        "minor",
        "on_gone",
        "path",
        "query",
        "state",
        "target",
        "upload",
    )

    def __init__(self, connection: "Connection", head: RequestHead, body: bytes | None, upload: Upload | None) -> None:
        self.method = head.method
        self.target = head.target
        self.path = head.path
        self.query = head.query
        self.headers = head.headers.copy()  # the head may serve the client's next request, too
        self.keep_alive = head.keep_alive
        self.minor = head.minor
        self.lines = b""
        self.body = body
        self.hold: Hold | None = None
        """What the body counts in the budget, if it is large and there."""
        self.upload = upload
        self.closed = False
        self.on_gone: Callable[[], None] | None = None
        """Called when the client goes, in place of cancelling the handler; must not raise."""
        self.state = OPEN
        self._connection = connection

    @property
    def content_length(self) -> int | None:
        """Bytes of the body, come or not; None where only its end will say."""
        if self.body is None and self.upload is not None:
            return self.upload.length if self.upload.length >= 0 else None
        return len(self.body or b"")

    async def read_body(self, limit: int = NO_LIMIT) -> bytes:
        """The whole body. Raises :class:`MessageError` if it is too large, too slow, compressed or not well formed.

        Too large is above ``limit`` bytes or the server's own limit: an error as soon as it is known.
        """
        if self.body is None:
            upload = self._unread()
            upload.want_whole(limit)
            while not upload.complete:
                await self._connection.more(upload)
            self.body, self.hold = upload.take_whole()
            self.upload = None
        elif len(self.body) > limit:
            raise BodyTooLarge("the body is too large")
        return self.body

    async def iter_body(self) -> AsyncIterator[bytes]:
        """The body in the pieces in which it comes; a slow consumer slows the client. Errors as :meth:`read_body`."""
        if self.body is not None:
            if self.body:
                yield self.body
            return
        upload = self._unread()
        while upload.size or not upload.complete:
            if upload.size:
                yield upload.take()
            else:
                await self._connection.more(upload)

    def vouch(self) -> None:
        """Say that the client has shown whose it is: where connections are short, those that have not go first."""
        self._connection.known = True

    def keeps(self, size: int) -> None:
        """Say how much of what :meth:`iter_body` gave is still kept; where there is no room for it, the body fails."""
        if self.upload is not None:
            self.upload.keeps(size)

    def let_go(self) -> None:
        """The connection's: the handler has ended, and nothing of the body is needed any more."""
        self.body = None
        if self.upload is not None:
            self.upload.let_go()
        if self.hold is not None:
            self.hold.release()

    def respond(self, status: int, headers: bytes, body: bytes) -> None:
        """Answer. ``headers``: encoded lines, each with its CR LF; date, length and connection are added here."""
        if self.state:
            raise RuntimeError("a request is answered once")
        if self.closed:
            self.state = ANSWERED
            return
        connection = self._connection
        ending = connection.ending(self.keep_alive, self.minor)
        if status in _BODILESS:
            head = b"%b%b%b%b" % (STATUS_LINES[status], headers, self.lines, ending)
            body = b""
        else:
            lines = STATUS_LINES[status], headers, self.lines, len(body), ending
            head = b"%b%b%bcontent-length: %d\r\n%b" % lines
            if self.method == b"HEAD":
                body = b""
        self.state = ANSWERED
        if len(body) <= ONE_WRITE:
            connection.transport.write(head + body)
        else:
            connection.transport.write(head)
            connection.transport.write(body)

    def start(self, status: int, headers: bytes) -> "ResponseStream":
        """Begin an answer of unknown length; ``headers`` as in :meth:`respond`."""
        if self.state:
            raise RuntimeError("a request is answered once")
        connection = self._connection
        chunked = self.minor == 1
        bodiless = self.method == b"HEAD" or status in _BODILESS
        stream = ResponseStream(self, connection, chunked, not bodiless and not self.closed)
        if not self.closed:
            # without chunks only the end of the connection says where the answer ends
            ending = connection.ending(self.keep_alive and chunked, self.minor)
            coding = b"transfer-encoding: chunked\r\n" if chunked and status not in _BODILESS else b""
            connection.stream = stream  # first, because even this may be more than the client takes
            connection.transport.write(b"%b%b%b%b%b" % (STATUS_LINES[status], headers, self.lines, coding, ending))
        self.state = STREAMING
        return stream

    def _unread(self) -> Upload:
        if self.upload is None:
            raise RuntimeError("the body has been read")
        return self.upload


class ResponseStream:
    """An answer in pieces. While ``paused`` the client is slower than we are: write no more until ``on_resume``.

    Writing is always allowed; to a client that has gone it does nothing.
    """

    __slots__ = (
        "_chunked",
        "_connection",
        "_open",
        "_request",
        "_transport",
        "_waiter",
        "on_pause",
        "on_resume",
        "paused",
    )

    def __init__(self, request: Request, connection: "Connection", chunked: bool, is_open: bool) -> None:
        self._request = request
        self._connection = connection
        self._transport = connection.transport
        self._chunked = chunked
        self._open = is_open
        self._waiter: asyncio.Future[None] | None = None
        self.paused = False
        self.on_pause: Callable[[], None] | None = None
        self.on_resume: Callable[[], None] | None = None

    def write(self, data: bytes) -> None:
        """Send one piece; an empty one is left out."""
        if data and self._open:
            self._transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def end(self) -> None:
        """The answer is complete. A second time: nothing."""
        if self._open and self._chunked:
            self._transport.write(b"0\r\n\r\n")
        self._finish()

    def abort(self) -> None:
        """Cut the connection, so that the client cannot take the answer for complete. After :meth:`end`: nothing."""
        if self._request.state == STREAMING:
            self._connection.abort(reset=not self._chunked)
        self._finish()

    async def drained(self) -> None:
        """Wait while ``paused``; returns at once when the client has gone. One waiter at a time."""
        if self.paused:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def pause(self) -> None:
        """The connection's: the client has fallen behind."""
        self.paused = True
        if self.on_pause is not None:
            self.on_pause()

    def resume(self) -> None:
        """The connection's: the client has caught up."""
        self._release()
        if self.on_resume is not None:
            self.on_resume()

    def lose(self) -> None:
        """The connection's: the client has gone."""
        self._open = False
        self._release()
        self.on_pause = self.on_resume = None  # they know whoever answers, who knows this

    def _finish(self) -> None:
        self.lose()
        self._request.state = ANSWERED
        self._connection.stream = None

    def _release(self) -> None:
        self.paused = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
