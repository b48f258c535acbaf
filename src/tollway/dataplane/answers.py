"""The heads of our own answers, refusals, and what a crash looks like."""

import logging
from collections.abc import Mapping

from tollway.admission.authenticate import MAX_KEY_BYTES, presented_key
from tollway.dataplane.calls import Attempt, Call
from tollway.dataplane.templates import is_call, template_of
from tollway.dataplane.world import World
from tollway.domain.endings import CLIENT_ERROR, GATEWAY_FAILED
from tollway.domain.failures import FailureKind, UpstreamFailure
from tollway.domain.money import format_dollars
from tollway.domain.refusals import (
    BadKey,
    BadRequest,
    ClientFault,
    ControlPlaneAway,
    ExpiredKey,
    KeysUnavailable,
    NoAnswer,
    NotAdministrator,
    Refusal,
    RevokedKey,
)
from tollway.http1.exchange import OPEN, STREAMING, Request
from tollway.observe.refusals import Refused
from tollway.routing.snapshot import KeyGrant
from tollway.wire.openai_errors import error_body, to_http

_log = logging.getLogger("tollway.calls")

_JSON = b"content-type: application/json\r\n"
_NO_BUFFERING = b"cache-control: no-cache\r\nx-accel-buffering: no\r\n"
_STREAM = b"content-type: text/event-stream; charset=utf-8\r\n" + _NO_BUFFERING

_PASSED = (b"content-type", b"content-disposition", b"content-range", b"accept-ranges", b"location", b"openai-version")
"""Headers of a provider's that belong to its answer. What it says of its own limits and accounts stays here."""


def refuse(world: World, request: Request, call_id: str, refusal: Refusal, told: bytes = b"") -> None:
    """Answer with OpenAI's error object. ``told`` are further header lines, such as what the limits are."""
    error = to_http(refusal)
    world.metrics.refused(error.label)
    if is_call(request):
        world.metrics.ended(error.ending)
    # A wrong request is told to its key or, where its path or method is in the way, to anybody.
    stranger = isinstance(refusal, _STRANGERS) or (isinstance(refusal, BadRequest) and not key_id_of(world, request))
    world.refusals.note(
        error.label,
        lambda: Refused(
            error.status,
            error.code,
            call_id=call_id,
            key_id=key_id_of(world, request),
            method=request.method.decode("ascii", "replace"),
            path=template_of(request),
            tried=_tried(refusal),
        ),
        stranger=stranger,
    )
    head = b"%bx-request-id: %b\r\n%b%b" % (_JSON, call_id.encode(), told, error.headers)
    request.respond(error.status, head, error.body)


def crash(world: World, request: Request, call_id: str, error: Exception) -> None:
    """Our own bug: the call dies with a bare 500, the process lives. A stream that has begun has said so itself."""
    _log.error("a call failed by a bug of ours", exc_info=error, extra={"call_id": call_id})
    if request.state == OPEN:
        refuse_unread(world, call_id, 500, "server_error")
        head = b"%bx-request-id: %b\r\n" % (_JSON, call_id.encode())
        request.respond(500, head, error_body("Internal error.", "server_error", "server_error"))
    elif request.state == STREAMING:
        raise error


def refuse_unread(world: World, call_id: str, status: int, code: str) -> None:
    """Count and log what the HTTP server refused before there was a request that could be judged."""
    world.metrics.refused(code)
    world.metrics.ended(GATEWAY_FAILED if status >= 500 else CLIENT_ERROR)
    world.refusals.note(code, lambda: Refused(status, code, call_id=call_id), stranger=True)


_STRANGERS = (BadKey, ExpiredKey, RevokedKey, KeysUnavailable, NotAdministrator, ControlPlaneAway)
"""What anybody can be told, as often as they like."""


def key_id_of(world: World, request: Request) -> str:
    """The id of the key that was presented, good or not; empty for one that nobody knows."""
    presented = presented_key(request.headers)
    if presented is None or len(presented) > MAX_KEY_BYTES:
        return ""
    grant = world.configuration.snapshot.keys.get(world.hasher(presented))
    return "" if grant is None else grant.id


def _tried(refusal: Refusal) -> str:
    """What was tried and why it failed, in a few words of our own."""
    match refusal:
        case NoAnswer(attempts):
            return ", ".join(f"{name}: {_word(failure)}" for name, failure in attempts)
        case ClientFault(failure):
            return _word(failure)
        case _:
            return ""


_ON_AN_ACCOUNT = (FailureKind.CREDENTIAL, FailureKind.QUOTA, FailureKind.BUSY)
"""Who can mend it depends on whose provider key it was."""


def _word(failure: UpstreamFailure) -> str:
    word = f"{failure.kind.value} {failure.status}" if failure.status else failure.kind.value
    if failure.kind not in _ON_AN_ACCOUNT:
        return word
    return f"{word} (the key's own)" if failure.own_key_at else f"{word} (the gateway's)"


def limit_lines(world: World, grant: KeyGrant) -> bytes:
    """The ``x-ratelimit-*`` lines for a call that was not admitted."""
    return world.allowances.header_lines(grant.id, grant.requests_per_minute, grant.tokens_per_minute, world.now())


def call_lines(world: World, call: Call) -> bytes:
    """What is told of an admitted call that came to nothing."""
    return b"%bx-tollway-attempts: %d\r\nx-tollway-config-revision: %d\r\n" % (
        call.hold.header_lines(world.now()),
        call.attempts,
        call.snapshot.revision,
    )


def own_head(call: Call, now: float) -> bytes:
    """The header lines of what the gateway itself knows."""
    lines = call.hold.header_lines(now)
    return b"%bx-request-id: %b\r\n%bx-tollway-config-revision: %d\r\n" % (
        _JSON,
        call.id.encode(),
        lines,
        call.snapshot.revision,
    )


def reply_head(attempt: Attempt, cost: int | None, now: float) -> bytes:
    """The header lines of a complete answer; a cost that nobody can tell is left out."""
    return b"%b%b%b" % (_JSON, _cost_line(attempt, cost), _provenance(attempt, now))


def passed_head(attempt: Attempt, headers: Mapping[bytes, bytes], now: float, cost: int | None = None) -> bytes:
    """The header lines of an answer that passes as it is; a cost that is not known, or not yet, is left out."""
    lines = b"".join([b"%b: %b\r\n" % (name, headers[name]) for name in _PASSED if name in headers])
    if headers.get(b"content-type", b"").startswith(b"text/event-stream"):
        lines += _NO_BUFFERING
    return lines + _cost_line(attempt, cost) + _provenance(attempt, now)


def stream_head(attempt: Attempt, now: float) -> bytes:
    """The header lines of a stream; what it costs is not known yet."""
    return _STREAM + _provenance(attempt, now)


def _cost_line(attempt: Attempt, cost: int | None) -> bytes:
    if cost is None:
        return b""
    price = attempt.price
    dollars = format_dollars(cost, price.scale) if price is not None else "0"
    return b"x-tollway-cost: %b\r\n" % dollars.encode()


def _provenance(attempt: Attempt, now: float) -> bytes:
    call = attempt.call
    lines = b"x-request-id: %b\r\n%b%bx-tollway-attempts: %d\r\nx-tollway-config-revision: %d\r\n" % (
        call.id.encode(),
        call.hold.header_lines(now),
        attempt.upstream.answer_head,
        call.attempts,
        call.snapshot.revision,
    )
    if attempt.warnings:
        lines += b"x-tollway-warnings: %b\r\n" % ", ".join(attempt.warnings).encode("ascii", "replace")
    return lines
