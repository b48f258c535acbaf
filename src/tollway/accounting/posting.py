"""Moves settlements from the journals into PostgreSQL: each once, whatever dies in between.

1. Entries, totals and the file's position change in one transaction. A repeat after a lost answer finds the position
   moved; a repeat after a restored backup finds the entries there by their attempt id.
2. A journal is removed only when its writer is gone and all of it is posted.
3. What cannot be posted (a damaged piece, a value that PostgreSQL refuses) is set aside in a file beside the journal
   before the position passes it, and holds up nothing else.
"""

import asyncio
import contextlib
import logging
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import msgspec

from tollway.accounting.journal import SUFFIX, Chunk, is_abandoned, read_records
from tollway.accounting.records import Settlement
from tollway.domain.money import to_decimal

TAIL_INTERVAL_S = 0.25
"""How often the journals are looked at; totals are promised within two seconds."""

MAX_PAUSE_S = 5.0
"""The longest pause between attempts while PostgreSQL is away."""

BATCH_TIMEOUT_S = 30.0
"""A transaction that takes longer is given up with its connection, and tried again."""

_log = logging.getLogger(__name__)

_POISON = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, ValueError, TypeError, OverflowError)

_COLUMNS = (
    "attempt_id",
    "call_id",
    "attempt",
    "key_id",
    "model",
    "provider",
    "upstream_model",
    "started_at",
    "duration_ms",
    "first_byte_ms",
    "status",
    "outcome",
    "stream",
    "state",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cost",
    "priced",
    "charged",
    "revision",
    "cause",
    "operation",
)
_LIST = ", ".join(_COLUMNS)
_STAGE = "tollway_posting"

_CLAIM = """
INSERT INTO tollway.journal_positions AS p (file, position) VALUES ($1, 0)
ON CONFLICT (file) DO UPDATE SET updated_at = now()
RETURNING p.position
"""
_CREATE_STAGE = f"""
CREATE TEMPORARY TABLE IF NOT EXISTS {_STAGE} ON COMMIT DELETE ROWS AS
SELECT {_LIST} FROM tollway.ledger WITH NO DATA
"""  # noqa: S608 - only constants of this module
_POST = f"""
WITH posted AS (
  INSERT INTO tollway.ledger ({_LIST}) SELECT {_LIST} FROM {_STAGE}
  ON CONFLICT (attempt_id) DO NOTHING
  RETURNING key_id, cost, input_tokens, output_tokens, charged
), added AS (
  INSERT INTO tollway.key_totals AS t (key_id, total_cost, requests, input_tokens, output_tokens, updated_at)
  SELECT key_id, sum(cost), count(*), sum(input_tokens), sum(output_tokens), now()
  FROM posted WHERE charged GROUP BY key_id ORDER BY key_id  -- one order for all posters: no deadlock
  ON CONFLICT (key_id) DO UPDATE SET
    total_cost = t.total_cost + excluded.total_cost,
    requests = t.requests + excluded.requests,
    input_tokens = t.input_tokens + excluded.input_tokens,
    output_tokens = t.output_tokens + excluded.output_tokens,
    updated_at = excluded.updated_at
)
SELECT count(*) FROM posted
"""  # noqa: S608 - only constants of this module
_ADVANCE = "UPDATE tollway.journal_positions SET position = $2, updated_at = now() WHERE file = $1"
_FORGET = "DELETE FROM tollway.journal_positions WHERE file = $1"


@dataclass(slots=True)
class PostingFigures:
    """What the metrics show."""

    posted: int = 0
    """Entries that are new in the ledger."""
    set_aside: int = 0
    """Records and damaged pieces that could not be posted."""
    behind_bytes: int = 0
    """What the journals held beyond their positions when they were last looked at."""
    away: bool = False
    """PostgreSQL takes nothing at the moment; the journals grow."""


