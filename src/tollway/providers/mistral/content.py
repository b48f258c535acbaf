"""The content of Mistral's answers: text, or a list of chunks of which only some are for the reader."""

from typing import Literal, NamedTuple, TypeAlias, get_args

import msgspec

from tollway.providers.tidy import UNKNOWN_PART

_Understood: TypeAlias = Literal["text", "thinking", "reference", "tool_reference"]
"""References are left out in silence: they name no address that OpenAI's citations could carry."""

_Media: TypeAlias = Literal[
    "image_url", "document_url", "file", "input_audio", "tool_file", "resource", "resource_link"
]
"""For the reader, but without a place in OpenAI's answers: left out with a warning."""

PART_TYPES = frozenset((*get_args(_Understood), *get_args(_Media), UNKNOWN_PART))
"""Any other type is read a second time (``tidy.py``): it is a text, or unknown."""

_UNDERSTOOD = frozenset(get_args(_Understood))


class Part(msgspec.Struct, gc=False):
    """One chunk of a list."""

    type: _Understood | _Media | Literal["unknown"] = "text"
    text: str | None = None
    thinking: "list[Part] | str | None" = None


Content: TypeAlias = str | list[Part] | None


class Said(NamedTuple):
    """What a content says, each kind joined in order."""

    text: str
    thinking: str = ""
    warnings: tuple[str, ...] = ()
    """What could not be shown and would have been for the reader: ``dropped=image_url``."""


def said_in(content: Content) -> Said:
    """Never a list: client libraries pass one on to programs that expect text."""
    if not isinstance(content, list):
        return Said(content or "")
    text = "".join([part.text or "" for part in content if part.type == "text"])
    thinking = "".join([_thoughts(part.thinking) for part in content if part.type == "thinking"])
    lost = {part.type for part in content if part.type not in _UNDERSTOOD}
    return Said(text, thinking, tuple([f"dropped={kind}" for kind in sorted(lost)]))


def _thoughts(thinking: list[Part] | str | None) -> str:
    if isinstance(thinking, list):
        return "".join([part.text or "" for part in thinking if part.type == "text"])
    return thinking or ""
