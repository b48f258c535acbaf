"""One transaction of the poster: entries, the rates that they name, and the position of the file that they stand in."""

import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, NamedTuple

import asyncpg

from tollway.accounting.ledger_rows import COLUMNS, lines_of, months_of
from tollway.accounting.records import Settlement

_UNWRITABLE = (ValueError, TypeError, OverflowError)
"""What a record raises of which no line can be made."""

_UNACCEPTABLE = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError)
"""What PostgreSQL says of a record that it never takes."""

_MAX_SILENCE_MS = 10_000
"""A poster that is stopped in the middle of a transaction holds up all others for so long at most."""

_MAX_LOCK_WAIT_MS = 5_000
"""… and somebody who changed a total and did not commit, until the log says who that may be."""

_LIST = ", ".join(COLUMNS)
_STAGE = "tollway_posting"

_FORGOTTEN = "(SELECT COALESCE(extract(epoch FROM pruned_before), '-infinity')::float8 FROM tollway.installation)"
_CLAIM = f"""
WITH limits AS (
    SELECT set_config('idle_in_transaction_session_timeout', $2, true), set_config('lock_timeout', $3, true)
)
INSERT INTO tollway.journal_positions AS p (file, position) SELECT $1, 0 FROM limits
ON CONFLICT (file) DO UPDATE SET updated_at = now()
RETURNING p.position, {_FORGOTTEN}
"""  # noqa: S608 - only constants of this module
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
_ADVANCE = f"""
UPDATE tollway.journal_positions SET position = $2, updated_at = now() WHERE file = $1 RETURNING {_FORGOTTEN}
"""  # noqa: S608 - only constants of this module


class Batch(NamedTuple):
    """What is to be done at once."""

    file: str
    position: int
    """Where its records begin in the file."""
    following: int
    """Where they end."""
    settlements: Sequence[Settlement]
    cards: dict[int, str]
    """Rates by the ids of their prices."""


class Posted(NamedTuple):
    """What was done."""

    new: int
    """Entries that were not in the ledger."""
    late: list[Settlement]
    """What began in months that are forgotten: nobody can tell whether it was posted, so it is not."""


class RefusedError(Exception):
    """Among the records is one that cannot be posted, now or later."""


class AlreadyThereError(Exception):
    """Some entries are in the ledger: begin again, and say so."""


class MonthsChangedError(Exception):
    """A month was made or forgotten since the transaction began: try again."""


async def post_batch(connection: asyncpg.Connection, batch: Batch, *, again: bool) -> Posted | int:
    """Do it, within a transaction; or the position in the file, where that is another one than was thought.

    ``again`` says that some entries may be there: otherwise one that is raises AlreadyThereError, and all is twice as
    quick. Raises RefusedError, MonthsChangedError, and what asyncpg raises.
    """
    position, forgotten = await connection.fetchrow(_CLAIM, batch.file, str(_MAX_SILENCE_MS), str(_MAX_LOCK_WAIT_MS))
    if position != batch.position:
        return int(position)  # another poster was here, or this one before it was restarted
    settlements = batch.settlements
    late = [one for one in settlements if one.started_unix < forgotten]
    if late:
        settlements = [one for one in settlements if not one.started_unix < forgotten]
    with _refusing(_UNWRITABLE):
        lines = lines_of(settlements)
    with _refusing(_UNACCEPTABLE):
        if batch.cards:
            await connection.execute(_KEEP_CARDS, [*batch.cards], [*batch.cards.values()])
        new = await (_put_missing if again else _put)(connection, lines) if lines else 0
    # From the first entry on nothing can be forgotten until the transaction ends; before that it can.
    if await connection.fetchval(_ADVANCE, batch.file, batch.following) != forgotten:
        raise MonthsChangedError
    return Posted(new, late)


def months(settlements: Sequence[Settlement]) -> set[tuple[int, int]]:
    """As :func:`months_of`. Raises RefusedError."""
    with _refusing(_UNWRITABLE):
        return months_of(settlements)


@contextlib.contextmanager
def _refusing(errors: tuple[type[Exception], ...]) -> Iterator[None]:
    try:
        yield
    except errors as error:
        if isinstance(error, asyncpg.CheckViolationError) and error.constraint_name is None:
            raise MonthsChangedError from error  # no constraint of ours: the default's bounds, now that a month is made
        raise RefusedError(repr(error)) from error


async def _put(connection: asyncpg.Connection, lines: bytes) -> int:
    """Add entries, of which none may be there."""
    try:
        return _count(await connection.copy_to_table("ledger", schema_name="tollway", **_as_lines(lines)))
    except asyncpg.UniqueViolationError as error:
        raise AlreadyThereError from error


async def _put_missing(connection: asyncpg.Connection, lines: bytes) -> int:
    """Add those that are not there yet."""
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
