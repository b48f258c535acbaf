"""Good streams written oddly, as servers that copy OpenAI's dialect write them: clients read what was said.

Each stream says some texts and calls. Every way of writing it below means the same, so the client's stream has to hold
the same texts and calls, one reason to end after them, and nothing that the official library cannot join.
"""

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from golden import CHAT, call
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk
from openai_shape import frames

NaN = float("nan")
HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_760_000_000, "model": "m"}

# --- what is said -------------------------------------------------------------------------------------------

texts = st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=6), max_size=4)
names = st.sampled_from(["f", "get_weather", "null_island"])
arguments = st.lists(st.sampled_from(["{", "}", '{"a":1}', '"', "x", "é"]), min_size=1, max_size=3)
called = st.lists(st.tuples(names, arguments), max_size=3)
choices_said = st.lists(st.tuples(texts, called), min_size=1, max_size=2)

Said = list[tuple[list[str], list[tuple[str, list[str]]]]]


def good_chunks(said: Said) -> list[dict[str, Any]]:
    """The chunks of a stream as OpenAI itself would write it, the choices in turn."""
    streams = []
    for index, (pieces, calls) in enumerate(said):
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": None if calls else ""}]
        deltas += [{"content": text} for text in pieces]
        for number, (name, parts) in enumerate(calls):
            function = {"name": name, "arguments": ""}
            first = {"index": number, "id": f"call_{index}_{number}", "type": "function", "function": function}
            deltas.append({"tool_calls": [first]})
            deltas += [{"tool_calls": [{"index": number, "function": {"arguments": part}}]} for part in parts]
        chunks = [{"index": index, "delta": delta, "finish_reason": None} for delta in deltas]
        streams.append([*chunks, {"index": index, "delta": {}, "finish_reason": "tool_calls" if calls else "stop"}])
    longest = max(map(len, streams))
    turns = [stream[turn] for turn in range(longest) for stream in streams if turn < len(stream)]
    return [{**HEAD, "choices": [choice]} for choice in turns]


# --- how it is written --------------------------------------------------------------------------------------

Write = Callable[[random.Random, list[dict[str, Any]]], None]
"""Writes some of the chunks in another way that means the same."""


def each(change: Callable[[random.Random, dict[str, Any], dict[str, Any]], None]) -> Write:
    def write(at: random.Random, chunks: list[dict[str, Any]]) -> None:
        for chunk in chunks:
            if at.random() < 0.7:
                change(at, chunk, chunk["choices"][0])

    return write


def each_piece(change: Callable[[random.Random, dict[str, Any], bool], None]) -> Write:
    def write(at: random.Random, chunks: list[dict[str, Any]]) -> None:
        begun = set()
        for chunk in chunks:
            choice = chunk["choices"][0]
            for piece in (choice["delta"].get("tool_calls") or []) if isinstance(choice["delta"], dict) else []:
                place = choice["index"], piece["index"]
                if at.random() < 0.7:
                    change(at, piece, place not in begun)
                begun.add(place)

    return write


def put(where: dict[str, Any], name: str, value: object) -> None:
    where[name] = value


def if_empty(choice: dict[str, Any], value: object) -> None:
    if not any((choice["delta"] or {}).values()):
        choice["delta"] = value


def later(piece: dict[str, Any], name: str, value: object, *, first: bool) -> None:
    if not first:
        piece[name] = value


def name_later(piece: dict[str, Any], value: object, *, first: bool) -> None:
    if not first:
        piece["function"]["name"] = value


def parts_of(choice: dict[str, Any]) -> None:
    if text := choice["delta"].get("content"):
        choice["delta"]["content"] = [{"type": "text", "text": text[:1]}, {"type": "text", "text": text[1:]}]


def text_in_an_object(at: random.Random, choice: dict[str, Any]) -> None:
    if text := choice["delta"].get("content"):
        shapes: list[object] = [
            {"parts": [text]},
            [{"type": "text", "text": {"value": text}}],
            [{"type": "output_text", "text": text}],
            [{"type": "output_text", "output_text": text}],
        ]
        choice["delta"]["content"] = at.choice(shapes)


def name_in_pieces(chunks: list[dict[str, Any]]) -> None:
    """Each name in two pieces, the second one in a chunk of its own."""
    for place, chunk in reversed(list(enumerate(chunks))):
        choice = chunk["choices"][0]
        for piece in choice["delta"].get("tool_calls") or ():
            if "name" in piece["function"]:
                name = piece["function"]["name"]
                piece["function"]["name"] = name[:1]
                rest = {"index": piece["index"], "function": {"name": name[1:]}}
                chunks.insert(place + 1, {**chunk, "choices": [{**choice, "delta": {"tool_calls": [rest]}}]})


