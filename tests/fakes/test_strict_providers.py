"""The strict providers: what they take, and what they refuse with which code."""

import json
from typing import Any

import pytest

from fakes import strict_mistral, strict_openai

USER = {"role": "user", "content": "u"}
CALL = {"id": "abcDEF123", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLS = {"role": "assistant", "content": "", "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "abcDEF123", "content": "1"}
ANSWER = {"role": "assistant", "content": "a"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
TOLD = {"role": "system", "content": "s"}
EMPTY = {"role": "assistant", "content": ""}


def said(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"messages": list(messages), **more}


def asked(**more: Any) -> dict[str, Any]:
    return said(USER, **more)


MISTRAL: list[tuple[str, dict[str, Any], str]] = [
    # path, members, what is refused: status and code, or the place
    ("/chat/completions", asked(), ""),
    ("/chat/completions", asked(temperature=1.5, top_p=0.5, max_tokens=0, stop=["a"], random_seed=0, n=2), ""),
    ("/chat/completions", asked(tools=[TOOL], tool_choice="any", parallel_tool_calls=False), ""),
    ("/chat/completions", said(TOLD, USER, CALLS, RESULT, ANSWER, USER, TOLD), ""),
    ("/chat/completions", said(USER, {**ANSWER, "prefix": True}), ""),
    ("/chat/completions", asked(model="magistral-small-latest", reasoning_effort="high"), ""),
    ("/chat/completions", asked(seed=1), "422 body"),
    ("/chat/completions", asked(max_completion_tokens=1), "422 body"),
    ("/chat/completions", asked(stream_options={}), "422 body"),
    ("/chat/completions", asked(max_tokens=None), "422 body.max_tokens"),
    ("/chat/completions", asked(temperature=1.6), "422 body.temperature"),
    ("/chat/completions", asked(top_p=1.1), "422 body.top_p"),
    ("/chat/completions", asked(random_seed=-1), "422 body.random_seed"),
    ("/chat/completions", asked(presence_penalty=3), "422 body.presence_penalty"),
    ("/chat/completions", asked(temperature=0, top_p=0.5), "400 3051"),
    ("/chat/completions", asked(n=2, prediction={"type": "content", "content": "a"}), "400 3051"),
    ("/chat/completions", asked(reasoning_effort="high"), "400 3051"),
    ("/chat/completions", asked(model="magistral-small-latest", reasoning_effort="low"), "400 3051"),
    ("/chat/completions", asked(tools=[]), "422 body.tools"),
    ("/chat/completions", asked(tools=[{"type": "function", "function": {"name": "f"}}]), "422 body.tools.0.function"),
    ("/chat/completions", asked(tools=[{**TOOL, "x": 1}]), "422 body.tools.0"),
    ("/chat/completions", asked(tool_choice="sometimes"), "422 body.tool_choice"),
    ("/chat/completions", asked(response_format={"type": "json_schema"}), "422 body.response_format"),
    (
        "/chat/completions",
        asked(response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": {}, "strict": None}}),
        "422 body.response_format.json_schema.strict",
    ),
    ("/chat/completions", said({**USER, "name": "joe"}), "422 body.messages.0"),
    ("/chat/completions", said({**USER, "role": "developer"}), "422 body.messages.0.role"),
    ("/chat/completions", said(USER, {**ANSWER, "reasoning_content": "r"}), "422 body.messages.1"),
    ("/chat/completions", said({"role": "user", "content": [{"type": "video"}]}), "422 body.messages.0.content.0.type"),
    ("/chat/completions", said({"role": "system", "content": None}), "422 body.messages.0.content"),
    ("/chat/completions", said(), "422 body.messages"),
    ("/chat/completions", said(USER, ANSWER), "400 3230"),
    ("/chat/completions", said({**ANSWER, "prefix": True}), "400 3230"),
    ("/chat/completions", said(USER, {**ANSWER, "prefix": True}, USER), "400 3230"),
    ("/chat/completions", said(USER, ANSWER, TOLD, USER), "400 3230"),
    ("/chat/completions", said(USER, CALLS, RESULT, USER), "400 3230"),
    ("/chat/completions", said(USER, RESULT), "400 3230"),
    ("/chat/completions", said(USER, CALLS, USER), "400 3230"),
    ("/chat/completions", said(USER, {**CALLS, "prefix": True}), "400 3230"),
    ("/chat/completions", said(USER, CALLS, RESULT, RESULT), "400 3230"),
    ("/chat/completions", said(USER, EMPTY, USER), "400 None"),
    ("/chat/completions", said(USER, {**CALLS, "tool_calls": [{**CALL, "id": "call_1"}]}, RESULT), "400 3280"),
    ("/chat/completions", said(USER, CALLS, {**RESULT, "tool_call_id": "call_1"}), "400 3280"),
    ("/chat/completions", said(USER, {**CALLS, "tool_calls": [CALL, CALL]}, RESULT, RESULT), "400 3280"),
    ("/embeddings", {"input": ["a"] * 512, "encoding_format": "float", "output_dimension": 2}, ""),
    ("/embeddings", {"input": ["a"] * 513}, "400 3210"),
    ("/embeddings", {"input": [1]}, "422 body.input.0"),
    ("/embeddings", {"input": "a", "user": "u"}, "422 body"),
    ("/fim/completions", {"prompt": "a", "suffix": "b", "max_tokens": 1}, ""),
    ("/fim/completions", {"prompt": ["a"]}, "422 body.prompt"),
    ("/fim/completions", {"prompt": "a", "echo": True}, "422 body"),
    ("/fim/completions", {"prompt": "a", "temperature": 0, "top_p": 0.1}, "400 3051"),
    ("/moderations", {"input": ["a", "b"]}, ""),
    ("/moderations", {"input": [{"type": "text", "text": "a"}]}, "422 body.input.0"),
    ("/completions", {"prompt": "a"}, "404"),
]

OPENAI: list[tuple[str, dict[str, Any], str]] = [
    # path, members, what is refused: parameter and code
    ("/chat/completions", asked(temperature=2, seed=-1, user="u", stop=None, reasoning_effort="low"), ""),
    ("/chat/completions", said({**TOLD, "role": "developer"}, USER, {**CALLS, "content": None}, RESULT, USER), ""),
    ("/chat/completions", asked(tools=[TOOL], stream=True, stream_options={"include_usage": True}), ""),
    ("/chat/completions", asked(model="gpt-5", max_completion_tokens=5), ""),
    ("/chat/completions", asked(random_seed=1), "random_seed unknown_parameter"),
    ("/chat/completions", asked(model="gpt-5", max_tokens=5), "max_tokens unsupported_parameter"),
    ("/chat/completions", asked(model="o3-mini", max_tokens=5), "max_tokens unsupported_parameter"),
    ("/chat/completions", asked(max_tokens=5, max_completion_tokens=5), "max_tokens invalid_parameter_combination"),
    ("/chat/completions", asked(stream_options={"include_usage": True}), "stream_options None"),
    ("/chat/completions", asked(temperature=2.1), "temperature invalid_value"),
    ("/chat/completions", asked(tools=[]), "tools invalid_value"),
    ("/chat/completions", said(USER, {**ANSWER, "prefix": True}), "messages[1].prefix unknown_parameter"),
    (
        "/chat/completions",
        said({"role": "user", "content": [{"type": "image_url", "image_url": "https://a/b"}]}),
        "messages[0].content[0].image_url invalid_value",
    ),
    ("/chat/completions", said(USER, {"role": "assistant", "content": None}), "messages.[1].content None"),
    ("/chat/completions", said(USER, RESULT), "messages.[1].role None"),
    ("/chat/completions", said(USER, CALLS, USER), "messages None"),
    ("/chat/completions", said(USER, CALLS), "messages None"),
    ("/chat/completions", said(), "messages invalid_value"),
    ("/embeddings", {"input": ["a"] * 2048, "dimensions": 2}, ""),
    ("/embeddings", {"input": ["a"] * 2049}, "input invalid_value"),
    ("/embeddings", {"input": "a", "output_dimension": 2}, "output_dimension unknown_parameter"),
    ("/completions", {"prompt": [[1, 2]], "echo": True}, ""),
    ("/completions", {"prompt": "a", "min_tokens": 2}, "min_tokens unknown_parameter"),
    ("/moderations", {"input": [{"type": "text", "text": "a"}]}, ""),
    ("/moderations", {"input": "a", "metadata": {}}, "metadata unknown_parameter"),
    ("/fim/completions", {"prompt": "a"}, "None None"),
]


@pytest.mark.parametrize(("path", "members", "refused"), MISTRAL)
def test_mistral(path: str, members: dict[str, Any], refused: str) -> None:
    answer = strict_mistral.refusal(path, json.dumps({"model": "m", **members}).encode())
    if answer is None:
        assert not refused
        return
    status, body = answer[0], json.loads(answer[1])
    if status == 422:
        (item,) = body["message"]["detail"]
        assert f"422 {'.'.join(map(str, item['loc']))}" == refused
    else:
        assert f"{status} {body['code']}" == refused if status == 400 else str(status) == refused


@pytest.mark.parametrize(("path", "members", "refused"), OPENAI)
def test_openai(path: str, members: dict[str, Any], refused: str) -> None:
    answer = strict_openai.refusal(path, json.dumps({"model": "m", **members}).encode())
    if answer is None:
        assert not refused
        return
    error = json.loads(answer[1])["error"]
    assert f"{error['param']} {error['code']}" == refused


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"{}", b"null", b"\xff"])
@pytest.mark.parametrize("path", ["/chat/completions", "/embeddings", "/moderations"])
def test_what_is_no_request_is_refused(path: str, body: bytes) -> None:
    assert strict_mistral.refusal(path, body)
    assert strict_openai.refusal(path, body)
