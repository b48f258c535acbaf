"""A chat request is judged strictly, and what was judged is what is kept."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpu_time import cpu_seconds, decoding_seconds
from tollway.domain.refusals import BadRequest
from tollway.wire.chat_request import MAX_TOOLS, ChatCall, parse_chat
from tollway.wire.estimate import BYTES_PER_TOKEN, MEDIA_BYTES, output_tokens_estimate, prompt_tokens_estimate
from tollway.wire.model_call import MAX_STOPS
from tollway.wire.request_body import MAX_MODEL_CHARACTERS

USER = {"role": "user", "content": "hi"}


def body(**members: object) -> bytes:
    return json.dumps({"model": "m", "messages": [USER], **members}).encode()


def parse(**members: object) -> ChatCall:
    call = parse_chat(body(**members))
    assert isinstance(call, ChatCall), call
    return call


def refused(**members: object) -> str:
    refusal = parse_chat(body(**members))
    assert isinstance(refusal, BadRequest)
    assert refusal.status == 400
    return f"{refusal.param} {refusal.code}"


def test_a_plain_request_is_understood() -> None:
    call = parse()
    assert (call.model, call.stream, call.include_usage, call.max_output_tokens, call.n) == ("m", False, False, None, 1)
    assert set(call.top) == {"model", "messages"}
    assert call.prompt_bytes == len(json.dumps([USER]))


def test_every_member_is_kept_as_it_came() -> None:
    call = parse_chat(b'{"model":"m","new":{"a":1.50e3},"messages":[{"role":"user","content":"hi","x":1}],"new2":null}')
    assert isinstance(call, ChatCall)
    assert {name: bytes(raw) for name, raw in call.top.items()} == {
        "model": b'"m"',
        "new": b'{"a":1.50e3}',
        "messages": b'[{"role":"user","content":"hi","x":1}]',
        "new2": b"null",
    }


def test_of_two_members_of_one_name_the_last_counts_everywhere() -> None:
    call = parse_chat(b'{"model":"a","messages":[{"role":"user","content":"hi"}],"mod\\u0065l":"b"}')
    assert isinstance(call, ChatCall)
    assert (call.model, bytes(call.top["model"])) == ("b", b'"b"')


def test_the_newer_cap_wins() -> None:
    assert parse(max_tokens=5).max_output_tokens == 5
    assert parse(max_tokens=5, max_completion_tokens=7).max_output_tokens == 7
    assert parse(max_tokens=5, max_completion_tokens=0).max_output_tokens == 0
    assert parse(max_tokens=None, max_completion_tokens=None).max_output_tokens is None


def test_a_stream_may_be_asked_for_with_usage() -> None:
    assert parse(stream=True, stream_options={"include_usage": True}).include_usage
    assert not parse(stream=True, stream_options={"include_usage": None}).include_usage
    assert not parse(stream=True, stream_options=None).include_usage
    assert parse(stream=True).stream
    assert not parse(stream=None).stream


def test_null_is_as_good_as_missing() -> None:
    names = (
        "temperature top_p n stop seed tools tool_choice response_format user metadata logit_bias functions store audio"
    )
    assert parse(**dict.fromkeys(names.split())).n == 1


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"model": None}, "model invalid_type"),
        ({"model": 3}, "model invalid_type"),
        ({"model": ""}, "model invalid_value"),
        ({"model": "a\r\nb: c"}, "model invalid_value"),
        ({"model": "a\0"}, "model invalid_value"),
        ({"model": "a" * (MAX_MODEL_CHARACTERS + 1)}, "model invalid_value"),
        ({"user": "a\0"}, "user invalid_value"),
        ({"user": 1}, "user invalid_type"),
        ({"messages": []}, "messages empty_array"),
        ({"messages": {}}, "messages invalid_type"),
        ({"messages": "hi"}, "messages invalid_type"),
        ({"messages": [USER, "hi"]}, "messages[1] invalid_type"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role missing_required_parameter"),
        ({"messages": [{"role": "king", "content": "hi"}]}, "messages[0].role invalid_value"),
        ({"messages": [{"role": 1, "content": "hi"}]}, "messages[0].role invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages[0].content missing_required_parameter"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content invalid_type"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content empty_array"),
        ({"messages": [{"role": "user", "content": ["hi"]}]}, "messages[0].content[0] invalid_type"),
        ({"messages": [{"role": "user", "content": [{}]}]}, "messages[0].content[0].type missing_required_parameter"),
        ({"messages": [{"role": "user", "content": [{"type": 1}]}]}, "messages[0].content[0].type invalid_type"),
        ({"messages": [USER, {"role": "tool", "content": "a"}]}, "messages[1].tool_call_id missing_required_parameter"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": 1}]}]}, "messages[0].tool_calls[0].id invalid_type"),
        ({"temperature": "hot"}, "temperature invalid_type"),
        ({"n": 0}, "n invalid_value"),
        ({"n": 129}, "n invalid_value"),
        ({"n": 1.5}, "n invalid_type"),
        ({"max_tokens": -1}, "max_tokens invalid_value"),
        ({"max_tokens": 2**31}, "max_tokens invalid_value"),
        ({"max_completion_tokens": "5"}, "max_completion_tokens invalid_type"),
        ({"stop": ["a"] * (MAX_STOPS + 1)}, "stop invalid_value"),
        ({"stop": ["a"] * 5, "seed": "x"}, "seed invalid_type"),
        ({"stop": 5}, "stop invalid_type"),
        ({"stream": 1}, "stream invalid_type"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage invalid_type"),
        ({"tools": [{}]}, "tools[0].type missing_required_parameter"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name missing_required_parameter"),
        ({"tools": [{"type": "function"}] * (MAX_TOOLS + 1)}, "tools invalid_value"),
        ({"functions": [{"name": "f"}] * (MAX_TOOLS + 1)}, "functions invalid_value"),
        ({"tool_choice": 1}, "tool_choice invalid_type"),
        ({"response_format": "json"}, "response_format invalid_type"),
        ({"response_format": {}}, "response_format.type missing_required_parameter"),
        ({"logit_bias": [1]}, "logit_bias invalid_type"),
        ({"top_logprobs": -1}, "top_logprobs invalid_value"),
        ({"seed": 2**63}, "seed invalid_value"),
    ],
)  # fmt: skip
def test_a_wrong_member_is_named(members: dict[str, object], expected: str) -> None:
    assert refused(**members) == expected


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"frequency_penalty": -3}, "frequency_penalty"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"stop": ["a"] * 6}, "stop"),
        ({"top_logprobs": 30}, "top_logprobs"),
        ({"tools": [{"type": "function"}] * 200}, "tools"),
        ({"functions": [{"name": "f"}] * 200}, "functions"),
    ],
)
def test_what_only_openai_would_refuse_is_a_call(members: dict[str, object], param: str) -> None:
    call = parse(**members)
    assert call.beyond is not None
    assert (call.beyond.param, call.beyond.code, call.beyond.status) == (param, "invalid_value", 400)
    assert json.loads(bytes(call.top[param])) == members[param]


def test_what_is_within_openais_ranges_says_so() -> None:
    assert (
        parse(temperature=2, stop=["a"] * 4, top_logprobs=20, top_p=0, tools=[{"type": "function"}] * 128).beyond
        is None
    )


@pytest.mark.parametrize("missing", ["model", "messages"])
def test_a_missing_member_is_named(missing: str) -> None:
    members = {"model": "m", "messages": [USER]}
    del members[missing]
    refusal = parse_chat(json.dumps(members).encode())
    assert isinstance(refusal, BadRequest)
    assert (refusal.param, refusal.code) == (missing, "missing_required_parameter")


GOOD = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"x":%b}'


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b"\xef\xbb\xbf" + GOOD % b"1",
        GOOD % b"NaN",
        GOOD % b"Infinity",
        GOOD % b"1" + b"x",
        GOOD % b"01",
        GOOD % b"\xff",
        GOOD % b'"\xff"',
        GOOD % b'"\xed\xa0\x80"',
        GOOD % b'"\\ud800"',
        GOOD % b'"\\udc00"',
        GOOD % (b"[" * 40_000 + b"]" * 40_000),
        GOOD % (b'{"a":' * 40_000 + b"1" + b"}" * 40_000),
        (GOOD % b"1")[:-1],
        GOOD[:-1] % b"1" + b',"\xff":1}',
        b"{'model':1}",
    ],
    ids=lambda text: repr(text[-24:]),
)
def test_what_is_no_strict_json_object_is_refused(text: bytes) -> None:
    refusal = parse_chat(text)
    assert isinstance(refusal, BadRequest)
    assert (refusal.status, refusal.param) == (400, None)


def test_a_refusal_does_not_repeat_a_long_value() -> None:
    refusal = parse_chat(body(messages=[{"role": "x" * 10_000, "content": "hi"}]))
    assert isinstance(refusal, BadRequest)
    assert len(refusal.message) < 400


@pytest.mark.parametrize(
    "text",
    [
        GOOD % (b"[" + b",".join([b"[]"] * 3_000_000) + b"]"),
        GOOD % (b'"' + b"a" * 10_000_000 + b'"'),
        GOOD % (b"1" * 10_000_000),
        b'{"messages":[' + b",".join([b"[]"] * 3_000_000) + b"]}",
        b'{"model":"' + b"\\n" * 5_000_000 + b'"}',
    ],
    ids=["lists", "text", "digits", "messages", "escapes"],
)
def test_ten_megabytes_of_anything_are_judged_at_once(text: bytes) -> None:
    assert cpu_seconds(lambda: parse_chat(text)) < 2 * decoding_seconds(len(text))  # at most half of it


def test_pictures_count_flat_whatever_their_size() -> None:
    def size(picture: str) -> int:
        part = {"type": "image_url", "image_url": {"url": picture}}
        return parse(messages=[{"role": "user", "content": [{"type": "text", "text": "what?"}, part]}]).prompt_bytes

    assert size("data:image/png;base64," + "A" * 1_000_000) == size("https://a/b")
    assert MEDIA_BYTES < size("https://a/b") < MEDIA_BYTES + 200


def test_tools_and_schemas_count_as_prompt() -> None:
    tools = [{"type": "function", "function": {"name": "f", "description": "d" * 1000}}]
    schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"description": "d" * 1000}}}
    assert parse(tools=tools).prompt_bytes > parse().prompt_bytes + 1000
    assert parse(response_format=schema).prompt_bytes > parse().prompt_bytes + 1000
    assert parse(user="u" * 1000).prompt_bytes == parse().prompt_bytes


def test_estimates_round_up() -> None:
    assert prompt_tokens_estimate(4) + 1 == prompt_tokens_estimate(5) == prompt_tokens_estimate(8)
    assert prompt_tokens_estimate(MEDIA_BYTES) > MEDIA_BYTES // BYTES_PER_TOKEN
    assert [output_tokens_estimate(size) for size in (0, 1, 4, 5)] == [0, 1, 1, 2]


def test_a_trailing_assistant_message_is_to_be_continued() -> None:
    assert parse().prefill == ""
    assert parse(messages=[USER, {"role": "assistant", "content": "Once"}]).prefill == "Once"
    parts = [{"type": "text", "text": "On"}, {"type": "text", "text": "ce"}]
    assert parse(messages=[USER, {"role": "assistant", "content": parts}]).prefill == "Once"
    assert parse(messages=[USER, {"role": "assistant", "content": None}]).prefill == ""


@given(st.binary())
def test_junk_is_refused_and_raises_nothing(text: bytes) -> None:
    assert isinstance(parse_chat(text), BadRequest)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.dictionaries(st.sampled_from(["stream", "n", "stop", "tools", "messages", "user", "max_tokens"]), json_values)
)
def test_any_json_gives_a_call_or_a_named_member(members: dict[str, object]) -> None:
    result = parse_chat(body(**members))
    assert isinstance(result, ChatCall) or result.param is None or result.param.split(".")[0].split("[")[0] in members


def test_a_picture_is_an_object_or_a_bare_address() -> None:
    def asked_about(image: object) -> dict[str, object]:
        return {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": image}]}]}

    assert not parse(**asked_about({"url": "https://a/b", "x": 1})).bare_images
    assert parse(**asked_about("https://a/b")).bare_images
    assert refused(**asked_about(3)) == "messages[0].content[0].image_url invalid_type"
