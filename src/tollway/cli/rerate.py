"""``tollway prices rerate``."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, NamedTuple

import typer

from tollway.accounting.builtin_prices import listed_periods
from tollway.accounting.rerating import EXACT, Group, Sums, adjust, lock, rerated
from tollway.cli.session import session
from tollway.cli.words import AsJson, command, show_json, show_table
from tollway.domain.prices import Price
from tollway.domain.tariffs import Period, Tariff, read_own_prices, tariff_of
from tollway.routing.snapshot import ModelRow
from tollway.store.configuration import read_models

Day = Annotated[str, typer.Option("--from", metavar="DAY", help="The first day (UTC), such as 2027-01-31.")]
LastDay = Annotated[str, typer.Option("--to", metavar="DAY", help="The day after the last one.")]


class KeySums(NamedTuple):
    """One line of the table; amounts are US dollars."""

    key: str
    calls: int
    unknown: int
    """Of them no price is known now; they keep their cost."""
    billed: Decimal
    would_be: Decimal
    difference: Decimal


@command
async def rerate(
    since: Day,
    until: LastDay,
    model: Annotated[str | None, typer.Option(help="Only calls of this model, as clients named it.")] = None,
    key: Annotated[str | None, typer.Option(help="Only this key, by its id or its secret.")] = None,
    apply: Annotated[
        bool, typer.Option("--apply/--dry-run", help="Enter the difference; without it, it is only shown.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what the calls of some days would cost by the prices that are known now for the time of each call.

    With --apply the difference is entered: an adjustment for each key, model and day. The entries of the calls stay as
    they are. Doing it twice enters nothing twice.

    \b
    Examples:
      tollway prices rerate --from 2027-01-01 --to 2027-02-01
      tollway prices rerate --from 2027-01-01 --to 2027-02-01 --model gpt-5.6-sol --apply
    """
    begins, ends = _day(since), _day(until)
    if begins >= ends:
        raise typer.BadParameter("--to is the day after the last one, and later than --from")
    async with session() as opened:
        key_id = None if key is None else await opened.used_key(key)
        async with opened.connection.transaction():
            if apply:
                await lock(opened.connection)
            tariffs = Tariffs(await read_models(opened.connection))
            groups = await rerated(opened.connection, begins, ends, tariffs.price_at, model, key_id)
            cause = f"rerated by tollway prices, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
            entered = await adjust(opened.connection, groups.items(), cause) if apply else 0
    _show(_by_key(groups), entered, apply=apply, as_json=as_json)


class Tariffs:
    """Finds what the calls of a group cost, by the models as they are now and the list of this installation."""

    def __init__(self, models: Iterable[ModelRow]) -> None:
        self._models = {row.name: row for row in models}
        self._of = functools.cache(self._find)

    def price_at(self, group: Group, unix: float) -> Price | None:
        """At a time, Unix seconds."""
        tariff = self._of(group.model, group.provider, group.upstream_model)
        return None if tariff is None else tariff.at(unix)

    def _find(self, model: str, provider: str, upstream_model: str) -> Tariff | None:
        row = self._row(model, provider, upstream_model)
        try:
            return self._tariff(row, listed_periods(provider, upstream_model))
        except ValueError as error:
            name = model if row is None else row.name
            typer.echo(f"The prices of {name} cannot be used, so its calls keep their cost: {error}", err=True)
            return None

    @staticmethod
    def _tariff(row: ModelRow | None, listed: Sequence[Period]) -> Tariff | None:
        if row is None:
            return tariff_of(listed)
        own = read_own_prices(row.own_prices) if row.own_prices is not None else ()
        return tariff_of(listed, row.costs, own)

    def _row(self, model: str, provider: str, upstream_model: str) -> ModelRow | None:
        """The row that answered: the one that was asked for, one that it falls back to, or any other."""
        asked = self._models.get(model)
        names = [model, *((asked.fallback or ()) if asked is not None else ()), *self._models]
        rows = (self._models[name] for name in names if name in self._models)
        there = (provider, upstream_model)
        return next((row for row in rows if (row.provider, row.upstream_name or row.name) == there), None)


def _day(text: str) -> datetime:
    try:
        found = date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no day; write 2027-01-31") from None
    return datetime(found.year, found.month, found.day, tzinfo=UTC)


def _by_key(groups: Mapping[Group, Sums]) -> list[KeySums]:
    keys: dict[str, KeySums] = {}
    for group, sums in groups.items():
        before = keys.get(group.key_id, KeySums(group.key_id, 0, 0, Decimal(0), Decimal(0), Decimal(0)))
        keys[group.key_id] = KeySums(
            group.key_id,
            before.calls + sums.calls,
            before.unknown + sums.unknown,
            EXACT.add(before.billed, sums.billed),
            EXACT.add(before.would_be, sums.would_be),
            EXACT.add(before.difference, sums.difference),
        )
    return sorted(keys.values(), key=lambda one: (-abs(one.difference), one.key))


def _total(keys: Sequence[KeySums]) -> KeySums:
    amounts = (
        functools.reduce(EXACT.add, column, Decimal(0)) for column in zip(*(one[3:] for one in keys), strict=True)
    )
    return KeySums("total", sum(one.calls for one in keys), sum(one.unknown for one in keys), *amounts)


def _show(keys: list[KeySums], entered: int, *, apply: bool, as_json: bool) -> None:
    if as_json:
        members = [{"key": one.key, "calls": one.calls, "unknownCalls": one.unknown, **_amounts(one)} for one in keys]
        show_json({"keys": members, "adjustments": entered, "applied": apply})
        return
    columns = ("key", ">calls", ">not known", ">billed $", ">would be $", ">difference $")
    show_table(columns, [*keys, _total(keys)] if keys else [], "There are no calls in these days.")
    if keys:
        typer.echo(
            f"{entered} adjustments were entered." if apply else "Nothing was entered; to do so: --apply", err=True
        )


def _amounts(one: KeySums) -> dict[str, object]:
    return {"billed": f"{one.billed:f}", "wouldBe": f"{one.would_be:f}", "difference": f"{one.difference:f}"}
