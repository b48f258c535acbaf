"""What can go wrong at a provider, as values: adapters and the client return them, routing decides on their kind."""

import enum

import msgspec


class FailureKind(enum.Enum):
    """Why an attempt failed. The kind decides what happens next (``routing/retry.py``)."""

    CONNECT = "connect"  # refused, reset, DNS, TLS: nothing was sent or nothing came back
    TIMEOUT = "timeout"  # no connection, no first byte, silence, or out of time
    BROKEN = "broken"  # the connection ended in the middle of an answer
    INVALID = "invalid_response"  # an answer that is none: bad framing, no JSON, no choices, too large
    BUSY = "rate_limited"  # the provider's own 429
    QUOTA = "quota_exhausted"  # the provider's account has no money left
    CREDENTIAL = "credential_refused"  # 401, 402, 403: ours, never the client's
    NO_CREDENTIAL = "no_credential"  # neither the key nor the platform has a key for this provider
    MODEL = "model_unknown_upstream"  # 404: our configured model name is wrong
    SERVER = "server_error"  # 5xx, and what else is the provider's fault
    CONTEXT = "context_length_exceeded"
    CONTENT = "content_filter"
    REQUEST = "request_refused"  # 400, 413, 422 of the client's own making
    UNSUPPORTED = "unsupported"  # not sent: this provider's dialect cannot carry what the request asks for


class UpstreamFailure(msgspec.Struct, frozen=True):
    """One failed attempt. ``message`` is safe to show to a client: no secret, no address, no echoed input."""

    kind: FailureKind
    message: str
    status: int = 0
    """The provider's HTTP status, 0 when there was none."""
    code: str | None = None
    """For REQUEST, CONTEXT, CONTENT, UNSUPPORTED and QUOTA: the error code for the client."""
    type: str = "invalid_request_error"
    param: str | None = None
    retry_after_s: float | None = None
    once_more: bool = True
    """Whether the same target may be asked once more, if failures of its kind are."""
