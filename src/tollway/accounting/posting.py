"""Moves settlements from the journals into PostgreSQL: each once, whatever dies in between.

1. Entries, what they add up to and the file's position change in one transaction; the ledger itself adds up. A repeat
   after a lost answer finds the position moved; one after a restored backup finds the entries there by their names.
2. A journal is removed only when its writer is gone, all of it is posted, and what was under way in it is entered.
3. What cannot be posted (a damaged piece, a value that PostgreSQL refuses) is set aside in a file beside the journal
   before the position passes it, and holds up nothing else. So is what began in months that are forgotten: nobody can
   tell any more whether it was posted.
4. What the database knows of a file's position counts, not what is remembered: it may be another one by now, which
   lacks the last commits.
"""

import asyncio
import contextlib
import logging
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import asyncpg
import msgspec

from tollway.accounting.aside import Aside
from tollway.accounting.batches import (
    AlreadyThereError,
    Batch,
    MonthsChangedError,
    RefusedError,
    months,
    post_batch,
)
from tollway.accounting.drafts import remove_drafts
from tollway.accounting.journal import SUFFIX
from tollway.accounting.journal_reader import Chunk, is_abandoned, read_records
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

_TRIES = 4
"""Of a transaction, while months are made and forgotten or some of its entries are there."""

_log = logging.getLogger(__name__)

_DAMAGED = "they are damaged"
_FORGOTTEN = "they began in months whose entries are forgotten, and may have been posted before"

