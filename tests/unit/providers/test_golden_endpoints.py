"""Embeddings, completions and moderations: what goes upstream and what a client sees, case by case."""

import json
from typing import Any

import pytest
from golden import asked, cases
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from openai.types import Completion, CreateEmbeddingResponse, ModerationCreateResponse

from fakes.usages import told
from tollway.domain.failures import FailureKind, UpstreamFailure
from tollway.domain.refusals import BadRequest
from tollway.providers.base import ChatResult, UpstreamRequest
from tollway.providers.openai_completions import OpenAICompletions
from tollway.providers.quirks import Quirks
from tollway.providers.table import adapters

OPERATIONS = ("embeddings", "completions", "moderations")
DIALECTS = ("openai", "mistral")
BOTH = [(dialect, operation) for dialect in DIALECTS for operation in OPERATIONS]

PATHS = {("mistral", "completions"): b"/fim/completions"}
GIVEN: dict[str, dict[str, object]] = {
    "embeddings": {"input": "a"},
    "completions": {"prompt": "a", "suffix": "b"},
    "moderations": {"input": "a"},
}
SHAPES = {
    "embeddings": CreateEmbeddingResponse,
    "completions": Completion,
    "moderations": ModerationCreateResponse,
}


def each(kind: str) -> list[Any]:
    return [
        pytest.param(dialect, operation, case, id=f"{dialect} {operation}: {case['name']}")
        for dialect, operation in BOTH
        for case in cases(f"{dialect}/{operation}.json")[kind]
    ]


@pytest.mark.parametrize(("dialect", "operation", "case"), each("requests"))
def test_a_request_is_carried_over(dialect: str, operation: str, case: Any) -> None:
    call = replace(asked(operation, case["given"]), strict=case.get("strict", False))
    model, adapter = case.get("model", "theirs"), adapters(dialect, case.get("quirks", ()))[operation]
    request = adapter.encode(call, model)
    assert request == adapter.encode(call, model), "failover encodes again"
    if refused := case.get("refused"):
        assert isinstance(request, BadRequest), request
        assert f"{request.param} {request.code}" == refused
        return
    assert isinstance(request, UpstreamRequest), request
    assert request.path == PATHS.get((dialect, operation), f"/{operation}".encode())
    assert json.loads(request.body) == {"model": model, **case["sent"]}
    assert (list(request.warnings), request.further) == (case.get("warnings", []), ())


@pytest.mark.parametrize(("dialect", "operation", "case"), each("replies"))
def test_an_answer_is_carried_over(dialect: str, operation: str, case: Any) -> None:
    body = json.dumps(case["reply"]).encode()
    result = adapters(dialect)[operation].decode(200, {}, body, asked(operation, case["given"]))
    if failure := case.get("failure"):
        assert isinstance(result, UpstreamFailure)
        assert result.kind.value == failure
        return
    assert isinstance(result, ChatResult), result
    assert json.loads(result.body) == case["client"]
    assert result.usage == (told(*case["usage"]) if "usage" in case else None)
    assert result.content_bytes == case.get("said", 0)
    if dialect == "openai":
        assert (result.body == body) is (case["client"] == case["reply"])
    elif "usage" in case and not isinstance(case["given"].get("encoding_format"), str):
        SHAPES[operation].model_validate_json(result.body, strict=True)


def test_a_moderation_may_go_without_a_model() -> None:
    request = adapters("openai")["moderations"].encode(asked("moderations", {"model": None, "input": "a"}), "")
    assert isinstance(request, UpstreamRequest)
    assert json.loads(request.body) == {"model": None, "input": "a"}


@pytest.mark.parametrize("options", [None, {"include_usage": True}])
def test_a_server_that_knows_no_stream_options_gets_none(options: object) -> None:
    call = asked("completions", {"prompt": "a", "stream": True, "stream_options": options})
    request = OpenAICompletions(Quirks(stream_options=False)).encode(call, "m")
    assert isinstance(request, UpstreamRequest)
    assert b"stream_options" not in request.body


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("operation", ["embeddings", "moderations"])
def test_what_has_no_streams_decodes_none(dialect: str, operation: str) -> None:
    call = asked(operation, {**GIVEN[operation], "stream": True})
    assert not call.stream
    with pytest.raises(AssertionError):
        adapters(dialect)[operation].decoder(call)


