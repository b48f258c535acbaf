"""What a provider says of a day, model and credential, beside what the ledger has of it."""

import re
from collections.abc import Collection, Iterable, Mapping
from datetime import date
from typing import NamedTuple

from tollway.accounting.provider_export import Exported

ALL_KEYS = ""
"""Where the credential of a row is not matched with a virtual key: all keys that are matched with none."""

_DATED = re.compile(r"-[0-9]{4}(-?[0-9]{2}-?[0-9]{2})?$")


class Counted(NamedTuple):
    """What one side counts."""

    requests: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0

    def plus(self, other: "Counted") -> "Counted":
        """The sum."""
        return Counted(*(ours + theirs for ours, theirs in zip(self, other, strict=True)))


class Group(NamedTuple):
    """What is compared."""

    day: date
    model: str
    key_id: str
    """A virtual key, or :data:`ALL_KEYS`."""


class Compared(NamedTuple):
    """Both sides of a group."""

    group: Group
    theirs: Counted
    ours: Counted


def compare(exported: Iterable[Exported], ours: Mapping[Group, Counted], matches: Mapping[str, str]) -> list[Compared]:
    """Both sides, group by group, in the order of days and models.

    ``ours`` is by virtual key; ``matches`` says which one works with which of the provider's credentials. A provider
    names a model's version where a call named the model: both are the same model here.
    """
    called = {group.model for group in ours}
    theirs: dict[Group, Counted] = {}
    for row in exported:
        group = Group(row.day, _as_called(row.model, called), matches.get(row.key, ALL_KEYS))
        theirs[group] = theirs.get(group, Counted()).plus(Counted(*row[3:]))
    apart = set(matches.values())
    mine: dict[Group, Counted] = {}
    for group, counted in ours.items():
        merged = group if group.key_id in apart else group._replace(key_id=ALL_KEYS)
        mine[merged] = mine.get(merged, Counted()).plus(counted)
    groups = sorted(theirs.keys() | mine.keys())
    return [Compared(group, theirs.get(group, Counted()), mine.get(group, Counted())) for group in groups]


def _as_called(model: str, called: Collection[str]) -> str:
    if model in called:
        return model
    undated = _DATED.sub("", model)
    return next((one for one in (undated, f"{undated}-latest") if one in called), model)
