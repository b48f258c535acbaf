"""The body of a relayed call: what must be known of it is, and the rest stays as it came."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpu_time import cpu_seconds, decoding_seconds
from tollway.domain.refusals import BadRequest
from tollway.wire.estimate import MEDIA_BYTES
from tollway.wire.json import members
from tollway.wire.relayed_call import RelayedCall, parse_relayed
from tollway.wire.request_body import MAX_MODEL_CHARACTERS


def parse(body: bytes | None = None, **top: object) -> RelayedCall:
    call = parse_relayed(json.dumps(top).encode() if body is None else body)
    assert isinstance(call, RelayedCall), call
    return call


def refused(body: bytes) -> str:
    refusal = parse_relayed(body)
    assert isinstance(refusal, BadRequest)
    return f"{refusal.status} {refusal.param} {refusal.code}"


def test_a_plain_call_is_understood() -> None:
    call = parse(model="m", input="hi", stream=True, max_output_tokens=5)
    assert (call.model, call.stream, call.max_output_tokens, call.refers_to_stored) == ("m", True, 5, None)
    assert call.prompt_bytes == len('"hi"')


def test_a_call_may_lack_everything() -> None:
    for call in (parse(), parse(model=None, stream=None)):
        assert (call.model, call.stream, call.max_output_tokens, call.prompt_bytes) == (None, False, None, 0)


def test_an_empty_body_is_a_call_only_where_it_may_be() -> None:
    call = parse_relayed(b"", may_be_empty=True)
    assert isinstance(call, RelayedCall)
    assert (call.model, call.top) == (None, {})
    assert refused(b"") == "400 None invalid_json"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{", "400 None invalid_json"),
        (b"x", "400 None invalid_json"),
        (b'{"a":"\xff"}', "400 None invalid_json"),
        (b"[" * 40_000, "400 None invalid_type"),
        (b"[]", "400 None invalid_type"),
        (b'"model"', "400 None invalid_type"),
        (b'{"model":3}', "400 model invalid_type"),
        (b'{"model":["m"]}', "400 model invalid_type"),
        (b'{"model":""}', "400 model invalid_value"),
        (b'{"model":"a\\r\\nb: c"}', "400 model invalid_value"),
        (b'{"model":"%b"}' % (b"m" * (MAX_MODEL_CHARACTERS + 1)), "400 model invalid_value"),
        (b'{"model":"m","stream":1}', "400 stream invalid_type"),
        (b'{"model":"m","stream":"true"}', "400 stream invalid_type"),
    ],
)
def test_what_is_no_call_is_refused(body: bytes, expected: str) -> None:
    assert refused(body) == expected


@pytest.mark.parametrize(
    ("top", "cap"),
    [
        ({"max_output_tokens": 5, "max_tokens": 7}, 5),
        ({"max_completion_tokens": 6, "max_tokens": 7}, 6),
        ({"max_output_tokens": None, "max_tokens": 0}, 0),
        ({"max_output_tokens": "5"}, None),
        ({"max_output_tokens": True}, None),
        ({"max_output_tokens": -1}, None),
        ({"max_output_tokens": 10**30}, None),
        ({"max_output_tokens": "inf"}, None),
    ],
)
def test_a_cap_is_taken_where_it_is_a_count(top: dict[str, object], cap: int | None) -> None:
    assert parse(**top).max_output_tokens == cap


def test_another_model_leaves_the_rest_as_it_came() -> None:
    call = parse(b'{ "mod\\u0065l":"old","model": "a" ,"x":1.50e3, "input":"\\u00e9\xc3\xa9","n":null}')
    assert call.model == "a"
    assert call.body('b"') == b'{"model":"b\\"","x":1.50e3,"input":"\\u00e9\xc3\xa9","n":null}'
    assert parse(input="hi").body("b") == b'{"input":"hi","model":"b"}'


def test_everything_that_a_model_reads_counts() -> None:
    prompt = {
        "instructions": "be",
        "input": "hi",
        "tools": [{"type": "function"}],
        "text": {"format": {}},
        "prompt": "p",
    }
    assert parse(**prompt, metadata={"a": "b" * 100}).prompt_bytes == sum(len(json.dumps(v)) for v in prompt.values())


@pytest.mark.parametrize(
    "item",
    [
        {"role": "user", "content": [{"type": "input_image", "image_url": "%"}, {"type": "input_text", "text": "hi"}]},
        {"role": "user", "content": [{"type": "input_file", "file_data": "%", "file_id": None}]},
        {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "%"}}]},
        {"type": "function_call_output", "output": [{"type": "input_image", "image_url": "%"}]},
        {"type": "computer_call_output", "output": {"type": "computer_screenshot", "image_url": "%"}},
        {"type": "image_generation_call", "id": "ig_1", "result": "%"},
    ],
)
def test_a_medium_counts_flat(item: object) -> None:
    rendered = [json.dumps([item, {"role": "user", "content": "x"}]).replace("%", "A" * size) for size in (9, 90_000)]
    small, large = (parse(b'{"input":%b}' % text.encode()) for text in rendered)
    assert small.prompt_bytes == large.prompt_bytes
    assert MEDIA_BYTES < small.prompt_bytes < MEDIA_BYTES + 300


@pytest.mark.parametrize("value", [5, [1, 2], ["a", "b"], [[1]], [{"content": 5}], [{"role": 1}], {"a": 1}, None])
def test_an_input_of_another_shape_counts_whole(value: object) -> None:
    assert parse(input=value).prompt_bytes == len(json.dumps(value))


@pytest.mark.parametrize(
    ("top", "name"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": {"id": "conv_1"}}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"voice": {"id": "voice_1"}}, "voice"),
        ({"background": True}, "background"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input"),
        ({"input": [{"id": "msg_1"}]}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]}]}, "input"),
        ({"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]}, "tools"),
        ({"tools": [{"type": "code_interpreter", "container": "cntr_1"}]}, "tools"),
        ({"tools": [{"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["file-1"]}}]}, "tools"),
        ({"tools": [{"type": "shell", "environment": {"type": "container_reference"}}]}, "tools"),
        ({"images": [{"file_id": "file-1"}]}, "images"),
        ({"mask": {"file_id": "file-1"}, "prompt": {}}, "mask"),
    ],
)
def test_what_is_kept_at_the_provider_is_seen(top: dict[str, object], name: str) -> None:
    assert parse(model="m", **top).refers_to_stored == name


@pytest.mark.parametrize(
    "top",
    [
        {"previous_response_id": None, "conversation": None, "prompt": None, "voice": "alloy", "background": False},
        {"prompt": "a cat", "store": True},
        {"input": 'of "file_id": "x"', "instructions": '"file_id":"x"'},
        {"input": [{"role": "user", "content": '"file_id":"x"'}, {"type": "reasoning", "id": "rs_1"}]},
        {"input": [{"type": "function_call", "arguments": '{"file_id":"x"}'}]},
        {"tools": [{"type": "function", "parameters": {"properties": {"file_id": {"type": "string"}}}}]},
        {"tools": [{"type": "code_interpreter", "container": {"type": "auto", "file_ids": []}}]},
        {"metadata": {"file_id": "file-1"}},
    ],
)
def test_what_only_looks_like_a_reference_is_none(top: dict[str, object]) -> None:
    assert parse(model="m", **top).refers_to_stored is None


def test_a_reference_cannot_hide_behind_escapes() -> None:
    assert parse(b'{"input":[{"role":"user","content":[{"file\\u005fid":"x"}]}]}').refers_to_stored == "input"
    assert parse(b'{"previous_response\\u005fid":"x"}').refers_to_stored == "previous_response_id"
    assert parse(b'{"tools":[1e999,{"file\\u005fid":"x"}]}').refers_to_stored == "tools"
    assert parse(b'{"input":"\\u003cb\\u003e"}').refers_to_stored is None


def test_a_picture_is_judged_quickly() -> None:
    picture = {"type": "input_image", "image_url": "data:image/png;base64," + "A" * 10_000_000}
    body = json.dumps({"model": "m", "input": [{"role": "user", "content": [picture]}]}).encode()
    assert parse(body).prompt_bytes < MEDIA_BYTES * 2
    assert cpu_seconds(lambda: parse(body)) < 3 * decoding_seconds(len(body))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["content", "output", "id"]), inner),
)
NAMES = st.sampled_from(["input", "tools", "prompt", "max_tokens", "voice", "background", "x"])


@given(st.dictionaries(NAMES, JSON))
def test_any_object_is_a_call_and_stays_itself(top: dict[str, object]) -> None:
    body = json.dumps(top).encode("utf-8")
    call = parse(body)
    assert json.loads(call.body("m")) == {**top, "model": "m"}
    assert call.top == members(body)


@given(st.binary())
def test_junk_is_refused(junk: bytes) -> None:
    assert isinstance(parse_relayed(junk), BadRequest) or junk.strip().startswith(b"{")
