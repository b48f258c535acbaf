"""Shapes of single events and answers that servers have: text, calls and reason come through in both dialects, wherever
the bytes are cut, and what is a failure stays one, with its words."""

import json
from typing import Any

import pytest
from golden import CHAT, asked, call
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk
from openai_shape import frames

from tollway.domain.failures import UpstreamFailure, cause_of
from tollway.providers.base import ChatResult, StreamDecoder
from tollway.providers.table import adapters

HEAD = {"id": "c", "object": "chat.completion.chunk", "created": 7, "model": "m"}
DONE = b"data: [DONE]\n\n"
DIALECTS = sorted(CHAT)


def event(chunk: object) -> bytes:
    return b"data: %b\n\n" % (chunk if isinstance(chunk, bytes) else json.dumps(chunk).encode())


def said(delta: object, reason: str | None = None, top: dict[str, Any] | None = None, **choice: Any) -> bytes:
    return event({**HEAD, "choices": [{"index": 0, "delta": delta, "finish_reason": reason, **choice}], **(top or {})})


def piece(index: int | None = 0, call_id: str | None = None, arguments: str | None = None, **more: Any) -> Any:
    """Of a call; ``name`` stands in its function."""
    function = {"name": more.pop("name")} if "name" in more else {}
    if arguments is not None:
        function["arguments"] = arguments
    made = {"function": function, "index": index, "id": call_id, **more}
    return {name: value for name, value in made.items() if value not in (None, {})}


def calls(*pieces: Any) -> bytes:
    return said({"tool_calls": list(pieces)})


HEL, LO, END = said({"role": "assistant", "content": "Hel"}), said({"content": "lo"}), said({}, "stop")
CALLED = said({}, "tool_calls")


def content(shape: object) -> bytes:
    return HEL + said({"content": shape}) + END + DONE


def after_the_end(*events: bytes) -> bytes:
    return HEL + LO + END + b"".join(events)


HELLO: dict[str, bytes] = {
    # an event without choices that only tells something
    "progress": event({**HEAD, "choices": [], "message": "queued"}) + HEL + LO + END + DONE,
    "no choices, but well": HEL + event({"code": 0, "message": "success"}) + LO + END + DONE,
    "status ok": HEL + event({"status": "ok", "message": "success"}) + LO + END + DONE,
    "success": HEL + event({"success": True, "detail": "fine"}) + LO + END + DONE,
    "a message after the end": after_the_end(event({"type": "message_stop", "message": "done"}), DONE),
    "details after the end": after_the_end(event({"detail": "finished in 3s"}), DONE),
    # an error that is none
    **{
        f"error {error}": HEL + said({"content": "lo"}, top={"error": "?"}).replace(b'"?"', error.encode()) + END + DONE
        for error in ("0", "0.0", "-0", "0e5", "{ }", "[ ]", '""', '" "', "false", "null")
    },
    # content
    "a text that is an object": content([{"type": "text", "text": {"value": "lo", "annotations": []}}]),
    "parts": content({"parts": ["lo"]}),
    "parts of parts": content({"parts": [{"text": "lo"}]}),
    "output_text": content([{"type": "output_text", "output_text": "lo"}]),
    "output_text as text": content([{"type": "output_text", "text": "lo"}]),
    "output_text beside a picture": content(
        [{"type": "image_url", "image_url": "x"}, {"type": "output_text", "text": "lo"}]
    ),
    # after the end
    "DONE with a semicolon": after_the_end(b"data: [DONE];\n\n"),
    "EOS": after_the_end(b"data: [EOS]\n\n"),
    "end": after_the_end(b"data: end\n\n"),
    "DONE without brackets": after_the_end(b"data: DONE\n\n"),
    "EOS after reasons that mean nothing": said({"content": "Hel"}, "stop") + said({"content": "lo"}, "stop")
    + b"data: [EOS]\n\n",
    "junk after the end": after_the_end(b"data: bye {\n\n", DONE),
    "a strange choice after the end": after_the_end(event({**HEAD, "choices": [{"index": 99, "delta": {}}]}), DONE),
    # choices
    "index -1": said({"content": "Hel"}, index=-1) + said({"content": "lo"}, "stop", index=-1) + DONE,
    "choices an empty text": HEL + event({**HEAD, "choices": ""}) + LO + END + DONE,
    "choices an empty object": HEL + event({**HEAD, "choices": {}}) + LO + END + DONE,
    # a message for a delta
    "a sum": HEL + LO
    + event({**HEAD, "choices": [{"index": 0, "message": {"content": "Hello"}, "finish_reason": "stop"}]}) + DONE,
}  # fmt: skip


