"""``tollway models``."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, NamedTuple

import typer

from tollway.accounting.builtin_prices import resolve_missing
from tollway.cli.session import session
from tollway.cli.words import AsJson, CommandError, command, group, show_json, show_table
from tollway.domain.prices import Price
from tollway.domain.tariffs import read_own_prices
from tollway.domain.usage import Bucket
from tollway.routing.snapshot import ModelRow, tariff_of_row
from tollway.store.configuration import read_models
from tollway.store.seed import Missing, SeedModel, add, missing

app = group("Models: where they are served and what they cost.")


@app.command("list")
@command
async def list_models(as_json: AsJson = False) -> None:
    """List the models with their providers, fallbacks and prices (US dollars per 1,000 tokens, of short prompts).

    \b
    The last column says where the price comes from: built-in (the list), set (the price columns), prices (set by
    tollway prices), unknown. All of a price: tollway prices show MODEL
    They are rows: change them in psql, for example
      tollway db psql -c 'UPDATE "LLMModels" SET fallback = $$mistral-small-latest$$ WHERE name = $$gpt-4o$$'
    """
    async with session() as opened:
        rows = await read_models(opened.connection)
    now = datetime.now(UTC).timestamp()
    models = [_model(row, now) for row in sorted(rows, key=lambda row: (row.provider, row.name))]
    if as_json:
        show_json([_members(model) for model in models])
        return
    columns = ("model", "provider", "called there", "fallback", ">input $/1k", ">output $/1k", "price")
    show_table(columns, models, "There are no models.")


@app.command()
@command
async def sync(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="MODEL", help="Only these, also where somebody has removed them.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be added.")] = False,
    all_models: Annotated[bool, typer.Option("--all", help="Also those that somebody has removed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Add the models that this release begins with and this database was never given. Rows that exist are left alone.

    Those that somebody has removed are named by --dry-run, and added by --all or by their names.

    \b
    Examples:
      tollway models sync --dry-run
      tollway models sync
      tollway models sync whisper-1
    """
    async with session() as opened:
        found = await missing(opened.connection)
        chosen = _chosen(found, names or [], all_models=all_models)
        if not dry_run:
            await add(opened.connection, chosen)
            await resolve_missing(opened.connection)
    verb = "would be added" if dry_run else "added"
    rows = [(model.name, model.provider, verb) for model in chosen]
    removed = [model for model in found.removed if model not in chosen]
    if dry_run:
        rows += [(model.name, model.provider, "removed here") for model in removed]
    if as_json:
        show_json([{"name": name, "provider": provider, "state": state} for name, provider, state in rows])
        return
    but = f", but for {len(removed)} that somebody has removed; to add them: --all" if removed else ""
    show_table(("model", "provider", ""), rows, f"Every model of this release is there{but}.")


def _chosen(found: Missing, names: Sequence[str], *, all_models: bool) -> list[SeedModel]:
    if not names:
        return [*found.new, *(found.removed if all_models else ())]
    known = {model.name: model for model in (*found.new, *found.removed)}
    for name in names:
        if name not in known:
            raise CommandError(f"{name!r} is there already, or no model that this release begins with")
    return [known[name] for name in names]


class Model(NamedTuple):
    """A row of the list; costs are US dollars per 1,000 tokens."""

    name: str
    provider: str
    upstream_name: str
    names: Sequence[str]
    """The models to try next."""
    input_cost: Decimal | None
    output_cost: Decimal | None
    price: str


def _model(row: ModelRow, now: float) -> Model:
    try:
        tariff = tariff_of_row(row)
        price = None if tariff is None else tariff.at(now)
        source = _source(row, now) if price is not None else "unknown"
    except ValueError:  # written past all checks
        price, source = None, "unusable"
    input_cost, output_cost = _per_1k(price, Bucket.INPUT), _per_1k(price, Bucket.OUTPUT)
    upstream_name = row.upstream_name or row.name
    return Model(row.name, row.provider, upstream_name, row.fallback or (), input_cost, output_cost, source)


def _source(row: ModelRow, now: float) -> str:
    own = read_own_prices(row.own_prices) if row.own_prices is not None else ()
    if any(one.holds(now) for one in own):
        return "prices"
    return "set" if row.costs.rates else "built-in"


def _per_1k(price: Price | None, bucket: Bucket) -> Decimal | None:
    rates = () if price is None else price.rates
    found = (rate.usd * 1000 / rate.per for rate in rates if rate.bucket == bucket and not rate.tier and not rate.above)
    return next(found, None)


def _members(model: Model) -> dict[str, object]:
    return {
        "name": model.name,
        "provider": model.provider,
        "upstreamName": model.upstream_name,
        "fallback": model.names,
        "inputCostPer1k": model.input_cost,
        "outputCostPer1k": model.output_cost,
        "price": model.price,
    }
