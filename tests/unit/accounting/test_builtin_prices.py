"""What the list says becomes periods, and the database has them of every model, once for each version of the list."""

from datetime import UTC, datetime
from decimal import Decimal

import asyncpg
import pytest

from tollway.accounting import builtin_prices
from tollway.accounting.builtin_prices import listed_periods, resolve_missing
from tollway.domain.prices import Rate
from tollway.domain.tariffs import Period, read_periods, tariff_of
from tollway.domain.usage import Bucket, Usage

NOW = datetime(2026, 11, 28, tzinfo=UTC).timestamp()


def usd(model: str, bucket: Bucket, at: float = NOW, tier: str = "") -> list[tuple[int, Decimal]]:
    tariff = tariff_of(listed_periods("openai", model))
    price = tariff.at(at) if tariff is not None else None
    assert price is not None
    return [(rate.above, rate.usd) for rate in price.rates if (rate.bucket, rate.tier) == (bucket, tier)]


def test_a_listed_price_has_all_its_sizes_tiers_and_kinds_of_tokens() -> None:
    assert usd("gpt-5.6", Bucket.INPUT) == [(0, Decimal(4)), (272_000, Decimal(8))]
    assert usd("gpt-5.6", Bucket.CACHE_WRITE) == [(0, Decimal(5)), (272_000, Decimal(10))]
    assert usd("gpt-5.6", Bucket.INPUT, tier="flex") == [(0, Decimal(2)), (272_000, Decimal(4))]
    assert usd("gpt-4o", Bucket.WEB_SEARCHES) == [(0, Decimal(10))]


def test_a_price_is_the_one_of_that_day() -> None:
    before = datetime(2026, 8, 20, 23, 59, 59, tzinfo=UTC).timestamp()
    assert [usd("gpt-5.6", Bucket.INPUT, at)[0][1] for at in (before, before + 1)] == [Decimal(5), Decimal(4)]


def test_embeddings_have_no_price_for_output() -> None:
    (period,) = listed_periods("openai", "text-embedding-3-small")
    assert Rate(Bucket.OUTPUT, Decimal(0)) in period.rates


def test_a_short_recording_counts_as_ten_seconds_where_its_provider_says_so() -> None:
    tariff = tariff_of(listed_periods("groq", "whisper-large-v3"))
    price = tariff.at(NOW) if tariff is not None else None
    assert price is not None
    bills = [price.bill(Usage(0, 0, others={Bucket.INPUT_AUDIO_MS: ms})) for ms in (1, 10_000, 10_001)]
    assert bills[0] == bills[1] < bills[2]


def test_a_model_that_is_called_free_is_free_and_one_without_rates_is_not_known() -> None:
    (period,) = listed_periods("openrouter", "agentica-org/deepcoder-14b-preview:free")
    assert {rate.usd for rate in period.rates} == {0}
    assert listed_periods("cerebras", "qwen-3-coder-480b") == []


@pytest.mark.parametrize(("provider", "model"), [("openai", "no-such-model"), ("no-such-provider", "gpt-4.1")])
def test_what_the_list_does_not_know_has_no_price(provider: str, model: str) -> None:
    assert listed_periods(provider, model) == []


async def without_models(url: str) -> asyncpg.Connection:
    connection = await asyncpg.connect(url)
    await connection.execute("DELETE FROM tollway.models; DELETE FROM tollway.builtin_prices")
    return connection


async def stored(connection: asyncpg.Connection) -> dict[str, list[Period] | None]:
    rows = await connection.fetch("SELECT model, periods::text FROM tollway.builtin_prices")
    return {row["model"]: read_periods(row["periods"]) if row["periods"] else None for row in rows}


async def test_every_model_gets_what_the_list_says_also_that_it_says_nothing(postgres_url: str) -> None:
    connection = await without_models(postgres_url)
    await connection.execute("""
        INSERT INTO tollway.models (name, provider, upstream_name, input_cost_per_1k, output_cost_per_1k) VALUES
          ('mine', 'openai', 'gpt-4.1', NULL, NULL), ('priced', 'openai', 'gpt-4o', 1, 2),
          ('unknown', 'openai', 'no-such-model', NULL, NULL)
    """)
    assert await resolve_missing(connection) == 3
    assert await stored(connection) == {
        "gpt-4.1": listed_periods("openai", "gpt-4.1"),
        "gpt-4o": listed_periods("openai", "gpt-4o"),
        "no-such-model": None,
    }
    await connection.close()


async def test_nothing_is_asked_twice_and_everything_again_of_another_version(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = await without_models(postgres_url)
    await connection.execute(
        "INSERT INTO tollway.models (name, provider) VALUES ('gpt-4.1', 'openai'), ('no-such-model', 'openai')"
    )
    assert [await resolve_missing(connection) for _ in range(2)] == [2, 0]
    await connection.execute("INSERT INTO tollway.models (name, provider) VALUES ('gpt-4o', 'openai')")
    assert await resolve_missing(connection) == 1
    monkeypatch.setattr(builtin_prices, "list_version", lambda: "another")
    assert await resolve_missing(connection) == 3
    await connection.close()