def joined(out: bytes) -> Any:
    """The one choice that the official library joins, and its reason, told once and at the end."""
    *data, done = frames(out)
    assert done == b"[DONE]"
    state = ChatCompletionStreamState()
    reasons = []
    for frame in data:
        chunk = json.loads(frame)
        ChatCompletionChunk.model_validate(chunk)
        state.handle_chunk(ChatCompletionChunk.construct(**chunk))
        for choice in chunk["choices"]:
            reasons.append(choice["finish_reason"])
    assert [reason for reason in reasons if reason is not None] == reasons[-1:]
    (choice,) = state.current_completion_snapshot.choices
    return choice


def read(dialect: str, stream: bytes) -> Any:
    """The choice, which does not depend on where the stream is cut."""
    out, decoder = decoded(dialect, stream)
    assert decoder.failure is None
    events = [part + b"\n\n" for part in stream.split(b"\n\n")]
    for pieces in (events, [stream[at : at + 1] for at in range(len(stream))], [stream[:50], stream[50:]]):
        again, _ = decoded(dialect, *pieces)
        assert again == out
    return joined(out)


def decoded(dialect: str, *pieces: bytes) -> tuple[bytes, StreamDecoder]:
    decoder = CHAT[dialect].decoder(call({"stream": True}))
    return b"".join([*map(decoder.feed, pieces), decoder.close()]), decoder


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("shape", HELLO)
def test_hello_is_read(dialect: str, shape: str) -> None:
    choice = read(dialect, HELLO[shape])
    assert (choice.message.content, choice.finish_reason) == ("Hello", "stop")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_is_written_in_messages_is_not_taken_for_a_sum(dialect: str) -> None:
    def message(text: str, reason: str | None = None) -> bytes:
        return event({**HEAD, "choices": [{"index": 0, "message": {"content": text}, "finish_reason": reason}]})

    assert read(dialect, message("ha") + message("ha", "stop") + DONE).message.content == "haha"
    text = event({**HEAD, "choices": [{"index": 0, "text": "ha"}]})
    assert read(dialect, text + message("ha", "stop") + DONE).message.content == "haha"


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "refusal", [[{"type": "refusal", "refusal": "I can"}], {"type": "refusal", "refusal": "I can"}]
)
def test_a_refusal_among_the_parts_is_one(dialect: str, refusal: object) -> None:
    message = read(dialect, said({"role": "assistant", "content": refusal}) + said({"refusal": "not"}) + END).message
    assert (message.content or "", message.refusal) == ("", "I cannot")
    body = {**HEAD, "choices": [{"index": 0, "message": {"content": refusal}, "finish_reason": "stop"}]}
    result = CHAT[dialect].decode(200, {}, json.dumps(body).encode(), call({}))
    assert isinstance(result, ChatResult)
    whole = json.loads(result.body)["choices"][0]["message"]
    assert (whole["content"] or "", whole["refusal"]) == ("", "I can")


