"""The names of quirks: what the database takes, what the documentation explains, what they change."""

import re
from pathlib import Path

import tollway
from tollway.providers.quirks import QUIRKS, USUAL, Quirks, quirks_of

SOURCE = Path(tollway.__file__).parent
DOCS = Path(__file__).parents[3] / "docs"


def test_the_database_takes_exactly_the_names_that_mean_something() -> None:
    steps = sorted((SOURCE / "store/migrations/versions").glob("*.sql"))
    checks = re.findall(r"quirks <@ ARRAY\[(.*?)\]", "".join(step.read_text("utf-8") for step in steps), re.DOTALL)
    assert set(re.findall(r"'(\w+)'", checks[-1])) == set(QUIRKS)


def test_every_quirk_is_explained() -> None:
    page = (DOCS / "adding-a-provider.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", page, re.MULTILINE))
    assert {name: rows.get(name) for name in QUIRKS} == {name: quirk.meaning for name, quirk in QUIRKS.items()}


def test_names_become_quirks_and_unknown_ones_nothing() -> None:
    assert quirks_of([]) == USUAL == Quirks()
    assert quirks_of(["max_tokens_only", "nothing"]) == Quirks(max_completion_tokens=False)
    assert all(quirks_of([name]) != USUAL for name, quirk in QUIRKS.items() if quirk.changes)
