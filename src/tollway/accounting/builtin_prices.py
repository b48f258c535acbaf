"""The built-in price list: what genai-prices says of models, as rates and the periods in which they hold.

Only the control plane and the command line ask; the data plane finds the answers in its snapshot. The list is part of
the installation, no network is used. Where its prices change, by date and by the time of day, the list itself is asked
what holds in each span between two changes, so that its own rules decide.
"""

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import asyncpg

from tollway.domain.prices import Rate
from tollway.domain.tariffs import DAY_S, Period, periods_json
from tollway.domain.usage import Bucket

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, PriceVariant, Provider, TieredPrices

_log = logging.getLogger(__name__)

_MISSING = """
SELECT m.provider, COALESCE(m.upstream_name, m.name) AS model,
    bool_or((m.input_cost_per_1k IS NULL OR m.output_cost_per_1k IS NULL)
        AND NOT EXISTS (SELECT FROM tollway.prices p WHERE p.model = m.name)) AS needs_it
FROM tollway.models m
LEFT JOIN tollway.builtin_prices b ON b.provider = m.provider AND b.model = COALESCE(m.upstream_name, m.name)
WHERE b.periods_version IS DISTINCT FROM $1
GROUP BY 1, 2
"""
_STORE = """
INSERT INTO tollway.builtin_prices (provider, model, periods, periods_version) VALUES ($1, $2, $3, $4)
ON CONFLICT (provider, model) DO UPDATE SET periods = excluded.periods, periods_version = excluded.periods_version
"""

_TOKENS, _THOUSAND, _HOUR = 1_000_000, 1000, 3_600_000

UNITS: Mapping[str, tuple[tuple[Bucket, ...], int]] = {
    "input_mtok": ((Bucket.INPUT,), _TOKENS),
    "cache_read_mtok": ((Bucket.CACHE_READ,), _TOKENS),
    "cache_write_mtok": ((Bucket.CACHE_WRITE,), _TOKENS),
    "cache_write_5m_mtok": ((Bucket.CACHE_WRITE_5M,), _TOKENS),
    "cache_write_1h_mtok": ((Bucket.CACHE_WRITE_1H,), _TOKENS),
    "input_audio_mtok": ((Bucket.INPUT_AUDIO,), _TOKENS),
    "input_image_mtok": ((Bucket.INPUT_IMAGE,), _TOKENS),
    "input_video_mtok": ((Bucket.INPUT_VIDEO,), _TOKENS),
    "cache_audio_read_mtok": ((Bucket.CACHE_READ_AUDIO,), _TOKENS),
    "cache_image_read_mtok": ((Bucket.CACHE_READ_IMAGE,), _TOKENS),
    "cache_video_read_mtok": ((Bucket.CACHE_READ_VIDEO,), _TOKENS),
    "output_mtok": ((Bucket.OUTPUT,), _TOKENS),
    "output_reasoning_mtok": ((Bucket.REASONING,), _TOKENS),
    "output_citation_mtok": ((Bucket.CITATION,), _TOKENS),
    "output_audio_mtok": ((Bucket.OUTPUT_AUDIO,), _TOKENS),
    "output_image_mtok": ((Bucket.OUTPUT_IMAGE,), _TOKENS),
    "output_video_mtok": ((Bucket.OUTPUT_VIDEO,), _TOKENS),
    "audio_hours": ((Bucket.INPUT_AUDIO_MS, Bucket.OUTPUT_AUDIO_MS), _HOUR),
    "input_audio_hours": ((Bucket.INPUT_AUDIO_MS,), _HOUR),
    "output_audio_hours": ((Bucket.OUTPUT_AUDIO_MS,), _HOUR),
    "input_mchars": ((Bucket.CHARACTERS,), 1_000_000),
    "input_gpixels": ((Bucket.PIXELS,), 1_000_000_000),
    "input_text_messages_kcount": ((Bucket.MESSAGES,), _THOUSAND),
    "input_document_kpages": ((Bucket.PAGES,), _THOUSAND),
    "input_annotated_document_kpages": ((Bucket.ANNOTATED_PAGES,), _THOUSAND),
    "web_searches_kcount": ((Bucket.WEB_SEARCHES,), _THOUSAND),
    "social_searches_kcount": ((Bucket.SOCIAL_SEARCHES,), _THOUSAND),
    "storage_searches_kcount": ((Bucket.STORAGE_SEARCHES,), _THOUSAND),
    "code_executions_kcount": ((Bucket.CODE_EXECUTIONS,), _THOUSAND),
    "rerank_searches_kcount": ((Bucket.RERANK_SEARCHES,), _THOUSAND),
    "requests_kcount": ((Bucket.REQUESTS,), _THOUSAND),
}
"""What the list prices, by its name for it: our buckets, and how many of them a price is for. The general stands before
the special, which replaces it."""

_FREE_OF_CHARGE = {"input_mtok": Decimal(0), "output_mtok": Decimal(0)}
_TIER = "service_tier"
_READING = 1  # goes up when the same list is read otherwise: what the database has of it is then read again
_EPOCH = date(1970, 1, 1)

# The library counts fewer seconds than that as so many, in code and not in its data.
_LEAST_MS = {("groq", "whisper-large-v3"): 10_000, ("groq", "whisper-large-v3-turbo"): 10_000}


def listed_periods(provider: str, model: str) -> list[Period]:
    """What the list says of a provider's model, in order; nothing where it does not know it.

    The first call imports genai-prices, which takes some 0.3 s.
    """
    from genai_prices.data_snapshot import get_snapshot

    try:
        return periods_of(*get_snapshot().find_provider_model(model, None, provider, None))
    except LookupError:
        return []


