"""What OpenAI promises of a chat stream, as one checker: client libraries rely on all of it."""

import json
from collections.abc import Iterator
from typing import Any

from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

DELTA_MEMBERS = {"role", "content", "refusal", "reasoning_content", "tool_calls", "function_call"}


def frames(stream: bytes) -> list[bytes]:
    """The data of each frame; nothing but ``data:`` lines, each with its blank line."""
    assert stream.endswith(b"\n\n")
    out = stream.split(b"\n\n")[:-1]
    assert all(frame.startswith(b"data: ") and b"\n" not in frame and b"\r" not in frame for frame in out)
    return [frame[6:] for frame in out]


def check_stream(stream: bytes, *, include_usage: bool) -> list[Any]:
    """Check a whole stream that ended well; its chunks."""
    *data, done = frames(stream)
    assert done == b"[DONE]"
    assert b"[DONE]" not in data
    chunks = [json.loads(text) for text in data]
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk, strict=True)
        assert chunk["object"] == "chat.completion.chunk"
        assert ("usage" in chunk) is include_usage
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    totals = [chunk for chunk in chunks if not chunk["choices"]]
    if totals:
        assert include_usage
        assert totals == chunks[-1:]
        assert totals[0]["usage"]["total_tokens"] >= 0
    assert all(chunk.get("usage") is None for chunk in chunks if chunk["choices"])
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    for index in {choice["index"] for choice in choices}:
        _check_choice([choice for choice in choices if choice["index"] == index])
    return chunks


def _check_choice(choices: list[Any]) -> None:
    *said, last = choices
    assert last["delta"] == {}
    assert last["finish_reason"] in ("stop", "length", "tool_calls", "content_filter", "function_call")
    assert all(choice["finish_reason"] is None for choice in said)
    assert [choice["delta"].get("role") for choice in said] == ["assistant"] + [None] * (len(said) - 1)
    assert all(choice["delta"].keys() <= DELTA_MEMBERS for choice in said)
    assert all(choice["delta"] or choice["logprobs"] for choice in said)
    assert all(isinstance(choice["delta"].get("content", ""), str) for choice in said)
    assert all(choice["delta"].get("content") != "" for choice in said[1:]), "an empty text says nothing"
    begun = 0
    for call in _pieces(said):
        if "id" in call:
            assert call["index"] == begun, "calls are numbered in the order in which they begin"
            assert call["id"] not in ("", "null")
            assert call["type"] == "function"
            assert isinstance(call["function"]["name"], str)
            begun += 1
        else:
            assert call["index"] < begun
            assert "type" not in call
        assert isinstance(call["function"]["arguments"], str)


def _pieces(choices: list[Any]) -> Iterator[Any]:
    for choice in choices:
        yield from choice["delta"].get("tool_calls", ())


def as_the_sdk_joins(chunks: list[Any]) -> Any:
    """What the official SDK's stream helper makes of the chunks."""
    state = ChatCompletionStreamState()
    for chunk in chunks:
        state.handle_chunk(ChatCompletionChunk.construct(**chunk))
    return state.current_completion_snapshot
