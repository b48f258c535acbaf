"""The predecessor's three tables, as its users know them from psql."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal

import asyncpg
import pytest

from fakes.connections import connected
from tollway.domain.keys import KeyHash
from tollway.store import keys

SEED_COLUMNS = '(name, provider, fallback, "inputCostPer1k", "outputCostPer1k")'


def hasher(secret: bytes) -> KeyHash:
    return KeyHash(secret[:32].ljust(32))


@asynccontextmanager
async def psql(url: str) -> AsyncIterator[tuple[asyncpg.Connection, str]]:
    """A connection, and the id of a key."""
    async with connected(url) as connection:
        yield connection, (await keys.create(connection, hasher)).id


async def refused(connection: asyncpg.Connection, statement: str, reason: str) -> None:
    with pytest.raises(asyncpg.PostgresError, match=reason):
        await connection.execute(statement)


async def test_the_views_have_the_columns_of_the_interface(postgres_url: str) -> None:
    async with connected(postgres_url) as connection:
        rows = await connection.fetch(
            "SELECT table_name, array_agg(column_name::text ORDER BY ordinal_position) AS columns "
            "FROM information_schema.columns WHERE table_schema = 'public' GROUP BY table_name"
        )
        assert {row["table_name"]: row["columns"] for row in rows} == {
            "Users": [
                "id",
                "virtualKey",
                "openaiKey",
                "mistralKey",
                "requestsPerMinute",
                "tokensPerMinute",
                "totalCost",
                "createdAt",
                "updatedAt",
            ],
            "LLMModels": ["id", "name", "provider", "fallback", "inputCostPer1k", "outputCostPer1k"],
            "Providers": ["id", "name", "apiBase", "apiVersion"],
        }


# "Users" --------------------------------------------------------------------------------------------------------------


async def test_a_user_is_shown_with_defaults_and_without_the_secret(postgres_url: str) -> None:
    async with connected(postgres_url) as connection:
        made = await keys.create(connection, hasher)
        row = await connection.fetchrow('SELECT * FROM "Users"')
        assert row["id"] == made.id
        assert (row["requestsPerMinute"], row["tokensPerMinute"]) == (60, 100_000)
        assert (row["openaiKey"], row["mistralKey"], row["totalCost"]) == (None, None, 0)
        secret = made.secret.reveal()
        assert row["virtualKey"] == f"{secret[:9]}…{secret[-4:]}"


async def test_a_provider_key_is_stored_as_it_is_written_and_removed_when_emptied(postgres_url: str) -> None:
    async with psql(postgres_url) as (connection, key_id):
        for value in ("broken", "other"):
            await connection.execute(f"""UPDATE "Users" SET "openaiKey" = '{value}' WHERE id = '{key_id}'""")
            assert await connection.fetchval('SELECT "openaiKey" FROM "Users"') == value
        await connection.execute("""UPDATE "Users" SET "mistralKey" = 'm', "openaiKey" = ''""")
        assert tuple(await connection.fetchrow('SELECT "openaiKey", "mistralKey" FROM "Users"')) == (None, "m")
        await connection.execute('UPDATE "Users" SET "mistralKey" = NULL')
        assert await connection.fetchval("SELECT count(*) FROM tollway.provider_keys") == 0


async def test_limits_can_be_set_to_none_and_to_nothing(postgres_url: str) -> None:
    async with psql(postgres_url) as (connection, _):
        await connection.execute('UPDATE "Users" SET "requestsPerMinute" = NULL, "tokensPerMinute" = 0')
        row = await connection.fetchrow('SELECT "requestsPerMinute", "tokensPerMinute" FROM "Users"')
        assert tuple(row) == (None, 0)
        await refused(connection, 'UPDATE "Users" SET "requestsPerMinute" = -1', "zero or more")
        await refused(connection, 'UPDATE "Users" SET "tokensPerMinute" = -1', "zero or more")


async def test_two_edits_of_different_limits_at_once_both_last(postgres_url: str) -> None:
    async with psql(postgres_url) as (connection, _), connected(postgres_url) as other:
        async with connection.transaction():
            await connection.execute('UPDATE "Users" SET "requestsPerMinute" = 1')
            second = asyncio.ensure_future(other.execute('UPDATE "Users" SET "tokensPerMinute" = 2'))
            await asyncio.sleep(0.05)  # lets it reach the lock
        await second
        row = await connection.fetchrow('SELECT "requestsPerMinute", "tokensPerMinute" FROM "Users"')
        assert tuple(row) == (1, 2)


async def test_the_total_cost_moves_by_an_adjustment_in_the_ledger(postgres_url: str) -> None:
    async with psql(postgres_url) as (connection, key_id):
        await connection.execute('UPDATE "Users" SET "totalCost" = 0.123456789012345678901234567890')
        assert await connection.fetchval('SELECT "totalCost" FROM "Users"') == Decimal(
            "0.12345678901234567890123456789"
        )
        await connection.execute('UPDATE "Users" SET "totalCost" = 0')
        assert await connection.fetchval('SELECT "totalCost" FROM "Users"') == 0
        entries = await connection.fetch("SELECT key_id, kind, cost FROM tollway.ledger ORDER BY cost")
        assert [(row["key_id"], row["kind"]) for row in entries] == [(key_id, "adjustment")] * 2
        assert await connection.fetchval("SELECT sum(cost) FROM tollway.ledger") == 0
        await refused(connection, 'UPDATE "Users" SET "totalCost" = NULL', "is a number")
        await refused(connection, """UPDATE "Users" SET "totalCost" = 'NaN'""", "finite")


async def test_a_user_is_neither_made_nor_renamed_by_sql(postgres_url: str) -> None:
    async with psql(postgres_url) as (connection, _):
        await refused(connection, """INSERT INTO "Users" ("virtualKey") VALUES ('mine')""", "cannot be made by SQL")
        await refused(connection, """UPDATE "Users" SET "virtualKey" = 'mine'""", "cannot be changed by SQL")
        await refused(connection, """UPDATE "Users" SET id = 'mine'""", "cannot be changed by SQL")


async def test_times_that_an_orm_writes_do_no_harm(postgres_url: str) -> None:
    async with psql(postgres_url) as (connection, _):
        await connection.execute('UPDATE "Users" SET "requestsPerMinute" = 5, "updatedAt" = now(), "createdAt" = now()')
        assert await connection.fetchval('SELECT "requestsPerMinute" FROM "Users"') == 5


async def test_a_deleted_user_is_gone_but_not_forgotten(postgres_url: str) -> None:
    async with psql(postgres_url) as (connection, key_id):
        await connection.execute("""UPDATE "Users" SET "openaiKey" = 'x'""")
        assert await connection.execute('DELETE FROM "Users"') == "DELETE 1"
        assert await connection.fetch('SELECT * FROM "Users"') == []
        row = await connection.fetchrow("SELECT id, revoked_at, deleted_at FROM tollway.virtual_keys")
        assert row["id"] == key_id
        assert row["revoked_at"] is not None
        assert row["deleted_at"] is not None
        assert await connection.fetchval("SELECT count(*) FROM tollway.provider_keys") == 0


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM tollway.virtual_keys",
        "TRUNCATE tollway.virtual_keys CASCADE",
        "TRUNCATE tollway.provider_keys",
        "UPDATE tollway.ledger SET cost = 0",
        "DELETE FROM tollway.ledger",
        "TRUNCATE tollway.ledger",
        "UPDATE tollway.ledger_default SET cost = 0",
        "DELETE FROM tollway.ledger_default",
        f"SELECT tollway.ledger_partition(CURRENT_DATE); DELETE FROM tollway.ledger_{datetime.now(UTC):%Y_%m}",
    ],
)
async def test_keys_and_entries_are_not_removed(postgres_url: str, statement: str) -> None:
    async with psql(postgres_url) as (connection, _):
        await refused(connection, statement, "is refused")


# "LLMModels" ----------------------------------------------------------------------------------------------------------


async def test_a_model_is_inserted_as_the_predecessors_seeds_do(postgres_url: str) -> None:
    async with connected(postgres_url) as connection:
        await connection.execute(
            f"""INSERT INTO "LLMModels" {SEED_COLUMNS} VALUES ('m', 'openai', 'mistral-small-latest', 0.5, 1.5)"""
        )
        row = await connection.fetchrow("""SELECT * FROM "LLMModels" WHERE name = 'm'""")
        assert tuple(row)[1:] == ("m", "openai", '["mistral-small-latest"]', Decimal("0.5"), Decimal("1.5"))


async def test_a_model_may_be_written_again_and_again(postgres_url: str) -> None:
    async with connected(postgres_url) as connection:
        for cost in (1, 2):
            await connection.execute(
                """INSERT INTO "LLMModels" (name, provider, "inputCostPer1k") VALUES ('m', 'openai', $1)
                ON CONFLICT (name) DO UPDATE SET "inputCostPer1k" = EXCLUDED."inputCostPer1k" """,
                cost,
            )
        assert await connection.fetchval("""SELECT "inputCostPer1k" FROM "LLMModels" WHERE name = 'm'""") == 2


async def test_a_cost_keeps_all_its_decimals_and_may_be_unset(postgres_url: str) -> None:
    async with connected(postgres_url) as connection:
        await connection.execute(
            'UPDATE "LLMModels" SET "inputCostPer1k" = 0.123456789012345678, "outputCostPer1k" = NULL'
        )
        row = await connection.fetchrow("""SELECT * FROM "LLMModels" WHERE name = 'gpt-4o'""")
        assert (row["inputCostPer1k"], row["outputCostPer1k"]) == (Decimal("0.123456789012345678"), None)


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("gpt-4o", '["gpt-4o"]'),
        (" gpt-4o ", '["gpt-4o"]'),
        ('"gpt-4o"', '["gpt-4o"]'),
        ('["gpt-4o","o1"]', '["gpt-4o", "o1"]'),
        ("[]", None),
        ("", None),
        ("null", None),
        (None, None),
    ],
)
async def test_a_fallback_is_an_array_or_one_bare_name(
    postgres_url: str, written: str | None, stored: str | None
) -> None:
    async with connected(postgres_url) as connection:
        statement = """UPDATE "LLMModels" SET fallback = $1 WHERE name = 'gpt-4' RETURNING fallback"""
        assert await connection.fetchval(statement, written) == stored


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("no-such-model", "no model"),
        ('["gpt-4o", "no-such-model"]', "no model"),
        ("gpt-4", "its own fallback"),
        ('["gpt-4"]', "its own fallback"),
        ("[1]", "JSON array of model names"),
        ('[["gpt-4o"]]', "JSON array of model names"),
        ('["gpt-4o"', "JSON array of model names"),
        ('{"a": 1}', "no model"),
    ],
)
async def test_a_fallback_that_cannot_be_used_is_refused(postgres_url: str, written: str, reason: str) -> None:
    async with connected(postgres_url) as connection:
        with pytest.raises(asyncpg.PostgresError, match=reason):
            await connection.execute("""UPDATE "LLMModels" SET fallback = $1 WHERE name = 'gpt-4'""", written)


async def test_a_model_that_others_fall_back_to_stays(postgres_url: str) -> None:
    async with connected(postgres_url) as connection:
        await refused(
            connection, """DELETE FROM "LLMModels" WHERE name = 'mistral-small-latest'""", "which is no model"
        )
        await refused(
            connection, """UPDATE "LLMModels" SET name = 'x' WHERE name = 'mistral-small-latest'""", "which is no model"
        )


async def test_within_a_transaction_models_come_in_any_order(postgres_url: str) -> None:
    async with connected(postgres_url) as connection:
        await connection.execute("""
            INSERT INTO "LLMModels" (name, provider, fallback) VALUES ('first', 'openai', 'second');
            INSERT INTO "LLMModels" (name, provider) VALUES ('second', 'openai');
        """)


@pytest.mark.parametrize(
    ("assignment", "reason"),
    [
        ("provider = 'nobody'", "provider is known"),
        ('"inputCostPer1k" = -0.1', "input cost is a finite number, zero or more"),
        ('"inputCostPer1k" = 1e-1001', "input cost has at most 1000 decimals"),
        ("\"outputCostPer1k\" = 'NaN'", "output cost is a finite number, zero or more"),
        ("\"inputCostPer1k\" = 'Infinity'", "input cost is a finite number, zero or more"),
        ("name = NULL", "null value"),
        ("name = ''", "printable"),
        ("name = 'gpt 4'", "printable"),
        ("name = E'a\\r\\nx: y'", "printable"),
        ("name = 'gpt-4o'", "duplicate"),
    ],
)
async def test_a_model_that_cannot_be_used_is_refused(postgres_url: str, assignment: str, reason: str) -> None:
    async with connected(postgres_url) as connection:
        await refused(connection, f"""UPDATE "LLMModels" SET {assignment} WHERE name = 'gpt-4'""", reason)


# "Providers" ----------------------------------------------------------------------------------------------------------


async def test_a_providers_address_is_changed_and_loses_its_last_slash(postgres_url: str) -> None:
    async with connected(postgres_url) as connection:
        statement = """UPDATE "Providers" SET "apiBase" = $1 WHERE name = 'openai' RETURNING "apiBase" """
        for url in (
            "http://127.0.0.1:9000/v1",
            "http://10.0.0.1/v1/",
            "https://[::1]:8443",
            "HTTP://Proxy_1.internal/a/b",
            "https://x:65535/a%20b/@y;z=(1)!'",
            "https://[::ffff:10.0.0.1]",
            "builtin:demo",
        ):
            assert await connection.fetchval(statement, url) == url.rstrip("/")


async def test_a_new_provider_speaks_openais_dialect_and_mistral_its_own(postgres_url: str) -> None:
    async with connected(postgres_url) as connection:
        await connection.execute("""
            INSERT INTO "Providers" (name, "apiBase") VALUES ('local', 'http://127.0.0.1:8000/v1');
            DELETE FROM "LLMModels"; DELETE FROM "Providers" WHERE name = 'mistral';
            INSERT INTO "Providers" (name, "apiBase", "apiVersion") VALUES ('mistral', 'https://m.example/v1', '2');
        """)
        rows = await connection.fetch("SELECT name, dialect FROM tollway.providers WHERE name IN ('local', 'mistral')")
        assert {tuple(row) for row in rows} == {("local", "openai"), ("mistral", "mistral")}


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.openai.com/v1",
        "ftp://x/v1",
        "https://",
        "https://user:pw@x/v1",
        "https://x/v1?k=1",
        "https://x/v1#f",
        "https://x y",
        "https://x\r\nHost: y",
        "https://ex\u00e4mple",
        "http://169.254.169.254/latest",
        "http://169.254.1.1:80",
        "http://[fe80::1]",
        "http://[::ffff:169.254.169.254]",
        "http://[64:ff9b::a9fe:a9fe]",
        "http://[2002:a9fe:a9fe::]",
        "http://[fd00:ec2::254]",
        "http://[not:an:address]",
        "http://metadata.google.internal",
        "http://METADATA.google.internal./x",
        "http://2852039166",
        "http://0xa9fea9fe",
        "http://0251.0376.0251.0376",
        "http://999.1.1.1",
        "http://100.100.100.200",
        "http://[1.2.3.4]",
        "http://[00001::]",
        "https://x/openai/{deployment}",
        "https://x/a|b",
        "https://x:0",
        "https://x:65536",
        "https://" + "a" * 254,
        "builtin:../x",
    ],
)
async def test_an_address_that_no_provider_may_have_is_refused(postgres_url: str, url: str) -> None:
    async with connected(postgres_url) as connection:
        with pytest.raises(asyncpg.CheckViolationError, match="address"):
            await connection.execute("""UPDATE "Providers" SET "apiBase" = $1 WHERE name = 'openai'""", url)


async def test_a_provider_in_use_is_not_deleted(postgres_url: str) -> None:
    async with connected(postgres_url) as connection:
        await refused(connection, """DELETE FROM "Providers" WHERE name = 'openai'""", "provider is known")
