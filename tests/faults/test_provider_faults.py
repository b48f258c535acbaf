"""A provider that misbehaves in every way: the client gets a clean answer, nothing crosses over, memory stays flat.

Names begin with the rows of docs/faults.md. The gateway of this file has short deadlines towards providers.
"""

import asyncio
import gzip
import json
from collections.abc import Callable, Iterable, Iterator

import psutil
import pytest

from fakes.client import chat_body, request_bytes, text_of
from fakes.fixtures import StartGateway
from fakes.gateway import Gateway, Tenant, new_tenant
from fakes.upstream import (
    CLOSE,
    HANG,
    LAST_CHUNK,
    RESET,
    STREAM_HEAD,
    Answer,
    Bill,
    Flood,
    Gate,
    Part,
    Pause,
    Received,
    Upstream,
    error,
    event,
    head,
    http_chunk,
    mistral_reply,
    mistral_stream,
    openai_reply,
    openai_stream,
    openai_usage,
    raw,
    reply,
)
from tollway.routing.health import MAX_FAILURES_IN_A_ROW
from tollway.routing.retry import MAX_RETRY_SHARE, MIN_RETRIES

MIB = 1 << 20
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def impatient(gateway_factory: Callable[[dict[str, str]], Gateway]) -> Iterator[Gateway]:
    """One gateway for this file: a provider that says nothing for a second has failed."""
    gateway = gateway_factory(
        {
            "CONNECT_TIMEOUT_S": "1",
            "FIRST_BYTE_TIMEOUT_S": "1",
            "IDLE_TIMEOUT_S": "1",
            "REQUEST_TIMEOUT_S": "4",
        }
    )
    try:
        gateway.start()
        yield gateway
        gateway.stop()
    finally:
        gateway.end()


@pytest.fixture
def tenant(impatient: Gateway) -> Tenant:
    return asyncio.run(new_tenant(impatient))


def memory(gateway: Gateway) -> int:
    return gateway.child("tollway.dataplane").memory_info().rss


async def assert_still_well(tenant: Tenant) -> None:
    """Whatever happened before, the next answers belong to their own requests."""
    tenant.openai.answers(lambda request: openai_reply(request.json["messages"][0]["content"])(request))
    texts = [f"after {number}" for number in range(5)]
    assert [(await tenant.chat(content=text)).text for text in texts] == texts


# D11, D12: time


async def test_d11_no_first_byte_in_time_is_a_timeout(tenant: Tenant) -> None:
    tenant.openai.answers(raw(HANG))
    refused = await tenant.chat()
    assert refused.refusal == (504, "upstream_timeout")
    await tenant.openai.hang_ups.reaches(len(tenant.openai.requests))


@pytest.mark.parametrize(
    "silence",
    [raw(HANG), raw(STREAM_HEAD, HANG), raw(STREAM_HEAD, http_chunk(b": keep-alive\n\n"), HANG)],
    ids=["nothing", "only a head", "only a comment"],
)
async def test_d11_no_first_event_in_time_is_answered_by_the_next(tenant: Tenant, silence: object) -> None:
    tenant.openai.answers(silence)
    tenant.mistral.answers(mistral_stream(["from ", "Mistral"]))
    async with tenant.stream(tenant.pair) as stream:
        assert text_of(await stream.chunks()) == "from Mistral"
    await tenant.openai.hang_ups.reaches(1)


async def test_d11_silence_within_an_answer_is_answered_by_the_next(tenant: Tenant) -> None:
    tenant.openai.answers(raw(head(200, {**JSON, "content-length": "100"}), b'{"id":', HANG))
    tenant.mistral.answers(mistral_reply("from Mistral"))
    assert (await tenant.chat(tenant.pair)).text == "from Mistral"


async def test_d11_silence_in_mid_stream_ends_it_with_an_error_event(tenant: Tenant) -> None:
    tenant.openai.answers(openai_stream(["Hel", HANG]))
    async with tenant.stream(tenant.pair) as stream:
        assert await stream.next_text() == "Hel"
        (last,) = await stream.events()
    assert json.loads(last)["error"]["code"] == "upstream_timeout"
    await tenant.openai.hang_ups.reaches(1)
    (row,) = await tenant.ledger(1)
    assert row["outcome"] != "ok" and row["output_tokens"] >= 1


