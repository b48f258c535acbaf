"""``tollway prices``."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, NamedTuple

import asyncpg
import typer

from tollway.accounting.builtin_prices import list_version, listed_periods
from tollway.cli import rerate
from tollway.cli.session import session
from tollway.cli.words import AsJson, CommandError, command, group, moment, say, show_json, show_table
from tollway.domain.prices import PER_MILLION, Price, Rate, price_of
from tollway.domain.tariffs import Period, overlaid, read_own_prices, read_periods, set_here, tariff_of
from tollway.domain.usage import Bucket
from tollway.routing.snapshot import ModelRow, tariff_of_row
from tollway.store import prices
from tollway.store.configuration import read_models
from tollway.store.outage import in_one_line
from tollway.store.prices import PriceRow

app = group("Prices: those that are set here, those of the built-in list, and what calls would cost by others.")
app.command("rerate")(rerate.rerate)

_RATE = re.compile(r"([a-z0-9_]{1,40})=([0-9.]{1,1100})(?:/([0-9]{1,10}))?(?:>([0-9]{1,15}))?(?:@([!-~]{1,100}))?")

Model = Annotated[str, typer.Argument(help="A model of this gateway.", metavar="MODEL")]
Usd = Annotated[str | None, typer.Option(metavar="USD", help="US dollars per 1,000,000 tokens.")]


class Shown(NamedTuple):
    """A rate and where it comes from."""

    rate: Rate
    source: str


@app.command("list")
@command
async def list_prices(
    model: Annotated[str | None, typer.Option(help="Only this model's.")] = None, as_json: AsJson = False
) -> None:
    """List the prices that were set here, with the time in which they hold.

    Of those that hold at a call's start and name a bucket the latest counts. Behind them stand the price columns of
    "LLMModels", and behind those the built-in list.

    \b
    Example:
      tollway prices list --model gpt-4o
    """
    async with session() as opened:
        rows = await prices.list_all(opened.connection, model)
    if as_json:
        show_json([_row_members(row) for row in rows])
        return
    columns = (">id", "model", "from", "until", "rates", "note", "by")
    cells = [
        (row.id, row.model, row.valid_from, row.valid_until, _summary(row), row.note, row.created_by) for row in rows
    ]
    show_table(columns, cells, "No prices were set here; models cost what the built-in list says.")


@app.command()
@command
async def show(
    model: Model,
    at: Annotated[str | None, typer.Option(help="At that time; without it now.", metavar="TIME")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a model costs: every rate, and where it comes from.

    \b
    Examples:
      tollway prices show gpt-5.6-sol
      tollway prices show gpt-5.6-sol --at 2026-08-01
    """
    when = datetime.now(UTC) if at is None else moment(at)
    async with session() as opened:
        row = _found(await read_models(opened.connection), model)
    try:
        price = _price(row, when)
    except ValueError as error:
        raise CommandError(f"the prices of {model} cannot be used: {error}") from None
    if price is None:
        raise CommandError(f"what {model} costs is not known; set it: tollway prices set {model} --input … --output …")
    sources = _sources(row, when)
    shown = [Shown(rate, sources.get(rate, "built-in")) for rate in price.rates]
    if as_json:
        show_json([{**_rate_members(one.rate), "source": one.source} for one in shown])
        return
    columns = ("bucket", "service tier", ">above tokens", ">$", ">per", ">at least", "source")
    cells = [
        (one.rate.bucket, one.rate.tier or None, one.rate.above or None, one.rate.usd, one.rate.per,
         one.rate.minimum or None, one.source)
        for one in shown
    ]  # fmt: skip
    show_table(columns, cells, "")


