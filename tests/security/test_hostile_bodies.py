"""Bodies and answers that cost as much as they can are read beside the event loop: others get their turn meanwhile.

What is counted is work, not time: the answers that another client gets while a body is worked on. Were it worked on in
the loop's own thread, there would be none.
"""

import asyncio
import json
import re
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from bench.hostile import ANSWERS, REQUESTS, Request
from fakes.client import chat_body, request_bytes
from fakes.freed import peer
from fakes.worker import MODEL, Worker, running_worker
from tollway.dataplane.offload import SWITCH_INTERVAL_S, Offload

LIVENESS = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
ROOM = 64 << 20
TURNS = 20
"""For each shape, on average: a machine that does nothing else gives a hundred times as many."""


class Judging:
    """How many pieces of work run beside the loop, and how many did."""

    def __init__(self) -> None:
        self.running = self.begun = 0

    def around(self, run: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
        async def noted(*arguments: object) -> object:
            self.begun += 1
            self.running += 1
            try:
                return await run(*arguments)
            finally:
                self.running -= 1

        return noted


@pytest.fixture
def judging(monkeypatch: pytest.MonkeyPatch) -> Iterator[Judging]:
    watched, interval = Judging(), sys.getswitchinterval()
    monkeypatch.setattr(Offload, "run", watched.around(Offload.run))
    sys.setswitchinterval(SWITCH_INTERVAL_S)  # as a worker does
    yield watched
    sys.setswitchinterval(interval)


async def send(worker: Worker, shape: Request) -> bytes:
    """The first line of the answer; nothing where it was refused before it had been sent."""
    body = re.sub(rb'(?<="model":")[^"]*', MODEL.encode(), shape.body(), count=1)
    message = request_bytes("POST", shape.path, body, worker.key, {"content-type": shape.content_type})
    reader, writer = await asyncio.open_connection("127.0.0.1", worker.client.port)
    try:
        writer.write(message)
        with suppress(ConnectionError):
            return await reader.readline()
        return b""
    finally:
        writer.transport.abort()


async def turns_during(worker: Worker, judging: Judging, shape: Request) -> int:
    """How many answers another client gets while this call is worked on beside the loop."""
    turns = 0
    reader, writer = await asyncio.open_connection("127.0.0.1", worker.client.port)
    sending = asyncio.create_task(send(worker, shape))
    while not sending.done():
        amid = judging.running
        writer.write(LIVENESS)
        await reader.readuntil(b"}")
        turns += bool(amid and judging.running)
    writer.close()
    assert not (await sending).startswith(b"HTTP/1.1 413"), "this test should leave it room"
    return turns


async def test_a9_r4_others_get_their_turn_while_bodies_are_judged(tmp_path: Path, judging: Judging) -> None:
    turns, unjudged = 0, set()
    async with (
        peer(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n") as provider,
        running_worker(tmp_path, f"http://127.0.0.1:{provider.port}", MAX_BODY_BYTES=str(ROOM)) as worker,
    ):
        for shape in REQUESTS.values():
            before = judging.begun
            turns += await turns_during(worker, judging, shape)
            if judging.begun == before:
                unjudged.add(shape.path)
    assert len(REQUESTS) >= 20
    assert unjudged == {"/v1/audio/transcriptions"}, "forms are read as they come, a piece at a time"
    assert turns > TURNS * len(REQUESTS)


@pytest.mark.parametrize("stream", [False, True])
async def test_a9_r4_others_get_their_turn_while_answers_are_read(
    tmp_path: Path, judging: Judging, stream: bool
) -> None:
    shapes = [shape for shape in ANSWERS.values() if (shape.dialect, shape.streams) == ("openai", stream)]
    turns = 0
    call = Request("/v1/chat/completions", json.dumps(chat_body(MODEL, stream=stream), separators=(",", ":")).encode)
    kind = b"text/event-stream" if stream else b"application/json"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
    async with (
        peer(end="close") as provider,
        running_worker(tmp_path, f"http://127.0.0.1:{provider.port}") as worker,
    ):
        for shape in shapes:
            body = shape.body()
            provider.answer = head % (kind, len(body)) + body
            turns += await turns_during(worker, judging, call)
    assert turns > TURNS * len(shapes)
