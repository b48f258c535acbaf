"""POST /v1/chat/completions: the way of one request, from its first byte to its settlement.

Judged in this order: who asks, what is asked, for which model, what the limits still allow. Then one provider after the
other is attempted until one answers. A refusal at any point is a value, and ``refuse`` is the one way to say it.
"""

import asyncio
import time
from collections.abc import Iterator

from tollway.admission.authenticate import authenticate
from tollway.dataplane.answers import call_lines, limit_lines, refuse
from tollway.dataplane.attempts import attempt_reply, attempt_stream, prepare
from tollway.dataplane.calls import Attempt, Call, Prepared
from tollway.dataplane.world import World
from tollway.domain.failures import FailureKind, UpstreamFailure
from tollway.domain.refusals import BadRequest, CannotAccount, ClientFault, NoAnswer, Refusal, TooFast, TooLarge
from tollway.http1.server import Request
from tollway.providers.signing.bearer import without_secret
from tollway.routing.plan import plan
from tollway.routing.retry import Step, decide
from tollway.routing.snapshot import KeyGrant, Target
from tollway.wire.chat_request import parse_chat
from tollway.wire.estimate import prompt_tokens_estimate

REPEAT_PAUSE_S = 0.25
"""Before the only target is tried once more: long enough for a restart or a dropped connection to pass."""


Failed = tuple[Target, UpstreamFailure]
"""A target that was tried or could not be, and why it gave no answer."""


async def serve_chat(world: World, request: Request) -> None:
    """Answer one chat completion, streamed or not."""
    call_id = world.call_ids.next()
    now, now_unix = world.now(), time.time()
    snapshot, fresh = world.configuration.snapshot, world.configuration.fresh
    grant = authenticate(request.headers.get(b"authorization"), snapshot, world.hasher, now_unix, fresh=fresh)
    if not isinstance(grant, KeyGrant):
        refuse(world, request, call_id, grant)
        return
    body = request.body if request.body is not None else await request.read_body()
    call = admit(world, Call(call_id, request, snapshot, grant, now, now_unix), body)
    if not isinstance(call, Call):
        refuse(world, request, call_id, call, limit_lines(world, grant))
        return
    world.inflight += 1
    try:
        refusal = await answer(world, call)
    finally:
        world.inflight -= 1
        world.books.close(call)
    if refusal is not None:
        refuse(world, request, call_id, refusal, call_lines(world, call))


def admit(world: World, call: Call, body: bytes) -> Call | Refusal:
    """The one gate that every call passes. A refusal takes nothing from any limit."""
    chat = parse_chat(body, int(call.started_unix))
    if isinstance(chat, BadRequest):
        return chat
    grant = call.grant
    targets = plan(chat.model, grant, call.snapshot)
    if not isinstance(targets, tuple):
        return targets
    if world.books.full:
        return CannotAccount()
    prompt_tokens = prompt_tokens_estimate(chat.prompt_bytes)
    cap = world.settings.assumed_output_tokens if chat.max_output_tokens is None else chat.max_output_tokens
    tokens = prompt_tokens + cap * chat.n
    hold = world.allowances.admit(grant.id, grant.requests_per_minute, grant.tokens_per_minute, tokens, call.started)
    if isinstance(hold, TooFast | TooLarge):
        return hold
    call.chat, call.targets, call.hold, call.prompt_tokens = chat, targets, hold, prompt_tokens
    return call


async def answer(world: World, call: Call) -> Refusal | None:
    """Attempt one target after the other; None once one of them has answered the client."""
    failures: list[Failed] = []
    deadline = call.started + world.settings.request_timeout_s
    attempt_once = attempt_stream if call.chat.stream else attempt_reply
    for target in candidates(world, call, failures):
        if failures and target is failures[-1][0]:
            await asyncio.sleep(REPEAT_PAUSE_S)
        prepared = prepare(world, call, target)
        if isinstance(prepared, Prepared):
            attempt = Attempt(call, prepared, deadline, world.now())
            outcome = await attempt_once(world, attempt)
            if outcome is None:
                return None
            failure = without_secret(outcome, attempt.credential)
            world.health.failed(target, call.grant, failure, world.now())
            world.books.waive(attempt, failure)
        else:
            failure = prepared
            call.attempts += failure.kind is FailureKind.CREDENTIAL  # as if the provider had refused it
        if decide(failure.kind) is Step.RETURN and (failure.status or not failures):
            return ClientFault(failure)
        failures.append((target, failure))
        if world.now() >= deadline:
            break
    return NoAnswer(tuple((f"{target.model} at {target.provider.name}", failure) for target, failure in failures))


def candidates(world: World, call: Call, failures: list[Failed]) -> Iterator[Target]:
    """The planned targets, those that are well first; then the last one once more, if that may help."""
    target = None
    for target in world.health.order(call.targets, call.grant, call.started):
        yield target
    if target is None or decide(failures[-1][1].kind) is not Step.NEXT_OR_SAME:
        return
    if world.retry_budget.may_retry(world.now()):
        yield target
