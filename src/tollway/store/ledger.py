"""The ledger's months and entries, for those who look after them; who posts is ``accounting/posting.py``."""

from datetime import datetime, timedelta

import asyncpg

WORK_TIMEOUT_S = 3600.0
"""Of a statement that goes through the whole ledger."""

_AHEAD = timedelta(days=7)

_ENTRIES = """
SELECT l.*, c.rates FROM tollway.ledger l LEFT JOIN tollway.price_cards c ON c.id = l.price_id
WHERE l.call_id = $1 AND ($2::integer IS NULL OR l.attempt = $2) ORDER BY l.started_at, l.attempt LIMIT 1000
"""
_OLDER_IN_DEFAULT = "SELECT count(*) FROM tollway.ledger_default WHERE started_at < $1"
_ENDED = "SELECT table_name FROM tollway.ledger_months WHERE ends_at <= $1 ORDER BY 1"


async def entries(connection: asyncpg.Connection, name: str) -> list[asyncpg.Record]:
    """The entries of a call, with the rates of their price cards; ``name`` is a call's id, or ``<call>-<attempt>``."""
    found = await connection.fetch(_ENTRIES, name, None)
    call_id, _, attempt = name.rpartition("-")
    if not found and call_id and attempt.isdecimal() and len(attempt) < 6:  # as far as a number of attempts goes
        found = await connection.fetch(_ENTRIES, call_id, int(attempt))
    return list(found)


async def make_months(connection: asyncpg.Connection, now: datetime) -> None:
    """See to it that this month has its table, and the next one some days before it begins."""
    for day in (now, now + _AHEAD):
        await connection.execute("SELECT tollway.ledger_partition($1)", day.date())


async def prune(connection: asyncpg.Connection, before: datetime) -> int:
    """Forget the entries of whole months (UTC) that ended before, and older ones of odd clocks; how many.

    The sums stay. Raises asyncpg.LockNotAvailableError where somebody reads them for long: try again.
    """
    count: int = await connection.fetchval("SELECT tollway.prune_ledger($1)", before, timeout=WORK_TIMEOUT_S)
    return count


async def prunable(connection: asyncpg.Connection, before: datetime) -> int:
    """How many entries :func:`prune` would forget."""
    count: int = await connection.fetchval(_OLDER_IN_DEFAULT, before, timeout=WORK_TIMEOUT_S)
    for (table,) in await connection.fetch(_ENDED, before):
        statement = f"SELECT count(*) FROM tollway.{table}"  # noqa: S608 - a name that only our own function makes
        count += await connection.fetchval(statement, timeout=WORK_TIMEOUT_S)
    return count
