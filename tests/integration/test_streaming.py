"""Streams as OpenAI's clients expect them, event by event, and both ends of every stream."""

import asyncio
import json

import pytest

from fakes.client import Stream, chat_body, request_bytes, text_of
from fakes.gateway import Tenant
from fakes.upstream import (
    CLOSE,
    LAST_CHUNK,
    STREAM_HEAD,
    Bill,
    Gate,
    event,
    http_chunk,
    mistral_stream,
    openai_reply,
    openai_stream,
    raw,
)

CHUNK = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}


def chunk(content: str, finish: str | None = None) -> dict[str, object]:
    choice = {"index": 0, "delta": {"role": "assistant", "content": content}, "finish_reason": finish}
    return {**CHUNK, "choices": [choice]}


def usage_chunks(chunks: list[dict]) -> list[dict]:
    return [chunk for chunk in chunks if chunk.get("usage")]


async def test_the_head_is_that_of_an_event_stream(tenant: Tenant) -> None:
    tenant.openai.answers(openai_stream(["a"]))
    async with tenant.stream() as stream:
        assert stream.status == 200
        assert stream.header("content-type") == "text/event-stream; charset=utf-8"
        assert stream.header("cache-control") == "no-cache"
        assert stream.header("x-accel-buffering") == "no"
        assert stream.header("transfer-encoding") == "chunked"
        assert stream.header("content-encoding") is None
        assert stream.header("x-tollway-provider") == "openai"
        assert stream.header("x-request-id")
        assert stream.header("x-tollway-cost") is None, "nobody knows it yet"
        await stream.chunks()


async def test_each_event_goes_out_when_it_comes_in(tenant: Tenant) -> None:
    gates = [Gate(), Gate(), Gate()]
    tenant.openai.answers(openai_stream(["one", gates[0], "two", gates[1], "three", gates[2]]))
    async with tenant.stream() as stream:
        for word, gate in zip(["one", "two", "three"], gates, strict=True):
            assert await stream.next_text() == word
            gate.open()
        await stream.chunks()


@pytest.mark.parametrize("provider", ["openai", "mistral"])
async def test_usage_is_hidden_unless_asked_for(tenant: Tenant, provider: str) -> None:
    tenant.openai.answers(openai_stream(["a", "b"], Bill(11, 12)))
    tenant.mistral.answers(mistral_stream(["a", "b"], Bill(11, 12)))
    model = {"openai": tenant.model, "mistral": tenant.mistral_model}[provider]
    async with tenant.stream(model) as stream:
        chunks = await stream.chunks()
    assert text_of(chunks) == "ab"
    assert all("usage" not in chunk for chunk in chunks)
    assert all(chunk["choices"] for chunk in chunks), "an empty choices list surprises clients that did not ask"
    async with tenant.stream(model, stream_options={"include_usage": False}) as stream:
        assert usage_chunks(await stream.chunks()) == []


@pytest.mark.parametrize("provider", ["openai", "mistral"])
async def test_usage_comes_in_one_last_chunk_when_asked_for(tenant: Tenant, provider: str) -> None:
    tenant.openai.answers(openai_stream(["a", "b"], Bill(11, 12)))
    tenant.mistral.answers(mistral_stream(["a", "b"], Bill(11, 12)))
    model = {"openai": tenant.model, "mistral": tenant.mistral_model}[provider]
    async with tenant.stream(model, stream_options={"include_usage": True}) as stream:
        chunks = await stream.chunks()
    (last,) = usage_chunks(chunks)
    assert last is chunks[-1]
    assert last["choices"] == []
    assert (last["usage"]["prompt_tokens"], last["usage"]["completion_tokens"]) == (11, 12)
    assert all(chunk["usage"] is None for chunk in chunks[:-1])


async def test_the_provider_is_always_asked_for_usage_and_the_clients_other_options_stay(tenant: Tenant) -> None:
    tenant.openai.answers(openai_stream(["a"]))
    async with tenant.stream(stream_options={"include_obfuscation": False}) as stream:
        await stream.chunks()
    options = tenant.openai.requests[0].json["stream_options"]
    assert options == {"include_obfuscation": False, "include_usage": True}


