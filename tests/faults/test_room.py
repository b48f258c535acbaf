"""Too much of everything: memory, connections, descriptors. Somebody is told to wait, nobody else notices.

Names begin with the rows of docs/faults.md.
"""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trustme

from fakes.client import BrokenAnswerError, Client, Reply, Wire, chat_body, form, request_bytes, text_of
from fakes.fixtures import StartGateway
from fakes.gateway import Gateway, Tenant, new_tenant, totals
from fakes.upstream import (
    HANG,
    PATIENCE_S,
    Account,
    Bill,
    Flood,
    Gate,
    Upstream,
    error,
    event,
    head,
    openai_reply,
    openai_stream,
    raw,
)
from fakes.worker import MODEL, running_worker

MIB = 1 << 20
JSON = {"content-type": "application/json"}


def memory(gateway: Gateway) -> int:
    return gateway.child("tollway.dataplane").memory_info().rss


async def eventually(condition: Callable[[], bool], what: str, within_s: float = PATIENCE_S) -> None:
    until = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < until, f"waited in vain: {what}"
        await asyncio.sleep(0.05)


async def becomes(gateway: Gateway, name: str, judge: Callable[[float], bool], within_s: float = PATIENCE_S) -> float:
    """Wait until a gauge is as it should be; workers report once a second."""
    found = -1.0
    try:
        async with asyncio.timeout(within_s):
            while not judge(found := await gateway.gauge(name)):
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"{name} is {found}") from None
    return found


# Memory


@pytest.mark.parametrize("way", ["prompts", "answers", "streams"])
async def test_fifty_clients_hang_up_and_the_memory_comes_back(gateway: Gateway, way: str) -> None:
    tenant = await new_tenant(gateway)
    tenant.openai.answers(openai_reply())
    for _ in range(10):
        assert (await tenant.chat()).status == 200
    before = memory(gateway)
    if way == "prompts":
        tenant.openai.answers(raw(HANG))
    elif way == "answers":
        length = {**JSON, "content-length": str(20 * MIB)}
        tenant.openai.answers(raw(head(200, length), Flood(b" " * MIB, 10), HANG))
    else:
        large = event({"choices": [{"index": 0, "delta": {"content": "x" * 200_000}, "finish_reason": None}]})
        tenant.openai.answers(openai_stream(["a", Flood(large, 50), HANG]))
    body = chat_body(tenant.model, "x" * 10 * MIB if way == "prompts" else "x", stream=way == "streams")
    message = request_bytes("POST", "/v1/chat/completions", body, tenant.key)

    async def hang_up(number: int) -> None:
        async with tenant.client.connect() as wire:
            await wire.send(message)
            await tenant.openai.seen.reaches(10 + number)
            await asyncio.sleep(0.1)  # a good part of the answer comes in
        tenant.openai.requests.clear()

    for number in range(1, 41):
        await hang_up(number)
    await asyncio.gather(*[hang_up(50) for _ in range(10)])
    await eventually(lambda: memory(gateway) - before < 64 * MIB, "memory comes back")
    await becomes(gateway, "tollway_buffered_bytes", lambda held: held == 0)


@contextlib.asynccontextmanager
async def holding(tenant: Tenant, count: int, size: int, missing: int) -> AsyncIterator[list[Wire]]:
    """Clients that have sent all of a body but so many bytes."""
    body = chat_body(tenant.model, "x" * size)
    message = request_bytes("POST", "/v1/chat/completions", body, tenant.key)
    async with contextlib.AsyncExitStack() as stack:
        wires = []
        for _ in range(count):
            wire = await stack.enter_async_context(tenant.client.connect())
            await wire.send(message[:-missing])
            wires.append(wire)
        yield wires


def assert_overloaded(reply: Reply) -> None:
    assert reply.refusal == (503, "overloaded")
    assert (reply.header("retry-after"), reply.header("retry-after-ms")) == ("1", "1000")
    assert reply.header("x-request-id")


