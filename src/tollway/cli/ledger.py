"""``tollway ledger``."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import Annotated, NamedTuple

import asyncpg
import msgspec
import typer

from tollway.accounting.explained import Bill, Line, bill
from tollway.accounting.provider_export import ExportError, read_mistral, read_openai
from tollway.accounting.reconciliation import Compared, Counted, Group, compare, operations_of
from tollway.cli.session import session
from tollway.cli.words import AsJson, CommandError, command, group, moment, say, show_fields, show_json, show_table
from tollway.domain.usage import told_by_totals
from tollway.store import ledger, ledger_check

app = group("The ledger: whether it adds up, how a figure came about, and how old entries are forgotten.")

MAX_EXPORT_BYTES = 64 * 1024 * 1024

_EXPORTS = {"openai": read_openai, "mistral": read_mistral}

_counts = msgspec.json.Decoder(dict[str, int]).decode


@app.command()
@command
async def verify(
    key: Annotated[str | None, typer.Option(help="Only this key, by its id or its secret.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare totals with sums, and sums with entries; exit code 1 if they differ.

    Hours whose entries were pruned are compared as far as sums go.

    \b
    Example:
      tollway ledger verify --key key_3hK9…
    """
    async with session() as opened:
        key_id = None if key is None else await opened.used_key(key)
        found = await ledger_check.differences(opened.connection, key_id)
    if as_json:
        show_json([one._asdict() | {"kept": f"{one.kept:f}", "found": f"{one.found:f}"} for one in found])
    elif found:
        show_table(("comparison", "of", "sum", ">kept", ">adds up to"), found, "")
    else:
        say("The books agree.")
    if found:
        raise CommandError(f"the books differ in {len(found)} sums")


@app.command()
@command
async def prune(
    before: Annotated[str, typer.Option(help="Entries from before this moment.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many there are.")] = False,
) -> None:
    """Forget old entries: those of whole months (UTC) that ended before a date. All sums and totals stay.

    \b
    Example:
      tollway ledger prune --before 2027-01-01 --dry-run
    """
    limit = moment(before)
    async with session() as opened:
        if limit > await ledger.days_ago(opened.connection, 0):
            raise typer.BadParameter("entries to come cannot be forgotten", param_hint="--before")
        if dry_run:
            say(f"{await ledger.prunable(opened.connection, limit)} entries would be forgotten.")
            return
        try:
            count = await ledger.prune(opened.connection, limit)
        except asyncpg.LockNotAvailableError:
            raise CommandError("somebody is reading the ledger, so nothing was forgotten; try again") from None
    say(f"{count} entries are forgotten.")


@app.command()
@command
async def explain(
    name: Annotated[str, typer.Argument(metavar="ID", help="A call, req_…; or one attempt of it, req_…-2.")],
    as_json: AsJson = False,
) -> None:
    """Show how the cost of a call came about: its attempts, what each used, and by which rates it was billed.

    \b
    Examples:
      tollway ledger explain req_6571f3a1…
      tollway ledger explain req_6571f3a1…-2 --json
    """
    async with session() as opened:
        rows = await ledger.entries(opened.connection, name)
    if not rows:
        raise CommandError(f"no entry of the ledger is of {name}; it may be too young, or forgotten")
    entries = [_Entry.of(row) for row in rows]
    if as_json:
        show_json([_members(entry) for entry in entries])
        return
    for entry in entries:
        _show(entry)


