"""What it costs to post a full journal: CPU of the poster and of PostgreSQL for each entry, and the disk it takes."""

import asyncio
import random
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import asyncpg

from bench import processes
from bench.report import TOLLWAY, Measure
from bench.run import Run
from tollway.accounting.journal import Journal
from tollway.accounting.posting import Poster
from tollway.accounting.records import Settlement
from tollway.store.embedded import EmbeddedPostgres
from tollway.store.migrate import migrate
from tollway.store.postgres import create_pool

_ENTRIES_FOR_EACH_LOAD_S = 66_667  # 200,000 in a full run
_MODELS = ("gpt-4.1-mini", "gpt-4o", "gpt-5.5", "o3", "mistral-small-latest")
_PER_S = 5_000.0
"""Calls a second of the load that the journal is from."""

_SIZES = """
SELECT sum(pg_total_relation_size(c.oid)) FILTER (WHERE c.relname ~ '^ledger'),
    sum(pg_total_relation_size(c.oid)) FILTER (WHERE c.relname ~ '^(usage|key_totals)')
FROM pg_class c WHERE c.relnamespace = 'tollway'::regnamespace AND c.relkind = 'r'
"""


@dataclass(frozen=True, slots=True)
class _Found:
    poster_us: float
    postgres_us: float
    entry_bytes: float
    sums_bytes: float


def posting(run: Run) -> list[Measure]:
    """A few keys that ask for much, and so many that hardly two entries of a batch are of the same one."""
    measures = []
    for keys in (20, 10_000):
        run.say(f"  {keys:,} keys")
        found = asyncio.run(_post(keys, run.lengths.load_s * _ENTRIES_FOR_EACH_LOAD_S))
        rows = (
            ("CPU per entry, poster", "µs", found.poster_us),
            ("CPU per entry, PostgreSQL", "µs", found.postgres_us),
            ("disk per entry, with its index", "bytes", found.entry_bytes),
            ("disk per entry, its share of sums", "bytes", found.sums_bytes),
        )
        measures += [Measure(f"{what}, {keys:,} keys", unit, {TOLLWAY: [value]}) for what, unit, value in rows]
    return measures


async def _post(keys: int, entries: int) -> _Found:
    with TemporaryDirectory(prefix="tollway-posting-") as folder:
        home = Path(folder)
        server = EmbeddedPostgres(home)
        url = await server.start()
        try:
            connection = await asyncpg.connect(url)
            await migrate(connection)
            _write(home / "journals", keys, entries)
            await connection.execute("CHECKPOINT")
            pool = await create_pool(url, "bench")
            poster = Poster(pool, home / "journals")
            postgres = processes.Family(int((home / "postgres" / "postmaster.pid").read_text().split()[0]))
            before, begun = postgres.cpu_s(), time.process_time()
            await poster.post()
            await connection.execute("CHECKPOINT")  # a part of the price
            poster_s, postgres_s = time.process_time() - begun, postgres.cpu_s() - before
            if poster.figures.posted != entries:
                raise processes.BenchError(f"{poster.figures.posted} of {entries} entries were posted")
            entry_bytes, sums_bytes = await connection.fetchrow(_SIZES)
            pool.terminate()
            await connection.close()
        finally:
            await server.stop()
    return _Found(
        poster_s / entries * 1e6, postgres_s / entries * 1e6, int(entry_bytes) / entries, int(sums_bytes) / entries
    )


def _write(directory: Path, keys: int, entries: int) -> None:
    """A journal whose writer is gone."""
    directory.mkdir()
    chance, now = random.Random(1), time.time()
    journal = Journal(directory, now, max_file_bytes=2**40)
    for number in range(entries):
        model = chance.choice(_MODELS)
        journal.append(
            Settlement(
                call_id=f"req_{int(now):08x}a1b2c3d4e5{number:08x}",
                attempt=1,
                key_id=f"key_{chance.randrange(keys):016}",
                model=model,
                provider="openai",
                upstream_model=model,
                operation="chat/completions",
                stream=True,
                started_unix=now + number / _PER_S,
                duration_ms=chance.random() * 2000,
                first_byte_ms=chance.random() * 300,
                status=200,
                outcome="ok",
                state="exact",
                input=chance.randrange(5000),
                cache_read=chance.randrange(5000),
                output=chance.randrange(1000),
                reasoning=0,
                cost=chance.randrange(10**10),
                scale=12,
                priced=True,
                charged=True,
                price_id=2**62 + 1,
                revision=12_345,
            )
        )
    journal.close()
