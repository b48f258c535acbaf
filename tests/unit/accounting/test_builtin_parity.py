"""Whatever the built-in list prices comes to the same figure here and there: every model, every kind of usage."""

import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, DefaultContext, localcontext

import pytest
from genai_prices import types
from genai_prices.data_snapshot import get_snapshot
from genai_prices.data_units import unit_data

from tollway.accounting.builtin_prices import UNITS, periods_of
from tollway.domain.money import to_decimal
from tollway.domain.tariffs import Tariff, periods_json, read_periods, tariff_of
from tollway.domain.usage import Bucket, Usage

MODELS = [(provider, model) for provider in get_snapshot().providers for model in provider.models]
NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
TIERS = ("", "priority", "flex", "fast", "scale")
DURATIONS = frozenset({Bucket.INPUT_AUDIO_MS, Bucket.OUTPUT_AUDIO_MS})
RARE = sorted({bucket for buckets, _ in UNITS.values() for bucket in buckets} - {Bucket.REQUESTS} - DURATIONS)
COMMON = {Bucket.INPUT, Bucket.CACHE_READ, Bucket.OUTPUT, Bucket.REASONING}


def conditions(model: types.ModelInfo) -> list[types.ConditionalPrice]:
    prices = model.prices
    return prices if isinstance(prices, list) else [types.ConditionalPrice(prices=prices)]


def every_price(model: types.ModelInfo) -> Iterator[types.ModelPrice]:
    yield from (one.prices for one in conditions(model))
    yield from (one.prices for one in model.price_variants or ())


def priced_keys(model: types.ModelInfo) -> set[str]:
    return {key for prices in every_price(model) for key, value in vars(prices).items() if value is not None}


def sizes(model: types.ModelInfo) -> list[int]:
    """Of prompts: some, and those around which the list changes its price."""
    values = [value for prices in every_price(model) for value in vars(prices).values()]
    starts = {tier.start for value in values if isinstance(value, types.TieredPrices) for tier in value.tiers}
    return [100, 5_000_000, *sorted({start + more for start in starts for more in (0, 1)})]


def moments(model: types.ModelInfo) -> list[datetime]:
    """Now, and a second before, at and after each change."""
    found = {NOW}
    for one in (*conditions(model), *(model.price_variants or ())):
        if isinstance(one.constraint, types.StartDateConstraint):
            found.add(datetime.combine(one.constraint.start_date, time(), UTC))
        elif isinstance(one.constraint, types.TimeOfDateConstraint):
            for clock in (one.constraint.start_time, one.constraint.end_time):
                found |= {datetime.combine(day, clock, UTC) for day in (date(2025, 1, 1), date(2026, 11, 28))}
    return sorted({moment + timedelta(seconds=off) for moment in found for off in (-1, 0, 1)})


def a_usage(source: random.Random, size: int, tier: str) -> Usage:
    """Of so many input tokens, cut into their kinds, and of everything else something."""
    inputs = [bucket for bucket in RARE if bucket.startswith(("input", "cache"))]
    cuts = sorted(source.randrange(size + 1) for _ in range(len(inputs) - 1))
    parts = dict(zip(inputs, (b - a for a, b in zip((0, *cuts), (*cuts, size), strict=True)), strict=True))
    counts = {bucket: source.choice((0, 1, source.randrange(1_000_000))) for bucket in RARE} | parts
    others = {bucket: count for bucket, count in counts.items() if count and bucket not in COMMON}
    return Usage(*(counts.get(bucket, 0) for bucket in ("input", "output", "cache_read", "reasoning")), others, tier)


