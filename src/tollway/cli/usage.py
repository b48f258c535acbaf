"""``tollway usage``."""

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from tollway.cli.session import session
from tollway.cli.words import AsJson, command, moment, show_json, show_table, show_text
from tollway.store.usage import EVER, Dimension, UsageRow, Used, total_of
from tollway.store.usage import usage as usage_of

_DAYS = 30


def parse_dimensions(text: str) -> list[Dimension]:
    """``day,key`` as dimensions. Raises typer.BadParameter."""
    names = [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in list(Dimension)]:
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(Dimension)}")
    return [Dimension(name) for name in dict.fromkeys(names)]


def full_hour(text: str) -> datetime:
    """A moment as sums know it. Raises typer.BadParameter."""
    found = moment(text)
    if found.minute or found.second or found.microsecond:
        raise typer.BadParameter(f"{text!r} is no full hour (UTC): sums are kept by the hour")
    return min(found, EVER)


@command
async def usage(
    by: Annotated[
        str, typer.Option(help="What to tell apart: day, key, model, provider; several with commas between.")
    ] = "key",
    start: Annotated[
        str | None, typer.Option("--from", "--since", help=f"From when on, a full hour; without it {_DAYS} days.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", "--until", help="Until when (not included).")] = None,
    key: Annotated[str | None, typer.Option(help="Only this key, by its id or its secret.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, for spreadsheets.")] = False,
    as_json: AsJson = False,
) -> None:
    """Sum up what was used and spent: requests, tokens and US dollars by key, model, provider or day (UTC).

    \b
    Examples:
      tollway usage
      tollway usage --by day --from 2027-01-01 --to 2027-02-01
      tollway usage --by day,model --key key_3hK9… --csv
    """
    dimensions = parse_dimensions(by)
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    first = today - timedelta(days=_DAYS) if start is None else full_hour(start)
    last = EVER if end is None else full_hour(end)
    if start is not None and end is not None and first >= last:
        raise typer.BadParameter("it is not later than --from", param_hint="--to")
    async with session() as opened:
        key_id = None if key is None else await opened.used_key(key)
        rows = await usage_of(opened.connection, dimensions, first, last, key_id)
    if as_json:
        show_json([_members(dimensions, row) for row in rows])
    elif as_csv:
        show_text(_csv(dimensions, rows))
    else:
        _show(dimensions, rows)


def _members(by: list[Dimension], row: UsageRow) -> dict[str, object]:
    used = row.used
    return {
        **dict(zip(by, row.of, strict=True)),
        **({"keyName": row.key_name} if Dimension.KEY in by else {}),
        "requests": used.requests,
        "answeredRequests": used.answered,
        "failedRequests": _failed(by, used),
        "attempts": used.attempts,
        "waivedAttempts": used.attempts - used.answered,
        "inputTokens": used.input_tokens,
        "cachedInputTokens": used.cached_input_tokens,
        "outputTokens": used.output_tokens,
        "reasoningTokens": used.reasoning_tokens,
        "cost": f"{used.cost:f}",
        "unpricedRequests": used.unpriced,
        "estimatedRequests": used.estimated,
        "doubtfulRequests": used.doubtful,
    }


def _csv(by: list[Dimension], rows: list[UsageRow]) -> str:
    text = io.StringIO()
    members = [_members(by, row) for row in rows]
    for one in members:
        one.update({name: _harmless(one[name]) for name in (*by, "keyName") if name in one})
    names = list(_members(by, UsageRow(("",) * len(by), None, total_of([]))))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(members)
    return text.getvalue()


def _harmless(value: object) -> object:
    """A name that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in _FORMULA else value


_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def _show(by: list[Dimension], rows: list[UsageRow]) -> None:
    names = [name for one in by for name in ([one.value, "name"] if one is Dimension.KEY else [one.value])]
    counts = [">requests", ">failed", ">waived", ">input tokens", ">output tokens", ">cost $"]
    columns = [*names, *counts, ">unpriced", ">estimated", ">doubtful"]
    cells = [(*_names(by, row), *_cells(by, row.used)) for row in rows]
    if rows:
        cells.append(("total", *[""] * (len(names) - 1), *_cells([], total_of(rows))))
    show_table(columns, cells, "Nothing was used in this time.")


def _names(by: list[Dimension], row: UsageRow) -> list[str | None]:
    """Of one group, with the key's name beside its id."""
    found: list[str | None] = []
    for one, value in zip(by, row.of, strict=True):
        found.append(value or None)
        if one is Dimension.KEY:
            found.append(row.key_name)
    return found


def _cells(by: list[Dimension], used: Used) -> tuple[object, ...]:
    waived = used.attempts - used.answered
    tokens = (used.input_tokens, used.output_tokens)
    return (used.requests, _failed(by, used), waived, *tokens, used.cost, used.unpriced, used.estimated, used.doubtful)


def _failed(by: list[Dimension], used: Used) -> int | None:
    """Requests that nobody answered; by provider there are none: what one failed at, another one may have answered."""
    return None if Dimension.PROVIDER in by else max(0, used.requests - used.answered)