async def test_the_body_goes_to_the_provider_as_it_came(tenant: Tenant) -> None:
    """Unknown members, spaces, escapes and numbers as the client wrote them: nothing is decoded and written anew."""
    tenant.openai.answers(openai_reply())
    members = b'"x_unknown": {"a" : [1.10, 2e3, "\\u00e9\\/"]} , "messages": [ {"role":"user","content":"h\\u0069"} ]'
    await tenant.post("/v1/chat/completions", b'{ "model": "%b", %b }' % (tenant.model.encode(), members))
    body = tenant.openai.requests[0].body
    for piece in (b'{"a" : [1.10, 2e3, "\\u00e9\\/"]}', b'[ {"role":"user","content":"h\\u0069"} ]'):
        assert piece in body


async def test_content_is_relayed_to_the_byte(tenant: Tenant) -> None:
    hard = ["\u2028", "\u2029", "\x85", "é", "𝄞", '"', "\\n", "\n\n", "data: x", "[DONE]", "\x00", "\u200b"]
    tenant.openai.answers(openai_stream(hard))
    async with tenant.stream() as stream:
        assert text_of(await stream.chunks()) == "".join(hard)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
async def test_the_events_do_not_depend_on_where_the_bytes_are_cut(tenant: Tenant, size: int) -> None:
    frames = b"".join(
        b"data: " + json.dumps(piece, ensure_ascii=False).encode() + b"\r\n\r\n"
        for piece in (chunk("é\u2028𝄞"), chunk("two"), chunk("", "stop"))
    )
    frames = b"\xef\xbb\xbf: hello\r\n\r\n" + frames + b"data: [DONE]\r\n\r\n"
    pieces = [http_chunk(frames[at : at + size]) for at in range(0, len(frames), size)]
    tenant.openai.answers(raw(STREAM_HEAD, *pieces, LAST_CHUNK))
    async with tenant.stream() as stream:
        assert text_of(await stream.chunks()) == "é\u2028𝄞two"


async def test_what_clients_cannot_read_is_not_passed_on(tenant: Tenant) -> None:
    """Comments, ids, retries and event names crash or confuse the official clients."""
    noise = b": comment\n\nid: 5\nretry: 10\n\nevent: ping\n\ndata:\n\n"
    tenant.openai.answers(
        raw(
            STREAM_HEAD,
            http_chunk(noise),
            event(chunk("a")),
            http_chunk(noise),
            http_chunk(b"id: 7\nevent: message\ndata:" + json.dumps(chunk("b", "stop")).encode() + b"\n\n"),
            event("[DONE]"),
            LAST_CHUNK,
        )
    )
    async with tenant.stream() as stream:
        assert text_of(await stream.chunks()) == "ab"  # the client fails on any line that is not one data line


async def test_a_last_event_without_its_blank_line_is_not_lost(tenant: Tenant) -> None:
    tail = http_chunk(b"data: [DONE]")
    tenant.openai.answers(raw(STREAM_HEAD, event(chunk("a", "stop")), tail, LAST_CHUNK))
    async with tenant.stream() as stream:
        assert text_of(await stream.chunks()) == "a"


async def test_a_stream_that_finished_without_done_gets_one(tenant: Tenant) -> None:
    tenant.openai.answers(openai_stream(["a"], done=False))
    async with tenant.stream() as stream:
        assert text_of(await stream.chunks()) == "a"


async def test_a_stream_that_finished_before_its_connection_broke_is_whole(tenant: Tenant) -> None:
    tenant.openai.answers(raw(STREAM_HEAD, event(chunk("a")), event(chunk("", "stop")), CLOSE))
    async with tenant.stream() as stream:
        events = await stream.events()
    assert (len(events), events[-1]) == (3, "[DONE]")


async def test_a_stream_that_ends_without_finishing_is_an_error(tenant: Tenant) -> None:
    gate = Gate()
    tenant.openai.answers(openai_stream(["Hel", gate], finish=None, done=False))
    async with tenant.stream() as stream:
        assert await stream.next_text() == "Hel"
        gate.open()
        events = await stream.events()
    assert "[DONE]" not in events
    assert json.loads(events[-1])["error"]["type"] == "server_error"


