"""Calls that pass as they are: every path of OpenAI's API for which no adapter is needed.

1. They pass the same gate as all others; only what is asked is found in another way.
2. A body in JSON is judged whole. Forms and files stream: no more of a form is held than the part up to its model.
3. What has streamed cannot be sent twice: then there is one attempt.
4. Answers stream, but for short JSON, whose head can then say what it cost.
"""

import asyncio
import functools
from collections.abc import Callable
from typing import TypeVar

from tollway.dataplane.answers import passed_head
from tollway.dataplane.attempts import dated_headers, error_body, first_event, not_offered, open_answer
from tollway.dataplane.books import CLIENT_FAILED, INTERNAL_ERROR
from tollway.dataplane.calls import Attempt, Call, Operation, Prepared, Way, reading_on
from tollway.dataplane.failures import failure_of, fit_to_tell
from tollway.dataplane.offload import AT_ONCE_BYTES
from tollway.dataplane.passage_request import Passage, read_passage
from tollway.dataplane.relay import Relay
from tollway.dataplane.serve import serve
from tollway.dataplane.unpriced import price_by_answer
from tollway.dataplane.world import World
from tollway.domain.asked import NoUsage
from tollway.domain.failures import FailureKind, UpstreamFailure
from tollway.domain.refusals import BadRequest, ProviderKeyRequired, Refusal
from tollway.http1.answer import StreamedResponse
from tollway.http1.errors import BadResponse, MessageError, UpstreamError
from tollway.http1.exchange import Request
from tollway.providers.base import is_good
from tollway.providers.passage import DIALECT, Hide, PassageStream, judge
from tollway.providers.signing.bearer import text_without_secret
from tollway.routing.snapshot import DEFAULT_PROVIDER, Provider, Target
from tollway.wire.openai_errors import may_be_told
from tollway.wire.paths import RULES, ModelIn, PathRule
from tollway.wire.response_text import text_bytes
from tollway.wire.searches import may_hold_searches, searches_of_response

T = TypeVar("T")

HELD_JSON = 1024 * 1024
"""Bytes of an answer in JSON that are held for its end; what is longer streams, and its head says no cost."""

_ESTIMATED = frozenset({"/responses", "/responses/compact"})
"""What is billed by the tokens of a text, which can be estimated where a provider does not count them."""

_FREE = frozenset({"/responses/input_tokens"})
"""What names a model and runs none."""

_ANOTHERS = UpstreamFailure(FailureKind.NO_CREDENTIAL, "stored objects are only for a provider key of one's own")


async def serve_passage(world: World, request: Request, path: bytes, rule: PathRule) -> None:
    """Answer one call of a path that passes; ``path`` is without ``/v1``."""
    await serve(world, request, OPERATIONS[rule], functools.partial(read_passage, path, rule))


def _judge(call: Call, passage: Passage) -> Refusal | None:
    """What a path asks of a key beyond what every call does."""
    rule = passage.rule
    if passage.on_stored:
        route = call.snapshot.routes.get(passage.model)
        provider = route.targets[0].provider.name if route is not None and route.targets else DEFAULT_PROVIDER
        if provider not in call.grant.secrets:
            return ProviderKeyRequired(provider, None if rule.needs_own_key else passage.refers_to_stored)
    if rule.model is ModelIn.ELSEWHERE and call.grant.models is not None:
        text = f"This API key may use only some models, and /v1{rule.template} does not say which it runs."
        return BadRequest(text, None, "model_not_allowed", 403)
    return None


def prepare_passage(world: World, call: Call, target: Target) -> Prepared | UpstreamFailure:
    """The request as the client made it, but for where it goes, on whose account, and the name of the model."""
    passage, provider = call.asked, target.provider
    assert isinstance(passage, Passage)
    if provider.dialect != DIALECT or provider.builtin:
        return not_offered(call)
    if passage.on_stored and provider.name not in call.grant.secrets:
        return _ANOTHERS  # a fallback's; the first target's has been judged
    credential = world.upstreams.authorization(call.grant, provider)
    if isinstance(credential, UpstreamFailure):
        return credential
    upstream = world.upstreams.of(target)
    message = b"%b %b%b HTTP/1.1\r\nHost: %b\r\nAccept-Encoding: identity\r\nUser-Agent: tollway\r\n%b%b%b%b" % (
        passage.method,
        upstream.base_path,
        passage.target,
        upstream.origin.authority,
        passage.lines,
        _idempotency_line(world, call, passage, provider),
        credential,
        passage.framed(target.upstream_model),
    )
    return Prepared(upstream, None, credential, message)


