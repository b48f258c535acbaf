"""Refusals and failures in OpenAI's format: the one place where they become a status and a text.

1. What a client may read is written here, and the adapter has cleaned what of it is a provider's.
2. A provider's words about the client's request are passed on (kinds REQUEST, CONTEXT, CONTENT). Before an answer has
   begun, all else is told in our words: several targets may have failed, each for a reason of its own.
3. In the middle of an answer the provider's message and code go on, for clients act on them; but for what it says of
   an account, where that is not the client's own.
4. ``x-should-retry``, ``retry-after`` and ``retry-after-ms`` are true: the official SDKs act on them.
"""

import math
from typing import NamedTuple, assert_never

import msgspec

from tollway.domain.endings import CLIENT_ERROR, GATEWAY_FAILED, PROVIDER_FAILED, REFUSED
from tollway.domain.failures import OF_THE_REQUEST, FailureKind, UpstreamFailure
from tollway.domain.refusals import (
    BadKey,
    BadRequest,
    CannotAccount,
    ClientFault,
    ControlPlaneAway,
    Draining,
    ExpiredKey,
    KeysUnavailable,
    ModelNotAllowed,
    ModelNotFound,
    ModelNotPriced,
    NoAnswer,
    NotAdministrator,
    Overloaded,
    ProviderKeyRequired,
    Refusal,
    RevokedKey,
    TooFast,
    TooLarge,
    TooManyAtOnce,
)
from tollway.wire.json import encode

DONE = b"data: [DONE]\n\n"

_INVALID_REQUEST = "invalid_request_error"
_SERVER_ERROR = "server_error"
_DO_NOT_RETRY = b"x-should-retry: false\r\n"
_CHALLENGE = b"www-authenticate: Bearer\r\n" + _DO_NOT_RETRY

_NO_TIME_S = 1.0  # where a provider's 429 names no time: the official SDKs would wait half a second, and try again
_MAX_WAIT_S = 60.0  # a provider's wait is passed on up to here; above 120 s the official SDKs give up at once
_MAX_NAME = 128  # of a model's name in a message
_OUTAGE_RETRY_S = 5.0  # a full disk or a lost database is not repaired faster
_AWAY_RETRY_S = 1.0  # what died is restarted within a second
_BUSY_RETRY_S = 1.0  # somebody's call ends at any moment
_OVERLOAD_RETRY_S = 1.0  # bodies and answers come and go within seconds
_DRAIN_RETRY_S = 1.0  # by then a load balancer has taken this process out, or its successor has started


class HttpError(NamedTuple):
    """An answer that says no. ``headers`` are encoded lines, each ending in CRLF, without content type and length."""

    status: int
    headers: bytes
    body: bytes
    code: str
    """The error's code, its type where it has none; of a ClientFault, a word of the provider's."""
    label: str
    """What it was, of a closed set of our own words (``observe/metrics.py``): nothing of it comes from outside."""
    ending: str
    """How the call ended, as the metrics count it."""


class _Error(msgspec.Struct):
    message: str
    type: str
    param: str | None
    code: str | None


class _Body(msgspec.Struct):
    error: _Error


def error_body(message: str, type: str, code: str | None, param: str | None = None) -> bytes:
    """OpenAI's error object."""
    return encode(_Body(_Error(message, type, param, code)))


def error_event(failure: UpstreamFailure) -> bytes:
    """The frame that ends a stream whose answer had begun. No ``[DONE]`` follows it."""
    if failure.kind in OF_THE_REQUEST:
        body = error_body(failure.message, failure.type, failure.code, failure.param)
    else:
        type_, _, text = _PUBLIC[failure.kind]
        message, code = f"The answer ended early: {_told(text, failure)}.", _code(failure)
        said = failure.said
        if said.message and may_be_told(failure):
            message, code, type_ = said.message, said.code or code, said.type or type_
        body = error_body(message, type_, code)
    return b"data: %b\n\n" % body


