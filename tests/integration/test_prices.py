"""Prices in the database: what is refused where it is written, what is in force, and what an upgrade makes of it."""

import asyncio
import json
import re
from collections.abc import Callable
from decimal import Decimal

import asyncpg
import pytest

from fakes.connections import connected
from tollway.domain.prices import price_of, read_rates
from tollway.domain.usage import Bucket
from tollway.store import migrate as module
from tollway.store.configuration import Configuration
from tollway.store.migrate import migrate
from tollway.store.seed import MODELS

INPUT = {"bucket": "input", "usd": "1"}
OUTPUT = {"bucket": "output", "usd": "1"}
PROBLEM = "SELECT tollway.rates_problem($1::jsonb)"

GOOD = [
    [INPUT],
    [{**INPUT, "usd": "1E-7"}, {**INPUT, "usd": "0.5", "above": 200_000}, {**INPUT, "tier": "flex"}],
    [{"bucket": "input_audio_ms", "usd": "0.36", "per": 3_600_000, "minimum": 10_000}],
    [{"bucket": bucket.value, "usd": "0"} for bucket in Bucket],
    [{**INPUT, "usd": "0." + "1" * 1000}],
]
BAD = [
    None,
    {},
    [],
    [1],
    [[]],
    [{"bucket": "input"}],
    [{"usd": "1"}],
    [{**INPUT, "bucket": "gold"}],
    [{**INPUT, "bucket": 1}],
    [{**INPUT, "usd": "-1"}],
    [{**INPUT, "usd": "NaN"}],
    [{**INPUT, "usd": ""}],
    [{**INPUT, "usd": "1e10"}],
    [{**INPUT, "usd": "1e9999"}],
    [{**INPUT, "usd": "0." + "1" * 1001}],
    [{**INPUT, "per": 0}],
    [{**INPUT, "per": 10**9 + 1}],
    [{**INPUT, "per": 1.5}],
    [{**INPUT, "per": "1"}],
    [{**INPUT, "above": -1}],
    [{**INPUT, "above": 5}],
    [{**INPUT, "minimum": -1}],
    [{**INPUT, "tier": 5}],
    *([{**INPUT, "tier": tier}] for tier in ("x" * 33, "PRIORITY", "default", "auto", "standard", "on_demand", "a b")),
    [{**INPUT, "colour": "red"}],
    [INPUT, INPUT],
    [INPUT, {**INPUT, "above": 5, "tier": "flex"}],
    [{**INPUT, "above": number} for number in range(1001)],
]


def compiles(rates: object) -> bool:
    try:
        price_of(read_rates(json.dumps(rates)))
    except ValueError:
        return False
    return True


async def test_the_database_refuses_what_no_price_can_be_made_of(postgres_url: str) -> None:
    async with connected(postgres_url) as psql:
        for rates in [*GOOD, *BAD]:
            problem = await psql.fetchval(PROBLEM, json.dumps(rates))
            assert (problem is None) == compiles(rates) == (rates in GOOD), (problem, rates)
        insert = "INSERT INTO tollway.prices (model, rates) VALUES ('gpt-4o', $1)"
        with pytest.raises(asyncpg.CheckViolationError, match='price of model "gpt-4o": there is no bucket "gold"'):
            await psql.execute(insert, json.dumps([{"bucket": "gold", "usd": "1"}]))
        with pytest.raises(asyncpg.ForeignKeyViolationError, match="model is known"):
            await psql.execute("INSERT INTO tollway.prices (model, rates) VALUES ('none', $1)", json.dumps([INPUT]))
        with pytest.raises(asyncpg.CheckViolationError, match="it ends after it begins"):
            await psql.execute(
                "INSERT INTO tollway.prices (model, rates, valid_until) VALUES ('gpt-4o', $1, '2020-01-01')",
                json.dumps([INPUT]),
            )


async def test_the_database_knows_every_bucket(postgres_url: str) -> None:
    async with connected(postgres_url) as psql:
        source = await psql.fetchval("SELECT prosrc FROM pg_proc WHERE proname = 'rates_problem'")
    listed = re.search(r"buckets CONSTANT text\[\] := ARRAY\[(.*?)\]", source, re.S)
    assert listed is not None
    assert set(re.findall(r"'(\w+)'", listed[1])) == set(Bucket)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(1):
        while not condition():
            await asyncio.sleep(0.005)


