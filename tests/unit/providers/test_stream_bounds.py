"""Streams from strangers: bounded, never raising, and counted."""

import json

import pytest
from golden import CHAT, call, sections, streams
from hypothesis import given
from hypothesis import strategies as st

from tollway.domain.failures import FailureKind
from tollway.providers import stream
from tollway.wire.sse import MAX_EVENT_BYTES

DIALECTS = sorted(CHAT)
ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
NOTHING = b'data: {"choices":[{"index":0,"delta":{"content":""}}]}\n\n'


def text(said: str) -> bytes:
    chunk = {"choices": [{"index": 0, "delta": {"content": said}, "finish_reason": None}]}
    return b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_content_is_counted_in_bytes(dialect: str) -> None:
    decoder = CHAT[dialect].decoder(call({"stream": True}))
    decoder.feed(ROLE)
    assert (decoder.started, decoder.content_bytes) == (False, 0)
    decoder.feed(text("abc") + text("é"))
    assert (decoder.started, decoder.content_bytes) == (True, 5)
    decoder.feed(text("abc"))
    assert decoder.content_bytes == 8


@pytest.mark.parametrize("dialect", DIALECTS)
def test_arguments_are_counted_too(dialect: str) -> None:
    decoder = CHAT[dialect].decoder(call({"stream": True}))
    function = {"name": "f", "arguments": "{" + "x" * 100}
    chunk = {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "a", "function": function}]}}]}
    decoder.feed(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    assert 100 <= decoder.content_bytes <= 110


@pytest.mark.parametrize("content", [None, "", "abc"])
@pytest.mark.parametrize(
    "beside",
    [
        {"reasoning_content": "x" * 100},
        {"refusal": "x" * 100},
        {"tool_calls": [{"index": 0, "function": {"arguments": "x" * 60}}, {"function": {"arguments": "x" * 40}}]},
        {"tool_calls": [{"index": 0, "function": {"name": None, "arguments": "x" * 100}}], "refusal": None},
        {"function_call": {"arguments": "x" * 100}},
        {"reasoning_content": "x" * 50, "refusal": "x" * 50, "tool_calls": []},
    ],
    ids=lambda beside: "-".join(beside),
)
def test_what_is_said_beside_the_content_is_counted_whatever_the_content_is(
    content: str | None, beside: dict[str, object]
) -> None:
    """Several servers send ``"content": null`` beside every piece of reasoning and of arguments."""
    decoder = CHAT["openai"].decoder(call({"stream": True}))
    chunk = {"choices": [{"index": 0, "delta": {"content": content, **beside}}]}
    decoder.feed(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    assert decoder.content_bytes == 100 + len(content or "")


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("begins", [b"", b": x\n\n", b"data: [DONE]\n\n", b'data: {"error":"busy"}\n\n'])
def test_a_stream_that_begins_badly_is_not_asked_for_again(dialect: str, begins: bytes) -> None:
    decoder = CHAT[dialect].decoder(call({"stream": True}))
    assert decoder.feed(begins) + decoder.close() == b""
    assert decoder.failure is not None
    assert not decoder.failure.once_more


def test_a_model_that_thinks_has_started() -> None:
    """Otherwise it would have to stop thinking before the first byte is due."""
    decoder = CHAT["mistral"].decoder(call({"stream": True}))
    for inner, started in ([], False), ([{"type": "text", "text": "hm"}], True):
        content = [{"type": "thinking", "thinking": inner}]
        decoder.feed(b"data: " + json.dumps({"choices": [{"delta": {"content": content}}]}).encode() + b"\n\n")
        assert decoder.started is started
    assert decoder.content_bytes == 0


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_endless_event_is_a_failure(dialect: str) -> None:
    decoder = CHAT[dialect].decoder(call({"stream": True}))
    assert decoder.feed(text("abc"))
    piece = b"data: " + b"x" * (1 << 20)
    for _ in range(MAX_EVENT_BYTES // len(piece) + 2):
        decoder.feed(piece)
    assert decoder.failure is not None
    assert decoder.failure.kind is FailureKind.INVALID
    assert decoder.feed(b"\n\n" + text("abc")) == b""
    assert decoder.close() == b""


def test_an_endless_preamble_counts_as_a_start() -> None:
    decoder = CHAT["openai"].decoder(call({"stream": True}))
    out = decoder.feed(ROLE) + b"".join(decoder.feed(NOTHING) for _ in range(stream.MAX_HELD_BYTES // len(NOTHING) + 2))
    assert decoder.started
    assert out.startswith(ROLE + NOTHING * 10)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_endless_object_is_a_failure(dialect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_REPLY_BYTES", 1000)
    decoder = CHAT[dialect].decoder(call({"stream": True}))
    for _ in range(20):
        assert decoder.feed(b'{"choices": "' + b" " * 100) == b""
    assert decoder.failure is not None
    assert decoder.close() == b""


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_deep_event_is_a_failure(dialect: str) -> None:
    decoder = CHAT[dialect].decoder(call({"stream": True}))
    assert decoder.feed(b'data: {"choices":' + b"[" * 100_000 + b"\n\n") == b""
    assert decoder.failure is not None


@pytest.mark.parametrize("dialect", DIALECTS)
def test_usage_that_is_a_lie_is_none_and_hurts_nobody(dialect: str) -> None:
    decoder = CHAT[dialect].decoder(call({"stream": True}))
    out = decoder.feed(text("abc"))
    usage = {"prompt_tokens": -1, "completion_tokens": 10**18}
    chunk = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage}
    out += decoder.feed(b"data: " + json.dumps(chunk).encode() + b"\n\ndata: [DONE]\n\n")
    assert (decoder.usage, decoder.failure, decoder.finished) == (None, None, True)
    assert b"usage" not in out


PIECES = [piece for path in streams("openai/streams") + streams("mistral/streams")
          for piece in sections(path)["upstream"].encode().split(b'"')]  # fmt: skip


@pytest.mark.parametrize("dialect", DIALECTS)
@given(
    st.lists(st.binary() | st.sampled_from(PIECES) | st.sampled_from([b'"', b"\n\n", b"data: {", b"}\n\n", b"null"]))
)
def test_junk_raises_nothing_and_only_frames_come_out(dialect: str, pieces: list[bytes]) -> None:
    for asked in (False, True):
        decoder = CHAT[dialect].decoder(call({"stream": True, "stream_options": {"include_usage": asked}}))
        out = b"".join([decoder.feed(piece) for piece in pieces]) + decoder.close()
        assert decoder.failure or decoder.finished
        for frame in out.split(b"\n\n")[:-1]:
            assert frame.startswith(b"data: ")
            assert b"\n" not in frame
            assert frame == b"data: [DONE]" or json.loads(frame[6:])
        assert out == b"" or out.endswith(b"\n\n")


fields = st.sampled_from(["choices", "delta", "message", "content", "tool_calls", "function", "index", "id", "usage",
                          "finish_reason", "arguments", "name", "type", "text", "error", "object"])  # fmt: skip
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(fields, inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("dialect", DIALECTS)
@given(st.lists(st.dictionaries(fields, json_values), max_size=3))
def test_any_json_raises_nothing(dialect: str, chunks: list[object]) -> None:
    chat = call({"stream": True})
    decoder = CHAT[dialect].decoder(chat)
    for chunk in chunks:
        raw = json.dumps(chunk).encode()
        decoder.feed(b"data: " + raw + b"\n\n")
        CHAT[dialect].decode(200, {}, raw, chat)
    decoder.close()
