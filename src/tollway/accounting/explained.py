"""How the cost of an entry came about: its usage, billed once more by the rates that it was billed by."""

from decimal import Decimal
from typing import NamedTuple

from tollway.domain.money import exact_sum, to_decimal
from tollway.domain.prices import Rate, price_of, read_rates
from tollway.domain.usage import Usage


class Line(NamedTuple):
    """One bucket of a bill."""

    bucket: str
    units: int
    rate: Rate | None
    """None: the price has none for it, and it cost nothing."""
    cost: Decimal
    """US dollars."""


class Bill(NamedTuple):
    """What a usage comes to by the rates of one price."""

    lines: list[Line]
    above: int
    """The rates are those for prompts of more than so many tokens."""
    tier: str
    """The service tier whose rates were used; empty for the usual ones."""
    cost: Decimal
    """US dollars."""


def bill(usage: Usage, rates: str) -> Bill:
    """The bill by the rates of a price card. Raises ValueError for a card that holds no price."""
    price = price_of(read_rates(rates))
    lines = [
        Line(bucket, units, rate, to_decimal(cost, price.scale)) for bucket, units, cost, rate in price.amounts(usage)
    ]
    tier = usage.service_tier if usage.service_tier in price.tiers else ""
    return Bill(lines, price.band(usage).above, tier, exact_sum(line.cost for line in lines))