@app.command()
@command
async def reconcile(
    file: Annotated[Path, typer.Argument(help="The provider's export of its usage, JSON or CSV.")],
    provider: Annotated[str, typer.Option(help=f"Whose it is: {', '.join(_EXPORTS)}.")],
    start: Annotated[
        str | None, typer.Option("--from", help="From this day on; without it the export's first.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="Until this day (not included).")] = None,
    match: Annotated[
        list[str] | None,
        typer.Option(help="PROVIDERS_KEY_ID=KEY: what this key of the provider's shows is of that virtual key."),
    ] = None,
    show_all: Annotated[bool, typer.Option("--all", help="Show what agrees, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare a provider's export of its usage with the ledger, by day (UTC), model and key, as far as it tells.

    \b
    Examples:
      tollway ledger reconcile usage.json --provider openai
      tollway ledger reconcile usage.csv --provider openai --match key_a1b2=key_3hK9…
    """
    if provider not in _EXPORTS:
        raise typer.BadParameter(f"{provider!r} is none of {', '.join(_EXPORTS)}", param_hint="--provider")
    matched = [_match(one) for one in match or ()]
    try:
        rows = _EXPORTS[provider](_content(file))
    except ExportError as error:
        raise CommandError(f"{file} is no export of {provider}: {error}") from None
    first = min(row.day for row in rows) if start is None else _day(start)
    last = max(row.day for row in rows) + timedelta(days=1) if end is None else _day(end)
    if first >= last:
        raise typer.BadParameter("it is the day after the last one, and later than --from", param_hint="--to")
    operations = operations_of(rows)
    async with session() as opened:
        matches = {theirs: await opened.used_key(key) for theirs, key in matched}
        asked = await ledger.asked(opened.connection, provider, _midnight(first), _midnight(last), operations)
    ours = {Group(*one[:3]): Counted(*one[3:]) for one in asked}
    compared = compare([row for row in rows if first <= row.day < last], ours, matches)
    shown = [one for one in compared if show_all or one.differs]
    if as_json:
        show_json([_both(one) for one in shown])
        return
    columns = ("day", "model", "key", ">requests", ">ours", ">input", ">ours", ">cached", ">ours", ">output", ">ours")
    cells = [(*one.group, *chain(*zip(one.theirs, one.ours, strict=True))) for one in shown]
    show_table(columns, cells, "The provider and the ledger agree.")


def _match(text: str) -> tuple[str, str]:
    theirs, separator, ours = text.partition("=")
    if not theirs or not separator or not ours:
        raise typer.BadParameter(f"{text!r} is not PROVIDERS_KEY_ID=KEY", param_hint="--match")
    return theirs, ours


def _content(file: Path) -> bytes:
    try:
        with file.open("rb") as export:
            data = export.read(MAX_EXPORT_BYTES + 1)
    except OSError as error:
        raise CommandError(f"{file} cannot be read: {error.strerror}") from None
    if len(data) > MAX_EXPORT_BYTES:
        raise CommandError(f"{file} has more than {MAX_EXPORT_BYTES} bytes; export fewer days")
    return data


def _day(text: str) -> date:
    return moment(text).date()


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _both(one: Compared) -> dict[str, object]:
    day, model, key_id = one.group
    return {
        "day": day.isoformat(),
        "model": model,
        "key": key_id or None,
        "provider": _counted(one.theirs),
        "ledger": _counted(one.ours),
    }


def _counted(one: Counted) -> dict[str, int | None]:
    return {
        "requests": one.requests,
        "inputTokens": one.input_tokens,
        "cachedInputTokens": one.cached_input_tokens,
        "outputTokens": one.output_tokens,
    }


class _Entry(NamedTuple):
    """A row of the ledger, and its bill made anew where it was billed and the rates are kept."""

    row: asyncpg.Record
    bill: Bill | None

    @classmethod
    def of(cls, row: asyncpg.Record) -> "_Entry":
        if row["rates"] is None or not row["charged"]:
            return cls(row, None)
        others = _counts(row["others"]) if row["others"] is not None else {}
        usage = told_by_totals(
            row["input_tokens"],
            row["output_tokens"],
            row["cached_input_tokens"],
            row["reasoning_tokens"],
            others,
            row["service_tier"] or "",
        )
        return cls(row, bill(usage, row["rates"]))

    @property
    def verdict(self) -> str:
        """What to think of the stored cost."""
        row = self.row
        if row["kind"] == "adjustment":
            return "an adjustment, made by hand"
        if not row["charged"]:
            return "on the house"
        if not row["priced"]:
            return "no price was known: the cost is not zero but unknown"
        if self.bill is None:
            return "its rates are not kept"
        return "as computed" if self.bill.cost == row["cost"] else "NOT what its rates come to"


def _show(entry: _Entry) -> None:
    row, made = entry.row, entry.bill
    fields: list[tuple[str, object]] = [
        ("attempt", f"{row['call_id']}-{row['attempt']}"),
        ("started", row["started_at"]),
        ("key", row["key_id"]),
        ("model", _model(row)),
        ("provider", row["provider"]),
        ("operation", row["operation"]),
        ("status", row["status"]),
        ("outcome", row["outcome"]),
        ("cause", row["cause"]),
        ("tokens are", row["state"]),
        ("tokens", _tokens(row)),
        ("doubt", row["doubt"]),
        ("price card", row["price_id"]),
        ("service tier", row["service_tier"]),
    ]
    if made is not None:
        sizes = f", for prompts of more than {made.above} tokens" if made.above else ""
        fields.append(("rates", f"{made.tier or 'usual'} tier{sizes}"))
    show_fields([(name, value) for name, value in fields if value is not None])
    if made is not None:
        show_table(
            ("bucket", ">units", ">rate $", ">per", ">cost $"), [_cells(line) for line in made.lines], "Nothing."
        )
        show_fields([("computed", f"${made.cost:f}")])
    show_fields([("cost", f"${_plain(row['cost'])} ({entry.verdict})"), ("", "")])


def _members(entry: _Entry) -> dict[str, object]:
    row, made = entry.row, entry.bill
    return {
        "callId": row["call_id"],
        "attempt": row["attempt"],
        "kind": row["kind"],
        "startedAt": row["started_at"],
        "keyId": row["key_id"],
        "model": row["model"],
        "provider": row["provider"],
        "upstreamModel": row["upstream_model"] or row["model"],
        "operation": row["operation"],
        "status": row["status"],
        "outcome": row["outcome"],
        "cause": row["cause"],
        "state": row["state"],
        "inputTokens": row["input_tokens"],
        "cachedInputTokens": row["cached_input_tokens"],
        "outputTokens": row["output_tokens"],
        "reasoningTokens": row["reasoning_tokens"],
        "charged": row["charged"],
        "priced": row["priced"],
        "doubt": row["doubt"].split(",") if row["doubt"] else [],
        "priceId": row["price_id"],
        "serviceTier": row["service_tier"],
        "ratesAbove": None if made is None else made.above,
        "ratesTier": None if made is None else made.tier,
        "lines": None if made is None else [_line(line) for line in made.lines],
        "computed": None if made is None else f"{made.cost:f}",
        "cost": _plain(row["cost"]),
        "verdict": entry.verdict,
    }


def _line(line: Line) -> dict[str, object]:
    return {"bucket": line.bucket, "units": line.units, "rate": line.rate, "cost": f"{line.cost:f}"}


def _cells(line: Line) -> tuple[object, ...]:
    usd, per = (None, None) if line.rate is None else (line.rate.usd, line.rate.per)
    return line.bucket, line.units, usd, per, _plain(line.cost)


def _model(row: asyncpg.Record) -> str | None:
    model: str | None = row["model"]
    return f"{model} (there: {row['upstream_model']})" if row["upstream_model"] else model


def _tokens(row: asyncpg.Record) -> str:
    return (
        f"{row['input_tokens']} in, {row['cached_input_tokens']} of them cached; "
        f"{row['output_tokens']} out, {row['reasoning_tokens']} of them reasoning"
    )


def _plain(amount: Decimal) -> str:
    """Without zeros at its end."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
