"""Whatever a provider streams within its own grammar, the client's stream keeps every promise of OpenAI's."""

import json
from typing import Any

import pytest
from golden import CHAT, call, sections, streams
from hypothesis import given
from hypothesis import strategies as st
from openai_shape import as_the_sdk_joins, check_stream

texts = st.sampled_from(["", "a", "bc", "é", "🙂", "\u2028", '"', "\\", "data: x\n\n"])
text_parts = st.builds(lambda text: {"type": "text", "text": text}, texts)
parts = (
    text_parts
    | st.builds(lambda inner: {"type": "thinking", "thinking": inner, "closed": True}, st.lists(text_parts, max_size=2))
    | st.sampled_from(
        [{"type": "reference", "reference_ids": [0]}, {"type": "image_url", "image_url": "x"}, {"text": "y"}]
    )
)
contents = st.none() | texts | st.lists(parts, max_size=3)
ids = st.sampled_from([None, "", "null", "aaaaaaaaa", "bbbbbbbbb", "call_1"])
names = st.sampled_from([None, "", "f", "g"])


def calls(arguments: list[Any]) -> st.SearchStrategy[Any]:
    """Pieces of calls, each with any of its members or none."""
    function = st.fixed_dictionaries({"arguments": st.sampled_from(arguments)}, optional={"name": names})
    optional = {"id": ids, "index": st.sampled_from([0, 1])}
    return st.fixed_dictionaries({"function": function}, optional=optional)


deltas = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from([None, "assistant"]),
        "content": contents,
        "tool_calls": st.none() | st.lists(calls(["", "{", "}", "{}", {"x": 1}, None]), max_size=3),
        "refusal": st.none() | texts,
        "tool_call_id": st.none(),
        "metadata": st.just({}),
    },
)
reasons = st.sampled_from(["stop", "length", "model_length", "tool_calls", "tired"])
usages = st.sampled_from(
    [
        None,
        {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
        {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 0, "num_cached_tokens": 4, "service_tier": "x"},
    ]
)


@st.composite
def mistral_chunks(draw: st.DrawFn) -> list[Any]:
    """A stream of Mistral's: deltas of one or two choices in turn, each ended once or more often, or never.

    It begins with the first choice: the SDK cannot take another order."""
    chunks: list[Any] = []
    for index, delta, reason in draw(
        st.lists(st.tuples(st.sampled_from([0, 0, 1]), deltas, st.none() | reasons), min_size=1, max_size=8)
    ):
        choice: dict[str, Any] = {"index": index if chunks else 0, "delta": delta, "finish_reason": reason}
        chunks.append({"id": "5f", "created": 7, "model": "m", "choices": [choice], **draw(_with_usage)})
    return chunks


_with_usage = st.fixed_dictionaries({}, optional={"usage": usages})


def stream_of(chunks: list[Any]) -> bytes:
    frames = [b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks]
    return b"".join(frames) + b"data: [DONE]\n\n"


@given(mistral_chunks(), st.booleans(), st.booleans(), st.data())
def test_any_stream_of_mistrals_is_one_of_openais(
    chunks: list[Any], include_usage: bool, show_reasoning: bool, draw: st.DataObject
) -> None:
    chat = call(
        {
            "stream": True,
            "n": 2,
            "stream_options": {"include_usage": include_usage},
            "show_reasoning": show_reasoning,
        }
    )
    decoder = CHAT["mistral"].decoder(chat)
    data = stream_of(chunks)
    cut = draw.draw(st.integers(0, len(data)))
    out = decoder.feed(data[:cut]) + decoder.feed(data[cut:]) + decoder.close()
    seen = check_stream(out, include_usage=include_usage)
    joined = as_the_sdk_joins(seen)
    for choice in joined.choices:
        said = choice.message.tool_calls or []
        assert all(tool_call.id and tool_call.type == "function" for tool_call in said)
        assert len({tool_call.id for tool_call in said}) == len(said)
        assert all(tool_call.function.name in ("", "f", "g") for tool_call in said)


@pytest.mark.parametrize("path", streams("mistral/streams"), ids=lambda path: path.stem)
def test_every_golden_stream_that_ends_well_keeps_the_promises(path: Any) -> None:
    case = sections(path)
    asked = json.loads(case["given"]).get("stream_options", {}).get("include_usage", False)
    if "failure" not in case:
        as_the_sdk_joins(check_stream(case["client"].encode(), include_usage=asked))


servers = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "role": st.sampled_from([None, "assistant"]),
            "content": st.none() | texts,
            "tool_calls": st.none() | st.lists(calls(["", "{", "}"]), max_size=2),
        },
    ),
    min_size=1,
    max_size=6,
)


@given(servers)
def test_what_servers_get_wrong_the_sdk_does_not_see(deltas: list[Any]) -> None:
    """Ids and names once, a role that is one, an index for each piece."""
    chunks = [{"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    decoder = CHAT["openai"].decoder(call({"stream": True}))
    out = decoder.feed(stream_of(chunks)) + decoder.close()
    seen = [json.loads(frame[6:]) for frame in out.split(b"\n\n")[:-2]]
    message = as_the_sdk_joins(seen).choices[0].message
    assert message.role in ("assistant", None)
    said = message.tool_calls or []
    assert [tool_call.index for tool_call in said] == list(range(len(said)))
    assert all(tool_call.id in ("aaaaaaaaa", "bbbbbbbbb", "call_1") or len(tool_call.id) == 29 for tool_call in said)
    assert all(tool_call.function.name in ("", "f", "g", None) for tool_call in said)


def test_good_chunks_are_not_touched() -> None:
    """Both calls of one delta, roles of two choices, pieces in turn."""
    chunks = [
        {"choices": [{"index": index, "delta": {"role": "assistant", "content": None}} for index in (0, 1)]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [piece(0, "a"), piece(1, "b")]}}]},
        {"choices": [{"index": 1, "delta": {"tool_calls": [piece(0, "c")]}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [piece(1), piece(0)]}}]},
        *({"choices": [{"index": index, "delta": {}, "finish_reason": "tool_calls"}]} for index in (0, 1)),
    ]
    decoder = CHAT["openai"].decoder(call({"stream": True, "n": 2}))
    assert decoder.feed(stream_of(chunks)) == stream_of(chunks)


def piece(index: int, call_id: str | None = None) -> dict[str, Any]:
    if call_id is None:
        return {"index": index, "function": {"arguments": "x"}}
    return {"index": index, "id": call_id, "type": "function", "function": {"name": "f", "arguments": ""}}