@pytest.mark.parametrize(("dialect", "operation"), BOTH)
def test_another_status_is_classified(dialect: str, operation: str) -> None:
    adapter = adapters(dialect)[operation]
    result = adapter.decode(429, {b"retry-after": b"3"}, b"", asked(operation, GIVEN[operation]))
    assert isinstance(result, UpstreamFailure)
    assert (result.kind, result.retry_after_s, result.status) == (FailureKind.BUSY, 3.0, 429)
    assert result == adapter.classify(429, {b"retry-after": b"3"}, b"")


@pytest.mark.parametrize(("dialect", "operation"), BOTH)
@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"null", b"[]", b"{}", b'{"data":1}', b'{"choices":[1]}', b'{"results":[1]}', b"\xff"]
)
def test_a_good_status_does_not_make_an_answer(dialect: str, operation: str, body: bytes) -> None:
    result = adapters(dialect)[operation].decode(200, {}, body, asked(operation, GIVEN[operation]))
    assert isinstance(result, UpstreamFailure)
    assert result.kind is FailureKind.INVALID


def test_a_completion_that_is_no_utf8_is_made_so() -> None:
    body = b'{"choices":[{"text":"a\xffb","index":0,"finish_reason":"stop"}]}'
    result = adapters("openai")["completions"].decode(200, {}, body, asked("completions", GIVEN["completions"]))
    assert isinstance(result, ChatResult)
    assert json.loads(result.body)["choices"][0]["text"] == "a\ufffdb"


@pytest.mark.parametrize(
    ("dialect", "operation", "body"),
    [
        ("openai", "embeddings", b'{"data":[{"embedding":[1],"index":0,"object":"\xff"}]}'),
        ("openai", "moderations", b'{"results":[{"a":"\xff"}]}'),
        ("mistral", "embeddings", b'{"data":[{"embedding":["\xff"]}]}'),
    ],
)
def test_an_answer_that_is_no_utf8_is_none(dialect: str, operation: str, body: bytes) -> None:
    result = adapters(dialect)[operation].decode(200, {}, body, asked(operation, GIVEN[operation]))
    assert isinstance(result, UpstreamFailure)


names = st.sampled_from(
    [
        "data",
        "embedding",
        "index",
        "choices",
        "message",
        "content",
        "text",
        "finish_reason",
        "usage",
        "prompt_tokens",
        "results",
        "categories",
        "category_scores",
        "id",
        "model",
        "error",
    ]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(names, values), st.sampled_from(["float", "base64"]))
def test_any_json_raises_nothing(reply: object, form: str) -> None:
    body = json.dumps(reply).encode()
    for dialect, operation in BOTH:
        call = asked(operation, {**GIVEN[operation], "encoding_format": form, "stream": operation == "completions"})
        adapter = adapters(dialect)[operation]
        adapter.decode(200, {}, body, call)
        if call.stream:
            for pieces in ([body], [b"data: " + body + b"\n\n"]):
                decoder = adapter.decoder(call)
                out = b"".join([decoder.feed(piece) for piece in pieces]) + decoder.close()
                assert out == b"" or out.endswith(b"\n\n")
                assert decoder.failure or decoder.finished


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "input",
                "prompt",
                "suffix",
                "n",
                "echo",
                "dimensions",
                "encoding_format",
                "seed",
                "logprobs",
                "output_dtype",
                "metadata",
                "temperature",
            ]
        ),
        values,
    )
)
def test_any_request_raises_nothing(members: dict[str, object]) -> None:
    for dialect, operation in BOTH:
        try:
            call = asked(operation, {**GIVEN[operation], **members})
        except AssertionError:
            continue  # the parser refused it
        assert adapters(dialect)[operation].encode(call, "codestral")
