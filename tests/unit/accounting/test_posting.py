"""The poster on a real PostgreSQL."""

import asyncio
import json
import logging
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from fakes.postgres import database_url
from fakes.settlements import settlement
from tollway.accounting import batches
from tollway.accounting import posting as module
from tollway.accounting.journal import Journal
from tollway.accounting.journal_reader import Chunk
from tollway.accounting.posting import Poster
from tollway.accounting.records import PriceCard
from tollway.store import ledger


@dataclass
class Books:
    """A poster, its journals, and the ledger that it writes to."""

    poster: Poster
    pool: asyncpg.Pool
    directory: Path

    def journal(self) -> Journal:
        return Journal(self.directory, 1_700_000_000.0)

    async def attempts(self) -> list[str]:
        rows = await self.pool.fetch("SELECT call_id FROM tollway.ledger ORDER BY call_id")
        return [row["call_id"] for row in rows]

    async def total(self, key_id: str = "key_1") -> tuple[Decimal, int, int, int] | None:
        row = await self.pool.fetchrow(
            "SELECT total_cost, requests, input_tokens, output_tokens FROM tollway.key_totals WHERE key_id = $1", key_id
        )
        return None if row is None else tuple(row)  # type: ignore[return-value]

    def restarted(self) -> "Books":
        """The same after the control plane was restarted: nothing is remembered."""
        return Books(Poster(self.pool, self.directory), self.pool, self.directory)


@asynccontextmanager
async def books(url: str, directory: Path) -> AsyncIterator[Books]:
    async with asyncpg.create_pool(url, min_size=1, max_size=4) as pool:
        yield Books(Poster(pool, directory), pool, directory)