_MAKE_MONTH = "SELECT tollway.ledger_partition($1)"
_ENTERED_AS = "SELECT call_id, attempt FROM tollway.ledger WHERE call_id = ANY($1) AND outcome = $2"
_POSITION = "SELECT position FROM tollway.journal_positions WHERE file = $1"
_FORGET = "DELETE FROM tollway.journal_positions WHERE file = $1"
_FORGET_STRAYS = """
DELETE FROM tollway.journal_positions WHERE updated_at < now() - interval '100 days' AND file <> ALL($1)
"""
_IN_THE_WAY = """
SELECT DISTINCT format('process %s of %s (%s)', a.pid, a.usename, a.application_name)
FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.relation IN ('tollway.key_totals'::regclass, 'tollway.ledger'::regclass) AND l.granted
    AND l.mode <> 'AccessShareLock' AND a.pid <> pg_backend_pid()
LIMIT 5
"""


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
        self._odd: set[str] = set()  # names in the directory that are no journals', and have been told
        self._aside = Aside()
        self._delivered = directory / f"delivered-{os.getpid()}-{os.urandom(4).hex()}"  # no file, but a name to claim
        self._before_removal = before_removal
        """Told of each journal that is done for good, while it is still there."""
        self._beside = beside
        """Told of settlements that are in the ledger and stand in no journal."""
        self.figures = PostingFigures()

    async def run(self) -> None:
        """Post whatever comes, until cancelled; a cancelled batch is rolled back and loses nothing."""
        pause_s = TAIL_INTERVAL_S
        tidy = False
        while True:
            posted = self.figures.posted
            try:
                await self.post()
                if not tidy:
                    await self._tidy()
                    tidy = True
            except Exception as error:  # whatever it is, asyncpg has many: posting must go on when it is over
                await self._note_failure(error)
                pause_s = min(pause_s * 2, MAX_PAUSE_S)
            else:
                if self.figures.away:
                    _log.info("settlements are posted again")
                self.figures.away = False
                pause_s = BUSY_INTERVAL_S if self.figures.posted - posted >= BUSY_ENTRIES else TAIL_INTERVAL_S
            self._aside.turn()
            # Not all gateways at the same moment, when the database is back.
            await asyncio.sleep(pause_s * random.uniform(0.5, 1) if self.figures.away else pause_s)  # noqa: S311

    async def _note_failure(self, error: Exception) -> None:
        if not self.figures.away:
            who = await self._in_the_way() if isinstance(error, asyncpg.LockNotAvailableError) else ""
            _log.warning("settlements wait in their journals, %s: %r%s", _why(error), error, who)
        self.figures.away = True
        if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
            await self._pool.expire_connections()  # or they would stay with the server that was demoted

    async def _in_the_way(self) -> str:
        """Whose open transactions have changed totals."""
        try:
            rows = await self._pool.fetch(_IN_THE_WAY)
        except Exception as error:  # it is only told
            return f"; whose it is cannot be seen: {error!r}"
        return f"; in the way may be: {', '.join(row[0] for row in rows)}" if rows else ""

    async def _tidy(self) -> None:
        """Remove what processes left that died at an odd moment."""
        remove_drafts(self._directory)
        await self._pool.execute(_FORGET_STRAYS, [path.name for path in self._directory.glob(f"[!.]*{SUFFIX}")])

    async def post(self) -> None:
        """Post all that the journals hold now, and remove those that are done for good.

        Raises what asyncpg raises while PostgreSQL is away: nothing is lost, call again.
        """
        failed: Exception | None = None
        behind_bytes = 0
        for path in filter(self._is_journal, sorted(self._directory.glob(f"[!.]*{SUFFIX}"))):
            with contextlib.suppress(FileNotFoundError):  # another poster was quicker
                try:
                    await self._post_journal(path)
                except Exception as error:  # the other journals may fare better
                    failed = error if path.exists() else failed
                behind_bytes += path.stat().st_size - self._positions.get(path.name, 0)
        self.figures.behind_bytes = behind_bytes
        if failed is not None:
            raise failed

    def _is_journal(self, path: Path) -> bool:
        """Whether it can be read at all; what cannot is told once and passed over."""
        if path.is_file() and os.access(path, os.R_OK):
            return True
        if path.name not in self._odd and path.exists():
            _log.error("%s is no file that can be read; it is passed over", path)
            self._odd.add(path.name)
        return False

    async def _post_journal(self, path: Path) -> None:
        abandoned = is_abandoned(path)  # asked before reading: what is read afterwards is all there will be
        position = await self._post_from(path, self._positions.get(path.name, 0), abandoned)
        while abandoned:
            await self._enter_lost(path, position)
            known: int = await self._pool.fetchval(_POSITION, path.name) or 0
            if known == position:
                break
            position = await self._post_from(path, known, abandoned)
        if abandoned:
            if self._before_removal is not None:
                self._before_removal(path)
            path.unlink()  # noqa: ASYNC240 - as short as the reads
            await self._pool.execute(_FORGET, path.name)
            self._positions.pop(path.name, None)

    async def _post_from(self, path: Path, position: int, abandoned: bool) -> int:
        """Post all that follows now; up to where.

        What is written meanwhile is left to the next turn: whoever ran after a busy writer would post a few entries at
        a time without end, and a transaction costs as much as a hundred of them.
        """
        end = path.stat().st_size  # noqa: ASYNC240 - as short as the reads
        while position < end and (chunk := read_records(path, position, abandoned=abandoned)).position != position:
            position = await self._post_chunk(path, position, chunk)
            self._positions[path.name] = position
        return position

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
        except RefusedError as error:
            if len(chunk.records) > 1:
                return await self._post_halves(path, position, chunk)
            aside = [*chunk.damaged, *map(_with_names, chunk.records)]
            return await self._commit(path, position, [], chunk.position, aside, f"PostgreSQL refuses: {error}")

    async def _post_halves(self, path: Path, position: int, chunk: Chunk) -> int:
        """The batch holds poison: halve it until that is alone."""
        half = len(chunk.records) // 2
        middle = chunk.ends[half - 1]
        first = Chunk(chunk.records[:half], chunk.ends[:half], middle, chunk.damaged)
        second = Chunk(chunk.records[half:], chunk.ends[half:], chunk.position, [])
        reached = await self._post_chunk(path, position, first)
        return await self._post_chunk(path, middle, second) if reached == middle else reached

    async def _commit(
        self,
        path: Path,
        position: int,
        records: Sequence[Record],
        following: int,
        aside: Sequence[bytes],
        why: str = _DAMAGED,
    ) -> int:
        """Post the records and move the position in one transaction; returns where to read on."""
        settlements = [record for record in records if isinstance(record, Settlement)]
        cards = {record.price_id: record.rates for record in records if isinstance(record, PriceCard)}
        batch = Batch(path.name, position, following, settlements, cards)
        await self._make_months(settlements)
        again = False
        for _ in range(_TRIES):
            try:
                return await self._transact(path, batch, aside, why, again=again)
            except AlreadyThereError:
                again = True
            except MonthsChangedError as error:
                _log.info("the ledger's months changed meanwhile: %r", error)
        raise MonthsChangedError

    async def _transact(self, path: Path, batch: Batch, aside: Sequence[bytes], why: str, *, again: bool) -> int:
        async with asyncio.timeout(BATCH_TIMEOUT_S), self._pool.acquire() as connection, connection.transaction():
            posted = await post_batch(connection, batch, again=again)
            if isinstance(posted, int):
                return posted
            self._aside.keep(path, aside, why)
            self._aside.keep(path, [*map(_with_names, posted.late)], _FORGOTTEN)
        self.figures.posted += posted.new
        self.figures.set_aside += len(aside) + len(posted.late)
        return batch.following

    async def _make_months(self, settlements: Sequence[Settlement]) -> None:
        """See to it that the ledger has the tables of their months; without them entries go to its default.

        Whatever keeps a table from being made keeps no entry from being posted.
        """
        for month in months(settlements) - self._months:
            async with self._pool.acquire() as connection:
                try:
                    await connection.execute(_MAKE_MONTH, date(*month, 1))
                except (asyncpg.PostgresError, TimeoutError) as error:
                    if connection.is_closed():
                        raise  # it is not the month
                    _log.info("the ledger's table for %d-%02d has to wait: %r", *month, error)
            self._months.add(month)


def _with_names(record: Record) -> bytes:
    """As a person may read it."""
    return msgspec.json.encode(msgspec.structs.asdict(record))


def _why(error: Exception) -> str:
    """What somebody has to look after."""
    match error:
        case asyncpg.ReadOnlySQLTransactionError():
            return "PostgreSQL takes no writes (is it a standby now?)"
        case asyncpg.DiskFullError():
            return "PostgreSQL's disk is full"
        case asyncpg.TooManyConnectionsError():
            return "PostgreSQL has no connection left for us"
        case asyncpg.LockNotAvailableError():
            return "somebody holds a lock on the ledger or its totals"
        case _:
            return "PostgreSQL takes none"