def may_be_told(failure: UpstreamFailure) -> bool:
    """Whether a client may read what the provider said: what it says of an account is its owner's business."""
    if failure.own_key_at:
        return True
    return failure.kind not in _OF_AN_ACCOUNT and not failure.said.of_an_account


def to_http(refusal: Refusal) -> HttpError:
    """The one place where a refusal becomes a status code."""
    match refusal:
        case BadKey():
            return _error(401, "invalid_api_key", "The API key is missing or not valid.", headers=_CHALLENGE)
        case ExpiredKey():
            return _error(401, "expired_api_key", "The API key has expired.", headers=_CHALLENGE)
        case RevokedKey():
            return _error(401, "revoked_api_key", "The API key has been revoked.", headers=_CHALLENGE)
        case KeysUnavailable(retry_after_s):
            text = "The API key cannot be checked at the moment."
            return _ours("keys_unavailable", text, retry_after_s)
        case NotAdministrator(status, code, message):
            return _error(status, code, message, headers=_CHALLENGE if status == 401 else _DO_NOT_RETRY)
        case BadRequest(message, param, code, status):
            return _error(status, code, message, param)
        case ModelNotFound(model, status):
            text = f"The model '{_name(model)}' does not exist."
            return _error(status, "model_not_found", text, "model", headers=_DO_NOT_RETRY)
        case ModelNotAllowed(model):
            text = f"This API key may not use the model '{_name(model)}'."
            return _error(403, "model_not_allowed", text, "model", headers=_DO_NOT_RETRY)
        case ModelNotPriced(model):
            return _error(403, "model_not_priced", _not_priced(_name(model)), "model", headers=_DO_NOT_RETRY)
        case TooFast(dimension, limit, used, wanted, wait_s):
            text = (
                f"Rate limit reached for this API key on {_per_minute(dimension)}: Limit {limit}, Used {used}, "
                f"Requested {wanted}. Please try again in {_duration(wait_s)}."
            )
            return _error(429, "rate_limit_exceeded", text, type=dimension, headers=_retry_after(wait_s))
        case TooLarge(dimension, limit, wanted):
            text = (
                f"Request too large for this API key on {_per_minute(dimension)}: Limit {limit}, Requested {wanted}. "
                "Waiting does not help."
            )
            return _error(429, "rate_limit_exceeded", text, type=dimension, headers=_DO_NOT_RETRY)
        case TooManyAtOnce(limit):
            text = f"Too many requests of this API key at the same time: Limit {limit}. Please try again in a moment."
            return _error(429, "rate_limit_exceeded", text, type="requests", headers=_retry_after(_BUSY_RETRY_S))
        case NoAnswer(attempts):
            return _no_answer(attempts)
        case ClientFault(failure, as_is):
            status = _client_status(failure, as_is)
            error = _error(status, failure.code, failure.message, failure.param, failure.type)
            # Where nothing was sent the code is ours, else it may be a provider's.
            label = error.code if failure.kind is FailureKind.UNSUPPORTED else failure.kind.value
            return error._replace(label=label, ending=CLIENT_ERROR)
        case ProviderKeyRequired(provider, param):
            what = "This path" if param is None else f"'{param}'"
            text = (
                f"{what} works on objects that are stored at the provider '{_name(provider)}'. The API key needs a "
                "provider key of its own for that."
            )
            return _error(403, "provider_key_required", text, param)
        case CannotAccount():
            text = "This gateway cannot note what a call costs at the moment, so it makes none."
            return _ours("accounting_unavailable", text, _OUTAGE_RETRY_S)
        case ControlPlaneAway():
            text = "The control plane does not answer at the moment."
            return _ours("control_plane_away", text, _AWAY_RETRY_S)
        case Overloaded():
            return _ours("overloaded", "This gateway is overloaded at the moment.", _OVERLOAD_RETRY_S)
        case Draining():
            text = "This gateway is stopping."
            return _ours("draining", text, _DRAIN_RETRY_S)._replace(ending=REFUSED)
        case _:
            assert_never(refusal)