def chatter(then: Answer) -> Answer:
    """Comments for longer than any silence may last, and then the answer."""

    def answer(request: Received) -> Iterator[Part]:
        yield STREAM_HEAD
        for _ in range(10):
            yield http_chunk(b": still here\n\n")
            yield Pause(0.25)
        yield from list(then(request))[1:]  # its head has gone out

    return answer


async def test_d12_comments_are_no_first_event(tenant: Tenant) -> None:
    tenant.openai.answers(chatter(openai_stream(["too late"])))
    tenant.mistral.answers(mistral_stream(["from ", "Mistral"]))
    async with tenant.stream(tenant.pair) as stream:
        assert text_of(await stream.chunks()) == "from Mistral"
    await tenant.openai.hang_ups.reaches(1)


async def test_d12_comments_after_content_are_silence(tenant: Tenant) -> None:
    def answer(request: Received) -> Iterator[Part]:
        yield STREAM_HEAD
        yield event({"choices": [{"index": 0, "delta": {"content": "a"}}]})
        yield from list(chatter(openai_stream(["too late"]))(request))[1:]

    tenant.openai.answers(answer)
    async with tenant.stream() as stream:
        assert await stream.next_text() == "a"
        (last,) = await stream.events()
    assert json.loads(last)["error"]["code"] == "upstream_timeout"
    await tenant.openai.hang_ups.reaches(1)


async def test_d26_the_deadline_covers_all_attempts_together(tenant: Tenant) -> None:
    models = [await tenant.add_model("openai") for _ in range(8)]
    many = await tenant.add_model("openai", fallback=json.dumps(models))
    tenant.openai.answers(raw(HANG))
    began = asyncio.get_running_loop().time()
    assert (await tenant.chat(many)).status == 504
    took_s = asyncio.get_running_loop().time() - began
    assert took_s < 4 + 3, "nine attempts of a second each would take nine"
    assert len(tenant.openai.requests) < 9


@pytest.mark.parametrize("fallback", [False, True])
async def test_d26_what_is_tried_again_although_all_fail_keeps_to_the_retry_budget(
    start_gateway: StartGateway, fallback: bool
) -> None:
    tenant = await new_tenant(start_gateway())
    tenant.openai.answers(error(500))
    tenant.mistral.answers(error(500))
    model = tenant.pair if fallback else tenant.model
    for _ in range(MAX_FAILURES_IN_A_ROW):
        assert (await tenant.chat(model)).status >= 500  # until both rest
    before = len(tenant.openai.requests) + len(tenant.mistral.requests)
    calls = 60
    answers = await asyncio.gather(*[tenant.chat(model) for _ in range(calls)])
    assert {answer.status for answer in answers} <= {500, 502, 503}
    further = len(tenant.openai.requests) + len(tenant.mistral.requests) - before - calls
    # Those of the calls before count as well; and each target is probed when its rest is over.
    assert 1 <= further <= MAX_RETRY_SHARE * (calls + MAX_FAILURES_IN_A_ROW) + MIN_RETRIES + 2


# D8, D9, D10: streams that break


@pytest.mark.parametrize(
    "end",
    [
        CLOSE,
        RESET,
        b"",
        event({"error": {"message": "overloaded"}}),
        event("nonsense"),
        b"zz\r\nnot a chunk size\r\n",
    ],
    ids=["closed", "reset", "no end", "error event", "no JSON", "broken chunk"],
)
async def test_d8_d9_d10_a_stream_that_breaks_ends_with_an_error_and_without_done(tenant: Tenant, end: Part) -> None:
    gate = Gate()
    tenant.openai.answers(openai_stream(["Hel", gate, end], finish=None, done=False))
    tenant.mistral.answers(mistral_stream(["never"]))
    async with tenant.stream(tenant.pair) as stream:
        assert await stream.next_text() == "Hel"  # from here on the client has seen content
        gate.open()
        events = await stream.events()
    assert set(json.loads(events[-1])["error"]) == {"message", "type", "param", "code"}
    assert events[:-1] == []
    assert tenant.mistral.requests == []
    (row,) = await tenant.ledger(1)
    assert row["outcome"] != "ok" and row["charged"]
    await assert_still_well(tenant)


