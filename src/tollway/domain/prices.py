"""What a call costs, exactly: rates with the conditions under which they hold, compiled to a few multiplications.

1. A price is a list of rates. A rate belongs to a bucket, holds from a size of the prompt on, and for one service tier
   or for all that have none of their own.
2. A bucket without a rate is billed by the rate of the bucket that it falls back to (``usage.FALLS_BACK``).
3. The size of the prompt decides for the whole call: every token of it is billed at the rate of that size.
4. The rates of a service tier replace a bucket's usual ones, with all their sizes.
"""

import hashlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from tollway.domain.money import PICODOLLARS
from tollway.domain.usage import FALLS_BACK, Bucket, Usage

_PER_MILLION = 1_000_000
MAX_RATES = 1000
"""Of one price."""

UNPRICED_BUCKET = "unpriced_bucket"
"""Doubt: something was used that the price has no rate for; it costs nothing here."""
UNPRICED_TIER = "unpriced_tier"
"""Doubt: the answer names a service tier that the price has no rates for; the usual ones were used."""

_FINE = 28  # decimals of amounts that no decimal can hold, such as a price per hour of one millisecond


class Rate(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What so many of one bucket cost, and when. As JSON: ``{"bucket": "input", "usd": "2.5"}``."""

    bucket: Bucket
    usd: Decimal
    """US dollars, zero or more, for ``per`` of them."""
    per: int = _PER_MILLION
    above: int = 0
    """Holds for prompts of more than so many tokens, up to the next such rate."""
    tier: str = ""
    """The service tier that it holds for; empty for all without a rate of their own."""
    minimum: int = 0
    """Fewer than so many are billed as so many, where there are any."""


class Amount(NamedTuple):
    """One line of a bill."""

    bucket: str
    units: int
    """How many were used."""
    cost: int
    """In units of ``10**-scale`` US dollars."""
    rate: Rate | None
    """None: there is none."""


class _Billed(NamedTuple):
    """A bucket's rate, ready to be used: ``count * units / per``."""

    units: int
    per: int
    rate: Rate


class _Band(msgspec.Struct, frozen=True):
    """All rates for prompts from one size on."""

    above: int
    input: int
    cache_read: int
    output: int
    reasoning: int
    whole: bool
    """The four common buckets have rates, and nothing else costs: they say all of a plain usage."""
    rates: Mapping[str, _Billed]
    """Of every bucket that has one, by its own or by what it falls back to."""


class Price(msgspec.Struct, frozen=True):
    """Rates of one model, compiled. Amounts are integers in units of ``10**-scale`` US dollars."""

    id: int
    """The same for the same rates, whoever compiles them; above zero, 63 bits."""
    scale: int
    rates: tuple[Rate, ...]
    """What it was compiled from."""
    usual: tuple[_Band, ...]
    """By size of the prompt, the smallest first."""
    tiers: Mapping[str, tuple[_Band, ...]]
    base: _Band
    """The first of the usual ones, and up to which size of the prompt it holds."""
    base_up_to: int

    def __hash__(self) -> int:
        return self.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Price) and self.rates == other.rates

    def bill(self, usage: Usage) -> tuple[int, str]:
        """The exact cost, and why it is in doubt, if it is."""
        base = self.base
        if (
            base.whole
            and not usage.others
            and not usage.service_tier
            and usage.input + usage.cache_read <= self.base_up_to
        ):
            cost = usage.input * base.input + usage.cache_read * base.cache_read
            return cost + usage.output * base.output + usage.reasoning * base.reasoning, usage.doubt
        amounts = self.amounts(usage)
        doubts = [usage.doubt] if usage.doubt else []
        if usage.service_tier and usage.service_tier not in self.tiers:
            doubts.append(UNPRICED_TIER)
        if any(amount.rate is None for amount in amounts):
            doubts.append(UNPRICED_BUCKET)
        return sum(amount.cost for amount in amounts), ",".join(doubts)

    def amounts(self, usage: Usage) -> list[Amount]:
        """The lines of the bill: every bucket that was used, and the fee for the call, if there is one."""
        rates = self.band(usage).rates
        counts: dict[str, int] = {
            Bucket.INPUT: usage.input,
            Bucket.CACHE_READ: usage.cache_read,
            Bucket.OUTPUT: usage.output,
            Bucket.REASONING: usage.reasoning,
            **usage.others,
        }
        if Bucket.REQUESTS in rates:
            counts[Bucket.REQUESTS] = 1
        return [_amount(bucket, count, rates.get(bucket)) for bucket, count in counts.items() if count]

    def band(self, usage: Usage) -> _Band:
        """The rates that this usage is billed by."""
        bands = self.tiers.get(usage.service_tier, self.usual)
        if len(bands) == 1:
            return bands[0]
        size = usage.input_tokens
        return next(band for band in reversed(bands) if size > band.above or not band.above)


def _amount(bucket: str, count: int, billed: _Billed | None) -> Amount:
    if billed is None:
        return Amount(bucket, count, 0, None)
    cost = max(count, billed.rate.minimum) * billed.units
    return Amount(bucket, count, cost if billed.per == 1 else round(Fraction(cost, billed.per)), billed.rate)