def _error(
    status: int,
    code: str | None,
    message: str,
    param: str | None = None,
    type: str = _INVALID_REQUEST,
    headers: bytes = b"",
) -> HttpError:
    ending = GATEWAY_FAILED if status >= 500 else REFUSED if status in _NO else CLIENT_ERROR
    return HttpError(status, headers, error_body(message, type, code, param), code or type, code or type, ending)


_NO = frozenset({401, 403, 429})
"""Said of the caller, and not of what is wrong with the call."""


def _not_priced(model: str) -> str:
    if not model:
        return (
            "What a call costs that names no model is not known before its answer, so it is not made on a shared "
            "provider key; an administrator can allow it by UNPRICED."
        )
    return (
        f"The price of the model '{model}' is not known, so it is not called on a shared provider key; an "
        f"administrator can set one (tollway prices set {model} --input … --output …), or see UNPRICED."
    )


def _ours(code: str, message: str, retry_s: float) -> HttpError:
    """The gateway itself cannot, for the moment."""
    return _error(503, code, message, type=_SERVER_ERROR, headers=_retry_after(retry_s))


def _client_status(failure: UpstreamFailure, as_is: bool) -> int:
    """OpenAI's 400 for what no server agrees upon; a prompt that is too long is 400 whatever its server makes of it."""
    if failure.kind is FailureKind.CONTEXT or not 400 <= failure.status < 500:
        return 400
    return failure.status if as_is or failure.status == 413 else 400


_UNTRIED = frozenset({FailureKind.UNSUPPORTED, FailureKind.UNPRICED, FailureKind.NO_CREDENTIAL})
_OF_AN_ACCOUNT = frozenset({FailureKind.QUOTA, FailureKind.CREDENTIAL})

# Each kind as the client sees it where it was decisive: type, code, and our words for it.
_PUBLIC: dict[FailureKind, tuple[str, str, str]] = {
    FailureKind.CONNECT: (_SERVER_ERROR, "upstream_connection_error", "the connection failed"),
    FailureKind.TIMEOUT: (_SERVER_ERROR, "upstream_timeout", "the provider took too long"),
    FailureKind.BROKEN: (_SERVER_ERROR, "upstream_connection_error", "the connection was lost in mid-answer"),
    FailureKind.INVALID: (_SERVER_ERROR, "upstream_invalid_response", "the answer was not valid"),
    FailureKind.BUSY: ("requests", "rate_limit_exceeded", "the provider's rate limit is reached"),
    FailureKind.QUOTA: ("insufficient_quota", "insufficient_quota", "the account at the provider has no quota left"),
    FailureKind.CREDENTIAL: (_SERVER_ERROR, "upstream_auth_error", "the provider refused the gateway's credential"),
    FailureKind.NO_CREDENTIAL: (_SERVER_ERROR, "no_provider_key", "there is no provider key for it"),
    FailureKind.MODEL: (_SERVER_ERROR, "upstream_model_not_found", "the provider does not know the model"),
    FailureKind.SERVER: (_SERVER_ERROR, "upstream_error", "the provider failed"),
    FailureKind.OVERLOADED: (_SERVER_ERROR, "overloaded", "this gateway had no room for it"),
    FailureKind.CONTEXT: (_INVALID_REQUEST, "context_length_exceeded", "the prompt is too long for it"),
    FailureKind.CONTENT: (_INVALID_REQUEST, "content_filter", "the provider's content filter refused"),
    FailureKind.REQUEST: (_INVALID_REQUEST, "invalid_request", "the provider refused the request"),
    FailureKind.UNPRICED: (_INVALID_REQUEST, "model_not_priced", "its price is not known"),
    FailureKind.UNSUPPORTED: (_INVALID_REQUEST, "unsupported_parameter", "it cannot take this request"),
}

# … and where it concerns the provider key that the API key brought along: then who reads it can do something about it.
_OF_ONES_OWN: dict[FailureKind, str] = {
    FailureKind.BUSY: "the rate limit of the API key's own account at {} is reached",
    FailureKind.QUOTA: "the API key's own account at {} has no quota left",
    FailureKind.CREDENTIAL: "the provider refused the API key's own provider key for {}",
}

