"""What is large in a provider's answer is taken apart beside the event loop, and comes out as if it were not."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from fakes.client import chat_body, text_of
from fakes.freed import MIB, peer
from fakes.worker import MODEL, Worker, running_worker
from tollway.dataplane.offload import AT_ONCE_BYTES
from tollway.providers.openai_stream import ChatStream

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
DONE = b"data: [DONE]\n\n"
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":9,"total_tokens":16}}\n\n'


def content(text: str, finish: str | None = None) -> bytes:
    return (
        b"data: %b\n\n"
        % json.dumps({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}).encode()
    )


def answer(*frames: bytes, size: int = 100_000) -> bytes:
    """The frames in chunks of this size, whatever stands in them."""
    data = b"".join(frames)
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    return HEAD + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@pytest.fixture
def on_the_loop(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of events that were decoded in the loop's own thread."""
    sizes: list[int] = []
    loop_thread = threading.get_ident()
    for name in ("_translate", "_take_reply"):
        whole = getattr(ChatStream, name)

        def noted(self: Any, data: bytes, *more: Any, whole: Any = whole) -> bytes:
            if threading.get_ident() == loop_thread:
                sizes.append(len(data))
            result: bytes = whole(self, data, *more)
            return result

        monkeypatch.setattr(ChatStream, name, noted)
    return sizes


async def frames_of(worker: Worker) -> list[str]:
    body = chat_body(MODEL, stream=True, stream_options={"include_usage": True})
    reply = await worker.client.post("/v1/chat/completions", body, worker.key)
    assert reply.status == 200, reply
    return [frame.removeprefix("data: ") for frame in reply.body.decode().split("\n\n") if frame]


LARGE = "x" * 3 * MIB
SIZES = [1000, 100_000, 8 * MIB]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "texts",
    [["a", LARGE, "b"], [LARGE, "a"], ["a", LARGE, LARGE, "b", LARGE]],
    ids=["within", "first", "several"],
)
async def test_large_events_come_in_their_turn(
    tmp_path: Path, on_the_loop: list[int], texts: list[str], size: int
) -> None:
    said = answer(*map(content, texts), content("", "stop"), USAGE, DONE, size=size)
    async with peer(said, "close") as provider, running_worker(tmp_path, f"http://127.0.0.1:{provider.port}") as worker:
        *frames, last = await frames_of(worker)
    assert last == "[DONE]"
    chunks = [json.loads(frame) for frame in frames]
    assert text_of(chunks) == "".join(texts)
    assert chunks[-1]["usage"]["total_tokens"] == 16
    assert max(on_the_loop, default=0) <= 2 * AT_ONCE_BYTES


@pytest.mark.parametrize("size", [100_000, 8 * MIB])
async def test_many_events_at_once_are_read_beside_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Also where each of them is small."""
    fed: list[int] = []
    loop_thread = threading.get_ident()
    feed = ChatStream.feed

    def noted(self: Any, chunk: bytes) -> bytes:
        if threading.get_ident() == loop_thread:
            fed.append(len(chunk))
        return feed(self, chunk)

    monkeypatch.setattr(ChatStream, "feed", noted)
    texts = [str(number) for number in range(20_000)]
    said = answer(*map(content, texts), content("", "stop"), USAGE, DONE, size=size)
    async with peer(said, "close") as provider, running_worker(tmp_path, f"http://127.0.0.1:{provider.port}") as worker:
        *frames, last = await frames_of(worker)
    assert last == "[DONE]"
    assert text_of([json.loads(frame) for frame in frames]) == "".join(texts)
    assert max(fed, default=0) <= AT_ONCE_BYTES


async def test_small_events_stay_on_the_loop(tmp_path: Path, on_the_loop: list[int]) -> None:
    said = answer(*[content("y" * 100)] * 100, content("", "stop"), USAGE, DONE, size=1000)
    async with peer(said, "close") as provider, running_worker(tmp_path, f"http://127.0.0.1:{provider.port}") as worker:
        assert (await frames_of(worker))[-1] == "[DONE]"
    assert on_the_loop


@pytest.mark.parametrize(
    ("last", "code"),
    [
        (b"data: " + json.dumps({"error": {"message": "no " * MIB, "code": "engine_dead"}}).encode() + b"\n\n", None),
        (content(LARGE)[: 2 * MIB], "upstream_connection_error"),
        (b'data: {"choices":[{"index":0,"delta":{"content":"%b\n\n' % (b"x" * 2 * MIB), "upstream_invalid_response"),
    ],
    ids=["error", "cut", "unreadable"],
)
async def test_a_failure_in_a_large_event_is_told(tmp_path: Path, last: bytes, code: str | None) -> None:
    said = answer(content("a"), last)
    async with peer(said, "close") as provider, running_worker(tmp_path, f"http://127.0.0.1:{provider.port}") as worker:
        frames = await frames_of(worker)
    assert "[DONE]" not in frames
    error = json.loads(frames[-1])["error"]
    assert code is None or error["code"] == code
    assert len(error["message"]) < 1000


async def test_a_large_answer_in_place_of_a_stream(tmp_path: Path, on_the_loop: list[int]) -> None:
    message = {"role": "assistant", "content": LARGE}
    reply = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    said = answer(json.dumps(reply).encode())
    async with peer(said, "close") as provider, running_worker(tmp_path, f"http://127.0.0.1:{provider.port}") as worker:
        *frames, last = await frames_of(worker)
    assert last == "[DONE]"
    assert text_of([json.loads(frame) for frame in frames]) == LARGE
    assert all(size <= AT_ONCE_BYTES for size in on_the_loop)