def _idempotency_line(world: World, call: Call, passage: Passage, provider: Provider) -> bytes:
    """The client's ``Idempotency-Key``. On a credential that keys share it is made this key's own, or a provider would
    give one tenant the answer of another who chose the same name."""
    name = passage.idempotency_key
    if name is None:
        return b""
    if provider.name not in call.grant.secrets:
        name = world.hasher(b"%b\n%b" % (call.grant.id.encode(), name)).hex().encode()
    return b"Idempotency-Key: %b\r\n" % name


async def attempt_passage(world: World, attempt: Attempt) -> UpstreamFailure | None:
    """Send what is there and what still comes, and pass on the answer as it comes."""
    response: StreamedResponse | None = None
    try:
        response = await _send(world, attempt)
        attempt.message = b""
        attempt.status = response.status
        if not is_good(response.status):
            return await _judged(world, attempt, response)
        metered = attempt.call.request.method == b"POST"  # what was used for a stored answer has been billed
        kind, hiding = response.headers.get(b"content-type", b""), functools.partial(_hiding, attempt)
        decoder = PassageStream(kind, metered=metered, images=_images(attempt.call), hiding=hiding)
        response.first_byte_due = decoder.is_events  # until there is an event
        if decoder.is_json:
            held = await _held_json(response, decoder)
        else:
            held = await first_event(world, attempt, response, decoder)
        response.first_byte_due = False
        if decoder.failure is not None and not decoder.started:
            return decoder.failure
        if decoder.finished:
            if _is_unmetered(attempt, decoder):
                decoder.content_bytes = await _read_beside(world, attempt, text_bytes, held)
            if decoder.is_json and may_hold_searches(held):
                decoder.add(await _read_beside(world, attempt, searches_of_response, held))
            _respond(world, attempt, response, decoder, held)
        elif attempt.call.request.method == b"HEAD":
            _respond_without(world, attempt, response, decoder)
        else:
            head = passed_head(attempt, response.headers, world.now())
            await PassageRelay(world, attempt, decoder, response, head).run(held)
        return None
    except UpstreamError as error:
        return failure_of(error)
    except asyncio.CancelledError:
        world.books.abandon(attempt)
        raise
    except MessageError:  # of the client's body
        world.books.waive(attempt, CLIENT_FAILED)
        raise
    except Exception:
        world.books.waive(attempt, INTERNAL_ERROR)
        raise
    finally:
        if response is not None:
            response.close()


def _images(call: Call) -> int:
    """How many pictures a call asks for; 0 for one that makes none."""
    if not call.operation.name.startswith("images/"):
        return 0
    assert isinstance(call.asked, Passage)
    return call.asked.images


async def _send(world: World, attempt: Attempt) -> StreamedResponse:
    passage, settings = attempt.call.asked, world.settings
    assert isinstance(passage, Passage)
    if passage.rest is None:
        return await open_answer(world, attempt)
    attempt.call.spent = True
    return await world.client.open_upload(
        attempt.upstream.origin,
        attempt.message,
        passage.rest,
        first_byte_s=settings.first_byte_timeout_s,
        idle_s=settings.idle_timeout_s,
        deadline=attempt.deadline,
        on_sent=attempt.note_sent,
    )


async def _judged(world: World, attempt: Attempt, response: StreamedResponse) -> UpstreamFailure:
    passage = attempt.call.asked
    assert isinstance(passage, Passage)
    body = await error_body(response)
    headers = dated_headers(world, attempt, response.headers)
    own_key = attempt.upstream.target.provider.name in attempt.call.grant.secrets
    names_object = passage.rule.names_object or not passage.model
    return judge(response.status, headers, body, own_key=own_key, names_object=names_object)


async def _held_json(response: StreamedResponse, decoder: PassageStream) -> bytes:
    """An answer in JSON up to its end, or as much as is held."""
    held = bytearray()
    while len(held) <= HELD_JSON:
        piece = await response.read()
        if not piece:
            decoder.close()
            break
        held += decoder.feed(piece)
        response.keeps(len(held))
    return bytes(held)


def _respond(world: World, attempt: Attempt, response: StreamedResponse, decoder: PassageStream, body: bytes) -> None:
    call, target = attempt.call, attempt.upstream.target
    cost = _charge(world, attempt, decoder)
    now = world.now()
    call.request.respond(response.status, passed_head(attempt, response.headers, now, cost), body)
    if decoder.failure is None:
        world.health.succeeded(target, call.grant, now)
    else:
        world.health.failed(target, call.grant, decoder.failure, now)


