"""Streams from strangers: bounded, never raising, and counted."""

import gc
import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from golden import CHAT, asked, call, sections, streams
from hypothesis import given
from hypothesis import strategies as st

from cpu_time import QUADRATIC, growth
from tollway.domain.failures import FailureKind, UpstreamFailure
from tollway.providers import stream
from tollway.providers.base import ChatResult, StreamDecoder
from tollway.providers.bounds import EXTRA_CHOICES, MAX_CHAT_EVENT_BYTES, MAX_PARTS
from tollway.providers.table import adapters
from tollway.providers.tool_numbers import MAX_CALLS, MAX_ID_BYTES

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
    assert decoder.content_bytes == 2, "what it thought is billed, although nobody is shown it"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_endless_event_is_a_failure(dialect: str) -> None:
    decoder = CHAT[dialect].decoder(call({"stream": True}))
    assert decoder.feed(text("abc"))
    piece = b"data: " + b"x" * (1 << 20)
    for _ in range(MAX_CHAT_EVENT_BYTES // len(piece) + 2):
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
    for wanted in (False, True):
        decoder = CHAT[dialect].decoder(call({"stream": True, "stream_options": {"include_usage": wanted}}))
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


# --- what a decoder remembers -------------------------------------------------------------------------------

OPERATIONS = [("openai", "chat/completions"), ("mistral", "chat/completions"), ("openai", "completions")]


def chunk(**choice: Any) -> bytes:
    said = {"index": 0, "delta": {}, "finish_reason": None, **choice}
    return b"data: " + json.dumps({"id": "c", "choices": [said]}).encode() + b"\n\n"


def pieces_of_call(**piece: Any) -> bytes:
    return chunk(delta={"tool_calls": [piece]})


def started(dialect: str, operation: str = "chat/completions", n: int = 1) -> StreamDecoder:
    given = {"stream": True, "n": n}
    said = call(given) if operation == "chat/completions" else asked(operation, {**given, "prompt": "a"})
    decoder = adapters(dialect)[operation].decoder(said)
    decoder.feed(chunk(delta={"content": "a"}, text="a"))
    assert decoder.started
    return decoder


def fails_within(decoder: StreamDecoder, make: Callable[[int], bytes], rounds: int) -> bool:
    for number in range(rounds):
        decoder.feed(make(number))
        if decoder.failure is not None:
            assert decoder.failure.kind is FailureKind.INVALID
            return True
    return False


@pytest.mark.parametrize(("dialect", "operation"), OPERATIONS)
@pytest.mark.parametrize("n", [1, 3])
def test_choices_that_nobody_asked_for_are_no_answer(dialect: str, operation: str, n: int) -> None:
    decoder = started(dialect, operation, n)
    assert not fails_within(
        decoder, lambda index: chunk(index=index, delta={"content": "b"}, text="b"), n + EXTRA_CHOICES
    )
    assert fails_within(decoder, lambda index: chunk(index=n + EXTRA_CHOICES, delta={}, text=""), 1)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "piece",
    [
        lambda number: {"index": number, "id": f"c{number}", "function": {"name": "f", "arguments": ""}},
        lambda number: {"index": 0, "id": f"c{number}", "function": {"name": "f", "arguments": "{}"}},
        lambda number: {"id": f"c{number}" + "x" * 1000, "function": {"name": "f", "arguments": "{}"}},
        lambda number: {"index": number, "id": f"c{number}"},
        lambda number: {"index": number, "function": {"arguments": "{}"}},
        lambda number: {"function": {"name": f"f{number}", "arguments": "{}"}},
    ],
)
def test_more_calls_than_any_answer_has_are_none(dialect: str, piece: Callable[[int], dict[str, Any]]) -> None:
    decoder = started(dialect)
    assert not fails_within(decoder, lambda number: pieces_of_call(**piece(number)), MAX_CALLS)
    assert fails_within(decoder, lambda number: pieces_of_call(**piece(MAX_CALLS + number)), 1)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_one_call_of_ever_new_indexes_is_none(dialect: str) -> None:
    decoder = started(dialect)
    assert fails_within(decoder, lambda number: pieces_of_call(index=number, id="c", function={"name": "f"}), 1000)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_id_may_be_long_and_has_an_end(dialect: str) -> None:
    """Some servers hide in it what a model thought."""
    function = {"name": "f", "arguments": "{"}
    decoder = started(dialect)
    first, other = "x" * MAX_ID_BYTES, "x" * (MAX_ID_BYTES - 1) + "y"
    out = decoder.feed(pieces_of_call(index=0, id=first, function=function))
    out += decoder.feed(pieces_of_call(index=0, id=other, function=function))
    out += decoder.feed(pieces_of_call(index=0, id=first, function={"arguments": "}"}))
    calls = [
        frame["choices"][0]["delta"]["tool_calls"][0]
        for frame in map(json.loads, out.replace(b"data: ", b"").split(b"\n\n")[:-1])
    ]
    assert [(piece["index"], piece.get("id")) for piece in calls] == [(0, first), (1, other), (0, None)]
    assert fails_within(decoder, lambda _: pieces_of_call(index=0, id=first + "y", function={"arguments": "}"}), 1)


