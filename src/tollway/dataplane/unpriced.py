"""By which price a call is billed, and what is done where nobody knows it."""

from tollway.dataplane.calls import Attempt, Call
from tollway.dataplane.world import World
from tollway.domain.failures import FailureKind, UpstreamFailure
from tollway.domain.prices import Price
from tollway.providers.passage import PassageStream
from tollway.routing.snapshot import Target

_NOT_PRICED = UpstreamFailure(FailureKind.UNPRICED, "what it would cost is not known")


def price_of(world: World, call: Call, target: Target) -> Price | UpstreamFailure | None:
    """The price at the call's start; None where it is not known, and a failure where such a call is not made."""
    tariff = target.tariff
    price = None if tariff is None else tariff.at(call.started_unix)
    return price if price is not None else _price_without(world, call, target)


def price_by_answer(attempt: Attempt, answer: PassageStream) -> None:
    """Bill a call that named no model by the price of the one that its answer names, if that is known here."""
    target, call = attempt.upstream.target, attempt.call
    if target.model:
        return
    found = call.snapshot.target_that_answered(target.provider.name, answer.answered_model)
    price = None if found is None or found.tariff is None else found.tariff.at(call.started_unix)
    if price is not None:
        attempt.price = price


def _price_without(world: World, call: Call, target: Target) -> Price | UpstreamFailure | None:
    fallback = world.books.fallback_price
    if fallback is not None:
        return fallback
    refuses = world.settings.unpriced.refuses(call.operation.no_usage, names_model=bool(target.model))
    if refuses and world.upstreams.is_shared(call.grant, target.provider):
        return _NOT_PRICED
    return None