# D13 to D16: size


async def test_d13_a_stream_that_never_ends_is_cut_and_memory_stays_flat(tenant: Tenant) -> None:
    await assert_still_well(tenant)
    before = memory(tenant.gateway)
    one = event({"choices": [{"index": 0, "delta": {"content": "x" * 2000}, "finish_reason": None}]})
    tenant.openai.answers(openai_stream(["a", Flood(one, 1 << 40)]))
    async with tenant.stream() as stream:
        last = b""
        async for piece in stream.wire.pieces():
            last = (last + piece)[-2000:]
    assert b'data: {"error":' in last and b"[DONE]" not in last
    await tenant.openai.hang_ups.reaches(1)
    assert memory(tenant.gateway) - before < 64 * MIB
    (row,) = [row for row in await tenant.ledger(6) if row["stream"]]
    assert row["outcome"] != "ok"


async def test_d13_e3_a_client_that_does_not_read_slows_the_provider_down(tenant: Tenant) -> None:
    await assert_still_well(tenant)
    before = memory(tenant.gateway)
    one = event({"choices": [{"index": 0, "delta": {"content": "x" * 2000}, "finish_reason": None}]})
    tenant.openai.answers(openai_stream(["a", Flood(one, 1 << 40)]))
    async with tenant.client.connect(receive_buffer=4096) as wire:
        body = chat_body(tenant.model, stream=True)
        await wire.send(request_bytes("POST", "/v1/chat/completions", body, tenant.key))
        await tenant.openai.hang_ups.reaches(1)  # when the time of the request is over, and not a buffer full
    assert memory(tenant.gateway) - before < 32 * MIB
    (row,) = [row for row in await tenant.ledger(6) if row["stream"]]
    assert row["outcome"] != "ok"


async def test_d14_a_gigabyte_in_one_answer_is_refused_and_memory_stays_flat(tenant: Tenant) -> None:
    await assert_still_well(tenant)
    before = memory(tenant.gateway)
    length = {**JSON, "content-length": str(1 << 30)}
    tenant.openai.answers(raw(head(200, length), Flood(b" " * MIB, 1024)))
    assert (await tenant.chat()).status in (502, 504)
    tenant.openai.answers(raw(head(200, {**JSON, "transfer-encoding": "chunked"}), Flood(http_chunk(b" " * MIB), 1024)))
    assert (await tenant.chat()).status in (502, 504)
    assert memory(tenant.gateway) - before < 32 * MIB, "half of what one answer may have: all of it has gone"
    await tenant.openai.hang_ups.reaches(2)
    await assert_still_well(tenant)


async def test_d14_an_error_of_a_gigabyte_is_not_read_either(tenant: Tenant) -> None:
    tenant.openai.answers(raw(head(500, {**JSON, "content-length": str(1 << 30)}), Flood(b" " * MIB, 1024)))
    tenant.mistral.answers(mistral_reply("from Mistral"))
    assert (await tenant.chat(tenant.pair)).text == "from Mistral"


async def test_d15_an_event_without_an_end_is_refused(tenant: Tenant) -> None:
    before = memory(tenant.gateway)
    endless = Flood(http_chunk(b"x" * MIB), 512)
    tenant.openai.answers(raw(STREAM_HEAD, http_chunk(b"data: "), endless))
    tenant.mistral.answers(mistral_stream(["from Mistral"]))
    async with tenant.stream(tenant.pair) as stream:
        assert text_of(await stream.chunks()) == "from Mistral"
    gate = Gate()
    tenant.openai.answers(openai_stream(["a", gate, http_chunk(b"data: "), endless]))
    async with tenant.stream() as stream:
        assert await stream.next_text() == "a"
        gate.open()
        (last,) = await stream.events()
    assert "error" in json.loads(last)
    assert memory(tenant.gateway) - before < 160 * MIB