@app.command("set")
@command
async def set_price(
    model: Model,
    input: Usd = None,
    output: Usd = None,
    cache_read: Usd = None,
    cache_write: Usd = None,
    rates: Annotated[
        list[str] | None,
        typer.Option("--rate", metavar="RATE", help="BUCKET=USD[/PER][>ABOVE][@TIER], quoted; may be repeated."),
    ] = None,
    since: Annotated[str | None, typer.Option("--from", help="From when on; without it now.", metavar="TIME")] = None,
    until: Annotated[str | None, typer.Option("--until", help="Until when (not included).", metavar="TIME")] = None,
    note: Annotated[str | None, typer.Option(help="Why, for whoever reads it later.")] = None,
    as_json: AsJson = False,
) -> None:
    """Set what a model costs, from now on or for a time. What is not said here stays as it is.

    A rate of a service tier replaces that tier's only; one without replaces all of its bucket's, those of service tiers
    too.

    \b
    Examples:
      tollway prices set my-llm --input 0.2 --output 0.6
      tollway prices set gpt-5.6-sol --input 3.2 --rate 'input=6.4>272000' --note 'our contract' --from 2027-01-01
      tollway prices set whisper-1 --rate 'input_audio_ms=0.006/60000'
    """
    usual = ((Bucket.INPUT, input), (Bucket.OUTPUT, output), (Bucket.CACHE_READ, cache_read))
    given = [
        Rate(bucket, _usd(text)) for bucket, text in (*usual, (Bucket.CACHE_WRITE, cache_write)) if text is not None
    ]
    given += [_rate(text) for text in rates or ()]
    begins, ends = (None if text is None else moment(text) for text in (since, until))
    try:
        price_of(given)
    except ValueError as error:
        raise CommandError(str(error)) from None
    async with session() as opened:
        try:
            row, hints = await _added(opened.connection, model, given, begins, ends, note)
        except asyncpg.ForeignKeyViolationError:
            raise CommandError(f"there is no model {model!r}; see: tollway models list") from None
        except asyncpg.CheckViolationError as error:  # constraints are named by what they ask for
            raise CommandError(error.constraint_name or in_one_line(error)) from None
        except ValueError as error:
            raise CommandError(f"the prices of {model} could not be used: {error}") from None
    for hint in hints:
        typer.echo(hint, err=True)
    if as_json:
        show_json(_row_members(row))
        return
    until_text = f" until {row.valid_until:%Y-%m-%d %H:%M} UTC" if row.valid_until else ""
    say(f"price {row.id} of {model}: {_summary(row)}, from {row.valid_from:%Y-%m-%d %H:%M} UTC{until_text}")


async def _added(
    connection: asyncpg.Connection,
    model: str,
    given: Sequence[Rate],
    begins: datetime | None,
    ends: datetime | None,
    note: str | None,
) -> tuple[PriceRow, list[str]]:
    """The new row, if it makes a price together with what is known, and what of it may not be what was meant."""
    async with connection.transaction():
        before = _found(await read_models(connection), model)
        row = await prices.add(connection, model, given, begins, ends, note)
        after = _found(await read_models(connection), model)
        if _price(after, row.valid_from) is None:
            raise CommandError(
                f"no other price of {model} is known; give both --input and --output (0 where nothing comes out)"
            )
        now = datetime.now(UTC)
        when = now if row.valid_from < now and (ends is None or now < ends) else row.valid_from
        return row, list(_hints(before, after, given, when))


def _hints(before: ModelRow, after: ModelRow, given: Sequence[Rate], when: datetime) -> Iterator[str]:
    in_force = _own_rates(after, when)
    if hidden := sorted({rate.bucket.value for rate in given if rate not in in_force}):
        yield (
            f"At {when:%Y-%m-%d %H:%M} UTC other prices of {', '.join(hidden)} stand before these: they begin later; "
            f"see: tollway prices list --model {after.name}"
        )
    gone = _tiers(_price(before, when)) - _tiers(_price(after, when))
    if lost := sorted((bucket, tier) for bucket, tier in gone if bucket in {rate.bucket for rate in given}):
        buckets, tiers = (", ".join(dict.fromkeys(names)) for names in zip(*lost, strict=True))
        yield (
            f"The service tiers {tiers} have no price of their own for {buckets} any more; "
            f"to set one: --rate '{lost[0][0]}=…@{lost[0][1]}'"
        )


def _tiers(price: Price | None) -> set[tuple[Bucket, str]]:
    return {(rate.bucket, rate.tier) for rate in price.rates if rate.tier} if price is not None else set()


@app.command()
@command
async def remove(
    id: Annotated[int, typer.Argument(metavar="ID", min=1, max=2**63 - 1, help="As tollway prices list shows it.")],
) -> None:
    """Remove a price that was set here. What calls have cost stays; tollway prices rerate shows what it would be.

    \b
    Example:
      tollway prices remove 3
    """
    async with session() as opened:
        if not await prices.remove(opened.connection, id):
            raise CommandError(f"there is no price {id}; see: tollway prices list")
    say(f"price {id} is removed")


@app.command()
@command
async def diff(as_json: AsJson = False) -> None:
    """Compare what is set here with the built-in list, and the list that is in force with the one of this release.

    \b
    Shown are, as they hold now, of models that the list knows:
      set here   rates of rows and price columns, and what the list would say instead
      new list   rates that this release's list has otherwise than the one in the database; the gateway takes them over
                 when it starts

    \b
    Example:
      tollway prices diff --json
    """
    now = datetime.now(UTC)
    async with session() as opened:
        models = await read_models(opened.connection)
    differences = [one for row in models for one in _differences(row, now)]
    if as_json:
        show_json([one._asdict() for one in differences])
        return
    columns = ("model", "what", "bucket", "service tier", ">above tokens", ">$", ">by the list $", ">per")
    cells = [
        (one.model, one.what, one.bucket, one.tier or None, one.above or None, one.usd, one.listedUsd, one.per)
        for one in differences
    ]
    show_table(columns, cells, f"Nothing differs from the built-in list ({list_version()}).")


