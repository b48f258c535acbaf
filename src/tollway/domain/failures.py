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
    QUOTA = "quota_exhausted"  # 402: the account at the provider has no money, or no quota, left
    CREDENTIAL = "credential_refused"  # 401, 403: ours, never the client's
    NO_CREDENTIAL = "no_credential"  # neither the key nor the platform has a key for this provider
    MODEL = "model_unknown_upstream"  # 404: our configured model name is wrong
    OVERLOADED = "gateway_overloaded"  # ours: no room for another connection, or for the answer
    SERVER = "server_error"  # 5xx, and what else is the provider's fault
    CONTEXT = "context_length_exceeded"
    CONTENT = "content_filter"
    REQUEST = "request_refused"  # 400, 413, 422 of the client's own making
    UNPRICED = "unpriced"  # not sent: nobody knows what it would cost, on a credential that keys share
    UNSUPPORTED = "unsupported"  # not sent: this provider's dialect cannot carry what the request asks for


OF_THE_REQUEST = frozenset({FailureKind.REQUEST, FailureKind.CONTEXT, FailureKind.CONTENT})
"""The client's own making: the provider is well."""

OWN_WORDS = {
    FailureKind.CONNECT: "The connection failed.",
    FailureKind.TIMEOUT: "The provider took too long.",
    FailureKind.BROKEN: "The connection was lost.",
    FailureKind.INVALID: "The provider answered with something that is no answer.",
    FailureKind.BUSY: "The provider's rate limit is reached.",
    FailureKind.QUOTA: "The account at the provider has no money or no quota left.",
    FailureKind.CREDENTIAL: "The provider refused the gateway's credential.",
    FailureKind.NO_CREDENTIAL: "There is no provider key.",
    FailureKind.MODEL: "The provider does not know the model.",
    FailureKind.OVERLOADED: "This gateway had no room for it.",
    FailureKind.SERVER: "The provider failed.",
    FailureKind.CONTEXT: "The prompt is longer than the model's context.",
    FailureKind.CONTENT: "The provider's content filter refused the request.",
    FailureKind.REQUEST: "The provider refused the request.",
    FailureKind.UNPRICED: "Its price is not known.",
    FailureKind.UNSUPPORTED: "The provider cannot take this request.",
}
"""What each kind means, for the log and the ledger."""


class Said(msgspec.Struct, frozen=True):
    """What a provider itself said of a failure; empty texts where it said nothing.

    Cleaned of secrets, addresses and names of accounts, and bounded (``providers/cleaning.py``). It is for those who
    run the gateway; a client sees it where :mod:`~tollway.wire.openai_errors` says so.
    """

    message: str = ""
    code: str = ""
    type: str = ""
    request_id: str = ""
    """The provider's own name of the request: what its support asks for."""
    of_an_account: bool = False
    """Whether it speaks of an account, its plan, its limits: which is nobody's business but its owner's."""


NOTHING_SAID = Said()


class UpstreamFailure(msgspec.Struct, frozen=True):
    """One failed attempt. ``message`` is safe to show to a client: no secret, no address, no echoed input."""

    kind: FailureKind
    message: str
    """The provider's words for REQUEST, CONTEXT and CONTENT, which are about the request; ours for all else."""
    status: int = 0
    """The provider's HTTP status, 0 when there was none."""
    code: str | None = None
    """For REQUEST, CONTEXT, CONTENT, UNSUPPORTED and QUOTA: the error code for the client."""
    type: str = "invalid_request_error"
    param: str | None = None
    retry_after_s: float | None = None
    once_more: bool = True
    """Whether the same target may be asked once more, if failures of its kind are."""
    said: Said = NOTHING_SAID
    own_key_at: str = ""
    """The provider's name, where the call was made with the virtual key's own provider key and not with the
    platform's: then what the provider says of its account is the client's business."""


def cause_of(failure: UpstreamFailure) -> str:
    """One line for the log and the ledger: what it means in our words, then what the provider said of it."""
    said = failure.said
    text = failure.message
    if said.message:
        ours = OWN_WORDS[failure.kind] if failure.kind in OF_THE_REQUEST else text
        text = f"{ours} It said: {said.message}"
    named = (("code", said.code), ("type", said.type), ("request id", said.request_id))
    details = ", ".join(f"{name} {value}" for name, value in named if value)
    return f"{text} ({details})" if details else text
