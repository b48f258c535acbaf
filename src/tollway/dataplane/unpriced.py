"""By which price a call is billed, and what is done where nobody knows it."""

from msgspec.structs import replace

from tollway.dataplane.calls import Attempt, Call
from tollway.dataplane.world import World
from tollway.domain.asked import NoUsage
from tollway.domain.failures import FailureKind, UpstreamFailure
from tollway.domain.prices import Price
from tollway.providers.passage import PassageStream
from tollway.routing.snapshot import Target

_NOT_PRICED = UpstreamFailure(FailureKind.UNPRICED, "what it would cost is not known")


def price_of(world: World, call: Call, target: Target) -> Price | UpstreamFailure | None:
    """The price at the call's start; None where it is not known, and a failure where such a call is not made.

    A price that leaves tokens free is none for what is billed by tokens; such a call that is made all the same is
    billed by what there is of it, and counts as unpriced.
    """
    tariff = target.tariff
    price = None if tariff is None else tariff.at(call.started_unix)
    if price is not None and (price.bills_tokens or call.operation.no_usage is not NoUsage.ESTIMATE):
        return price
    return _price_without(world, call, target, price)


def price_by_answer(attempt: Attempt, answer: PassageStream) -> None:
    """Enter and bill a call that named no model as one of the model that its answer names, if that is known here."""
    target, call = attempt.upstream.target, attempt.call
    if target.model or not answer.answered_model:
        return
    found = call.snapshot.target_that_answered(target.provider.name, answer.answered_model)
    if found is None:
        attempt.answered_by = replace(target, upstream_model=answer.answered_model)
        return
    attempt.answered_by = found
    price = None if found.tariff is None else found.tariff.at(call.started_unix)
    if price is not None and (price.bills_tokens or attempt.price is None):
        attempt.price = price


def _price_without(world: World, call: Call, target: Target, part: Price | None) -> Price | UpstreamFailure | None:
    """``part``: what is known of it."""
    fallback = world.books.fallback_price
    refuses = world.settings.unpriced.refuses(call.operation.no_usage, names_model=bool(target.model))
    if (fallback is None and not refuses) or not world.upstreams.is_shared(call.grant, target.provider):
        return part
    return _NOT_PRICED if fallback is None else fallback
