"""The Responses API, streamed and not: bytes, timing, money, and every way in which a stream may end."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest

from fakes.client import Reply, Wire, request_bytes
from fakes.fixtures import StartGateway
from fakes.gateway import Tenant, new_tenant
from fakes.upstream import (
    HANG,
    LAST_CHUNK,
    RESET,
    STREAM_HEAD,
    Answer,
    Gate,
    Part,
    Upstream,
    error,
    http_chunk,
    raw,
    reply,
)

USAGE = {
    "input_tokens": 100,
    "input_tokens_details": {"cached_tokens": 40},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 3},
    "total_tokens": 107,
}


def event(kind: str, **more: Any) -> bytes:
    """One event as OpenAI sends it, with its name in two places."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **more}, ensure_ascii=False)}\n\n".encode()


CREATED = event("response.created", response={"id": "resp_1", "usage": None, "error": None})
DELTA = event("response.output_text.delta", delta="Grüße\u2028!")
COMPLETED = event("response.completed", response={"id": "resp_1", "usage": USAGE, "error": None})
FAILED = event("response.failed", response={"id": "resp_1", "error": {"code": "server_error", "message": "no"}})
ERROR = event("error", code="rate_limit_exceeded", message="slow down", param=None)


def stream_of(*parts: Part) -> Answer:
    """A stream; bytes become a chunk each."""
    return raw(STREAM_HEAD, *(http_chunk(part) if isinstance(part, bytes) else part for part in parts), LAST_CHUNK)


class Events:
    """A streamed answer as its bytes come."""

    def __init__(self, wire: Wire, head: Reply) -> None:
        self.wire = wire
        self.head = head
        self._pieces = wire.pieces()
        self.text = b""

    async def until(self, end: bytes) -> None:
        """Read on until the text ends so."""
        while not self.text.endswith(end):
            self.text += await anext(self._pieces)

    async def rest(self) -> bytes:
        """The whole text, at the proper end of the answer."""
        async for piece in self._pieces:
            self.text += piece
        return self.text


@asynccontextmanager
async def responding(tenant: Tenant, model: str | None = None, **more: Any) -> AsyncIterator[Events]:
    body = {"model": model or tenant.model, "input": "word " * 100, "stream": True, **more}
    async with tenant.client.connect() as wire:
        await wire.send(request_bytes("POST", "/v1/responses", body, tenant.key))
        yield Events(wire, await wire.head())


async def test_a_whole_answer_is_priced_by_its_usage(tenant: Tenant) -> None:
    await tenant.gateway.sql("UPDATE tollway.models SET cached_input_cost_per_1k = 0 WHERE name = $1", tenant.model)
    await tenant.gateway.configuration_is_live()
    answer = {"id": "resp_1", "output": [], "error": None, "usage": USAGE, "new": 1.10}
    tenant.openai.answers(reply(200, answer))
    got = await tenant.post("/v1/responses", {"model": tenant.model, "input": "Hi"})
    assert (got.status, got.json) == (200, answer)
    assert got.header("x-tollway-cost") == "0.000074"
    (entry,) = await tenant.ledger(1)
    assert (entry["input_tokens"], entry["cached_input_tokens"], entry["output_tokens"]) == (100, 40, 7)
    assert (entry["reasoning_tokens"], entry["cost"], entry["state"]) == (3, Decimal("0.000074"), "exact")


async def test_a_whole_answer_without_usage_is_billed_by_its_text(tenant: Tenant) -> None:
    said = [{"type": "output_text", "text": "x" * 400}]
    answer = {"output": [{"type": "message", "content": said}, {"type": "function_call", "arguments": "y" * 40}]}
    tenant.openai.answers(reply(200, answer))
    assert (await tenant.post("/v1/responses", {"model": tenant.model, "input": "Hi"})).status == 200
    (entry,) = await tenant.ledger(1)
    assert (entry["state"], entry["output_tokens"], entry["priced"]) == ("estimated", 110, True)


