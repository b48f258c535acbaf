"""What a call costs, exactly: rates with the conditions under which they hold, compiled to a few multiplications.

1. A price is a list of rates. A rate belongs to a bucket, holds from a size of the prompt on, and for one service tier
   or for all that have none of their own.
2. A bucket without a rate is billed by the rate of the bucket that it falls back to (``usage.FALLS_BACK``).
3. The size of the prompt decides for the whole call: every token of it is billed at the rate of that size.
4. The rates of a service tier replace a bucket's usual ones, with all their sizes. Tokens that it has no rate for are
   billed by the usual one, and the cost is in doubt.
5. A line of a bill is exact wherever decimals can say it. What they cannot, such as a price per hour of a millisecond,
   is rounded half to even at :data:`DIGITS` significant digits; the sum of the lines is not rounded again.
"""

import hashlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from tollway.domain.doubts import joined
from tollway.domain.money import PICODOLLARS
from tollway.domain.usage import (
    FALLS_BACK,
    INPUT_BUCKETS,
    OUTPUT_BUCKETS,
    TIER,
    TIERS_ARE,
    USUAL_TIERS,
    Bucket,
    Usage,
)

PER_MILLION = 1_000_000
MAX_RATES = 1000
"""Of one price."""
MAX_USD = 1_000_000_000
"""Of one rate, and for how many of a bucket it may be."""
MAX_DECIMALS = 1000
"""Of one rate."""
UNPRICED_BUCKET = "unpriced_bucket"
"""Doubt: something was used that the price has no rate for; it costs nothing here."""
UNPRICED_TIER = "unpriced_tier"
"""Doubt: tokens of a service tier that the answer names and the price has no rate for; the usual one was used."""

DIGITS = 28
"""Of a line that no decimal can say exactly; as many as Python's ``Decimal`` has, by which others reckon."""


class Rate(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What so many of one bucket cost, and when. As JSON: ``{"bucket": "input", "usd": "2.5"}``."""

    bucket: Bucket
    usd: Decimal
    """US dollars, zero or more, for ``per`` of them."""
    per: int = PER_MILLION
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

    def cost(self, count: int) -> int:
        """Of so many, above zero."""
        cost = max(count, self.rate.minimum) * self.units
        return cost if self.per == 1 else _quotient(cost, self.per)


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
    usual: frozenset[str]
    """Of them those of tokens whose rate is no service tier's."""


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
    bills_tokens: bool
    """Input and output have usual rates, so that no token is free."""

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
        ):  # nearly all there are
            cost = usage.input * base.input + usage.cache_read * base.cache_read
            return cost + usage.output * base.output + usage.reasoning * base.reasoning, usage.doubt
        return self._bill_by_conditions(usage)

    def _bill_by_conditions(self, usage: Usage) -> tuple[int, str]:
        band, tier, doubts = self.band(usage), usage.service_tier, [usage.doubt]
        if band.whole:
            cost = usage.input * band.input + usage.cache_read * band.cache_read
            cost += usage.output * band.output + usage.reasoning * band.reasoning
            rates = band.rates
            cost += sum([rates[bucket].cost(count) for bucket, count in usage.others.items() if bucket in rates])
            unpriced = not usage.others.keys() <= rates.keys()
        else:
            amounts = self.amounts(usage)
            cost = sum([amount.cost for amount in amounts])
            unpriced = any(amount.rate is None for amount in amounts)
        if tier and (tier not in self.tiers or _is_usual(band, usage)):
            doubts.append(UNPRICED_TIER)
        if unpriced:
            doubts.append(UNPRICED_BUCKET)
        return cost, joined(*doubts)

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

    def has_rate_for(self, bucket: Bucket) -> bool:
        """Whether units of it cost anything, usually."""
        return bucket in self.base.rates

    def leaves_tokens_free(self, usage: Usage) -> bool:
        """Whether tokens were used that it has no rate for."""
        return any(amount.rate is None and amount.bucket in _TOKENS for amount in self.amounts(usage))

    def band(self, usage: Usage) -> _Band:
        """The rates that this usage is billed by."""
        bands = self.tiers.get(usage.service_tier, self.usual)
        if len(bands) == 1:
            return bands[0]
        size = usage.input_tokens
        return next(band for band in reversed(bands) if size > band.above or not band.above)


def _is_usual(band: _Band, usage: Usage) -> bool:
    """Whether tokens are billed by a rate that no service tier has."""
    if not band.usual:
        return False
    counts = zip(_COMMON, (usage.input, usage.cache_read, usage.output, usage.reasoning), strict=True)
    return any(count and bucket in band.usual for bucket, count in counts) or not band.usual.isdisjoint(usage.others)


def _amount(bucket: str, count: int, billed: _Billed | None) -> Amount:
    return Amount(bucket, count, 0, None) if billed is None else Amount(bucket, count, billed.cost(count), billed.rate)


