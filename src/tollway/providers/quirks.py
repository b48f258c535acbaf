"""In what servers of one dialect differ from each other, as data: a provider's row names its quirks."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec


class Quirks(msgspec.Struct, frozen=True):
    """What to do for one provider. The defaults are those of OpenAI and of Mistral themselves, but for OpenAI's ranges:
    only its own row asks for them."""

    stream_options: bool = True
    max_completion_tokens: bool = True
    openai_ranges: bool = False
    logprobs: bool = False
    bridge: bool = True
    text_with_tool_calls: bool = True


USUAL = Quirks()


class Quirk(NamedTuple):
    """What one name in a row means."""

    changes: Mapping[str, bool]
    meaning: str


QUIRKS: Mapping[str, Quirk] = {
    "no_credential": Quirk({}, "it wants no Authorization header; a key that has a credential for it sends it"),
    "no_stream_options": Quirk(
        {"stream_options": False},
        "it does not know stream_options; its streams are billed by estimate unless usage comes unasked",
    ),
    "max_tokens_only": Quirk({"max_completion_tokens": False}, "it knows max_tokens and not max_completion_tokens"),
    "openai_ranges": Quirk(
        {"openai_ranges": True},
        "it is OpenAI itself: what is out of its ranges (5 stop sequences, a temperature of 3) is refused, not passed",
    ),
    "logprobs": Quirk({"logprobs": True}, "Mistral's dialect: it takes logprobs and top_logprobs"),
    "user_after_tool": Quirk({"bridge": False}, "Mistral's dialect: a user may speak directly after a tool"),
    "no_text_with_tool_calls": Quirk(
        {"text_with_tool_calls": False}, "Mistral's dialect: an assistant that calls tools may say nothing besides"
    ),
}
"""Every name that a row may hold; the database refuses others."""


def quirks_of(names: Iterable[str]) -> Quirks:
    """The quirks that these names stand for; a name that is not known changes nothing."""
    changes: dict[str, bool] = {}
    for name in names:
        if (quirk := QUIRKS.get(name)) is not None:
            changes |= quirk.changes
    return Quirks(**changes)