@pytest.mark.parametrize(
    "garbage",
    [
        reply(200, "<html>It works!</html>", {"content-type": "text/html"}),
        reply(200, '{"choices": 5}'),
        reply(200, '{"choices": []}'),
        reply(200, '{"choices": [5]}'),
        reply(200, b"\xff\xfe\x00"),
        reply(200, "null"),
        reply(200, "[" * 100_000),
        reply(200, b"\x1f\x8b\x08"),
        raw(b"\x00" * 1000, CLOSE),
        raw(b"HTTP/1.1 999 Nonsense\r\ncontent-length: 0\r\n\r\n"),
        raw(b"HTTP/1.1 20 Short\r\ncontent-length: 0\r\n\r\n", CLOSE),
        raw(b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n", CLOSE),
    ],
)
async def test_d15_garbage_is_a_failed_attempt(tenant: Tenant, garbage: object) -> None:
    tenant.openai.answers(garbage)
    tenant.mistral.answers(mistral_reply("from Mistral"))
    assert (await tenant.chat(tenant.pair)).text == "from Mistral"
    refused = await tenant.chat()
    assert refused.status in (502, 503)
    assert "Traceback" not in refused.body.decode()
    await assert_still_well(tenant)


async def test_d16_a_gzip_bomb_is_not_decoded(tenant: Tenant) -> None:
    before = memory(tenant.gateway)
    bomb = gzip.compress(b"\x00" * (64 * MIB))
    tenant.openai.answers(reply(200, bomb, {"content-encoding": "gzip"}))
    tenant.mistral.answers(mistral_reply("from Mistral"))
    assert (await tenant.chat(tenant.pair)).text == "from Mistral"
    assert memory(tenant.gateway) - before < 32 * MIB


# D17, D18: framing

WHOLE = b'{"id":"x","object":"chat.completion","choices":[]}'
FRAMINGS = {
    "length and chunked": (
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        CLOSE,
    ),
    "two lengths": (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!", CLOSE),
    "negative length": (b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n", CLOSE),
    "length with plus": (b"HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nhello", CLOSE),
    "gzip, chunked": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", CLOSE),
    "folded header": (b"HTTP/1.1 200 OK\r\nx-a: 1\r\n 2\r\ncontent-length: 0\r\n\r\n", CLOSE),
    "NUL in a header": (b"HTTP/1.1 200 OK\r\nx-a: 1\x002\r\ncontent-length: 0\r\n\r\n", CLOSE),
    "bare CR in a header": (b"HTTP/1.1 200 OK\r\nx-a: 1\rx-b: 2\r\ncontent-length: 0\r\n\r\n", CLOSE),
    "100,000 headers": (b"HTTP/1.1 200 OK\r\n" + b"x-a: 1\r\n" * 100_000 + b"\r\n", CLOSE),
    "one header of 1 MB": (b"HTTP/1.1 200 OK\r\nx-a: " + b"a" * MIB + b"\r\n\r\n", CLOSE),
    "a head without an end": (b"HTTP/1.1 200 OK\r\n", Flood(b"x-a: 1\r\n" * 1000, 1000)),
    "endless 1xx": (Flood(b"HTTP/1.1 103 Early Hints\r\n\r\n", 100_000),),
    "switching protocols": (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n", HANG),
    "a bad chunk size": (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
        CLOSE,
    ),
    "a chunk size beyond 64 bits": (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"f" * 17 + b"\r\n",
        CLOSE,
    ),
    "trailers without an end": (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n" % (len(WHOLE), WHOLE),
        Flood(b"x-a: 1\r\n" * 1000, 1000),
    ),
}


@pytest.mark.parametrize("name", FRAMINGS)
async def test_d17_an_answer_with_another_framing_is_a_failed_attempt(tenant: Tenant, name: str) -> None:
    tenant.openai.answers(raw(*FRAMINGS[name]))
    tenant.mistral.answers(mistral_reply("from Mistral"))
    assert (await tenant.chat(tenant.pair)).text == "from Mistral"
    await assert_still_well(tenant)


EXTRA = {
    "a second answer": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
    "junk": b"junk",
    "a line end": b"\r\n",
    "half an answer": b"HTTP/1.1 200 OK\r\ncontent-le",
}


@pytest.mark.parametrize("name", EXTRA)
@pytest.mark.parametrize("stream", [False, True])
async def test_d18_s27_bytes_after_an_answer_are_nobodys_answer(tenant: Tenant, name: str, stream: bool) -> None:
    def extra(request: Received) -> Iterable[Part]:
        content = request.json["messages"][0]["content"]
        build = openai_stream([content]) if stream else openai_reply(content)
        parts = [part for part in build(request) if isinstance(part, bytes)]
        return [b"".join(parts) + EXTRA[name]]

    tenant.openai.answers(extra)
    for number in range(6):
        text = f"number {number}"
        if stream:
            async with tenant.stream(content=text) as answer:
                assert text_of(await answer.chunks()) == text
        else:
            assert (await tenant.chat(content=text)).text == text
    assert len({request.connection for request in tenant.openai.requests}) == 6, "each connection was dropped"


@pytest.mark.parametrize("status", [204, 304])
async def test_s27_a_status_without_a_body_that_has_one_does_not_poison_the_connection(
    tenant: Tenant, status: int
) -> None:
    poison = b"HTTP/1.1 %d X\r\ncontent-length: 50\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}" % status
    tenant.openai.answers(raw(poison))
    tenant.mistral.answers(mistral_reply("from Mistral"))
    assert (await tenant.chat(tenant.pair)).text == "from Mistral"
    await assert_still_well(tenant)


async def test_s27_answers_do_not_cross_when_clients_leave_in_between(tenant: Tenant) -> None:
    """Cancelled calls must never leave their answer on a connection that another call uses."""
    gates = [Gate() for _ in range(10)]

    def answer(request: Received) -> Iterable[Part]:
        content = request.json["messages"][0]["content"]
        if content.startswith("leave"):
            yield gates[int(content.removeprefix("leave"))]
        yield from openai_reply(content)(request)

    tenant.openai.answers(answer)
    for number, gate in enumerate(gates):
        leaving = asyncio.create_task(tenant.chat(content=f"leave{number}"))
        await gate.reached()
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        gate.open()
        staying = [tenant.chat(content=f"stay {number} {place}") for place in range(5)]
        answers = await asyncio.gather(*staying)
        assert [answer.text for answer in answers] == [f"stay {number} {place}" for place in range(5)]


# D20: usage in odd places


async def test_d20_usage_after_the_finish_in_any_place_is_taken_once(tenant: Tenant) -> None:
    bill = Bill(1000, 0)
    total = {"choices": [], "usage": openai_usage(bill), "id": "x", "object": "chat.completion.chunk"}

    def several(request: Received) -> Iterable[Part]:
        request.bill(bill)
        final = {"index": 0, "delta": {}, "finish_reason": "stop"}
        with_usage = {"choices": [final], "usage": openai_usage(bill), "id": "x", "object": "chat.completion.chunk"}
        first = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "a"}}], "usage": None}
        return [STREAM_HEAD, event(first), event(with_usage), event(total), event(total), event("[DONE]"), LAST_CHUNK]

    tenant.openai.answers(several)
    async with tenant.stream() as stream:
        chunks = await stream.chunks()
    assert all("usage" not in chunk for chunk in chunks)
    await tenant.cost_becomes("0.001")


