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
    """What the model said. ``reasoning_content`` is no member of OpenAI's; clients that want it look for it there."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None = None
    reasoning_content: str | Unset = UNSET
    tool_calls: list[ToolCall] | Unset = UNSET
    function_call: CalledFunction | Unset = UNSET


class Alternative(msgspec.Struct, gc=False):
    """A token that might have stood there."""

    token: str
    logprob: Raw
    bytes: Raw = Raw(b"null")


class TokenLogprob(Alternative, gc=False):
    """A token and what might have stood in its place."""

    top_logprobs: list[Alternative] = []


class Logprobs(msgspec.Struct, gc=False):
    """How probable the tokens of a choice were."""

    content: list[TokenLogprob]
    refusal: None = None


class Choice(msgspec.Struct, gc=False):
    """One of ``n`` answers."""

    index: int
    message: Message
    logprobs: Logprobs | None
    finish_reason: str


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
    reasoning_content: str | Unset = UNSET
    refusal: str | Unset = UNSET
    tool_calls: list[ToolCall] | Unset = UNSET
    function_call: CalledFunction | Unset = UNSET


class ChunkChoice(msgspec.Struct, gc=False):
    """What a chunk adds to one of ``n`` answers."""

    index: int
    delta: Delta
    logprobs: Logprobs | None = None
    finish_reason: str | None = None


class Chunk(msgspec.Struct, gc=False, kw_only=True):
    """One chunk of a stream. ``usage`` is null in every chunk but the last where the client asked for it."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: TokenCounts | Unset | None = UNSET


def token_counts(usage: Usage, *, cached_told: bool) -> TokenCounts:
    """The usage object for counts that were believed; its total is always their sum.

    How much was cached is told where the provider told it, be it nothing."""
    cached = CachedTokens(usage.cached_input_tokens) if cached_told else UNSET
    return TokenCounts(usage.input_tokens, usage.output_tokens, usage.total_tokens, cached)
