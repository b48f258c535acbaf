"""What the ledger's calls would cost by other prices than those they were billed by, and entries of the difference.

1. A group is all that one key has used of one model at one provider in one day (UTC). What it has cost is its calls'
   cost and the adjustments that an earlier rerating has made for it.
2. An adjustment brings a group from what it has cost to what it would cost. So the same rerating twice adds nothing,
   and one after another change of prices adds only what is still missing.
3. What has no price by the new ones keeps its cost, and so does a group of which that is true for a part and that was
   adjusted before: nobody can tell what of the adjustments was for which part.
4. A call's price is that of its start, as far as the ledger tells: the start of its first attempt.
"""

import hashlib
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from decimal import Context, Decimal
from typing import NamedTuple

import asyncpg
import msgspec

from tollway.domain.money import to_decimal
from tollway.domain.prices import Price
from tollway.domain.usage import told_by_totals

PREFIX = "rerate_"
"""Of the call ids of its adjustments."""

_PREFETCH = 5000  # entries at a time
_LOCK = 0x7265726174  # "rerat": two at once would both see what neither has entered

_ENTRIES = """
SELECT key_id, COALESCE(model, ''), COALESCE(provider, ''), COALESCE(upstream_model, model, ''),
    (started_at AT TIME ZONE 'UTC')::date, kind,
    extract(epoch FROM CASE WHEN attempt = 1 THEN started_at ELSE LEAST(started_at, (
        SELECT min(first.started_at) FROM tollway.ledger first WHERE first.call_id = l.call_id AND first.attempt = 1
    )) END)::float8, cost,
    input_tokens, output_tokens, cached_input_tokens, reasoning_tokens, others::text, COALESCE(service_tier, '')
FROM tollway.ledger l
WHERE charged AND (kind = 'call' OR (kind = 'adjustment' AND starts_with(call_id, 'rerate_')))
    AND started_at >= $1 AND started_at < $2
    AND ($3::text IS NULL OR model = $3) AND ($4::text IS NULL OR key_id = $4)
"""
_ADJUST = """
INSERT INTO tollway.ledger
    (call_id, attempt, kind, key_id, model, provider, upstream_model, started_at, outcome, state, cost, charged, cause)
VALUES ($1, $2, 'adjustment', $3, $4, $5, NULLIF($6, $4), $7, 'adjustment', 'exact', $8, true, $9)
"""

EXACT = Context(prec=5000)
"""For sums of amounts: a price has at most a thousand decimals."""

_others = msgspec.json.Decoder(dict[str, int]).decode


class Group(NamedTuple):
    """Whose cost is adjusted by one entry."""

    key_id: str
    model: str
    """As clients asked for it."""
    provider: str
    upstream_model: str
    day: date

    @property
    def call_id(self) -> str:
        """Of its adjustments; attempts tell them apart."""
        digest = hashlib.blake2b(repr(self).encode(), digest_size=16)
        return PREFIX + digest.hexdigest()


PriceAt = Callable[[Group, float], Price | None]
"""What a group's calls cost that start at a time, Unix seconds; None: not known."""


class Entry(NamedTuple):
    """What of a row of the ledger decides its cost."""

    kind: str
    started_unix: float
    cost: Decimal
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    reasoning_tokens: int
    others: str | None
    service_tier: str

    def cost_by(self, price: Price) -> Decimal:
        """What it would cost by that price."""
        others = _others(self.others) if self.others else {}
        usage = told_by_totals(*self[3:7], others, self.service_tier)
        return to_decimal(price.bill(usage)[0], price.scale)


class Sums:
    """Of one group, in US dollars."""

    __slots__ = ("_would_be", "adjustments", "billed", "calls", "unknown")

    def __init__(self) -> None:
        self.calls = 0
        self.unknown = 0
        """Calls that have no price by the new ones."""
        self.billed = Decimal(0)
        """With the adjustments that were made before."""
        self._would_be = Decimal(0)
        self.adjustments = 0

    def add(self, group: Group, entry: Entry, price_at: PriceAt) -> None:
        """Take one of the group's entries into account."""
        self.billed = EXACT.add(self.billed, entry.cost)
        if entry.kind != "call":
            self.adjustments += 1
            return
        self.calls += 1
        price = price_at(group, entry.started_unix)
        if price is None:
            self.unknown += 1
        self._would_be = EXACT.add(self._would_be, entry.cost if price is None else entry.cost_by(price))

    @property
    def would_be(self) -> Decimal:
        """By the new prices."""
        return self.billed if self.unknown and self.adjustments else self._would_be

    @property
    def difference(self) -> Decimal:
        """What is missing, or too much where it is negative."""
        return EXACT.subtract(self.would_be, self.billed)


async def rerated(
    connection: asyncpg.Connection,
    since: datetime,
    until: datetime,
    price_at: PriceAt,
    model: str | None = None,
    key_id: str | None = None,
) -> dict[Group, Sums]:
    """Both sums of every group in the time; whole days. To be called in a transaction."""
    groups: dict[Group, Sums] = {}
    async for row in connection.cursor(_ENTRIES, since, until, model, key_id, prefetch=_PREFETCH):
        group = Group(*row[:5])
        groups.setdefault(group, Sums()).add(group, Entry(*row[5:]), price_at)
    return groups


async def lock(connection: asyncpg.Connection) -> None:
    """Wait until no other rerating is at work, and keep it so until the transaction ends."""
    await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)


async def adjust(connection: asyncpg.Connection, groups: Iterable[tuple[Group, Sums]], cause: str) -> int:
    """Enter what is missing; how many entries. In the transaction that has read the groups, after :func:`lock`."""
    entries = [
        (
            group.call_id,
            sums.adjustments + 1,
            group.key_id,
            group.model,
            group.provider,
            group.upstream_model,
            datetime(group.day.year, group.day.month, group.day.day, tzinfo=UTC),
            sums.difference,
            cause,
        )
        for group, sums in groups
        if sums.difference
    ]
    await connection.executemany(_ADJUST, entries)
    return len(entries)
