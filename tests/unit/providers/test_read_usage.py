"""Usage is a stranger's word: believed only where it can be true."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollway.domain.usage import Usage, told
from tollway.providers.usage import MAX_TOKENS, read_usage
from tollway.wire.json import Raw


def read(**members: object) -> Usage | None:
    return read_usage(Raw(json.dumps(members).encode()))


def test_counts_are_believed() -> None:
    assert read(prompt_tokens=5, completion_tokens=7, total_tokens=99) == told(5, 7)


def test_zero_stays_zero() -> None:
    assert read(prompt_tokens=0, completion_tokens=0) == told(0, 0)


@pytest.mark.parametrize("lie", [-1, MAX_TOKENS + 1, 10**18, 10**400, 5.0, 5.5, "5", None, True, [], {}])
@pytest.mark.parametrize("member", ["prompt_tokens", "completion_tokens"])
def test_a_count_that_cannot_be_true_is_none(member: str, lie: object) -> None:
    assert read(**{"prompt_tokens": 1, "completion_tokens": 1, member: lie}) is None


def test_a_missing_count_is_none() -> None:
    assert read(prompt_tokens=1) is None
    assert read(completion_tokens=1) is None
    assert read() is None


@pytest.mark.parametrize(
    "details",
    [
        {"prompt_tokens_details": {"cached_tokens": 3}},
        {"prompt_token_details": {"cached_tokens": 3}},
        {"num_cached_tokens": 3},
        {"prompt_tokens_details": {"cached_tokens": 3}, "num_cached_tokens": 4},
        {"prompt_tokens_details": None, "prompt_token_details": {"cached_tokens": 3}},
        {"prompt_tokens_details": {"cached_tokens": None}, "num_cached_tokens": 3},
    ],
)
def test_cached_tokens_are_read_in_all_spellings(details: dict[str, object]) -> None:
    assert read(prompt_tokens=5, completion_tokens=7, **details) == told(5, 7, 3)


def test_reasoning_is_a_part_of_the_output() -> None:
    assert read(prompt_tokens=5, completion_tokens=7, completion_tokens_details={"reasoning_tokens": 6}) == told(
        5, 7, 0, 6
    )


def test_a_part_is_never_larger_than_its_whole() -> None:
    usage = read(
        prompt_tokens=5,
        completion_tokens=7,
        prompt_tokens_details={"cached_tokens": 6},
        completion_tokens_details={"reasoning_tokens": 8},
    )
    assert usage == told(5, 7, 5, 7)


@pytest.mark.parametrize("details", [3, "x", {"cached_tokens": -1}, {"cached_tokens": 0.5}, {"cached_tokens": "3"}])
def test_details_that_cannot_be_true_are_left_out(details: object) -> None:
    assert read(prompt_tokens=5, completion_tokens=7, prompt_tokens_details=details) == told(5, 7)


numbers = st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3)
names = st.sampled_from(["prompt_tokens", "completion_tokens", "num_cached_tokens", "prompt_tokens_details"])


@given(st.dictionaries(names, numbers | st.dictionaries(st.just("cached_tokens"), numbers)))
def test_whatever_is_believed_adds_up(members: dict[str, object]) -> None:
    usage = read(**members)
    if usage is not None:
        assert 0 <= usage.cached_input_tokens <= usage.input_tokens <= MAX_TOKENS
        assert 0 <= usage.reasoning <= usage.output_tokens <= MAX_TOKENS
