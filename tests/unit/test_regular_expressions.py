"""Every regular expression of the package is linear, whatever it meets: no text of a stranger's may stop the loop.

For each expression texts are made out of its own letters: a beginning that it likes, then one or two letters again and
again, then an end that it does not like. Those that take longest are measured again at two lengths, and their ratio
decides: four times the text may take four times as long, not sixteen.
"""

import ast
import importlib
import itertools
import re
import re._parser as parser
import sys
from collections.abc import Callable, Iterator, Mapping
from heapq import nlargest
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import tollway
from cpu_time import QUADRATIC, cpu_seconds, growth

SHORT, LONGER, LONG = 1_000, 16_000, 100_000
LETTERS = " \ta0Z;:=,./\\\"'<>[]{}()-_\r\n@&#"
PACKAGE = Path(tollway.__path__[0])
SOURCES = {path.relative_to(PACKAGE): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}
ALL_SOURCES = "".join(SOURCES.values())

MADE_LATER = {
    "observe/redact.py: '|'.join(alternatives)": r"sk\-one\-and|sk\-one\-or|another\ secret",
    "settings.py: f'[0-9A-Fa-f]{{{digits}}}'": "[0-9A-Fa-f]{64}",
}
"""Expressions that are put together in a function, and one of each."""


class Site(NamedTuple):
    """Where the package makes an expression, or uses one that stands right there."""

    path: Path
    line: int
    function: str
    """Of the module ``re``."""
    source: ast.expr

    def __str__(self) -> str:
        return f"{self.path}: {ast.unparse(self.source)}"

    def expression(self) -> re.Pattern[Any]:
        """The one that stands there, or one of those that are put together there."""
        source = self.source.value if isinstance(self.source, ast.Constant) else MADE_LATER.get(str(self))
        assert source is not None, f"nothing tells what this may be: give an example in MADE_LATER: {self}"
        return re.compile(source)


def sites() -> Iterator[Site]:
    """All of them, by the text of the package; also those that msgspec is told to search for."""
    for path, text in SOURCES.items():
        for node in ast.walk(ast.parse(text)):
            assert not (isinstance(node, ast.ImportFrom) and node.module == "re"), f"{path}: say re.…"
            if not isinstance(node, ast.Call):
                continue
            module, _, function = ast.unparse(node.func).rpartition(".")
            if module == "re" and function not in ("escape", "purge"):
                yield Site(path, node.lineno, function, node.args[0])
            for keyword in node.keywords:
                if function == "Meta" and keyword.arg == "pattern":
                    yield Site(path, node.lineno, "search", keyword.value)


def expressions() -> Iterator[tuple[str, Callable[[Any], object], re.Pattern[Any]]]:
    """Every expression of the package, and how it is used."""
    by_module = itertools.groupby(sites(), lambda site: site.path)
    for path, found in by_module:
        made, variables = imported(path)
        for site in found:
            if site.line in made and site.function == "compile":
                uses = [(use, each) for each in made[site.line] for use in ways_of(each, variables)]
            else:
                expression = site.expression()
                used_there = site.function in ("match", "fullmatch")
                uses = [(getattr(expression, site.function) if used_there else expression.search, expression)]
            for number, (run, expression) in enumerate(uses):
                yield f"{path}:{site.line}[{number}].{run.__name__}", run, expression


def imported(path: Path) -> tuple[Mapping[int, list[re.Pattern[Any]]], Mapping[str, object]]:
    """What a module has compiled by the time it is imported, wherever it keeps it, by line; and its variables."""
    made: dict[int, list[re.Pattern[Any]]] = {}

    def noted(pattern: Any, flags: int = 0) -> re.Pattern[Any]:
        caller, result = sys._getframe(1), really_compile(pattern, flags)
        if caller.f_code.co_filename == str(path):
            made.setdefault(caller.f_lineno, []).append(result)
        return result

    name = ".".join(("tollway", *path.with_suffix("").parts))
    importlib.import_module(name)  # what follows runs it once more, beside the one that all others use
    variables: dict[str, object] = {"__name__": name, "__file__": str(PACKAGE / path)}
    really_compile, re.compile = re.compile, noted  # type: ignore[assignment]
    try:
        exec(compile(SOURCES[path], str(path), "exec"), variables)
    finally:
        re.compile = really_compile
    return made, variables


def letters_of(tree: Any) -> set[str]:
    """The letters that the expression itself names."""
    found: set[str] = set()
    for item in tree:
        if isinstance(item, tuple) and len(item) == 2 and str(item[0]) in ("LITERAL", "NOT_LITERAL"):
            found.add(chr(item[1]))
        elif isinstance(item, tuple) and len(item) == 2 and str(item[0]) == "RANGE":
            found |= {chr(item[1][0]), chr(item[1][1])}
        elif isinstance(item, tuple | list | parser.SubPattern):
            found |= letters_of(item)
    return found


