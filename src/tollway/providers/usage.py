"""The usage object of an answer, in all its spellings: data of a stranger, believed only where it can be true."""

from typing import Annotated, TypeAlias

import msgspec

from tollway.domain.usage import Usage, told
from tollway.wire.json import UNREADABLE, UNSET, Raw, Unset, decoder, is_null

MAX_TOKENS = 1_000_000_000
"""No call uses more: a hundred times the longest context. A larger count is an error, not a bill."""

Tokens: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=MAX_TOKENS)]
"""A count that can be believed."""


class InputDetails(msgspec.Struct, gc=False):
    """What the input was made of."""

    cached_tokens: Tokens | None = None


class OutputDetails(msgspec.Struct, gc=False):
    """What the output was made of."""

    reasoning_tokens: Tokens | None = None


class _Counts(msgspec.Struct, gc=False):
    prompt_tokens: Tokens
    completion_tokens: Tokens


class FullCounts(_Counts, gc=False):
    """A usage object that is right in all that is looked at."""

    prompt_tokens_details: InputDetails | None = None
    prompt_token_details: InputDetails | None = None  # Mistral's, sic
    num_cached_tokens: Tokens | None = None  # Mistral's
    completion_tokens_details: OutputDetails | None = None


_decode_full = decoder(FullCounts)
_decode_counts = decoder(_Counts)


def read_usage(raw: Raw) -> Usage | None:
    """The counts, or None where they are missing, negative, absurd or no integers. Zero stays zero.

    Details that cannot be true are left out; a part is never larger than its whole.
    """
    try:
        return usage_of(_decode_full(raw))
    except UNREADABLE:
        return _only_counts(raw)


def read_full(raw: Raw) -> FullCounts | None:
    """The usage object, if it is right in all that is looked at."""
    try:
        return _decode_full(raw)
    except UNREADABLE:
        return None


def usage_of(full: FullCounts) -> Usage:
    """The counts; a part is never larger than its whole."""
    details = full.completion_tokens_details
    reasoning = (details.reasoning_tokens or 0) if details is not None else 0
    return told(full.prompt_tokens, full.completion_tokens, _cached(full) or 0, reasoning)


class _InputCount(msgspec.Struct, gc=False):
    prompt_tokens: Tokens


_decode_input_count = decoder(_InputCount)


def read_input_usage(raw: Raw | Unset) -> Usage | None:
    """The count of an answer that has no output tokens, as embeddings have none; None as in :func:`read_usage`."""
    if isinstance(raw, Unset):
        return None
    try:
        return Usage(_decode_input_count(raw).prompt_tokens, 0)
    except UNREADABLE:
        return None


class _Said(msgspec.Struct, gc=False):
    content: Raw | Unset = UNSET
    reasoning_content: Raw | Unset = UNSET
    refusal: Raw | Unset = UNSET
    tool_calls: Raw | Unset = UNSET


class _SayingChoice(msgspec.Struct, gc=False):
    message: _Said | None = None


class _SayingReply(msgspec.Struct, gc=False):
    choices: list[_SayingChoice]


_decode_said = decoder(_SayingReply)


def said_bytes(body: bytes) -> int:
    """How many bytes of a whole answer in OpenAI's format are what the model said: to bill it without its usage."""
    try:
        choices = _decode_said(body).choices
    except UNREADABLE:
        return 0
    size = 0
    for choice in choices:
        if said := choice.message:
            for raw in (said.content, said.reasoning_content, said.refusal, said.tool_calls):
                if not isinstance(raw, Unset) and not is_null(raw):
                    size += len(raw) - 2  # without the quotes or brackets
    return size


def has_cached(full: FullCounts) -> bool:
    """Whether the usage object says how much of the prompt was cached."""
    return _cached(full) is not None


def _cached(full: FullCounts) -> int | None:
    """The first of the three spellings, newest first."""
    if (details := full.prompt_tokens_details) is not None and details.cached_tokens is not None:
        return details.cached_tokens
    if full.num_cached_tokens is not None:
        return full.num_cached_tokens
    return None if (details := full.prompt_token_details) is None else details.cached_tokens


def _only_counts(raw: Raw) -> Usage | None:
    try:
        counts = _decode_counts(raw)
    except UNREADABLE:
        return None
    return Usage(counts.prompt_tokens, counts.completion_tokens)
