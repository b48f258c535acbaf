"""What a client sees of a whole answer, case by case."""

import json
from typing import Any

import msgspec
import pytest
from golden import CHAT, call, cases
from openai.types.chat import ChatCompletion

from fakes.usages import told
from tollway.domain.failures import FailureKind, UpstreamFailure
from tollway.providers.base import ChatResult


@pytest.mark.parametrize("case", cases("mistral/replies.json"), ids=lambda case: case["name"])
def test_an_answer_of_mistral_is_translated(case: Any) -> None:
    result = CHAT["mistral"].decode(200, {}, json.dumps(case["reply"]).encode(), call(case.get("given", {})))
    if failure := case.get("failure"):
        assert isinstance(result, UpstreamFailure)
        assert result.kind.value == failure
        return
    assert isinstance(result, ChatResult)
    assert json.loads(result.body) == case["client"]
    usage = told(*case["usage"]) if "usage" in case else None
    assert result.usage == (usage and msgspec.structs.replace(usage, service_tier=case.get("tier", "")))
    assert list(result.warnings) == case.get("warnings", [])


@pytest.mark.parametrize("case", cases("openai/replies.json"), ids=lambda case: case["name"])
def test_what_clients_could_not_take_of_an_answer_is_mended(case: Any) -> None:
    """``reply`` is text where it is no JSON."""
    reply = case["reply"]
    body = (reply if isinstance(reply, str) else json.dumps(reply)).encode()
    result = CHAT["openai"].decode(200, {}, body, call(case.get("given", {})))
    if failure := case.get("failure"):
        assert isinstance(result, UpstreamFailure)
        assert result.kind.value == failure
        return
    assert isinstance(result, ChatResult)
    assert json.loads(result.body) == case["client"]
    assert result.body != body
    assert result.usage == (told(*case["usage"]) if "usage" in case else None)
    ChatCompletion.model_validate_json(result.body)


@pytest.mark.parametrize(
    "choice",
    [
        b'{"x":1e2,"index":0, "message":{"role":"assistant","content":"a"},"finish_reason":"stop"}',
        b'{"index":0,"message":{"content":null,"refusal":"no","x":1.50},"finish_reason":"content_filter"}',
        b'{"index":0,"message":{"tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{}"}}]},'
        b'"finish_reason":"tool_calls"}',
        b'{"index":0,"message":{"tool_calls":[{"id":"a","type":"custom","custom":{"name":"f"}}]},"finish_reason":"eos"}',
        b'{"index":0,"message":{"function_call":{"name":"f","arguments":"{}"}},"finish_reason":"function_call"}',
    ],
)
@pytest.mark.parametrize("usage", [b'{"prompt_tokens":1,"completion_tokens":2}', b'{"prompt_tokens":-1}', b"7"])
def test_an_answer_of_openai_passes_byte_for_byte(choice: bytes, usage: bytes) -> None:
    body = b'{ "choices" : [ %b ], "new":[1.0], "id":"\xc3\xa9", "usage":%b}\n' % (choice, usage)
    result = CHAT["openai"].decode(200, {}, body, call({}))
    assert isinstance(result, ChatResult)
    assert result.body == body
    assert result.usage == (told(1, 2) if b"completion" in usage else None)


@pytest.mark.parametrize("dialect", CHAT)
def test_an_answer_without_usage_says_how_much_was_said(dialect: str) -> None:
    body = (
        b'{"choices":[{"message":{"content":"12345","tool_calls":[{"id":"a","function":{"name":"f"}}]}},'
        b'{"message":{"content":null,"refusal":"678"}},{"message":{"content":"ok"}}]}'
    )
    result = CHAT[dialect].decode(200, {}, body, call({}))
    assert isinstance(result, ChatResult)
    assert result.usage is None
    assert 7 < result.content_bytes < len(result.body)


def test_what_was_said_is_counted_without_its_wrapping() -> None:
    result = CHAT["openai"].decode(200, {}, b'{"choices":[{"message":{"content":"12345","refusal":null}}]}', call({}))
    assert isinstance(result, ChatResult)
    assert result.content_bytes == 5


@pytest.mark.parametrize("dialect", CHAT)
@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"null", b"[]", b"{}", b'{"choices":{}}', b'{"choices":[1]}', b'{"choices":[]', b"\xff"]
)
def test_a_good_status_does_not_make_an_answer(dialect: str, body: bytes) -> None:
    result = CHAT[dialect].decode(200, {}, body, call({}))
    assert isinstance(result, UpstreamFailure)
    assert result.kind is FailureKind.INVALID


@pytest.mark.parametrize("dialect", CHAT)
def test_an_answer_that_ends_with_an_error_is_none(dialect: str) -> None:
    body = b'{"choices":[{"message":{"content":"a"},"finish_reason":"stop"},{"message":{},"finish_reason":"error"}]}'
    result = CHAT[dialect].decode(200, {}, body, call({}))
    assert isinstance(result, UpstreamFailure)
    assert result.kind is FailureKind.INVALID


@pytest.mark.parametrize("dialect", CHAT)
def test_an_error_object_with_a_good_status_is_an_error(dialect: str) -> None:
    body = b'{"error":{"message":"no money","type":"insufficient_quota","code":"insufficient_quota"}}'
    result = CHAT[dialect].decode(200, {}, body, call({}))
    assert isinstance(result, UpstreamFailure)
    assert result.kind is FailureKind.QUOTA


@pytest.mark.parametrize("dialect", CHAT)
def test_another_status_is_classified(dialect: str) -> None:
    result = CHAT[dialect].decode(429, {b"retry-after": b"3"}, b"", call({}))
    assert isinstance(result, UpstreamFailure)
    assert (result.kind, result.retry_after_s, result.status) == (FailureKind.BUSY, 3.0, 429)
    assert result == CHAT[dialect].classify(429, {b"retry-after": b"3"}, b"")


@pytest.mark.parametrize("dialect", CHAT)
def test_what_is_no_utf8_is_replaced(dialect: str) -> None:
    """Libraries read it so. Elsewhere than in the text, too: an answer that passes is one text."""
    body = b'{"choices":[{"index":0,"message":{"content":"a\xffb"},"finish_reason":"stop","x":"\xff"}]}'
    result = CHAT[dialect].decode(200, {}, body, call({}))
    assert isinstance(result, ChatResult)
    assert json.loads(result.body)["choices"][0]["message"]["content"] == "a\ufffdb"


@pytest.mark.parametrize("dialect", CHAT)
def test_an_object_in_place_of_a_stream_needs_a_message(dialect: str) -> None:
    decoder = CHAT[dialect].decoder(call({"stream": True}))
    assert decoder.feed(b'{"choices":[{"index":0}]}') + decoder.close() == b""
    assert decoder.failure is not None
    assert (decoder.failure.kind, decoder.started) == (FailureKind.INVALID, False)


def test_a_tier_that_is_none_is_not_told() -> None:
    body = b'{"choices":[{"message":{"content":"x"}}],"usage":{"service_tier":3}}'
    result = CHAT["mistral"].decode(200, {}, body, call({"service_tier": "auto"}))
    assert isinstance(result, ChatResult)
    assert b"service_tier" not in result.body