def as_the_list_counts(usage: Usage) -> types.Usage:
    """The same counts as totals that contain their parts."""
    n = {bucket: usage.others.get(bucket, 0) for bucket in Bucket}
    n |= {Bucket.INPUT: usage.input, Bucket.CACHE_READ: usage.cache_read}
    n |= {Bucket.OUTPUT: usage.output, Bucket.REASONING: usage.reasoning}
    seconds = {bucket: Decimal(n[bucket]) / 1000 for bucket in DURATIONS}
    writes = (Bucket.CACHE_WRITE, Bucket.CACHE_WRITE_5M, Bucket.CACHE_WRITE_1H)
    said: dict[str, int | Decimal] = {
        "input_tokens": usage.input_tokens,
        "cache_read_tokens": usage.cached_input_tokens,
        "cache_write_tokens": sum(n[bucket] for bucket in writes),
        "cache_write_5m_tokens": n[Bucket.CACHE_WRITE_5M],
        "cache_write_1h_tokens": n[Bucket.CACHE_WRITE_1H],
        "output_tokens": usage.output_tokens,
        "output_reasoning_tokens": usage.reasoning,
        "output_citation_tokens": n[Bucket.CITATION],
        "input_characters": n[Bucket.CHARACTERS],
        "input_pixels": n[Bucket.PIXELS],
        "input_text_messages": n[Bucket.MESSAGES],
        "input_document_pages": n[Bucket.PAGES] + n[Bucket.ANNOTATED_PAGES],
        "input_annotated_document_pages": n[Bucket.ANNOTATED_PAGES],
        "input_audio_seconds": seconds[Bucket.INPUT_AUDIO_MS],
        "output_audio_seconds": seconds[Bucket.OUTPUT_AUDIO_MS],
        "audio_seconds": sum(seconds.values()),
        **{f"output_{kind}_tokens": n[Bucket(f"output_{kind}")] for kind in ("audio", "image", "video")},
        **{f"cache_{kind}_read_tokens": n[Bucket(f"cache_read_{kind}")] for kind in ("audio", "image", "video")},
    }
    for kind in ("audio", "image", "video"):
        said[f"input_{kind}_tokens"] = n[Bucket(f"input_{kind}")] + n[Bucket(f"cache_read_{kind}")]
    for bucket in RARE:
        if bucket.endswith(("searches", "executions")):
            said[bucket] = n[bucket]
    return types.Usage(**{key: said.get(key, 0) for key in unit_data if key != "requests"})


def theirs(provider: types.Provider, model: types.ModelInfo, usage: Usage, moment: datetime) -> Decimal:
    context = {"service_tier": usage.service_tier} if usage.service_tier else None
    with localcontext(DefaultContext):  # whatever other tests have made of the one in force
        counts = as_the_list_counts(usage)
        return model.calc_price(counts, provider, genai_request_timestamp=moment, price_context=context).total_price


def ours(tariff: Tariff | None, usage: Usage, moment: datetime) -> Decimal:
    price = tariff.at(moment.timestamp()) if tariff is not None else None
    return Decimal(0) if price is None else to_decimal(price.bill(usage)[0], price.scale)


@pytest.mark.parametrize("share", range(8))
def test_every_model_costs_what_the_list_says(share: int) -> None:
    for provider, model in MODELS[share::8]:
        tariff = tariff_of(read_periods(periods_json(periods)) if (periods := periods_of(provider, model)) else ())
        source = random.Random(f"{provider.id} {model.id}")
        tiers = TIERS if model.price_variants else ("", "priority")
        cases = [(size, tier, NOW) for size in sizes(model) for tier in tiers]
        cases += [(5_000_000, tier, moment) for moment in moments(model) for tier in tiers[:2]]
        for size, tier, moment in cases:
            usage = a_usage(source, size, tier)
            expected = theirs(provider, model, usage, moment)
            assert ours(tariff, usage, moment) == expected, (provider.id, model.id, usage, moment)


def test_time_is_billed_to_the_lists_last_digit() -> None:
    priced = [(p, m) for p, m in MODELS if any(key.endswith("_hours") for key in priced_keys(m))]
    assert len(priced) > 10
    for provider, model in priced:
        tariff, source = tariff_of(periods_of(provider, model)), random.Random(model.id)
        for milliseconds in (1, 9_999, 10_000, 10_001, *(source.randrange(10**9) for _ in range(50))):
            buckets = [Bucket.INPUT_AUDIO_MS] + ([] if provider.id == "groq" else [Bucket.OUTPUT_AUDIO_MS])
            for bucket in buckets:
                usage = Usage(0, 0, others={bucket: milliseconds})
                expected = theirs(provider, model, usage, NOW)
                assert ours(tariff, usage, NOW) == expected, (provider.id, model.id, usage)


def test_everything_that_the_list_prices_has_a_bucket() -> None:
    assert {key for _, model in MODELS for key in priced_keys(model)} <= set(UNITS)
    for key, (_, per) in UNITS.items():
        unit = next(unit for unit in unit_data.values() if unit["price_key"] == key)
        assert per == unit["per"] * (1000 if key.endswith("_hours") else 1)


def test_no_price_is_known_only_of_models_that_the_list_has_no_rate_for() -> None:
    unknown = [model for provider, model in MODELS if not periods_of(provider, model)]
    assert all(not priced_keys(model) for model in unknown)
    assert len(unknown) < 30