class Poster:
    """Posts all journals of a directory. Several posters may run at once, on one machine or on many."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        directory: Path,
        before_removal: Callable[[Path], None] | None = None,
    ) -> None:
        self._pool = pool
        self._directory = directory
        self._positions: dict[str, int] = {}
        self._before_removal = before_removal
        """Told of each journal that is done for good, while it is still there."""
        self.figures = PostingFigures()

    async def run(self) -> None:
        """Post whatever comes, until cancelled; a cancelled batch is rolled back and loses nothing."""
        pause_s = TAIL_INTERVAL_S
        while True:
            try:
                await self.post()
            except Exception as error:  # whatever it is, asyncpg has many: posting must go on when it is over
                if not self.figures.away:
                    _log.warning("settlements wait in their journals, %s: %r", _why(error), error)
                self.figures.away = True
                if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
                    await self._pool.expire_connections()  # or they would stay with the server that was demoted
                pause_s = min(pause_s * 2, MAX_PAUSE_S)
            else:
                if self.figures.away:
                    _log.info("settlements are posted again")
                self.figures.away = False
                pause_s = TAIL_INTERVAL_S
            # Not all gateways at the same moment, when the database is back.
            await asyncio.sleep(pause_s * random.uniform(0.5, 1) if self.figures.away else pause_s)  # noqa: S311

    async def post(self) -> None:
        """Post all that the journals hold now, and remove those that are done for good.

        Raises what asyncpg raises while PostgreSQL is away: nothing is lost, call again.
        """
        failed: Exception | None = None
        behind_bytes = 0
        for path in sorted(self._directory.glob(f"[!.]*{SUFFIX}")):
            with contextlib.suppress(FileNotFoundError):  # another poster was quicker
                try:
                    await self._post_journal(path)
                except Exception as error:  # the other journals may fare better
                    failed = error if path.exists() else failed
                behind_bytes += path.stat().st_size - self._positions.get(path.name, 0)
        self.figures.behind_bytes = behind_bytes
        if failed is not None:
            raise failed

    async def _post_journal(self, path: Path) -> None:
        abandoned = is_abandoned(path)  # asked before reading: what is read afterwards is all there will be
        position = self._positions.get(path.name, 0)
        while True:
            chunk = read_records(path, position, abandoned=abandoned)
            if chunk.position == position:
                break
            position = await self._post_chunk(path, position, chunk)
            self._positions[path.name] = position
        if abandoned:
            if self._before_removal is not None:
                self._before_removal(path)
            path.unlink()  # noqa: ASYNC240 - as short as the reads
            await self._pool.execute(_FORGET, path.name)
            self._positions.pop(path.name, None)

    async def _post_chunk(self, path: Path, position: int, chunk: Chunk) -> int:
        try:
            rows = [_row(record) for record in chunk.records]
            return await self._commit(path, position, rows, chunk.position, chunk.damaged)
        except _POISON as error:
            if len(chunk.records) > 1:
                return await self._post_halves(path, position, chunk)
            _log.error("PostgreSQL refuses a settlement: %r", error)
            aside = [*chunk.damaged, msgspec.json.encode(chunk.records)]
            return await self._commit(path, position, [], chunk.position, aside)

    async def _post_halves(self, path: Path, position: int, chunk: Chunk) -> int:
        """The batch holds poison: halve it until that is alone."""
        half = len(chunk.records) // 2
        middle = chunk.ends[half - 1]
        first = Chunk(chunk.records[:half], chunk.ends[:half], middle, chunk.damaged)
        second = Chunk(chunk.records[half:], chunk.ends[half:], chunk.position, [])
        reached = await self._post_chunk(path, position, first)
        return await self._post_chunk(path, middle, second) if reached == middle else reached

    async def _commit(
        self, path: Path, position: int, rows: Sequence[tuple[object, ...]], following: int, aside: Sequence[bytes]
    ) -> int:
        """Post the rows and move the position in one transaction; returns where to read on."""
        async with asyncio.timeout(BATCH_TIMEOUT_S), self._pool.acquire() as connection, connection.transaction():
            known: int = await connection.fetchval(_CLAIM, path.name)
            if known != position:
                return known  # another poster was here, or this one before it was restarted
            posted = 0
            if rows:
                await connection.execute(_CREATE_STAGE)
                await connection.copy_records_to_table(_STAGE, columns=_COLUMNS, records=rows)
                posted = await connection.fetchval(_POST)
            await connection.execute(_ADVANCE, path.name, following)
            if aside:
                _set_aside(path.with_suffix(".aside"), aside)
        self.figures.posted += posted
        self.figures.set_aside += len(aside)
        return following


def _why(error: Exception) -> str:
    """What somebody has to look after."""
    match error:
        case asyncpg.ReadOnlySQLTransactionError():
            return "PostgreSQL takes no writes (is it a standby now?)"
        case asyncpg.DiskFullError():
            return "PostgreSQL's disk is full"
        case asyncpg.TooManyConnectionsError():
            return "PostgreSQL has no connection left for us"
        case _:
            return "PostgreSQL takes none"


def _set_aside(beside: Path, pieces: Sequence[bytes]) -> None:
    """Keep what cannot be posted where a person can look at it."""
    with beside.open("ab") as file:
        file.writelines(piece + b"\n" for piece in pieces)
        file.flush()
        os.fsync(file.fileno())
    size = sum(map(len, pieces))
    _log.error(
        "%d pieces of a journal (%d bytes) cannot be posted, they are set aside in %s", len(pieces), size, beside
    )


def _row(record: Settlement) -> tuple[object, ...]:
    """A row in the order of the columns. Raises ValueError, OverflowError or OSError for a time that is none."""
    scale = record.scale
    usage = record.usage
    return (
        _text(f"{record.call_id}-{record.attempt}"),
        _text(record.call_id),
        record.attempt,
        _text(record.key_id),
        _text(record.model),
        _text(record.provider),
        _text(record.upstream_model),
        datetime.fromtimestamp(record.started_unix, UTC),
        round(record.duration_ms),
        None if record.first_byte_ms is None else round(record.first_byte_ms),
        record.status,
        _text(record.outcome),
        record.stream,
        _text(record.state),
        usage.input_tokens,
        usage.cached_input_tokens,
        usage.output_tokens,
        record.reasoning,
        to_decimal(record.cost, scale),
        record.priced,
        record.charged,
        record.revision,
        _text(record.cause),
        _text(record.operation),
    )


def _text(text: str) -> str:
    """PostgreSQL's text holds everything but NUL."""
    return text.replace("\0", "\ufffd") if "\0" in text else text
