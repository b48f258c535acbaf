"""The second reading of a usage object: every spelling that servers are known to use, and one rule for contradictions.

1. A count is an integer from 0 to :data:`MAX_TOKENS`; what is none counts as not told. Of several spellings of a count
   the first above zero holds.
2. Of prompt, completion and total, one that is not told follows from the other two, in doubt (``untrue_count``) if
   something else stood in its place. Of one count alone that one is believed, and what is missing left open.
3. Parts are inside their whole, unless exactly this adds up to the total: reasoning beside the completion (xAI), caches
   in Anthropic's spelling beside the prompt, or both. Without a total such caches stand beside ``input_tokens``, as at
   Anthropic; ``prompt_tokens`` hold them, if they are not smaller. What is larger than the prompt is
   never in it.
4. A total that nothing adds up to is in doubt (``total_differs``). If it is larger, the rest is output: thoughts that
   nobody told. If it is smaller, the counts hold.
5. A part is never larger than its whole. Each gets what those before it have left, caches first; what is too much is
   dropped, in doubt (``parts_exceed_whole``).
6. No prompt has 0 tokens: of zeros nothing is believed.

Two servers count beside the total as they document it, so without a doubt: Mistral leaves the tokens of a sound to the
total and bills its seconds; Perplexity, known by its citations and searches, bills the reasoning in addition to them.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, NamedTuple, Self, TypeAlias

import msgspec

from tollway.domain.doubts import OUTPUT_UNTOLD, PARTS_EXCEED_WHOLE, SPLIT_UNTOLD, TOTAL_DIFFERS, UNTRUE_COUNT, joined
from tollway.domain.usage import NO_OTHERS, Bucket, Usage
from tollway.wire.json import UNREADABLE, Raw, decoder, is_null, is_text, members
from tollway.wire.top_members import MAX_MEMBER_BYTES

MAX_TOKENS = 1_000_000_000
"""No call uses more: a hundred times the longest context. A larger count is an error, not a bill."""

Tokens: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=MAX_TOKENS)]
"""A count that can be believed."""

_PROMPT = ("prompt_tokens", "input_tokens")
_COMPLETION = ("completion_tokens", "output_tokens")
_INTO = ("prompt_tokens_details", "input_tokens_details", "input_token_details", "prompt_token_details")
_OUT = ("completion_tokens_details", "output_tokens_details", "output_token_details")
_CACHED = ("num_cached_tokens", "cached_tokens", "prompt_cache_hit_tokens", "cached_prompt_text_tokens")
"""Of Mistral, Kimi, DeepSeek and xAI, beside the details that all others have."""

_LIFETIMES = (
    (Bucket.CACHE_WRITE_5M, ("ephemeral_5m_input_tokens", "ttl_5m_tokens")),
    (Bucket.CACHE_WRITE_30M, ("ttl_30m_tokens",)),
    (Bucket.CACHE_WRITE_1H, ("ephemeral_1h_input_tokens", "ttl_1h_tokens")),
    (Bucket.CACHE_WRITE_12H, ("ttl_12h_tokens",)),
)
_LIFETIME_DETAILS = ("cache_write_tokens_details", "cache_creation")
_MODALITIES = (
    ("audio_tokens", Bucket.INPUT_AUDIO, Bucket.CACHE_READ_AUDIO, Bucket.OUTPUT_AUDIO),
    ("image_tokens", Bucket.INPUT_IMAGE, Bucket.CACHE_READ_IMAGE, Bucket.OUTPUT_IMAGE),
    ("video_tokens", Bucket.INPUT_VIDEO, Bucket.CACHE_READ_VIDEO, Bucket.OUTPUT_VIDEO),
)
_XAI = "server_side_tool_usage_details"
_UNITS: tuple[tuple[Bucket, tuple[str, ...], str], ...] = (
    (Bucket.WEB_SEARCHES, (), "num_search_queries"),  # Perplexity
    (Bucket.WEB_SEARCHES, ("tool_calls_details", "search_web"), "invocation"),
    (Bucket.WEB_SEARCHES, ("server_tool_use",), "web_search_requests"),  # Anthropic, OpenRouter
    (Bucket.WEB_SEARCHES, ("server_tool_use_details",), "web_search_requests"),
    (Bucket.WEB_SEARCHES, (_XAI,), "web_search_calls"),
    (Bucket.SOCIAL_SEARCHES, (_XAI,), "x_search_calls"),
    (Bucket.STORAGE_SEARCHES, (_XAI,), "file_search_calls"),
    (Bucket.CODE_EXECUTIONS, (_XAI,), "code_interpreter_calls"),
    (Bucket.IMAGES, (), "generated_images"),
    (Bucket.CHARACTERS, (), "characters"),
    (Bucket.PAGES, (), "pages_processed"),
)
"""What is no token: bucket, the objects that it stands in, its name."""
_SECONDS = ("prompt_audio_seconds", "seconds")

_NAMES_OF_LIFETIMES = frozenset(_LIFETIME_DETAILS)
_NAMES_OF_MODALITIES = frozenset(name for name, *_ in _MODALITIES)
_NAMES_OF_UNITS = frozenset([*_SECONDS, *(where[0] if where else name for _, where, name in _UNITS)])


def second_reading(raw: Raw) -> Usage | None:
    """The counts, or None where nothing of them can be believed."""
    said = _Said.of(raw)
    units = _units(said)
    wholes = _wholes(said, sounds=Bucket.INPUT_AUDIO_MS in units)
    if wholes is None or not wholes.prompt + wholes.completion:
        return Usage(0, 0, others=units) if units else None
    if max(wholes.prompt, wholes.completion) > MAX_TOKENS:
        return None
    into, out = _Whole(wholes.prompt), _Whole(wholes.completion)
    others: dict[str, int] = {}
    cache_read = _divide_prompt(into, said, wholes.parts, others)
    reasoning = out.take(wholes.parts.reasoning)
    details = said.inner(*_OUT)
    if details.has(_NAMES_OF_MODALITIES):
        for name, _, _, bucket in _MODALITIES:
            others[bucket] = out.take(details.count(name) or 0)
    others[Bucket.CITATION] = wholes.parts.citations
    others |= units
    doubt = joined(wholes.doubt, PARTS_EXCEED_WHOLE if into.exceeded or out.exceeded else "")
    counted = {bucket: count for bucket, count in others.items() if count}
    told = not wholes.open
    return Usage(into.left, out.left, cache_read, reasoning, counted or NO_OTHERS, measured=told, doubt=doubt)


def input_count(raw: Raw) -> int:
    """The prompt of an answer that has no output, in any spelling; 0 where nothing can be believed."""
    said = _Said.of(raw)
    return said.count(*_PROMPT) or said.count("total_tokens") or 0


class _Said:
    """The members of an object, none where it is no object."""

    __slots__ = ("_members",)

    def __init__(self, given: Mapping[str, Raw]) -> None:
        self._members = given

    @classmethod
    def of(cls, raw: Raw) -> Self:
        """What is no object, or too long to be meant, says nothing."""
        try:
            return cls({} if len(raw) > MAX_MEMBER_BYTES else members(raw))
        except UNREADABLE:
            return cls({})

    def count(self, *names: str) -> int | None:
        """The first of these counts above zero, else 0, or None where none of them can be believed."""
        found = None
        for name in names:
            if (raw := self._members.get(name)) is not None:
                try:
                    found = _decode_tokens(raw)
                except UNREADABLE:
                    continue
                if found:
                    break
        return found

    def milliseconds(self, *names: str) -> int:
        """The first of these numbers of seconds, which may be fractions."""
        for name in names:
            raw = self._members.get(name)
            try:
                seconds = Decimal(0) if raw is None or is_text(raw) else _decode_seconds(raw)
            except UNREADABLE:
                continue
            if 0 < seconds <= MAX_TOKENS // 1000:
                return int((seconds * 1000).to_integral_value())
        return 0

    def has(self, names: frozenset[str]) -> bool:
        """Whether any of these members is there at all, for the short way past what is not."""
        return not names.isdisjoint(self._members)

    def tells(self, *names: str) -> bool:
        """Whether there is anything under one of these names."""
        return any(name in self._members and not is_null(self._members[name]) for name in names)

    def inner(self, *names: str) -> "_Said":
        """The objects of these names as one; the first ones hold."""
        told = [name for name in names if name in self._members]
        if not told:
            return _NOTHING
        inside: dict[str, Raw] = {}
        for name in reversed(told):
            given = _Said.of(self._members[name])._members
            inside |= {each: raw for each, raw in given.items() if not is_null(raw)}
        return _Said(inside)


_NOTHING = _Said({})
_decode_tokens = decoder(Tokens)
_decode_seconds = decoder(Decimal)


class _Whole:
    """Gives its parts what is left of it."""

    __slots__ = ("exceeded", "left")

    def __init__(self, size: int) -> None:
        self.left = size
        self.exceeded = False

    def take(self, part: int) -> int:
        """As much of it as there is."""
        taken = min(part, self.left)
        self.exceeded = self.exceeded or taken < part
        self.left -= taken
        return taken


class _Parts(NamedTuple):
    """What the wholes are made of, as it was told."""

    cache_read: int
    cache_written: int
    reasoning: int
    citations: int
    """Never a part of the completion."""
    apart: int
    """Of the caches what is told in Anthropic's spelling, so that it may stand beside the prompt."""