# D1, D3, D5, D21 to D23


async def test_d25_another_model_in_the_answer_changes_neither_the_answer_nor_its_price(tenant: Tenant) -> None:
    """Providers answer with the dated name of what they were asked for, so another name says nothing by itself."""
    other = {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "a-dearer-model",
        "usage": openai_usage(Bill(10, 20)),
    }
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
    tenant.openai.answers(reply(200, {**other, "choices": [choice]}))
    answer = await tenant.chat()
    assert (answer.json["model"], answer.header("x-tollway-model")) == ("a-dearer-model", tenant.model)
    assert answer.header("x-tollway-cost") == "0.00005"
    (row,) = await tenant.ledger(1)
    assert (row["model"], row["upstream_model"], row["state"]) == (tenant.model, None, "exact")


async def test_d30_a_provider_that_finishes_although_we_hung_up_is_entered_once_by_estimate(tenant: Tenant) -> None:
    gate = Gate()
    tenant.openai.answers(openai_stream(["Hello", gate, " world", " again"], Bill(9, 3)))
    async with tenant.stream() as stream:
        assert await stream.next_text() == "Hello"
    (row,) = await tenant.ledger(1)
    gate.open()  # now it says all the rest, to nobody
    assert (row["state"], row["outcome"], row["charged"]) == ("partial", "client_gone", True)
    assert (row["input_tokens"], row["output_tokens"]) == (13, 2), "what was asked and what had come, by estimate"
    tenant.openai.answers(openai_reply())
    assert (await tenant.chat()).status == 200
    assert [row["outcome"] for row in await tenant.ledger(2)] == ["client_gone", "ok"]


