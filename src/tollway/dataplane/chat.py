"""POST /v1/chat/completions: the way of one request, from its first byte to its settlement.

Judged in this order: who asks, what is asked, for which model, what the limits still allow. Then one provider after the
other is attempted until one answers. A refusal at any point is a value, and ``refuse`` is the one way to say it.
"""

import asyncio
import time
from typing import NamedTuple

from tollway.admission.authenticate import authenticate
from tollway.dataplane.answers import call_lines, refuse
from tollway.dataplane.attempts import attempt_reply, attempt_stream, prepare
from tollway.dataplane.calls import Attempt, Call
from tollway.dataplane.world import World
from tollway.domain.failures import UpstreamFailure
from tollway.domain.refusals import BadRequest, CannotAccount, ClientFault, NoAnswer, Refusal, TooFast, TooLarge
from tollway.http1.server import Request
from tollway.routing.plan import plan
from tollway.routing.retry import Step, decide
from tollway.routing.snapshot import KeyGrant, Target
from tollway.wire.chat_request import parse_chat
from tollway.wire.estimate import prompt_tokens_estimate

REPEAT_PAUSE_S = 0.25
"""Before the only target is tried once more: long enough for a restart or a dropped connection to pass."""


async def serve_chat(world: World, request: Request) -> None:
    """Answer one chat completion, streamed or not."""
    call_id = world.call_ids.next()
    call = await admit(world, request, call_id)
    if isinstance(call, Limited):
        refuse(world, request, call_id, call.refusal, call.lines)
    elif not isinstance(call, Call):
        refuse(world, request, call_id, call)
    else:
        await serve_call(world, call)


async def serve_call(world: World, call: Call) -> None:
    """Answer an admitted call, or say why nobody could. Its hold is given back in every case."""
    world.inflight += 1
    try:
        refusal = await answer(world, call)
    finally:
        world.inflight -= 1
        world.books.close(call)
    if refusal is not None:
        refuse(world, call.request, call.id, refusal, call_lines(call, world.now()))


class Limited(NamedTuple):
    """A refusal by a limit, with the ``x-ratelimit-*`` lines that explain it."""

    refusal: TooFast | TooLarge
    lines: bytes


async def admit(world: World, request: Request, call_id: str) -> Call | Refusal | Limited:
    """The one gate that every call passes. A refusal takes nothing from any limit."""
    now, now_unix = world.now(), time.time()
    snapshot = world.configuration.snapshot
    authorization = request.headers.get(b"authorization")
    grant = authenticate(authorization, snapshot, world.hasher, now_unix, fresh=world.configuration.fresh)
    if not isinstance(grant, KeyGrant):
        return grant
    body = request.body
    chat = parse_chat(body if body is not None else await request.read_body(), int(now_unix))
    if isinstance(chat, BadRequest):
        return chat
    targets = plan(chat.model, grant, snapshot)
    if not isinstance(targets, tuple):
        return targets
    if world.books.full:
        return CannotAccount()
    prompt_tokens = prompt_tokens_estimate(chat.prompt_bytes)
    cap = world.settings.assumed_output_tokens if chat.max_output_tokens is None else chat.max_output_tokens
    limits = (grant.id, grant.requests_per_minute, grant.tokens_per_minute)
    hold = world.allowances.admit(*limits, prompt_tokens + cap * chat.n, now)
    if isinstance(hold, TooFast | TooLarge):
        return Limited(hold, world.allowances.header_lines(*limits, now))
    return Call(call_id, request, snapshot, grant, chat, targets, hold, prompt_tokens, now, now_unix)


async def answer(world: World, call: Call) -> Refusal | None:
    """Attempt the planned targets in turn; None once one of them has answered the client."""
    failures: list[tuple[str, UpstreamFailure]] = []
    deadline = call.started + world.settings.request_timeout_s
    for target in world.health.order(call.targets, call.grant, world.now()):
        failure = await attempt(world, call, target, deadline)
        if failure is None:
            return None
        if decide(failure.kind) is Step.RETURN and (failure.status or not failures):
            return ClientFault(failure)
        failures.append((target.model, failure))
        if world.now() >= deadline:
            return NoAnswer(tuple(failures))
    if failures and decide(failures[-1][1].kind) is Step.NEXT_OR_SAME and world.retry_budget.may_retry(world.now()):
        await asyncio.sleep(REPEAT_PAUSE_S)
        failure = await attempt(world, call, target, deadline)
        if failure is None:
            return None
        failures.append((target.model, failure))
    return NoAnswer(tuple(failures))


async def attempt(world: World, call: Call, target: Target, deadline: float) -> UpstreamFailure | None:
    """One attempt at one target; None if it answered the client. What failed is entered in the books, on the house."""
    upstream = world.upstreams.of(target)
    prepared = prepare(world, call, upstream)
    if isinstance(prepared, UpstreamFailure):
        return prepared
    one = Attempt(call, upstream, prepared, deadline, world.now())
    failure = await (attempt_stream if call.chat.stream else attempt_reply)(world, one)
    if failure is None:
        world.health.succeeded(target, call.grant, world.now())
    else:
        world.health.failed(target, call.grant, failure, world.now())
        world.books.waive(one, failure)
    return failure