async def test_a_stream_passes_to_the_byte_and_each_event_when_it_comes(tenant: Tenant) -> None:
    first, second, third = Gate(), Gate(), Gate()
    tenant.openai.answers(stream_of(CREATED, first, DELTA, second, COMPLETED, third))
    async with responding(tenant) as events:
        head = events.head
        assert (head.status, head.header("content-type")) == (200, "text/event-stream")
        assert (head.header("cache-control"), head.header("x-accel-buffering")) == ("no-cache", "no")
        assert head.header("x-tollway-cost") is None
        await events.until(CREATED)
        first.open()
        await events.until(DELTA)
        second.open()
        await events.until(COMPLETED)
        (entry,) = await tenant.ledger(1)  # while the stream is still open
        assert (entry["state"], entry["outcome"], entry["stream"]) == ("exact", "ok", True)
        assert (entry["input_tokens"], entry["cached_input_tokens"], entry["output_tokens"]) == (100, 40, 7)
        third.open()
        assert await events.rest() == CREATED + DELTA + COMPLETED


@pytest.mark.parametrize("size", [1, 2, 7, 100])
async def test_the_bytes_do_not_depend_on_their_cut(tenant: Tenant, size: int) -> None:
    text = b"\xef\xbb\xbf: hello\r\n\r\n" + (CREATED + DELTA).replace(b"\n", b"\r\n") + COMPLETED + b": bye"
    tenant.openai.answers(stream_of(*[text[at : at + size] for at in range(0, len(text), size)]))
    async with responding(tenant) as events:
        assert await events.rest() == text
    (entry,) = await tenant.ledger(1)
    assert (entry["state"], entry["output_tokens"]) == ("exact", 7)


async def test_who_hangs_up_cuts_the_provider_and_pays_for_what_came(tenant: Tenant) -> None:
    tenant.openai.answers(stream_of(CREATED, event("response.output_text.delta", delta="x" * 400), HANG))
    async with responding(tenant) as events:
        await events.until(b'x"}\n\n')
        events.wire.reset()
        await tenant.openai.hang_ups.reaches(1)
    (entry,) = await tenant.ledger(1)
    assert (entry["outcome"], entry["state"], entry["charged"]) == ("client_gone", "partial", True)
    assert entry["input_tokens"] >= 100 and entry["output_tokens"] == 100


@pytest.mark.parametrize("cut", [None, 10])
@pytest.mark.parametrize("first", [ERROR, FAILED])
async def test_an_error_as_the_first_event_leads_to_the_next_target(
    tenant: Tenant, first: bytes, cut: int | None
) -> None:
    second = await tenant.add_model()
    model = await tenant.add_model(fallback=second)
    pieces = [first] if cut is None else [first[:cut], first[cut:]]
    tenant.openai.answers(stream_of(*pieces), stream_of(CREATED, COMPLETED))
    async with responding(tenant, model) as events:
        assert events.head.header("x-tollway-attempts") == "2"
        assert await events.rest() == CREATED + COMPLETED
    entries = await tenant.ledger(2)
    assert [entry["charged"] for entry in entries] == [False, True]
    assert [json.loads(request.body)["model"] for request in tenant.openai.requests] == [model, second]


@pytest.mark.parametrize(("last", "outcome"), [(FAILED, "server_error"), (ERROR, "rate_limited")])
async def test_an_error_in_mid_stream_passes_and_is_the_outcome(tenant: Tenant, last: bytes, outcome: str) -> None:
    tenant.openai.answers(stream_of(CREATED, DELTA, last))
    async with responding(tenant) as events:
        assert await events.rest() == CREATED + DELTA + last, "the provider has told, and once"
    (entry,) = await tenant.ledger(1)
    assert (entry["outcome"], entry["state"], entry["charged"]) == (outcome, "partial", True)
    assert entry["output_tokens"] == 3  # of 11 bytes


async def test_an_error_that_comes_in_one_piece_with_what_was_good_passes_too(tenant: Tenant) -> None:
    model = await tenant.add_model(fallback=await tenant.add_model())
    tenant.openai.answers(stream_of(CREATED + FAILED))
    async with responding(tenant, model) as events:
        assert await events.rest() == CREATED + FAILED
    (entry,) = await tenant.ledger(1)
    assert (entry["outcome"], entry["state"]) == ("server_error", "partial")


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("texts", [10_000, 3_000_000])
async def test_a_stream_that_says_more_of_its_failure_than_is_cleaned_ends_there(
    tenant: Tenant, texts: int, apart: bool
) -> None:
    first = b'data: {"error":{"message":"no, by 10.0.0.7"}}\n\n'
    second = b'data: {"error":[' + b'"",' * texts + b'"at 10.0.0.7"]}\n\n'
    tenant.openai.answers(stream_of(*((CREATED, first, second) if apart else (CREATED + first + second,)), DELTA))
    async with responding(tenant) as events:
        text = await events.rest()
    *passed, said, ours, end = text.split(b"\n\n")
    assert passed == CREATED.split(b"\n\n")[:1] and end == b""
    assert json.loads(said.removeprefix(b"data: ")) == {"error": {"message": "no, by ***"}}
    told = json.loads(ours.removeprefix(b"data: "))["error"]
    assert (told["type"], told["code"]) == ("server_error", "upstream_invalid_response")
    (entry,) = await tenant.ledger(1)
    assert (entry["outcome"], entry["state"], entry["charged"]) == ("server_error", "partial", True)


