"""One client's connection: one task per request, answers in the order of the requests.

1. A request's handler runs as one task from the moment its head is complete. The next request of the connection begins
   when that task has ended and the client has taken what was written before.
2. A client that closes, even only its sending side, is gone: the handler is cancelled unless it has answered already,
   or wants to be told (``on_gone``). The connection counts until the handler has ended.
3. Every state has a deadline except "the handler is at work"; the server's sweep enforces them.
4. Nothing that a peer sends raises out of a callback: it becomes an answer, or the end of the connection.
"""

import asyncio
import math
import re
import socket
import struct
from typing import TYPE_CHECKING, Final, cast

from tollway.http1.budget import COUNTED, Hold
from tollway.http1.errors import (
    BadHead,
    HeadTooLarge,
    MessageError,
    NoRoomForHead,
    SlowBody,
    SlowHead,
    TooManyConnections,
)
from tollway.http1.exchange import ANSWERED, OPEN, STATUS_LINES, Request, ResponseStream, Upload
from tollway.http1.handshakes import Handshake
from tollway.http1.limits import TURN_BYTES

if TYPE_CHECKING:
    from tollway.http1.server import Server

_NEVER: Final = math.inf
_bare_line_feed: Final = re.compile(rb"(?<!\r)\n").search
_END_OF_HEAD: Final = b"\r\n\r\n"
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # SO_LINGER: on, no seconds

# Phases of a connection.
_WAITING: Final = 0  # for the first byte of a head
_HEAD: Final = 1  # a part of a head is held
_BODY: Final = 2  # a handler runs, its request's body is still coming
_BUSY: Final = 3  # a handler runs, or its answer waits to be read; what arrives is held
_LINGERING: Final = 4  # the last answer is out; what arrives is thrown away
_CLOSING: Final = 5  # closing when everything is written
_GONE: Final = 6