GROWING: dict[str, Callable[[int], bytes]] = {
    "ids of pieces": lambda number: pieces_of_call(index=0, id=f"x{number}" + "y" * 500, function={"arguments": "x"}),
    "pieces without anything": lambda number: pieces_of_call(),
    "reasons": lambda number: chunk(finish_reason=f"because {number}" + "x" * 500),
    "texts after reasons": lambda number: chunk(delta={"content": "x" * 500}, text="x", finish_reason="stop"),
    "empty frames": lambda number: b"data: {}\n\ndata: null\n\n",
    "halves": lambda number: chunk(delta={"content": "\ud83d"}, text="\ud83d"),
    "usage": lambda number: b'data: {"choices":[],"usage":{"prompt_tokens":%d,"completion_tokens":1}}\n\n' % number,
    "heads": lambda number: chunk(delta={"content": "a"}, text="a")[:-3] + b',"model":"%d"}\n\n' % number,
}


@pytest.mark.parametrize(("dialect", "operation"), OPERATIONS)
@pytest.mark.parametrize("grows", GROWING)
def test_a_long_stream_is_not_remembered(dialect: str, operation: str, grows: str) -> None:
    decoder, make = started(dialect, operation), GROWING[grows]
    decoder.feed(pieces_of_call(index=0, id="c", function={"name": "f", "arguments": ""}))
    frames = [make(number) for number in range(1500)]
    for frame in frames[:500]:
        decoder.feed(frame)
    tracemalloc.start()
    try:
        for frame in frames[500:]:
            decoder.feed(frame)
        gc.collect()  # exceptions and their frames, which are nobody's memory
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert decoder.failure is None
    assert grown < 50_000  # a hundredth of what came


@pytest.mark.parametrize("dialect", DIALECTS)
def test_arguments_that_wait_for_a_name_do_so_up_to_a_bound(dialect: str) -> None:
    decoder = started(dialect)
    out = b"".join(
        decoder.feed(pieces_of_call(index=0, id="c", function={"arguments": "Q" * 1000})) for _ in range(1000)
    )
    assert out.count(b"Q") == 1_000_000
    assert out.count(b'"name":""') == 1


def test_a_reason_with_much_around_it_waits_alone() -> None:
    decoder = started("openai")
    assert decoder.feed(chunk(finish_reason="stop", x="y" * 100_000)) == b""
    rest = decoder.close()
    assert len(rest) < 500
    assert b'"finish_reason":"stop"' in rest


# --- what it costs to take an answer apart ------------------------------------------------------------------

MANY = MAX_PARTS * 20
COSTLY = {
    "calls": b'{"choices":[{"index":0,"delta":{"tool_calls":[%b]}}]}' % b",".join([b"{}"] * MANY),
    "choices": b'{"choices":[%b]}' % b",".join([b"{}"] * MANY),
    "members": b'{%b,"choices":[{"index":"0","delta":{"content":"a"}}]}' % b",".join([b'"a":0'] * MANY),
    "parts": b'{"choices":[{"index":0,"delta":{"content":[%b]}}]}' % b",".join([b"{}"] * MANY),
    "numbers that are none": b'{"x":[%b],"choices":[]}' % b" ".join([b"NaN"] * MANY),
    "halves": b'{"choices":[{"index":0,"delta":{"content":"%b"}}]}' % (b"\\ud83d" * MANY),
    "quotes": b'"' * MANY,
    "brackets": b"[" * MANY,
}