def periods_of(provider: "Provider", model: "ModelInfo") -> list[Period]:
    """What a model of the list costs at a provider, in order; nothing where no price is known of it at all."""
    # The list itself leaves out the service tiers of a model that it borrows from another provider.
    variants = model.price_variants if any(model is one for one in provider.models) else None
    tiers = [variant for variant in variants or () if set(variant.when) == {_TIER}]
    least_ms = _LEAST_MS.get((provider.id, model.id), 0)
    days, clocks = _changes(model, tiers)
    periods: list[Period] = []
    for day in days:
        of_day: list[Period] = []
        for clock in clocks:
            moment = datetime.combine(day, time(), UTC) + timedelta(seconds=clock)
            rates = tuple(_rates(model, tiers, moment, least_ms))
            if not of_day or of_day[-1].rates != rates:
                of_day.append(Period(rates, (day - _EPOCH).days * DAY_S, clock))
        if not periods or _content(of_day) != _content(_last_day(periods)):
            periods += of_day
    return periods if any(period.rates for period in periods) else []


def _changes(model: "ModelInfo", tiers: Iterable["PriceVariant"]) -> tuple[list[date], list[int]]:
    """The days and the seconds of the day from which on something else may hold."""
    from genai_prices.types import ModelPrice, StartDateConstraint, TimeOfDateConstraint

    conditional = [] if isinstance(model.prices, ModelPrice) else model.prices
    constraints = [*(price.constraint for price in conditional), *(variant.constraint for variant in tiers)]
    days, clocks = {_EPOCH}, {0}
    for constraint in constraints:
        if isinstance(constraint, StartDateConstraint):
            days.add(constraint.start_date)
        elif isinstance(constraint, TimeOfDateConstraint):
            clocks |= {_second_of_day(constraint.start_time), _second_of_day(constraint.end_time)}
    return sorted(days), sorted(clocks)


def _second_of_day(value: time) -> int:
    """In UTC, which a time without an offset is in."""
    offset = value.utcoffset() or timedelta()
    seconds = value.hour * 3600 + value.minute * 60 + value.second
    return (seconds - int(offset.total_seconds())) % DAY_S


def _last_day(periods: list[Period]) -> list[Period]:
    return [period for period in periods if period.since == periods[-1].since]


def _content(periods: Iterable[Period]) -> list[tuple[int, tuple[Rate, ...]]]:
    return [(period.clock, period.rates) for period in periods]


def _rates(model: "ModelInfo", tiers: Iterable["PriceVariant"], moment: datetime, least_ms: int) -> Iterator[Rate]:
    usual = _prices(model.get_prices(moment))
    if not usual and model.id.endswith(":free"):
        usual = dict(_FREE_OF_CHARGE)
    if "input_mtok" in usual:
        usual.setdefault("output_mtok", Decimal(0))  # embeddings: nothing comes out
    yield from _rates_of(usual, "", least_ms)
    overridden: dict[str, set[str]] = {}
    for variant in tiers:
        if variant.constraint is None or variant.constraint.active(moment):
            overridden.setdefault(variant.when[_TIER], set()).update(_prices(variant.prices))
    for tier, names in sorted(overridden.items()):
        prices = _prices(model.get_prices(moment, {_TIER: tier}))
        yield from _rates_of({name: prices[name] for name in names}, tier, least_ms)


def _prices(prices: "ModelPrice") -> "dict[str, Decimal | TieredPrices]":
    return {name: value for name, value in vars(prices).items() if value is not None}


def _rates_of(prices: "Mapping[str, Decimal | TieredPrices]", tier: str, least_ms: int) -> Iterator[Rate]:
    by_bucket: dict[Bucket, list[Rate]] = {}
    for name, (buckets, per) in UNITS.items():
        if name in prices:
            for bucket in buckets:
                least = least_ms if bucket is Bucket.INPUT_AUDIO_MS else 0
                sizes = _sizes(prices[name])
                by_bucket[bucket] = [Rate(bucket, usd, per, above, tier, least) for above, usd in sizes]
    for rates in by_bucket.values():
        yield from rates


def _sizes(price: "Decimal | TieredPrices") -> list[tuple[int, Decimal]]:
    if isinstance(price, Decimal):
        return [(0, price)]
    return [(0, price.base), *((tier.start, tier.price) for tier in price.tiers)]


async def resolve_missing(connection: asyncpg.Connection) -> int:
    """Look up every model that was not looked up in this version of the list, and store the answer, also that there is
    none. Returns how many were asked.
    """
    version = list_version()
    missing = await connection.fetch(_MISSING, version)
    if not missing:
        return 0
    names = [(row["provider"], row["model"]) for row in missing]
    listed = await asyncio.to_thread(lambda: [listed_periods(provider, model) for provider, model in names])
    rows = [
        (*name, periods_json(periods).decode() if periods else None, version)
        for name, periods in zip(names, listed, strict=True)
    ]
    await connection.executemany(_STORE, rows)
    needed = [bool(row["needs_it"]) and not periods for row, periods in zip(missing, listed, strict=True)]
    unknown = [f"{provider}/{model}" for (provider, model), needs_it in zip(names, needed, strict=True) if needs_it]
    if unknown:
        # No warning: a fresh database has such models, and what calls of theirs come to is counted.
        _log.info("the built-in list knows no price of %s", ", ".join(unknown))
    return len(names)


def list_version() -> str:
    """Of the built-in list, and of how it is read."""
    from importlib.metadata import version

    return f"genai-prices {version('genai-prices')}, reading {_READING}"
