"""What is large is worked on beside the event loop: a body that a client sends, an answer in one piece.

Which thread calls what is told by the interpreter itself, so that no function can be forgotten here.
"""

import inspect
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import pytest

import tollway
from fakes.freed import peer
from fakes.worker import MODEL, running_worker
from tollway.dataplane.attempts import prepare
from tollway.dataplane.offload import AT_ONCE_BYTES
from tollway.dataplane.passage import prepare_passage
from tollway.wire.json import Raw

PACKAGE = Path(tollway.__file__).parent
MERELY_CARRY = ("http1", "demo")
"""Folders that take bytes from one place to another, a piece at a time, and look at a few of them."""

PREPARE = {prepare.__code__, prepare_passage.__code__}
SIZE = 4 * AT_ONCE_BYTES
TEXT = "a word " * (SIZE // 7)
BODIES = {
    "chat/completions": {"messages": [{"role": "user", "content": TEXT}]},
    "completions": {"prompt": TEXT},
    "embeddings": {"input": [TEXT]},
    "moderations": {"input": [TEXT]},
    "responses": {"input": TEXT},
}
MESSAGE = {"role": "assistant", "content": TEXT}
VECTOR = {"object": "embedding", "index": 0, "embedding": [0.5] * AT_ONCE_BYTES}
ANSWERS = {
    "chat/completions": {"choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}]},
    "completions": {"choices": [{"index": 0, "text": TEXT, "finish_reason": "stop"}]},
    "embeddings": {"object": "list", "data": [VECTOR], "model": MODEL},
    "moderations": {"id": "x", "model": MODEL, "results": [{"flagged": False, "categories": {TEXT: False}}]},
    "responses": {"id": "x", "output": [{"type": "message", "content": [{"type": "output_text", "text": TEXT}]}]},
}


class Work(NamedTuple):
    """What worked on something large: the functions, by where they ran."""

    on_the_loop: set[str]
    beside_it: set[str]


@pytest.fixture
def work() -> Iterator[Work]:
    """Every call, while the test runs, of a function of the package that is given something large."""
    seen = Work(set(), set())
    loop_thread = threading.get_ident()

    def note(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(str(PACKAGE)):
            return
        place = Path(code.co_filename).relative_to(PACKAGE)
        if place.parts[0] in MERELY_CARRY or code.co_flags & inspect.CO_COROUTINE:
            return
        if code in PREPARE or any(is_large(value) for value in frame.f_locals.values()):
            where = seen.on_the_loop if threading.get_ident() == loop_thread else seen.beside_it
            where.add(f"{place}: {code.co_qualname}")

    threading.setprofile(note)  # for threads that begin from now on
    sys.setprofile(note)
    try:
        yield seen
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def is_large(value: object) -> bool:
    text = bytes(value) if isinstance(value, Raw) else value
    return isinstance(text, bytes | bytearray | str) and len(text) > AT_ONCE_BYTES


def whole(answer: object) -> bytes:
    body = json.dumps(answer).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


@pytest.mark.parametrize("path", BODIES)
async def test_a_large_body_is_judged_and_prepared_beside_the_loop(tmp_path: Path, work: Work, path: str) -> None:
    async with (
        peer(whole({}), "close") as provider,
        running_worker(tmp_path, f"http://127.0.0.1:{provider.port}") as worker,
    ):
        await worker.client.post(f"/v1/{path}", {"model": MODEL, **BODIES[path]}, worker.key)
        assert provider.answered
    assert work.on_the_loop == set()
    assert {name.rpartition(": ")[2].partition("_")[0] for name in work.beside_it} >= {"parse", "prepare"}


@pytest.mark.parametrize("path", ANSWERS)
async def test_a_large_answer_in_one_piece_is_read_beside_the_loop(tmp_path: Path, work: Work, path: str) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "a"}], "input": "a", "prompt": "a"}
    async with (
        peer(whole(ANSWERS[path]), "close") as provider,
        running_worker(tmp_path, f"http://127.0.0.1:{provider.port}") as worker,
    ):
        reply = await worker.client.post(f"/v1/{path}", body, worker.key)
        assert reply.status == 200, reply
        assert len(reply.body) > AT_ONCE_BYTES
    passes = path == "responses"
    assert any(name.endswith("text_bytes" if passes else ".decode") for name in work.beside_it)
    # What passes is also looked at as it comes, a read of the socket at a time; the small request is the loop's.
    assert passes or work.on_the_loop == {"dataplane/attempts.py: prepare"}
    assert not work.on_the_loop & work.beside_it