def flat(piece: dict[str, Any]) -> None:
    piece.update(piece.pop("function"))


def as_message(choice: dict[str, Any]) -> None:
    choice["message"] = choice.pop("delta")


def no_index(at: random.Random, chunks: list[dict[str, Any]]) -> None:
    """Only where there is one choice can it be left out, and only where one call follows the other."""
    if all(chunk["choices"][0]["index"] == 0 for chunk in chunks):
        for chunk in chunks:
            del chunk["choices"][0]["index"]


def same_index(at: random.Random, chunks: list[dict[str, Any]]) -> None:
    value = at.choice([0, None, "0", 0.0])
    for chunk in chunks:
        for piece in chunk["choices"][0]["delta"].get("tool_calls") or ():
            piece["index"] = value


def no_reason(at: random.Random, chunks: list[dict[str, Any]]) -> None:
    for chunk in chunks:
        chunk["choices"][0]["finish_reason"] = at.choice([None, "", "null"])


WAYS: dict[str, Write] = {
    "reasons that are none": each(
        lambda at, chunk, choice: put(
            choice, "finish_reason", choice["finish_reason"] or at.choice(["", " ", "null", "None", False])
        )
    ),
    "a reason in every chunk": each(lambda at, chunk, choice: put(choice, "finish_reason", "stop")),
    "no reason at all": no_reason,
    "object null": each(lambda at, chunk, choice: put(chunk, "object", None)),
    "numeric id": lambda at, chunks: [put(chunk, "id", 17) for chunk in chunks],  # type: ignore[func-returns-value]
    "created odd": lambda at, chunks: [  # type: ignore[func-returns-value]
        put(chunk, "created", value) for value in [at.choice([1.5, "7", None, "today"])] for chunk in chunks
    ],
    "unheard-of members": each(lambda at, chunk, choice: put(chunk, "x", {"a": [NaN, -float("inf"), 1.50]})),
    "probabilities that are none": each(
        lambda at, chunk, choice: put(
            choice, "logprobs", {"content": [{"token": "a", "logprob": -float("inf"), "top_logprobs": []}]}
        )
    ),
    "index as text": each(lambda at, chunk, choice: put(choice, "index", str(choice["index"]))),
    "index with a point": each(lambda at, chunk, choice: put(choice, "index", float(choice["index"]))),
    "roles everywhere": each(lambda at, chunk, choice: choice["delta"].setdefault("role", "assistant")),
    "empty roles": each(lambda at, chunk, choice: choice["delta"].setdefault("role", at.choice(["", None, "model"]))),
    "content in parts": each(lambda at, chunk, choice: parts_of(choice)),
    "content in an object": each(lambda at, chunk, choice: text_in_an_object(at, choice)),
    "nulls beside": each(
        lambda at, chunk, choice: put(
            choice, "delta", {"content": None, "tool_calls": None, "function_call": None, **choice["delta"]}
        )
    ),
    "ids repeated": each_piece(lambda at, piece, first: piece.setdefault("id", f"again_{piece['index']}")),
    "ids are names": each_piece(lambda at, piece, first: put(piece, "id", piece["function"].get("name"))),
    "names in pieces": lambda at, chunks: name_in_pieces(chunks),
    "no function around": each_piece(lambda at, piece, first: flat(piece)),
    "ids empty": each_piece(lambda at, piece, first: later(piece, "id", at.choice(["", None, "null"]), first=first)),
    "ids change": each_piece(lambda at, piece, first: later(piece, "id", f"x{at.random()}", first=first)),
    "types repeated": each_piece(
        lambda at, piece, first: later(piece, "type", at.choice(["function", "", None]), first=first)
    ),
    "no types": each_piece(lambda at, piece, first: piece.pop("type", None)),
    "names empty": each_piece(lambda at, piece, first: name_later(piece, at.choice(["", None]), first=first)),
    "arguments null": each_piece(
        lambda at, piece, first: put(piece["function"], "arguments", piece["function"]["arguments"] or None)
    ),
    "index of pieces as text": each_piece(lambda at, piece, first: put(piece, "index", str(piece["index"]))),
    "index of pieces with a point": each_piece(lambda at, piece, first: put(piece, "index", float(piece["index"]))),
    "index of pieces always the same": same_index,
    "no index": no_index,
    "delta null": each(lambda at, chunk, choice: if_empty(choice, None)),
    "delta a list": each(lambda at, chunk, choice: if_empty(choice, [])),
    "no delta": each(lambda at, chunk, choice: choice["delta"] or choice.pop("delta")),
    "message in place of delta": lambda at, chunks: [as_message(chunk["choices"][0]) for chunk in chunks],  # type: ignore[func-returns-value]
    "one choice without a list": each(lambda at, chunk, choice: put(chunk, "choices", choice)),
    "choices by number": each(lambda at, chunk, choice: put(chunk, "choices", {"0": choice})),
}

