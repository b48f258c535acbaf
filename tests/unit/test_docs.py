"""What the documentation says, compared with the code: limits, settings, links.

``python tests/unit/test_docs.py`` writes ``docs/settings.md`` and ``docs/database-url.md`` anew.
"""

import ast
import dataclasses
import importlib
import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import tollway
from tollway.domain.prices import UNPRICED_BUCKET, UNPRICED_TIER
from tollway.http1.limits import ClientLimits, ServerLimits
from tollway.settings import VARIABLES
from tollway.store.uri import PARAMETERS
from tollway.wire.structure import Bounds

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SOURCE = Path(tollway.__file__).parent
PAGES = sorted({*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *ROOT.glob("bench/*.md")})

NOT_LIMITS = {
    "domain.money.PICODOLLARS",  # a scale
    "domain.prices.PER_MILLION",  # what a price is for
    "domain.tariffs.DAY_S",  # a day
    "http1.exchange.OPEN",  # states
    "http1.exchange.STREAMING",
    "http1.exchange.ANSWERED",
    "http1.framing.NO_LIMIT",
    "http1.head.CHUNKED",  # kinds of framing
    "http1.head.UNTIL_CLOSE",
    "providers.mistral.parameters.SEEDS",  # Mistral's format
    "providers.mistral.tools.ID_CHARACTERS",
    "store.server_binaries.VERSION",
    "store.server_socket.PORT",  # part of a file's name
    "store.vault.IV_BYTES",  # AES's
    "store.vault.KEY_BYTES",
}
"""Public numbers that bound nothing. Every other one is a limit; of the private ones, those that are times."""

_UNITS = {"KiB": 1024, "MiB": 1024 * 1024}
_ROW = re.compile(r"\| `([\w.]+)` \| ([\d,.]+) \| ([^|]*) \| ([^|]+) \|")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def documented() -> dict[str, float]:
    """The rows of docs/limits.md: full name → value in the code's unit."""
    rows = _ROW.findall((DOCS / "limits.md").read_text(encoding="utf-8"))
    assert len({name for name, *_ in rows}) == len(rows), "a constant has two rows"
    return {name: float(value.replace(",", "")) * _UNITS.get(unit, 1) for name, value, unit, _ in rows}


def numbers() -> Iterator[tuple[str, float]]:
    """Every constant of the code that is a number, and every field of the HTTP limits."""
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        if parts[-1].startswith("__") or "migrations" in parts:
            continue
        module = importlib.import_module(".".join(("tollway", *parts)))
        for name in constants(path):
            value = getattr(module, name)
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                yield ".".join((*parts, name)), value
            elif isinstance(value, Bounds):
                for field in value.__struct_fields__:
                    yield ".".join((*parts, name, field)), getattr(value, field)
    for limits in (ServerLimits, ClientLimits):
        for field in dataclasses.fields(limits):
            yield f"http1.limits.{limits.__name__}.{field.name}", field.default


def constants(path: Path) -> Iterator[str]:
    """The UPPER_CASE names that a module gives a value of its own; what it imports is another module's."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        for target in targets:
            names = target.elts if isinstance(target, ast.Tuple) else [target]
            yield from (name.id for name in names if isinstance(name, ast.Name) and name.id.isupper())


def is_limit(name: str) -> bool:
    constant = name.rpartition(".")[2]
    return name not in NOT_LIMITS and (not constant.startswith("_") or constant.endswith(("_S", "_MS")))


def settings_page() -> str:
    """docs/settings.md, from the only list of settings that there is."""
    rows = [
        f"| `{variable.name}` | {_default(variable.shown_default, variable.default)} | {variable.meaning} |"
        for variable in VARIABLES
    ]
    return "\n".join(
        (
            "# Settings",
            "",
            "Environment variables, read once at start. One that cannot be used stops the start with a line that names",
            "it and the reason, exit code 2. `tollway serve --help` prints the same list.",
            "",
            "An empty variable counts as unset; an empty `ADMIN_KEY` or `ENCRYPTION_KEY` is refused.",
            "",
            "| name | default | meaning |",
            "| --- | --- | --- |",
            *rows,
            "",
            "Models, providers, prices, keys and their limits are not settings: they are rows of the database, and a",
            "change is in force within a second.",
            "",
        )
    )


def database_url_page() -> str:
    """docs/database-url.md, from the only list of libpq's parameters that there is."""
    rows = [
        f"| `{name}` | {f'`{parameter.variable}`' if parameter.variable else ''} | {parameter.meaning} |"
        for name, parameter in PARAMETERS.items()
    ]
    return "\n".join(
        (
            "# DATABASE_URL",
            "",
            "A URI as libpq takes it: `postgresql://user:password@host:port/database?parameter=value&…`. Several",
            "hosts, `[IPv6]` addresses, directories of Unix sockets (`?host=/run/postgresql`) and percent-encoded",
            "letters are fine. What the URI does not say is taken from libpq's environment variables, from `~/.pgpass`",
            "and from the certificates in `~/.postgresql`.",
            "",
            "What cannot be used stops the start with one line and exit code 2. A parameter that libpq does not know",
            "is refused, because it would not do what somebody meant it to; a setting of the server is written as",
            "`options=-c%20name%3Dvalue`.",
            "",
            "These are all parameters of libpq 18, and what becomes of each:",
            "",
            "| parameter | environment | what becomes of it |",
            "| --- | --- | --- |",
            *rows,
            "",
        )
    )


