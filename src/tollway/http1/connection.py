"""One connection to an upstream and the requests that it carries, one after the other.

1. An answer that ends in any way but completely ends the connection.
2. A connection is used again only if the answer was framed, nothing followed it, and our request had gone out whole.
3. Bytes that arrive while no answer is awaited end the connection: they could only be taken for the next call's.
4. What comes fast is read a piece in each turn of the loop, so that others have theirs.
5. Whoever gives an answer up first checks ``connection.answer is answer``: the connection may belong to another by now.
"""

import asyncio
from typing import Protocol

from tollway.http1.answer import Answer
from tollway.http1.channel import Channel
from tollway.http1.errors import (
    BadResponse,
    BodyTooLarge,
    Disconnected,
    FirstByteTimeout,
    IdleTimeout,
    MessageError,
    ResponseTooLarge,
    TotalTimeout,
    UpstreamError,
)
from tollway.http1.framing import Body, UntilCloseBody, body_decoder
from tollway.http1.head import parse_response_head
from tollway.http1.limits import TURN_BYTES, ClientLimits
from tollway.http1.origin import Origin
from tollway.http1.proxy import Proxy

_OF_THE_BODY = frozenset({b"content-encoding", b"content-length", b"content-type", b"transfer-encoding", b"set-cookie"})


class Keeper(Protocol):
    """What a connection needs of its pool."""

    @property
    def limits(self) -> ClientLimits: ...
    def release(self, connection: "Connection") -> None:
        """Take back an open, clean connection."""

    def forget(self, connection: "Connection") -> None:
        """Drop a connection that is gone."""