class Connection(asyncio.Protocol):
    """One client. Phases as above; ``deadline`` and ``flush_deadline`` are the sweep's to enforce."""

    __slots__ = (
        "_choked",
        "_handshake",
        "_held",
        "_hold",
        "_last",
        "_lingered",
        "_reading",
        "_request",
        "_task",
        "_unsent",
        "deadline",
        "flush_deadline",
        "known",
        "phase",
        "server",
        "since",
        "stream",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, server: "Server", handshake: Handshake | None = None) -> None:
        self.server = server
        self._handshake = handshake  # that leads to this connection
        self.phase = _WAITING
        self.deadline = _NEVER
        self.flush_deadline = _NEVER
        self.known = False  # has shown whose it is
        self.since = 0.0  # how long it has been idle
        self.stream: ResponseStream | None = None
        self._request: Request | None = None
        self._task: asyncio.Task[None] | None = None
        self._held: bytearray | None = None
        self._hold: Hold | None = None  # what waits here, if it is much
        self._last = False  # the answer that has begun is the last
        self._reading = True
        self._choked = False  # the client does not read as fast as we write
        self._unsent = 0
        self._lingered = 0

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        limits = self.server.limits
        self.transport.set_write_buffer_limits(limits.high_water)
        if self._handshake is not None:
            self.server.leave(self._handshake)
            self._handshake = None
        over = self.server.adopt(self) - limits.max_connections
        self.since = self.server.clock()  # exactly, so that it is newer than all that were here before
        self.deadline = self.server.now + limits.head_timeout_s
        if over > 0 and not self.server.make_room(self, over):
            self.server.refused += 1
            if over > limits.max_refused:
                self.abort()
            else:
                self._refuse(TooManyConnections("too many connections"))

    def data_received(self, data: bytes) -> None:
        if self.phase:
            self._receive(data)
            if len(data) >= TURN_BYTES and self._reading:
                self._pause_reading()  # others have their turn; we go on in the loop's next one
                self.server.loop.call_soon(self._resume_reading)
            return
        end = data.find(_END_OF_HEAD) + 4
        if end < 4 or end > self.server.limits.max_head:
            self._held = bytearray(data)
            self._take_head(0)
        else:
            self._begin(data[:end], data[end:])

    def eof_received(self) -> None:
        request = self._request
        if request is not None and request.state != ANSWERED:
            self.abort()
        else:
            self._close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.phase = _GONE
        self.deadline = self.flush_deadline = _NEVER
        self._held = None
        if self._hold is not None:
            self._hold.release()
        self.server.choked.discard(self)
        if self._request is None or self._task is None:
            self.server.forget(self)
            return
        self._lose(self._request)
        self._task.add_done_callback(self._forget_after)

    def pause_writing(self) -> None:
        self._choked = True
        self.server.choked.add(self)
        self.weigh()
        self._watch_flush()
        if self.stream is not None:
            self.stream.pause()

    def resume_writing(self) -> None:
        self._choked = False
        self.server.choked.discard(self)
        self.weigh()
        if self.phase < _LINGERING:
            self.flush_deadline = _NEVER
        if self.stream is not None:
            self.stream.resume()
        if self.phase == _BUSY and self._request is None:
            self._next()

    # What a request calls.

    def ending(self, keep_alive: bool, minor: int) -> bytes:
        """The last lines of an answer's head. Decides whether the answer is the connection's last."""
        server = self.server
        if keep_alive and self.phase == _BUSY and not server.draining:
            return server.ending if minor else server.ending_kept
        self._last = True
        return server.ending_last

    async def more(self, upload: Upload) -> None:
        """Wait until more of the body is there; raises its error if there is one."""
        if upload.error is not None:
            raise upload.error.again()
        if self.phase > _BODY:
            raise asyncio.CancelledError  # the client has gone
        if upload.continue_due:
            upload.continue_due = False
            self._watch_body(upload)
            if not upload.received and self._request is not None and self._request.state == OPEN:
                self.transport.write(_CONTINUE)
        self._resume_reading()
        upload.held_up = False
        assert upload.waiter is None, "a body has one reader at a time"
        upload.waiter = self.server.loop.create_future()
        try:
            await upload.waiter
        finally:
            upload.waiter = None

    def abort(self, reset: bool = False) -> None:
        """End the connection now. ``reset``: in a way that the peer cannot take for a regular end."""
        if self.phase == _GONE:
            return
        self.phase = _CLOSING
        self.deadline = self.flush_deadline = _NEVER
        if reset and (sock := self.transport.get_extra_info("socket")) is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.transport.abort()

    # What the server calls.

    @property
    def idle(self) -> bool:
        """Whether nobody is at work for it: it waits for a request, or it may have a moment to read its last answer."""
        return self.phase == _WAITING or (not self.known and (self.phase == _HEAD or self.phase == _LINGERING))

    def drain(self) -> None:
        if self.phase == _WAITING:
            self._close()

    def overdue(self, now: float) -> None:
        """A deadline has passed."""
        if self.flush_deadline < now:
            limits = self.server.limits
            if self.transport.get_write_buffer_size() > self._unsent - limits.min_rate * limits.write_timeout_s:
                self.abort()
            else:
                self._watch_flush()
        if self.deadline < now:
            if self.phase == _BODY:
                self._judge_rate(now)
            elif self.phase == _HEAD:
                self._refuse(SlowHead("the request head did not arrive in time"))
            else:
                self._close()

    # Input.

    def _receive(self, data: bytes) -> None:
        """Data in any phase but the first."""
        phase = self.phase
        if phase == _BODY:
            assert self._request is not None and self._request.upload is not None
            self._feed(self._request.upload, data)
        elif phase == _BUSY:
            if self._held is None:
                self._held = bytearray()
            self._held += data
            if len(self._held) > self.server.limits.high_water:
                self._pause_reading()  # and we notice only later that the client has gone
                self.weigh()
        elif phase == _HEAD:
            assert self._held is not None
            searched = len(self._held)
            self._held += data
            self._take_head(max(0, searched - 3))
        elif phase == _LINGERING:
            self._lingered += len(data)
            if self._lingered > self.server.limits.linger_bytes:
                self._close()

    def _take_head(self, searched: int) -> None:
        """Begin the request whose head is held, or wait for the rest of it."""
        held = self._held
        assert held is not None
        server = self.server
        end = held.find(_END_OF_HEAD, searched) + 4
        limit = server.limits.max_head
        if 4 <= end <= limit:
            head = bytes(held[:end])
            del held[:end]
            self._held = None
            if self._hold is not None:
                self.weigh()
            self._begin(head, held)
        elif _bare_line_feed(held, searched, limit):
            self._refuse(BadHead("the request head is not valid HTTP/1.1"))  # at once: it would never end
        elif len(held) > limit:
            self._refuse(HeadTooLarge("the request head is too large"))
        elif len(held) > COUNTED and not self._has_room(len(held)):
            self._refuse(NoRoomForHead("there is no room for the request at the moment"))
        elif self.phase != _HEAD:
            self.phase = _HEAD
            self.deadline = server.now + server.limits.head_timeout_s

    def _has_room(self, size: int) -> bool:
        """Count a large head that has begun, if there is room for what has come of it."""
        grown = size if self._hold is None else size - self._hold.size
        if grown > 0 and not self.server.budget.fits(grown):
            return False
        self.weigh()
        if self._hold is not None:
            self._hold.moved += grown
        return True

    def _begin(self, head: bytes, rest: bytes | bytearray) -> None:
        """Start the handler of the request; ``rest`` is what followed its head."""
        server = self.server
        try:
            parsed, length = server.heads.read(head)
        except MessageError as error:
            self._refuse(error, head)
            return
        self.deadline = _NEVER
        max_body = server.limits.max_body
        body: bytes | None
        hold = None
        upload = None
        if length == 0 or (
            0 < length <= len(rest) and length <= max_body and b"content-encoding" not in parsed.headers
        ):
            self.phase = _BUSY
            body = bytes(rest[:length])
            if length > COUNTED:
                hold = server.budget.take(length)
            if len(rest) > length:
                self._held = bytearray(rest) if isinstance(rest, bytes) else rest
                del self._held[:length]
        else:
            self.phase = _BODY
            body = None
            upload = Upload(parsed, length, max_body, server.budget)
            self._feed(upload, bytes(rest))
            if self.phase == _BUSY and upload.error is None:
                body, hold = upload.take_whole()
            elif upload.error is None and not upload.continue_due:
                self._watch_body(upload)
        request = self._request = Request(self, parsed, body, upload)
        request.hold = hold
        # The same as loop.create_task, 0.2 µs cheaper: without a layer, and without numbering the tasks in their names.
        self._task = asyncio.Task(self._serve(request), loop=server.loop, name="request")

    def _feed(self, upload: Upload, data: bytes) -> None:
        upload.feed(data)
        if upload.error is not None:
            self.deadline = _NEVER
        elif upload.decoder.complete:
            self.phase = _BUSY
            self.deadline = _NEVER
            if upload.decoder.surplus:
                self._held = bytearray(upload.decoder.surplus)
        elif upload.size > self.server.limits.high_water and not upload.whole:
            self._pause_reading()
            upload.held_up = True

    def _watch_body(self, upload: Upload) -> None:
        upload.ends = self.server.now + self.server.limits.body_total_s
        self.deadline = self.server.now + self.server.limits.body_window_s

    def _judge_rate(self, now: float) -> None:
        """A window of a body has ended: did it bring enough?"""
        assert self._request is not None and self._request.upload is not None
        upload = self._request.upload
        limits = self.server.limits
        enough = upload.received >= limits.min_rate * limits.body_window_s or not self._reading
        if enough and now < upload.ends:
            upload.received = 0
            self.deadline = min(now + limits.body_window_s, upload.ends)
        else:
            self.deadline = _NEVER
            upload.fail(SlowBody("the request body did not arrive in time"))

    def _pause_reading(self) -> None:
        if self._reading:
            self._reading = False
            self.transport.pause_reading()

    def _resume_reading(self) -> None:
        if not self._reading and not self.transport.is_closing():
            self._reading = True
            self.transport.resume_reading()

    # The life of a request.

    async def _serve(self, request: Request) -> None:
        server = self.server
        try:
            await server.handler(request)
        except MessageError as error:
            self._answer_for(request, error.status, error.reason)
        except Exception as error:
            server.on_crash(error)
            self._answer_for(request, 500, "internal error")
        except BaseException:
            self.abort()
            raise
        if request.state != ANSWERED and not request.closed:
            server.on_crash(RuntimeError("a handler ended without the end of an answer"))
            self._answer_for(request, 500, "internal error")
        self._request = self._task = None
        if request.hold is not None or request.upload is not None:
            request.let_go()
        if self.phase < _LINGERING:
            self._next()

    def _answer_for(self, request: Request, status: int, reason: str) -> None:
        """Answer for a handler that could not; an answer that has begun is cut instead."""
        if request.state == OPEN:
            request.respond(status, *self.server.render_error(status, reason))
        elif self.stream is not None:
            self.stream.abort()

    def _next(self) -> None:
        """A request has been answered: turn to the next one, or to the end."""
        server = self.server
        if self._hold is not None:
            self.weigh()
        if self.phase == _BODY or self._last or server.draining:
            self._finish()
            return
        if self._choked:
            return  # until the client has taken the answer
        if server.now > self.since:  # it is coarse, and must not make a new connection older than those before it
            self.since = server.now
        if self._held is None:
            self.phase = _WAITING
            self.deadline = server.now + server.limits.keep_alive_s
        else:
            self.phase = _HEAD
            self.deadline = server.now + server.limits.head_timeout_s
            self._take_head(0)
        if self.phase != _BUSY or len(self._held or b"") <= server.limits.high_water:
            self._resume_reading()

    def _lose(self, request: Request) -> None:
        request.closed = True
        if self.stream is not None:
            self.stream.lose()
            self.stream = None
        if request.state != ANSWERED and self._task is not None:
            if request.on_gone is None:
                self._task.cancel()
            else:
                request.on_gone()
        if request.upload is not None and request.upload.waiter is not None:
            request.upload.waiter.cancel()

    def _forget_after(self, task: asyncio.Task[None]) -> None:
        if self._request is not None:
            self._request.let_go()
        self._request = self._task = None
        self.server.forget(self)

    # What waits here: for the client to read it, for its turn, or for the end of its head. The owner of ``_hold``.

    def weigh(self) -> None:
        """Count it, if it is much; called where it may have grown or shrunk."""
        size = 0 if self._held is None else len(self._held)
        if self._choked:
            size += self.transport.get_write_buffer_size()
        hold = self._hold
        if hold is not None:
            hold.moved += max(0, hold.size - size)
            if size > COUNTED:
                hold.resize(size)
            else:
                hold.release()
                self._hold = None
        elif size > COUNTED and self.phase != _GONE:
            self._hold = self.server.budget.watch(size, self)

    def is_held_up(self) -> bool:
        return not self._choked and self.phase != _HEAD

    def read_on(self) -> None:
        """What waits to be written, or for its turn, does not wait for room."""

    def give_up(self) -> None:
        if self._hold is not None:
            self._hold.release()
            self._hold = None
        if self.phase == _HEAD:
            self._refuse(NoRoomForHead("there was no room for a head that came so slowly"))
        else:
            self.abort()

    # The end.

    def _refuse(self, error: MessageError, head: bytes | None = None) -> None:
        """Answer what cannot become a request, and read no further."""
        server = self.server
        headers, body = server.render_error(error.status, error.reason)
        headers += server.lines_for_refused(bytes(self._held or b"") if head is None else head)
        lines = STATUS_LINES[error.status], headers, len(body), server.ending_last, body
        self.transport.write(b"%b%bcontent-length: %d\r\n%b%b" % lines)
        self._finish()

    def _finish(self) -> None:
        """Say that nothing more will come, and give a client that still sends a moment to read what it was told."""
        if self.transport.is_closing():
            return  # a write has failed, connection_lost is on its way
        if self.transport.can_write_eof():
            self.transport.write_eof()
        elif self.phase == _BUSY:  # TLS can only be closed as a whole: do it where no more is expected
            self._close()
            return
        self.phase = _LINGERING
        self._held = None
        if self._hold is not None:
            self.weigh()
        self.deadline = self.server.now + self.server.limits.linger_s
        self._resume_reading()

    def _close(self) -> None:
        """Close when everything is written; a client that does not take it is cut by the flush deadline."""
        self.phase = _CLOSING
        self.deadline = _NEVER
        self._watch_flush()
        self.transport.close()

    def _watch_flush(self) -> None:
        self._unsent = self.transport.get_write_buffer_size()
        self.flush_deadline = self.server.now + self.server.limits.write_timeout_s
