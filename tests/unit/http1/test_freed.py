"""What has ended is let go of at once: no body and no session waits for Python's cyclic collector.

Every test runs with the collector switched off, several times over with bodies of a mebibyte, and finds that neither
memory nor one of our objects is left.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from serving import eventually, serving
from test_client import fresh_client, soon
from test_tls import server, trusting

from fakes import freed
from fakes.freed import MIB, no_collector, peer
from tollway.http1 import connection, exchange
from tollway.http1.answer import Response, StreamedResponse
from tollway.http1.errors import MessageError, UpstreamError
from tollway.http1.exchange import Request
from tollway.http1.inbound import Connection
from tollway.http1.limits import ClientLimits
from tollway.http1.origin import Origin
from tollway.http1.proxy import Proxies, Proxy
from tollway.http1.tls import TlsChannel

KINDS = (
    Response,
    StreamedResponse,
    TlsChannel,
    connection.Connection,
    Connection,
    Request,
    exchange.Upload,
    exchange.ResponseStream,
)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
LARGE = b"POST /v1/chat HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (MIB, b"x" * MIB)
SMALL = LARGE.replace(b"%d" % MIB, b"0")[:-MIB]


@pytest.fixture(autouse=True)
def without_collector() -> Iterator[None]:
    with no_collector():
        yield


async def leaves_nothing(once: Callable[[], Awaitable[None]]) -> None:
    await freed.leaves_nothing(once, KINDS)


# The client


@asynccontextmanager
async def upstream(*parts: bytes, end: str = "wait", tls: ssl.SSLContext | None = None) -> AsyncIterator[Origin]:
    async with peer(b"".join(parts), end, tls) as serving:
        yield Origin("https" if tls else "http", "localhost" if tls else "127.0.0.1", serving.port)


async def given_up(call: Awaitable[object], seen: Callable[[], bool]) -> None:
    """Cancelled as soon as ``seen``: its client has gone."""
    running = asyncio.ensure_future(call)
    await eventually(seen)
    running.cancel()
    await asyncio.wait({running})
    running.cancelled() or running.exception()  # not raised here, where a local would keep it


async def read_to_the_end(answer: Awaitable[StreamedResponse]) -> None:
    response = await answer
    try:
        while await response.read():
            pass
    finally:
        response.close()


async def pushed(answer: Awaitable[StreamedResponse], sink: Callable[[bytes], bool | None]) -> None:
    response = await answer
    try:
        response.attach(sink)
        await response.finished()
    finally:
        response.close()


@pytest.mark.parametrize("way", ["whole", "pulled", "pushed"])
async def test_an_answer_whose_client_has_gone(way: str) -> None:
    async with upstream(HEAD % (2 * MIB), b"x" * MIB) as origin, fresh_client() as asking:
        answers: list[Any] = []

        async def once() -> None:
            called = asking.fetch if way == "whole" else asking.open
            call: Any = called(origin, LARGE, deadline=soon(), on_sent=answers.append)
            if way == "pulled":
                call = read_to_the_end(call)
            elif way == "pushed":
                call = pushed(call, lambda _: True)
            await given_up(call, lambda: bool(answers) and answers[0].received >= MIB)
            answers.clear()

        await leaves_nothing(once)


@pytest.mark.parametrize("head", [b"HTTP/1.1 nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"])
async def test_an_answer_that_is_none(head: bytes) -> None:
    async with upstream(head) as origin, fresh_client() as asking:

        async def once() -> None:
            with suppress(UpstreamError):
                await asking.fetch(origin, LARGE, deadline=soon())

        await leaves_nothing(once)


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("way", ["whole", "pulled", "pushed"])
async def test_an_answer_that_breaks(way: str, end: str) -> None:
    async with upstream(HEAD % (2 * MIB), b"x" * MIB, end=end) as origin, fresh_client() as asking:

        async def once() -> None:
            with suppress(UpstreamError):
                if way == "whole":
                    await asking.fetch(origin, SMALL, deadline=soon())
                elif way == "pulled":
                    await read_to_the_end(asking.open(origin, SMALL, deadline=soon()))
                else:
                    await pushed(asking.open(origin, SMALL, deadline=soon()), lambda _: True)

        await leaves_nothing(once)


async def test_an_answer_that_is_too_large() -> None:
    chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"10000\r\n%b\r\n" % (b"x" * 65536) * 40
    async with upstream(chunks) as origin, fresh_client() as asking:

        async def once() -> None:
            with suppress(UpstreamError):
                await asking.fetch(origin, LARGE, deadline=soon(), max_body=2 * MIB)

        await leaves_nothing(once)


@pytest.mark.parametrize("way", ["whole", "streamed"])
async def test_an_answer_that_does_not_come_in_time(way: str) -> None:
    async with upstream() as origin, fresh_client() as asking:

        async def once() -> None:
            called = asking.fetch if way == "whole" else asking.open
            with suppress(UpstreamError):
                await called(origin, LARGE, deadline=soon(), first_byte_s=0.01)

        await leaves_nothing(once)


async def test_an_answer_whose_sink_fails() -> None:
    async with upstream(HEAD % (2 * MIB), b"x" * MIB) as origin, fresh_client() as asking:

        async def once() -> None:
            taken = 0

            def sink(piece: bytes) -> bool:
                nonlocal taken
                taken += len(piece)
                if taken > MIB // 2:  # by then the pieces come straight from the socket
                    raise ValueError(taken)
                return True

            with suppress(ValueError):
                await pushed(asking.open(origin, SMALL, deadline=soon()), sink)

        await leaves_nothing(once)


async def test_an_upload_whose_body_fails() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"x" * MIB
        raise MessageError("no")

    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (2 * MIB)
    async with upstream() as origin, fresh_client() as asking:

        async def once() -> None:
            with suppress(MessageError):
                await asking.open_upload(origin, head, pieces(), deadline=soon())

        await leaves_nothing(once)


async def test_an_upstream_that_nobody_reaches() -> None:
    async with upstream() as origin:
        pass  # nobody listens there any more
    async with fresh_client() as asking:

        async def once() -> None:
            with suppress(UpstreamError):
                await asking.fetch(origin, LARGE, deadline=soon())

        await leaves_nothing(once)


async def test_an_upstream_that_does_not_answer_the_knock(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object) -> Any:
        await asyncio.get_running_loop().create_future()

    async with fresh_client(limits=ClientLimits(connect_s=0.01), resolver=never) as asking:

        async def once() -> None:
            with suppress(UpstreamError):
                await asking.fetch(Origin("http", "nowhere", 80), LARGE, deadline=soon())

        await leaves_nothing(once)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 403 No\r\n\r\n", b"nonsense\r\n\r\n", b""])
async def test_a_proxy_that_refuses(answer: bytes) -> None:
    async with upstream(answer, end="close") as place, fresh_client(proxies=Proxies(https=Proxy(place))) as asking:

        async def once() -> None:
            with suppress(UpstreamError):
                await asking.fetch(Origin("https", "api.example.com", 443), LARGE, deadline=soon())

        await leaves_nothing(once)


async def test_a_certificate_that_proves_nothing() -> None:
    async with upstream(tls=server("elsewhere")) as origin, fresh_client(ssl_context=trusting()) as asking:

        async def once() -> None:
            with suppress(UpstreamError):
                await asking.fetch(origin, LARGE, deadline=soon())

        await leaves_nothing(once)


@pytest.mark.parametrize("end", ["wait", "close", "reset"])
async def test_an_encrypted_connection_that_is_cut(end: str) -> None:
    """A session has some 50 KiB, so twenty of them are seen."""
    parts = (HEAD % (2 * MIB), b"x" * MIB)
    async with upstream(*parts, end=end, tls=server()) as origin, fresh_client(ssl_context=trusting()) as asking:

        async def once() -> None:
            answers: list[Any] = []
            call = asking.fetch(origin, LARGE, deadline=soon(), on_sent=answers.append)
            await given_up(call, lambda: bool(answers) and (answers[0].received >= MIB or answers[0].error is not None))

        await leaves_nothing(once)


# The server


CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
PIECE = b"10000\r\n%b\r\n" % (b"x" * 65536)


@pytest.mark.parametrize("way", ["read", "iterated", "refused", "too large", "slow", "malformed", "crashed"])
async def test_a_request_whose_client_has_gone_or_erred(way: str) -> None:
    taken: list[int] = []

    async def handler(request: Request) -> None:
        if way == "iterated":
            kept = [piece async for piece in request.iter_body()]
            taken.append(len(kept))
        elif way == "refused":
            request.respond(401, b"", b"")
            return
        else:
            body = await request.read_body(MIB // 2 if way == "too large" else 1 << 62)
            taken.append(len(body))
        if way == "crashed":
            raise ValueError(way)
        await asyncio.get_running_loop().create_future()

    async with serving(handler) as running:

        async def once() -> None:
            wire = await running.connect()
            wire.send(CHUNKED + PIECE * 16)
            if way == "malformed":
                wire.send(b"no chunk\r\n")
            elif way == "crashed":
                wire.send(b"0\r\n\r\n")
            elif way == "slow":
                await eventually(lambda: running.server.connections)
                await asyncio.sleep(0.05)
                running.pass_time(11)
                running.pass_time(11)
            await asyncio.sleep(0.05)
            wire.reset()
            await running.until(connections=0)
            running.wires.clear()
            running.crashes.clear()

        await leaves_nothing(once)


@pytest.mark.parametrize("way", ["whole", "streamed"])
async def test_an_answer_that_its_client_does_not_take(way: str) -> None:
    async def handler(request: Request) -> None:
        if way == "whole":
            request.respond(200, b"", b"x" * 8 * MIB)
            return
        stream = request.start(200, b"")
        stream.on_pause = stream.on_resume = lambda: request and None
        while not stream.paused:
            stream.write(b"x" * MIB)
            await asyncio.sleep(0)
        await stream.drained()

    async with serving(handler, send_buffer=4096) as running:

        async def once() -> None:
            wire = await running.connect(receive_buffer=4096)
            wire.send(SMALL)
            await wire.reader.read(1)
            await asyncio.sleep(0.05)
            wire.reset()
            await running.until(connections=0)
            running.wires.clear()
            running.crashes.clear()

        await leaves_nothing(once)