F1, F2 = ("f", '{"a":1}'), ("f", '{"a":2}')
CALLS: dict[str, tuple[bytes, list[tuple[str, str]]]] = {
    "ids that are names": (calls(piece(0, "f", F1[1], name="f")) + calls(piece(1, "f", F2[1], name="f")), [F1, F2]),
    "in one event": (calls(piece(0, "f", F1[1], name="f"), piece(1, "f", F2[1], name="f")), [F1, F2]),
    "with their arguments apart": (
        calls(piece(0, "f", "", name="f"), piece(1, "f", "", name="f"))
        + calls(piece(0, arguments=F1[1])) + calls(piece(1, arguments=F2[1])),
        [F1, F2],
    ),
    "with id and name in each piece": (
        calls(piece(0, "f", "", name="f")) + calls(piece(1, "f", "", name="f"))
        + calls(piece(0, "f", F1[1], name="f")) + calls(piece(1, "f", F2[1], name="f")),
        [F1, F2],
    ),
    "with the id in each piece": (
        calls(piece(0, "f", "", name="f")) + calls(piece(1, "f", "", name="f"))
        + calls(piece(0, "f", F1[1])) + calls(piece(1, "f", F2[1])),
        [F1, F2],
    ),
    "an id whose index comes late": (
        calls(piece(None, "f", "{", name="f")) + calls(piece(0, "f", "}", name="f")),
        [("f", "{}")],
    ),
    "a name in pieces": (
        calls(piece(0, "a", "", name="get_")) + calls(piece(0, name="wea")) + calls(piece(0, None, "{}", name="ther")),
        [("get_weather", "{}")],
    ),
    "a name in pieces, its id in each": (
        calls(piece(0, "a", "", name="get_")) + calls(piece(0, "a", name="weather")) + calls(piece(0, "a", "{}")),
        [("get_weather", "{}")],
    ),
    "a name that grows": (
        calls(piece(0, "a", "", name="get_")) + calls(piece(0, "a", name="get_weather")) + calls(piece(0, None, "{}")),
        [("get_weather", "{}")],
    ),
    "a name in every piece": (calls(piece(0, "a", "{", name="f")) + calls(piece(0, "a", "}", name="f")), [("f", "{}")]),
    "flat": (
        calls({"index": 0, "id": "a", "name": "f", "arguments": "{"}) + calls({"index": 0, "arguments": "}"}),
        [("f", "{}")],
    ),
    "a name beside its function": (
        calls({"index": 0, "id": "a", "name": "f", "function": {"arguments": "{}"}}),
        [("f", "{}")],
    ),
    "an emoji in halves": (
        calls(piece(0, "a", '{"a":"\ud83d', name="f")) + calls(piece(0, arguments='\ude00"}')), [("f", '{"a":"😀"}')]
    ),
    "half an emoji before another call": (
        calls(piece(0, "a", "x\ud83d", name="f")) + calls(piece(1, "b", "{}", name="g")), [("f", "x"), ("g", "{}")]
    ),
}  # fmt: skip


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("shape", CALLS)
def test_calls_are_read(dialect: str, shape: str) -> None:
    stream, expected = CALLS[shape]
    choice = read(dialect, said({"role": "assistant"}) + stream + CALLED + DONE)
    made = choice.message.tool_calls
    assert [(tool.function.name, tool.function.arguments) for tool in made] == expected
    assert len({tool.id for tool in made}) == len(made)
    assert choice.finish_reason == "tool_calls"


@pytest.mark.parametrize("names", [("get_", "weather"), ("get_", "get_weather"), ("get_weather", "get_weather")])
def test_the_name_in_the_older_form_may_come_in_pieces(names: tuple[str, str]) -> None:
    deltas: list[Any] = [{"function_call": {"name": name}} for name in names]
    deltas += [{"function_call": {"arguments": "{"}}, {"function_call": {"name": "x", "arguments": "}"}}]
    function = read("openai", b"".join(map(said, deltas)) + said({}, "function_call") + DONE).message.function_call
    assert (function.name, function.arguments) == ("get_weather", "{}")


@pytest.mark.parametrize(
    "first", [{"custom": {"name": "sh", "input": "ls"}}, {"type": "custom", "name": "sh", "input": "ls"}]
)
def test_a_custom_call_keeps_its_name_and_its_input(first: dict[str, Any]) -> None:
    stream = calls({"index": 0, "id": "a", **first}) + calls({"index": 0, "custom": {"input": " -l"}}) + CALLED + DONE
    out, _ = decoded("openai", stream)
    pieces = [json.loads(frame)["choices"][0]["delta"]["tool_calls"][0] for frame in frames(out)[:2]]
    assert (pieces[0]["type"], pieces[0]["custom"]) == ("custom", {"name": "sh", "input": "ls"})
    assert pieces[1]["custom"] == {"input": " -l"}


@pytest.mark.parametrize("late", [b"", calls(piece(0, name="f")), calls(piece(0, "a", "{}", name="f"))])
def test_what_is_said_of_a_call_before_its_name_waits_with_it(late: bytes) -> None:
    extra = {"google": {"thought_signature": "SIG"}}
    out, decoder = decoded("openai", calls(piece(0, "a", extra_content=extra)) + late + CALLED + DONE)
    deltas = [json.loads(frame)["choices"][0]["delta"] for frame in frames(out)[:-1]]
    first = next(delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta)
    assert (decoder.failure, first["id"], first["extra_content"]) == (None, "a", extra)
    assert out.count(b"SIG") == 1
    long = calls(piece(0, "a", extra_content="x" * 200_000))
    assert len(decoded("openai", long + late + CALLED + DONE)[0]) < 1_000


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_refusal_in_halves_is_whole(dialect: str) -> None:
    stream = said({"role": "assistant", "refusal": "no \ud83d"}) + said({"refusal": "\ude00"}) + END + DONE
    assert read(dialect, stream).message.refusal == "no 😀"


