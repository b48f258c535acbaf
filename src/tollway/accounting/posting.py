"""Moves settlements from the journals into PostgreSQL: each once, whatever dies in between.

1. Entries, what they add up to and the file's position change in one transaction; the ledger itself adds up. A repeat
   after a lost answer finds the position moved; one after a restored backup finds the entries there by their names.
2. A journal is removed only when its writer is gone, all of it is posted, and what was under way in it is entered.
3. What cannot be posted (a damaged piece, a value that PostgreSQL refuses) is set aside in a file beside the journal
   before the position passes it, and holds up nothing else.
"""

import asyncio
import contextlib
import logging
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg
import msgspec

from tollway.accounting.journal import SUFFIX
from tollway.accounting.journal_reader import Chunk, is_abandoned, read_records
from tollway.accounting.ledger_rows import COLUMNS, lines_of, months_of
from tollway.accounting.open_attempts import LOST, lost_attempts
from tollway.accounting.records import PriceCard, Record, Settlement

TAIL_INTERVAL_S = 0.25
"""How often the journals are looked at; totals are promised within two seconds."""

BUSY_INTERVAL_S = 1.0
"""… while there is much to post: the fewer transactions, the less each entry costs."""

BUSY_ENTRIES = 500
"""Entries of one turn that are much."""

MAX_PAUSE_S = 5.0
"""The longest pause between attempts while PostgreSQL is away."""

_LOST_AT_ONCE = 1000  # entries in a transaction

BATCH_TIMEOUT_S = 30.0
"""A transaction that takes longer is given up with its connection, and tried again."""

_log = logging.getLogger(__name__)

_POISON = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, ValueError, TypeError, OverflowError)

_LATER = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError, asyncpg.InsufficientPrivilegeError)
"""Why a month's table may have to wait."""

_MAX_SILENCE = "10s"
"""A poster that is stopped in the middle of a transaction holds up all others for so long at most."""

_MAKE_MONTH = "SELECT tollway.ledger_partition($1)"
_LIST = ", ".join(COLUMNS)
_STAGE = "tollway_posting"

_CLAIM = """
WITH limits AS (SELECT set_config('idle_in_transaction_session_timeout', $2, true))
INSERT INTO tollway.journal_positions AS p (file, position) SELECT $1, 0 FROM limits
ON CONFLICT (file) DO UPDATE SET updated_at = now()
RETURNING p.position
"""
_KEEP_CARDS = """
INSERT INTO tollway.price_cards (id, rates)
SELECT id, rates::jsonb FROM unnest($1::bigint[], $2::text[]) AS card (id, rates) ORDER BY id
ON CONFLICT (id) DO NOTHING
"""
_CREATE_STAGE = f"""
CREATE TEMPORARY TABLE IF NOT EXISTS {_STAGE} ON COMMIT DELETE ROWS AS
SELECT {_LIST} FROM tollway.ledger WITH NO DATA
"""  # noqa: S608 - only constants of this module
_POST_STAGED = f"INSERT INTO tollway.ledger ({_LIST}) SELECT {_LIST} FROM {_STAGE} ON CONFLICT DO NOTHING"  # noqa: S608
_ADVANCE = "UPDATE tollway.journal_positions SET position = $2, updated_at = now() WHERE file = $1"
_ENTERED_AS = "SELECT call_id, attempt FROM tollway.ledger WHERE call_id = ANY($1) AND outcome = $2"
_FORGET = "DELETE FROM tollway.journal_positions WHERE file = $1"


_Put: TypeAlias = Callable[[asyncpg.Connection, bytes], Awaitable[int]]