def _quotient(amount: int, parts: int) -> int:
    """One of so many equal parts, half to even at the last of :data:`DIGITS` digits."""
    surplus = max(0, len(str(amount // parts)) - DIGITS)
    return int(round(Fraction(amount, parts), -surplus))


def price_of(rates: Iterable[Rate]) -> Price:
    """Compile rates. Raises ValueError for what cannot be a price."""
    listed = tuple(sorted(rates, key=_order))
    if not 0 < len(listed) <= MAX_RATES:
        raise ValueError(f"a price has between one and {MAX_RATES} rates")
    if len({(rate.bucket, rate.tier, rate.above) for rate in listed}) < len(listed):
        raise ValueError("two rates hold for the same bucket at the same time")
    for (tier, bucket), above in _least_sizes(listed).items():
        if above:
            raise ValueError(f"{bucket} has a rate for prompts above {above} tokens, and none for shorter{_of(tier)}")
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
        bills_tokens={Bucket.INPUT, Bucket.OUTPUT} <= {rate.bucket for rate in usual},
    )


def _order(rate: Rate) -> tuple[str, int, str]:
    return rate.tier, rate.above, rate.bucket


def _least_sizes(rates: Iterable[Rate]) -> dict[tuple[str, str], int]:
    sizes: dict[tuple[str, str], int] = {}
    for rate in rates:
        sizes.setdefault((rate.tier, rate.bucket), rate.above)
    return sizes


def _of(tier: str) -> str:
    return f" of the service tier {tier}" if tier else ""


def rates_json(rates: Sequence[Rate]) -> bytes:
    """Rates as the database and the journal keep them."""
    return _encode(rates)


def read_rates(text: str | bytes) -> list[Rate]:
    """The reverse of :func:`rates_json`. Raises ValueError for what is no list of rates."""
    try:
        return _decode(text)
    except msgspec.MsgspecError as error:
        raise ValueError(f"no list of rates: {error}") from None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[Rate]).decode


def _check(rate: Rate) -> None:
    if not rate.usd.is_finite() or not 0 <= rate.usd <= MAX_USD:
        raise ValueError(f"a price is a finite number, from zero to {MAX_USD}")
    if _decimals(rate.usd) > MAX_DECIMALS:
        raise ValueError(f"a price has at most {MAX_DECIMALS} decimals")
    if not 1 <= rate.per <= MAX_USD or rate.above < 0 or rate.minimum < 0:
        raise ValueError(f"a rate is for one or more, up to {MAX_USD}, and from zero on")
    if rate.tier and (rate.tier in USUAL_TIERS or not TIER.fullmatch(rate.tier)):
        raise ValueError(f"no answer is billed by the service tier {rate.tier[:40]!r}: {TIERS_ARE}")


def _scale_of(rate: Rate) -> int:
    """Decimals of the price of one."""
    if _is_power_of_ten(rate.per):
        return _decimals(rate.usd) + len(str(rate.per)) - 1
    # The first digit of the price of one stands no later than this: as many as are kept have their place behind it.
    first = len(str(rate.per)) - (rate.usd.adjusted() if rate.usd else 0)
    return max(0, first + DIGITS, _decimals(rate.usd))


def _is_power_of_ten(number: int) -> bool:
    return number == int(10 ** (len(str(number)) - 1))


def _bands(rates: Sequence[Rate], scale: int) -> tuple[_Band, ...]:
    billed = [(rate, _billed(rate, scale)) for rate in rates]
    return tuple(_band(above, billed) for above in sorted({0, *(rate.above for rate in rates)}))


def _band(above: int, rates: Iterable[tuple[Rate, _Billed]]) -> _Band:
    # In the order of their sizes: the last that holds is the one.
    own: dict[str, _Billed] = {rate.bucket: billed for rate, billed in rates if rate.above <= above}
    found: dict[str, _Billed] = {}
    for bucket in Bucket:
        for one in (bucket, *FALLS_BACK.get(bucket, ())):
            if one in own:
                found[bucket] = own[one]
                break
    usual = frozenset({bucket for bucket, billed in found.items() if bucket in _TOKENS and not billed.rate.tier})
    common = [found.get(bucket) for bucket in _COMMON]
    units = [one.units for one in common if one is not None and _is_plain(one)]
    if len(units) < len(_COMMON) or Bucket.REQUESTS in own:
        return _Band(above, 0, 0, 0, 0, False, MappingProxyType(found), usual)
    fresh, cached, output, reasoning = units
    return _Band(above, fresh, cached, output, reasoning, True, MappingProxyType(found), usual)


_COMMON = (Bucket.INPUT, Bucket.CACHE_READ, Bucket.OUTPUT, Bucket.REASONING)
_TOKENS = INPUT_BUCKETS | OUTPUT_BUCKETS


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
