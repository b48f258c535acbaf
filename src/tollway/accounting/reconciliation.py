"""What a provider says of a day, model and credential, beside what the ledger has of it."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date
from typing import NamedTuple

from tollway.accounting.provider_export import Exported

ALL_KEYS = ""
"""Where the credential of a row is not matched with a virtual key: all keys that are matched with none."""

_DATED = re.compile(r"-[0-9]{4}(-?[0-9]{2}-?[0-9]{2})?$")


_OPERATIONS: Mapping[str, Sequence[str]] = {
    "completions": ("chat/completions", "completions", "responses"),
    "embeddings": ("embeddings",),
    "moderations": ("moderations",),
    "images": ("images/",),
    "audio_speeches": ("audio/speech",),
    "audio_transcriptions": ("audio/transcriptions", "audio/translations"),
}
"""What OpenAI counts as which kind of usage: beginnings of paths."""


class Counted(NamedTuple):
    """What one side counts; None: it does not say."""

    requests: int | None = None
    input_tokens: int | None = None
    cached_input_tokens: int | None = None
    output_tokens: int | None = None

    def plus(self, other: "Counted") -> "Counted":
        """The sum of what either says."""
        return Counted(*map(_sum, self, other))


NOTHING = Counted(0, 0, 0, 0)


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

    @property
    def differs(self) -> bool:
        """In something that the provider says."""
        return any(one is not None and one != other for one, other in zip(self.theirs, self.ours, strict=True))


def compare(exported: Iterable[Exported], ours: Mapping[Group, Counted], matches: Mapping[str, str]) -> list[Compared]:
    """Both sides, group by group, in the order of days and models.

    ``ours`` is by virtual key; ``matches`` says which one works with which of the provider's credentials. A provider
    names a model's version where a call named the model: both are the same model here.
    """
    called = {group.model for group in ours}
    theirs: dict[Group, Counted] = {}
    told = Counted()
    for row in exported:
        group = Group(row.day, _as_called(row.model, called), matches.get(row.key, ALL_KEYS))
        counted = Counted(row.requests, row.input_tokens, row.cached_input_tokens, row.output_tokens)
        theirs[group] = theirs.get(group, Counted()).plus(counted)
        told = told.plus(counted)
    apart = set(matches.values())
    mine: dict[Group, Counted] = {}
    for group, counted in ours.items():
        merged = group if group.key_id in apart else group._replace(key_id=ALL_KEYS)
        mine[merged] = mine.get(merged, NOTHING).plus(counted)
    groups = sorted(theirs.keys() | mine.keys())
    nothing = Counted(*(None if one is None else 0 for one in told))  # as far as the export says anything
    return [Compared(group, theirs.get(group, nothing), mine.get(group, NOTHING)) for group in groups]


def operations_of(exported: Iterable[Exported]) -> list[str] | None:
    """Beginnings of the paths whose usage an export is of; None where it may be of all."""
    kinds = {row.kind for row in exported}
    return [path for kind in kinds for path in _OPERATIONS[kind]] if kinds <= _OPERATIONS.keys() else None


def _sum(one: int | None, other: int | None) -> int | None:
    return one + other if one is not None and other is not None else other if one is None else one


def _as_called(model: str, called: Collection[str]) -> str:
    if model in called:
        return model
    undated = _DATED.sub("", model)
    return next((one for one in (undated, f"{undated}-latest") if one in called), model)