@dataclass(slots=True)
class PostingFigures:
    """What the metrics show."""

    posted: int = 0
    """Entries that are new in the ledger."""
    set_aside: int = 0
    """Records and damaged pieces that could not be posted."""
    lost: int = 0
    """Attempts that were entered by estimate, because their worker died."""
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
        beside: Callable[[Sequence[Settlement]], None] | None = None,
    ) -> None:
        self._pool = pool
        self._directory = directory
        self._positions: dict[str, int] = {}
        self._months: set[tuple[int, int]] = set()  # that have been asked for
        self._delivered = directory / f"delivered-{os.getpid()}-{os.urandom(4).hex()}"  # no file, but a name to claim
        self._before_removal = before_removal
        """Told of each journal that is done for good, while it is still there."""
        self._beside = beside
        """Told of settlements that are in the ledger and stand in no journal."""
        self.figures = PostingFigures()

    async def run(self) -> None:
        """Post whatever comes, until cancelled; a cancelled batch is rolled back and loses nothing."""
        pause_s = TAIL_INTERVAL_S
        while True:
            posted = self.figures.posted
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
                pause_s = BUSY_INTERVAL_S if self.figures.posted - posted >= BUSY_ENTRIES else TAIL_INTERVAL_S
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
            await self._enter_lost(path, position)
            if self._before_removal is not None:
                self._before_removal(path)
            path.unlink()  # noqa: ASYNC240 - as short as the reads
            await self._pool.execute(_FORGET, path.name)
            self._positions.pop(path.name, None)

    async def _enter_lost(self, path: Path, position: int) -> None:
        """Enter what was under way when the writer of a journal died, which is read up to its end."""
        found = await lost_attempts(path)
        for start in range(0, len(found), _LOST_AT_ONCE):
            some: list[Record] = [*found[start : start + _LOST_AT_ONCE]]
            await self._post_chunk(path, position, Chunk(some, [position] * len(some), position, []))
        if lost := await self._lost_of(found):
            self._tell_beside(lost)
            self.figures.lost += len(lost)
            _log.warning("a worker died with %d attempts under way: they are entered by estimate", len(lost))

    async def _lost_of(self, found: Sequence[Settlement]) -> list[Settlement]:
        """Those that the ledger has as lost; it may have known better, from a delivery."""
        if not found:
            return []
        rows = await self._pool.fetch(_ENTERED_AS, [one.call_id for one in found], LOST)
        names = {(row["call_id"], row["attempt"]) for row in rows}
        return [one for one in found if (one.call_id, one.attempt) in names]

    async def enter(self, records: Sequence[Record]) -> None:
        """Post records that stand in no journal, or find out whether PostgreSQL would take any. Once, as all others.

        Raises what asyncpg raises: then none may be posted, some, or all; call it again.
        """
        await self._post_chunk(self._delivered, 0, Chunk([*records], [0] * len(records), 0, []))
        await self._pool.execute(_FORGET, self._delivered.name)
        self._tell_beside([record for record in records if isinstance(record, Settlement)])

    def _tell_beside(self, settlements: Sequence[Settlement]) -> None:
        if self._beside is not None:
            self._beside(settlements)

    async def _post_chunk(self, path: Path, position: int, chunk: Chunk) -> int:
        try:
            return await self._commit(path, position, chunk.records, chunk.position, chunk.damaged)
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
        self, path: Path, position: int, records: Sequence[Record], following: int, aside: Sequence[bytes]
    ) -> int:
        """Post the records and move the position in one transaction; returns where to read on."""
        settlements = [record for record in records if isinstance(record, Settlement)]
        lines = lines_of(settlements)
        cards = {record.price_id: record.rates for record in records if isinstance(record, PriceCard)}
        await self._make_months(settlements)

        async def transaction(put: _Put) -> int:
            async with asyncio.timeout(BATCH_TIMEOUT_S), self._pool.acquire() as connection, connection.transaction():
                known: int = await connection.fetchval(_CLAIM, path.name, _MAX_SILENCE)
                if known != position:
                    return known  # another poster was here, or this one before it was restarted
                if cards:
                    await connection.execute(_KEEP_CARDS, [*cards], [*cards.values()])
                posted = await put(connection, lines) if lines else 0
                await connection.execute(_ADVANCE, path.name, following)
                if aside:
                    _set_aside(path.with_suffix(".aside"), aside)
            self.figures.posted += posted
            self.figures.set_aside += len(aside)
            return following

        try:
            return await transaction(_put)
        except asyncpg.UniqueViolationError:
            return await transaction(_put_missing)

    async def _make_months(self, settlements: Sequence[Settlement]) -> None:
        """See to it that the ledger has the tables of their months; without them entries go to its default."""
        for month in months_of(settlements) - self._months:
            try:
                await self._pool.execute(_MAKE_MONTH, date(*month, 1))
            except _LATER as error:
                _log.info("the ledger's table for %d-%02d has to wait: %s", *month, error)
            self._months.add(month)


async def _put(connection: asyncpg.Connection, lines: bytes) -> int:
    """Add entries, of which none may be there."""
    return _count(await connection.copy_to_table("ledger", schema_name="tollway", **_as_lines(lines)))


async def _put_missing(connection: asyncpg.Connection, lines: bytes) -> int:
    """Add those that are not there yet; it takes twice as long."""
    await connection.execute(_CREATE_STAGE)
    await connection.copy_to_table(_STAGE, **_as_lines(lines))
    return _count(await connection.execute(_POST_STAGED))


def _as_lines(lines: bytes) -> dict[str, Any]:
    """The driver's arguments for a COPY of them."""

    async def source() -> AsyncIterator[bytes]:
        yield lines

    return {"source": source(), "columns": COLUMNS, "format": "text", "null": ""}


def _count(status: str) -> int:
    """How many rows a command wrote, by what the server says of it: ``COPY 7``, ``INSERT 0 7``."""
    return int(status.rpartition(" ")[2])


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
