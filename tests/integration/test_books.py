"""Totals, roll-ups and entries agree, whoever inserts, dies, repeats, and whatever the clocks say."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import combinations
from pathlib import Path

import asyncpg
import pytest

from fakes.connections import connected
from fakes.settlements import settlement
from tollway.accounting.journal import Journal
from tollway.accounting.posting import Poster
from tollway.accounting.records import Settlement
from tollway.controlplane.retention import Retention
from tollway.domain.money import to_decimal
from tollway.store import ledger
from tollway.store.ledger_check import differences
from tollway.store.usage import EVER, Dimension, Used, total_of, usage

DAY_S = 86_400.0


def records(count: int, chance: random.Random) -> list[Settlement]:
    """Attempts of a few keys, by clocks of which some jump."""
    now = time.time()
    found = []
    for number in range(count):
        odd = chance.choice([None] * 8 + [0.0, 4_102_444_800.0])
        charged = chance.random() < 0.8
        found.append(
            settlement(
                attempt=chance.choice([1, 1, 2]),
                key_id=f"key_{chance.randrange(5)}",
                model=chance.choice(["a", "b", ""]),
                provider=chance.choice(["openai", "mistral"]),
                started_unix=now - chance.random() * 70 * DAY_S if odd is None else odd + number,
                charged=charged,
                cost=chance.randrange(10**15) if charged else 0,
                scale=chance.choice([12, 20]),
                priced=chance.random() < 0.9,
                state=chance.choice(["exact", "estimated", "partial"]),
                doubt=chance.choice(["", "zeros"]),
            )
        )
    return found


@asynccontextmanager
async def pool_of(url: str) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(url, min_size=0, max_size=8) as pool:
        yield pool


async def kill_some(url: str, chance: random.Random, stop: asyncio.Event) -> None:
    """End the server's processes of posters, at any moment of their work."""
    async with connected(url) as psql:
        while not stop.is_set():
            await psql.execute(
                """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid() AND random() < 0.3"""
            )
            await asyncio.sleep(chance.random() * 0.02)


