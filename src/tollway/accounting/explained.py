"""How the cost of an entry came about: its usage, billed once more by the rates that it was billed by."""

from collections.abc import Mapping
from decimal import Decimal
from typing import NamedTuple

from tollway.domain.money import exact_sum, to_decimal
from tollway.domain.prices import Rate, price_of, read_rates
from tollway.domain.usage import CACHED_BUCKETS, INPUT_BUCKETS, OUTPUT_BUCKETS, Usage


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


def usage_of(
    input_tokens: int,
    cached_input_tokens: int,
    output_tokens: int,
    reasoning_tokens: int,
    others: Mapping[str, int],
    service_tier: str,
) -> Usage:
    """The buckets of an entry, from its totals that contain each other."""
    rare_input = sum(count for bucket, count in others.items() if bucket in INPUT_BUCKETS)
    rare_cached = sum(count for bucket, count in others.items() if bucket in CACHED_BUCKETS)
    rare_output = sum(count for bucket, count in others.items() if bucket in OUTPUT_BUCKETS)
    cache_read = cached_input_tokens - rare_cached
    return Usage(
        input=input_tokens - cache_read - rare_input,
        output=output_tokens - reasoning_tokens - rare_output,
        cache_read=cache_read,
        reasoning=reasoning_tokens,
        others=others,
        service_tier=service_tier,
    )


def bill(usage: Usage, rates: str) -> Bill:
    """The bill by the rates of a price card. Raises ValueError for a card that holds no price."""
    price = price_of(read_rates(rates))
    lines = [
        Line(bucket, units, rate, to_decimal(cost, price.scale)) for bucket, units, cost, rate in price.amounts(usage)
    ]
    tier = usage.service_tier if usage.service_tier in price.tiers else ""
    return Bill(lines, price.band(usage).above, tier, exact_sum(line.cost for line in lines))