def _default(shown: str, default: str | None) -> str:
    return shown or (f"`{default}`" if default is not None else "unset")


def links() -> Iterator[tuple[Path, str]]:
    """Every relative link of the pages."""
    for page in PAGES:
        for target in _LINK.findall(page.read_text(encoding="utf-8")):
            if not re.match(r"[a-z]+:|#", target):
                yield page, target


def test_every_limit_of_the_code_has_a_row() -> None:
    missing = {name for name, _ in numbers() if is_limit(name)} - documented().keys()
    assert not missing


def test_every_row_says_what_the_code_says() -> None:
    code = dict(numbers())
    wrong = {name: (value, code.get(name)) for name, value in documented().items() if value != code.get(name)}
    assert not wrong, f"docs/limits.md, then the code: {wrong}"


def test_every_doubt_has_a_row() -> None:
    pattern = re.compile(r'^[A-Z_]+ = "([a-z_]+)"$', re.MULTILINE)
    doubts = pattern.findall((SOURCE / "domain" / "doubts.py").read_text(encoding="utf-8"))
    told = re.findall(r"^\| `([a-z_]+)` \|", (DOCS / "money.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert doubts
    assert {*doubts, UNPRICED_BUCKET, UNPRICED_TIER} <= set(told)


def test_what_is_said_to_be_no_limit_exists() -> None:
    assert not NOT_LIMITS - {name for name, _ in numbers()}


def test_the_page_of_settings_is_current() -> None:
    page = (DOCS / "settings.md").read_text(encoding="utf-8")
    assert page == settings_page(), "write it anew: python tests/unit/test_docs.py"


def test_the_page_of_libpqs_parameters_is_current() -> None:
    page = (DOCS / "database-url.md").read_text(encoding="utf-8")
    assert page == database_url_page(), "write it anew: python tests/unit/test_docs.py"


def test_the_readme_names_only_settings_that_exist() -> None:
    table = re.findall(r"^\| (`[A-Z].*?) \|", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    named = {name for cell in table for name in re.findall(r"`([A-Z_]+)`", cell)}
    assert named
    assert named <= {variable.name for variable in VARIABLES}


@pytest.mark.parametrize(("page", "target"), [pytest.param(*link, id=f"{link[0].name}: {link[1]}") for link in links()])
def test_every_link_leads_somewhere(page: Path, target: str) -> None:
    path, _, heading = target.partition("#")
    goal = page.parent / path
    assert goal.exists()
    if heading:
        lines = goal.read_text(encoding="utf-8").splitlines()
        titles = [line.lstrip("#").strip().lower() for line in lines if line.startswith("#")]
        assert heading in [re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles]


if __name__ == "__main__":
    (DOCS / "settings.md").write_text(settings_page(), encoding="utf-8")
    (DOCS / "database-url.md").write_text(database_url_page(), encoding="utf-8")


def test_every_row_that_a_test_is_named_after_is_explained() -> None:
    tests = ROOT / "tests"
    names = [
        name
        for folder in ("faults", "security")
        for path in (tests / folder).glob("test_*.py")
        for name in re.findall(r"def test_((?:[a-z]\d+_)+)", path.read_text(encoding="utf-8"))
    ]
    rows = {row.upper() for name in names for row in name.strip("_").split("_")}
    page = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    explained = {
        row.strip() for line in page.splitlines() if line.startswith("| ") for row in line.split("|")[1].split(",")
    }
    assert rows
    assert not rows - explained
