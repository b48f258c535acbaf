"""Rows of ``tollway.prices``: prices that an administrator has set for a model, and for which time."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import asyncpg

from tollway.domain.prices import Rate, rates_json, read_rates

_COLUMNS = "id, model, valid_from, valid_until, rates::text, note, created_at, created_by"


class PriceRow(NamedTuple):
    """A row; ``rates`` as JSON."""

    id: int
    model: str
    valid_from: datetime
    valid_until: datetime | None
    rates_json: str
    note: str | None
    created_at: datetime
    created_by: str

    @property
    def rates(self) -> list[Rate]:
        """Raises ValueError where somebody has written past all checks."""
        return read_rates(self.rates_json)


async def list_all(connection: asyncpg.Connection, model: str | None = None) -> list[PriceRow]:
    """All rows, or those of one model; of two that hold at the same time the later counts."""
    rows = await connection.fetch(
        f"SELECT {_COLUMNS} FROM tollway.prices WHERE $1::text IS NULL OR model = $1 ORDER BY model, valid_from, id",  # noqa: S608
        model,
    )
    return [PriceRow(*row) for row in rows]


async def add(
    connection: asyncpg.Connection,
    model: str,
    rates: Sequence[Rate],
    valid_from: datetime | None = None,
    valid_until: datetime | None = None,
    note: str | None = None,
) -> PriceRow:
    """A new row, from now on where nothing else is said. Raises asyncpg.IntegrityConstraintViolationError."""
    row = await connection.fetchrow(
        f"""INSERT INTO tollway.prices (model, rates, valid_from, valid_until, note)
            VALUES ($1, $2, COALESCE($3, now()), $4, $5) RETURNING {_COLUMNS}""",  # noqa: S608
        model,
        rates_json(rates).decode(),
        valid_from,
        valid_until,
        note,
    )
    return PriceRow(*row)


async def remove(connection: asyncpg.Connection, id: int) -> bool:
    """Whether there was such a row."""
    return await connection.fetchval("DELETE FROM tollway.prices WHERE id = $1 RETURNING true", id) is not None