def _is_unmetered(attempt: Attempt, decoder: PassageStream) -> bool:
    """Whether an answer is billed by what it says, because its provider did not count."""
    no_usage = attempt.call.operation.no_usage
    tells_output = decoder.usage is not None and decoder.usage.output_tokens > 0
    return decoder.is_json and not tells_output and no_usage is NoUsage.ESTIMATE


async def _read_beside(world: World, attempt: Attempt, read: Callable[[bytes], T], body: bytes) -> T:
    """What a reader says of an answer; of a large one beside the event loop."""
    if len(body) <= AT_ONCE_BYTES:
        return read(body)
    with reading_on(attempt.call.request):
        return await world.offload.run(attempt.call.grant.id, read, body)


def _respond_without(world: World, attempt: Attempt, response: StreamedResponse, decoder: PassageStream) -> None:
    """Answer a request for the head of what is too long to be held; the provider need not send the rest."""
    call = attempt.call
    _charge(world, attempt, decoder)
    world.health.succeeded(attempt.upstream.target, call.grant, world.now())
    call.request.start(response.status, passed_head(attempt, response.headers, world.now())).end()


def _charge(world: World, attempt: Attempt, decoder: PassageStream) -> int | None:
    price_by_answer(attempt, decoder)
    failure = None if decoder.failure is None else fit_to_tell(decoder.failure, attempt)
    outcome = "ok" if failure is None else failure.kind.value
    return world.books.charge(
        attempt, outcome, decoder.usage, decoder.content_bytes, partial=failure is not None, failure=failure
    )


class PassageRelay(Relay):
    """Passes on every byte. The attempt is settled as soon as the answer has said what it cost, or has ended."""

    __slots__ = ()

    _decoder: PassageStream

    def keep_alive(self, now: float, after_s: float) -> None:
        """Only events have room for comments."""
        if self._decoder.is_events:
            super().keep_alive(now, after_s)

    @property
    def _all_said(self) -> bool:
        return self._decoder.all_said

    def _feed(self, piece: bytes) -> bool:
        if len(piece) > AT_ONCE_BYTES and self._decoder.is_events:
            return self._put_off(piece)
        return self._pass_on(piece, self._decoder.feed(piece))

    def _pass_on(self, piece: bytes, frames: bytes) -> bool:
        self._send(frames)
        if self._unfinished or not frames:
            self._note_unfinished(piece, frames)
        return not (self._decoder.is_events and piece.startswith(b":"))

    def _charge(self, outcome: str, failure: UpstreamFailure | None = None) -> None:
        price_by_answer(self._attempt, self._decoder)
        super()._charge(outcome, failure)

    def _send(self, frames: bytes) -> None:
        if self._decoder.settled:
            _charge(self._world, self._attempt, self._decoder)
        if frames:
            self._last = frames
            self._stream.write(frames)
        if self._decoder.cut and not self._decoder.finished:
            raise BadResponse("the provider says more about its failure than can be passed on", nothing_received=False)

    def _tell(self, failure: UpstreamFailure) -> None:
        if not self._decoder.is_events:
            self._stream.abort()  # a client must not take half a file for a whole one
        elif self._decoder.failure is None or self._decoder.cut:  # else the provider has told
            super()._tell(failure)


def _hiding(attempt: Attempt, failure: UpstreamFailure) -> Hide:
    """What hides from a text of the provider's what is not the client's business."""
    failure = fit_to_tell(failure, attempt)
    if may_be_told(failure):
        return lambda text: text_without_secret(text, attempt.credential)
    ours = failure.message
    return lambda text: ours if " " in text else text_without_secret(text, attempt.credential)


def _operation(rule: PathRule) -> Operation:
    if rule.template in _ESTIMATED:
        no_usage = NoUsage.ESTIMATE
    else:
        runs_none = rule.model is ModelIn.NOWHERE or rule.template in _FREE
        no_usage = NoUsage.FREE if runs_none else NoUsage.UNPRICED
    return Operation(
        rule.template.removeprefix("/"),
        Way(prepare_passage, attempt_passage, attempt_passage),
        no_usage,
        runs_model=rule.names_model,
        as_is=True,
        demands=_judge,
    )


OPERATIONS = {rule: _operation(rule) for _, rule in RULES}
