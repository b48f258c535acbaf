"""The built-in price list: what genai-prices says of models that the database gives no price.

Only the control plane asks; the data plane finds the answers in its snapshot. The list is part of the installation, no
network is used. Of prices with tiers the base price is taken.
"""

import asyncio
import logging
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple

import asyncpg

_log = logging.getLogger(__name__)

_MISSING = """
SELECT DISTINCT m.provider, COALESCE(m.upstream_name, m.name) AS model
FROM tollway.models m
LEFT JOIN tollway.builtin_prices b ON b.provider = m.provider AND b.model = COALESCE(m.upstream_name, m.name)
WHERE (m.input_cost_per_1k IS NULL OR m.output_cost_per_1k IS NULL) AND b.list_version IS DISTINCT FROM $1
"""
_STORE = """
INSERT INTO tollway.builtin_prices
  (provider, model, input_cost_per_1k, cached_input_cost_per_1k, output_cost_per_1k, list_version)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (provider, model) DO UPDATE SET
  input_cost_per_1k = excluded.input_cost_per_1k,
  cached_input_cost_per_1k = excluded.cached_input_cost_per_1k,
  output_cost_per_1k = excluded.output_cost_per_1k,
  list_version = excluded.list_version
"""


class BuiltinPrice(NamedTuple):
    """US dollars per 1,000 tokens."""

    input_per_1k: Decimal
    cached_input_per_1k: Decimal | None
    output_per_1k: Decimal


def builtin_price(provider: str, model: str, now: datetime) -> BuiltinPrice | None:
    """The listed price of a provider's model at that time; None where the list does not know it.

    The first call imports genai-prices, which takes some 0.3 s.
    """
    from genai_prices.data_snapshot import get_snapshot
    from genai_prices.types import TieredPrices

    def per_1k(per_million: Decimal | TieredPrices | None) -> Decimal | None:
        base = per_million.base if isinstance(per_million, TieredPrices) else per_million
        return None if base is None else base.scaleb(-3)

    try:
        _, found = get_snapshot().find_provider_model(model, None, provider, None)
    except LookupError:
        return None
    prices = found.get_prices(now)
    input_cost, output_cost = per_1k(prices.input_mtok), per_1k(prices.output_mtok)
    if input_cost is None:
        return None
    # Models without output tokens, embeddings, have no price for them.
    return BuiltinPrice(input_cost, per_1k(prices.cache_read_mtok), Decimal(0) if output_cost is None else output_cost)


async def resolve_missing(connection: asyncpg.Connection, now: datetime | None = None) -> int:
    """Look up every model that has no price of its own, and store the answer, also that there is none.

    Asked again when the list's version or the date changes: prices can have a first day. Returns how many were asked.
    """
    now = now or datetime.now(UTC)
    version = f"{_list_version()} {now.date()}"
    missing = await connection.fetch(_MISSING, version)
    if not missing:
        return 0
    names = [(row["provider"], row["model"]) for row in missing]
    prices = await asyncio.to_thread(lambda: [builtin_price(provider, model, now) for provider, model in names])
    nothing = (None, None, None)
    await connection.executemany(
        _STORE, [(*name, *(price or nothing), version) for name, price in zip(names, prices, strict=True)]
    )
    unknown = [f"{provider}/{model}" for (provider, model), price in zip(names, prices, strict=True) if price is None]
    if unknown:
        # No warning: a fresh database has such models, and what calls of theirs come to is counted.
        _log.info("no price is known for %s: calls are served and booked as unpriced", ", ".join(unknown))
    return len(names)


def _list_version() -> str:
    from importlib.metadata import version

    return version("genai-prices")
