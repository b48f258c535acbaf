"""The heads of our own answers, and refusals."""

from tollway.dataplane.calls import Attempt, Call
from tollway.dataplane.world import World
from tollway.domain.money import format_dollars
from tollway.domain.refusals import Refusal
from tollway.http1.server import Request
from tollway.routing.snapshot import KeyGrant
from tollway.wire.openai_errors import to_http

_JSON = b"content-type: application/json\r\n"
_STREAM = b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n"


def refuse(world: World, request: Request, call_id: str, refusal: Refusal, told: bytes = b"") -> None:
    """Answer with OpenAI's error object. ``told`` are further header lines, such as what the limits are."""
    error = to_http(refusal)
    world.metrics.refused(error.code)
    head = b"%bx-request-id: %b\r\n%b%b" % (_JSON, call_id.encode(), told, error.headers)
    request.respond(error.status, head, error.body)


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


def reply_head(attempt: Attempt, cost: int, now: float) -> bytes:
    """The header lines of a complete answer."""
    price = attempt.upstream.target.price
    if price is None:
        return _JSON + _provenance(attempt, now)
    dollars = format_dollars(cost, price.scale).encode()
    return b"%bx-tollway-cost: %b\r\n%b" % (_JSON, dollars, _provenance(attempt, now))


def stream_head(attempt: Attempt, now: float) -> bytes:
    """The header lines of a stream; what it costs is not known yet."""
    return _STREAM + _provenance(attempt, now)


def _provenance(attempt: Attempt, now: float) -> bytes:
    call = attempt.call
    lines = b"x-request-id: %b\r\n%b%bx-tollway-attempts: %d\r\nx-tollway-config-revision: %d\r\n" % (
        call.id.encode(),
        call.hold.header_lines(now),
        attempt.upstream.answer_head,
        attempt.number,
        call.snapshot.revision,
    )
    if attempt.warnings:
        lines += b"x-tollway-warnings: %b\r\n" % ", ".join(attempt.warnings).encode("ascii", "replace")
    return lines
