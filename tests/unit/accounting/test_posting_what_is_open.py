"""The poster on a real PostgreSQL, with what stands in no journal as a settlement."""

import os
from decimal import Decimal
from pathlib import Path

import asyncpg
import pytest

from fakes.settlements import PRICE, intent_of, settlement
from tollway.accounting.journal import Journal
from tollway.accounting.posting import Poster
from tollway.accounting.records import Checkpoint, PriceCard, Settlement
from tollway.domain.prices import rates_json


async def entries(pool: asyncpg.Pool) -> list[tuple[object, ...]]:
    rows = await pool.fetch("SELECT call_id, outcome, state, cost FROM tollway.ledger ORDER BY call_id")
    return [tuple(row) for row in rows]


def dies(journal: Journal) -> Path:
    """``kill -9``: the system closes its file; where that lies."""
    os.close(journal._file)
    return journal._path


async def test_what_a_dead_worker_left_open_is_entered_though_the_poster_is_past_it(
    postgres_url: str, tmp_path: Path
) -> None:
    async with asyncpg.create_pool(postgres_url, min_size=1, max_size=4) as pool:
        journal = Journal(tmp_path, 0.0)
        ended = settlement(call_id="req_b", cost=7, scale=12)
        for record in (settlement(call_id="req_a"), ended):
            journal.intend(intent_of(record, PRICE.id), PRICE)
        journal.append(ended)
        await Poster(pool, tmp_path).post()
        poster = Poster(pool, tmp_path)
        journal.note([Checkpoint("req_a", 1, 0.0, 200, None, 50)])
        await poster.post()
        assert [row[0] for row in await entries(pool)] == ["req_b"], "its worker lives"
        path = dies(journal)
        kept = path.read_bytes()
        await poster.post()
        booked = [
            ("req_a", "lost", "estimated", Decimal("0.0002")),
            ("req_b", "ok", "exact", Decimal("0.000000000007")),
        ]
        assert await entries(pool) == booked
        assert not path.exists() and poster.figures.lost == 1
        path.write_bytes(kept)  # from a backup
        await poster.post()
        assert await entries(pool) == booked
        assert await pool.fetchval("SELECT count(*) FROM tollway.journal_positions") == 0


async def test_what_was_delivered_is_posted_once_with_its_rates(postgres_url: str, tmp_path: Path) -> None:
    """Its intent is on the disk, and its settlement never came there."""
    async with asyncpg.create_pool(postgres_url, min_size=1, max_size=4) as pool:
        told: list[Settlement] = []
        poster, journal = Poster(pool, tmp_path, beside=told.extend), Journal(tmp_path, 0.0)
        record = settlement(call_id="req_a", cost=7, scale=12, price_id=PRICE.id)
        journal.intend(intent_of(record, PRICE.id), PRICE)
        card = PriceCard(PRICE.id, rates_json(PRICE.rates).decode())
        for _ in range(2):
            await poster.enter([card, record])
        booked = [("req_a", "ok", "exact", Decimal("0.000000000007"))]
        assert await entries(pool) == booked
        assert await pool.fetchval("SELECT count(*) FROM tollway.price_cards WHERE id = $1", PRICE.id) == 1
        dies(journal)
        await poster.post()
        assert await entries(pool) == booked
        assert await pool.fetchval("SELECT count(*) FROM tollway.journal_positions") == 0
        assert list(tmp_path.iterdir()) == []
        assert told == [record] * 2 and poster.figures.lost == 0


async def test_what_is_delivered_and_refused_is_set_aside_alone(postgres_url: str, tmp_path: Path) -> None:
    async with asyncpg.create_pool(postgres_url, min_size=1, max_size=4) as pool:
        poison = settlement(call_id="req_b", revision=2**70)
        await Poster(pool, tmp_path).enter([settlement(call_id="req_a"), poison, settlement(call_id="req_c")])
        assert [row[0] for row in await entries(pool)] == ["req_a", "req_c"]
        (aside,) = tmp_path.glob("*.aside")
        assert b"req_b" in aside.read_bytes()


async def test_that_nothing_is_delivered_finds_out_whether_postgresql_takes_entries(
    postgres_url: str, tmp_path: Path
) -> None:
    read_only = {"default_transaction_read_only": "on"}
    async with asyncpg.create_pool(postgres_url, min_size=1, max_size=1) as pool:
        await Poster(pool, tmp_path).enter([])
    async with asyncpg.create_pool(postgres_url, min_size=1, max_size=1, server_settings=read_only) as standby:
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await Poster(standby, tmp_path).enter([])
