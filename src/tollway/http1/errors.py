"""What can go wrong on a connection, by whose fault it is: the client's in server.py, the upstream's in client.py.

Every ``reason`` is our own text: it names no address and repeats nothing of what the peer sent, so it may be shown.
"""

# ruff: noqa: N818 (the names say what happened; "Error" after each would say nothing)

from typing import ClassVar, Self


class MessageError(Exception):
    """The peer sent something that we refuse. The server answers ``status`` and closes the connection."""

    status: ClassVar[int] = 400

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def again(self) -> Self:
        """The same, fresh, to be raised: one that is kept must not learn of frames, or it keeps what they hold."""
        return type(self)(self.reason)


class BadHead(MessageError):
    """A head that is not exactly HTTP/1.0 or HTTP/1.1, or that two readers could read in two ways."""


class BadFraming(MessageError):
    """Nobody could say for certain where this message ends."""


class SlowHead(MessageError):
    """The head was not complete in time."""

    status = 408


class SlowBody(MessageError):
    """The body came below the minimum rate."""

    status = 408


class BodyTooLarge(MessageError):
    """The body is, or says that it will be, above the limit."""

    status = 413


class TargetTooLong(MessageError):
    """The request target is above the limit."""

    status = 414


class UnsupportedCoding(MessageError):
    """The body is compressed; we take bodies as they are."""

    status = 415


class ExpectationFailed(MessageError):
    """An ``Expect`` other than ``100-continue``."""

    status = 417


class HeadTooLarge(MessageError):
    """The head is above the limit of bytes or of lines."""

    status = 431


class TooManyConnections(MessageError):
    """There is no room for another connection."""

    status = 503


class NoRoomForBody(MessageError):
    """This process holds as much as it may."""

    status = 503


class NoRoomForHead(MessageError):
    """This process holds as much as it may."""

    status = 503


class UpstreamError(Exception):
    """The upstream gave no answer that can be used.

    ``nothing_received`` is true while not one byte of the answer had arrived.
    """

    def __init__(self, reason: str, *, nothing_received: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.nothing_received = nothing_received

    def again(self) -> Self:
        """As :meth:`MessageError.again`."""
        return type(self)(self.reason, nothing_received=self.nothing_received)


class ConnectFailed(UpstreamError):
    """No address of the upstream accepted a connection, or none is allowed."""


class ConnectTimeout(UpstreamError):
    """No connection in time."""


class TlsFailed(UpstreamError):
    """The TLS handshake failed, or the certificate does not prove the name."""


class Disconnected(UpstreamError):
    """The connection ended before the answer did."""


class FirstByteTimeout(UpstreamError):
    """The answer did not begin in time."""


class IdleTimeout(UpstreamError):
    """The answer fell silent in its middle."""


class TotalTimeout(UpstreamError):
    """The deadline of the whole request passed."""


class BadResponse(UpstreamError):
    """The answer is not HTTP/1.x as we accept it."""


class ResponseTooLarge(UpstreamError):
    """The answer is above the caller's limit."""


class NoRoom(UpstreamError):
    """It is not the upstream's fault: this process has no room for the answer, or for another connection."""
