"""What a token costs, exactly."""

from decimal import Decimal

import msgspec

from tollway.domain.money import PICODOLLARS
from tollway.domain.usage import Usage


class Price(msgspec.Struct, frozen=True):
    """Prices per single token, integers in units of ``10**-scale`` US dollars."""

    input: int
    cached_input: int
    output: int
    scale: int

    def cost(self, usage: Usage) -> int:
        """The exact cost in units of ``10**-scale`` US dollars."""
        fresh = usage.input_tokens - usage.cached_input_tokens
        return fresh * self.input + usage.cached_input_tokens * self.cached_input + usage.output_tokens * self.output


def price_per_1k(input_cost: Decimal, output_cost: Decimal, cached_input_cost: Decimal | None = None) -> Price:
    """A price from US dollars per 1,000 tokens; without its own price, cached input costs as much as fresh input.

    Raises ValueError for a price that is negative or not a finite number.
    """
    costs = (input_cost, input_cost if cached_input_cost is None else cached_input_cost, output_cost)
    scale = max(PICODOLLARS, *(_decimals(cost) + _PER_1K for cost in costs))
    fresh, cached, output = (_units(cost, scale - _PER_1K) for cost in costs)
    return Price(input=fresh, cached_input=cached, output=output, scale=scale)


_PER_1K = 3  # a price per 1,000 tokens has three decimals more per token


def _decimals(cost: Decimal) -> int:
    exponent = cost.as_tuple().exponent
    if not isinstance(exponent, int) or cost < 0:
        raise ValueError("a price is a finite number, zero or more")
    return -exponent


def _units(cost: Decimal, scale: int) -> int:
    # Integer arithmetic on the digits: Decimal's own operators round at the context's precision.
    digits = int("".join(map(str, cost.as_tuple().digits)))
    return digits * int(10 ** (scale - _decimals(cost)))
