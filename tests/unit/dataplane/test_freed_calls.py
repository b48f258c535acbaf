"""A call that has ended is let go of at once, whatever way it ended: its body, its answer, its tasks."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes import freed
from fakes.client import chat_body, form, request_bytes
from fakes.freed import MIB, Peer, no_collector, peer
from fakes.worker import MODEL, Worker, running_worker
from tollway.dataplane import relay
from tollway.dataplane.calls import Attempt, Call, Cut
from tollway.dataplane.relay import Relay
from tollway.dataplane.reporting import cut
from tollway.http1 import connection, exchange, server
from tollway.http1.answer import Response, StreamedResponse

KINDS = (
    Response,
    StreamedResponse,
    connection.Connection,
    server.Connection,
    server.Request,
    exchange.Upload,
    exchange.ResponseStream,
    Call,
    Attempt,
    Relay,
)
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(autouse=True)
def without_collector() -> Iterator[None]:
    with no_collector():
        yield


def url(provider: Peer) -> str:
    return f"http://127.0.0.1:{provider.port}/v1"


def event(size: int, reason: str | None = None) -> bytes:
    delta = {"choices": [{"index": 0, "delta": {"content": "x" * size}, "finish_reason": reason}]}
    data = b"data: %b\n\n" % json.dumps(delta).encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


END = event(0, "stop")


def chat(worker: Worker, size: int, stream: bool = False) -> bytes:
    body = chat_body(MODEL, "x" * size, stream=stream)
    return request_bytes("POST", "/v1/chat/completions", body, worker.key)


async def leaves_nothing(worker: Worker, message: bytes, until: Callable[[], bool] | None = None) -> None:
    """Send a request, read its answer to the end or hang up as soon as ``until``; again and again."""

    async def once() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", worker.client.port)
        writer.write(message)
        if until is None:
            await reader.readuntil(b"\r\n\r\n")
        else:
            async with asyncio.timeout(10):
                while not until():
                    await asyncio.sleep(0.001)
        writer.transport.abort()
        async with asyncio.timeout(10):
            while worker.world.server.connections:
                await asyncio.sleep(0.001)

    await freed.leaves_nothing(once, KINDS)
    assert not worker.world.calls
    assert not worker.world.relays


def again(answering: Peer) -> Callable[[], bool]:
    """Whether the provider has answered once more."""
    seen = 0

    def answered() -> bool:
        nonlocal seen
        more = answering.answered > seen
        seen = max(seen, answering.answered)
        return more

    return answered


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_hangs_up_on_a_thinking_provider(tmp_path: Path, stream: bool) -> None:
    async with peer() as answering, running_worker(tmp_path, url(answering)) as worker:
        await leaves_nothing(worker, chat(worker, MIB, stream), again(answering))


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_hangs_up_in_mid_answer(tmp_path: Path, stream: bool) -> None:
    answer = STREAM + event(MIB) if stream else WHOLE % (2 * MIB) + b"x" * MIB
    async with peer(answer) as answering, running_worker(tmp_path, url(answering)) as worker:
        await leaves_nothing(worker, chat(worker, 10, stream), again(answering))


async def test_a_client_that_hangs_up_when_all_was_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "USAGE_S", 0.01)
    async with peer(STREAM + event(MIB) + END) as answering, running_worker(tmp_path, url(answering)) as worker:

        def was_said() -> bool:
            return any(each._all_said for each in worker.world.relays)

        await leaves_nothing(worker, chat(worker, 10, stream=True), was_said)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_hangs_up_on_what_is_drained(tmp_path: Path, stream: bool) -> None:
    answer = STREAM + event(MIB) if stream else WHOLE % (2 * MIB) + b"x" * MIB
    row, deadline = {"on_disconnect": "drain"}, {"REQUEST_TIMEOUT_S": "0.5"}
    async with peer(answer) as answering, running_worker(tmp_path, url(answering), row, **deadline) as worker:
        await leaves_nothing(worker, chat(worker, MIB, stream), again(answering))


async def test_a_client_that_hangs_up_in_mid_body(tmp_path: Path) -> None:
    async with peer() as answering, running_worker(tmp_path, url(answering)) as worker:
        whole = chat(worker, 2 * MIB)
        left = iter(range(1, 1_000_000))
        await leaves_nothing(worker, whole[:MIB], lambda: next(left) % 20 == 0)


async def test_a_client_that_hangs_up_in_mid_form(tmp_path: Path) -> None:
    async with peer() as answering, running_worker(tmp_path, url(answering)) as worker:
        body, headers = form(("model", "", MODEL.encode()), ("file", "a.wav", b"x" * 2 * MIB))
        whole = request_bytes("POST", "/v1/audio/transcriptions", body, worker.key, headers)
        await leaves_nothing(worker, whole[:MIB], again(answering))


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_provider_that_breaks_off(tmp_path: Path, stream: bool, end: str) -> None:
    answer = STREAM + event(MIB)[:-9] if stream else WHOLE % (2 * MIB) + b"x" * MIB
    async with peer(answer, end) as answering, running_worker(tmp_path, url(answering)) as worker:
        await leaves_nothing(worker, chat(worker, MIB, stream))


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_is_none(tmp_path: Path, stream: bool) -> None:
    answer = STREAM + b"%x\r\n%b\r\n" % (MIB, b"x" * MIB) if stream else WHOLE % MIB + b"[" * MIB
    async with peer(answer, "close") as answering, running_worker(tmp_path, url(answering)) as worker:
        await leaves_nothing(worker, chat(worker, MIB, stream))


async def test_a_provider_that_nobody_reaches(tmp_path: Path) -> None:
    async with peer() as answering:
        address = url(answering)
    async with running_worker(tmp_path, address) as worker:
        await leaves_nothing(worker, chat(worker, MIB))


async def test_a_provider_that_is_silent_for_too_long(tmp_path: Path) -> None:
    async with peer() as answering, running_worker(tmp_path, url(answering), FIRST_BYTE_TIMEOUT_S="0.01") as worker:
        await leaves_nothing(worker, chat(worker, MIB))


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_that_the_gateway_cuts(tmp_path: Path, stream: bool) -> None:
    answer = STREAM + event(MIB) if stream else b""
    async with peer(answer) as answering, running_worker(tmp_path, url(answering)) as worker:
        answered = again(answering)

        def cut_it() -> bool:
            if not answered():
                return False
            for call in list(worker.world.calls):
                cut(worker.world, call, Cut.REVOKED)
            return True

        await leaves_nothing(worker, chat(worker, MIB, stream), cut_it)
