"""A peer that is faster than we are takes one piece of each turn of the event loop, and leaves the rest to others."""

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from serving import serving
from test_client import fetch, fresh_client

from tollway.http1 import connection, inbound
from tollway.http1.exchange import Request
from tollway.http1.limits import TURN_BYTES
from tollway.http1.origin import Origin

BODY = b"x" * (16 << 20)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY)


class Turns:
    """Counts the large pieces that came in each turn of the loop."""

    def __init__(self) -> None:
        self.number = 0
        self.pieces: Counter[int] = Counter()
        self.loop = asyncio.get_running_loop()
        self.next()

    def next(self) -> None:
        self.number += 1
        self.handle = self.loop.call_soon(self.next)

    def watch(self, monkeypatch: pytest.MonkeyPatch, kind: type) -> None:
        received: Callable[[Any, bytes], None] = kind.data_received  # type: ignore[attr-defined]

        def data_received(self_: Any, data: bytes) -> None:
            if len(data) >= TURN_BYTES:
                self.pieces[self.number] += 1
            received(self_, data)

        monkeypatch.setattr(kind, "data_received", data_received)

    def judge(self) -> None:
        self.handle.cancel()
        assert self.pieces, "the peer was not fast enough to try it"
        assert max(self.pieces.values()) == 1


def send_all(peer: socket.socket, data: bytes) -> None:
    peer.setblocking(True)
    peer.sendall(data)


async def test_a_fast_provider_takes_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = Turns()
    turns.watch(monkeypatch, connection.Connection)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def provide() -> None:
            peer, _ = listening.accept()
            with peer:
                peer.recv(10_000)
                send_all(peer, HEAD + BODY)
                peer.recv(1)

        provider = threading.Thread(target=provide)
        provider.start()
        async with fresh_client() as client:
            response = await fetch(client, Origin.parse(f"http://127.0.0.1:{listening.getsockname()[1]}")[0])
            assert len(response.body) == len(BODY)
            response.close()
        provider.join()
    turns.judge()


async def test_a_fast_client_takes_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = Turns()
    turns.watch(monkeypatch, inbound.Connection)

    async def handler(request: Request) -> None:
        request.respond(200, b"", b"%d" % len(await request.read_body()))

    async with serving(handler) as server:
        with socket.create_connection(("127.0.0.1", server.server.port)) as peer:
            head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(BODY)
            sender = threading.Thread(target=send_all, args=(peer, head + BODY))
            sender.start()
            reply = await asyncio.to_thread(peer.recv, 1000)
            sender.join()
    assert reply.endswith(b"%d" % len(BODY))
    turns.judge()


async def test_a_pause_that_is_asked_for_meanwhile_holds() -> None:
    """It is not undone when the turn is over."""

    class Channel:
        reading = True

        def pause_reading(self) -> None:
            self.reading = False

        def resume_reading(self) -> None:
            self.reading = True

        def is_closing(self) -> bool:
            return False

        def set_protocol(self, protocol: asyncio.BaseProtocol) -> None: ...

    channel: Any = Channel()
    keeper: Any = None
    one = connection.Connection(keeper, Origin.parse("http://a")[0], channel, None, 0.0)
    one._give_way()
    one.pause()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not channel.reading
    one.resume()
    assert channel.reading
    one._give_way()
    one.pause()
    one.resume()
    assert not channel.reading, "the turn is not over"
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert channel.reading