@asynccontextmanager
async def at_work(poster: Poster) -> AsyncIterator[None]:
    task = asyncio.create_task(poster.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def test_an_entry_holds_what_the_record_said_exactly(postgres_url: str, tmp_path: Path) -> None:
    async with books(postgres_url, tmp_path) as it:
        journal = it.journal()
        record = settlement(cost=10**40 + 1, scale=45, first_byte_ms=99.6, cause="why", stream=True)
        journal.append(record)
        await it.poster.post()
        row = await it.pool.fetchrow("SELECT * FROM tollway.ledger")
        assert row["kind"] == "call" and row["others"] is None and row["upstream_model"] is None
        assert str(row["cost"]) == "0.000010000000000000000000000000000000000000001"
        assert row["started_at"].timestamp() == record.started_unix
        assert (row["duration_ms"], row["first_byte_ms"]) == (812, 100)
        for name in ("call_id", "attempt", "key_id", "model", "provider", "operation", "status", "outcome", "price_id"):
            assert row[name] == getattr(record, name)
        for name in ("stream", "state", "priced", "charged", "revision", "cause"):
            assert row[name] == getattr(record, name)
        for name in ("input_tokens", "cached_input_tokens", "output_tokens"):
            assert row[name] == getattr(record.usage, name)
        assert row["reasoning_tokens"] == record.reasoning
        journal.close()


async def test_totals_are_the_sum_of_what_reached_the_clients(postgres_url: str, tmp_path: Path) -> None:
    async with books(postgres_url, tmp_path) as it:
        journal = it.journal()
        for cost in (1, 10):
            journal.append(settlement(cost=cost))
        journal.append(settlement(cost=100, charged=False))
        journal.append(settlement(cost=1000, key_id="key_2", scale=15))
        await it.poster.post()
        assert await it.total("key_1") == (Decimal("0.000000000011"), 2, 200, 100)
        assert await it.total("key_2") == (Decimal("0.000000000001"), 1, 100, 50)
        journal.append(settlement(cost=1))
        await it.poster.post()
        assert await it.total("key_1") == (Decimal("0.000000000012"), 3, 300, 150)
        journal.close()


async def test_rare_kinds_of_tokens_are_kept_and_are_in_the_sums(postgres_url: str, tmp_path: Path) -> None:
    async with books(postgres_url, tmp_path) as it:
        journal = it.journal()
        journal.append(
            settlement(others={"cache_write": 1000, "images": 3}, service_tier="flex", doubt="zeros", price_id=0)
        )
        await it.poster.post()
        row = await it.pool.fetchrow("SELECT * FROM tollway.ledger")
        assert row["others"] == '{"images": 3, "cache_write": 1000}'
        assert (row["input_tokens"], row["service_tier"], row["doubt"], row["price_id"]) == (
            1100,
            "flex",
            "zeros",
            None,
        )
        journal.close()


async def test_a_price_card_is_kept_with_the_first_entry_that_names_it(postgres_url: str, tmp_path: Path) -> None:
    async with books(postgres_url, tmp_path) as it:
        card = PriceCard(7, '[{"bucket": "input", "usd": "1"}]')
        position = 0
        for cards in ([card], [card, PriceCard(8, "[]")]):
            position = await it.poster._commit(tmp_path / "a.journal", position, cards, position + 1, [])
        rows = await it.pool.fetch("SELECT * FROM tollway.price_cards ORDER BY id")
        assert [tuple(row) for row in rows] == [(7, '[{"usd": "1", "bucket": "input"}]'), (8, "[]")]


async def test_entries_lie_in_the_table_of_their_month_and_those_of_odd_clocks_in_the_default(
    postgres_url: str, tmp_path: Path
) -> None:
    async with books(postgres_url, tmp_path) as it:
        journal, now = it.journal(), datetime.now(UTC)
        moments = [0.0, now.timestamp(), (now - timedelta(days=40)).timestamp(), 4_102_444_800.0]
        for number, moment in enumerate(moments):
            journal.append(settlement(started_unix=moment, call_id=f"req_{number}"))
        await it.poster.post()
        lies_in = "SELECT relname FROM tollway.ledger l JOIN pg_class c ON c.oid = l.tableoid ORDER BY call_id"
        rows = await it.pool.fetch(lies_in)
        months = [f"ledger_{day:%Y_%m}" for day in (now, now - timedelta(days=40))]
        assert [row["relname"] for row in rows] == ["ledger_default", *months, "ledger_default"]
        journal.close()


async def test_posters_that_need_the_same_new_month_make_it_once(postgres_url: str, tmp_path: Path) -> None:
    async with books(postgres_url, tmp_path) as it:
        journals = [it.journal() for _ in range(4)]
        for journal in journals:
            journal.append(settlement(started_unix=time.time()))
            journal.close()
        await asyncio.gather(*(it.restarted().poster.post() for _ in range(4)))
        assert len(await it.attempts()) == 4
        assert await it.pool.fetchval("SELECT count(*) FROM tollway.ledger_months") == 1


async def test_a_month_that_cannot_be_made_now_gets_its_entries_later(postgres_url: str, tmp_path: Path) -> None:
    async with books(postgres_url, tmp_path) as it, connected(postgres_url) as reader:
        await it.pool.execute("ALTER FUNCTION tollway.ledger_partition SET lock_timeout = '1ms'")
        journal = it.journal()
        journal.append(settlement(started_unix=time.time()))
        async with reader.transaction():
            await reader.execute("SELECT FROM tollway.ledger_default")
            await it.poster.post()
        where = "SELECT relname FROM tollway.ledger l JOIN pg_class c ON c.oid = l.tableoid"
        assert await it.pool.fetchval(where) == "ledger_default"
        await it.restarted().poster._make_months([settlement(started_unix=time.time())])
        assert await it.pool.fetchval(where) == "ledger_default", "who posts does not wait for entries to be moved"
        async with it.pool.acquire() as connection:
            await ledger.make_months(connection)
        assert await it.pool.fetchval(where) == f"ledger_{datetime.now(UTC):%Y_%m}"
        assert (await it.total() or ())[1] == 1
        journal.close()


async def test_an_attempt_that_is_journalled_twice_counts_once(postgres_url: str, tmp_path: Path) -> None:
    async with books(postgres_url, tmp_path) as it:
        journal, other = it.journal(), it.journal()
        twice = settlement(cost=7)
        for each in (journal, journal, other):
            each.append(twice)
        await it.poster.post()
        journal.append(twice)
        await it.poster.post()
        assert await it.attempts() == [twice.call_id]
        assert await it.total() == (Decimal("0.000000000007"), 1, 100, 50)
        journal.close()
        other.close()


async def test_a_restarted_poster_goes_on_where_the_last_one_was(postgres_url: str, tmp_path: Path) -> None:
    async with books(postgres_url, tmp_path) as it:
        journal = it.journal()
        records = [settlement() for _ in range(6)]
        for record in records[:3]:
            journal.append(record)
        await it.poster.post()
        for record in records[3:]:
            journal.append(record)
        again = it.restarted()
        await again.poster.post()
        assert again.poster.figures.posted == 3
        assert await it.attempts() == [record.call_id for record in records]
        journal.close()


async def test_entries_totals_and_position_are_one_transaction(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with books(postgres_url, tmp_path) as it:
        journal = it.journal()
        journal.append(settlement(cost=5))
        with monkeypatch.context() as patch:
            patch.setattr(batches, "_ADVANCE", "SELECT pg_terminate_backend(pg_backend_pid()), $1::text, $2::bigint")
            with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
                await it.poster.post()
        assert await it.attempts() == [] and await it.total() is None
        await it.poster.post()
        assert await it.total() == (Decimal("0.000000000005"), 1, 100, 50)
        journal.close()


async def test_a_commit_whose_answer_was_lost_is_not_repeated(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with books(postgres_url, tmp_path) as it:
        journal = it.journal()
        journal.append(settlement(cost=5))
        real_commit = it.poster._commit

        async def commit_and_lose(*arguments: object) -> int:
            await real_commit(*arguments)  # type: ignore[arg-type]
            raise ConnectionResetError

        with monkeypatch.context() as patch:
            patch.setattr(it.poster, "_commit", commit_and_lose)
            with pytest.raises(ConnectionResetError):
                await it.poster.post()
        await it.poster.post()
        assert await it.total() == (Decimal("0.000000000005"), 1, 100, 50)
        journal.close()


async def test_posters_at_work_on_the_same_journals_post_each_entry_once(postgres_url: str, tmp_path: Path) -> None:
    async with books(postgres_url, tmp_path) as it:
        journals = [it.journal() for _ in range(3)]
        records = [settlement(cost=1) for _ in range(300)]
        posters = [it.restarted().poster for _ in range(4)]
        for number, record in enumerate(records):
            journals[number % 3].append(record)
            if number % 50 == 0:
                await asyncio.gather(*(poster.post() for poster in posters))
        await asyncio.gather(*(poster.post() for poster in posters))
        await it.poster.post()
        assert await it.attempts() == [record.call_id for record in records]
        assert await it.total() == (Decimal("0.0000000003"), 300, 30_000, 15_000)
        for journal in journals:
            journal.close()


async def test_a_database_that_was_restored_from_a_backup_gets_its_entries_again(
    postgres_url: str, tmp_path: Path
) -> None:
    async with books(postgres_url, tmp_path) as it:
        journal = it.journal()
        first, second, third = settlement(cost=1), settlement(cost=10), settlement(cost=100)
        journal.append(first)
        await it.poster.post()
        position = await it.pool.fetchval("SELECT position FROM tollway.journal_positions")
        journal.append(second)
        await it.poster.post()
        async with it.pool.acquire() as psql, psql.transaction():
            await psql.execute("SET LOCAL session_replication_role = replica")
            await psql.execute("DELETE FROM tollway.ledger WHERE call_id = $1", second.call_id)
            await psql.execute("UPDATE tollway.key_totals SET total_cost = 1e-12, requests = 1")
        await it.pool.execute("UPDATE tollway.journal_positions SET position = $1", position)
        journal.append(third)
        await it.poster.post()
        assert await it.attempts() == [first.call_id, second.call_id, third.call_id]
        total = await it.total()
        assert total is not None and total[:2] == (Decimal("0.000000000111"), 3)
        journal.close()


async def test_a_dead_workers_journal_is_posted_and_removed_a_living_ones_is_kept(
    postgres_url: str, tmp_path: Path
) -> None:
    async with books(postgres_url, tmp_path) as it:
        dead, living = it.journal(), it.journal()
        records = [settlement(), settlement()]
        dead.append(records[0])
        living.append(records[1])
        dead.close()
        await it.poster.post()
        assert await it.attempts() == [record.call_id for record in records]
        assert len(list(tmp_path.iterdir())) == 1
        assert await it.pool.fetchval("SELECT count(*) FROM tollway.journal_positions") == 1
        living.append(later := settlement())
        living.close()
        await it.poster.post()
        assert later.call_id in await it.attempts()
        assert list(tmp_path.iterdir()) == []
        assert await it.pool.fetchval("SELECT count(*) FROM tollway.journal_positions") == 0


async def test_the_torn_end_of_a_dead_workers_journal_is_set_aside(
    postgres_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with books(postgres_url, tmp_path) as it:
        journal = it.journal()
        journal.append(whole := settlement())
        journal.append(settlement())
        (path,) = tmp_path.iterdir()
        torn = path.read_bytes()[:-5]
        path.write_bytes(torn)
        await it.poster.post()
        assert it.poster.figures.set_aside == 0  # its writer lives: it may be in the middle of it
        journal.close()
        await it.poster.post()
        assert await it.attempts() == [whole.call_id]
        (aside,) = tmp_path.iterdir()
        assert aside.suffix == ".aside" and torn.endswith(aside.read_bytes()[:-1])
        assert it.poster.figures.set_aside == 1
        assert "set aside" in caplog.text


@pytest.mark.parametrize(
    "poison",
    [{"started_unix": float("nan")}, {"started_unix": 1e20}, {"input": 2**63}, {"status": 2**40},
     {"cost": 10**60, "scale": 12}, {"duration_ms": float("inf")}],
)  # fmt: skip
async def test_poison_is_set_aside_and_holds_up_nothing(
    postgres_url: str, tmp_path: Path, poison: dict[str, object]
) -> None:
    async with books(postgres_url, tmp_path) as it:
        journal = it.journal()
        records = [settlement(cost=1) for _ in range(20)]
        bad = settlement(**poison)
        for record in [*records[:13], bad, *records[13:]]:
            journal.append(record)
        await it.poster.post()
        assert await it.attempts() == [record.call_id for record in records]
        assert await it.total() == (Decimal("0.00000000002"), 20, 2000, 1000)
        (aside,) = tmp_path.glob("*.aside")
        assert bad.call_id in aside.read_text()
        assert it.poster.figures.set_aside == 1
        await it.restarted().poster.post()
        assert len(await it.attempts()) == 20
        journal.close()


async def test_what_is_set_aside_is_so_once_however_long_postgresql_was_away(postgres_url: str, tmp_path: Path) -> None:
    async with books(postgres_url, tmp_path) as it:
        journal = it.journal()
        journal.append(settlement(status=2**40))
        (path,) = tmp_path.iterdir()
        path.write_bytes(b"damage" + path.read_bytes())
        await it.pool.execute("ALTER TABLE tollway.journal_positions RENAME TO away")
        for _ in range(3):
            with pytest.raises(asyncpg.UndefinedTableError):
                await it.poster.post()
        await it.pool.execute("ALTER TABLE tollway.away RENAME TO journal_positions")
        await it.poster.post()
        await it.poster.post()
        (aside,) = tmp_path.glob("*.aside")
        assert aside.read_bytes().count(b"\n") == it.poster.figures.set_aside == 2
        journal.close()


async def test_posting_goes_on_after_an_error_that_nobody_thought_of(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TAIL_INTERVAL_S", 0.005)
    async with books(postgres_url, tmp_path) as it:
        journal = it.journal()
        journal.append(settlement())
        with monkeypatch.context() as patch:
            patch.setattr(it.poster, "_commit", lambda *_: 1 / 0)
            async with at_work(it.poster):
                await until(lambda: it.poster.figures.away)
                patch.undo()
                await until(lambda: it.poster.figures.posted == 1)
        journal.close()


async def test_a_batch_of_nothing_but_poison_is_passed(postgres_url: str, tmp_path: Path) -> None:
    async with books(postgres_url, tmp_path) as it:
        journal = it.journal()
        for _ in range(5):
            journal.append(settlement(status=2**40))
        await it.poster.post()
        journal.append(good := settlement())
        await it.poster.post()
        assert await it.attempts() == [good.call_id] and it.poster.figures.set_aside == 5
        journal.close()


async def test_texts_of_any_kind_are_posted_as_they_are_but_for_what_postgresql_cannot_hold(
    postgres_url: str, tmp_path: Path
) -> None:
    async with books(postgres_url, tmp_path) as it:
        journal = it.journal()
        texts = {"model": "a\x00b\tc", "upstream_model": "\ud800\\N", "cause": "\x00\n\r\\.", "service_tier": "\\t"}
        journal.append(settlement(**texts, others={'a\t"\\': 1}))
        journal.append(settlement())
        await it.poster.post()
        row = await it.pool.fetchrow("SELECT * FROM tollway.ledger ORDER BY call_id LIMIT 1")
        found = {name: row[name] for name in texts}
        assert found == {
            "model": "a\ufffdb\tc",
            "upstream_model": "?\\N",
            "cause": "\ufffd\n\r\\.",
            "service_tier": "\\t",
        }
        assert json.loads(row["others"]) == {'a\t"\\': 1}
        assert len(await it.attempts()) == 2 and it.poster.figures.set_aside == 0
        journal.close()


async def test_while_postgresql_is_away_everything_waits_and_is_posted_when_it_is_back(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "TAIL_INTERVAL_S", 0.005)
    monkeypatch.setattr(module, "MAX_PAUSE_S", 0.01)
    caplog.set_level(logging.INFO, module.__name__)
    database = urlsplit(postgres_url).path.removeprefix("/")
    async with (
        books(postgres_url, tmp_path) as it,
        at_work(it.poster),
        connected(database_url(postgres_url, "postgres")) as server,
    ):
        journal = it.journal()
        await server.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")
        await server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", database)
        records = [settlement(cost=1) for _ in range(10)]
        for record in records:
            journal.append(record)
        await until(lambda: it.poster.figures.away and it.poster.figures.behind_bytes > 0)
        await server.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")
        await until(lambda: it.poster.figures.posted == 10 and not it.poster.figures.away)
        assert it.poster.figures.behind_bytes == 0
        assert await it.attempts() == [record.call_id for record in records]
        said = [record.getMessage() for record in caplog.records if record.name == module.__name__]
        assert [text.split(",")[0] for text in said] == [
            "settlements wait in their journals",
            "settlements are posted again",
        ]
        journal.close()


async def test_a_total_is_visible_soon_after_the_call(postgres_url: str, tmp_path: Path) -> None:
    async with books(postgres_url, tmp_path) as it, at_work(it.poster):
        journal = it.journal()
        start = asyncio.get_running_loop().time()
        journal.append(settlement(cost=1))
        await until(lambda: it.poster.figures.posted == 1)
        assert asyncio.get_running_loop().time() - start < 1.0
        journal.close()


async def test_while_there_is_much_to_post_it_is_done_less_often(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def noted(pause_s: float) -> None:
        if asyncio.current_task() is work:
            pauses.append(pause_s)
            for number in range(next(counts, 0)):
                journal.append(settlement(call_id=f"{len(pauses)}-{number}"))
        await sleep(0.005)

    monkeypatch.setattr(module, "BUSY_ENTRIES", 3)
    monkeypatch.setattr(module.asyncio, "sleep", noted)
    counts = iter([2, 3, 4, 1])
    async with books(postgres_url, tmp_path) as it:
        journal = it.journal()
        work = asyncio.create_task(it.poster.run())
        await until(lambda: len(pauses) >= 6)
        work.cancel()
        journal.close()
    quick, slow = module.TAIL_INTERVAL_S, module.BUSY_INTERVAL_S
    assert pauses[:6] == [quick, quick, slow, slow, quick, quick]


async def test_a_turn_does_not_run_after_a_writer_that_never_rests(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    post_chunk, turns = Poster._post_chunk, iter(range(20))

    async def busy(poster: Poster, path: Path, position: int, chunk: Chunk) -> int:
        if next(turns, None) is not None:
            journal.append(settlement())
        return await post_chunk(poster, path, position, chunk)

    monkeypatch.setattr(Poster, "_post_chunk", busy)
    async with books(postgres_url, tmp_path) as it:
        journal = it.journal()
        journal.append(settlement())
        for turn in range(1, 4):
            await it.poster.post()
            assert it.poster.figures.posted == turn, "what was written meanwhile is left to the next turn"
        journal.close()


async def test_records_that_come_while_posting_are_all_posted(postgres_url: str, tmp_path: Path) -> None:
    async with books(postgres_url, tmp_path) as it:
        journal = Journal(tmp_path, 0.0, max_file_bytes=100_000)
        records = [settlement(cost=1) for _ in range(5_000)]
        writer = threading.Thread(target=lambda: [journal.append(record) for record in records])
        writer.start()
        while writer.is_alive():
            await it.poster.post()
        journal.close()
        await it.poster.post()
        assert await it.attempts() == [record.call_id for record in records]
        assert it.poster.figures.set_aside == 0 and list(tmp_path.iterdir()) == []
        assert await it.total() == (Decimal("0.000000005"), 5_000, 500_000, 250_000)


async def until(condition: object) -> None:
    async with asyncio.timeout(10):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.005)


async def test_who_asked_is_told_of_a_journal_while_it_is_still_there(postgres_url: str, tmp_path: Path) -> None:
    told: list[tuple[str, bool]] = []
    async with asyncpg.create_pool(postgres_url, min_size=1, max_size=2) as pool:
        poster = Poster(pool, tmp_path, lambda path: told.append((path.name, path.exists())))
        journal = Journal(tmp_path, 1_700_000_000.0)
        journal.append(settlement(call_id="a-1"))
        await poster.post()
        assert told == []
        (path,) = tmp_path.glob("*.journal")
        journal.close()
        await poster.post()
    assert told == [(path.name, True)]
    assert not path.exists()