class Difference(NamedTuple):
    """One rate that the list has otherwise; members as in JSON."""

    model: str
    what: str
    bucket: str
    tier: str
    above: int
    per: int
    usd: Decimal | None
    """As it is now; None: there is none."""
    listedUsd: Decimal | None  # noqa: N815
    """As the list has it; None: it has none."""


def _differences(row: ModelRow, now: datetime) -> Iterable[Difference]:
    listed = listed_periods(row.provider, row.upstream_name or row.name)
    by_list = _rates_at(listed, now)
    try:
        own = _own_rates(row, now)
        stored = _rates_at(read_periods(row.listed), now) if row.listed is not None else []
    except ValueError as error:
        typer.echo(f"The prices of {row.name} cannot be used: {error}", err=True)
        return
    if not by_list and not stored:
        return
    in_force = overlaid(own, by_list)
    yield from _compared(row.name, "set here", in_force, by_list, {rate.bucket for rate in own})
    if row.listed is not None:
        yield from _compared(row.name, "new list", stored, by_list, set(Bucket))


def _compared(
    model: str, what: str, ours: Sequence[Rate], theirs: Sequence[Rate], buckets: set[Bucket]
) -> Iterable[Difference]:
    left, right = ({(rate.bucket, rate.tier, rate.above): rate for rate in rates} for rates in (ours, theirs))
    for key in sorted(left.keys() | right.keys()):
        bucket, tier, above = key
        one, other = left.get(key), right.get(key)
        if bucket in buckets and (one is None or other is None or one.usd * other.per != other.usd * one.per):
            per = (one or other or Rate(bucket, Decimal(0))).per
            listed = None if other is None else other.usd * per / other.per
            yield Difference(model, what, bucket, tier, above, per, None if one is None else one.usd, listed)


def _rates_at(periods: Sequence[Period], when: datetime) -> Sequence[Rate]:
    tariff = tariff_of(periods)
    price = None if tariff is None else tariff.at(when.timestamp())
    return [] if price is None else price.rates


def _price(row: ModelRow, when: datetime) -> Price | None:
    tariff = tariff_of_row(row)
    return None if tariff is None else tariff.at(when.timestamp())


def _own_rates(row: ModelRow, when: datetime) -> Sequence[Rate]:
    """What is set here, as it holds then."""
    own = read_own_prices(row.own_prices) if row.own_prices is not None else []
    return set_here(row.costs, [one for one in own if one.holds(when.timestamp())])


def _sources(row: ModelRow, when: datetime) -> Mapping[Rate, str]:
    columns = set(row.costs.rates)
    return {rate: "price columns" if rate in columns else "prices" for rate in _own_rates(row, when)}


def _found(models: Iterable[ModelRow], name: str) -> ModelRow:
    for row in models:
        if row.name == name:
            return row
    raise CommandError(f"there is no model {name!r}; see: tollway models list")


def _usd(text: str) -> Decimal:
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?|\.[0-9]+", text):
        raise typer.BadParameter(f"{text!r} is no price; write for example 2.5")
    return Decimal(text)


def _rate(text: str) -> Rate:
    match = _RATE.fullmatch(text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is no rate; write for example 'input=5>272000@priority'")
    bucket, usd, per, above, tier = match.groups()
    if bucket not in set(Bucket):
        raise typer.BadParameter(f"there is no bucket {bucket!r}; there are: {', '.join(Bucket)}")
    return Rate(Bucket(bucket), _usd(usd), int(per or PER_MILLION), int(above or 0), tier or "")


def _summary(row: PriceRow) -> str:
    try:
        return ", ".join(_short(rate) for rate in row.rates)
    except ValueError:
        return "cannot be read"


def _short(rate: Rate) -> str:
    per = f"/{rate.per}" if rate.per != PER_MILLION else ""
    above = f">{rate.above}" if rate.above else ""
    return f"{rate.bucket}={rate.usd:f}{per}{above}" + (f"@{rate.tier}" if rate.tier else "")


def _rate_members(rate: Rate) -> dict[str, object]:
    return {
        "bucket": rate.bucket.value,
        "usd": f"{rate.usd:f}",
        "per": rate.per,
        "above": rate.above,
        "tier": rate.tier or None,
        "minimum": rate.minimum,
    }


def _row_members(row: PriceRow) -> dict[str, object]:
    return {
        "id": row.id,
        "model": row.model,
        "validFrom": row.valid_from,
        "validUntil": row.valid_until,
        "rates": [_rate_members(rate) for rate in row.rates],
        "note": row.note,
        "createdAt": row.created_at,
        "createdBy": row.created_by,
    }
