"""What was used and spent, from the roll-ups of the ledger: they outlive its entries, and are few where it is long.

A span of time is covered by the coarsest roll-ups that tell apart what is asked for: whole weeks, then whole days, then
hours at the edges. There is nothing finer.
"""

from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

import asyncpg

from tollway.domain.money import exact_sum

EVER = datetime(9999, 1, 4, tzinfo=UTC)
"""Later than any entry; a Monday, so that whole weeks reach up to it."""


class Dimension(StrEnum):
    """What sums are told apart by."""

    DAY = "day"
    KEY = "key"
    MODEL = "model"
    PROVIDER = "provider"


class Used(NamedTuple):
    """The sums of one group; tokens and cost are those of what is charged."""

    requests: int
    """Of clients, each counted where its first attempt is."""
    answered: int
    """Attempts that are charged."""
    attempts: int
    """At providers, with those that are on the house."""
    input_tokens: int
    cached_input_tokens: int
    """Of the input tokens."""
    output_tokens: int
    reasoning_tokens: int
    """Of the output tokens."""
    cost: Decimal
    """US dollars."""
    unpriced: int
    """Of the charged ones: their price was not known, and is not in the cost."""
    estimated: int
    """Of the charged ones: the provider did not say the tokens."""
    doubtful: int
    """Of the charged ones: their cost is not certain."""


class UsageRow(NamedTuple):
    """One group: its values in the order of the dimensions, the name of its key where it has one, its sums."""

    of: tuple[str, ...]
    key_name: str | None
    used: Used


class Span(NamedTuple):
    """Roll-ups of one table."""

    table: str
    start: datetime
    end: datetime


class _Grain(NamedTuple):
    table: str
    width: timedelta


# Grains begin at a Monday's midnight, of which this is one.
_MONDAY = datetime(1970, 1, 5, tzinfo=UTC)
_HOURS = _Grain("usage_hours", timedelta(hours=1))
_OF_KEYS = (
    _Grain("usage_key_weeks", timedelta(weeks=1)),
    _Grain("usage_key_days", timedelta(days=1)),
    _HOURS,
)
_OF_MODELS = (_Grain("usage_model_days", timedelta(days=1)), _HOURS)

_EXPRESSIONS = {
    Dimension.DAY: "(starts_at AT TIME ZONE 'UTC')::date::text",
    Dimension.KEY: "key_id",
    Dimension.MODEL: "model",
    Dimension.PROVIDER: "provider",
}
_PLAIN_PLANS = "SET LOCAL max_parallel_workers_per_gather = 0; SET LOCAL work_mem = '64MB'"
"""For sums of this size, to start workers and to merge what they found takes longer than to go through it once."""

_COUNTS = tuple(name for name in Used._fields if name != "cost")
_SUMS = ", ".join(
    "trim_scale(sum(cost)) AS cost" if name == "cost" else f"sum({name})::bigint AS {name}" for name in Used._fields
)


async def usage(
    connection: asyncpg.Connection,
    by: Sequence[Dimension],
    start: datetime,
    end: datetime = EVER,
    key_id: str | None = None,
) -> list[UsageRow]:
    """Sums from one full hour to another, of one key or of all: by day, and then the dearest first."""
    spans = list(spans_of(_grains(by, key_id), start, end))
    tables = " UNION ALL ".join(
        f"SELECT * FROM tollway.{span.table} WHERE starts_at >= ${2 * n + 2} AND starts_at < ${2 * n + 3}"  # noqa: S608
        for n, span in enumerate(spans)
    )
    groups = ", ".join(f"{_EXPRESSIONS[one]} AS {one}" for one in by)
    numbers = ", ".join(str(n + 1) for n in range(len(by)))
    names = (
        "LEFT JOIN tollway.virtual_keys AS k ON k.id = u.key"
        if Dimension.KEY in by
        else "CROSS JOIN (VALUES (NULL)) AS k (name)"
    )
    order = ", ".join([*(["day"] if Dimension.DAY in by else []), "cost DESC", "requests DESC", *by])
    statement = f"""
        SELECT u.*, k.name FROM (
            SELECT {groups}, {_SUMS} FROM ({tables}) AS rollups
            WHERE $1::text IS NULL OR key_id = $1 GROUP BY {numbers}
        ) AS u {names} ORDER BY {order}
    """  # noqa: S608 - only constants of this module
    moments = [moment for span in spans for moment in (span.start, span.end)]
    async with connection.transaction(readonly=True):
        await connection.execute(_PLAIN_PLANS)
        rows = await connection.fetch(statement, key_id, *moments) if spans else []
    width = len(by)
    return [UsageRow(tuple(row[:width]), row[-1], Used(*row[width:-1])) for row in map(tuple, rows)]


def total_of(rows: Collection[UsageRow]) -> Used:
    """The sum of all."""
    counts = {name: sum(getattr(row.used, name) for row in rows) for name in _COUNTS}
    return Used(**counts, cost=exact_sum(row.used.cost for row in rows))


def spans_of(grains: Sequence[_Grain], start: datetime, end: datetime) -> Iterator[Span]:
    """Cover the time from one full hour to another, each hour of it once, by the coarsest grains that fit into it."""
    (table, width), *finer = grains
    first = start + (_MONDAY - start) % width
    last = end - (end - _MONDAY) % width
    if first >= last:
        if finer:
            yield from spans_of(finer, start, end)
        return
    yield Span(table, first, last)
    for begin, stop in ((start, first), (last, end)):
        if finer and begin < stop:
            yield from spans_of(finer, begin, stop)


def _grains(by: Collection[Dimension], key_id: str | None) -> Sequence[_Grain]:
    of_keys = Dimension.KEY in by or key_id is not None
    of_models = Dimension.MODEL in by or Dimension.PROVIDER in by
    if of_keys and of_models:
        return (_HOURS,)
    if not of_keys:
        return _OF_MODELS
    return _OF_KEYS[1:] if Dimension.DAY in by else _OF_KEYS
