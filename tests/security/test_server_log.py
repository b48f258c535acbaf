"""What a statement was refused for never stands in the embedded PostgreSQL's log: it may hold what was to be stored.

A canary is put into every place of statements that fail in every way that we know; none is found afterwards.
"""

import asyncio
import io
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncpg
import pytest

from fakes.connections import connected
from tollway.store.embedded import EmbeddedPostgres
from tollway.store.migrate import migrate
from tollway.store.seed import seed

CANARY = "sk-canary-4711"

KEY = "INSERT INTO tollway.virtual_keys (id, hash, hint) VALUES ('key_1', sha256('1'), '…')"

REFUSED = [
    # The predecessor's views, as people write to them.
    """UPDATE "Users" SET "openaiKey" = '{}', "requestsPerMinute" = -1""",
    """UPDATE "Users" SET "openaiKey" = '{}', "tokensPerMinute" = -1""",
    """UPDATE "Users" SET "openaiKey" = '{}', "totalCost" = NULL""",
    """UPDATE "Users" SET "openaiKey" = '{}', "totalCost" = 'NaN'""",
    """UPDATE "Users" SET "openaiKey" = '{}', "mistralKey" = '{}', "totalCost" = 1e40""",
    """UPDATE "Users" SET "virtualKey" = '{}'""",
    """UPDATE "Users" SET id = '{}'""",
    """UPDATE "Users" SET "openaiKey" = '{}' WHERE id = 1""",
    """UPDATE "Users" SET "requestsPerMinute" = '{}'""",
    """UPDATE "Users" SET "totalCost" = '{}'""",
    """UPDATE "Users" SET "createdAt" = '{}'""",
    """UPDATE "Users" SET "openaiKey" = "{}" """,
    """UPDATE "Users" SET openaiKey = '{}'""",
    """UPDATE "Users" SET "openaiKey" = '{}' """ + "WHERE",
    """UPDATE "Users" SET "openaiKey" = '{}""",
    """UPDATE "Users" SET "openaiKey" = {}""",
    """UPDATE "{}" SET "openaiKey" = ''""",
    """INSERT INTO "Users" ("openaiKey") VALUES ('{}')""",
    """INSERT INTO "Users" ("virtualKey") VALUES ('{}')""",
    """UPDATE "LLMModels" SET fallback = '["{}"]'""",
    """UPDATE "LLMModels" SET fallback = '["{}'""",
    """UPDATE "LLMModels" SET provider = '{}'""",
    """UPDATE "LLMModels" SET name = '{}'""",
    """UPDATE "LLMModels" SET "inputCostPer1k" = '{}'""",
    """INSERT INTO "LLMModels" (name, provider, "inputCostPer1k") VALUES ('{}', 'openai', -1)""",
    """UPDATE "Providers" SET "apiBase" = 'https://{}@host/v1'""",
    """UPDATE "Providers" SET "apiVersion" = '{} x'""",
    """UPDATE "Providers" SET name = '{}'""",
    # The tables, where a refused row is shown whole.
    """INSERT INTO tollway.provider_keys VALUES ('nobody', 'openai', '{}')""",
    """INSERT INTO tollway.provider_keys VALUES ('key_1', NULL, '{}')""",
    """INSERT INTO tollway.provider_keys VALUES ('key_1', 'openai', '{}'), ('key_1', 'openai', '{}')""",
    """INSERT INTO tollway.provider_keys VALUES ('{}', 'openai', NULL)""",
    """INSERT INTO tollway.virtual_keys (id, name, hash, hint) VALUES ('x', '{}', '', '{}')""",
    """INSERT INTO tollway.virtual_keys (id, name, hash, hint) VALUES ('{}', '', sha256('1'), '')""",
    """DELETE FROM tollway.virtual_keys WHERE name = '{}'""",
    """UPDATE tollway.ledger SET cause = '{}'""",
    """INSERT INTO tollway.providers (name, dialect, api_base) VALUES ('x', '{}', 'https://x')""",
    """INSERT INTO tollway.providers (name, dialect, api_base, quirks) VALUES ('x', 'openai', 'https://x', '{{{}}}')""",
    # Other ways to fail.
    """SELECT '{}'::int""",
    """SELECT '{}'::json""",
    """SELECT '{}'::timestamptz""",
    """SELECT '{}'::bytea || '\\xzz'::bytea""",
    """SELECT '{}', 1 / 0""",
    """SELECT "{}" """,
    """SELECT "{}"()""",
    """SELECT * FROM "{}" """,
    """SET "{}" = 1""",
    """SET lock_timeout = '{}'""",
    """SET ROLE "{}" """,
    """EXECUTE "{}" """,
    """SELECT regexp_match('x', '({}')""",
    """DO $$ BEGIN RAISE EXCEPTION '%', '{}' USING DETAIL = '{}', HINT = '{}'; END $$""",
    """DO $$ BEGIN RAISE WARNING '{}'; END $$""",
    """DO $$ BEGIN EXECUTE 'SELECT 1 / 0, ''{}'''; END $$""",
    """SET statement_timeout = 10; SELECT pg_sleep(10), '{}'""",
    """PREPARE p AS SELECT $1::text::int; EXECUTE p ('{}')""",
    """BEGIN; SELECT 1 / 0; SELECT '{}'""",
]


