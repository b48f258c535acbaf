"""Requests for embeddings, completions and moderations are judged strictly, and what was judged is what is kept."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollway.domain.refusals import BadRequest
from tollway.wire.completion_request import MAX_PROMPTS, CompletionCall, parse_completion
from tollway.wire.embeddings_request import MAX_INPUTS, OPENAI_INPUTS, EmbeddingsCall, parse_embeddings
from tollway.wire.estimate import BYTES_PER_TOKEN, MEDIA_BYTES
from tollway.wire.model_call import MAX_STOPS
from tollway.wire.moderation_request import ModerationCall, parse_moderation

PARSERS = {"embeddings": parse_embeddings, "completions": parse_completion, "moderations": parse_moderation}
LEAST: dict[str, dict[str, object]] = {
    "embeddings": {"model": "m", "input": "a"},
    "completions": {"model": "m", "prompt": "a"},
    "moderations": {"input": "a"},
}


def embeddings(**members: object) -> EmbeddingsCall:
    call = parse_embeddings(json.dumps({"model": "m", **members}).encode())
    assert isinstance(call, EmbeddingsCall), call
    return call


def completion(**members: object) -> CompletionCall:
    call = parse_completion(json.dumps({"model": "m", **members}).encode(), 7)
    assert isinstance(call, CompletionCall), call
    return call


def moderation(**members: object) -> ModerationCall:
    call = parse_moderation(json.dumps(members).encode())
    assert isinstance(call, ModerationCall), call
    return call


@pytest.mark.parametrize(
    ("given", "inputs", "tokens", "prompt_bytes"),
    [
        ("ab", 1, False, len('"ab"')),
        (["ab", "c"], 2, False, len('["ab", "c"]')),
        ([1, 2, 3], 1, True, 3 * BYTES_PER_TOKEN),
        ([[1, 2], [3]], 2, True, 3 * BYTES_PER_TOKEN),
        (["a"] * MAX_INPUTS, MAX_INPUTS, False, 5 * MAX_INPUTS),
        ([100_000] * 8000, 1, True, 8000 * BYTES_PER_TOKEN),
    ],
)
def test_inputs_are_counted(given: object, inputs: int, tokens: bool, prompt_bytes: int) -> None:
    call = embeddings(input=given)
    assert (call.inputs, call.tokens, call.prompt_bytes) == (inputs, tokens, prompt_bytes)
    assert (call.model, call.stream, call.max_output_tokens, call.n) == ("m", False, 0, 1)


def test_numbers_are_asked_for_unless_something_else_is() -> None:
    assert embeddings(input="a", encoding_format=None).encoding_format == "float"
    assert embeddings(input="a", encoding_format="base64").encoding_format == "base64"


@pytest.mark.parametrize(
    ("given", "choices", "prompt_bytes"),
    [
        ({"prompt": "ab"}, 1, 4),
        ({"prompt": None}, 1, 0),
        ({"prompt": "ab", "suffix": "cd"}, 1, 8),
        ({"prompt": "ab", "suffix": None}, 1, 4),
        ({"prompt": ["ab", "c"], "n": 3}, 6, len('["ab", "c"]')),
        ({"prompt": [1, 2], "n": None}, 1, 2 * BYTES_PER_TOKEN),
        ({"prompt": [[1, 2], [3]], "n": 2, "best_of": 5}, 10, 3 * BYTES_PER_TOKEN),
        ({"prompt": "ab", "best_of": 0}, 1, 4),
    ],
)
def test_everything_that_is_generated_is_counted(given: dict[str, object], choices: int, prompt_bytes: int) -> None:
    call = completion(**given)
    assert (call.n, call.prompt_bytes) == (choices, prompt_bytes)
    assert (call.created, call.max_output_tokens) == (7, None)


def test_a_completion_says_how_it_is_to_be_answered() -> None:
    call = completion(prompt="a", stream=True, stream_options={"include_usage": True}, max_tokens=5)
    assert (call.stream, call.include_usage, call.max_output_tokens) == (True, True, 5)
    assert not completion(prompt="a", stream=None, stream_options=None).include_usage


@pytest.mark.parametrize(
    ("operation", "members", "param", "code"),
    [
        ("embeddings", {"input": ["a"] * (OPENAI_INPUTS + 1)}, "input", "array_above_max_length"),
        ("completions", {"best_of": 21}, "best_of", "invalid_value"),
        ("completions", {"temperature": 3}, "temperature", "invalid_value"),
        ("completions", {"stop": ["a"] * 5}, "stop", "invalid_value"),
    ],
)
def test_what_only_openai_would_refuse_is_a_call(
    operation: str, members: dict[str, object], param: str, code: str
) -> None:
    call = PARSERS[operation](json.dumps({**LEAST[operation], **members}).encode())
    assert isinstance(call, EmbeddingsCall | CompletionCall)
    assert call.beyond is not None
    assert (call.beyond.param, call.beyond.code) == (param, code)


def test_a_moderation_needs_no_model() -> None:
    assert moderation(input="a").model == ""
    assert moderation(input="a", model=None).model == ""
    call = moderation(input=["a", "b"], model="m")
    assert (call.model, call.input, call.max_output_tokens) == ("m", ("a", "b"), 0)


def test_a_picture_counts_flat() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:" + "x" * 100_000}}
    assert moderation(input=[picture]).prompt_bytes - MEDIA_BYTES < 100


@pytest.mark.parametrize(
    ("operation", "members", "expected"),
    [
        ("embeddings", {"model": None}, "model invalid_type"),
        ("embeddings", {"model": ""}, "model invalid_value"),
        ("embeddings", {"input": None}, "input invalid_type"),
        ("embeddings", {"input": ""}, "input invalid_value"),
        ("embeddings", {"input": []}, "input empty_array"),
        ("embeddings", {"input": {}}, "input invalid_type"),
        ("embeddings", {"input": ["a", 1]}, "input[1] invalid_type"),
        ("embeddings", {"input": [[1], 1]}, "input[1] invalid_type"),
        ("embeddings", {"input": [1.5]}, "input[0] invalid_type"),
        ("embeddings", {"input": [[1, "a"]]}, "input[0][1] invalid_type"),
        ("embeddings", {"input": [-1]}, "input[0] invalid_value"),
        ("embeddings", {"input": ["a"] * (MAX_INPUTS + 1)}, "input array_above_max_length"),
        ("embeddings", {"dimensions": 0}, "dimensions invalid_value"),
        ("embeddings", {"encoding_format": 1}, "encoding_format invalid_type"),
        ("embeddings", {"user": 1}, "user invalid_type"),
        ("completions", {"model": "a\n"}, "model invalid_value"),
        ("completions", {"prompt": []}, "prompt empty_array"),
        ("completions", {"prompt": 1}, "prompt invalid_type"),
        ("completions", {"prompt": [1, "a"]}, "prompt[1] invalid_type"),
        ("completions", {"n": 0}, "n invalid_value"),
        ("completions", {"best_of": 129}, "best_of invalid_value"),
        ("completions", {"prompt": ["a"] * (MAX_PROMPTS + 1)}, "prompt array_above_max_length"),
        ("completions", {"max_tokens": -1}, "max_tokens invalid_value"),
        ("completions", {"temperature": "hot"}, "temperature invalid_type"),
        ("completions", {"stop": ["a"] * (MAX_STOPS + 1)}, "stop invalid_value"),
        ("completions", {"suffix": 1}, "suffix invalid_type"),
        ("completions", {"stream": "yes"}, "stream invalid_type"),
        ("moderations", {"model": ""}, "model invalid_value"),
        ("moderations", {"model": 1}, "model invalid_type"),
        ("moderations", {"input": []}, "input empty_array"),
        ("moderations", {"input": None}, "input invalid_type"),
        ("moderations", {"input": ["a", {"type": "text", "text": "b"}]}, "input invalid_type"),
        ("moderations", {"input": [{}]}, "input[0].type missing_required_parameter"),
        ("moderations", {"input": [{"type": "text", "text": 1}]}, "input[0].text invalid_type"),
    ],
)
def test_what_is_wrong_is_said(operation: str, members: dict[str, object], expected: str) -> None:
    refusal = PARSERS[operation](json.dumps({**LEAST[operation], **members}).encode())
    assert isinstance(refusal, BadRequest)
    assert f"{refusal.param} {refusal.code}" == expected


@pytest.mark.parametrize(
    ("operation", "name"), [("embeddings", "input"), ("completions", "prompt"), ("moderations", "input")]
)
def test_what_is_missing_is_said(operation: str, name: str) -> None:
    refusal = PARSERS[operation](b'{"model":"m"}')
    assert isinstance(refusal, BadRequest)
    assert (refusal.param, refusal.code) == (name, "missing_required_parameter")


@pytest.mark.parametrize("parse", PARSERS.values(), ids=PARSERS)
@pytest.mark.parametrize(
    "body", [b"", b"{", b"nul", b'{"model":"m","input":"a","prompt":"a","x":"\xff"}', b"[" * 40_000]
)
def test_a_body_that_is_no_json_is_refused(parse: object, body: bytes) -> None:
    refusal = parse(body)  # type: ignore[operator]
    assert isinstance(refusal, BadRequest)
    assert refusal.code in ("invalid_json", "invalid_type")


@pytest.mark.parametrize("operation", PARSERS)
def test_every_member_is_kept_as_it_came(operation: str) -> None:
    body = json.dumps(LEAST[operation]).encode()[:-1] + b', "new": {"a":1.50e3}}'
    call = PARSERS[operation](body)
    assert not isinstance(call, BadRequest)
    assert bytes(call.top["new"]) == b'{"a":1.50e3}'


names = st.sampled_from(["model", "input", "prompt", "n", "best_of", "type", "text", "image_url", "suffix", "stream"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(names, values) | st.dictionaries(names, values).map(lambda top: {"model": "m", **top}))
def test_any_json_is_judged_or_refused(top: dict[str, object]) -> None:
    for operation, parse in PARSERS.items():
        call = parse(json.dumps(top).encode())
        assert isinstance(call, BadRequest | EmbeddingsCall | CompletionCall | ModerationCall), operation


@given(st.binary())
def test_any_bytes_are_judged_or_refused(body: bytes) -> None:
    for parse in PARSERS.values():
        parse(body)
