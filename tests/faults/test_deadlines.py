"""T8: every call ends within its deadline and a second more, whatever its provider does."""

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.client import BrokenAnswerError, chat_body, request_bytes
from fakes.upstream import HANG, STREAM_HEAD, Answer, Part, Pause, Received, Upstream, event, head, http_chunk, raw
from fakes.worker import MODEL, Worker, running_worker

DEADLINE_S = 1.0
NO_OTHER = {"REQUEST_TIMEOUT_S": str(DEADLINE_S), "FIRST_BYTE_TIMEOUT_S": "60", "IDLE_TIMEOUT_S": "60"}
"""No other time ends a call."""

JSON = {"content-type": "application/json"}
CHUNK = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
TEXT = event({**CHUNK, "choices": [{"index": 0, "delta": {"role": "assistant", "content": "a"}}]})
END = event({**CHUNK, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})


def drip(piece: bytes, *before: Part) -> Answer:
    """The same again and again, for ever and slowly."""

    def answer(request: Received) -> Iterator[Part]:
        yield from before
        while True:
            yield piece
            yield Pause(0.05)

    return answer


WHOLE = {
    "silence": raw(HANG),
    "half a head": raw(b"HTTP/1.1 200 OK\r\ncontent-", HANG),
    "a head in drops": drip(b"x", b"HTTP/1.1 200 OK\r\nx: "),
    "interim answers": drip(b"HTTP/1.1 102 Processing\r\n\r\n", Pause(0.6)),
    "half a body": raw(head(200, {**JSON, "content-length": "100"}), b'{"id":', HANG),
    "a body in drops": drip(b" ", head(200, {**JSON, "content-length": "1000000"})),
    "a body without an end": drip(b" ", head(200, {**JSON, "connection": "close"})),
    "an error in drops": drip(b" ", head(500, {**JSON, "content-length": "1000000"})),
    "an error without an end": drip(http_chunk(b" "), head(429, {**JSON, "transfer-encoding": "chunked"})),
}
STREAMS = {
    **WHOLE,
    "only a head": raw(STREAM_HEAD, HANG),
    "comments": drip(http_chunk(b": still here\n\n"), STREAM_HEAD),
    "an event in drops": drip(http_chunk(b"x"), STREAM_HEAD, http_chunk(b'data: {"')),
    "texts without an end": drip(TEXT, STREAM_HEAD),
    "silence after a text": raw(STREAM_HEAD, TEXT, HANG),
    "comments after a text": drip(http_chunk(b": still here\n\n"), STREAM_HEAD, TEXT),
    "no usage after the end": raw(STREAM_HEAD, TEXT, END, HANG),
    "comments after the end": drip(http_chunk(b": still here\n\n"), STREAM_HEAD, TEXT, END),
    "comments after the last event": drip(http_chunk(b": bye\n\n"), STREAM_HEAD, TEXT, END, event("[DONE]")),
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("path", ["chat/completions", "responses"])
async def test_t8_every_call_ends_in_time_whatever_its_provider_does(tmp_path: Path, path: str, stream: bool) -> None:
    stories = STREAMS if stream else WHOLE
    with Upstream() as upstream:
        upstream.for_anyone(lambda request: stories[_story_of(request)](request))
        async with running_worker(tmp_path, upstream.url, **NO_OTHER) as worker:
            took_s = await asyncio.gather(*[_ask(worker, f"/v1/{path}", story, stream) for story in stories])
            late = {story: s for story, s in zip(stories, took_s, strict=True) if s > DEADLINE_S + 1}
            assert not late
            assert not worker.world.calls
            entries = await worker.settlements(len(stories))
            assert {entry.attempt for entry in entries} == {1}


def _story_of(request: Received) -> str:
    body = json.loads(request.body)
    story: str = body["input"]
    return story


async def _ask(worker: Worker, path: str, story: str, stream: bool) -> float:
    """How long it took until the client had all that it ever gets."""
    now = asyncio.get_running_loop().time
    async with worker.client.connect() as wire:
        began = now()
        body = chat_body(MODEL, story, stream=stream, input=story)
        await wire.send(request_bytes("POST", path, body, worker.key))
        with contextlib.suppress(BrokenAnswerError):  # an answer that is no stream of events is cut
            assert (await wire.reply()).status in (200, 429, 500, 502, 504)
        return now() - began