def test_what_stands_beside_a_text_and_its_reason_is_told_once() -> None:
    out, _ = decoded("openai", HEL + said({"content": "lo"}, "stop", {"x": [1]}, token_ids=[5, 6]) + DONE)
    assert (out.count(b"token_ids"), out.count(b'"x"')) == (1, 1)
    *_, last, _ = frames(out)
    assert json.loads(last) == {**HEAD, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


WORDS = "engine is overloaded"
FAILED: dict[str, Any] = {
    "success false": {"success": False, "msg": WORDS},
    "status error": {"status": "error", "msg": WORDS},
    "a status of failure": {"status": 503, "details": WORDS},
    "a code": {"code": -1, "err_msg": WORDS},
    "a code, choices beside it": {"code": 500, "choices": [], "message": WORDS},
    "an exception": {"exception": WORDS},
    "a type": {"type": "error", "choices": [], "message": WORDS},
    "a message": {"message": WORDS},
    "a detail, choices null": {"detail": WORDS, "choices": None},
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("shape", FAILED)
def test_an_error_event_is_a_failure_with_its_words(dialect: str, shape: str) -> None:
    out, decoder = decoded(dialect, HEL + event(FAILED[shape]) + DONE)
    assert decoder.failure is not None
    assert WORDS in cause_of(decoder.failure)
    assert DONE not in out
    result = CHAT[dialect].decode(200, {}, json.dumps(FAILED[shape]).encode(), call({}))
    assert isinstance(result, UpstreamFailure)
    assert WORDS in cause_of(result)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("error", [{"error": {"message": WORDS}}, {"object": "error", "message": WORDS}])
def test_an_error_after_the_end_is_told(dialect: str, error: object) -> None:
    _, decoder = decoded(dialect, after_the_end(event(error), DONE))
    assert decoder.failure is not None
    assert WORDS in cause_of(decoder.failure)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_looks_like_the_end_is_none_before_it(dialect: str) -> None:
    _, decoder = decoded(dialect, HEL + b"data: end\n\n" + LO + END + DONE)
    assert decoder.failure is not None


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf", b"\n\xef\xbb\xbf "])
def test_a_whole_answer_in_place_of_a_stream_has_its_calls_apart(dialect: str, bom: bytes) -> None:
    made = [
        {"index": 0, "id": name, "type": "function", "function": {"name": name, "arguments": "{}"}} for name in "fg"
    ]
    message = {"role": None, "content": None, "tool_calls": made}
    body = bom + json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}).encode()
    for pieces in ([body], [body[at : at + 1] for at in range(len(body))]):
        out, decoder = decoded(dialect, *pieces)
        assert decoder.failure is None
        deltas = [choice["delta"] for frame in frames(out)[:-1] for choice in json.loads(frame)["choices"]]
        assert [delta["role"] for delta in deltas if "role" in delta] == ["assistant"]
        found = [tool for delta in deltas for tool in delta.get("tool_calls", ())]
        assert [(tool["index"], tool["function"]["name"]) for tool in found] == [(0, "f"), (1, "g")]


GOOD: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "chat/completions": (
        {"messages": [{"role": "user", "content": "u"}]},
        {"choices": [{"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}]},
    ),
    "completions": ({"prompt": "a"}, {"choices": [{"index": 0, "text": "a", "finish_reason": "stop", "message": {}}]}),
    "embeddings": ({"input": "a"}, {"data": [{"index": 0, "embedding": [0.5]}]}),
    "moderations": ({"input": "a"}, {"results": [{"categories": {}, "category_scores": {}}]}),
}


@pytest.mark.parametrize("status", [201, 202, 203, 206])
@pytest.mark.parametrize("operation", GOOD)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_good_answer_is_good_with_any_status_that_says_so(dialect: str, operation: str, status: int) -> None:
    given, answer = GOOD[operation]
    adapter: Any = adapters(dialect)[operation]
    result = adapter.decode(status, {}, json.dumps(answer).encode(), asked(operation, given))
    assert isinstance(result, ChatResult)