def price_of(rates: Iterable[Rate]) -> Price:
    """Compile rates. Raises ValueError for what cannot be a price."""
    listed = tuple(sorted(rates, key=lambda rate: (rate.tier, rate.above, rate.bucket)))
    if not 0 < len(listed) <= MAX_RATES:
        raise ValueError(f"a price has between one and {MAX_RATES} rates")
    if len({(rate.bucket, rate.tier, rate.above) for rate in listed}) < len(listed):
        raise ValueError("two rates hold for the same bucket at the same time")
    for rate in listed:
        _check(rate)
    scale = max(PICODOLLARS, *(_scale_of(rate) for rate in listed))
    usual = [rate for rate in listed if not rate.tier]
    tiers = {}
    for tier in sorted({rate.tier for rate in listed if rate.tier}):
        own = [rate for rate in listed if rate.tier == tier]
        replaced = {rate.bucket for rate in own}
        tiers[tier] = _bands([*own, *(rate for rate in usual if rate.bucket not in replaced)], scale)
    bands = _bands(usual, scale)
    digest = hashlib.blake2b(rates_json(listed), digest_size=8).digest()
    return Price(
        id=int.from_bytes(digest) >> 1 or 1,
        scale=scale,
        rates=listed,
        usual=bands,
        tiers=MappingProxyType(tiers),
        base=bands[0],
        base_up_to=bands[1].above if len(bands) > 1 else sys.maxsize,
    )


def rates_json(rates: Sequence[Rate]) -> bytes:
    """Rates as the database and the journal keep them."""
    return _encode(rates)


def read_rates(text: str | bytes) -> list[Rate]:
    """The reverse of :func:`rates_json`. Raises ValueError for what is no list of rates."""
    return _decode(text)


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[Rate]).decode


def price_per_1k(input_cost: Decimal, output_cost: Decimal, cached_input_cost: Decimal | None = None) -> Price:
    """A price from US dollars per 1,000 tokens; without its own price, cached input costs as much as fresh input.

    Raises ValueError for a price that is negative or not a finite number.
    """
    rates = [Rate(Bucket.INPUT, input_cost, 1000), Rate(Bucket.OUTPUT, output_cost, 1000)]
    if cached_input_cost is not None:
        rates.append(Rate(Bucket.CACHE_READ, cached_input_cost, 1000))
    return price_of(rates)


def _check(rate: Rate) -> None:
    if not rate.usd.is_finite() or rate.usd < 0:
        raise ValueError("a price is a finite number, zero or more")
    if rate.per < 1 or rate.above < 0 or rate.minimum < 0:
        raise ValueError("a rate is for one or more, and from zero on")


def _scale_of(rate: Rate) -> int:
    """Decimals of the price of one."""
    exact = _decimals(rate.usd) + len(str(rate.per)) - 1
    return exact if _is_power_of_ten(rate.per) else max(exact, _FINE)


def _is_power_of_ten(number: int) -> bool:
    return number == int(10 ** (len(str(number)) - 1))


def _bands(rates: Sequence[Rate], scale: int) -> tuple[_Band, ...]:
    return tuple(_band(above, rates, scale) for above in sorted({0, *(rate.above for rate in rates)}))


def _band(above: int, rates: Sequence[Rate], scale: int) -> _Band:
    own: dict[Bucket, _Billed] = {}
    for rate in rates:  # in the order of their sizes: the last that holds is the one
        if rate.above <= above:
            own[rate.bucket] = _billed(rate, scale)
    found: dict[str, _Billed] = {}
    for bucket in Bucket:
        billed = next((own[each] for each in (bucket, *FALLS_BACK.get(bucket, ())) if each in own), None)
        if billed is not None:
            found[bucket] = billed
    common = [found.get(bucket) for bucket in _COMMON]
    whole = Bucket.REQUESTS not in own and all(one is not None and _is_plain(one) for one in common)
    fresh, cached, output, reasoning = (one.units if one is not None and whole else 0 for one in common)
    return _Band(above, fresh, cached, output, reasoning, whole, MappingProxyType(found))


_COMMON = (Bucket.INPUT, Bucket.CACHE_READ, Bucket.OUTPUT, Bucket.REASONING)


def _is_plain(billed: _Billed) -> bool:
    return billed.per == 1 and not billed.rate.minimum


def _billed(rate: Rate, scale: int) -> _Billed:
    # Integer arithmetic on the digits: Decimal's own operators round at the context's precision.
    _, digits, exponent = rate.usd.as_tuple()
    assert isinstance(exponent, int)
    units = int("".join(map(str, digits))) * int(10 ** (scale + exponent))
    whole, rest = divmod(units, rate.per)
    return _Billed(units, rate.per, rate) if rest else _Billed(whole, 1, rate)


def _decimals(cost: Decimal) -> int:
    exponent = cost.as_tuple().exponent
    assert isinstance(exponent, int)  # it is finite
    return max(0, -exponent)
