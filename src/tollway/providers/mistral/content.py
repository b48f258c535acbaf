"""The content of Mistral's answers: text, or a list of chunks of which only some are for the reader."""

from typing import NamedTuple, TypeAlias

import msgspec

_UNDERSTOOD = frozenset({"text", "thinking", "reference", "tool_reference"})
"""References are left out in silence: they name no address that OpenAI's citations could carry."""

_MEDIA = frozenset({"image_url", "document_url", "file", "input_audio", "tool_file", "resource", "resource_link"})
"""For the reader, but without a place in OpenAI's answers: left out with a warning."""


class Part(msgspec.Struct, gc=False):
    """One chunk of a list."""

    type: str = "text"
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
    lost = {part.type if part.type in _MEDIA else "unknown" for part in content if part.type not in _UNDERSTOOD}
    return Said(text, thinking, tuple([f"dropped={kind}" for kind in sorted(lost)]))


def _thoughts(thinking: list[Part] | str | None) -> str:
    if isinstance(thinking, list):
        return "".join([part.text or "" for part in thinking if part.type == "text"])
    return thinking or ""
