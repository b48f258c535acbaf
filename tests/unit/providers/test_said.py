"""How much an answer says, thoughts included: its bill where its provider does not count."""

import json

import pytest
from golden import CHAT, call

from tollway.providers.base import ChatResult

THOUGHTS = "think " * 100


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
@pytest.mark.parametrize("usage", [None, {"prompt_tokens": 5, "completion_tokens": 0, "total_tokens": 5}])
def test_thoughts_of_a_whole_answer_count_under_either_name(name: str, usage: object) -> None:
    message = {"role": "assistant", "content": "ok", name: THOUGHTS}
    answer = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}
    result = CHAT["openai"].decode(200, {}, json.dumps(answer).encode(), call({}))
    assert isinstance(result, ChatResult)
    assert result.content_bytes == 602


@pytest.mark.parametrize("names", [["reasoning_content"], ["reasoning"], ["reasoning", "reasoning_content"]])
def test_thoughts_of_a_stream_count_once(names: list[str]) -> None:
    decoder = CHAT["openai"].decoder(call({"stream": True}))
    for _ in range(2):
        choice = {"index": 0, "delta": dict.fromkeys(names, THOUGHTS), "finish_reason": None}
        decoder.feed(b"data: %b\n\n" % json.dumps({"id": "c", "choices": [choice]}).encode())
    assert decoder.content_bytes == 1200


def test_a_call_in_the_old_form_counts() -> None:
    message = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
    answer = {"choices": [{"index": 0, "message": message, "finish_reason": "function_call"}]}
    result = CHAT["openai"].decode(200, {}, json.dumps(answer).encode(), call({}))
    assert isinstance(result, ChatResult)
    assert result.content_bytes > 10
