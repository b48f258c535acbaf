"""``tollway usage``."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, NamedTuple

import typer

from tollway.cli.session import session
from tollway.cli.words import AsJson, command, moment, show_json, show_table

_DAYS = 30


class By(StrEnum):
    """What the sums are made for."""

    KEY = "key"
    MODEL = "model"
    PROVIDER = "provider"
    DAY = "day"


_GROUPS = {
    By.KEY: "key_id",
    By.MODEL: "model",
    By.PROVIDER: "provider",
    By.DAY: "to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
}

_USAGE = """
SELECT {group}, count(*) FILTER (WHERE kind = 'call' AND charged), count(*) FILTER (WHERE kind = 'call'),
    COALESCE(sum(input_tokens) FILTER (WHERE charged), 0)::bigint,
    COALESCE(sum(output_tokens) FILTER (WHERE charged), 0)::bigint,
    trim_scale(COALESCE(sum(cost) FILTER (WHERE charged), 0)), count(*) FILTER (WHERE charged AND NOT priced)
FROM tollway.ledger
WHERE started_at >= $1 AND ($2::timestamptz IS NULL OR started_at < $2) AND ($3::text IS NULL OR key_id = $3)
GROUP BY 1 ORDER BY {order}
"""


class Sum(NamedTuple):
    """What was used and spent."""

    of: str | None
    requests: int
    attempts: int
    """At providers, with those that failed."""
    input_tokens: int
    output_tokens: int
    cost: Decimal
    """US dollars."""
    unpriced: int
    """Requests without a known price, whose cost is not in the sum."""


@command
async def usage(
    by: Annotated[By, typer.Option(help="What to sum up for.")] = By.KEY,
    since: Annotated[str | None, typer.Option(help=f"From when on; without it the last {_DAYS} days.")] = None,
    until: Annotated[str | None, typer.Option(help="Until when (not included).")] = None,
    key: Annotated[str | None, typer.Option(help="Only this key, by its id or its secret.")] = None,
    as_json: AsJson = False,
) -> None:
    """Sum up the ledger: requests, tokens and US dollars by key, model, provider or day (UTC).

    \b
    Examples:
      tollway usage
      tollway usage --by day --since 2027-01-01 --until 2027-02-01
      tollway usage --by model --key key_3hK9… --json
    """
    start = datetime.now(UTC) - timedelta(days=_DAYS) if since is None else moment(since)
    end = None if until is None else moment(until)
    statement = _USAGE.format(group=_GROUPS[by], order="1" if by is By.DAY else "6 DESC, 2 DESC, 1")
    async with session() as opened:
        key_id = None if key is None else await opened.key_id(key)
        sums = [Sum(*row) for row in await opened.connection.fetch(statement, start, end, key_id)]
    if as_json:
        show_json([_members(by, one) for one in sums])
        return
    columns = (by.value, ">requests", ">attempts", ">input tokens", ">output tokens", ">cost $", ">unpriced")
    show_table(columns, sums, "Nothing was used in this time.")


def _members(by: By, one: Sum) -> dict[str, object]:
    return {
        by.value: one.of,
        "requests": one.requests,
        "attempts": one.attempts,
        "inputTokens": one.input_tokens,
        "outputTokens": one.output_tokens,
        "cost": f"{one.cost:f}",
        "unpricedRequests": one.unpriced,
    }
