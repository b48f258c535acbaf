"""How much an answer of the Responses API says."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollway.wire.response_text import text_bytes


def test_everything_that_a_model_wrote_counts() -> None:
    output = [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "ab"}], "encrypted_content": "xxxxxxx"},
        {"type": "message", "content": [{"type": "output_text", "text": "cde"}, {"type": "refusal", "refusal": "no"}]},
        {"type": "function_call", "arguments": "{}", "name": "xxxxxxx"},
        {"type": "custom_tool_call", "input": "f", "content": None},
        {"type": "image_generation_call", "result": "xxxxxxx"},
    ]
    assert text_bytes(json.dumps({"id": "xxxxxxx", "output": output}).encode()) == 2 + 3 + 2 + 2 + 1


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"output":"x"}', b'{"output":[1]}', b'{"output":[{"input":1}]}'])
def test_what_is_no_response_says_nothing(body: bytes) -> None:
    assert text_bytes(body) == 0


@given(st.binary())
def test_junk_raises_nothing(body: bytes) -> None:
    text_bytes(body)
