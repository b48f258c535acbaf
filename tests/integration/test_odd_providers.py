"""Providers that copy OpenAI's dialect with small oddities: what goes out, and what is made of their answers."""

import json
import struct
from typing import Any

import openai
import pytest

from fakes.client import text_of
from fakes.gateway import Tenant
from fakes.upstream import (
    LAST_CHUNK,
    RESET,
    STREAM_HEAD,
    Gate,
    Part,
    event,
    http_chunk,
    mistral_stream,
    openai_reply,
    openai_stream,
    raw,
    reply,
)

HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_760_000_000, "model": "up"}
DONE = event("[DONE]")


def chunk(text: str | None, reason: Any = None, **more: Any) -> bytes:
    delta = {} if text is None else {"role": "assistant", "content": text}
    return event({**HEAD, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}], **more})


def reasons(chunks: list[dict[str, Any]]) -> list[str]:
    return [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"] if choice["finish_reason"]]


@pytest.mark.parametrize("reason", ["", "stop", " ", "null"])
async def test_no_text_is_lost_whatever_reason_to_end_stands_beside_it(tenant: Tenant, reason: str) -> None:
    texts = [chunk("Hel", reason), chunk("lo", reason), chunk("!", reason)]
    tenant.openai.answers(raw(STREAM_HEAD, *texts, chunk(None, "stop"), DONE, LAST_CHUNK))
    async with tenant.stream() as stream:
        chunks = await stream.chunks()
    assert text_of(chunks) == "Hello!"
    assert reasons(chunks) == ["stop"]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


async def test_text_beside_a_reason_to_end_does_not_wait(tenant: Tenant) -> None:
    gate = Gate()
    tenant.openai.answers(raw(STREAM_HEAD, chunk("Hel", "stop"), gate, chunk("lo", "stop"), DONE, LAST_CHUNK))
    async with tenant.stream() as stream:
        assert await stream.next_text() == "Hel"
        gate.open()
        assert await stream.next_text() == "lo"


async def test_a_reason_in_every_chunk_does_not_make_a_broken_stream_whole(tenant: Tenant) -> None:
    gate = Gate()
    tenant.openai.answers(raw(STREAM_HEAD, chunk("Hel", "stop"), chunk("lo", "stop"), gate, RESET))
    async with tenant.stream() as stream:
        assert [await stream.next_text(), await stream.next_text()] == ["Hel", "lo"]
        gate.open()
        events = await stream.events()
    assert "[DONE]" not in events
    assert json.loads(events[-1])["error"]["type"] == "server_error"
    assert not reasons([json.loads(data) for data in events[:-1]])
    (entry,) = await tenant.ledger(1)
    assert (entry["state"], entry["charged"]) == ("partial", True)


@pytest.mark.parametrize("last", [[chunk("lo"), chunk(None, "stop")], [chunk("lo", "stop")]])
async def test_a_reason_at_the_end_makes_a_broken_stream_whole(tenant: Tenant, last: list[Part]) -> None:
    gate = Gate()
    tenant.openai.answers(raw(STREAM_HEAD, chunk("Hel"), *last, gate, RESET))
    async with tenant.stream() as stream:
        assert [await stream.next_text(), await stream.next_text()] == ["Hel", "lo"]
        gate.open()
        assert reasons(await stream.chunks()) == ["stop"]
    (entry,) = await tenant.ledger(1)
    assert entry["outcome"] == "ok"


async def test_a_reason_without_a_text_is_no_beginning(tenant: Tenant) -> None:
    """Another provider may still be asked."""
    tenant.openai.answers(raw(STREAM_HEAD, chunk("", "stop"), RESET))
    tenant.mistral.answers(mistral_stream(["Bonjour"]))
    async with tenant.stream(tenant.pair) as stream:
        assert text_of(await stream.chunks()) == "Bonjour"


NOTHING = [b"data: null\n\n", b"data: []\n\n", b"data: ping\n\n", b'data: {"choices":null}\n\n', b'data: ""\n\n']


async def test_frames_with_nothing_in_them_are_skipped(tenant: Tenant) -> None:
    frames = [http_chunk(frame) for frame in NOTHING]
    usage = {"usage": {"prompt_tokens": 5, "completion_tokens": 2}}
    told = event({**HEAD, "choices": None, **usage})
    tenant.openai.answers(raw(STREAM_HEAD, *frames, chunk("Hel"), *frames, chunk("lo", "stop"), told, DONE, LAST_CHUNK))
    async with tenant.stream() as stream:
        assert text_of(await stream.chunks()) == "Hello"
    assert len(tenant.openai.requests) == 1
    (entry,) = await tenant.ledger(1)
    assert (entry["state"], entry["input_tokens"], entry["output_tokens"]) == ("exact", 5, 2)


async def test_what_cannot_be_read_leads_to_the_next_provider(tenant: Tenant) -> None:
    tenant.openai.answers(
        raw(STREAM_HEAD, http_chunk(b'data: {"choices":[{"index":400,"delta":{"content":"a"}}]}\n\n'))
    )
    tenant.mistral.answers(mistral_stream(["Bonjour"]))
    async with tenant.stream(tenant.pair) as stream:
        assert text_of(await stream.chunks()) == "Bonjour"


async def test_the_official_library_joins_an_odd_call(tenant: Tenant) -> None:
    def piece(**members: Any) -> bytes:
        delta = {"role": "assistant", "tool_calls": [{"index": 0, **members}]}
        return event({**HEAD, "choices": [{"index": 0, "delta": delta, "finish_reason": ""}]})

    pieces = [
        piece(id="call_A", type="function", function={"name": "f", "arguments": ""}),
        piece(id="call_B", type="function", function={"arguments": '{"a"'}),
        piece(id="", type="", function={"name": "", "arguments": ":1}"}),
        event({**HEAD, "choices": [{"index": 0, "finish_reason": "tool_calls"}]}),
    ]
    tenant.openai.answers(raw(STREAM_HEAD, *pieces, DONE, LAST_CHUNK))
    sdk = openai.AsyncOpenAI(base_url=tenant.gateway.url + "/v1", api_key=tenant.key, max_retries=0)
    async with (
        sdk,
        sdk.chat.completions.stream(model=tenant.model, messages=[{"role": "user", "content": "Hi"}]) as stream,
    ):
        completion = await stream.get_final_completion()
    (choice,) = completion.choices
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls or ()
    assert (call.id, call.function.name, call.function.arguments) == ("call_A", "f", '{"a":1}')


@pytest.mark.parametrize("status", [201, 202, 203])
async def test_any_status_of_success_is_one(tenant: Tenant, status: int) -> None:
    stream_head = STREAM_HEAD.replace(b" 200 ", b" %d " % status)
    tenant.openai.answers(raw(stream_head, chunk("Hello"), chunk(None, "stop"), DONE, LAST_CHUNK))
    async with tenant.stream() as stream:
        assert text_of(await stream.chunks()) == "Hello"
    message = {"role": "assistant", "content": "Hello"}
    body = {**HEAD, "object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    tenant.openai.answers(reply(status, body))
    assert (await tenant.chat()).status == 200
    assert [entry["outcome"] for entry in await tenant.ledger(2)] == ["ok", "ok"]


async def test_a_whole_answer_is_completed(tenant: Tenant) -> None:
    function = {"name": "f", "arguments": {"a": 1}}
    message = {"role": "assistant", "content": None, "tool_calls": [{"id": "", "function": function}]}
    body = {**HEAD, "object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": ""}]}
    tenant.openai.answers(reply(200, body))
    (choice,) = (await tenant.chat()).json["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert call["id"]
    assert (call["type"], json.loads(call["function"]["arguments"])) == ("function", {"a": 1})


# --- what goes out ------------------------------------------------------------------------------------------

BEYOND = {
    "stop": ["a", "b", "c", "d", "e", "f"],
    "tools": [{"type": "function", "function": {"name": f"f{number}"}} for number in range(200)],
    "top_logprobs": 30,
    "temperature": 3,
}


async def other_provider(tenant: Tenant) -> str:
    """Another provider of OpenAI's dialect, at the address of the scripted one, and with the same account there."""
    base = await tenant.gateway.sql("SELECT api_base FROM tollway.providers WHERE name = 'openai'")
    provider = await tenant.add_provider(base[0]["api_base"])
    keys = {"virtualKey": tenant.key, "providerKeys": {provider: tenant.openai.secret}}
    assert (await tenant.client.post("/api/save-keys", keys)).status == 200
    return provider


@pytest.mark.parametrize("name", BEYOND)
async def test_ranges_hold_for_openai_itself_and_for_nobody_else(tenant: Tenant, name: str) -> None:
    refused = await tenant.chat(**{name: BEYOND[name]})
    assert (refused.status, refused.error["param"], refused.error["type"]) == (400, name, "invalid_request_error")
    assert not tenant.openai.requests
    provider = await other_provider(tenant)
    model = await tenant.add_model(provider)
    tenant.openai.answers(openai_reply("Bonjour"))
    assert (await tenant.chat(model, **{name: BEYOND[name]})).status == 200
    assert tenant.openai.requests[0].json[name] == BEYOND[name]


async def test_a_fallback_may_take_what_openai_would_refuse(tenant: Tenant) -> None:
    provider = await other_provider(tenant)
    model = await tenant.add_model(fallback=await tenant.add_model(provider))
    tenant.openai.answers(openai_stream(["Bon", "jour"]))
    async with tenant.stream(model, stop=BEYOND["stop"]) as stream:
        assert text_of(await stream.chunks()) == "Bonjour"
        assert stream.header("x-tollway-provider") == provider


# --- embeddings and media -----------------------------------------------------------------------------------


async def test_numbers_become_what_the_official_library_asks_for(tenant: Tenant) -> None:
    vector = [0.5, -1.0, 0.25, 0.125, 0.1, 0.2, 0.3, 0.4]
    data = [{"object": "embedding", "index": 0, "embedding": vector}]
    tenant.openai.answers(reply(200, {"object": "list", "data": data, "model": "e"}))
    sdk = openai.AsyncOpenAI(base_url=tenant.gateway.url + "/v1", api_key=tenant.key, max_retries=0)
    async with sdk:
        answer = await sdk.embeddings.create(model=tenant.model, input="Hi", encoding_format="base64")
    packed = answer.data[0].embedding
    assert isinstance(packed, str)
    assert packed == "AAAAPwAAgL8AAIA+AAAAPs3MzD3NzEw+mpmZPs3MzD4="
    assert struct.unpack("<f", struct.pack("<f", vector[4]))[0] != vector[4]


async def test_a_video_passes_a_token_limit_that_it_would_exceed_as_text(tenant: Tenant) -> None:
    await tenant.limit(tokens=50_000)
    video = {"type": "video_url", "video_url": {"url": "data:video/mp4;base64," + "A" * 2_500_000}}
    tenant.openai.answers(openai_reply("Bonjour"))
    assert (await tenant.chat(content=[video], max_tokens=100)).status == 200
    assert (await tenant.chat(content=[{"type": "text", "text": "A" * 2_500_000}], max_tokens=100)).status == 429