_LABELS = {
    "rate_limit_exceeded": "upstream_rate_limit_exceeded",
    "insufficient_quota": "upstream_insufficient_quota",
}
"""What clients know by one code and operators must tell apart: our limits, and a provider's."""


def _no_answer(attempts: tuple[tuple[str, UpstreamFailure], ...]) -> HttpError:
    failures = [failure for _, failure in attempts]
    status, decisive = _verdict(failures)
    type_, code, _ = _PUBLIC[decisive]
    label = _LABELS.get(code, code)
    if decisive is FailureKind.QUOTA:
        code = next(_code(failure) for failure in reversed(failures) if failure.kind is decisive)
    waits = [failure.retry_after_s for failure in failures if failure.retry_after_s is not None]
    headers = _DO_NOT_RETRY
    if status == 429 and decisive is FailureKind.BUSY:
        headers = _retry_after(min(*waits, _MAX_WAIT_S) if waits else _NO_TIME_S)
    elif waits and status == 503:
        headers = _retry_after(min(*waits, _MAX_WAIT_S))
    tried = "; ".join(f"{_name(name)}: {_reason(failure)}" for name, failure in attempts) or "none is configured"
    error = _error(status, code, f"No provider could answer ({tried}).", type=type_, headers=headers)
    ending = GATEWAY_FAILED if decisive is FailureKind.OVERLOADED else PROVIDER_FAILED
    return error._replace(label=label, ending=ending)


def _verdict(failures: list[UpstreamFailure]) -> tuple[int, FailureKind]:
    """The status for the client, and the kind that explains it."""
    tried = [failure for failure in failures if failure.kind not in _UNTRIED]
    if not tried:
        return 503, failures[-1].kind if failures else FailureKind.NO_CREDENTIAL
    kinds = {failure.kind for failure in tried}
    if kinds == {FailureKind.QUOTA}:
        return 429, FailureKind.QUOTA
    if kinds <= {FailureKind.BUSY, FailureKind.QUOTA}:
        return 429, FailureKind.BUSY
    last = tried[-1].kind
    if last is FailureKind.TIMEOUT:
        return 504, last
    if tried[-1].status == 409:
        return 409, last
    full = FailureKind.BUSY, FailureKind.OVERLOADED
    overloaded = all(failure.kind in full or failure.status == 503 for failure in tried)
    return (503 if overloaded else 502), last


def _code(failure: UpstreamFailure) -> str:
    """Ours, or where money is out the provider's own word for that: clients tell them apart."""
    told = failure.code if failure.kind is FailureKind.QUOTA else None
    return told or _PUBLIC[failure.kind][1]


def _reason(failure: UpstreamFailure) -> str:
    text = _told(_PUBLIC[failure.kind][2], failure)
    return f"{text} (status {failure.status})" if failure.status >= 500 else text


def _told(text: str, failure: UpstreamFailure) -> str:
    own = _OF_ONES_OWN.get(failure.kind) if failure.own_key_at else None
    return text if own is None else own.format(_name(failure.own_key_at))


def _retry_after(wait_s: float) -> bytes:
    """Both headers, rounded up, so that who waits has waited long enough."""
    milliseconds = max(1, math.ceil(wait_s * 1000))
    return b"retry-after: %d\r\nretry-after-ms: %d\r\n" % (-(-milliseconds // 1000), milliseconds)


def _duration(wait_s: float) -> str:
    """As OpenAI writes it: ``174ms``, ``6.596s``."""
    milliseconds = max(1, math.ceil(wait_s * 1000))
    return f"{milliseconds}ms" if milliseconds < 1000 else f"{milliseconds / 1000:g}s"


def _per_minute(dimension: str) -> str:
    return f"{dimension} per min ({dimension[:1].upper()}PM)"


def _name(text: str) -> str:
    return text if len(text) <= _MAX_NAME else text[:_MAX_NAME] + "…"
