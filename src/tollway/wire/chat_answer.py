"""Answers in OpenAI's format, for dialects that have to build them: every member that OpenAI's schema requires is here,
in its order, and nothing else.
"""

from typing import Literal

import msgspec

from tollway.domain.usage import Usage
from tollway.wire.json import UNSET, Raw, Unset

ID_PREFIX = "chatcmpl-"

FINISH_REASONS = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})
"""OpenAI's closed list."""


class CalledFunction(msgspec.Struct, gc=False):
    """Name and arguments; in a stream either may come without the other. ``arguments`` is JSON in a string."""

    name: str | Unset = UNSET
    arguments: str | Raw | Unset = UNSET


class ToolCall(msgspec.Struct, gc=False, kw_only=True):
    """A call, or in a stream a piece of one; then ``index`` says which, and only the first piece has id and type."""

    index: int | Unset = UNSET
    id: str | Unset = UNSET
    type: Literal["function"] | Unset = UNSET
    function: CalledFunction


class Message(msgspec.Struct, gc=False):
    """What the model said."""

    role: Literal["assistant"]
    content: str | None
    refusal: None = None
    tool_calls: list[ToolCall] | Unset = UNSET


class Choice(msgspec.Struct, gc=False):
    """One of ``n`` answers."""

    index: int
    message: Message
    finish_reason: str
    logprobs: None = None


class CachedTokens(msgspec.Struct, gc=False):
    """Details of the prompt's tokens."""

    cached_tokens: int


class TokenCounts(msgspec.Struct, gc=False):
    """The usage object."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens | Unset = UNSET


class Completion(msgspec.Struct, gc=False, kw_only=True):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: TokenCounts | Unset = UNSET
    service_tier: str | Unset = UNSET


class Delta(msgspec.Struct, gc=False):
    """What a chunk adds to a message."""

    role: Literal["assistant"] | Unset = UNSET
    content: str | Unset = UNSET
    tool_calls: list[ToolCall] | Unset = UNSET


class ChunkChoice(msgspec.Struct, gc=False):
    """What a chunk adds to one of ``n`` answers."""

    index: int
    delta: Delta
    logprobs: None = None
    finish_reason: str | None = None


class Chunk(msgspec.Struct, gc=False, kw_only=True):
    """One chunk of a stream. ``usage`` is null in every chunk but the last where the client asked for it."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: TokenCounts | Unset | None = UNSET


def token_counts(usage: Usage) -> TokenCounts:
    """The usage object for counts that were believed; its total is always their sum."""
    cached = CachedTokens(usage.cached_input_tokens) if usage.cached_input_tokens else UNSET
    return TokenCounts(usage.input_tokens, usage.output_tokens, usage.total_tokens, cached)
