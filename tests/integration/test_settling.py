"""Calls that end in an unusual way: who is told what, and who pays for it.

A key pays for what reached its client and for what was produced until its client hung up. What nobody asked a provider
for, and what the gateway itself took away from a client before its first byte, is on the house.
"""

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta

import asyncpg
import psutil
import pytest

from fakes.client import chat_body, request_bytes
from fakes.fixtures import StartGateway
from fakes.gateway import Gateway, Tenant, new_tenant
from fakes.upstream import (
    HANG,
    PATIENCE_S,
    STREAM_HEAD,
    Answer,
    Bill,
    Gate,
    Part,
    Received,
    error,
    head,
    mistral_reply,
    openai_reply,
    openai_stream,
    raw,
)

JSON = {"content-type": "application/json"}
LONG = "word " * 100
"""A prompt of at least 100 tokens by any estimate."""


@asynccontextmanager
async def waiting_client(tenant: Tenant, *, stream: bool, content: str = LONG) -> AsyncIterator[None]:
    """A client that has asked and hangs up without an answer when the block is left."""
    body = chat_body(tenant.model, content, stream=stream)
    async with tenant.client.connect() as wire:
        await wire.send(request_bytes("POST", "/v1/chat/completions", body, tenant.key))
        yield
        wire.reset()


async def everything_arrived_is_handled(gateway: Gateway) -> None:
    """What has reached the gateway before this has been acted on: its one loop has answered two later requests."""
    for _ in range(2):
        assert (await gateway.client.get("/livez")).status == 200


async def revoke(tenant: Tenant) -> None:
    await tenant.gateway.sql("UPDATE tollway.virtual_keys SET revoked_at = now() WHERE id = $1", tenant.key_id)


def assert_on_the_house(row: asyncpg.Record, outcome: str) -> None:
    assert (row["outcome"], row["charged"], row["cost"]) == (outcome, False, 0)
    assert (row["input_tokens"], row["output_tokens"]) == (0, 0)


# Keys that end while their calls run


async def test_a_stream_of_a_revoked_key_that_has_said_nothing_is_refused_and_a_whole_answer_still_arrives(
    tenant: Tenant,
) -> None:
    gate = Gate()

    def answer(request: Received) -> Iterator[Part]:
        if request.json.get("stream"):
            yield STREAM_HEAD
        yield gate
        yield from openai_reply("for the one that waited", Bill(1000, 0))(request)

    tenant.openai.answers(answer)
    whole = asyncio.create_task(tenant.chat())
    await gate.reached(1)
    body = chat_body(tenant.model, LONG, stream=True)
    async with tenant.client.connect() as wire:
        await wire.send(request_bytes("POST", "/v1/chat/completions", body, tenant.key))
        await gate.reached(2)
        await everything_arrived_is_handled(tenant.gateway)  # a provider that has begun makes it no different
        await revoke(tenant)
        refused = await wire.reply()
    assert refused.refusal == (401, "revoked_api_key")
    await tenant.openai.hang_ups.reaches(1)
    gate.open()  # the same look at the keys has let the whole answer go on
    assert (await whole).text == "for the one that waited"
    rows = await tenant.ledger(2)
    assert_on_the_house(next(row for row in rows if row["stream"]), "revoked")
    assert [row["outcome"] for row in rows if not row["stream"]] == ["ok"]
    await tenant.cost_becomes("0.001")


async def test_a_key_revoked_while_its_body_is_still_on_its_way_is_refused(tenant: Tenant) -> None:
    body = chat_body(tenant.model)
    whole = request_bytes("POST", "/v1/chat/completions", body, tenant.key, {"expect": "100-continue"})
    start, _, content = whole.partition(b"\r\n\r\n")
    async with tenant.client.connect() as wire:
        await wire.send(start + b"\r\n\r\n")
        assert await wire.interim_status() == 100  # its head has been judged good
        await wire.send(content[:10])
        await revoke(tenant)
        await tenant.gateway.configuration_is_live()
        await wire.send(content[10:])
        assert (await wire.reply()).refusal == (401, "revoked_api_key")
    assert tenant.openai.requests == []


async def test_a_stream_of_a_key_whose_time_passes_in_the_middle_of_it_ends(tenant: Tenant) -> None:
    """Nothing else changes in the meantime: no edit brings the key to the gateway's attention."""
    tenant.openai.answers(openai_stream(["word "] * 50 + [HANG]))
    expires_at = datetime.now(UTC) + timedelta(seconds=1.5)
    edit = "UPDATE tollway.virtual_keys SET expires_at = $2 WHERE id = $1"
    await tenant.gateway.sql(edit, tenant.key_id, expires_at)
    await tenant.gateway.configuration_is_live()
    async with tenant.stream(content=LONG) as stream:
        for _ in range(50):
            await stream.next_text()
        (last,) = await stream.events()
        late_s = time.time() - expires_at.timestamp()
    assert json.loads(last)["error"]["code"] == "expired_api_key"
    assert 0 <= late_s < 3
    await tenant.openai.hang_ups.reaches(1)
    (row,) = await tenant.ledger(1)
    assert (row["outcome"], row["state"], row["charged"]) == ("expired", "partial", True)
    assert row["output_tokens"] >= 50
    await tenant.cost_becomes(row["cost"])


