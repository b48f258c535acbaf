"""Months that are forgotten, gathered, or in the way, while entries are posted."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from fakes.connections import connected
from fakes.settlements import settlement
from tollway.accounting import batches
from tollway.accounting.journal import Journal
from tollway.accounting.posting import Poster
from tollway.controlplane.retention import Retention
from tollway.store import ledger
from tollway.store.ledger_check import differences

OLD = time.time() - 100 * 86_400.0


@asynccontextmanager
async def pool_of(url: str, **arguments: float) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(url, min_size=0, max_size=8, **arguments) as pool:
        yield pool


async def test_a_journal_that_is_rescued_after_its_months_were_forgotten_adds_nothing(
    postgres_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with pool_of(postgres_url) as pool:
        journal, poster = Journal(tmp_path, 0.0), Poster(pool, tmp_path)
        old = [settlement(started_unix=OLD) for _ in range(3)]
        for record in (*old, settlement(started_unix=time.time())):
            journal.append(record)
        await poster.post()
        await Retention(pool, 30).turn()
        totals = await pool.fetch("SELECT * FROM tollway.key_totals")
        for path in tmp_path.glob("*.journal"):
            path.unlink()
        journal.abandon()
        journal.rescue()
        await poster.post()
        assert await pool.fetch("SELECT * FROM tollway.key_totals") == totals
        async with pool.acquire() as connection:
            assert await differences(connection) == []
        (aside,) = tmp_path.glob("*.aside")
        kept = [json.loads(line)["call_id"] for line in aside.read_text().splitlines()]
        assert kept == [record.call_id for record in old] and poster.figures.set_aside == 3
        assert caplog.text.count("may have been posted before") == 1
        journal.close()


async def test_months_that_are_forgotten_while_a_batch_is_under_way_are_forgotten_for_it(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pool_of(postgres_url) as pool, connected(postgres_url) as psql:
        poster = Poster(pool, tmp_path)
        await poster.enter([settlement(started_unix=OLD, call_id="req_old")])
        real_put = batches._put

        async def after_pruning(connection: asyncpg.Connection, lines: bytes) -> int:
            monkeypatch.setattr(batches, "_put", real_put)
            assert await ledger.prune(psql, datetime.now(UTC) - timedelta(days=30)) == 1
            return await real_put(connection, lines)

        monkeypatch.setattr(batches, "_put", after_pruning)
        await poster.enter([settlement(started_unix=OLD, call_id="req_old")])
        assert await psql.fetchval("SELECT count(*) FROM tollway.ledger") == 0
        assert await psql.fetchval("SELECT requests FROM tollway.key_totals") == 1
        assert poster.figures.set_aside == 1


async def test_a_wrong_clock_forgets_nothing_that_is_to_come(postgres_url: str) -> None:
    async with connected(postgres_url) as psql:
        await ledger.make_months(psql)
        with pytest.raises(asyncpg.InvalidParameterValueError, match="to come"):
            await ledger.prune(psql, datetime.now(UTC) + timedelta(days=400))
        await ledger.prune(psql, datetime.now(UTC) - timedelta(seconds=10))
        assert await psql.fetchval("SELECT count(*) FROM tollway.ledger_months") >= 1
        pruned = await psql.fetchval("SELECT pruned_before FROM tollway.installation")
        assert pruned == (datetime.now(UTC) - timedelta(seconds=10)).replace(
            day=1, hour=0, minute=0, second=0, microsecond=0
        ), "only whole months are forgotten"


async def test_a_month_that_has_grown_in_the_default_stops_no_posting_and_is_gathered(
    postgres_url: str, tmp_path: Path
) -> None:
    async with pool_of(postgres_url) as pool, connected(postgres_url) as psql:
        poster = Poster(pool, tmp_path)
        await psql.execute("ALTER FUNCTION tollway.ledger_partition RENAME TO away")
        await poster.enter([settlement(started_unix=time.time()) for _ in range(3)])
        await psql.execute("ALTER FUNCTION tollway.away RENAME TO ledger_partition")
        # Whoever moved entries within a batch would be given up here.
        await psql.execute("""
            CREATE FUNCTION tollway.linger() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN PERFORM pg_sleep(60); RETURN NULL; END $$;
            CREATE TRIGGER linger AFTER DELETE ON tollway.ledger_default EXECUTE FUNCTION tollway.linger();
        """)
        async with asyncio.timeout(30):
            await Poster(pool, tmp_path).enter([settlement(started_unix=time.time())])
        await psql.execute("DROP TRIGGER linger ON tollway.ledger_default")
        assert await psql.fetchval("SELECT count(*) FROM tollway.ledger_default") == 4
        await Retention(pool, None).turn()
        assert await psql.fetchval("SELECT count(*) FROM ONLY tollway.ledger_default") == 0
        assert await psql.fetchval("SELECT count(*) FROM tollway.ledger") == 4
        assert await psql.fetchval("SELECT requests FROM tollway.key_totals") == 4
        assert await differences(psql) == []


async def test_others_post_while_a_month_is_gathered_until_the_very_end(postgres_url: str, tmp_path: Path) -> None:
    async with pool_of(postgres_url) as pool, connected(postgres_url) as reader, connected(postgres_url) as psql:
        poster = Poster(pool, tmp_path)
        await psql.execute("ALTER FUNCTION tollway.ledger_partition RENAME TO away")
        await poster.enter([settlement(started_unix=time.time())])
        await psql.execute("ALTER FUNCTION tollway.away RENAME TO ledger_partition")
        await psql.execute("ALTER FUNCTION tollway.ledger_partition SET lock_timeout = '30s'")
        async with reader.transaction():
            # An open change of the default: the copy can be made, and only what comes after it has to wait.
            await reader.execute("LOCK TABLE tollway.ledger_default IN ROW EXCLUSIVE MODE")
            gathering = asyncio.create_task(ledger.make_months(psql))
            await waits_for_a_lock(pool)
            copied = "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $1 AND mode = 'RowExclusiveLock' AND granted)"
            assert await pool.fetchval(copied, psql.get_server_pid())
            await reader.execute(
                "INSERT INTO tollway.ledger (call_id, key_id, started_at, outcome, state, cost, charged)"
                " VALUES ('late', 'key_1', now(), 'ok', 'exact', 1, true)"
            )
        await gathering
        assert await pool.fetchval("SELECT count(*) FROM tollway.ledger_default") == 0
        assert await pool.fetchval("SELECT count(*) FROM tollway.ledger") == 2


async def test_months_are_counted_before_anybody_has_to_wait(postgres_url: str, tmp_path: Path) -> None:
    async with pool_of(postgres_url) as pool, connected(postgres_url) as reader, connected(postgres_url) as psql:
        for days in (100, 140):
            await Poster(pool, tmp_path).enter([settlement(started_unix=time.time() - days * 86_400)])
        await psql.execute("ALTER FUNCTION tollway.prune_ledger SET lock_timeout = '30s'")
        last = await psql.fetchval("SELECT max(table_name) FROM tollway.ledger_months")
        async with reader.transaction():
            await reader.execute(f"LOCK TABLE tollway.{last} IN ACCESS EXCLUSIVE MODE")
            pruning = asyncio.create_task(ledger.prune(psql, datetime.now(UTC) - timedelta(days=60)))
            await waits_for_a_lock(pool)
            await Poster(pool, tmp_path).enter([settlement(started_unix=time.time())])
        assert await pruning == 2


async def test_a_month_that_is_made_while_a_batch_waits_makes_no_record_a_bad_one(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pool_of(postgres_url) as pool, connected(postgres_url) as psql:
        poster = Poster(pool, tmp_path)
        monkeypatch.setattr("tollway.accounting.posting._MAKE_MONTH", "SELECT $1::date")
        async with psql.transaction():
            await psql.execute("SELECT tollway.ledger_partition((now() AT TIME ZONE 'UTC')::date)")
            posting = asyncio.create_task(poster.enter([settlement(started_unix=time.time())]))
            await waits_for_a_lock(pool)
        await posting
        assert poster.figures.set_aside == 0
        assert await psql.fetchval("SELECT count(*) FROM tollway.ledger") == 1


async def waits_for_a_lock(pool: asyncpg.Pool) -> None:
    async with asyncio.timeout(10):
        while not await pool.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"):
            await asyncio.sleep(0.01)
