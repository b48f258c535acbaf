"""The ledger's months and entries, for those who look after them; who posts is ``accounting/posting.py``."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import NamedTuple

import asyncpg

WORK_TIMEOUT_S = 3600.0
"""Of a statement that goes through the whole ledger."""

_ENTRIES = """
SELECT l.*, c.rates FROM tollway.ledger l LEFT JOIN tollway.price_cards c ON c.id = l.price_id
WHERE l.call_id = $1 AND ($2::integer IS NULL OR l.attempt = $2) ORDER BY l.started_at, l.attempt LIMIT 1000
"""
_DAYS_AHEAD = 7
_MAKE_MONTH = "SELECT tollway.ledger_partition((now() AT TIME ZONE 'UTC')::date + $1::integer, gather => true)"
_OLDER_IN_DEFAULT = "SELECT count(*) FROM tollway.ledger_default WHERE started_at < date_trunc('month', $1, 'UTC')"
_ENDED = "SELECT table_name FROM tollway.ledger_months WHERE ends_at <= $1 ORDER BY 1"


class Asked(NamedTuple):
    """What one virtual key used of a model on a day (UTC)."""

    day: date
    model: str
    """The provider's name of it."""
    key_id: str
    requests: int
    """Attempts that were answered with 2xx."""
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int


async def entries(connection: asyncpg.Connection, name: str) -> list[asyncpg.Record]:
    """The entries of a call, with the rates of their price cards; ``name`` is a call's id, or ``<call>-<attempt>``."""
    found = await connection.fetch(_ENTRIES, name, None)
    call_id, _, attempt = name.rpartition("-")
    if not found and call_id and attempt.isdecimal() and len(attempt) < 6:  # as far as a number of attempts goes
        found = await connection.fetch(_ENTRIES, call_id, int(attempt))
    return list(found)


_ASKED = """
SELECT (started_at AT TIME ZONE 'UTC')::date, COALESCE(upstream_model, model, ''), key_id,
    count(*) FILTER (WHERE status BETWEEN 200 AND 299), sum(input_tokens), sum(cached_input_tokens), sum(output_tokens)
FROM tollway.ledger
WHERE provider = $1 AND kind = 'call' AND started_at >= $2 AND started_at < $3
    AND ($4::text[] IS NULL OR EXISTS (SELECT FROM unnest($4) AS path WHERE starts_with(operation, path)))
GROUP BY 1, 2, 3
"""


async def asked(
    connection: asyncpg.Connection,
    provider: str,
    start: datetime,
    end: datetime,
    operations: Sequence[str] | None = None,
) -> list[Asked]:
    """What a provider was asked for, by day, its name of the model and virtual key; from the entries that are kept.

    ``operations`` are beginnings of paths; None: all.
    """
    rows = await connection.fetch(_ASKED, provider, start, end, operations, timeout=WORK_TIMEOUT_S)
    return [Asked(*row[:3], *map(int, row[3:])) for row in map(tuple, rows)]


async def make_months(connection: asyncpg.Connection) -> None:
    """See to it that this month has its table, and the next one some days before it begins, by PostgreSQL's clock.

    Entries that lie in the default because there was none are moved, however many they are.
    """
    for days in (0, _DAYS_AHEAD):
        await connection.execute(_MAKE_MONTH, days, timeout=WORK_TIMEOUT_S)


async def days_ago(connection: asyncpg.Connection, days: int) -> datetime:
    """When that was, by PostgreSQL's clock: of several gateways one may have a wrong one."""
    moment: datetime = await connection.fetchval("SELECT now() - make_interval(days => $1)", days)
    return moment


async def prune(connection: asyncpg.Connection, before: datetime) -> int:
    """Forget the entries of whole months (UTC) that ended before, those of odd clocks as well; how many.

    The sums stay. Raises asyncpg.LockNotAvailableError where somebody reads them for long: try again; and
    asyncpg.InvalidParameterValueError for a moment that is to come, by PostgreSQL's clock.
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