def beginnings_of(pattern: re.Pattern[Any]) -> set[str]:
    """Literal texts within it, which lead into its middle: the longest runs of plain letters."""
    source = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
    if pattern.flags & re.VERBOSE:
        source = re.sub(r"(?m)(?<!\\)\s+(?:#.*$)?", "", source)
    plain = re.sub(r"\\.|\[[^\]]*\]|[(){}|*+?^$.]", "\0", source)
    runs = sorted({run for run in plain.split("\0") if run}, key=len)[-4:]
    return {"", *runs, *(run + "a" for run in runs)}


def likes(tree: Any) -> Iterator[str]:
    """A short text that it matches, item by item; what may be missing is there once."""
    for operation, argument in tree:
        match str(operation):
            case "LITERAL":
                yield chr(argument)
            case "IN":
                yield next(likes(argument), "a")
            case "RANGE":
                yield chr(argument[0])
            case "CATEGORY":
                yield {"CATEGORY_DIGIT": "0", "CATEGORY_SPACE": " "}.get(str(argument), "a")
            case "ANY" | "NOT_LITERAL" | "NEGATE":
                yield "a"
            case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
                yield "".join(likes(argument[2])) * max(1, min(argument[0], 4))
            case "SUBPATTERN" | "ATOMIC_GROUP":
                yield from likes(argument[-1] if isinstance(argument, tuple) else argument)
            case "BRANCH":
                yield "".join(likes(argument[1][0]))


def texts(pattern: re.Pattern[Any]) -> Iterator[tuple[str, str, str]]:
    tree = parser.parse(pattern.pattern, pattern.flags & ~re.DEBUG)
    own = sorted(letters_of(tree))
    letters = list(dict.fromkeys([*own[:14], *LETTERS]))
    beginnings = beginnings_of(pattern)
    units = [*letters, *map("".join, itertools.permutations(letters[:9], 2)), *beginnings - {""}]
    units += [run + letter for run in beginnings - {""} for letter in (*letters[:20], '\\"')]
    yield from itertools.product(sorted(beginnings), units, ("", "\0"))
    starts = {*itertools.accumulate(likes(tree))} - {""}
    yield from itertools.product([""], sorted(starts, key=len)[-16:], ("", "\0"))


def text_of(pattern: re.Pattern[Any], made: tuple[str, str, str], length: int) -> str | bytes:
    beginning, unit, end = made
    text = beginning + unit * (length // len(unit)) + end
    return text if isinstance(pattern.pattern, str) else text.encode("latin-1", "replace")


def once(run: Callable[[Any], object], text: str | bytes) -> float:
    return cpu_seconds(lambda: run(text), runs=1)


def ways_of(pattern: re.Pattern[Any], variables: Mapping[str, object]) -> list[Callable[[Any], object]]:
    """How the package uses it: an expression that is only ever matched from one place need not be good at searching."""
    used: set[str] = set()
    for name, value in variables.items():
        if getattr(value, "__self__", None) is pattern:
            return [value]  # a bound method
        if value is pattern:
            used |= set(re.findall(rf"\b{re.escape(name)}\.(\w+)\b", ALL_SOURCES))
    ways = [pattern.search] if used & {"search", "sub", "findall", "finditer", "split"} else []
    ways += [pattern.match] if "match" in used else []
    ways += [pattern.fullmatch] if "fullmatch" in used else []
    return ways or [pattern.search, pattern.fullmatch]


def quadratic(run: Callable[[Any], object], pattern: re.Pattern[Any]) -> str | None:
    """A text that takes longer than its length explains; None for an expression that is linear."""
    taken = ((once(run, text_of(pattern, made, SHORT)), made) for made in texts(pattern))
    slowest = [made for _, made in nlargest(12, taken)]
    lengths = [(made, 4 * SHORT) for made in slowest]  # what is worse than quadratic would take for ever at more
    lengths += [(made, LONGER) for made in slowest] + [(made, LONG) for made in slowest[:3]]
    for made, length in lengths:
        if growth(run, text_of(pattern, made, length // 4), text_of(pattern, made, length)) > QUADRATIC:
            return repr(made)
    return None


@pytest.mark.parametrize(
    ("name", "run", "pattern"), list(expressions()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_an_expression_is_linear(name: str, run: Callable[[Any], object], pattern: re.Pattern[Any]) -> None:
    assert quadratic(run, pattern) is None


@pytest.mark.parametrize("source", [r"[ \t]*form-data[ \t]*(?:;a)*;?[ \t]*", r"a:[ \t]*(.*?)[ \t]*", r"<h\b.*?</h>"])
def test_one_that_is_not_is_found(source: str) -> None:
    pattern = re.compile(source, re.DOTALL)
    assert quadratic(pattern.search, pattern) or quadratic(pattern.fullmatch, pattern)
