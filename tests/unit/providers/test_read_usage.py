"""Usage is a stranger's word: believed only where it can be true, in every spelling, and in buckets that add up."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.usages import told
from tollway.domain.usage import INPUT_BUCKETS, OUTPUT_BUCKETS, Bucket, Usage
from tollway.providers.usage import read_image_usage, read_input_usage, read_relayed_usage, read_usage, tells_cached
from tollway.providers.usage_rule import MAX_TOKENS, second_reading
from tollway.wire.json import UNSET, Raw
from tollway.wire.top_members import MAX_MEMBER_BYTES


def raw(said: object) -> Raw:
    return Raw(json.dumps(said).encode())


def read(**members: object) -> Usage | None:
    """All readers agree."""
    usage = read_usage(raw(members))
    assert read_relayed_usage(raw(members)) == usage
    return usage


def buckets(usage: Usage | None) -> dict[str, int]:
    assert usage is not None
    common = {
        "input": usage.input,
        "output": usage.output,
        "cache_read": usage.cache_read,
        "reasoning": usage.reasoning,
    }
    assert not common.keys() & usage.others.keys() and all(usage.others.values())
    return {name: count for name, count in {**common, **usage.others}.items() if count}


CHAT = {"prompt_tokens": 100, "completion_tokens": 30, "total_tokens": 130}
NEWER = {"input_tokens": 100, "output_tokens": 30, "total_tokens": 130}

SPELLINGS: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    "chat": (CHAT, {"input": 100, "output": 30}),
    "chat, nothing special": (
        {
            **CHAT,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0, "cache_write_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0},
        },
        {"input": 100, "output": 30},
    ),
    "chat, cached and reasoning": (
        {
            **CHAT,
            "prompt_tokens_details": {"cached_tokens": 60},
            "completion_tokens_details": {"reasoning_tokens": 20},
        },
        {"input": 40, "cache_read": 60, "output": 10, "reasoning": 20},
    ),
    "gpt-5.6, written to the cache": (
        {
            "prompt_tokens": 100_000,
            "completion_tokens": 1000,
            "total_tokens": 101_000,
            "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 99_000},
        },
        {"input": 1000, "cache_write": 99_000, "output": 1000},
    ),
    "responses, written with lifetimes": (
        {
            **NEWER,
            "input_tokens_details": {
                "cached_tokens": 10,
                "cache_write_tokens": 70,
                "cache_write_tokens_details": {"ttl_30m_tokens": 20, "ttl_12h_tokens": 40},
            },
            "output_tokens_details": {"reasoning_tokens": 30},
        },
        {
            **{"input": 20, "cache_read": 10, "cache_write": 10, "cache_write_30m": 20, "cache_write_12h": 40},
            "reasoning": 30,
        },
    ),
    "responses, written for five minutes and an hour": (
        {
            **NEWER,
            "input_tokens_details": {
                "cache_write_tokens": 70,
                "cache_write_tokens_details": {"ttl_5m_tokens": 20, "ttl_1h_tokens": 40},
            },
        },
        {"input": 30, "cache_write": 10, "cache_write_5m": 20, "cache_write_1h": 40, "output": 30},
    ),
    "chat, written with Anthropic's names": (
        {
            **CHAT,
            "prompt_tokens_details": {
                "cache_write_tokens": 0,
                "cache_write_tokens_details": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 40},
            },
        },
        {"input": 40, "cache_write_5m": 20, "cache_write_1h": 40, "output": 30},
    ),
    "chat with sound": (
        {**CHAT, "prompt_tokens_details": {"audio_tokens": 70}, "completion_tokens_details": {"audio_tokens": 25}},
        {"input": 30, "input_audio": 70, "output": 5, "output_audio": 25},
    ),
    "images": (
        {
            **NEWER,
            "input_tokens_details": {"image_tokens": 60, "text_tokens": 40},
            "output_tokens_details": {"image_tokens": 30, "text_tokens": 0},
        },
        {"input": 40, "input_image": 60, "output_image": 30},
    ),
    "transcript": (
        {**NEWER, "type": "tokens", "input_token_details": {"audio_tokens": 90, "text_tokens": 10}},
        {"input": 10, "input_audio": 90, "output": 30},
    ),
    "transcript billed by its length": ({"type": "duration", "seconds": 12.345}, {"input_audio_ms": 12_345}),
    "realtime, cached by modality": (
        {
            **NEWER,
            "input_token_details": {
                **{"text_tokens": 20, "audio_tokens": 70, "image_tokens": 10, "cached_tokens": 50},
                "cached_tokens_details": {"text_tokens": 5, "audio_tokens": 40, "image_tokens": 5},
            },
            "output_token_details": {"text_tokens": 10, "audio_tokens": 20},
        },
        {
            **{"input": 15, "input_audio": 30, "input_image": 5},
            **{"cache_read": 5, "cache_read_audio": 40, "cache_read_image": 5, "output": 10, "output_audio": 20},
        },
    ),
    "DeepSeek": (
        {**CHAT, "prompt_cache_hit_tokens": 90, "prompt_cache_miss_tokens": 10},
        {"input": 10, "cache_read": 90, "output": 30},
    ),
    "Kimi": ({**CHAT, "cached_tokens": 90}, {"input": 10, "cache_read": 90, "output": 30}),
    "Mistral": ({**CHAT, "num_cached_tokens": 64}, {"input": 36, "cache_read": 64, "output": 30}),
    "Mistral, misspelled": (
        {**CHAT, "prompt_token_details": {"cached_tokens": 64}, "prompt_audio_seconds": None, "request_count": 1},
        {"input": 36, "cache_read": 64, "output": 30},
    ),
    "Mistral, a sound whose tokens are only in the total": (
        {"prompt_audio_seconds": 203, "prompt_tokens": 4, "total_tokens": 3264, "completion_tokens": 635},
        {"input": 4, "input_audio_ms": 203_000, "output": 635},
    ),
    "xAI, reasoning beside the completion": (
        {
            **{"prompt_tokens": 20, "completion_tokens": 151, "total_tokens": 553},
            "completion_tokens_details": {"reasoning_tokens": 382},
        },
        {"input": 20, "output": 151, "reasoning": 382},
    ),
    "xAI, nothing but reasoning": (
        {
            **{"prompt_tokens": 21, "completion_tokens": 0, "total_tokens": 81},
            "completion_tokens_details": {"reasoning_tokens": 60},
        },
        {"input": 21, "reasoning": 60},
    ),
    "xAI, searches": (
        {
            **NEWER,
            "server_side_tool_usage_details": {
                **{"web_search_calls": 3, "x_search_calls": 2},
                **{"code_interpreter_calls": 1, "file_search_calls": 0},
            },
        },
        {"input": 100, "output": 30, "web_searches": 3, "social_searches": 2, "code_executions": 1},
    ),
    "completion missing": ({"prompt_tokens": 35, "total_tokens": 67}, {"input": 35, "output": 32}),
    "completion null": (
        {"prompt_tokens": 35, "completion_tokens": None, "total_tokens": 67},
        {"input": 35, "output": 32},
    ),
    "prompt missing": ({"completion_tokens": 7, "total_tokens": 12}, {"input": 5, "output": 7}),
    "Anthropic": (
        {
            **{"input_tokens": 10, "cache_read_input_tokens": 5000, "cache_creation_input_tokens": 16},
            "cache_creation": {"ephemeral_5m_input_tokens": 7, "ephemeral_1h_input_tokens": 9},
            "output_tokens": 30,
            "output_tokens_details": {"thinking_tokens": 20},
            "server_tool_use": {"web_search_requests": 2},
            "service_tier": "standard",
        },
        {
            **{"input": 10, "cache_read": 5000, "cache_write_5m": 7, "cache_write_1h": 9},
            **{"output": 10, "reasoning": 20, "web_searches": 2},
        },
    ),
    "Anthropic's caches in the prompt": (
        {**CHAT, "cache_read_input_tokens": 80, "cache_creation_input_tokens": 15},
        {"input": 5, "cache_read": 80, "cache_write": 15, "output": 30},
    ),
    "Anthropic's caches beside the prompt": (
        {**CHAT, "total_tokens": 225, "cache_read_input_tokens": 80, "cache_creation_input_tokens": 15},
        {"input": 100, "cache_read": 80, "cache_write": 15, "output": 30},
    ),
    "Anthropic's caches and reasoning beside": (
        {
            **{**CHAT, "total_tokens": 230, "cache_read_input_tokens": 80},
            "completion_tokens_details": {"reasoning_tokens": 20},
        },
        {"input": 100, "cache_read": 80, "output": 30, "reasoning": 20},
    ),
    "Anthropic's caches, no total": (
        {"prompt_tokens": 100, "completion_tokens": 30, "cache_read_input_tokens": 80},
        {"input": 20, "cache_read": 80, "output": 30},
    ),
    "Anthropic's caches, larger than the prompt": (
        {"prompt_tokens": 100, "completion_tokens": 30, "cache_read_input_tokens": 500},
        {"input": 100, "cache_read": 500, "output": 30},
    ),
    "LiteLLM, the same caches twice": (
        {
            **{**CHAT, "cache_read_input_tokens": 80, "cache_creation_input_tokens": 15},
            "prompt_tokens_details": {"cached_tokens": 80, "cache_creation_tokens": 15},
        },
        {"input": 5, "cache_read": 80, "cache_write": 15, "output": 30},
    ),
    "Databricks": ({**CHAT, "reasoning_tokens": 20}, {"input": 100, "output": 10, "reasoning": 20}),
    "Perplexity": (
        {**CHAT, "citation_tokens": 500, "num_search_queries": 18, "reasoning_tokens": 7000},
        {"input": 100, "output": 30, "reasoning": 7000, "citation": 500, "web_searches": 18},
    ),
    "Perplexity, no citations": (
        {
            **{"prompt_tokens": 33, "completion_tokens": 7163, "total_tokens": 7196, "reasoning_tokens": 73_995},
            **{"citation_tokens": 0, "num_search_queries": 18},
        },
        {"input": 33, "output": 7163, "reasoning": 73_995, "web_searches": 18},
    ),
    "Perplexity, responses": (
        {**NEWER, "tool_calls_details": {"search_web": {"invocation": 5}, "fetch_url": {"invocation": 2}}},
        {"input": 100, "output": 30, "web_searches": 5},
    ),
    "searches in details": (
        {**CHAT, "server_tool_use_details": {"web_search_requests": 3}},
        {"input": 100, "output": 30, "web_searches": 3},
    ),
    "pages": ({"pages_processed": 3, "doc_size_bytes": 100}, {"pages": 3}),
    "characters": ({"characters": 300}, {"characters": 300}),
    "images by number": (
        {"generated_images": 2, "output_tokens": 30, "total_tokens": 30},
        {"images": 2, "output": 30},
    ),
}


@pytest.mark.parametrize("spelling", list(SPELLINGS))
def test_every_spelling_is_read_without_a_doubt(spelling: str) -> None:
    said, counted = SPELLINGS[spelling]
    usage = read(**said)
    assert buckets(usage) == counted
    assert usage is not None and (usage.doubt, usage.measured, usage.service_tier) == ("", True, "")


PICTURE = {"input_tokens": 50, "output_tokens": 4150, "total_tokens": 4200, "input_tokens_details": {"image_tokens": 9}}


@pytest.mark.parametrize(
    ("said", "counted"),
    [
        ([PICTURE], {"input": 41, "input_image": 9, "output_image": 4150}),
        ([PICTURE, {}, PICTURE], {"input": 82, "input_image": 18, "output_image": 8300}),
        (
            [{**PICTURE, "output_tokens_details": {"image_tokens": 4000, "text_tokens": 150}}],
            {"input": 41, "input_image": 9, "output": 150, "output_image": 4000},
        ),
        ([{"input_tokens": 5, "output_tokens": 0}], {"input": 5}),
    ],
)
def test_what_comes_out_of_a_call_for_pictures_is_pictures(said: list[object], counted: dict[str, int]) -> None:
    assert buckets(read_image_usage(map(raw, said))) == counted
    assert read_image_usage([raw({})]) is None


@pytest.mark.parametrize(
    "details",
    [
        {"prompt_tokens_details": {"cached_tokens": 3}, "num_cached_tokens": 4},
        {"prompt_tokens_details": None, "prompt_token_details": {"cached_tokens": 3}},
        {"prompt_tokens_details": {"cached_tokens": None}, "num_cached_tokens": 3},
        {"prompt_tokens_details": {"cached_tokens": 0}, "prompt_cache_hit_tokens": 3},
    ],
)
def test_of_several_spellings_the_first_that_tells_something_holds(details: dict[str, object]) -> None:
    assert read(prompt_tokens=5, completion_tokens=7, **details) == told(5, 7, 3)


DOUBTS: dict[str, tuple[dict[str, Any], dict[str, int], str]] = {
    "thoughts that nobody told": (
        {"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": 623},
        {"input": 20, "output": 603},
        "total_differs",
    ),
    "more than the reasoning that was told": (
        {**CHAT, "total_tokens": 200, "completion_tokens_details": {"reasoning_tokens": 50}},
        {"input": 100, "output": 50, "reasoning": 50},
        "total_differs",
    ),
    "a total that is too small": ({**CHAT, "total_tokens": 100}, {"input": 100, "output": 30}, "total_differs"),
    "a total of nothing": ({**CHAT, "total_tokens": 0}, {"input": 100, "output": 30}, "total_differs"),
    "caches that add up to no total": (
        {**CHAT, "total_tokens": 600, "cache_read_input_tokens": 400},
        {"input": 100, "cache_read": 400, "output": 100},
        "total_differs",
    ),
    "a total without Anthropic's caches": (
        {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "cache_read_input_tokens": 1000},
        {"input": 10, "cache_read": 1000, "output": 5},
        "total_differs",
    ),
    "more cached than sent": (
        {**CHAT, "prompt_tokens_details": {"cached_tokens": 101}},
        {"cache_read": 100, "output": 30},
        "parts_exceed_whole",
    ),
    "more thought than said": (
        {**CHAT, "completion_tokens_details": {"reasoning_tokens": 31}},
        {"input": 100, "reasoning": 30},
        "parts_exceed_whole",
    ),
    "more parts than there is room for": (
        {**CHAT, "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30, "audio_tokens": 30}},
        {"cache_read": 60, "cache_write": 30, "input_audio": 10, "output": 30},
        "parts_exceed_whole",
    ),
    "longer lived than written": (
        {
            **NEWER,
            "input_tokens_details": {"cache_write_tokens": 5, "cache_write_tokens_details": {"ttl_12h_tokens": 9}},
        },
        {"input": 95, "cache_write_12h": 5, "output": 30},
        "parts_exceed_whole",
    ),
    "a count that cannot be": (
        {"prompt_tokens": 5, "completion_tokens": -3, "total_tokens": 12},
        {"input": 5, "output": 7},
        "untrue_count",
    ),
    "two at once": (
        {**CHAT, "total_tokens": 99, "prompt_tokens_details": {"cached_tokens": 101}},
        {"cache_read": 100, "output": 30},
        "total_differs,parts_exceed_whole",
    ),
}


@pytest.mark.parametrize("case", list(DOUBTS))
def test_what_contradicts_itself_is_resolved_and_in_doubt(case: str) -> None:
    said, counted, doubt = DOUBTS[case]
    usage = read(**said)
    assert (buckets(usage), usage and usage.doubt) == (counted, doubt)
    newer = {name.replace("prompt", "input").replace("completion", "output"): value for name, value in said.items()}
    if "cache_read_input_tokens" not in said:
        assert read(**newer) == usage


@pytest.mark.parametrize("lie", [-1, MAX_TOKENS + 1, 10**18, 10**400, 5.5, "5", None, True, [], {}])
@pytest.mark.parametrize(
    "member", ["prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "total_tokens"]
)
def test_a_count_that_cannot_be_true_is_none(member: str, lie: object) -> None:
    other = {"prompt_tokens": "completion_tokens", "completion_tokens": "prompt_tokens"}
    other |= {"input_tokens": "output_tokens", "output_tokens": "input_tokens", "total_tokens": "prompt_tokens"}
    usage = read(**{member: lie, other[member]: 1})
    assert usage is not None and usage.total_tokens == 1


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"total_tokens": 0},
        {"prompt_tokens": None, "total_tokens": "9"},
        {"prompt_tokens": 9, "total_tokens": 5},
        {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
        {"type": "duration", "seconds": 0},
        {"seconds": "12"},
        {"seconds": -1},
        {"seconds": 10**12},
        {"prompt_tokens": 5, "completion_tokens": 1, "cache_read_input_tokens": MAX_TOKENS},
    ],
)
def test_what_says_too_little_is_none(said: dict[str, object]) -> None:
    assert read(**said) is None


@pytest.mark.parametrize(
    ("said", "usage"),
    [
        ({"prompt_tokens": 1000}, Usage(1000, 0, measured=False, doubt="output_untold")),
        (
            {"input_tokens": 10, "cache_read_input_tokens": 1000},
            Usage(10, 0, 1000, measured=False, doubt="output_untold"),
        ),
        ({"completion_tokens": 40}, Usage(0, 40, measured=False)),
        ({"total_tokens": 5000}, Usage(5000, 0, measured=False, doubt="split_untold")),
    ],
)
def test_of_one_count_alone_that_one_is_believed(said: dict[str, object], usage: Usage) -> None:
    assert read(**said) == usage


def test_an_output_without_a_prompt_is_what_was_told() -> None:
    assert read(prompt_tokens=0, completion_tokens=40, total_tokens=40) == Usage(0, 40)


@pytest.mark.parametrize("details", [3, "x", {"cached_tokens": -1}, {"cached_tokens": 0.5}, {"cached_tokens": "3"}])
def test_details_that_cannot_be_true_are_left_out(details: object) -> None:
    assert read(prompt_tokens=5, completion_tokens=7, prompt_tokens_details=details) == told(5, 7)
    assert read(input_tokens=5, output_tokens=7, input_tokens_details=details) == told(5, 7)


def test_a_usage_that_is_too_long_to_be_meant_is_none() -> None:
    assert read(**CHAT, citation_tokens=5, junk="x" * MAX_MEMBER_BYTES) is None


@pytest.mark.parametrize(
    ("tier", "kept", "doubt"),
    [("standard", "", ""), ("Priority", "priority", ""), (None, "", ""), (3, "", "unreadable_tier")],
)
def test_a_service_tier_within_the_usage_is_read(tier: object, kept: str, doubt: str) -> None:
    usage = read(**CHAT, service_tier=tier)
    assert usage is not None
    assert (usage.service_tier, usage.doubt, usage.total_tokens) == (kept, doubt, 130)


@pytest.mark.parametrize(
    ("said", "tells"),
    [
        ({"prompt_tokens_details": {"cached_tokens": 0}}, True),
        ({"prompt_token_details": {"cached_tokens": 3}}, True),
        ({"num_cached_tokens": 0}, True),
        ({"prompt_tokens_details": {}, "num_cached_tokens": None}, False),
        ({"prompt_tokens_details": 3, "num_cached_tokens": 3}, False),
    ],
)
def test_whether_cached_tokens_are_told(said: dict[str, object], tells: bool) -> None:
    assert tells_cached(raw({**CHAT, **said})) is tells


def test_an_answer_without_output_is_counted_by_its_prompt() -> None:
    assert read_input_usage(raw({"prompt_tokens": 5, "total_tokens": 5})) == told(5, 0)
    for told_so in ({"total_tokens": 5}, {"input_tokens": 5}, {"prompt_tokens": 0, "total_tokens": 5}):
        assert read_input_usage(raw(told_so)) == told(5, 0)
    for said in ({"prompt_tokens": 0}, {"prompt_tokens": -1}, {"total_tokens": 0}, []):
        assert read_input_usage(raw(said)) is None
    assert read_input_usage(UNSET) is None


# --- anything at all ------------------------------------------------------------------------------------------

NUMBERS = (
    st.none()
    | st.integers(0, 300)
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3)
)
PARTS = st.sampled_from(
    [
        *("cached_tokens", "cache_write_tokens", "audio_tokens", "image_tokens", "reasoning_tokens", "video_tokens"),
        *("ttl_30m_tokens", "ttl_12h_tokens", "ephemeral_5m_input_tokens", "web_search_requests", "thinking_tokens"),
    ]
)
DETAILS = st.dictionaries(PARTS, NUMBERS | st.dictionaries(PARTS, NUMBERS, max_size=3), max_size=5)
WHOLES = ["prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "total_tokens"]
NAMES = st.sampled_from(
    [
        *WHOLES,
        *("prompt_tokens_details", "completion_tokens_details", "input_tokens_details", "output_token_details"),
        *("num_cached_tokens", "cached_tokens", "prompt_cache_hit_tokens", "reasoning_tokens", "citation_tokens"),
        *(
            "cache_read_input_tokens",
            "cache_creation_input_tokens",
            "cache_creation",
            "seconds",
            "prompt_audio_seconds",
        ),
        *("num_search_queries", "server_tool_use", "service_tier", "pages_processed", "characters"),
    ]
)
COUNTS = st.fixed_dictionaries({name: st.integers(0, 300) for name in WHOLES[:2]}) | st.just({})


@given(COUNTS, st.dictionaries(NAMES, NUMBERS | DETAILS))
def test_whatever_is_believed_adds_up(counts: dict[str, int], members: dict[str, Any]) -> None:
    said = {**members, **counts}
    usage = read_usage(raw(said))
    if usage is None:
        return
    counted = buckets(usage)
    assert all(name in set(Bucket) and count > 0 for name, count in counted.items())
    assert usage.input_tokens == sum(counted.get(bucket, 0) for bucket in INPUT_BUCKETS) <= MAX_TOKENS
    assert usage.output_tokens == sum(counted.get(bucket, 0) for bucket in OUTPUT_BUCKETS) <= 2 * MAX_TOKENS
    assert 0 <= usage.cached_input_tokens <= usage.input_tokens
    total = said.get("total_tokens")
    perplexity = "reasoning_tokens" in said and not {"citation_tokens", "num_search_queries"}.isdisjoint(said)
    beside = Bucket.CITATION in counted or Bucket.INPUT_AUDIO_MS in counted or perplexity
    tokens = type(total) is int and 0 <= total <= MAX_TOKENS and usage.total_tokens
    if tokens and not usage.doubt and not beside:
        assert usage.total_tokens == total


@given(COUNTS, st.dictionaries(NAMES, NUMBERS | DETAILS))
def test_the_quick_reading_is_the_same_as_the_slow_one(counts: dict[str, int], members: dict[str, Any]) -> None:
    said = {**members, **counts}
    said.pop("service_tier", None)
    assert read_usage(raw(said)) == second_reading(raw(said))


@given(st.binary() | st.recursive(NUMBERS, lambda inner: st.lists(inner) | DETAILS).map(lambda said: bytes(raw(said))))
def test_junk_is_none(junk: bytes) -> None:
    assert read_usage(Raw(junk)) is None
    assert read_relayed_usage(Raw(junk)) is None