async def test_rows_of_prices_are_in_force_within_a_second_and_go_with_their_model(postgres_url: str) -> None:
    configuration = Configuration(postgres_url)
    await configuration.start()

    def usd(model: str = "gpt-4o", at: float = 1_800_000_000) -> Decimal | None:
        route = configuration.snapshot.routes.get(model)
        tariff = route.targets[0].tariff if route is not None else None
        price = tariff.at(at) if tariff is not None else None
        rates = () if price is None else price.rates
        return next((rate.usd for rate in rates if rate.bucket == "input" and not rate.tier), None)

    try:
        async with connected(postgres_url) as psql:
            before = usd()
            add = "INSERT INTO tollway.prices (model, valid_from, valid_until, rates) VALUES ('gpt-4o', $1::text::timestamptz, $2::text::timestamptz, $3)"  # noqa: E501
            await psql.execute(add, "2027-01-01", "2027-01-20", json.dumps([INPUT]))
            await until(lambda: usd() == 1)
            assert usd(at=1_700_000_000) == before, "only in its time"
            revision = configuration.snapshot.revision
            await psql.execute("UPDATE tollway.prices SET rates = $1", json.dumps([{**INPUT, "usd": "7"}, OUTPUT]))
            await until(lambda: usd() == 7)
            assert configuration.snapshot.revision > revision
            await psql.execute("""UPDATE "LLMModels" SET name = 'renamed' WHERE name = 'gpt-4o'""")
            await until(lambda: usd("renamed") == 7)
            await psql.execute("DELETE FROM tollway.prices")
            await until(lambda: usd("renamed") != 7)
            await psql.execute(add.replace("gpt-4o", "renamed"), "2027-01-01", None, json.dumps([INPUT]))
            await psql.execute("""DELETE FROM "LLMModels" WHERE name = 'renamed'""")
            assert await psql.fetchval("SELECT count(*) FROM tollway.prices") == 0
    finally:
        await configuration.close()


async def test_a_row_that_is_broken_past_all_checks_keeps_its_models_last_good_price(postgres_url: str) -> None:
    configuration = Configuration(postgres_url)
    await configuration.start()
    try:
        async with connected(postgres_url) as psql:
            before = configuration.snapshot.routes["gpt-4o"].targets[0].tariff
            await psql.execute("SET session_replication_role = replica")
            await psql.execute(
                "INSERT INTO tollway.prices (model, rates, changed_in) VALUES ('gpt-4o', '[{}]', pg_current_xact_id())"
            )
            await psql.execute("NOTIFY tollway_config")
            await until(lambda: configuration.problems != ())
            assert configuration.problems[0].where == "model 'gpt-4o'"
            assert configuration.snapshot.routes["gpt-4o"].targets[0].tariff == before
    finally:
        await configuration.close()


async def test_an_upgrade_takes_seeded_prices_away_and_leaves_edited_ones(
    empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = module._script
    async with connected(empty_postgres_url) as psql:
        with monkeypatch.context() as patch:
            patch.setattr(module, "_script", lambda v: whole(v).partition("-- Running upgrade 0005 -> 0006")[0])
            patch.setattr(module, "head", lambda: "0005")
            await migrate(psql)
        await psql.execute("""
            UPDATE tollway.installation SET seeded_at = now();
            INSERT INTO tollway.providers (name, dialect, api_base) VALUES
                ('openai', 'openai', 'https://a'), ('mistral', 'mistral', 'https://b'),
                ('demo', 'openai', 'builtin:demo');
            INSERT INTO tollway.models
                (name, provider, input_cost_per_1k, output_cost_per_1k, cached_input_cost_per_1k) VALUES
                ('gpt-5.6-sol', 'openai', 0.0040, 0.02, 0.0004), ('gpt-4-turbo', 'openai', 0.01, 0.03, NULL),
                ('gpt-5.5', 'openai', 0.005, 0.03, 0.0006), ('gpt-4o', 'openai', 0.0025, 0.02, 0.00125),
                ('gpt-4.1', 'mistral', 0.002, 0.008, 0.0005), ('mine', 'openai', 0.002, 0.008, NULL),
                ('demo/echo', 'demo', 0.0005, 0.0015, NULL);
            INSERT INTO tollway.models
                (name, provider, upstream_name, input_cost_per_1k, output_cost_per_1k) VALUES
                ('gpt-4', 'openai', 'my-deployment', 0.03, 0.06);
        """)
        await migrate(psql)
        rows = await psql.fetch("SELECT name FROM tollway.models WHERE input_cost_per_1k IS NOT NULL")
        assert {row["name"] for row in rows} == {"gpt-4.1", "gpt-4", "mine", "demo/echo"}
        rows = await psql.fetch("""
            SELECT input_cost_per_1k, output_cost_per_1k, cached_input_cost_per_1k FROM tollway.models
            WHERE name IN ('gpt-5.5', 'gpt-4o') ORDER BY name
        """)
        assert [tuple(row) for row in rows] == [(None, Decimal("0.02"), None), (None, None, Decimal("0.0006"))]
        given = set(await psql.fetchval("SELECT seeded_models FROM tollway.installation"))
        assert "gpt-5.5" in given and "whisper-1" not in given and len(given) == 48


async def test_an_upgrade_of_a_home_with_every_model_misses_none(
    empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = module._script
    async with connected(empty_postgres_url) as psql:
        with monkeypatch.context() as patch:
            patch.setattr(module, "_script", lambda v: whole(v).partition("-- Running upgrade 0005 -> 0006")[0])
            patch.setattr(module, "head", lambda: "0005")
            await migrate(psql)
        await psql.execute("""
            UPDATE tollway.installation SET seeded_at = now();
            INSERT INTO tollway.providers (name, dialect, api_base) VALUES ('openai', 'openai', 'https://a');
            INSERT INTO tollway.models (name, provider) VALUES ('whisper-1', 'openai');
        """)
        await migrate(psql)
        assert set(await psql.fetchval("SELECT seeded_models FROM tollway.installation")) == {m.name for m in MODELS}