async def test_a11_large_bodies_are_told_to_come_back_and_the_rest_goes_on(start_gateway: StartGateway) -> None:
    gateway = start_gateway(MAX_BODY_BYTES=str(4 * MIB), MAX_BUFFERED_BYTES=str(16 * MIB))
    tenant = await new_tenant(gateway)
    bill = Bill(7, 3)
    tenant.openai.answers(openai_reply("fine", bill=bill))
    before = memory(gateway)
    async with holding(tenant, 10, 3 * MIB, 1000) as wires:
        held = await becomes(gateway, "tollway_buffered_bytes", lambda held: held > 12 * MIB)
        assert held <= 16 * MIB
        for wire in wires[5:]:
            assert_overloaded(await wire.reply())
        assert (await tenant.chat()).text == "fine", "what is small goes on"
        assert (await gateway.client.get("/livez")).status == 200
        form_body, headers = form(("a", "", b"x" * 3 * MIB), ("model", "", tenant.model.encode()))
        path = "/v1/audio/transcriptions"
        assert_overloaded(await gateway.client.post(path, form_body, tenant.key, headers))
        assert memory(gateway) - before < 48 * MIB
        for wire in wires[:5]:
            await wire.send(b"x" * 900)  # not slow enough to be cut in the meantime
            await wire.send(b"x" * (100 - 3) + b'"}]}'[1:])
        for wire in wires[:5]:
            await wire.reply()
    await becomes(gateway, "tollway_buffered_bytes", lambda held: held == 0)
    rows = await tenant.ledger(len(tenant.openai.requests))
    assert totals(rows) == tenant.openai.owed(), "nothing is unbilled"
    assert (await gateway.metrics())['tollway_refusals_total{code="overloaded"}'] >= 6
    line = "no more room for bodies and answers"
    await eventually(lambda: line in gateway.stderr, "the shortage is said")
    assert gateway.stderr.count(line) == 1


async def test_a11_bodies_that_trickle_are_cut_where_others_need_the_room(start_gateway: StartGateway) -> None:
    gateway = start_gateway(MAX_BODY_BYTES=str(4 * MIB), MAX_BUFFERED_BYTES=str(16 * MIB))
    tenant = await new_tenant(gateway)
    tenant.openai.answers(openai_reply("fine"))
    async with holding(tenant, 5, 3 * MIB, 400_000) as wires:

        async def trickle(wire: Wire) -> None:
            with contextlib.suppress(OSError):
                while True:
                    await wire.send(b"x" * 600)
                    await asyncio.sleep(0.5)

        trickling = [asyncio.create_task(trickle(wire)) for wire in wires]
        async with asyncio.timeout(PATIENCE_S):
            while (reply := await tenant.chat(content="x" * 3 * MIB)).status == 503:
                assert_overloaded(reply)
                await asyncio.sleep(0.5)
        assert reply.text == "fine"
        for task in trickling:
            task.cancel()
        await asyncio.gather(*trickling, return_exceptions=True)


async def test_a11_answers_wait_for_room_and_none_is_lost(start_gateway: StartGateway) -> None:
    gateway = start_gateway(MAX_BODY_BYTES=str(2 * MIB), MAX_BUFFERED_BYTES=str(8 * MIB))
    tenant = await new_tenant(gateway)
    gate = Gate()
    tenant.openai.answers(lambda request: [gate, *openai_reply("x" * 4 * MIB)(request)])
    before = most = memory(gateway)
    asked = [asyncio.create_task(tenant.chat()) for _ in range(60)]
    await gate.reached(60)
    gate.open()
    while not all(task.done() for task in asked):
        most = max(most, memory(gateway))
        await asyncio.sleep(0.02)
    replies = await asyncio.gather(*asked)
    assert all(reply.status == 200 and len(reply.text) == 4 * MIB for reply in replies)
    assert most - before < 96 * MIB, "of 240 that came at the same time"
    rows = await tenant.ledger(60)
    assert totals(rows) == tenant.openai.owed()


async def test_e21_a_hundred_streams_that_nobody_reads(start_gateway: StartGateway) -> None:
    gateway = start_gateway(MAX_BODY_BYTES=str(MIB), MAX_BUFFERED_BYTES=str(8 * MIB))
    tenant, other = await new_tenant(gateway), await new_tenant(gateway)
    one = event({"choices": [{"index": 0, "delta": {"content": "x" * 2000}, "finish_reason": None}]})
    tenant.openai.answers(openai_stream(["a", Flood(one, 1 << 40)]))
    other.openai.answers(openai_reply("fine"))
    before = memory(gateway)
    body = chat_body(tenant.model, stream=True, max_tokens=100_000)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(100):
            wire = await stack.enter_async_context(gateway.client.connect(receive_buffer=4096))
            await wire.send(request_bytes("POST", "/v1/chat/completions", body, tenant.key))
        async with asyncio.timeout(PATIENCE_S):
            while (reply := await other.chat()).status == 503:
                assert_overloaded(reply)
                await asyncio.sleep(0.25)
        assert reply.text == "fine", "those that nobody reads made room"
        assert memory(gateway) - before < 64 * MIB
    began = len(tenant.openai.requests)
    assert began >= 10, "it takes so many at least to fill the room"
    await tenant.openai.hang_ups.reaches(began)
    assert {row["outcome"] for row in await tenant.ledger(began)} == {"client_gone"}
    await becomes(gateway, "tollway_buffered_bytes", lambda held: held == 0)


