"""What is noted of streams while they run."""

import asyncio
import itertools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fakes.client import chat_body, request_bytes
from fakes.freed import peer
from fakes.worker import MODEL, running_worker
from tollway.accounting.journal_reader import read_records
from tollway.accounting.records import Checkpoint, Intent
from tollway.dataplane import reporting

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def event(**members: object) -> bytes:
    data = b"data: %b\n\n" % json.dumps(members).encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


TEXT = event(choices=[{"index": 0, "delta": {"content": "x" * 400}, "finish_reason": None}])
USAGE = event(choices=[], usage={"prompt_tokens": 70, "completion_tokens": 90, "total_tokens": 160})


@pytest.mark.parametrize(("answer", "told"), [(TEXT, None), (TEXT + USAGE, (70, 0, 90, 0))])
async def test_a_stream_is_noted_when_it_has_grown(tmp_path: Path, answer: bytes, told: tuple[int, ...] | None) -> None:
    async with (
        peer(HEAD + answer) as provider,
        running_worker(tmp_path, f"http://127.0.0.1:{provider.port}/v1") as worker,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", worker.client.port)
        body = chat_body(MODEL, stream=True, stream_options={"include_usage": True})
        writer.write(request_bytes("POST", "/v1/chat/completions", body, worker.key))
        await reader.readuntil(b"xx")
        (relay,) = worker.world.relays
        first = relay.checkpoint()
        assert first is not None and relay.checkpoint() is None
        assert (first.output_tokens, first.status, first.told) == (100, 200, told)
        worker.world.books.note([first])
        (path,) = (tmp_path / "journals").iterdir()
        records = read_records(path, 0, abandoned=False, under_way=True).records
        (intent,) = [record for record in records if isinstance(record, Intent)]
        (noted,) = [record for record in records if isinstance(record, Checkpoint)]
        assert (noted.call_id, noted.attempt) == (intent.call_id, intent.attempt)
        assert noted.at_unix >= intent.started_unix
        writer.transport.abort()
        while worker.world.relays:
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("path", ["/v1/images/generations", "/v1/responses/input_tokens"])
async def test_of_what_is_not_billed_by_tokens_none_are_noted(tmp_path: Path, path: str) -> None:
    said = event(type="response.output_text.delta", delta="x" * 400)
    async with (
        peer(HEAD + said) as provider,
        running_worker(tmp_path, f"http://127.0.0.1:{provider.port}/v1") as worker,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", worker.client.port)
        writer.write(request_bytes("POST", path, {"model": MODEL, "prompt": "A cat", "stream": True}, worker.key))
        await reader.readuntil(b"xx")
        (relay,) = worker.world.relays
        noted = relay.checkpoint()
        assert noted is not None and (noted.output_tokens, noted.told) == (0, None)
        writer.transport.abort()
        while worker.world.relays:
            await asyncio.sleep(0.001)


async def test_many_streams_are_noted_over_many_turns_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "CHECKPOINT_S", 0)
    noted: list[int] = []
    turns = iter(range(1_000_000))
    grown = SimpleNamespace(checkpoint=lambda: Checkpoint("req", 1, 0.0, 200, None, 5))
    quiet = SimpleNamespace(checkpoint=lambda: None)
    relays = [grown, quiet] * 2500
    at: list[int] = []

    def note(checkpoints: list[Checkpoint]) -> None:
        noted.append(len(checkpoints))
        at.append(next(turns))

    world: Any = SimpleNamespace(relays=relays, books=SimpleNamespace(note=note))
    keeping = asyncio.create_task(reporting.keep_checkpoints(world))
    async with asyncio.timeout(10):
        while sum(noted) < 2500:
            next(turns)
            await asyncio.sleep(0)
    keeping.cancel()
    assert set(noted) == {50}, "at most a hundred streams are looked at in a turn"
    assert all(later - before > 1 for before, later in itertools.pairwise(at)), "others have turns in between"
