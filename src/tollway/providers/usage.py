"""The usage object of an answer, in all its spellings: data of a stranger, believed only where it can be true.

Nearly all are told as OpenAI tells them and add up: those are read here. All else is read a second time, by the rule of
``usage_rule.py``.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Literal, TypeAlias

import msgspec
from msgspec.structs import replace

from tollway.domain.doubts import joined
from tollway.domain.usage import NO_OTHERS, Bucket, Usage
from tollway.providers.service_tier import tier_of, with_tier
from tollway.providers.usage_rule import Tokens, input_count, second_reading
from tollway.wire.json import UNREADABLE, UNSET, Raw, Unset, decoder, is_null

Nothing: TypeAlias = Literal[0] | None
"""A count that is left to the second reading where there is any."""


class _NoLifetimes(msgspec.Struct, gc=False):
    ttl_5m_tokens: Nothing = None
    ttl_30m_tokens: Nothing = None
    ttl_1h_tokens: Nothing = None
    ttl_12h_tokens: Nothing = None
    ephemeral_5m_input_tokens: Nothing = None
    ephemeral_1h_input_tokens: Nothing = None


class InputDetails(msgspec.Struct, gc=False):
    """What the input was made of."""

    cached_tokens: Tokens | None = None
    cache_write_tokens: Tokens | None = None
    audio_tokens: Nothing = None
    image_tokens: Nothing = None
    video_tokens: Nothing = None
    cache_creation_tokens: Nothing = None
    cache_read_input_tokens: Nothing = None
    cached_tokens_details: None = None
    cache_write_tokens_details: _NoLifetimes | None = None
    cache_creation: None = None


class OutputDetails(msgspec.Struct, gc=False):
    """What the output was made of."""

    reasoning_tokens: Tokens | None = None
    audio_tokens: Nothing = None
    image_tokens: Nothing = None
    video_tokens: Nothing = None
    thinking_tokens: Nothing = None


class _NoInputDetails(msgspec.Struct, gc=False):
    cached_tokens: Nothing = None
    audio_tokens: Nothing = None


class _NoSearches(msgspec.Struct, gc=False):
    web_search_requests: Nothing = None


class _Usual(msgspec.Struct, gc=False):
    """A usage object with nothing rare in it."""

    total_tokens: Tokens | None = None
    service_tier: Literal["standard", "default"] | None = None  # Mistral's, Anthropic's
    cached_prompt_text_tokens: Nothing = None
    cache_read_input_tokens: Nothing = None
    cache_creation_input_tokens: Nothing = None
    cache_creation: None = None
    reasoning_tokens: Nothing = None
    citation_tokens: Nothing = None
    num_search_queries: Nothing = None
    server_tool_use: _NoSearches | None = None
    server_tool_use_details: _NoSearches | None = None
    server_side_tool_usage_details: None = None
    tool_calls_details: None = None
    prompt_audio_seconds: Nothing = None
    seconds: Nothing = None
    generated_images: Nothing = None
    characters: Nothing = None
    pages_processed: Nothing = None


class FullCounts(_Usual, gc=False, kw_only=True):
    """As chat answers spell it."""

    prompt_tokens: Tokens
    completion_tokens: Tokens
    prompt_tokens_details: InputDetails | None = None
    completion_tokens_details: OutputDetails | None = None
    prompt_token_details: _NoInputDetails | None = None  # Mistral's, sic
    num_cached_tokens: Tokens | None = None  # Mistral's
    cached_tokens: Tokens | None = None  # Kimi's
    prompt_cache_hit_tokens: Tokens | None = None  # DeepSeek's


class _NewerCounts(_Usual, gc=False, kw_only=True):
    """As responses, images and sound spell it."""

    num_cached_tokens: Nothing = None
    cached_tokens: Nothing = None
    prompt_cache_hit_tokens: Nothing = None

    input_tokens: Tokens
    output_tokens: Tokens
    input_tokens_details: InputDetails | None = None
    output_tokens_details: OutputDetails | None = None
    input_token_details: _NoInputDetails | None = None
    output_token_details: _NoInputDetails | None = None


_decode_full = decoder(FullCounts)
_decode_newer = decoder(_NewerCounts)


def read_usage(raw: Raw) -> Usage | None:
    """The counts, or None where they are missing, negative, absurd, no integers, or all zero."""
    try:
        usage = usage_of(_decode_full(raw))
        if usage is not None:
            return usage
    except UNREADABLE:
        pass
    return _read_again(raw)


def read_relayed_usage(raw: Raw) -> Usage | None:
    """The same, quicker for answers of newer paths than those of chats."""
    try:
        newer = _decode_newer(raw)
    except UNREADABLE:
        return read_usage(raw)
    into, out, total = newer.input_tokens_details, newer.output_tokens_details, newer.total_tokens
    return _plain(newer.input_tokens, newer.output_tokens, total, into, out, 0) or _read_again(raw)


def read_image_usage(raws: Iterable[Raw]) -> Usage | None:
    """The counts of pictures that were made, one by one or all at once: what comes out is pictures, if nothing is told
    of it."""
    read = [usage for raw in raws if (usage := _of_images(raw)) is not None]
    if not read:
        return None
    others: Counter[str] = Counter()
    for usage in read:
        others.update(usage.others)
    return replace(
        read[-1],
        input=sum(usage.input for usage in read),
        output=sum(usage.output for usage in read),
        cache_read=sum(usage.cache_read for usage in read),
        reasoning=sum(usage.reasoning for usage in read),
        others=others or NO_OTHERS,
        doubt=joined(*dict.fromkeys(usage.doubt for usage in read)),
    )


class _OutputTold(msgspec.Struct, gc=False):
    output_tokens_details: Raw | Unset = UNSET
    output_token_details: Raw | Unset = UNSET


_decode_output_told = decoder(_OutputTold)


def _of_images(raw: Raw) -> Usage | None:
    usage = read_relayed_usage(raw)
    if usage is None or not usage.output:
        return usage
    told = _decode_output_told(raw)
    for details in (told.output_tokens_details, told.output_token_details):
        if not isinstance(details, Unset) and not is_null(details):
            return usage
    images = usage.output + usage.others.get(Bucket.OUTPUT_IMAGE, 0)
    return replace(usage, output=0, others={**usage.others, Bucket.OUTPUT_IMAGE: images})


def usage_of(full: FullCounts) -> Usage | None:
    """The counts of an object that adds up; None for one that has to be read a second time."""
    into, out = full.prompt_tokens_details, full.completion_tokens_details
    cached = full.num_cached_tokens or full.cached_tokens or full.prompt_cache_hit_tokens or 0
    return _plain(full.prompt_tokens, full.completion_tokens, full.total_tokens, into, out, cached)


def _read_again(raw: Raw) -> Usage | None:
    usage = second_reading(raw)
    return None if usage is None else with_tier(usage, tier_of(raw))


def _plain(
    prompt: int, completion: int, total: int | None, into: InputDetails | None, out: OutputDetails | None, cached: int
) -> Usage | None:
    written = reasoning = 0
    if into is not None:
        cached = into.cached_tokens or cached
        written = into.cache_write_tokens or 0
    if out is not None:
        reasoning = out.reasoning_tokens or 0
    if total is not None and total != prompt + completion:
        completion += reasoning  # perhaps it stands beside
        if total != prompt + completion:
            return None
    fresh, said = prompt - cached - written, completion - reasoning
    if not prompt or fresh < 0 or said < 0:
        return None
    if written:
        return Usage(fresh, said, cached, reasoning, {Bucket.CACHE_WRITE: written})
    return Usage(fresh, said, cached, reasoning)


class _InputCount(msgspec.Struct, gc=False):
    prompt_tokens: Tokens


_decode_input_count = decoder(_InputCount)


def read_input_usage(raw: Raw | Unset) -> Usage | None:
    """The count of an answer that has no output tokens, as embeddings have none; None as in :func:`read_usage`."""
    if isinstance(raw, Unset):
        return None
    try:
        tokens = _decode_input_count(raw).prompt_tokens
    except UNREADABLE:
        tokens = 0
    tokens = tokens or input_count(raw)
    return Usage(tokens, 0) if tokens else None


class _CachedCount(msgspec.Struct, gc=False):
    cached_tokens: Tokens | None = None


class _CachedCounts(_CachedCount, gc=False):
    prompt_tokens_details: _CachedCount | None = None
    prompt_token_details: _CachedCount | None = None
    num_cached_tokens: Tokens | None = None


_decode_cached = decoder(_CachedCounts)


def tells_cached(raw: Raw) -> bool:
    """Whether a usage object says how much of the prompt was cached, be it nothing."""
    try:
        counts = _decode_cached(raw)
    except UNREADABLE:
        return False
    details = (counts, counts.prompt_tokens_details, counts.prompt_token_details)
    told = any(each is not None and each.cached_tokens is not None for each in details)
    return told or counts.num_cached_tokens is not None