@pytest.mark.parametrize("seed", range(3))
async def test_the_books_agree_after_any_interleaving_of_posters(postgres_url: str, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    written = records(400, chance)
    repeated = chance.sample(written, 60)
    stop = asyncio.Event()
    async with pool_of(postgres_url) as pool:
        killer = asyncio.create_task(kill_some(postgres_url, chance, stop))
        journals = [Journal(tmp_path, float(number)) for number in range(3)]
        for number, record in enumerate([*written, *repeated]):
            chance.choice(journals).append(record)
            if number % 40 == 0:
                await post_as_it_goes([Poster(pool, tmp_path) for _ in range(3)], chance)
        for journal in journals:
            journal.close()
        stop.set()
        await killer
        await pool.expire_connections()
        await Poster(pool, tmp_path).post()
        assert list(tmp_path.glob("*")) == []
    async with connected(postgres_url) as psql:
        assert await differences(psql) == []
        assert await psql.fetchval("SELECT count(*) FROM tollway.ledger") == len(written)
        assert await psql.fetchval("SELECT sum(total_cost) FROM tollway.key_totals") == cost_of(written)


async def post_as_it_goes(posters: Sequence[Poster], chance: random.Random) -> None:
    """Have them post at once; some fail, some are cancelled in the middle."""
    tasks = [asyncio.create_task(poster.post()) for poster in posters]
    await asyncio.sleep(chance.random() * 0.03)
    for task in chance.sample(tasks, 1):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def cost_of(written: Sequence[Settlement]) -> Decimal:
    return sum((to_decimal(one.cost, one.scale) for one in written if one.charged), Decimal(0))


@asynccontextmanager
async def filled(url: str, directory: Path) -> AsyncIterator[tuple[asyncpg.Connection, list[Settlement]]]:
    written = records(600, random.Random(7))
    async with pool_of(url) as pool:
        journal = Journal(directory, 0.0)
        for record in written:
            journal.append(record)
        journal.close()
        await Poster(pool, directory).post()
    async with connected(url) as psql:
        yield psql, written


SUMS = """
SELECT count(*) FILTER (WHERE attempt = 1), count(*) FILTER (WHERE charged), count(*),
    sum(input_tokens * charged::int), sum(cached_input_tokens * charged::int), sum(output_tokens * charged::int),
    sum(reasoning_tokens * charged::int), trim_scale(sum(cost * charged::int)),
    count(*) FILTER (WHERE charged AND NOT priced), count(*) FILTER (WHERE charged AND state = 'estimated'),
    count(*) FILTER (WHERE charged AND doubt = 'zeros')
FROM tollway.ledger WHERE started_at >= $1 AND started_at < $2 AND ($3::text IS NULL OR key_id = $3)
"""
GROUPS = {
    Dimension.DAY: "(started_at AT TIME ZONE 'UTC')::date::text",
    Dimension.KEY: "key_id",
    Dimension.MODEL: "COALESCE(model, '')",
    Dimension.PROVIDER: "provider",
}


async def test_usage_by_every_dimension_is_what_the_entries_add_up_to(postgres_url: str, tmp_path: Path) -> None:
    this_hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    spans = [
        (datetime(1970, 1, 1, tzinfo=UTC), EVER),
        (this_hour - timedelta(days=30, hours=5), this_hour - timedelta(hours=7)),
        (this_hour - timedelta(hours=3), EVER),
    ]
    async with filled(postgres_url, tmp_path) as (psql, _):
        for count in range(1, 5):
            for by in combinations(Dimension, count):
                groups = ", ".join(GROUPS[one] for one in by)
                for start, end in spans:
                    for key_id in (None, "key_3"):
                        rows = await usage(psql, by, start, end, key_id)
                        statement = SUMS.replace("SELECT", f"SELECT {groups},", 1) + f"GROUP BY {groups}"
                        entries = await psql.fetch(statement, start, end, key_id)
                        expected = {tuple(row[:count]): Used(*row[count:]) for row in map(tuple, entries)}
                        assert {row.of: row.used for row in rows} == expected
                        assert total_of(rows).attempts == sum(one.attempts for one in expected.values())


@pytest.mark.parametrize(
    ("table", "change", "check"),
    [
        ("key_totals", "requests = requests + 1", "totals of keys"),
        ("usage_key_weeks", "cost = cost + 1", "sums by week, key"),
        ("usage_key_days", "estimated = 99", "sums by day, key"),
        ("usage_model_days", "attempts = 0", "sums by day, model and provider"),
        ("usage_hours", "reasoning_tokens = reasoning_tokens + 1", "sums by hour"),
        ("ledger", "doubt = 'tokens'", "sums by hour"),
    ],
)
async def test_a_difference_is_found_where_it_is(
    postgres_url: str, tmp_path: Path, table: str, change: str, check: str
) -> None:
    async with filled(postgres_url, tmp_path) as (psql, _):
        assert await differences(psql) == []
        await psql.execute(f"""
            SET session_replication_role = replica;
            UPDATE tollway.{table} SET {change} WHERE ctid = (SELECT min(ctid) FROM tollway.{table} WHERE key_id <> '')
                OR (key_id = '' AND starts_at = (SELECT min(starts_at) FROM tollway.{table}));
        """ if table.startswith("usage") else f"""
            SET session_replication_role = replica;
            UPDATE tollway.{table} SET {change} WHERE key_id = 'key_1';
        """)  # fmt: skip
        found = await differences(psql)
        assert check in {one.check for one in found}
        assert await differences(psql, "key_nobody") == []


async def test_what_is_older_than_the_retention_is_forgotten_and_its_sums_stay(
    postgres_url: str, tmp_path: Path
) -> None:
    async with filled(postgres_url, tmp_path) as (psql, written), pool_of(postgres_url) as pool:
        before = await usage(psql, list(Dimension), datetime(1970, 1, 1, tzinfo=UTC))
        totals = await psql.fetch("SELECT * FROM tollway.key_totals ORDER BY key_id")
        clock = datetime.now(UTC)
        await Retention(pool, None).turn()
        assert await psql.fetchval("SELECT count(*) FROM tollway.ledger") == len(written)
        await Retention(pool, 20).turn()
        limit = (clock - timedelta(days=20)).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        kept = [one for one in written if datetime.fromtimestamp(one.started_unix, UTC) >= limit]
        assert len(kept) < len(written)
        assert await psql.fetchval("SELECT count(*) FROM tollway.ledger") == len(kept)
        assert await usage(psql, list(Dimension), datetime(1970, 1, 1, tzinfo=UTC)) == before
        assert await psql.fetch("SELECT * FROM tollway.key_totals ORDER BY key_id") == totals
        assert await differences(psql) == []


async def test_a_month_is_made_before_it_begins(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with pool_of(postgres_url) as pool:
        now = datetime.now(UTC)
        following = (now.replace(day=1) + timedelta(days=32)).replace(day=1)
        monkeypatch.setattr(ledger, "_DAYS_AHEAD", (following - now).days)
        await Retention(pool, None).turn()
        months = {f"ledger_{day:%Y_%m}" for day in (now, following)}
        assert {row["table_name"] for row in await pool.fetch("SELECT table_name FROM tollway.ledger_months")} == months


async def test_retention_goes_on_after_somebody_held_the_ledger(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tollway.controlplane.retention._AGAIN_S", 0.005)
    async with filled(postgres_url, tmp_path) as (reader, written), pool_of(postgres_url) as pool:
        await pool.execute("ALTER FUNCTION tollway.prune_ledger SET lock_timeout = '5ms'")
        retention = Retention(pool, 1)
        async with reader.transaction():
            await reader.execute("SELECT FROM tollway.ledger")
            with pytest.raises(asyncpg.LockNotAvailableError):
                await retention.turn()
            work = asyncio.create_task(retention.run())
            await asyncio.sleep(0.05)  # some turns in vain
        async with asyncio.timeout(5):
            while await reader.fetchval("SELECT count(*) FROM tollway.ledger") == len(written):
                await asyncio.sleep(0.01)
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work
