"""What a model costs and when: prices that take turns, by date and by the time of day.

1. The price at a call's start is the one that the whole call is billed by.
2. A model's rows of prices that hold then stand one before the other, the last first; behind them the price columns of
   its own row, and behind these the built-in list.
3. What is said before replaces the rates behind for the same thing: a rate without a service tier all of its bucket's,
   a rate with one those of that tier. All else holds as it is.
4. What is set for tokens, or as a fee for each call, holds only where both directions have a usual price, whoever
   says it.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import NamedTuple

import msgspec

from tollway.domain.prices import MAX_RATES, Price, Rate, price_of
from tollway.domain.usage import INPUT_BUCKETS, OUTPUT_BUCKETS, Bucket

DAY_S = 86_400
MAX_OWN_PRICES = 100
"""Rows of prices that one model may have, past ones included."""


class Period(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Rates, and from when on they hold: until the next period of the day, or the day of the next one."""

    rates: tuple[Rate, ...]
    """None of them: what it costs then is not known."""
    since: float = 0
    """Unix seconds."""
    clock: int = 0
    """Second of the day, UTC. Every ``since`` has a period that begins at 0."""


class OwnPrice(NamedTuple):
    """What the database says of a model for some time; as JSON an array."""

    valid_from: float
    """Unix seconds."""
    valid_until: float | None
    """Not included; None: for good."""
    rates: tuple[Rate, ...]

    def holds(self, unix: float) -> bool:
        """Whether it is in force then."""
        return self.valid_from <= unix and (self.valid_until is None or unix < self.valid_until)


class ColumnCosts(NamedTuple):
    """The price columns of a model's row: US dollars per 1,000 tokens, None where it leaves them open."""

    input: Decimal | None = None
    output: Decimal | None = None
    cached_input: Decimal | None = None

    @property
    def rates(self) -> tuple[Rate, ...]:
        """The same as rates."""
        costs = zip((Bucket.INPUT, Bucket.OUTPUT, Bucket.CACHE_READ), self, strict=True)
        return tuple(Rate(bucket, cost, 1000) for bucket, cost in costs if cost is not None)


NO_COSTS = ColumnCosts()


class Tariff:
    """Compiled periods. Two are equal if they always come to the same price."""

    __slots__ = ("_begins", "_days", "_last", "_last_from")

    def __init__(self, periods: Sequence[tuple[float, int, Price | None]]) -> None:
        """``periods``: Unix seconds and second of the day of their beginnings, in this order, and their prices."""
        days: dict[float, tuple[list[int], list[Price | None]]] = {}
        for since, clock, price in periods:
            clocks, prices = days.setdefault(since, ([], []))
            clocks.append(clock)
            prices.append(price)
        self._begins = list(days)
        self._days = list(days.values())
        # Nearly every call comes after the last change.
        clocks, prices = self._days[-1]
        self._last = prices[0]
        self._last_from = self._begins[-1] if len(clocks) == 1 else math.inf

    def at(self, unix: float) -> Price | None:
        """The price of a call that starts then; None where it is not known."""
        if unix >= self._last_from:
            return self._last
        clocks, prices = self._days[max(0, bisect_right(self._begins, unix) - 1)]
        return prices[0] if len(clocks) == 1 else prices[bisect_right(clocks, unix % DAY_S) - 1]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tariff) and (self._begins, self._days) == (other._begins, other._days)

    def __hash__(self) -> int:
        return hash((*self._begins, *(price for _, prices in self._days for price in prices)))


def tariff_of(listed: Sequence[Period], costs: ColumnCosts = NO_COSTS, own: Sequence[OwnPrice] = ()) -> Tariff | None:
    """The tariff of a model; None where at no time a price is known.

    ``listed`` is what the built-in list says, nothing if it does not know the model. Of ``own`` prices that hold at the
    same time the last that names a bucket counts for it. Raises ValueError for what cannot be a price.
    """
    if len(own) > MAX_OWN_PRICES:
        raise ValueError(f"more than {MAX_OWN_PRICES} prices of its own")
    if sum(len(one.rates) for one in own) > MAX_RATES:
        raise ValueError(f"more than {MAX_RATES} rates in its own prices")
    for rates in (costs.rates, *(one.rates for one in own)):  # also those that never come into force
        if rates:
            price_of(rates)
    periods = [
        (since, clock, price_of(rates) if rates else None) for since, clock, rates in _periods(listed, costs, own)
    ]
    return Tariff(periods) if any(price is not None for _, _, price in periods) else None


def _periods(
    listed: Sequence[Period], costs: ColumnCosts, own: Sequence[OwnPrice]
) -> Iterator[tuple[float, int, list[Rate]]]:
    base = listed or (Period(()),)
    ends = (price.valid_until for price in own if price.valid_until is not None)
    moments = {0.0, *(period.since for period in base), *(price.valid_from for price in own), *ends}
    for since in sorted(moments):
        holding = [one for one in own if one.holds(since)]
        day = max(period.since for period in base if period.since <= max(0.0, since))
        for period in base:
            if period.since == day:
                yield since, period.clock, _rates_at(period.rates, costs, holding)


def _rates_at(listed: Iterable[Rate], costs: ColumnCosts, holding: Sequence[OwnPrice]) -> list[Rate]:
    own = set_here(costs, holding)
    rates = overlaid(own, listed)
    usual = {rate.bucket for rate in rates if not rate.tier}
    # Half a price is none: tokens of the other direction, or of the usual service tier, would be free.
    if own and any(rate.bucket in _WITH_TOKENS for rate in rates) and not {Bucket.INPUT, Bucket.OUTPUT} <= usual:
        return []
    return rates


_WITH_TOKENS = INPUT_BUCKETS | OUTPUT_BUCKETS | {Bucket.REQUESTS}
"""A fee for each call comes on top of its tokens."""


def set_here(costs: ColumnCosts, holding: Sequence[OwnPrice]) -> list[Rate]:
    """What the database says of a model at a time: its columns, and before them the prices that hold then."""
    found = list(costs.rates)
    for one in holding:
        found = overlaid(one.rates, found)
    return found


def overlaid(own: Sequence[Rate], listed: Iterable[Rate]) -> list[Rate]:
    """Rates that stand before others, and those of the others that they leave in force."""
    replaced = {(rate.bucket, rate.tier) for rate in own}
    rest = (rate for rate in listed if not replaced & {(rate.bucket, ""), (rate.bucket, rate.tier)})
    return [*own, *rest]


def read_own_prices(text: str | bytes) -> list[OwnPrice]:
    """Own prices from a JSON array, in order. Raises ValueError for what is none."""
    try:
        return _decode_own(text)
    except msgspec.MsgspecError as error:
        raise ValueError(f"no list of prices: {error}") from None


def periods_json(periods: Sequence[Period]) -> bytes:
    """Periods as the database keeps them."""
    return _encode(periods)


def read_periods(text: str | bytes) -> list[Period]:
    """The reverse of :func:`periods_json`, in order. Raises ValueError for what is no list of periods."""
    try:
        periods = sorted(_decode(text), key=lambda period: (period.since, period.clock))
    except msgspec.MsgspecError as error:
        raise ValueError(f"no list of periods: {error}") from None
    begins = {period.since for period in periods if not period.clock}
    if not all(period.since in begins and 0 <= period.clock < DAY_S for period in periods) or 0 not in begins:
        raise ValueError("periods do not fill the time")
    return periods


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[Period]).decode
_decode_own = msgspec.json.Decoder(list[OwnPrice]).decode