class _Wholes(NamedTuple):
    prompt: int
    completion: int
    parts: _Parts
    doubt: str = ""
    open: bool = False
    """Not all was told, or follows from what was."""


def _parts(said: _Said) -> _Parts:
    into = said.inner(*_INTO)
    inside = into.count("cached_tokens", "cache_read_input_tokens") or said.count(*_CACHED) or 0
    read = inside or said.count("cache_read_input_tokens") or 0
    written_inside = into.count("cache_write_tokens", "cache_creation_tokens") or _lifetimes(into) or 0
    written = written_inside or said.count("cache_creation_input_tokens") or _lifetimes(said) or 0
    return _Parts(
        cache_read=read,
        cache_written=written,
        reasoning=said.inner(*_OUT).count("reasoning_tokens", "thinking_tokens") or said.count("reasoning_tokens") or 0,
        citations=said.count("citation_tokens") or 0,
        apart=(0 if inside else read) + (0 if written_inside else written),
    )


def _lifetimes(said: _Said) -> int:
    if not said.has(_NAMES_OF_LIFETIMES):
        return 0
    lifetimes = said.inner(*_LIFETIME_DETAILS)
    return sum(lifetimes.count(*names) or 0 for _, names in _LIFETIMES)


def _wholes(said: _Said, *, sounds: bool) -> _Wholes | None:
    parts = _parts(said)
    prompt, completion, total = said.count(*_PROMPT), said.count(*_COMPLETION), said.count("total_tokens")
    if prompt is None or completion is None:
        return _completed(said, prompt, completion, total, parts)
    if parts.citations or (said.count("reasoning_tokens") and said.tells("citation_tokens", "num_search_queries")):
        return _Wholes(prompt, completion + parts.reasoning, parts)
    if total is None:
        return _Wholes(_with_caches(said, prompt, parts), completion, parts)
    for thoughts, caches in ((0, 0), (parts.reasoning, 0), (0, parts.apart), (parts.reasoning, parts.apart)):
        if prompt + completion + thoughts + caches == total and (caches or parts.apart <= prompt):
            return _Wholes(prompt + caches, completion + thoughts, parts)
    if sounds and total > prompt + completion:
        return _Wholes(prompt, completion, parts)
    if parts.apart > prompt:
        prompt += parts.apart
    return _Wholes(prompt, max(completion, total - prompt), parts, TOTAL_DIFFERS)


