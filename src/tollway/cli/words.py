"""What the commands have in common: how they run, how they fail, how they show what they found."""

import asyncio
import functools
import os
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, ParamSpec

import msgspec
import typer

from tollway.home import StartError
from tollway.store.outage import AWAY, WRONG, in_one_line
from tollway.wire.json import encode

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

_MAX_LAID_OUT = 200
"""Rows of a table that is fitted to the screen."""

P = ParamSpec("P")


class CommandError(Exception):
    """A command that cannot do what it was asked to; its text is for the person who asked. Exit code 1."""


def group(help_text: str) -> typer.Typer:
    """A group of commands, all with the same manners."""
    return typer.Typer(
        help=help_text,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )


def command(work: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """A coroutine as a command: what goes wrong is one line and exit code 1, or 2 where a setting is at fault."""

    @functools.wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            asyncio.run(work(*args, **kwargs))
        except StartError as error:
            _fail(str(error), 2)
        except CommandError as error:
            _fail(str(error), 1)
        except (*AWAY, *WRONG) as error:
            _fail(f"PostgreSQL: {in_one_line(error)}", 1)

    return run


@contextmanager
def _output() -> Iterator[None]:
    """Around everything that is printed: a reader that has seen enough is no error, a full disk is not PostgreSQL's."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what the interpreter flushes at its end
        raise typer.Exit from None
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise CommandError(f"cannot write the output: {error.strerror}") from None


def show_json(value: object) -> None:
    """Print a value as indented JSON; amounts of money are strings, so that no reader rounds them."""
    with _output():
        sys.stdout.buffer.write(msgspec.json.format(encode(value), indent=2) + b"\n")


def show_table(columns: Sequence[str], rows: Sequence[Sequence[object]], nothing: str) -> None:
    """Print a table; a column whose name begins with ``>`` is set to the right. ``nothing`` is said without rows."""
    if not rows:
        typer.echo(nothing, err=True)
    elif len(rows) > _MAX_LAID_OUT:
        show_text(_plain(columns, rows))
    else:
        _lay_out(columns, rows)


def show_text(text: str) -> None:
    """Print a text that is whole already."""
    with _output():
        sys.stdout.write(text)


def _plain(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A long table in a hundredth of the time: no line is folded, every character is one wide."""
    cells = [[name.removeprefix(">") for name in columns], *([_cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    sides = [">" if name.startswith(">") else "<" for name in columns]
    form = "   ".join(f"{{:{side}{width}}}" for side, width in zip(sides, widths, strict=True))
    head, *lines = (form.format(*row).rstrip() for row in cells)
    return "\n".join([head, "\u2500" * len(form.format(*cells[0])), *lines, ""])


def _lay_out(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        justify: Literal["right", "left"] = "right" if column.startswith(">") else "left"
        table.add_column(column.removeprefix(">"), justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*map(_cell, row))
    # A pipe has no width: lines are as long as they need to be, so that other programs find whole words.
    with _output():
        Console(width=None if sys.stdout.isatty() else 1000, markup=False, highlight=False, emoji=False).print(table)


def say(text: str) -> None:
    """Print a line."""
    show_text(f"{text}\n")


def show_fields(fields: Sequence[tuple[str, object]]) -> None:
    """Print one thing, a line for each of its properties."""
    width = max(len(name) for name, _ in fields)
    with _output():
        for name, value in fields:
            typer.echo(f"{name:<{width}}  {_cell(value)}")


def moment(text: str) -> datetime:
    """A point in time written as ``2027-01-31``, ``2027-01-31T12:00:00+01:00``; without an offset UTC.

    In UTC. Raises typer.BadParameter.
    """
    try:
        found = datetime.fromisoformat(text)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{text!r} is no date; write 2027-01-31 or 2027-01-31T12:00:00+01:00") from None


def _cell(value: object) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case datetime():
            return f"{value.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        case Decimal():
            return f"{value:f}"
        case str():
            return "".join(letter if letter.isprintable() else "�" for letter in value)
        case list() | tuple():
            return ", ".join(map(_cell, value)) or "-"
        case _:
            return str(value)


def _fail(text: str, code: int) -> None:
    typer.echo(f"tollway: {text}", err=True)
    raise typer.Exit(code)