async def test_a_stream_ends_at_an_expiry_that_was_set_after_it_began(tenant: Tenant) -> None:
    tenant.openai.answers(openai_stream(["a", HANG]))
    async with tenant.stream() as stream:
        await stream.next_text()
        edit = "UPDATE tollway.virtual_keys SET expires_at = now() + interval '1 second' WHERE id = $1"
        await tenant.gateway.sql(edit, tenant.key_id)
        await tenant.gateway.configuration_is_live()
        async with asyncio.timeout(4):
            (last,) = await stream.events()
    assert json.loads(last)["error"]["code"] == "expired_api_key"


# Clients that hang up before they were answered


@contextmanager
def black_hole() -> Iterator[int]:
    """A port to which every connection hangs: its queue is full and nobody takes anything out of it."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    port = listener.getsockname()[1]
    waiting = [socket.socket() for _ in range(3)]
    try:
        for plain in waiting:
            plain.setblocking(False)
            plain.connect_ex(("127.0.0.1", port))
        yield port
    finally:
        for plain in [listener, *waiting]:
            plain.close()


async def connects_to(gateway: Gateway, port: int) -> None:
    """Wait until the data plane stands in the middle of connecting to this port."""
    worker = gateway.child("tollway.dataplane")
    until = time.monotonic() + PATIENCE_S
    while not any(
        found.status == psutil.CONN_SYN_SENT and found.raddr.port == port for found in worker.net_connections("tcp4")
    ):
        assert time.monotonic() < until, "it does not connect"
        await asyncio.sleep(0.01)


async def test_a_client_that_hangs_up_before_its_provider_is_reached_pays_nothing(start_gateway: StartGateway) -> None:
    with black_hole() as port:
        gateway = start_gateway(OPENAI_BASE_URL=f"http://127.0.0.1:{port}/v1", CONNECT_TIMEOUT_S="15")
        tenant = await new_tenant(gateway)
        async with waiting_client(tenant, stream=False):
            await connects_to(gateway, port)
        (row,) = await tenant.ledger(1)
    assert_on_the_house(row, "client_gone")
    await tenant.cost_becomes("0")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_hangs_up_while_a_refusal_trickles_in_pays_nothing(tenant: Tenant, stream: bool) -> None:
    gate = Gate()
    tenant.openai.answers(raw(head(429, {**JSON, "content-length": "100"}), b'{"error":', gate))
    async with waiting_client(tenant, stream=stream):
        await gate.reached()
        await everything_arrived_is_handled(tenant.gateway)
    await tenant.openai.hang_ups.reaches(1)
    (row,) = await tenant.ledger(1)
    assert row["status"] == 429
    assert_on_the_house(row, "client_gone")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_hangs_up_before_the_answer_began_pays_for_its_prompt(tenant: Tenant, stream: bool) -> None:
    gate = Gate()
    tenant.openai.answers(raw(gate))
    async with waiting_client(tenant, stream=stream):
        await gate.reached()
        await everything_arrived_is_handled(tenant.gateway)
    await tenant.openai.hang_ups.reaches(1)
    (row,) = await tenant.ledger(1)
    assert (row["outcome"], row["state"], row["charged"]) == ("client_gone", "partial", True)
    assert 100 <= row["input_tokens"] <= 400 and row["output_tokens"] == 0
    assert row["cost"] > 0
    await tenant.cost_becomes(row["cost"])


# The end of a drain


async def test_who_still_waits_at_the_end_of_the_drain_is_refused_and_who_reads_is_told(
    start_gateway: StartGateway,
) -> None:
    gateway = start_gateway(DRAIN_SECONDS="1")
    tenant = await new_tenant(gateway)

    def answer(request: Received) -> Iterator[Part]:
        if request.json["messages"][0]["content"] == "speak":
            yield from openai_stream(["word "] * 50 + [HANG])(request)
        elif request.json.get("stream"):
            yield STREAM_HEAD
        yield HANG

    tenant.openai.answers(answer)
    whole = asyncio.create_task(tenant.chat(content=LONG))
    silent = asyncio.create_task(tenant.chat(content=LONG, stream=True))
    async with tenant.stream(content="speak") as stream:
        for _ in range(50):
            await stream.next_text()
        await tenant.openai.seen.reaches(3)
        gateway.terminate()
        events = await stream.events()
    for refused in await asyncio.gather(whole, silent):
        assert refused.refusal == (503, "draining")
        assert refused.error["type"] == "server_error"
        assert refused.header("retry-after")
    (last,) = events
    assert json.loads(last)["error"]["code"] == "draining"
    assert json.loads(last)["error"]["type"] == "server_error"
    assert await asyncio.to_thread(gateway.wait) == 0
    gateway.start()
    rows = await tenant.ledger(3)
    (spoke,) = [row for row in rows if row["charged"]]
    assert (spoke["outcome"], spoke["state"]) == ("drained", "partial")
    assert spoke["output_tokens"] >= 50
    for row in rows:
        if row is not spoke:
            assert_on_the_house(row, "drained")
    await tenant.cost_becomes(spoke["cost"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_to_the_whole_group_lets_a_running_stream_finish(
    start_gateway: StartGateway, number: signal.Signals
) -> None:
    """systemd and a closed terminal signal every process of the group; each must still do its part."""
    gateway = start_gateway()
    tenant = await new_tenant(gateway)
    gate = Gate()
    tenant.openai.answers(openai_stream(["before ", gate, "after"], Bill(1000, 0)))
    async with gateway.client.connect() as kept, tenant.stream() as stream:
        await kept.send(request_bytes("GET", "/livez"))
        assert (await kept.reply("GET")).status == 200
        assert await stream.next_text() == "before "
        os.killpg(gateway.process.pid, number)  # it leads a group of its own
        assert await kept.is_closed()  # it drains: whoever died of the signal has died
        gate.open()
        assert await stream.next_text() == "after"
        assert (await stream.events())[-1] == "[DONE]"
    assert await asyncio.to_thread(gateway.wait) == 0
    gateway.start()
    await tenant.cost_becomes("0.001")


# The books


async def test_however_calls_end_each_attempt_is_in_the_books_once(tenant: Tenant) -> None:
    gates = {name: Gate() for name in ("cut", "leave", "leave early")}
    stories: dict[str, Answer] = {
        "whole": openai_reply(bill=Bill(1000, 0)),
        "stream": openai_stream(["a"], Bill(1000, 0)),
        "fail": error(500),
        "leave": openai_stream(["word ", gates["leave"]]),
        "leave early": raw(gates["leave early"]),
        "cut": openai_stream(["word ", gates["cut"]]),
    }
    tenant.openai.answers(lambda request: stories[request.json["messages"][0]["content"]](request))
    tenant.mistral.answers(mistral_reply(bill=Bill(1000, 0)))
    assert (await tenant.chat(content="whole")).status == 200
    assert (await tenant.chat(tenant.pair, "fail")).status == 200
    async with tenant.stream(content="stream") as stream:
        await stream.chunks()
    async with tenant.stream(content="leave") as stream:
        await stream.next_text()
    async with waiting_client(tenant, stream=False, content="leave early"):
        await gates["leave early"].reached()
    await tenant.openai.hang_ups.reaches(2)
    async with tenant.stream(content="cut") as stream:
        await stream.next_text()
        await revoke(tenant)
        assert json.loads((await stream.events())[-1])["error"]["code"] == "revoked_api_key"
    await tenant.openai.hang_ups.reaches(3)
    rows = await tenant.ledger(7)
    assert len(tenant.openai.requests) + len(tenant.mistral.requests) == 7
    assert len({(row["call_id"], row["attempt"]) for row in rows}) == 7
    outcomes = sorted((row["outcome"], row["charged"]) for row in rows)
    assert outcomes == [
        ("client_gone", True),
        ("client_gone", True),
        ("ok", True),
        ("ok", True),
        ("ok", True),
        ("revoked", True),
        ("server_error", False),
    ]
    await tenant.cost_becomes(sum(row["cost"] for row in rows if row["charged"]))


async def test_every_total_is_the_sum_of_its_rows(gateway: Gateway) -> None:
    """Over all keys that any test has used so far; the order of tests does not matter."""
    different = """
        SELECT count(*) FROM "Users" AS key
        LEFT JOIN (SELECT key_id, sum(cost) FILTER (WHERE charged) AS cost FROM tollway.ledger GROUP BY key_id) AS spent
            ON spent.key_id = key.id
        WHERE key."totalCost" <> coalesce(spent.cost, 0)
    """
    await gateway.becomes(0, different)
    assert await gateway.value("SELECT count(*) FROM tollway.ledger WHERE NOT charged AND cost <> 0") == 0


# Bodies for the control plane


@pytest.mark.parametrize(
    ("framing", "pieces"),
    [
        ("content-length: 33000000\r\n\r\n", 2),  # refused by what it says it will be
        ("transfer-encoding: chunked\r\n\r\n", 3),  # refused as soon as it is more than 64 KiB
    ],
)
async def test_a_stranger_cannot_make_the_gateway_hold_a_large_set_up_request(
    gateway: Gateway, framing: str, pieces: int
) -> None:
    """The end of the body never comes, and the answer does."""
    piece = b" " * 65536
    async with gateway.client.connect() as wire:
        await wire.send(f"POST /api/save-keys HTTP/1.1\r\nhost: localhost\r\n{framing}".encode())

        async def pour() -> None:
            for _ in range(pieces):  # the server reads on for a while after its answer
                await wire.send(b"10000\r\n" + piece + b"\r\n" if "chunked" in framing else piece)

        pouring = asyncio.create_task(pour())
        assert (await wire.reply()).status in (401, 413)
        pouring.cancel()
        await asyncio.gather(pouring, return_exceptions=True)
        assert await wire.is_closed()