async def test_an_error_in_mid_stream_becomes_a_typed_event_and_no_done_follows(tenant: Tenant) -> None:
    said = "model crashed at 10.0.0.7:8000"
    failure = event({"error": {"message": said, "type": "server_error", "code": "engine_dead", "trace": "4711"}})
    gate = Gate()
    tenant.openai.answers(openai_stream(["Hel", gate, failure], finish=None))
    async with tenant.stream() as stream:
        assert await stream.next_text() == "Hel"
        gate.open()
        events = await stream.events()
    error = json.loads(events[-1])["error"]
    assert error == {"message": "model crashed at ***", "type": "server_error", "param": None, "code": "engine_dead"}
    assert "[DONE]" not in events
    assert events[:-1] == []


async def test_nothing_goes_out_before_the_first_event_is_judged(tenant: Tenant) -> None:
    gate = Gate()
    tenant.openai.answers(raw(STREAM_HEAD, http_chunk(b": keep-alive\n\n"), gate))
    async with tenant.client.connect() as wire:
        body = chat_body(tenant.model, stream=True)
        await wire.send(request_bytes("POST", "/v1/chat/completions", body, tenant.key))
        await gate.reached()
        await wire.send(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")  # its answer must wait for ours
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(wire.head(), 0.3)


async def test_a_client_that_hangs_up_closes_the_upstream_connection_at_once(tenant: Tenant) -> None:
    gate = Gate()
    tenant.openai.answers(openai_stream(["Hel", gate]))
    async with tenant.stream() as stream:
        await stream.next_text()
        await gate.reached()
        assert tenant.openai.hang_ups.value == 0
    await tenant.openai.hang_ups.reaches(1, within_s=2)


@pytest.mark.parametrize("way", ["fin", "rst"])
async def test_a_client_that_leaves_before_the_first_event_closes_it_too(tenant: Tenant, way: str) -> None:
    gate = Gate()
    tenant.openai.answers(raw(gate))
    async with tenant.client.connect() as wire:
        body = chat_body(tenant.model, stream=True)
        await wire.send(request_bytes("POST", "/v1/chat/completions", body, tenant.key))
        await gate.reached()
        if way == "rst":
            wire.reset()
    await tenant.openai.hang_ups.reaches(1, within_s=2)
    assert tenant.mistral.requests == [], "nobody waits for a second attempt"


async def test_tool_calls_come_through_in_pieces(tenant: Tenant) -> None:
    first = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}
    pieces = [{"tool_calls": [first]}]
    pieces += [{"tool_calls": [{"index": 0, "function": {"arguments": text}}]} for text in ('{"a"', ": 1}")]
    tenant.openai.answers(openai_stream(pieces, finish="tool_calls"))
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    async with tenant.stream(tools=tools) as stream:
        chunks = await stream.chunks()
    calls = [call for c in chunks for choice in c["choices"] for call in choice["delta"].get("tool_calls", ())]
    assert "".join(call["function"]["arguments"] for call in calls) == '{"a": 1}'
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_many_streams_at_once_do_not_mix(tenant: Tenant) -> None:
    gate = Gate()
    tenant.openai.answers(lambda request: openai_stream([request.json["messages"][0]["content"], gate, "!"])(request))

    async def read(number: int) -> str:
        async with tenant.stream(content=f"number {number}") as stream:
            return text_of(await stream.chunks())

    readers = [asyncio.create_task(read(number)) for number in range(300)]
    await gate.reached(300)
    gate.open()
    assert await asyncio.gather(*readers) == [f"number {number}!" for number in range(300)]


async def test_a_connection_is_good_for_another_request_after_a_stream(tenant: Tenant) -> None:
    tenant.openai.answers(openai_stream(["a"]), openai_reply("b"))
    body = chat_body(tenant.model)
    async with tenant.client.connect() as wire:
        await wire.send(request_bytes("POST", "/v1/chat/completions", {**body, "stream": True}, tenant.key))
        stream = Stream(wire, await wire.head())
        assert text_of(await stream.chunks()) == "a"
        await wire.send(request_bytes("POST", "/v1/chat/completions", body, tenant.key))
        assert (await wire.reply()).text == "b"


async def test_an_http_1_0_client_gets_a_stream_that_ends_with_the_connection(tenant: Tenant) -> None:
    tenant.openai.answers(openai_stream(["a"]))
    body = chat_body(tenant.model, stream=True)
    request = request_bytes("POST", "/v1/chat/completions", body, tenant.key).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    async with tenant.client.connect() as wire:
        await wire.send(request)
        stream = Stream(wire, await wire.head())
        assert stream.header("transfer-encoding") is None
        assert text_of(await stream.chunks()) == "a"