@pytest.mark.parametrize(("dialect", "operation"), OPERATIONS)
@pytest.mark.parametrize("costly", COSTLY)
def test_an_event_that_would_take_long_is_refused_before_it_is_taken_apart(
    dialect: str, operation: str, costly: str
) -> None:
    decoder = started(dialect, operation)
    event = b"data: %b\n\n" % COSTLY[costly]
    tracemalloc.start()
    try:
        assert decoder.feed(event) == b""
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert decoder.failure is not None
    assert decoder.failure.kind is FailureKind.INVALID
    # Copies of its bytes and what is cut out of one slice of them, not an object for each of its letters.
    assert peak < 12 * len(event) + 4_000_000


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_large_picture_passes(dialect: str) -> None:
    text = "data:image/png;base64," + "A" * (MAX_CHAT_EVENT_BYTES - 1000)
    decoder = started(dialect)
    out = decoder.feed(chunk(delta={"content": text}))
    assert decoder.failure is None
    assert text.encode() in out


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_long_text_may_hold_as_many_quotes_and_braces_as_it_likes(dialect: str) -> None:
    text = '{"a": ["b\\"", {}]},' * MAX_PARTS
    decoder = started(dialect)
    out = decoder.feed(chunk(delta={"content": text}))
    assert decoder.failure is None
    assert json.dumps(text)[1:-1].encode() in out


@pytest.mark.parametrize(("dialect", "operation"), OPERATIONS)
@pytest.mark.parametrize(
    "tiny", [b"data:{}\n\n", b"data:1\n\n", b":\n\n", b'data:{"choices":[]}\n\n', b"data:\n\n", b"\n"]
)
def test_many_tiny_events_take_no_longer_each(dialect: str, operation: str, tiny: bytes) -> None:
    adapter = adapters(dialect)[operation]
    made = call({"stream": True}) if operation == "chat/completions" else asked(operation, {"prompt": "a"})

    def read(events: bytes) -> None:
        adapter.decoder(made).feed(b": a\n\n" + events)

    assert growth(read, tiny * 2_000, tiny * 8_000) < QUADRATIC


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("choice", [b"{}", b'{"message":{}}', b'{"index":0,"message":{},"finish_reason":"stop"}'])
@pytest.mark.parametrize("calls", [False, True])
def test_a_reply_of_far_too_much_is_none(dialect: str, choice: bytes, calls: bool) -> None:
    many = b",".join([b"{}" if calls else choice] * 600_000)
    body = b'{"choices":[{"message":{"tool_calls":[%b]}}]}' % many if calls else b'{"choices":[%b]}' % many
    tracemalloc.start()
    try:
        result = CHAT[dialect].decode(200, {}, body, call({}))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(result, UpstreamFailure)
    assert peak < 4 * len(body) + 1_000_000


def test_a_completion_of_far_too_many_texts_is_none() -> None:
    body = b'{"choices":[%b]}' % b",".join([b'{"text":"","index":0,"finish_reason":"stop"}'] * 300_000)
    tracemalloc.start()
    try:
        result = adapters("openai")["completions"].decode(200, {}, body, asked("completions", {"prompt": "a"}))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(result, UpstreamFailure)
    assert peak < 1_000_000


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("n", [1, 4])
def test_more_choices_than_were_asked_for_are_put_up_with_up_to_a_bound(dialect: str, n: int) -> None:
    choices = [
        {"index": index, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}
        for index in range(n + EXTRA_CHOICES + 1)
    ]
    for count, good in ((n + EXTRA_CHOICES, True), (n + EXTRA_CHOICES + 1, False)):
        body = json.dumps({"choices": choices[:count]}).encode()
        assert isinstance(CHAT[dialect].decode(200, {}, body, call({"n": n})), ChatResult) is good


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_is_made_of_a_reply_is_not_many_times_as_large(dialect: str) -> None:
    """A large member at the top is not repeated in each frame, nor a long id."""
    choices = [{"index": index, "message": {"content": "a"}, "finish_reason": "stop"} for index in range(4)]
    body = json.dumps({"id": "i" * 10_000, "x": "y" * 100_000, "model": "m" * 10_000, "choices": choices}).encode()
    decoder = CHAT[dialect].decoder(call({"stream": True, "n": 4}))
    out = decoder.feed(body) + decoder.close()
    assert decoder.failure is None
    assert len(out) < 2 * len(body)