@asynccontextmanager
async def server(home: Path) -> AsyncIterator[str]:
    running = EmbeddedPostgres(home, {"fsync": "off"})
    url = await running.start()
    try:
        async with connected(url) as connection:
            await migrate(connection)
            await seed(connection)
            await connection.execute(KEY)
        yield url
    finally:
        await running.stop()


async def refuses(url: str, statement: Callable[[asyncpg.Connection], Awaitable[object]]) -> None:
    async with connected(url) as connection:
        with pytest.raises((asyncpg.PostgresError, ConnectionError)):
            await statement(connection)


async def deadlock(url: str) -> None:
    """Each side's statement is told to the server's log, literals and all."""
    async with connected(url) as one, connected(url) as two:
        change = f"""UPDATE tollway.models SET upstream_name = '{CANARY}' WHERE name = '{{}}'"""
        for connection, model in ((one, "gpt-4"), (two, "gpt-4o")):
            await connection.execute("SET deadlock_timeout = 10")
            await connection.execute("BEGIN")
            await connection.execute(change.format(model))
        ends = await asyncio.gather(
            one.execute(change.format("gpt-4o")), two.execute(change.format("gpt-4")), return_exceptions=True
        )
        assert [type(end) for end in ends if not isinstance(end, str)] == [asyncpg.DeadlockDetectedError]


async def interrupted(url: str, end: Callable[[asyncpg.Connection, int], Awaitable[object]]) -> None:
    """A statement that is cut off while it runs."""
    async with connected(url) as other:
        with suppress(asyncpg.PostgresError, ConnectionError, asyncpg.InterfaceError):
            async with connected(url) as connection:
                pid = connection.get_server_pid()
                running = asyncio.ensure_future(connection.execute(f"SELECT pg_sleep(60), '{CANARY}'"))
                while not await other.fetchval("SELECT state = 'active' FROM pg_stat_activity WHERE pid = $1", pid):
                    await asyncio.sleep(0.01)
                await end(other, pid)
                with pytest.raises((asyncpg.PostgresError, ConnectionError)):
                    await running


async def test_refused_statements_leave_no_word_in_the_servers_log(tmp_path: Path) -> None:
    async with server(tmp_path) as url:
        for statement in REFUSED:
            text = statement.format(*[CANARY] * 3)
            assert CANARY in text
            if "WARNING" in text:
                async with connected(url) as connection:
                    await connection.execute(text)
            else:
                await refuses(url, lambda connection, text=text: connection.execute(text))
        for value in (CANARY, CANARY + "\0"):  # as parameters
            await refuses(url, lambda connection, value=value: connection.fetch("SELECT $1::text::int", value))
        line = io.BytesIO(f"key_1\topenai\t{CANARY}\textra\n".encode())
        await refuses(
            url, lambda connection: connection.copy_to_table("provider_keys", schema_name="tollway", source=line)
        )
        await refuses(
            url,
            lambda connection: connection.copy_records_to_table(
                "provider_keys", schema_name="tollway", records=[("nobody", "openai", CANARY)]
            ),
        )
        await deadlock(url)
        await interrupted(url, lambda other, pid: other.execute("SELECT pg_cancel_backend($1)", pid))
        await interrupted(url, lambda other, pid: other.execute("SELECT pg_terminate_backend($1)", pid))
        log = (tmp_path / "postgres.log").read_text()
        assert CANARY not in log
        assert "ready to accept connections" in log, "what concerns the server itself is told"


async def test_a_server_process_that_is_killed_does_not_tell_what_it_was_doing(tmp_path: Path) -> None:
    async with server(tmp_path) as url:

        async def kill(_: asyncpg.Connection, pid: int) -> None:
            os.kill(pid, signal.SIGKILL)

        await interrupted(url, kill)
        while "all server processes terminated" not in (log := (tmp_path / "postgres.log").read_text()):
            await asyncio.sleep(0.01)
        assert "was terminated by signal 9" in log
        assert CANARY not in log