async def test_a_stream_that_is_cut_ends_with_an_error_that_can_be_read(tenant: Tenant) -> None:
    tenant.openai.answers(stream_of(CREATED, DELTA, COMPLETED[:50], RESET))
    async with responding(tenant) as events:
        text = await events.rest()
    assert text.startswith(CREATED + DELTA + b"data: ")
    told = json.loads(text.removeprefix(CREATED + DELTA + b"data: "))
    assert (told["error"]["type"], told["error"]["code"]) == ("server_error", "upstream_connection_error")
    (entry,) = await tenant.ledger(1)
    assert (entry["outcome"], entry["state"], entry["output_tokens"]) == ("broken", "partial", 3)


async def test_a_stream_that_is_cut_after_its_end_has_ended_well(tenant: Tenant) -> None:
    tenant.openai.answers(stream_of(CREATED, COMPLETED, RESET))
    async with responding(tenant) as events:
        assert await events.rest() == CREATED + COMPLETED
    (entry,) = await tenant.ledger(1)
    assert (entry["outcome"], entry["state"]) == ("ok", "exact")


async def test_a_stream_of_a_path_that_is_billed_by_other_things_is_counted_as_unpriced(tenant: Tenant) -> None:
    sound = event("speech.audio.delta", audio="AAAA") + event("speech.audio.done")
    tenant.openai.answers(stream_of(sound))
    body = {"model": tenant.model, "input": "Hi", "voice": "alloy", "stream_format": "sse"}
    answer = await tenant.post("/v1/audio/speech", body)
    assert (answer.status, answer.body) == (200, sound)
    (entry,) = await tenant.ledger(1)
    assert (entry["state"], entry["priced"], entry["cost"]) == ("none", False, 0)


async def test_an_answer_that_is_fetched_again_is_not_billed_again(tenant: Tenant) -> None:
    tenant.openai.answers(reply(200, {"id": "resp_1", "usage": USAGE}))
    assert (await tenant.client.get("/v1/responses/resp_1", tenant.key)).json["usage"] == USAGE
    (entry,) = await tenant.ledger(1)
    assert (entry["operation"], entry["input_tokens"], entry["cost"]) == ("responses/{response_id}", 0, 0)
    assert (entry["state"], entry["priced"]) == ("none", True)


async def test_a_stored_answer_is_not_looked_for_where_the_key_has_no_key_of_its_own(tenant: Tenant) -> None:
    with Upstream() as other:
        others = other.for_anyone(reply(200, {"output": "of somebody else"}))
        second = await tenant.add_model(await tenant.add_provider(other.url, wants_key=False))
        model = await tenant.add_model(fallback=second)
        tenant.openai.answers(error(500))
        body = {"model": model, "input": "Hi"}
        assert (await tenant.post("/v1/responses", body)).json["output"] == "of somebody else"
        answer = await tenant.post("/v1/responses", {**body, "previous_response_id": "resp_1"})
        assert answer.refusal == (502, "upstream_error")
        assert len(others.requests) == 1


async def test_a_silent_stream_is_kept_alive_once_it_has_begun_and_between_its_events(
    start_gateway: StartGateway,
) -> None:
    tenant = await new_tenant(start_gateway(STREAM_KEEPALIVE_S="1"))
    second, third = Gate(), Gate()
    tenant.openai.answers(stream_of(CREATED + DELTA[:9], second, DELTA[9:], third, COMPLETED))
    comment = b": keep-alive\n\n"
    async with tenant.client.connect() as wire:
        await wire.send(request_bytes("POST", "/v1/responses", {"model": tenant.model, "stream": True}, tenant.key))
        events = Events(wire, await wire.head())
        await events.until(comment)
        assert events.text == CREATED + comment
        second.open()
        await events.until(DELTA + comment)
        third.open()
        assert (await events.rest()).replace(comment, b"") == CREATED + DELTA + COMPLETED
