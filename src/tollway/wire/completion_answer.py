"""Legacy completions in OpenAI's format, for dialects that have to build them. A chunk looks as a whole answer does."""

from typing import Literal

import msgspec

from tollway.wire.chat_answer import TokenCounts
from tollway.wire.chat_chunks import frame
from tollway.wire.json import UNSET, Unset, members
from tollway.wire.model_call import ModelCall

ID_PREFIX = "cmpl-"

FINISH_REASONS = frozenset({"stop", "length", "content_filter"})
"""OpenAI's closed list."""


class TextChoice(msgspec.Struct, gc=False, kw_only=True):
    """One of ``n`` texts, or in a stream a piece of one."""

    text: str
    index: int
    logprobs: None = None
    finish_reason: str | None


class TextCompletion(msgspec.Struct, gc=False, kw_only=True):
    """A whole answer, or a chunk; in chunks ``usage`` is null until the last where the client asked for it."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    usage: TokenCounts | Unset | None = UNSET


def frames_of_text(body: bytes, call: ModelCall) -> bytes:
    """A whole answer, on one line, as frames of a stream without ``[DONE]``. May raise UNREADABLE."""
    top: dict[str, object] = {**members(body)}
    usage = top.pop("usage", None)
    if not call.include_usage:
        return frame(top)
    frames = frame({**top, "usage": None})
    return frames if usage is None else frames + frame({**top, "choices": [], "usage": usage})
