"""The schema arrives whole, once, whoever brings it and whatever is in the way."""

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from fakes.connections import connected
from tollway.store import migrate as module
from tollway.store.installation import WrongEncryptionKeyError, check_encryption_key
from tollway.store.migrate import head, migrate
from tollway.store.seed import seed
from tollway.store.vault import Vault

VIEWS = {"Users", "LLMModels", "Providers"}


def test_the_newest_file_is_alembics_head() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(module.__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_current_head() == head()


async def test_an_empty_database_is_migrated_once(empty_postgres_url: str) -> None:
    async with connected(empty_postgres_url) as connection:
        assert await migrate(connection)
        assert not await migrate(connection)
        assert await connection.fetchval("SELECT version_num FROM tollway.alembic_version") == head()
        views = await connection.fetch("SELECT table_name FROM information_schema.views WHERE table_schema = 'public'")
        assert {row["table_name"] for row in views} == VIEWS


async def test_of_many_migrators_at_once_one_does_the_work(empty_postgres_url: str) -> None:
    async def one() -> bool:
        async with connected(empty_postgres_url) as connection:
            done = await migrate(connection)
            await seed(connection)
            return done

    assert sorted(await asyncio.gather(*(one() for _ in range(5)))) == [False] * 4 + [True]


async def test_a_migrator_waits_for_a_lock_that_another_one_holds(
    empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_LOCK_TIMEOUT_MS", 20)
    async with connected(empty_postgres_url) as other, connected(empty_postgres_url) as connection:
        await other.execute("SELECT pg_advisory_lock($1)", module._ADVISORY_LOCK)
        waiting = asyncio.ensure_future(migrate(connection))
        attempts = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        for _ in range(3):
            while not await other.fetchval(attempts):
                await asyncio.sleep(0.005)
            while await other.fetchval(attempts):
                await asyncio.sleep(0.005)
        assert not waiting.done()
        assert [record.levelname for record in caplog.records] == ["WARNING"], "said once, however often it is tried"
        await other.execute("SELECT pg_advisory_unlock($1)", module._ADVISORY_LOCK)
        assert await waiting


async def test_a_migration_that_fails_leaves_nothing_behind(
    empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = module._script
    monkeypatch.setattr(module, "_script", lambda version: script(version) + "SELECT 1 / 0;")
    async with connected(empty_postgres_url) as connection:
        with pytest.raises(asyncpg.DivisionByZeroError):
            await migrate(connection)
        assert await connection.fetchval("SELECT to_regnamespace('tollway') IS NULL")
        monkeypatch.undo()
        assert await migrate(connection)


async def test_a_newer_schema_is_left_alone(postgres_url: str) -> None:
    async with connected(postgres_url) as connection:
        await connection.execute("UPDATE tollway.alembic_version SET version_num = '9999'")
        assert not await migrate(connection)


async def test_rows_of_a_restored_dump_do_not_name_transactions_to_come(postgres_url: str) -> None:
    async with connected(postgres_url) as connection:
        await connection.execute("""
            SET session_replication_role = replica;
            UPDATE tollway.models SET changed_in = '99999999';
            SET session_replication_role = origin;
        """)
        await migrate(connection)
        newest = "SELECT max(changed_in::text::bigint) FROM tollway.models"
        first = await connection.fetchval(newest)
        assert first < await connection.fetchval("SELECT pg_current_xact_id()::text::bigint")
        await migrate(connection)
        assert await connection.fetchval(newest) == first


async def test_odd_rows_of_a_restored_dump_hold_up_no_start_and_no_edit(postgres_url: str) -> None:
    """They may have been written when the rules were others, or past all rules."""
    async with connected(postgres_url) as connection:
        await connection.execute("""
            SET session_replication_role = replica;
            UPDATE tollway.providers
            SET api_base = 'http://[::ffff:1.2.3]/v1', quirks = '{{logprobs}}', changed_in = '99999999'
            WHERE name = 'mistral';
            UPDATE tollway.models SET fallback = 'no array', changed_in = '99999999' WHERE name = 'gpt-4o';
            UPDATE tollway.models SET fallback = '["gone"]', changed_in = '99999999' WHERE name = 'gpt-4';
            UPDATE tollway.models SET fallback = '{}', changed_in = '99999999' WHERE name = 'gpt-5';
            SET session_replication_role = origin;
        """)
        await migrate(connection)
        assert await connection.fetchval("SELECT max(changed_in::text::bigint) FROM tollway.models") < 99999999
        await connection.execute("""
            UPDATE "LLMModels" SET "inputCostPer1k" = 0.5 WHERE name IN ('gpt-4', 'gpt-4o');
            INSERT INTO "LLMModels" (name, provider, fallback) VALUES ('new', 'openai', 'gpt-4o');
            UPDATE "LLMModels" SET name = 'newer' WHERE name = 'new';
            DELETE FROM "LLMModels" WHERE name = 'newer';
            UPDATE "Providers" SET "apiVersion" = '1';
        """)
        with pytest.raises(asyncpg.CheckViolationError, match="IPv6"):
            await connection.execute("""UPDATE "Providers" SET name = 'm' WHERE name = 'mistral'""")
        with pytest.raises(asyncpg.ForeignKeyViolationError, match="gone"):
            await connection.execute("""UPDATE "LLMModels" SET fallback = '["gone"]' WHERE name = 'gpt-4'""")
        with pytest.raises(asyncpg.ForeignKeyViolationError, match='would fall back to "mistral-small-latest"'):
            await connection.execute("""DELETE FROM "LLMModels" WHERE name = 'mistral-small-latest'""")


async def test_tables_of_the_predecessor_are_not_touched(empty_postgres_url: str) -> None:
    async with connected(empty_postgres_url) as connection:
        await connection.execute('CREATE TABLE "Users" (id integer); INSERT INTO "Users" VALUES (1)')
        with pytest.raises(asyncpg.DuplicateTableError, match="already has tables"):
            await migrate(connection)
        assert await connection.fetchval('SELECT count(*) FROM "Users"') == 1
        assert await connection.fetchval("SELECT to_regnamespace('tollway') IS NULL")


async def test_a_role_with_no_more_than_all_privileges_on_its_database_is_enough(
    empty_postgres_url: str,
) -> None:
    """As the predecessor's document sets it up; since PostgreSQL 15 that gives no right to create in "public"."""
    name = urlsplit(empty_postgres_url).path[1:]
    async with connected(empty_postgres_url) as connection:
        await connection.execute(f"""
            CREATE ROLE llm_proxy_user LOGIN PASSWORD 'x';
            GRANT ALL PRIVILEGES ON DATABASE {name} TO llm_proxy_user;
        """)
    try:
        async with connected(empty_postgres_url, user="llm_proxy_user", password="x") as connection:
            assert await migrate(connection)
            await seed(connection)
            await connection.execute("""UPDATE "LLMModels" SET "inputCostPer1k" = 0.5 WHERE name = 'gpt-4o'""")
            assert await connection.fetch('SELECT * FROM "Users"') == []
    finally:
        async with connected(empty_postgres_url) as connection:
            await connection.execute("DROP OWNED BY llm_proxy_user CASCADE; DROP ROLE llm_proxy_user")


async def test_the_first_encryption_key_is_the_only_one(postgres_url: str) -> None:
    vault = Vault(bytes(32))
    async with connected(postgres_url) as connection:
        await check_encryption_key(connection, vault)
        await check_encryption_key(connection, vault)
        with pytest.raises(WrongEncryptionKeyError) as error:
            await check_encryption_key(connection, Vault(b"x" * 32))
        assert "\n" not in str(error.value)
        await check_encryption_key(connection, vault)
