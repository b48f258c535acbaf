"""The way of one request, from its first byte to its settlement.

Judged in this order: who asks, what is asked, for which model, what the limits still allow. Then one provider after the
other is attempted until one answers. A refusal at any point is a value, and ``refuse`` is the one way to say it.

A large body is no reason to work for a key that has nothing left: it is asked for its limits before it is read.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import cast

import msgspec

from tollway.admission.authenticate import authenticate, presented_key
from tollway.dataplane.answers import call_lines, crash, limit_lines, refuse
from tollway.dataplane.calls import Attempt, Call, Cut, Operation, Prepared
from tollway.dataplane.failures import fit_to_tell, of_its_account
from tollway.dataplane.offload import AT_ONCE_BYTES
from tollway.dataplane.unpriced import price_of
from tollway.dataplane.world import World
from tollway.domain.asked import Asked
from tollway.domain.failures import FailureKind, UpstreamFailure
from tollway.domain.prices import Price
from tollway.domain.refusals import (
    BadRequest,
    CannotAccount,
    ClientFault,
    Draining,
    ExpiredKey,
    ModelNotPriced,
    NoAnswer,
    Overloaded,
    Refusal,
    RevokedKey,
    TooFast,
    TooLarge,
    TooManyAtOnce,
)
from tollway.http1.errors import MessageError
from tollway.http1.exchange import Request
from tollway.routing.plan import plan
from tollway.routing.retry import Step, decide, repeat_pause_s
from tollway.routing.snapshot import KeyGrant, Target
from tollway.wire.estimate import prompt_tokens_estimate

_NAME_A_MODEL = "This API key may use only some models, so the request has to name one: 'model'."

_CUTS: dict[Cut, Refusal] = {Cut.REVOKED: RevokedKey(), Cut.EXPIRED: ExpiredKey(), Cut.DRAINED: Draining()}

Failed = tuple[Target, UpstreamFailure]
"""A target that was tried or could not be, and why it gave no answer."""


Judged = Asked | BadRequest

Parse = Callable[[bytes, int], Judged]
"""Judges a client's body; the second argument is the time, Unix seconds."""

Read = Callable[[World, Call], Awaitable[Judged]]
"""Reads as much of the body of a call's request as it takes to know what is asked."""


def reading(parse: Parse) -> Read:
    """Reads and judges a body as a whole."""

    async def read(world: World, call: Call) -> Judged:
        body, now_unix = await call.request.read_body(), int(time.time())
        if len(body) <= AT_ONCE_BYTES:
            return parse(body, now_unix)
        return await world.offload.run(call.grant.id, parse, body, now_unix)

    return read


async def serve(world: World, request: Request, operation: Operation, read: Read, parse: Parse | None = None) -> None:
    """Answer one call. ``parse`` judges a small body that came with its head, where ``read`` would judge it whole."""
    call_id = world.call_ids.next()
    call = identify(world, request, call_id)
    if not isinstance(call, Call):
        refuse(world, request, call_id, call)
        return
    grant = call.grant
    refusal = take_slot(world, grant)
    if refusal is not None:
        refuse(world, request, call_id, refusal, limit_lines(world, grant))
        return
    try:
        body = request.body
        asked: Asked | Refusal
        if body is None or len(body) > AT_ONCE_BYTES:
            asked = exhausted(world, call) or await read(world, call)
            again = identify(world, request, call_id)  # meanwhile the key may have been revoked
            if not isinstance(again, Call):
                refuse(world, request, call_id, again)
                return
            again.large, call = call.large, again
        elif parse is None:
            asked = await read(world, call)
        else:
            asked = parse(body, int(call.started_unix))
        refusal = admit(world, call, operation, asked) if isinstance(asked, Asked) else asked
        if refusal is not None:
            refuse(world, request, call_id, refusal, limit_lines(world, call.grant))
            return
        refusal = await answer_or_cut(world, call)
        if refusal is not None:
            refuse(world, request, call_id, refusal, call_lines(world, call))
    except MessageError:
        raise  # of the client's body: the server answers
    except Exception as error:
        crash(world, request, call_id, error)
    finally:
        world.slots.leave(grant.id)


def take_slot(world: World, grant: KeyGrant) -> Refusal | None:
    """Why no call of this key begins now; None once one has. The process may hold as much as it may, or the key."""
    budget = world.server.budget
    if budget.full and not budget.fits(1):
        return Overloaded()
    return None if world.slots.enter(grant.id) else TooManyAtOnce(world.slots.limit)


def exhausted(world: World, call: Call) -> Refusal | None:
    """Why a key that sends a large body could make no call at all now."""
    length = call.request.content_length
    call.large = length is None or length > AT_ONCE_BYTES
    if not call.large:
        return None
    grant = call.grant
    return world.allowances.exhausted(grant.id, grant.requests_per_minute, grant.tokens_per_minute, call.started)


def identify(world: World, request: Request, call_id: str) -> Call | Refusal:
    """Who asks. The call begins here: it pins the snapshot and the clock."""
    now, now_unix = world.now(), time.time()
    snapshot, fresh = world.configuration.snapshot, world.configuration.fresh
    grant = authenticate(presented_key(request.headers), snapshot, world.hasher, now_unix, fresh=fresh)
    if not isinstance(grant, KeyGrant):
        return grant
    request.vouch()
    return Call(call_id, request, snapshot, grant, now, now_unix)


