"""The poster on a real PostgreSQL, while its disk, its directory, its connections or other people are in the way."""

import errno
import logging
import os
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from fakes.connections import connected
from fakes.settlements import PRICE, intent_of, settlement
from tollway.accounting import aside, batches, drafts, posting
from tollway.accounting.journal import Journal
from tollway.accounting.posting import Poster


@asynccontextmanager
async def pool_of(url: str) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(url, min_size=0, max_size=4) as pool:
        yield pool


async def ledger(pool: asyncpg.Pool) -> list[tuple[str, str]]:
    return [tuple(row) for row in await pool.fetch("SELECT call_id, outcome FROM tollway.ledger ORDER BY call_id")]


class Failing:
    """A pool of which one way fails."""

    def __init__(self, pool: asyncpg.Pool, way: str, error: Exception) -> None:
        self._pool, self._way, self._error = pool, way, error

    def __getattr__(self, name: str) -> Any:
        if name == self._way:
            raise self._error
        return getattr(self._pool, name)


async def test_a_connection_that_fails_makes_no_record_a_bad_one(postgres_url: str, tmp_path: Path) -> None:
    """ssl.SSLCertVerificationError is a ValueError."""
    async with pool_of(postgres_url) as pool:
        journal = Journal(tmp_path, 0.0)
        journal.append(settlement(call_id="req_a"))
        poster = Poster(Failing(pool, "acquire", ssl.SSLCertVerificationError(1, "expired")), tmp_path)  # type: ignore[arg-type]
        with pytest.raises(ssl.SSLCertVerificationError):
            await poster.post()
        assert poster.figures.set_aside == 0
        await Poster(pool, tmp_path).post()
        assert await ledger(pool) == [("req_a", "ok")]
        journal.close()


