"""Usage in the spelling of responses, images and sound: believed only where it can be true."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollway.domain.usage import Usage, told
from tollway.providers.relayed_usage import read_any_usage
from tollway.providers.usage import MAX_TOKENS
from tollway.wire.json import Raw


def read(**members: object) -> Usage | None:
    return read_any_usage(Raw(json.dumps(members).encode()))


def test_a_response_is_counted_with_its_details() -> None:
    assert read(
        input_tokens=36,
        input_tokens_details={"cached_tokens": 30, "cache_write_tokens": 1},
        output_tokens=87,
        output_tokens_details={"reasoning_tokens": 64},
        total_tokens=123,
    ) == told(36, 87, 30, 64)


def test_an_image_and_a_transcript_are_counted() -> None:
    assert read(input_tokens=5, output_tokens=7, input_tokens_details={"image_tokens": 3, "text_tokens": 2}) == told(
        5, 7
    )
    assert read(type="tokens", input_tokens=5, output_tokens=7, input_token_details={"audio_tokens": 5}) == told(5, 7)


def test_the_spelling_of_chat_answers_is_understood() -> None:
    assert read(prompt_tokens=5, completion_tokens=7, prompt_tokens_details={"cached_tokens": 4}) == told(5, 7, 4)


def test_what_is_billed_by_the_second_has_no_tokens() -> None:
    assert read(type="duration", seconds=12) is None


@pytest.mark.parametrize("lie", [-1, MAX_TOKENS + 1, 10**400, 5.5, "5", None, True, []])
@pytest.mark.parametrize("member", ["input_tokens", "output_tokens"])
def test_a_count_that_cannot_be_true_is_none(member: str, lie: object) -> None:
    assert read(**{"input_tokens": 1, "output_tokens": 1, member: lie}) is None


@pytest.mark.parametrize("details", [{"cached_tokens": -1}, {"cached_tokens": "x"}, [], 5])
def test_details_that_cannot_be_true_are_left_out(details: object) -> None:
    assert read(input_tokens=5, output_tokens=7, input_tokens_details=details) == told(5, 7)


def test_a_part_is_never_larger_than_its_whole() -> None:
    cached, reasoning = {"cached_tokens": 50}, {"reasoning_tokens": 70}
    usage = read(input_tokens=5, output_tokens=7, input_tokens_details=cached, output_tokens_details=reasoning)
    assert usage == told(5, 7, 5, 7)


@given(st.binary())
def test_junk_is_none(junk: bytes) -> None:
    assert read_any_usage(Raw(junk)) is None
