from datetime import UTC, datetime, timedelta
from decimal import Decimal

import asyncpg
import pytest

from tollway.accounting.builtin_prices import BuiltinPrice, builtin_price, resolve_missing

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def test_a_listed_price_is_per_thousand_tokens() -> None:
    assert builtin_price("openai", "gpt-4.1", NOW) == BuiltinPrice(
        Decimal("0.002"), Decimal("0.0005"), Decimal("0.008")
    )


def test_a_price_is_the_one_of_that_day() -> None:
    before, after = (builtin_price("mistral", "mistral-small-latest", day) for day in (NOW - timedelta(days=365), NOW))
    assert before is not None and after is not None and before != after


def test_embeddings_have_no_price_for_output() -> None:
    price = builtin_price("openai", "text-embedding-3-small", NOW)
    assert price is not None and price.output_per_1k == 0 and price.input_per_1k > 0


@pytest.mark.parametrize(("provider", "model"), [("openai", "no-such-model"), ("no-such-provider", "gpt-4.1")])
def test_what_the_list_does_not_know_has_no_price(provider: str, model: str) -> None:
    assert builtin_price(provider, model, NOW) is None


async def without_models(url: str) -> asyncpg.Connection:
    connection = await asyncpg.connect(url)
    await connection.execute("DELETE FROM tollway.models; DELETE FROM tollway.builtin_prices")
    return connection


async def prices(connection: asyncpg.Connection) -> dict[str, tuple[Decimal | None, ...]]:
    rows = await connection.fetch(
        "SELECT model, input_cost_per_1k, cached_input_cost_per_1k, output_cost_per_1k FROM tollway.builtin_prices"
    )
    return {row["model"]: tuple(row)[1:] for row in rows}


async def test_models_without_a_price_of_their_own_get_the_listed_one(postgres_url: str) -> None:
    connection = await without_models(postgres_url)
    await connection.execute("""
        INSERT INTO tollway.models (name, provider, upstream_name, input_cost_per_1k, output_cost_per_1k) VALUES
          ('mine', 'openai', 'gpt-4.1', NULL, NULL), ('half', 'openai', 'gpt-3.5-turbo', 1, NULL),
          ('priced', 'openai', 'gpt-4o', 1, 2), ('unknown', 'openai', 'no-such-model', NULL, NULL)
    """)
    assert await resolve_missing(connection, NOW) == 3
    assert await prices(connection) == {
        "gpt-4.1": (Decimal("0.002"), Decimal("0.0005"), Decimal("0.008")),
        "gpt-3.5-turbo": (Decimal("0.0005"), None, Decimal("0.0015")),
        "no-such-model": (None, None, None),
    }
    await connection.close()


async def test_nothing_is_asked_twice_in_a_day_and_everything_again_on_the_next(postgres_url: str) -> None:
    connection = await without_models(postgres_url)
    await connection.execute(
        "INSERT INTO tollway.models (name, provider) VALUES ('gpt-4.1', 'openai'), ('no-such-model', 'openai')"
    )
    assert [await resolve_missing(connection, NOW) for _ in range(2)] == [2, 0]
    await connection.execute("INSERT INTO tollway.models (name, provider) VALUES ('gpt-4o', 'openai')")
    assert await resolve_missing(connection, NOW) == 1
    assert await resolve_missing(connection, NOW + timedelta(days=1)) == 3
    await connection.close()
