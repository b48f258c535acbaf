"""What went wrong on the connection to a provider, in the words of the domain."""

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
