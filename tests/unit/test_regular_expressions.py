"""Every regular expression of the package is linear, whatever it meets: no text of a stranger's may stop the loop.

For each expression texts are made out of its own letters: a beginning that it likes, then one or two letters again and
again, then an end that it does not like. Those that take longest are measured again at two lengths, and their ratio
decides: four times the text may take four times as long, not sixteen.
"""

import importlib
import itertools
import pkgutil
import re
import re._parser as parser
from collections.abc import Callable, Iterator
from heapq import nlargest
from pathlib import Path
from typing import Any

import pytest

import tollway
from cpu_time import QUADRATIC, cpu_seconds, growth

SHORT, LONGER, LONG = 1_000, 16_000, 100_000
LETTERS = " \ta0Z;:=,./\\\"'<>[]{}()-_\r\n@&#"
EXEMPT = (
    "tollway.cli.",
    "tollway.settings",
    "tollway.__main__",
    "tollway.dataplane.__main__",
    "tollway.controlplane.__main__",
)
"""What meets only the texts of whoever runs the program, and what runs a process when it is imported."""

SOURCES = "".join(path.read_text() for path in Path(tollway.__path__[0]).rglob("*.py"))


def expressions() -> Iterator[tuple[str, Callable[[Any], object], re.Pattern[Any]]]:
    """All that a module of the package holds, also as a bound method or within a tuple, and how it is used."""
    for module in pkgutil.walk_packages(tollway.__path__, "tollway."):
        if module.name.startswith(EXEMPT) or ".migrations" in module.name:
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            for number, found in enumerate(_patterns(value)):
                bound = getattr(value, "__self__", None) is found
                for run in [value] if bound else ways_of(name, found):
                    yield f"{module.name}.{name}[{number}].{run.__name__}", run, found


def _patterns(value: object) -> Iterator[re.Pattern[Any]]:
    value = getattr(value, "__self__", value)
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _patterns(item)


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


def texts(pattern: re.Pattern[Any]) -> Iterator[tuple[str, str, str]]:
    own = sorted(letters_of(parser.parse(pattern.pattern, pattern.flags & ~re.DEBUG)))
    letters = list(dict.fromkeys([*own[:14], *LETTERS]))
    beginnings = beginnings_of(pattern)
    units = [*letters, *map("".join, itertools.permutations(letters[:9], 2)), *beginnings - {""}]
    units += [run + letter for run in beginnings - {""} for letter in (*letters[:20], '\\"')]
    yield from itertools.product(sorted(beginnings), units, ("", "\0"))


def text_of(pattern: re.Pattern[Any], made: tuple[str, str, str], length: int) -> str | bytes:
    beginning, unit, end = made
    text = beginning + unit * (length // len(unit)) + end
    return text if isinstance(pattern.pattern, str) else text.encode("latin-1", "replace")


def once(run: Callable[[Any], object], text: str | bytes) -> float:
    return cpu_seconds(lambda: run(text), runs=1)


def ways_of(name: str, pattern: re.Pattern[Any]) -> list[Callable[[Any], object]]:
    """How the package uses it: an expression that is only ever matched from one place need not be good at searching."""
    used = set(re.findall(rf"\b{re.escape(name)}\.(\w+)\b", SOURCES))
    ways = [pattern.search] if used & {"search", "sub", "findall", "finditer", "split"} else []
    ways += [pattern.match] if "match" in used else []
    ways += [pattern.fullmatch] if "fullmatch" in used else []
    return ways or [pattern.search, pattern.fullmatch]


def quadratic(run: Callable[[Any], object], pattern: re.Pattern[Any]) -> str | None:
    """A text that takes longer than its length explains; None for an expression that is linear."""
    taken = ((once(run, text_of(pattern, made, SHORT)), made) for made in texts(pattern))
    slowest = [made for _, made in nlargest(12, taken)]
    lengths = [(made, LONGER) for made in slowest] + [(made, LONG) for made in slowest[:3]]
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
