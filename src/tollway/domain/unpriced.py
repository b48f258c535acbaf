"""What is done with calls of which nobody knows what they will cost: the setting ``UNPRICED``."""

import enum
from decimal import Decimal, InvalidOperation

import msgspec

from tollway.domain.asked import NoUsage
from tollway.domain.prices import Price, Rate, price_of
from tollway.domain.usage import Bucket

FALLBACK_PRICE = "fallback_price"
"""Doubt: neither the database nor the built-in list knows the price; the one of the setting was used."""


class Refused(enum.Enum):
    """Which of them are not made, on a credential that keys share."""

    BY_TOKENS = "auto"
    """Those that are billed by tokens, so that a price could be had for them."""
    ALL = "refuse"
    NONE = "allow"


class Unpriced(msgspec.Struct, frozen=True):
    """The setting. A fallback price is in US dollars per 1,000 tokens."""

    refused: Refused = Refused.BY_TOKENS
    input: Decimal | None = None
    output: Decimal | None = None

    @classmethod
    def parse(cls, text: str) -> "Unpriced":
        """From ``auto``, ``refuse``, ``allow`` or a price such as ``0.01/0.03``. Raises ValueError."""
        fresh, slash, out = text.partition("/")
        if not slash:
            return cls(Refused(text.lower()))
        try:
            rule = cls(Refused.NONE, Decimal(fresh), Decimal(out))
        except InvalidOperation:
            raise ValueError(f"{text!r} is no price") from None
        assert rule.price is not None  # what cannot be one is refused here
        return rule

    @property
    def price(self) -> Price | None:
        """The fallback price, compiled."""
        if self.input is None or self.output is None:
            return None
        return price_of([Rate(Bucket.INPUT, self.input, 1000), Rate(Bucket.OUTPUT, self.output, 1000)])

    def refuses(self, no_usage: NoUsage, *, names_model: bool) -> bool:
        """Whether a call without a price is not made. One that names no model may get one by what its answer names."""
        if self.refused is Refused.BY_TOKENS:
            return no_usage is NoUsage.ESTIMATE and names_model
        return self.refused is Refused.ALL and no_usage is not NoUsage.FREE
