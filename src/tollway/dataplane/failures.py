"""What went wrong at a provider or on the way to it, in the words of the domain, and fit to be told."""

from collections.abc import Mapping
from email.utils import formatdate

from msgspec.structs import replace

from tollway.dataplane.calls import Attempt
from tollway.domain.failures import FailureKind, UpstreamFailure
from tollway.http1.errors import (
    ConnectFailed,
    ConnectTimeout,
    Disconnected,
    FirstByteTimeout,
    IdleTimeout,
    NoRoom,
    TlsFailed,
    TotalTimeout,
    UpstreamError,
)
from tollway.providers.classify import with_own_key
from tollway.providers.cleaning import as_said, without_shared
from tollway.providers.problem import request_id_of
from tollway.providers.signing.bearer import without_secret
from tollway.routing.snapshot import KeyGrant, Target

_KINDS: dict[type[UpstreamError], FailureKind] = {
    ConnectFailed: FailureKind.CONNECT,
    TlsFailed: FailureKind.CONNECT,
    ConnectTimeout: FailureKind.TIMEOUT,
    FirstByteTimeout: FailureKind.TIMEOUT,
    IdleTimeout: FailureKind.TIMEOUT,
    TotalTimeout: FailureKind.TIMEOUT,
    Disconnected: FailureKind.BROKEN,
    NoRoom: FailureKind.OVERLOADED,
}

_ROOM_S = 1.0
"""After which there may be room again."""


def failure_of(error: UpstreamError) -> UpstreamFailure:
    """The failure that this error of the client is; its reason is our own text and safe to show."""
    kind = _KINDS.get(type(error), FailureKind.INVALID)
    if kind is FailureKind.BROKEN and error.nothing_received:
        kind = FailureKind.CONNECT
    return UpstreamFailure(kind, error.reason, retry_after_s=_ROOM_S if kind is FailureKind.OVERLOADED else None)


def dated(headers: Mapping[bytes, bytes], now_unix: float) -> Mapping[bytes, bytes]:
    """The head of an answer with the time at which it came where it names none: ``retry-after`` may be a date."""
    if b"date" in headers or b"retry-after" not in headers:
        return headers
    return {**headers, b"date": formatdate(now_unix, usegmt=True).encode()}


_ECHO = 24
"""Characters in a row that a provider repeats of a prompt: what is shorter are names and words that anybody uses."""

_LOOKED_AT = 64 * 1024
"""Bytes of a request in which an echo is looked for, at its beginning and at its end."""


def fit_to_tell(failure: UpstreamFailure, attempt: Attempt) -> UpstreamFailure:
    """The failure of an attempt as the log, the ledger and the client may have it.

    Without the credential that it was made with; what is for the log without what the client said; with the
    provider's id of the request; and with a word on whose account it was.
    """
    said, answer = failure.said, attempt.answer
    if not said.request_id and answer is not None and (request_id := request_id_of(answer.headers)):
        failure = replace(failure, said=replace(said, request_id=request_id))
    failure = without_secret(failure, attempt.credential)
    said = failure.said
    if len(said.message) >= _ECHO:
        message = without_shared(said.message, _sent(attempt.message), _ECHO)
        failure = replace(failure, said=replace(said, message=message))
    return of_its_account(failure, attempt.call.grant, attempt.upstream.target)


def of_its_account(failure: UpstreamFailure, grant: KeyGrant, target: Target) -> UpstreamFailure:
    """The failure with a word on whose account it was, where that is the key's own."""
    provider = target.provider.name
    return with_own_key(failure, provider) if provider in grant.secrets else failure


def _sent(message: bytes) -> str:
    """The beginning and the end of a request's body, its texts as they were said."""
    start = message.find(b"\r\n\r\n") + 4
    body = message[start : start + _LOOKED_AT]
    if len(message) - start > _LOOKED_AT:
        body += b"\n" + message[max(start + _LOOKED_AT, len(message) - _LOOKED_AT) :]
    return as_said(body)
