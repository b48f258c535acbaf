"""What went wrong on the connection to a provider, in the words of the domain."""

from collections.abc import Mapping
from email.utils import formatdate

from tollway.domain.failures import FailureKind, UpstreamFailure
from tollway.http1.errors import (
    ConnectFailed,
    ConnectTimeout,
    Disconnected,
    FirstByteTimeout,
    IdleTimeout,
    TlsFailed,
    TotalTimeout,
    UpstreamError,
)

_KINDS: dict[type[UpstreamError], FailureKind] = {
    ConnectFailed: FailureKind.CONNECT,
    TlsFailed: FailureKind.CONNECT,
    ConnectTimeout: FailureKind.TIMEOUT,
    FirstByteTimeout: FailureKind.TIMEOUT,
    IdleTimeout: FailureKind.TIMEOUT,
    TotalTimeout: FailureKind.TIMEOUT,
    Disconnected: FailureKind.BROKEN,
}


def failure_of(error: UpstreamError) -> UpstreamFailure:
    """The failure that this error of the client is; its reason is our own text and safe to show."""
    kind = _KINDS.get(type(error), FailureKind.INVALID)
    if kind is FailureKind.BROKEN and error.nothing_received:
        kind = FailureKind.CONNECT
    return UpstreamFailure(kind, error.reason)


def dated(headers: Mapping[bytes, bytes], now_unix: float) -> Mapping[bytes, bytes]:
    """The head of an answer with the time at which it came where it names none: ``retry-after`` may be a date."""
    if b"date" in headers or b"retry-after" not in headers:
        return headers
    return {**headers, b"date": formatdate(now_unix, usegmt=True).encode()}