async def test_a_connection_that_is_lost_gives_no_month_up(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pool_of(postgres_url) as pool:
        poster = Poster(pool, tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(posting, "_MAKE_MONTH", "SELECT pg_terminate_backend(pg_backend_pid()), $1::date")
            with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
                await poster.enter([settlement(started_unix=time.time())])
        await poster.enter([settlement(started_unix=time.time())])
        assert await pool.fetchval("SELECT count(*) FROM tollway.ledger_months") == 1


async def test_a_journal_is_kept_until_the_database_of_now_has_all_of_it(postgres_url: str, tmp_path: Path) -> None:
    """A standby without the last commits took over."""
    async with pool_of(postgres_url) as pool:
        journal, poster = Journal(tmp_path, 0.0), Poster(pool, tmp_path)
        journal.append(settlement(call_id="req_a"))
        await poster.post()
        before = await pool.fetchval("SELECT position FROM tollway.journal_positions")
        journal.append(settlement(call_id="req_b"))
        journal.intend(intent_of(settlement(call_id="req_c"), PRICE.id), PRICE)
        await poster.post()
        async with pool.acquire() as psql, psql.transaction():
            await psql.execute("SET LOCAL session_replication_role = replica")
            await psql.execute("DELETE FROM tollway.ledger WHERE call_id = 'req_b'")
            await psql.execute("UPDATE tollway.journal_positions SET position = $1", before)
        os.close(journal._file)
        await poster.post()
        assert await ledger(pool) == [("req_a", "ok"), ("req_b", "ok"), ("req_c", "lost")]
        assert list(tmp_path.iterdir()) == []
        assert await pool.fetchval("SELECT count(*) FROM tollway.journal_positions") == 0


async def test_a_position_that_is_behind_is_found_where_nothing_was_under_way(
    postgres_url: str, tmp_path: Path
) -> None:
    async with pool_of(postgres_url) as pool:
        journal, poster = Journal(tmp_path, 0.0), Poster(pool, tmp_path)
        journal.append(settlement(call_id="req_a"))
        await poster.post()
        async with pool.acquire() as psql, psql.transaction():
            await psql.execute("SET LOCAL session_replication_role = replica")
            await psql.execute("DELETE FROM tollway.ledger; DELETE FROM tollway.journal_positions")
        os.close(journal._file)
        await poster.post()
        assert await ledger(pool) == [("req_a", "ok")]


async def test_a_full_disk_holds_up_no_delivery_for_a_record_that_is_refused(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(aside, "_append", full)
    async with pool_of(postgres_url) as pool:
        poster = Poster(pool, tmp_path)
        await poster.enter([settlement(call_id="req_a"), settlement(call_id="req_b", attempt=40_000)])
        assert await ledger(pool) == [("req_a", "ok")] and poster.figures.set_aside == 1
        assert '"call_id":"req_b"' in caplog.text
        journal = Journal(tmp_path, 0.0)
        journal.append(settlement(call_id="req_d", attempt=40_000))
        with pytest.raises(OSError, match="No space"):
            await poster.post()  # the journal still has it, and has it when there is room again
        journal.close()


async def test_what_is_set_aside_is_told_within_a_ration(
    postgres_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with pool_of(postgres_url) as pool:
        poster = Poster(pool, tmp_path)
        poster._aside._ration._clock = lambda: 1.0
        await poster.enter([settlement(attempt=40_000) for _ in range(40)])
        told = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert len(told) == aside.MAX_LINES and poster.figures.set_aside == 40
        poster._aside._ration._clock = lambda: 2.0
        poster._aside.turn()
        assert "30 more lines" in caplog.text


async def test_an_odd_file_among_the_journals_is_told_once_and_passed_over(
    postgres_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.journal").mkdir()
    async with pool_of(postgres_url) as pool:
        journal, poster = Journal(tmp_path, 0.0), Poster(pool, tmp_path)
        journal.append(settlement(call_id="req_a"))
        for _ in range(3):
            await poster.post()
        assert await ledger(pool) == [("req_a", "ok")]
        assert caplog.text.count("passed over") == 1
        journal.close()


async def test_the_log_says_whose_open_transaction_is_in_the_way(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(batches, "_MAX_LOCK_WAIT_MS", 10)
    person = {"server_settings": {"application_name": "psql of somebody"}}
    async with pool_of(postgres_url) as pool, connected(postgres_url, **person) as psql:
        poster = Poster(pool, tmp_path)
        await poster.enter([settlement()])
        async with psql.transaction():
            await psql.execute("UPDATE tollway.key_totals SET total_cost = 0")
            with pytest.raises(asyncpg.LockNotAvailableError) as found:
                await poster.enter([settlement()])
            await poster._note_failure(found.value)
            process = await psql.fetchval("SELECT pg_backend_pid()")
        assert f"process {process} of" in caplog.text and "psql of somebody" in caplog.text


async def test_rows_of_files_that_are_long_gone_are_forgotten(postgres_url: str, tmp_path: Path) -> None:
    async with pool_of(postgres_url) as pool:
        journal = Journal(tmp_path, 0.0)
        ours = journal._path.name
        for name, days in ((ours, 200), ("gone.journal", 200), ("another.journal", 50)):
            await pool.execute(
                "INSERT INTO tollway.journal_positions (file, position, updated_at)"
                " VALUES ($1, 0, now() - make_interval(days => $2))",
                *(name, days),
            )
        await Poster(pool, tmp_path)._tidy()
        kept = await pool.fetch("SELECT file FROM tollway.journal_positions ORDER BY file")
        assert [row["file"] for row in kept] == ["another.journal", ours]
        journal.close()


def test_old_drafts_that_nobody_writes_to_are_removed(tmp_path: Path) -> None:
    living, journal = Journal(tmp_path, 0.0), Journal(tmp_path, 1.0)
    hidden = living._path.rename(tmp_path / f".{living._path.name}")
    for name, age_s in ((".old.journal", 2 * drafts.MIN_AGE_S), (".new.journal", 0.0)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    os.utime(hidden, (0, 0))
    assert drafts.remove_drafts(tmp_path) == 1
    assert {path.name for path in tmp_path.iterdir()} == {hidden.name, ".new.journal", journal._path.name}
    living.close()
    journal.close()
