"""The command line's words: help, values, and how things are shown."""

import json
import sys
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from tollway.cli import keys
from tollway.cli.app import app
from tollway.cli.words import CommandError, moment, show_fields, show_json, show_table
from tollway.settings import VARIABLES

WORDS = [
    "serve",
    "usage",
    "db url",
    "db psql",
    "db migrate",
    "keys create",
    "keys list",
    "keys show",
    "keys rotate",
    "keys revoke",
    "keys limits",
    "models list",
    "models sync",
    "prices list",
    "prices show",
    "prices set",
    "prices remove",
    "prices diff",
    "prices rerate",
    "ledger verify",
    "ledger explain",
    "ledger prune",
    "ledger reconcile",
]


def help_of(word: str) -> str:
    result = CliRunner().invoke(app, [*word.split(), "--help"])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("word", WORDS)
def test_every_word_has_help_with_an_example(word: str) -> None:
    text = help_of(word)
    assert "xample" in text or "tollway db psql -c" in text
    assert "tollway" in text


def test_these_are_all_the_words() -> None:
    def walk(command: object, path: str) -> list[str]:
        subcommands = getattr(command, "commands", None)
        if subcommands is None:
            return [path.strip()]
        return [word for name, one in subcommands.items() for word in walk(one, f"{path} {name}")]

    assert sorted(walk(get_command(app), "")) == sorted(WORDS)


def test_the_help_of_serve_lists_every_setting_with_its_default() -> None:
    text = help_of("serve")
    for variable in VARIABLES:
        assert f"\n    {variable.name}\n        {variable.meaning}\n" in text
        assert f"Default: {variable.shown_default or variable.default or 'unset'}." in text


def test_the_version_is_the_packages() -> None:
    from importlib.metadata import version

    assert CliRunner().invoke(app, ["--version"]).output == f"tollway {version('tollway')}\n"


@pytest.mark.parametrize("arguments", [["nonsense"], ["keys"], ["keys", "show"], ["usage", "--by", "moon"]])
def test_wrong_words_are_exit_code_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, arguments).exit_code == 2


@pytest.mark.parametrize(("text", "limit"), [("none", None), ("NONE", None), ("0", 0), ("2147483647", 2**31 - 1)])
def test_limits_are_numbers_or_none(text: str, limit: int | None) -> None:
    assert keys._limit(text) == limit


@pytest.mark.parametrize("text", ["", "-1", "1.5", "1_000", "2147483648", "many", "٣"])
def test_other_limits_are_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        keys._limit(text)


@pytest.mark.parametrize(("text", "seconds"), [("0s", 0), ("30m", 1800), ("24h", 86_400), ("7d", 604_800)])
def test_durations_have_a_unit(text: str, seconds: int) -> None:
    assert keys._duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "1w", "1.5h", "99999999d"])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        keys._duration(text)


def test_an_expiry_is_a_date_or_a_duration_in_the_future() -> None:
    assert keys._expiry("2999-01-31") == datetime(2999, 1, 31, tzinfo=UTC)
    assert timedelta(days=29) < keys._expiry("30d") - datetime.now(UTC) <= timedelta(days=30)
    for text in ("2020-01-01", "tomorrow", "0s"):
        with pytest.raises(typer.BadParameter):
            keys._expiry(text)


def test_moments_without_an_offset_are_utc() -> None:
    assert moment("2027-01-31") == datetime(2027, 1, 31, tzinfo=UTC)
    assert moment("2027-01-31T12:00:00+01:00") == datetime(2027, 1, 31, 12, tzinfo=timezone(timedelta(hours=1)))


def test_tables_keep_whole_words_and_show_nothing_unprintable(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("a\x1b[31mb", Decimal("0.000000000001"), None), ("[bold]" + "x" * 300, Decimal(5), ["p", "q"])]
    show_table(("name", ">cost", "list"), rows, "nothing")
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "a�[31mb" in shown
    assert "[bold]" + "x" * 300 in shown
    assert "0.000000000001" in shown
    assert "p, q" in shown


def test_a_long_table_is_plain_and_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    columns = ("name", ">cost", "list")
    rows: list[tuple[object, ...]] = [("a\n", Decimal("1E-7"), []), ("long name", Decimal(12), ["b", "c"])]
    show_table(columns, rows, "nothing")
    short = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    show_table(columns, rows * 200, "nothing")
    long = capsys.readouterr().out.splitlines()
    assert long[0] == short[0] and long[1].startswith("\u2500" * 9)
    assert long[2:4] == short[2:4] and len(long) == 402


def test_an_empty_table_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(("name",), [], "There is nothing.")
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "There is nothing.\n")


def test_fields_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    show_fields((("id", "key_1"), ("made", datetime(2027, 1, 31, 12, 30, tzinfo=UTC))))
    assert capsys.readouterr().out == "id    key_1\nmade  2027-01-31 12:30 UTC\n"


def test_json_keeps_money_exact(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    show_json({"cost": Decimal("0.1000000000000000055"), "name": "ü"})
    assert json.loads(capfdbinary.readouterr().out) == {"cost": "0.1000000000000000055", "name": "ü"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full on this system")
def test_a_full_disk_is_not_blamed_on_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(CommandError, match="No space left"):
            show_json({"a": 1})
