"""One attempt at one provider: sign and send the request, judge what comes back, settle, answer the client.

An attempt returns None when it has answered the client, and an :class:`UpstreamFailure` when another may be tried. Once
a byte of a stream has gone out there is no other attempt (``relay.py``).
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import cast

from tollway.dataplane.answers import reply_head, stream_head
from tollway.dataplane.books import INTERNAL_ERROR
from tollway.dataplane.calls import Attempt, Call, Prepared, reading_on
from tollway.dataplane.failures import dated, failure_of
from tollway.dataplane.offload import AT_ONCE_BYTES
from tollway.dataplane.relay import Relay, begun_bytes
from tollway.dataplane.upstreams import Upstream
from tollway.dataplane.world import World
from tollway.domain.asked import Asked
from tollway.domain.failures import FailureKind, UpstreamFailure
from tollway.domain.refusals import BadRequest
from tollway.http1.answer import Response, StreamedResponse
from tollway.http1.errors import UpstreamError
from tollway.providers.base import Adapter, ChatResult, SplittingAdapter, StreamDecoder, is_good
from tollway.providers.classify import NO_ANSWER
from tollway.routing.snapshot import Target
from tollway.wire.structure import OF_ANSWERS, fits

MAX_REPLY = 64 * 1024 * 1024
"""Largest complete answer of a provider, in bytes: chat answers are below 1 MiB, spoken ones take tens."""

MAX_ERROR = 256 * 1024
"""Largest error answer that is read; what matters of it is in its first kilobyte."""


def prepare(world: World, call: Call, target: Target) -> Prepared | UpstreamFailure:
    """The bytes to send: the call in the provider's dialect, with the credential that this key has there."""
    credential = world.upstreams.authorization(call.grant, target.provider)
    if isinstance(credential, UpstreamFailure):
        return credential
    upstream = world.upstreams.of(target)
    adapter = upstream.adapters.get(call.operation.name)
    if adapter is None:
        return not_offered(call)
    request = adapter.encode(call.asked, target.upstream_model)
    if isinstance(request, BadRequest):
        return UpstreamFailure(FailureKind.UNSUPPORTED, request.message, code=request.code, param=request.param)
    message = _post(upstream, request.path, credential, request.body)
    further = [_post(upstream, request.path, credential, body) for body in request.further]
    return Prepared(upstream, adapter, credential, message, further, request.warnings)


def _post(upstream: Upstream, path: bytes, credential: bytes, body: bytes) -> bytes:
    return b"POST %b%b HTTP/1.1\r\n%b%bContent-Length: %d\r\n\r\n%b" % (
        upstream.base_path,
        path,
        upstream.head,
        credential,
        len(body),
        body,
    )


def not_offered(call: Call) -> UpstreamFailure:
    """The target's provider has no such operation."""
    text = f"The provider of the model '{call.asked.model}' does not offer /v1/{call.operation.name}."
    return UpstreamFailure(FailureKind.UNSUPPORTED, text, code="unsupported_endpoint", param="model")


async def attempt_reply(world: World, attempt: Attempt) -> UpstreamFailure | None:
    """Fetch a complete answer and pass it on."""
    call, upstream = attempt.call, attempt.upstream
    try:
        result = await _fetch(world, attempt, attempt.message)
        if attempt.further and not isinstance(result, UpstreamFailure):
            result = await _fetch_further(world, attempt, result)
        if isinstance(result, UpstreamFailure):
            return result
        attempt.warnings += result.warnings
        cost = world.books.charge(attempt, "ok", result.usage, result.content_bytes)
    except UpstreamError as error:
        return failure_of(error)
    except asyncio.CancelledError:
        world.books.abandon(attempt)
        raise
    except Exception:
        world.books.waive(attempt, INTERNAL_ERROR)
        raise
    finally:
        answer = attempt.answer
        if answer is not None and (not answer.complete or answer.hold is not None):
            answer.close()  # else it holds nothing that would not go with this call
    now = world.now()
    call.request.respond(200, reply_head(attempt, cost, now), result.body)
    world.health.succeeded(upstream.target, call.grant, now)
    return None


async def _fetch(world: World, attempt: Attempt, message: bytes) -> ChatResult | UpstreamFailure:
    settings = world.settings
    reply = await world.client.fetch(
        attempt.upstream.origin,
        message,
        first_byte_s=settings.first_byte_timeout_s,
        idle_s=settings.idle_timeout_s,
        deadline=attempt.deadline,
        max_body=MAX_REPLY,
        on_sent=attempt.note_sent,
    )
    attempt.status = reply.status
    assert attempt.adapter is not None
    headers = reply.headers if is_good(reply.status) else dated_headers(world, attempt, reply.headers)
    if reply.received <= AT_ONCE_BYTES:
        return attempt.adapter.decode(reply.status, headers, reply.body, attempt.call.asked)
    with reading_on(attempt.call.request):
        return await world.offload.run(
            attempt.call.grant.id, _decode_large, attempt.adapter, headers, reply, attempt.call.asked
        )