# Connections


async def once(port: int, request: bytes = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n") -> socket.socket | None:
    """A stranger's connection that has asked for something once and stays; None where it was turned away."""
    loop = asyncio.get_running_loop()
    connection = socket.socket()
    connection.setblocking(False)
    try:
        async with asyncio.timeout(PATIENCE_S):
            await loop.sock_connect(connection, ("127.0.0.1", port))
            await loop.sock_sendall(connection, request)
            if (await loop.sock_recv(connection, 1000)).startswith(b"HTTP/1.1 200"):
                return connection
    except OSError:
        pass
    connection.close()
    return None


async def crowd(port: int, count: int) -> list[socket.socket]:
    """So many strangers, some at a time."""
    found: list[socket.socket] = []
    for start in range(0, count, 50):
        batch = await asyncio.gather(*[once(port) for _ in range(min(50, count - start))])
        found += [connection for connection in batch if connection is not None]
    return found


async def test_e7_strangers_take_all_descriptors_and_calls_go_on(
    gateway_factory: Callable[[dict[str, str]], Gateway],
) -> None:
    gateway = gateway_factory({})
    gateway.open_files = 256
    strangers: list[socket.socket] = []
    try:
        gateway.start()
        tenant = await new_tenant(gateway)
        tenant.openai.answers(openai_reply("fine"))
        most = await gateway.gauge("tollway_max_connections")
        assert 60 < most < 128
        async with gateway.client.connect() as known:
            message = request_bytes("POST", "/v1/chat/completions", chat_body(tenant.model), tenant.key)
            await known.send(message)
            assert (await known.reply()).text == "fine"
            strangers = await crowd(gateway.port, 700)
            assert len(strangers) > 600, "each of them was served"
            gateway.openai.close_idle_connections()  # a new connection to the provider has to be made
            for _ in range(20):
                await known.send(message)
                assert (await known.reply()).text == "fine", "a call on a connection that was there"
                assert (await tenant.chat()).text == "fine", "a call on a new one"
            tenant.openai.answers(openai_stream(["a", "b"]))
            for _ in range(20):
                async with tenant.stream() as stream:
                    assert text_of(await stream.chunks()) == "ab"
            assert await gateway.gauge("tollway_open_connections") <= most + 1
            metrics = await gateway.metrics()
            assert metrics["tollway_connections_closed_for_room_total"] > 500
            assert not [name for name in metrics if name.startswith("tollway_breaker_state")]
        await eventually(lambda: "no more room for connections of clients" in gateway.stderr, "it is said")
        assert gateway.stderr.count("no more room for connections of clients") == 1
        assert f"allows only {most:.0f} connections of clients" in gateway.stderr
        assert "Traceback" not in gateway.stderr
    finally:
        for connection in strangers:
            connection.close()
        gateway.end()


@pytest.mark.parametrize("tls", [False, True])
async def test_e7_connections_that_never_say_a_word_make_room_too(
    gateway_factory: Callable[[dict[str, str]], Gateway], tls: bool, tmp_path: Path
) -> None:
    authority = trustme.CA()
    certificate, files = authority.issue_cert("127.0.0.1"), {}
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert")
    certificate.private_key_pem.write_to_path(tmp_path / "key")
    if tls:
        files = {"TLS_CERT_FILE": str(tmp_path / "cert"), "TLS_KEY_FILE": str(tmp_path / "key")}
    gateway = gateway_factory(files)
    gateway.open_files = 256
    if tls:
        gateway.tls = ssl.create_default_context()
        authority.configure_trust(gateway.tls)
    silent: list[socket.socket] = []
    try:
        gateway.start()
        tenant = await new_tenant(gateway)
        tenant.openai.answers(openai_reply("fine"))
        for number in range(700):
            connection = socket.socket()
            silent.append(connection)
            connection.connect(("127.0.0.1", gateway.port))
            if number % 2 and not tls:
                with contextlib.suppress(OSError):
                    connection.send(b"POST /v1/chat/comp")
            if number % 50 == 0:
                assert (await tenant.chat()).text == "fine"
        assert (await tenant.chat()).text == "fine"
    finally:
        for connection in silent:
            connection.close()
        gateway.end()


async def test_e7_ten_thousand_idle_connections(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    tenant = await new_tenant(gateway)
    tenant.openai.answers(openai_reply("fine"))
    for _ in range(10):
        await tenant.chat()
    count = min(10_000, int(await gateway.gauge("tollway_max_connections")) - 10)
    before = memory(gateway)
    idle = await crowd(gateway.port, count)
    try:
        assert len(idle) == count
        assert (await gateway.metrics()).get("tollway_connections_closed_for_room_total", 0) == 0
        for _ in range(10):
            assert (await tenant.chat()).text == "fine"
        assert memory(gateway) - before < 100 * MIB
    finally:
        for connection in idle:
            connection.close()


# R1: what is left when all is quiet


async def mixed_load(openai: Account, key: str, model: str, client: Client) -> None:
    """Good calls, refusals, breaks, hang-ups, all at the same time."""
    large = "x" * 2 * MIB
    one = event({"choices": [{"index": 0, "delta": {"content": "x" * 2000}, "finish_reason": None}]})
    script = [
        openai_reply("fine"),
        error(500),
        openai_stream(["a", "b"]),
        openai_stream(["a", HANG]),
        raw(head(200, {**JSON, "content-length": "100"}), b"{", HANG),
        openai_stream(["a", Flood(one, 1 << 40)]),
        raw(head(200, {**JSON, "content-length": str(4 * MIB)}), b" " * MIB),
    ]
    openai.answers(*script * 20, openai_reply("fine"))

    async def call(number: int) -> None:
        stream = number % 3 == 0
        body = chat_body(model, large if number % 5 == 0 else "x", stream=stream)
        message = request_bytes("POST", "/v1/chat/completions", body, key if number % 7 else "sk-nobody")
        with contextlib.suppress(BrokenAnswerError, OSError, TimeoutError):
            async with client.connect() as wire, asyncio.timeout(0.2 + number % 4 * 0.2):
                await wire.send(message[: len(message) // (1 + (number % 11 == 0))])
                await wire.reply()

    await asyncio.gather(*[call(number) for number in range(140)])


async def test_r1_r2_when_all_is_quiet_everything_is_as_before(start_gateway: StartGateway) -> None:
    gateway = start_gateway(IDLE_TIMEOUT_S="1", FIRST_BYTE_TIMEOUT_S="1")
    tenant = await new_tenant(gateway)
    tenant.openai.answers(openai_reply("fine"))
    await asyncio.gather(*[tenant.chat() for _ in range(20)])
    process = gateway.child("tollway.dataplane")

    async def quiet() -> tuple[int, int]:
        for gauge in ("tollway_inflight_requests", "tollway_buffered_bytes"):
            await becomes(gateway, gauge, lambda value: value == 0)
        await becomes(gateway, "tollway_open_connections", lambda value: value <= 1)  # the one that asks
        kept = await gateway.gauge("tollway_upstream_connections")
        return process.num_fds() - int(kept), process.memory_info().rss

    files, resident = await quiet()
    for _ in range(2):
        await mixed_load(tenant.openai, tenant.key, tenant.model, gateway.client)
        now = await quiet()
        assert abs(now[0] - files) <= 3
        assert now[1] - resident < 64 * MIB
    assert process.num_threads() < 16
    tenant.openai.answers(openai_reply("fine"))
    assert (await tenant.chat()).text == "fine"


async def test_r1_no_task_is_left_of_what_has_ended(tmp_path: Path, openai_provider: Upstream) -> None:
    account = openai_provider.account()
    environment = {"OPENAI_API_KEY": account.secret, "IDLE_TIMEOUT_S": "1", "FIRST_BYTE_TIMEOUT_S": "1"}
    async with running_worker(tmp_path, openai_provider.url, **environment) as worker:
        account.answers(openai_reply("fine"))
        assert (await worker.client.chat(worker.key, MODEL)).text == "fine"
        tasks = asyncio.all_tasks()
        await mixed_load(account, worker.key, MODEL, worker.client)
        assert len(account.requests) > 50, "calls have come so far"

        def left() -> set[asyncio.Task[object]]:
            return asyncio.all_tasks() - tasks

        with contextlib.suppress(AssertionError):
            await eventually(lambda: not left(), "nothing of it runs")
        assert left() == set()