def admit(world: World, call: Call, operation: Operation, asked: Asked) -> Refusal | None:
    """The one gate that every call passes; None lets it through. A refusal takes nothing from any limit."""
    grant = call.grant
    if operation.demands is not None and (refusal := operation.demands(call, asked)) is not None:
        return refusal
    targets = plan(asked.model, grant, call.snapshot)
    if not isinstance(targets, tuple):
        return targets
    if grant.models is not None and not asked.model and operation.runs_model:
        return BadRequest(_NAME_A_MODEL, "model", "missing_required_parameter")
    if world.cannot_account:
        return CannotAccount()
    if targets:
        asked = with_wishes(asked, call, targets[0])
    prompt_tokens = prompt_tokens_estimate(asked.prompt_bytes)
    cap = world.settings.assumed_output_tokens if asked.max_output_tokens is None else asked.max_output_tokens
    output_tokens = cap * asked.n
    hold = world.allowances.admit(
        grant.id, grant.requests_per_minute, grant.tokens_per_minute, prompt_tokens + output_tokens, call.started
    )
    if isinstance(hold, TooFast | TooLarge):
        return hold
    call.operation, call.asked, call.targets = operation, asked, targets
    call.hold, call.prompt_tokens, call.output_tokens = hold, prompt_tokens, output_tokens
    return None


def with_wishes(asked: Asked, call: Call, target: Target) -> Asked:
    """The call with what its headers and the row of its model say about how it is to be translated."""
    headers = call.request.headers
    strict = target.strict or headers.get(b"x-tollway-strict") == b"true"
    show_reasoning = target.show_reasoning or headers.get(b"x-tollway-reasoning") == b"true"
    if strict or show_reasoning:
        return msgspec.structs.replace(asked, strict=strict, show_reasoning=show_reasoning)
    return asked


async def answer_or_cut(world: World, call: Call) -> Refusal | None:
    """Answer an admitted call; what it holds is given back whatever way it ends.

    A call that the gateway itself cuts before it has said anything is refused; a stream says so itself (``relay.py``).
    """
    # Through no local: a task that was cancelled keeps the frames that the cancellation passed, and they would keep it.
    world.calls[call] = asyncio.current_task()  # type: ignore[assignment]  # there is one
    try:
        return await answer(world, call)
    except asyncio.CancelledError:
        if call.cut is None:
            raise
        return _CUTS[call.cut]
    finally:
        del world.calls[call]
        if not call.attempts:
            call.hold.cancel()  # nobody was asked: it counts as every other refusal
        world.books.close(call)


async def answer(world: World, call: Call) -> Refusal | None:
    """Attempt one target after the other; None once one of them has answered the client."""
    failures: list[Failed] = []
    deadline = call.started + world.settings.request_timeout_s
    operation, way = call.operation, call.operation.way
    assert way is not None
    attempt_once = way.stream if call.asked.stream else way.reply
    for target in candidates(world, call, failures):
        if failures and target is failures[-1][0]:
            await asyncio.sleep(repeat_pause_s(failures[-1][1]))
        prepared: Prepared | UpstreamFailure
        price = price_of(world, call, target)
        if isinstance(price, UpstreamFailure):
            prepared = price
        elif call.large:
            prepared = await world.offload.run(call.grant.id, way.prepare, world, call, target)
        else:
            prepared = way.prepare(world, call, target)
        if isinstance(prepared, Prepared):
            attempt = Attempt(call, prepared, deadline, world.now(), cast(Price | None, price))
            del prepared  # of a stream nobody keeps the request, which is sent
            if not (world.books.intend(attempt) or await world.delivery.works(deadline)):
                return CannotAccount()
            call.attempts += 1
            call.open = attempt
            outcome = await attempt_once(world, attempt)
            if outcome is None:
                return None
            call.request.on_gone = None
            failure = fit_to_tell(outcome, attempt)
            world.health.failed(target, call.grant, failure, world.now())
            world.books.waive(attempt, failure.kind.value, failure)
        else:
            failure = of_its_account(prepared, call.grant, target)
            if failure.kind is FailureKind.CREDENTIAL:
                call.attempts += 1  # a stored key that cannot be read counts as one that the provider refused
        if decide(failure) is Step.RETURN:
            return ClientFault(failure, operation.as_is)
        failures.append((target, failure))
        if call.spent or call.request.closed or world.now() >= deadline:
            break
    if failures and all(failure.kind is FailureKind.UNSUPPORTED for _, failure in failures):
        return ClientFault(failures[0][1])
    if failures and all(failure.kind is FailureKind.UNPRICED for _, failure in failures):
        return ModelNotPriced(call.asked.model)
    return NoAnswer(tuple((called(target), failure) for target, failure in failures))


def called(target: Target) -> str:
    """What a client reads of a target; a path without a model goes to a provider as such."""
    provider = target.provider.name
    return f"{target.model} at {provider}" if target.model else provider


def candidates(world: World, call: Call, failures: list[Failed]) -> Iterator[Target]:
    """The planned targets, those that are well first; then the last one once more, if that may help."""
    target = None
    for target in world.health.order(call.targets, call.grant, call.started):
        yield target
    if target is None or decide(failures[-1][1]) is not Step.NEXT_OR_SAME:
        return
    if world.retry_budget.may_retry(world.now()):
        yield target