def _decode_large(
    adapter: Adapter, headers: Mapping[bytes, bytes], reply: Response, asked: Asked
) -> ChatResult | UpstreamFailure:
    body = reply.body
    return adapter.decode(reply.status, headers, body, asked) if fits(body, OF_ANSWERS) else NO_ANSWER


async def _fetch_further(world: World, attempt: Attempt, first: ChatResult) -> ChatResult | UpstreamFailure:
    """Send what did not fit into the first request, one after the other, and join the answers."""
    results = [first]
    request = attempt.call.request
    for message in attempt.further:
        if request.closed and request.on_gone is None:
            break  # nobody waits for the rest, and it need not be paid
        result = await _fetch(world, attempt, message)
        if isinstance(result, UpstreamFailure):
            return result
        results.append(result)
    return cast(SplittingAdapter, attempt.adapter).join(results)


async def attempt_stream(world: World, attempt: Attempt) -> UpstreamFailure | None:
    """Open a stream, hold it until its first event is known to be good, then relay it."""
    response: StreamedResponse | None = None
    try:
        response = await open_answer(world, attempt)
        attempt.message = b""
        attempt.status = response.status
        assert attempt.adapter is not None
        if not is_good(response.status):
            body = await error_body(response)
            return attempt.adapter.classify(response.status, dated_headers(world, attempt, response.headers), body)
        decoder = attempt.adapter.decoder(attempt.call.asked)
        response.first_byte_due = True  # until there is something in what comes
        held = await first_event(world, attempt, response, decoder)
        response.first_byte_due = False
        if decoder.failure is not None:
            return decoder.failure
        attempt.warnings += decoder.warnings
        await Relay(world, attempt, decoder, response, stream_head(attempt, world.now())).run(held)
        return None
    except UpstreamError as error:
        return failure_of(error)
    except asyncio.CancelledError:
        world.books.abandon(attempt)
        raise
    except Exception:
        world.books.waive(attempt, INTERNAL_ERROR)
        raise
    finally:
        if response is not None:
            response.close()


def open_answer(world: World, attempt: Attempt) -> Awaitable[StreamedResponse]:
    """Send the request; the answer as soon as its head is there."""
    settings = world.settings
    return world.client.open(
        attempt.upstream.origin,
        attempt.message,
        first_byte_s=settings.first_byte_timeout_s,
        idle_s=settings.idle_timeout_s,
        deadline=attempt.deadline,
        on_sent=attempt.note_sent,
    )


def dated_headers(world: World, attempt: Attempt, headers: Mapping[bytes, bytes]) -> Mapping[bytes, bytes]:
    """The head of an answer that failed, with the time of now where it names none."""
    call = attempt.call
    return dated(headers, call.started_unix + world.now() - call.started)


async def first_event(world: World, attempt: Attempt, response: StreamedResponse, decoder: StreamDecoder) -> bytes:
    """Read until the first event is judged; what may go to the client, if ``decoder.failure`` is still None."""
    held = b""
    taken = begun = 0
    while not decoder.started and decoder.failure is None:
        piece = await response.read()
        if not piece:  # what is large here is a whole answer in place of a stream
            if taken <= AT_ONCE_BYTES:
                return held + decoder.close()
            return held + await _beside(world, attempt, decoder.close)
        taken += len(piece)
        large, begun = max(begun, len(piece)) > AT_ONCE_BYTES, begun_bytes(begun, piece)
        response.keeps(len(held) + begun)
        held += await _beside(world, attempt, decoder.feed, piece) if large else decoder.feed(piece)
    return held


async def _beside(world: World, attempt: Attempt, work: Callable[..., bytes], *arguments: bytes) -> bytes:
    """Work on what is here. A client that hung up meanwhile has left afterwards: the relay still sends what came."""
    call = attempt.call
    with reading_on(call.request):
        frames = await world.offload.run(call.grant.id, work, *arguments)
    if call.request.closed and call.request.on_gone is None:
        world.calls[call].cancel()
    return frames


async def error_body(response: StreamedResponse) -> bytes:
    """The body of an error answer, to be classified; nothing where it is too large or does not end."""
    try:
        return await response.read_all(MAX_ERROR)
    except UpstreamError:
        return b""
