"""What is noted when, seen from within a worker; and that nothing stays open when a bug of ours ends a call."""

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fakes.client import Reply, chat_body
from fakes.freed import peer
from fakes.worker import MODEL, Worker, running_worker
from tollway.accounting.journal import SUFFIX
from tollway.accounting.journal_reader import read_records
from tollway.accounting.records import Intent, Settlement
from tollway.dataplane import attempts, books, relay, serve
from tollway.http1 import answer as http1_answer
from tollway.http1 import exchange
from tollway.http1.client import Client
from tollway.providers.openai import OpenAIChat
from tollway.providers.openai_stream import OpenAIStream

BODY = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 9, "total_tokens": 16},
    }
).encode()
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
FAILED = b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(**choice: object) -> bytes:
    return chunk(b"data: %b\n\n" % json.dumps({"choices": [{"index": 0, "finish_reason": None, **choice}]}).encode())


STREAM = b"".join(
    [
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        event(delta={"content": "one"}),
        event(delta={"content": "two"}),
        event(delta={}, finish_reason="stop"),
        chunk(b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":9,"total_tokens":16}}\n\n'),
        chunk(b"data: [DONE]\n\n"),
        b"0\r\n\r\n",
    ]
)


@dataclass
class Noted:
    """What the journal says at each moment at which bytes leave: the attempts that are open, and those that ended."""

    folder: Path
    moments: list[tuple[str, int, int]] = field(default_factory=list)

    def look(self, what: str) -> None:
        records = [
            record
            for path in (self.folder / "journals").glob(f"[!.]*{SUFFIX}")
            for record in read_records(path, 0, abandoned=False, under_way=True).records
        ]
        sent = {(record.call_id, record.attempt) for record in records if isinstance(record, Intent)}
        ended = [(record.call_id, record.attempt) for record in records if isinstance(record, Settlement)]
        assert len(set(ended)) == len(ended) and sent >= set(ended)
        self.moments.append((what, len(sent) - len(ended), len(ended)))


def watched(noted: Noted, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, what: str) -> None:
    whole = getattr(owner, name)

    def watching(self: Any, *arguments: Any, **more: Any) -> Any:
        noted.look(what)
        return whole(self, *arguments, **more)

    monkeypatch.setattr(owner, name, watching)


@pytest.fixture
def noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Noted:
    noted = Noted(tmp_path)
    watched(noted, monkeypatch, http1_answer.Answer, "send", "asks")
    watched(noted, monkeypatch, exchange.Request, "respond", "answers")
    watched(noted, monkeypatch, exchange.Request, "start", "begins")
    watched(noted, monkeypatch, exchange.ResponseStream, "write", "writes")
    watched(noted, monkeypatch, exchange.ResponseStream, "end", "ends")
    return noted


async def ask(worker: Worker, path: str = "/v1/chat/completions", **more: object) -> Reply:
    return await worker.client.post(path, chat_body(MODEL, "a secret prompt", **more), worker.key)


@asynccontextmanager
async def serving(folder: Path, answer: bytes) -> AsyncIterator[Worker]:
    async with peer(answer, "close") as provider, running_worker(folder, f"http://127.0.0.1:{provider.port}/v1") as it:
        yield it


async def test_m11_nothing_is_asked_without_an_intent_nor_answered_without_an_entry(
    noted: Noted, tmp_path: Path
) -> None:
    async with serving(tmp_path, WHOLE) as worker:
        assert (await ask(worker)).status == 200
    assert noted.moments == [("asks", 1, 0), ("answers", 0, 1)]


async def test_m11_a_failed_attempt_is_entered_before_the_next_one_is_sent(noted: Noted, tmp_path: Path) -> None:
    async with serving(tmp_path, FAILED) as worker:
        assert (await ask(worker)).status == 502
    assert noted.moments == [("asks", 1, 0), ("asks", 1, 1), ("answers", 0, 2)]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
async def test_m11_a_stream_is_noted_before_its_first_byte_and_entered_before_its_last(
    noted: Noted, tmp_path: Path, path: str
) -> None:
    async with serving(tmp_path, STREAM) as worker:
        body = {"model": MODEL, "input": "Hi", "stream": True} if path == "/v1/responses" else None
        if body is None:
            await ask(worker, stream=True)
        else:
            await worker.client.post(path, body, worker.key)
    first, begins, *writes, last = noted.moments
    assert (first, begins) == (("asks", 1, 0), ("begins", 1, 0))
    assert {open_ + ended for _, open_, ended in writes} == {1}
    assert last == ("ends", 0, 1) and writes[-1][1:] == (0, 1)


# Bugs of ours


class BugError(Exception):
    """Nobody expects it."""


def crashing(*arguments: object, **more: object) -> Any:
    raise BugError("nobody expected it")


POINTS = [
    pytest.param(owner, name, stream, answer, id=f"{kind}-{name}")
    for kind, stream, answer, points in (
        (
            "whole",
            False,
            WHOLE,
            (
                (serve, "plan"),
                (serve, "prompt_tokens_estimate"),
                (attempts, "_post"),
                (books.Books, "intend"),
                (Client, "fetch"),
                (OpenAIChat, "decode"),
                (books.Books, "charge"),
                (attempts, "reply_head"),
            ),
        ),
        ("failed", False, FAILED, ((serve, "fit_to_tell"), (books.Books, "waive"))),
        (
            "stream",
            True,
            STREAM,
            ((Client, "open"), (OpenAIChat, "decoder"), (OpenAIStream, "feed"), (attempts, "stream_head")),
        ),
    )
    for owner, name in points
]


def open_attempts(folder: Path) -> tuple[int, list[Settlement]]:
    records = [
        record
        for path in (folder / "journals").glob(f"[!.]*{SUFFIX}")
        for record in read_records(path, 0, abandoned=True, under_way=True).records
    ]
    ended = [record for record in records if isinstance(record, Settlement)]
    return len([record for record in records if isinstance(record, Intent)]) - len(ended), ended


@pytest.mark.parametrize(("owner", "name", "stream", "answer"), POINTS)
async def test_a19_a_bug_of_ours_ends_its_call_and_leaves_nothing_open(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    owner: object,
    name: str,
    stream: bool,
    answer: bytes,
) -> None:
    async with serving(tmp_path, answer) as worker:
        sound = getattr(owner, name)
        once = iter([crashing])

        def crashing_once(*arguments: Any, **more: Any) -> Any:
            return next(once, sound)(*arguments, **more)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, crashing_once)
            reply = await ask(worker, stream=stream)
        assert next(once, None) is None, "it never came there"
        assert (
            reply.status == 500
            and reply.error["code"] == "server_error"
            and reply.error["message"] == "Internal error."
        )
        call_id = reply.header("x-request-id")
        (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert record.call_id == call_id and record.exc_info is not None  # type: ignore[attr-defined]
        assert not worker.world.calls and worker.world.books.under_way == 0
        assert (await ask(worker, stream=stream)).status in (200, 502), "the process lives"
    left, ended = open_attempts(tmp_path)
    assert left == 0
    assert {one.outcome for one in ended if one.call_id == call_id} <= {"internal_error", "ok", "server_error"}
    text = caplog.text
    assert "Traceback" in text and "a secret prompt" not in text and worker.key not in text


async def test_a19_a_stream_that_has_begun_says_so_and_is_billed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sound = relay.Relay._send

    def send(self: relay.Relay, frames: bytes) -> None:
        sound(self, frames)
        crashing()

    monkeypatch.setattr(relay.Relay, "_send", send)
    async with serving(tmp_path, STREAM[: STREAM.index(b"two")]) as worker:
        reply = await ask(worker, stream=True)
    assert reply.status == 200 and b"one" in reply.body
    last = reply.body.decode().rstrip().rpartition("data: ")[2]
    assert json.loads(last)["error"]["code"] == "server_error" and b"[DONE]" not in reply.body
    left, (settled,) = open_attempts(tmp_path)
    assert (left, settled.outcome, settled.charged) == (0, "internal_error", True)
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.call_id == settled.call_id  # type: ignore[attr-defined]