def _with_caches(said: _Said, prompt: int, parts: _Parts) -> int:
    """The whole prompt, where no total says whether caches in Anthropic's spelling stand beside it."""
    beside = parts.apart > prompt or not said.tells(_PROMPT[0])
    return prompt + parts.apart if beside else prompt


def _completed(
    said: _Said, prompt: int | None, completion: int | None, total: int | None, parts: _Parts
) -> _Wholes | None:
    """With the one that is missing from the total; else with nothing in its place."""
    known = completion if prompt is None else prompt
    if known is None:
        return None if total is None else _Wholes(total, 0, parts, SPLIT_UNTOLD, open=True)
    if total is None:
        if prompt is None:
            return _Wholes(0, known, parts, open=True)
        return _Wholes(_with_caches(said, prompt, parts), 0, parts, OUTPUT_UNTOLD, open=True)
    if known > total:
        return None
    doubt = UNTRUE_COUNT if said.tells(*(_PROMPT if prompt is None else _COMPLETION)) else ""
    rest = total - known
    return _Wholes(rest, known, parts, doubt) if prompt is None else _Wholes(known, rest, parts, doubt)


def _divide_prompt(whole: _Whole, said: _Said, parts: _Parts, others: dict[str, int]) -> int:
    """Fills in what the prompt is made of; returns what of it was read from a cache, and has no bucket of its own."""
    into = said.inner(*_INTO)
    cached = _Whole(whole.take(parts.cache_read))
    written = _Whole(whole.take(parts.cache_written))
    cached_details = into.inner("cached_tokens_details")
    if into.has(_NAMES_OF_MODALITIES) or cached_details.has(_NAMES_OF_MODALITIES):
        for name, fresh, from_cache, _ in _MODALITIES:
            others[from_cache] = cached.take(cached_details.count(name) or 0)
            others[fresh] = whole.take(max(0, (into.count(name) or 0) - others[from_cache]))
    for holder in (into, said):
        if holder.has(_NAMES_OF_LIFETIMES):
            lifetimes = holder.inner(*_LIFETIME_DETAILS)
            for bucket, names in _LIFETIMES:
                others[bucket] = others.get(bucket, 0) or written.take(lifetimes.count(*names) or 0)
    others[Bucket.CACHE_WRITE] = written.left
    whole.exceeded = whole.exceeded or cached.exceeded or written.exceeded
    return cached.left


def _units(said: _Said) -> dict[str, int]:
    if not said.has(_NAMES_OF_UNITS):
        return {}
    units = {Bucket.INPUT_AUDIO_MS: said.milliseconds(*_SECONDS)}
    for bucket, where, name in _UNITS:
        holder = said
        for each in where:
            holder = holder.inner(each)
        units[bucket] = units.get(bucket, 0) or holder.count(name) or 0
    return {bucket: count for bucket, count in units.items() if count}
