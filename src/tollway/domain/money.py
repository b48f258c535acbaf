"""Money without rounding: an integer amount and its decimal scale.

A price may have any number of decimals, so no fixed smallest unit is exact for all of them. An amount is an integer
in units of ``10**-scale`` US dollars; a price brings its own scale (at least :data:`PICODOLLARS`), and every amount
that is computed from it keeps that scale until PostgreSQL adds it up as ``NUMERIC``.
"""

from collections.abc import Iterable
from decimal import Context, Decimal, Inexact, localcontext

PICODOLLARS = 12
"""The smallest scale in use: units of 10**-12 US dollars, enough for every published price per token."""


def to_decimal(amount: int, scale: int) -> Decimal:
    """The exact value in US dollars, whatever the precision of Decimal's context."""
    sign, digits, _ = Decimal(amount).as_tuple()
    return Decimal((sign, digits, -scale))


def exact_sum(amounts: Iterable[Decimal]) -> Decimal:
    """The sum to the last digit, whatever the precision of Decimal's context."""
    with localcontext(Context(prec=100_000, traps=[Inexact])):
        return sum(amounts, Decimal(0))


def format_dollars(amount: int, scale: int) -> str:
    """Plain decimal digits without trailing zeros: ``0.000135``, ``12``, ``0``."""
    sign, digits = ("-", -amount) if amount < 0 else ("", amount)
    if not digits:
        return "0"
    text = str(digits)
    if len(text) <= scale:
        return f"{sign}0.{text.zfill(scale).rstrip('0')}"
    whole, fraction = text[: len(text) - scale], text[len(text) - scale :].rstrip("0")
    return f"{sign}{whole}.{fraction}" if fraction else f"{sign}{whole}"