async def test_d21_a_refused_credential_of_ours_is_never_the_clients_401(tenant: Tenant) -> None:
    for status in (401, 403):
        tenant.openai.answers(error(status, "Incorrect API key provided"))
        refused = await tenant.chat()
        assert refused.refusal == (502, "upstream_auth_error")
        assert refused.header("x-should-retry") == "false"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_d23_s14_a_redirect_is_not_followed(tenant: Tenant, status: int) -> None:
    with Upstream() as trap:
        trap.for_anyone(openai_reply("trapped"))
        for target in (f"http://127.0.0.1:{trap.port}/v1/chat/completions", "http://169.254.169.254/", "/v1/other"):
            tenant.openai.answers(reply(status, "", {"location": target}))
            tenant.mistral.answers(mistral_reply("from Mistral"))
            assert (await tenant.chat(tenant.pair)).text == "from Mistral"
        assert trap.connections.value == 0
    assert {request.path for request in tenant.openai.requests} == {"/v1/chat/completions"}


async def test_d5_an_attempt_that_may_have_been_billed_is_in_the_ledger(tenant: Tenant) -> None:
    def billed_and_lost(request: Received) -> Iterable[Part]:
        request.bill(Bill(100, 100))
        return [b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{", RESET]

    tenant.openai.answers(billed_and_lost)
    tenant.mistral.answers(mistral_reply(bill=Bill(1000, 0)))
    assert (await tenant.chat(tenant.pair)).status == 200
    rows = await tenant.ledger(2)
    assert [row["charged"] for row in rows] == [False, True]
    await tenant.cost_becomes("0.001")


async def test_d3_a_provider_that_asks_for_a_pause_gets_it(tenant: Tenant) -> None:
    tenant.openai.answers(error(429, headers={"retry-after": "30"}))
    tenant.mistral.answers(mistral_reply("from Mistral"))
    for _ in range(10):
        assert (await tenant.chat(tenant.pair)).text == "from Mistral"
    assert len(tenant.openai.requests) == 1, "it is left alone for the time it asked for"


async def test_d1_a_half_closed_provider_is_a_broken_one(tenant: Tenant) -> None:
    tenant.openai.answers(raw(head(200, {**JSON}), b'{"choices": [', CLOSE))
    tenant.mistral.answers(mistral_reply("from Mistral"))
    assert (await tenant.chat(tenant.pair)).text == "from Mistral"


def test_nothing_is_left_open_towards_the_providers(impatient: Gateway) -> None:
    """R1: after everything above the data plane holds no more than its kept connections."""
    process: psutil.Process = impatient.child("tollway.dataplane")
    assert process.num_fds() < 150
    assert process.num_threads() < 16