NOISE = [
    *(b"null", b"[]", b"{}", b"ping", b'"ping"', b"[PING]", b": keep-alive", b'""', b"1760000000", b"true", b"[null]"),
    b'{"choices":null}',
    b'{"choices":[]}',
    b'{"choices":{}}',
    b'{"choices":""}',
    b'{"choices":[],"message":"queued"}',
    b'{"code":0,"message":"success"}',
    b'{"choices":[null]}',
    b'{"id":"c","object":null,"choices":[{"index":0,"content_filter_results":{}}]}',
    b'{"id":"c","model":"m","usage":null}',
]


def written(at: random.Random, chunks: list[dict[str, Any]], noise: bool) -> bytes:
    events = []
    for chunk in chunks:
        if noise and at.random() < 0.5:
            events.append(at.choice(NOISE))
        data = json.dumps(chunk, ensure_ascii=at.random() < 0.5).encode()
        events.append(at.choice([data, data, b"[%b]" % data, json.dumps(data.decode()).encode()]) if noise else data)
    return b"".join(b"data: %b\n\n" % event for event in [*events, b"[DONE]"])


def read(stream: bytes) -> Any:
    """What the official library joins of a stream that ended well; each choice's reason comes once, at its end."""
    *data, done = frames(stream)
    assert done == b"[DONE]"
    state = ChatCompletionStreamState()
    ended: dict[int, str] = {}
    told = set()
    for frame in data:
        chunk = json.loads(frame)
        ChatCompletionChunk.model_validate(chunk)
        state.handle_chunk(ChatCompletionChunk.construct(**chunk))
        for choice in chunk["choices"]:
            index = choice["index"]
            assert index not in ended, "nothing follows a reason to end"
            if choice["finish_reason"] is not None:
                ended[index] = choice["finish_reason"]
            if choice["delta"].get("role") is not None:
                assert index not in told, "a role is told once"
                told.add(index)
    completion = state.current_completion_snapshot
    assert ended.keys() == {choice.index for choice in completion.choices}
    return completion


def expected(said: Said) -> list[tuple[str, list[tuple[str, str]]]]:
    return [("".join(pieces), [(name, "".join(parts)) for name, parts in calls]) for pieces, calls in said]


def found(completion: Any) -> list[tuple[str, list[tuple[str, str]]]]:
    return [
        (
            choice.message.content or "",
            [(tool.function.name, tool.function.arguments) for tool in choice.message.tool_calls or []],
        )
        for choice in completion.choices
    ]


def check(dialect: str, said: Said, stream: bytes, cuts: list[int]) -> Any:
    decoder = CHAT[dialect].decoder(call({"stream": True, "n": len(said)}))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    out = b"".join([decoder.feed(piece) for piece in pieces]) + decoder.close()
    assert decoder.failure is None
    completion = read(out)
    assert found(completion) == expected(said)
    for choice in completion.choices:
        ids = [tool.id for tool in choice.message.tool_calls or []]
        assert len(set(ids)) == len(ids)
        assert all(ids)
        assert all(tool.type == "function" for tool in choice.message.tool_calls or [])
    return completion


@pytest.mark.parametrize("dialect", ["openai", "mistral"])
@pytest.mark.parametrize("way", WAYS)
@given(said=choices_said, at=st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_each_odd_way_of_writing_says_the_same(dialect: str, way: str, said: Said, at: random.Random) -> None:
    chunks = good_chunks(said)
    WAYS[way](at, chunks)
    check(dialect, said, written(at, chunks, noise=False), [])


ALONE = {"ids are names", "names in pieces", "no function around", *list(WAYS)[-3:]}
TOGETHER = [way for way in WAYS if way not in ALONE]
"""The others make chunks that these do not know how to change, or take from calls what these take, too."""


@pytest.mark.parametrize("dialect", ["openai", "mistral"])
@given(
    said=choices_said,
    ways=st.lists(st.sampled_from(TOGETHER), max_size=4, unique=True),
    at=st.randoms(use_true_random=False),
    draw=st.data(),
)
@settings(max_examples=200)
def test_odd_ways_together_say_the_same_wherever_they_are_cut(
    dialect: str, said: Said, ways: list[str], at: random.Random, draw: st.DataObject
) -> None:
    chunks = good_chunks(said)
    for way in sorted(ways, key=TOGETHER.index):
        WAYS[way](at, chunks)
    stream = written(at, chunks, noise=True)
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(stream)), max_size=4)))
    check(dialect, said, stream, cuts)
