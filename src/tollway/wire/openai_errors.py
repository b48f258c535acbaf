"""Refusals and failures in OpenAI's format: the one place where they become a status and a text.

1. What a client may read is written here. Of a provider's own words only those about the client's request are passed
   on (kinds REQUEST, CONTEXT, CONTENT), and the adapter has cleaned them.
2. ``x-should-retry``, ``retry-after`` and ``retry-after-ms`` are true: the official SDKs act on them.
"""

import math
from typing import NamedTuple, assert_never

import msgspec

from tollway.domain.failures import FailureKind, UpstreamFailure
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
    NoAnswer,
    NotAdministrator,
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

_MAX_WAIT_S = 60.0  # a provider's wait is passed on up to here; above 120 s the official SDKs give up at once
_MAX_NAME = 128  # of a model's name in a message
_OUTAGE_RETRY_S = 5.0  # a full disk or a lost database is not repaired faster
_AWAY_RETRY_S = 1.0  # what died is restarted within a second
_BUSY_RETRY_S = 1.0  # somebody's call ends at any moment
_DRAIN_RETRY_S = 1.0  # by then a load balancer has taken this process out, or its successor has started


class HttpError(NamedTuple):
    """An answer that says no. ``headers`` are encoded lines, each ending in CRLF, without content type and length."""

    status: int
    headers: bytes
    body: bytes
    code: str
    """The error's code, its type where it has none: a label of bounded variety."""


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
    if failure.kind in _CLIENT_FAULTS:
        body = error_body(failure.message, failure.type, failure.code, failure.param)
    else:
        type_, _, text = _PUBLIC[failure.kind]
        body = error_body(f"The answer ended early: {text}.", type_, _code(failure))
    return b"data: %b\n\n" % body


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
            return _error(503, "keys_unavailable", text, type=_SERVER_ERROR, headers=_retry_after(retry_after_s))
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
            status = failure.status if failure.status == 413 or (as_is and failure.status) else 400
            return _error(status, failure.code, failure.message, failure.param, failure.type)
        case ProviderKeyRequired(provider, param):
            what = "This path" if param is None else f"'{param}'"
            text = (
                f"{what} works on objects that are stored at the provider '{_name(provider)}'. The API key needs a "
                "provider key of its own for that."
            )
            return _error(403, "provider_key_required", text, param)
        case CannotAccount():
            text = "This gateway cannot note what a call costs at the moment, so it makes none."
            return _error(
                503, "accounting_unavailable", text, type=_SERVER_ERROR, headers=_retry_after(_OUTAGE_RETRY_S)
            )
        case ControlPlaneAway():
            text = "The control plane does not answer at the moment."
            return _error(503, "control_plane_away", text, type=_SERVER_ERROR, headers=_retry_after(_AWAY_RETRY_S))
        case Draining():
            text = "This gateway is stopping."
            return _error(503, "draining", text, type=_SERVER_ERROR, headers=_retry_after(_DRAIN_RETRY_S))
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
    return HttpError(status, headers, error_body(message, type, code, param), code or type)


_CLIENT_FAULTS = frozenset({FailureKind.REQUEST, FailureKind.CONTEXT, FailureKind.CONTENT})
_UNTRIED = frozenset({FailureKind.UNSUPPORTED, FailureKind.NO_CREDENTIAL})

# Each kind as the client sees it where it was decisive: type, code, and our words for it.
_PUBLIC: dict[FailureKind, tuple[str, str, str]] = {
    FailureKind.CONNECT: (_SERVER_ERROR, "upstream_connection_error", "the connection failed"),
    FailureKind.TIMEOUT: (_SERVER_ERROR, "upstream_timeout", "the provider took too long"),
    FailureKind.BROKEN: (_SERVER_ERROR, "upstream_connection_error", "the connection was lost in mid-answer"),
    FailureKind.INVALID: (_SERVER_ERROR, "upstream_invalid_response", "the answer was not valid"),
    FailureKind.BUSY: ("requests", "rate_limit_exceeded", "the provider's rate limit is reached"),
    FailureKind.QUOTA: ("insufficient_quota", "insufficient_quota", "the quota at the provider is used up"),
    FailureKind.CREDENTIAL: (_SERVER_ERROR, "upstream_auth_error", "the provider refused the gateway's credential"),
    FailureKind.NO_CREDENTIAL: (_SERVER_ERROR, "no_provider_key", "there is no provider key for it"),
    FailureKind.MODEL: (_SERVER_ERROR, "upstream_model_not_found", "the provider does not know the model"),
    FailureKind.SERVER: (_SERVER_ERROR, "upstream_error", "the provider failed"),
    FailureKind.CONTEXT: (_INVALID_REQUEST, "context_length_exceeded", "the prompt is too long for it"),
    FailureKind.CONTENT: (_INVALID_REQUEST, "content_filter", "the provider's content filter refused"),
    FailureKind.REQUEST: (_INVALID_REQUEST, "invalid_request", "the provider refused the request"),
    FailureKind.UNSUPPORTED: (_INVALID_REQUEST, "unsupported_parameter", "it cannot take this request"),
}


def _no_answer(attempts: tuple[tuple[str, UpstreamFailure], ...]) -> HttpError:
    failures = [failure for _, failure in attempts]
    status, decisive = _verdict(failures)
    type_, code, _ = _PUBLIC[decisive]
    if decisive is FailureKind.QUOTA:
        code = next(_code(failure) for failure in reversed(failures) if failure.kind is decisive)
    waits = [failure.retry_after_s for failure in failures if failure.retry_after_s is not None]
    told = waits and status in (429, 503) and decisive is not FailureKind.QUOTA
    headers = _retry_after(min(*waits, _MAX_WAIT_S)) if told else _DO_NOT_RETRY
    tried = "; ".join(f"{_name(name)}: {_reason(failure)}" for name, failure in attempts) or "none is configured"
    return _error(status, code, f"No provider could answer ({tried}).", type=type_, headers=headers)


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
    overloaded = all(failure.kind is FailureKind.BUSY or failure.status == 503 for failure in tried)
    return (503 if overloaded else 502), last


def _code(failure: UpstreamFailure) -> str:
    """Ours, or where money is out the provider's own word for that: clients tell them apart."""
    told = failure.code if failure.kind is FailureKind.QUOTA else None
    return told or _PUBLIC[failure.kind][1]


def _reason(failure: UpstreamFailure) -> str:
    text = _PUBLIC[failure.kind][2]
    return f"{text} (status {failure.status})" if failure.status >= 500 else text


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
