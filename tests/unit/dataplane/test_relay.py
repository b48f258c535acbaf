"""Keeping a silent stream alive."""

from types import SimpleNamespace
from typing import Any

import pytest

from tollway.dataplane.passage import PassageRelay
from tollway.dataplane.relay import Relay, begun_bytes
from tollway.providers.passage import PassageStream

COMMENT = b": keep-alive\n\n"


class Client:
    """The client's end of a stream."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.paused = False
        self.write = self.sent.append


def relay(kind: type[Relay] = PassageRelay, content_type: bytes = b"text/event-stream") -> tuple[Relay, Client]:
    """A relay whose stream has just begun, at time 0."""
    client = Client()
    target = SimpleNamespace(model="m", provider=SimpleNamespace(name="p"))
    request = SimpleNamespace(start=lambda status, head: client)
    attempt = SimpleNamespace(call=SimpleNamespace(request=request), upstream=SimpleNamespace(target=target), started=0)
    response = SimpleNamespace(status=200, pause=None, resume=None, keeps=lambda size: None)
    world: Any = SimpleNamespace(now=lambda: 0.0, metrics=SimpleNamespace(first_byte=lambda *_: None))
    made = kind(world, attempt, PassageStream(content_type), response, b"")  # type: ignore[arg-type]
    return made, client


def test_a_client_that_is_told_nothing_gets_a_comment_now_and_then() -> None:
    made, client = relay()
    made._send(b"data: 1\n\n")
    client.sent.clear()
    for second in range(1, 8):
        made.keep_alive(second, after_s=3)
    assert client.sent == [COMMENT] * 2, "at 4 and at 7: first it was noted at 1 that something had gone out"


def test_what_goes_out_ends_the_silence() -> None:
    made, client = relay()
    for second in range(1, 8):
        made._send(b"data: %d\n\n" % second)
        made.keep_alive(second, after_s=1)
    assert COMMENT not in client.sent


@pytest.mark.parametrize("last", [b"data: 1", b"data: 1\n", b"data: 1\r\n"])
def test_an_event_is_not_interrupted(last: bytes) -> None:
    made, client = relay()
    made._send(last)
    for second in range(1, 8):
        made.keep_alive(second, after_s=1)
    assert client.sent == [last]


def test_an_event_that_is_held_for_its_end_does_not_stop_the_comments() -> None:
    made, client = relay()
    made._feed(b"data: 1\n\n")
    for second in range(1, 8):
        made._feed(b"data: a part of a large event")
        made.keep_alive(second, after_s=3)
    assert client.sent == [b"data: 1\n\n", COMMENT, COMMENT]


def test_nothing_is_added_where_there_is_no_event_or_no_room() -> None:
    for change in ("nothing has gone out", "the client is slow", "it is a file"):
        made, client = relay(content_type=b"text/plain" if change == "it is a file" else b"text/event-stream")
        if change != "nothing has gone out":
            made._send(b"data: 1\n\n")
        client.sent.clear()
        client.paused = change == "the client is slow"
        for second in range(1, 8):
            made.keep_alive(second, after_s=1)
        assert client.sent == [], change


@pytest.mark.parametrize(
    ("pieces", "sizes"),
    [
        ([b"data: 12", b"345", b"\n\n"], [8, 11, 0]),
        ([b": a comment\n\n", b"data: {}\r\n\r\n", b"data: {}\r\rda"], [0, 0, 2]),
        ([b"[1,", b"2]"], [3, 5]),
    ],
)
def test_what_is_held_of_an_event_is_known(pieces: list[bytes], sizes: list[int]) -> None:
    found, size = [], 0
    for piece in pieces:
        size = begun_bytes(size, piece)
        found.append(size)
    assert found == sizes


def test_only_what_has_begun_counts_however_much_has_come() -> None:
    made, _ = relay()
    kept: list[int] = []
    made._response.keeps = kept.append  # type: ignore[method-assign]
    made._feed(b"data: 1\n\n")
    for _ in range(3):
        made._feed(b": a comment\n\n")
    for _ in range(3):
        made._feed(b"data: a part of a large event ")
    made._feed(b"\n\n")
    assert kept == [30, 60, 90, 0], "comments pass as they come"
