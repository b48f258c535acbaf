"""Whether the books agree: totals with roll-ups, coarse roll-ups with fine ones, these with the entries.

Every side is added up here by itself, not by what keeps the sums.
"""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import NamedTuple

import asyncpg

from tollway.store.ledger import WORK_TIMEOUT_S

MAX_DIFFERENCES = 1000
"""Of each comparison; whoever has so many needs no more of them."""


class Difference(NamedTuple):
    """One sum that is not what it should be."""

    check: str
    of: str
    """The group: names and moments, with blanks between them."""
    sum: str
    kept: Decimal
    found: Decimal
    """What the finer side adds up to."""


class _Check(NamedTuple):
    """Two queries with the same columns: those of ``names``, and those of ``sums``."""

    name: str
    kept: str
    found: str
    names: Sequence[str]
    sums: Sequence[str]


_COUNTS = ("requests", "answered", "attempts", "unpriced", "estimated", "doubtful")
_TOKENS = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens")
_SUMS = (*_COUNTS, *_TOKENS, "cost")


def _added(names: Sequence[str], table: str, sums: Sequence[str] = _SUMS) -> str:
    group = ", ".join(names)
    return f"SELECT {group}, {', '.join(f'sum({one}) AS {one}' for one in sums)} FROM {table} GROUP BY {group}"  # noqa: S608


def _coarser(unit: str, names: Sequence[str]) -> str:
    """The roll-ups by hour, with the days or weeks that they belong to."""
    return (
        f"(SELECT date_trunc('{unit}', starts_at, 'UTC') AS starts_at, {', '.join((*names, *_SUMS))} "  # noqa: S608
        "FROM tollway.usage_hours) AS h"
    )


_FROM_ENTRIES = """
SELECT date_trunc('hour', started_at, 'UTC') AS starts_at, key_id, COALESCE(model, '') AS model,
    COALESCE(provider, '') AS provider,
    sum((kind = 'call' AND attempt = 1)::int) AS requests, sum((kind = 'call' AND charged)::int) AS answered,
    sum((kind = 'call')::int) AS attempts, sum((charged AND NOT priced)::int) AS unpriced,
    sum((charged AND state = 'estimated')::int) AS estimated, sum((charged AND doubt IS NOT NULL)::int) AS doubtful,
    sum(charged::int * input_tokens::bigint) AS input_tokens,
    sum(charged::int * cached_input_tokens::bigint) AS cached_input_tokens,
    sum(charged::int * output_tokens::bigint) AS output_tokens,
    sum(charged::int * reasoning_tokens::bigint) AS reasoning_tokens, sum(charged::int * cost) AS cost
FROM tollway.ledger WHERE started_at >= (SELECT whole_from FROM since) GROUP BY 1, 2, 3, 4
"""
# Of an hour that was cut by pruning only a part of the entries may be left.
_SINCE = """
SELECT COALESCE(date_trunc('hour', pruned_before, 'UTC') + interval '1 hour', '-infinity') AS whole_from
FROM tollway.installation
"""

_CHECKS = (
    _Check(
        "totals of keys",
        "SELECT key_id, total_cost AS cost, requests AS answered, input_tokens, output_tokens FROM tollway.key_totals",
        _added(("key_id",), "tollway.usage_key_weeks", ("cost", "answered", "input_tokens", "output_tokens")),
        ("key_id",),
        ("cost", "answered", "input_tokens", "output_tokens"),
    ),
    *(
        _Check(
            f"sums by {unit}, {' and '.join(named)}",
            _added(names, f"tollway.{table}"),
            _added(names, _coarser(unit, [name for name in names if name != "starts_at"])),
            names,
            _SUMS,
        )
        for unit, table, names, named in (
            ("week", "usage_key_weeks", ("starts_at", "key_id"), ("key",)),
            ("day", "usage_key_days", ("starts_at", "key_id"), ("key",)),
            ("day", "usage_model_days", ("starts_at", "model", "provider"), ("model", "provider")),
        )
    ),
    _Check(
        "sums by hour",
        "SELECT * FROM tollway.usage_hours WHERE starts_at >= (SELECT whole_from FROM since)",
        _FROM_ENTRIES,
        ("starts_at", "key_id", "model", "provider"),
        _SUMS,
    ),
)


async def differences(connection: asyncpg.Connection, key_id: str | None = None) -> list[Difference]:
    """All that does not agree, of one key or of all, as it stands at one moment."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        return [one for check in _checks(key_id) for one in await _compared(connection, check, key_id)]


def _checks(key_id: str | None) -> Iterator[_Check]:
    """Those that tell keys apart, where it is about one."""
    return (check for check in _CHECKS if key_id is None or "key_id" in check.names)


async def _compared(connection: asyncpg.Connection, check: _Check, key_id: str | None) -> list[Difference]:
    of = ", ".join(f"NULLIF({name}::text, '')" for name in check.names)
    pairs = ", ".join(f"('{one}', COALESCE(kept.{one}, 0), COALESCE(found.{one}, 0))" for one in check.sums)
    statement = f"""
        WITH since AS ({_SINCE})
        SELECT concat_ws(' ', {of}), each.name, trim_scale(each.kept::numeric), trim_scale(each.found::numeric)
        FROM ({check.kept}) AS kept FULL JOIN ({check.found}) AS found USING ({", ".join(check.names)})
        CROSS JOIN LATERAL (VALUES {pairs}) AS each (name, kept, found)
        WHERE each.kept <> each.found {"AND key_id = $1" if key_id is not None else ""} LIMIT {MAX_DIFFERENCES}
    """  # noqa: S608 - only constants of this module
    rows = await connection.fetch(statement, *([] if key_id is None else [key_id]), timeout=WORK_TIMEOUT_S)
    return [Difference(check.name, *row) for row in rows]
