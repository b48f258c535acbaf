"""What a call used, in buckets that do not overlap: each token and each unit is counted, and billed, once."""

import re
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

import msgspec

NO_OTHERS: Mapping[str, int] = MappingProxyType({})
"""The rare buckets of a usage that has none; one object for all of them."""


class Bucket(StrEnum):
    """A kind of thing that is billed. Providers that do not tell a kind apart count it in the one it falls back to."""

    # Tokens that go in.
    INPUT = "input"
    """Neither read from a cache nor written to one, and text, or not told apart from it."""
    CACHE_READ = "cache_read"
    CACHE_WRITE = "cache_write"
    """Without a lifetime of its own: the provider's usual one."""
    CACHE_WRITE_5M = "cache_write_5m"
    CACHE_WRITE_30M = "cache_write_30m"
    CACHE_WRITE_1H = "cache_write_1h"
    CACHE_WRITE_12H = "cache_write_12h"
    INPUT_AUDIO = "input_audio"
    INPUT_IMAGE = "input_image"
    INPUT_VIDEO = "input_video"
    CACHE_READ_AUDIO = "cache_read_audio"
    CACHE_READ_IMAGE = "cache_read_image"
    CACHE_READ_VIDEO = "cache_read_video"
    # Tokens that come out.
    OUTPUT = "output"
    REASONING = "reasoning"
    OUTPUT_AUDIO = "output_audio"
    OUTPUT_IMAGE = "output_image"
    OUTPUT_VIDEO = "output_video"
    CITATION = "citation"
    # Units that are no tokens.
    IMAGES = "images"
    INPUT_AUDIO_MS = "input_audio_ms"
    """Milliseconds."""
    OUTPUT_AUDIO_MS = "output_audio_ms"
    """Milliseconds."""
    CHARACTERS = "characters"
    PIXELS = "pixels"
    MESSAGES = "messages"
    PAGES = "pages"
    ANNOTATED_PAGES = "annotated_pages"
    WEB_SEARCHES = "web_searches"
    SOCIAL_SEARCHES = "social_searches"
    STORAGE_SEARCHES = "storage_searches"
    CODE_EXECUTIONS = "code_executions"
    RERANK_SEARCHES = "rerank_searches"
    REQUESTS = "requests"
    """Never counted by a usage: a fee for each call."""


FALLS_BACK: Mapping[Bucket, tuple[Bucket, ...]] = MappingProxyType(
    {
        Bucket.CACHE_READ: (Bucket.INPUT,),
        Bucket.CACHE_WRITE: (Bucket.INPUT,),
        Bucket.CACHE_WRITE_5M: (Bucket.CACHE_WRITE, Bucket.INPUT),
        Bucket.CACHE_WRITE_30M: (Bucket.CACHE_WRITE, Bucket.INPUT),
        Bucket.CACHE_WRITE_1H: (Bucket.CACHE_WRITE, Bucket.INPUT),
        Bucket.CACHE_WRITE_12H: (Bucket.CACHE_WRITE, Bucket.INPUT),
        Bucket.INPUT_AUDIO: (Bucket.INPUT,),
        Bucket.INPUT_IMAGE: (Bucket.INPUT,),
        Bucket.INPUT_VIDEO: (Bucket.INPUT,),
        Bucket.CACHE_READ_AUDIO: (Bucket.CACHE_READ, Bucket.INPUT_AUDIO, Bucket.INPUT),
        Bucket.CACHE_READ_IMAGE: (Bucket.CACHE_READ, Bucket.INPUT_IMAGE, Bucket.INPUT),
        Bucket.CACHE_READ_VIDEO: (Bucket.CACHE_READ, Bucket.INPUT_VIDEO, Bucket.INPUT),
        Bucket.REASONING: (Bucket.OUTPUT,),
        Bucket.OUTPUT_AUDIO: (Bucket.OUTPUT,),
        Bucket.OUTPUT_IMAGE: (Bucket.OUTPUT,),
        Bucket.OUTPUT_VIDEO: (Bucket.OUTPUT,),
        Bucket.CITATION: (Bucket.OUTPUT,),
        Bucket.ANNOTATED_PAGES: (Bucket.PAGES,),
    }
)
"""By which bucket's rate a bucket is billed that has none of its own, nearest first."""

INPUT_BUCKETS = frozenset({Bucket.INPUT, *(one for one, others in FALLS_BACK.items() if Bucket.INPUT in others)})
"""Tokens that go in: their sum is the size of the prompt."""

OUTPUT_BUCKETS = frozenset({Bucket.OUTPUT, *(one for one, others in FALLS_BACK.items() if Bucket.OUTPUT in others)})
"""Tokens that come out."""


USUAL_TIERS = frozenset({"", "default", "auto", "standard", "on_demand"})
"""What OpenAI, Mistral, Anthropic and Groq call the service tier that nobody has to ask for; here it has no name."""

TIER = re.compile(r"[a-z0-9_-]{1,32}")
"""The name of any other."""

TIERS_ARE = "their names have up to 32 small letters, digits, - and _, and the usual one has none"


class Usage(msgspec.Struct, frozen=True):
    """The counts of one attempt, all zero or more. The four common buckets stand by themselves."""

    input: int
    output: int
    cache_read: int = 0
    reasoning: int = 0
    others: Mapping[str, int] = NO_OTHERS
    """Counts above zero of all other buckets, by the names of :class:`Bucket`."""
    service_tier: str = ""
    """As the answer named it; empty for the usual one."""
    measured: bool = True
    """True when the provider said it, False when we counted or estimated."""
    doubt: str = ""
    """Why it is not certain: the rule by which it was resolved, where the provider contradicted itself."""

    @property
    def input_tokens(self) -> int:
        """The size of the prompt, whatever its tokens were."""
        tokens = self.input + self.cache_read
        return tokens + _sum(self.others, INPUT_BUCKETS) if self.others else tokens

    @property
    def output_tokens(self) -> int:
        """All tokens that came out."""
        tokens = self.output + self.reasoning
        return tokens + _sum(self.others, OUTPUT_BUCKETS) if self.others else tokens

    @property
    def cached_input_tokens(self) -> int:
        """What of the prompt was read from a cache."""
        return self.cache_read + _sum(self.others, _CACHED) if self.others else self.cache_read

    @property
    def total_tokens(self) -> int:
        """What counts against a limit of tokens."""
        tokens = self.input + self.cache_read + self.output + self.reasoning
        return tokens + _sum(self.others, INPUT_BUCKETS | OUTPUT_BUCKETS) if self.others else tokens


_CACHED = frozenset({Bucket.CACHE_READ_AUDIO, Bucket.CACHE_READ_IMAGE, Bucket.CACHE_READ_VIDEO})


def _sum(counts: Mapping[str, int], buckets: frozenset[Bucket]) -> int:
    return sum(count for bucket, count in counts.items() if bucket in buckets)


def told_by_totals(
    input_tokens: int,
    output_tokens: int,
    cached_input_tokens: int,
    reasoning_tokens: int,
    others: Mapping[str, int],
    service_tier: str,
) -> Usage:
    """The reverse of a usage's totals: what is counted in no other bucket is left for the common ones."""
    inputs, outputs, cached = (_sum(others, buckets) for buckets in (INPUT_BUCKETS, OUTPUT_BUCKETS, _CACHED))
    cache_read = cached_input_tokens - cached
    return Usage(
        max(0, input_tokens - inputs - cache_read),
        max(0, output_tokens - outputs - reasoning_tokens),
        max(0, cache_read),
        reasoning_tokens,
        others or NO_OTHERS,
        service_tier,
    )