class Connection(asyncio.Protocol):
    """The reading half of HTTP/1.1 for one connection. Never blocks, never raises."""

    __slots__ = (
        "_answered",
        "_body",
        "_channel",
        "_heard",
        "_held",
        "_interim",
        "_keep_alive",
        "_keeper",
        "_paused",
        "_proxy",
        "_resting",
        "answer",
        "full",
        "origin",
        "quiet_since",
    )

    def __init__(self, keeper: Keeper, origin: Origin, channel: Channel, proxy: Proxy | None, now: float) -> None:
        self._keeper = keeper
        self._channel = channel
        self._proxy = proxy
        self._heard = False  # since the last check
        self.quiet_since = now
        self._held: bytearray | None = None  # a head that has begun
        self._body: Body | None = None
        self._interim = 0
        self._answered = False
        self._keep_alive = True
        self._paused = False  # by the answer
        self._resting = False  # until the next turn of the loop
        self.full = False
        self.answer: Answer | None = None
        self.origin = origin
        channel.set_protocol(self)

    def begin(self, answer: Answer, message: bytes) -> None:
        """Send a request; its answer goes to ``answer``."""
        self.answer = answer
        self._answered = False
        self._interim = 0
        self._heard = True
        if self._proxy is not None:
            message = self._proxy.absolute_form(self.origin, message)
        self._channel.write(message)

    def write(self, data: bytes) -> None:
        """Send more of the request that has begun."""
        self._channel.write(data)

    @property
    def unsent(self) -> int:
        """Bytes that wait for the upstream to take them."""
        return self._channel.get_write_buffer_size()

    @property
    def usable(self) -> bool:
        """Whether a request may be sent."""
        return not self._channel.is_closing()

    def pause(self) -> None:
        """Stop reading until ``resume``."""
        if not self._paused:
            self._paused = True
            if not self._resting:
                self._channel.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self._paused:
            self._paused = False
            self._heard = True
            if not self._resting:
                self._channel.resume_reading()

    def cut(self) -> None:
        """End the connection at once, and leave the answer to the caller."""
        self.answer = self._body = self._held = None
        self._channel.abort()

    def fail(self, error: Exception) -> None:
        """End the connection, and the answer with this error if one is running."""
        answer = self.answer
        self.cut()
        if answer is not None:
            answer.ended(error)

    def close(self) -> None:
        """End an idle connection in the polite way."""
        self._channel.close()

    def check(self, now: float) -> None:
        """Judge the time; called by the pool's sweeper."""
        if self._heard:
            self._heard = False
            self.quiet_since = now
        quiet_s = now - self.quiet_since
        answer = self.answer
        if answer is None:
            if quiet_s >= self._keeper.limits.idle_s:
                if self.usable:
                    self._channel.close()
                else:  # a polite end that is stuck in a full socket
                    self._channel.abort()
        elif now >= answer.deadline:
            self.fail(TotalTimeout("the deadline of the request passed", nothing_received=not self._answered))
        elif self._paused:
            pass
        elif answer.received == 0 or answer.first_byte_due:
            if now >= answer.first_byte_at:
                self.fail(FirstByteTimeout("the answer did not begin in time", nothing_received=not self._answered))
        elif quiet_s >= answer.idle_s:
            self.fail(IdleTimeout("the answer fell silent", nothing_received=False))

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        if len(data) >= TURN_BYTES:
            self._give_way()
        body = self._body
        if body is None:
            self._read_head(data)
            return
        answer = self.answer
        assert answer is not None
        try:
            piece = body.feed(data)
            if piece:
                answer.received += len(piece)
                if answer.received > answer.max_body:
                    raise BodyTooLarge("the answer is too large")
                if answer.take(piece) is not False:
                    self._heard = True
        except BodyTooLarge:
            self.fail(ResponseTooLarge("the answer is too large", nothing_received=False))
        except MessageError as error:
            self.fail(BadResponse(error.reason, nothing_received=False))
        except Exception as error:  # the caller's sink
            self.fail(error)
        else:
            if body.complete and self.answer is answer:
                self._finish(answer, clean=not body.surplus)

    def eof_received(self) -> None:
        answer = self.answer
        if answer is None:
            return
        if isinstance(self._body, UntilCloseBody):
            self._finish(answer, clean=True)
        else:
            self.fail(self._disconnected())

    def connection_lost(self, exc: Exception | None) -> None:
        self._keeper.forget(self)
        if self.answer is not None:
            self.fail(self._disconnected())

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False
        if self.answer is not None and not self.answer.sent:
            self.answer.wake()

    # Inside.

    def _give_way(self) -> None:
        """Read no more in this turn of the loop."""
        if not self._resting and not self._paused:
            self._resting = True
            self._channel.pause_reading()
            asyncio.get_running_loop().call_soon(self._take_turn)

    def _take_turn(self) -> None:
        self._resting = False
        if not self._paused and not self._channel.is_closing():
            self._channel.resume_reading()

    def _read_head(self, data: bytes) -> None:
        answer = self.answer
        if answer is None:
            self._channel.abort()
            return
        self._heard = self._answered = True
        limits = self._keeper.limits
        held = self._held
        if held is not None:
            seen = max(0, len(held) - 3)
            held += data
            if held.find(b"\r\n\r\n", seen) < 0 and len(held) <= limits.max_head:
                return
            data = bytes(held)
            self._held = None
        while True:
            end = data.find(b"\r\n\r\n") + 4
            if end == 3 and len(data) <= limits.max_head:
                self._held = bytearray(data)
                return
            if end == 3 or end > limits.max_head:
                self._refuse("the head of the answer is too large")
                return
            try:
                head = parse_response_head(data[:end], b"HEAD" if answer.is_head else b"POST")
            except UpstreamError as error:
                self.fail(error.again())
                return
            data = data[end:]
            if head.status >= 200:
                break
            self._interim += 1
            if self._interim > limits.max_interim:
                self._refuse("too many interim answers")
                return
        self._keep_alive = head.keep_alive
        self._begin_body(answer, head.status, head.headers, head.framing, data)

    def _begin_body(self, answer: Answer, status: int, headers: dict[bytes, bytes], framing: int, data: bytes) -> None:
        coding = headers.get(b"content-encoding")
        if coding is not None and coding.lower() != b"identity":
            if status < 400:
                self._refuse("the answer is compressed although we asked for identity")
            else:
                self._finish_unread(answer, status, headers)
            return
        if framing > answer.max_body:
            self.fail(ResponseTooLarge("the answer is too large", nothing_received=False))
            return
        headers.pop(b"set-cookie", None)
        answer.status = status
        answer.headers = headers
        answer.begun()
        if framing == len(data):  # the usual small answer: all of it in one segment
            if data:
                answer.received = framing
                answer.take(data)
            self._finish(answer, clean=True)
            return
        self._body = body_decoder(framing, answer.max_body)
        self.data_received(data)

    def _finish_unread(self, answer: Answer, status: int, headers: dict[bytes, bytes]) -> None:
        """The head of an error is enough: its body, which we cannot read, is taken for empty and not waited for."""
        answer.status = status
        answer.headers = {name: value for name, value in headers.items() if name not in _OF_THE_BODY}
        answer.begun()
        self._finish(answer, clean=False)

    def _finish(self, answer: Answer, clean: bool) -> None:
        """The answer is complete: give the connection back or end it (rule 2), then tell the caller."""
        self.answer = self._body = None
        if self._paused:
            self.resume()
        channel = self._channel
        if not clean or not answer.sent or channel.get_write_buffer_size():
            channel.abort()
        elif self._keep_alive and not channel.is_closing():
            self._keeper.release(self)
        else:
            channel.close()
        answer.ended(None)

    def _refuse(self, reason: str) -> None:
        self.fail(BadResponse(reason, nothing_received=False))

    def _disconnected(self) -> Disconnected:
        if self._answered:
            return Disconnected("the connection ended inside the answer", nothing_received=False)
        return Disconnected("the connection ended before the answer")
