"""Requests whose body is sent as it comes."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from scripted_upstream import Peer, answer, close, read, scripted, send, then, until
from test_client import cancelled, fetch, fresh_client, soon
from test_tls import server, trusting

from tollway.http1.errors import Disconnected, FirstByteTimeout

HEAD = b"POST /v1/files HTTP/1.1\r\nHost: upstream\r\nContent-Length: %d\r\n\r\n"


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece


async def test_the_pieces_of_a_body_go_out_as_they_come() -> None:
    first = asyncio.Event()
    order = []

    async def read_one(peer: Peer) -> None:
        await peer.reader.readuntil(b"one")
        first.set()

    async def body() -> AsyncIterator[bytes]:
        order.append("one")
        yield b"one"
        await first.wait()
        order.append("two")
        yield b"two"

    async def read_two(peer: Peer) -> None:
        assert await peer.reader.readexactly(3) == b"two"

    async with (
        scripted([read_one, read_two, send(answer()), read, send(answer(b"next"))]) as upstream,
        fresh_client() as client,
    ):
        response = await client.open_upload(
            upstream.origin, HEAD % 6, body(), deadline=soon(), on_sent=lambda _: order.append("sent")
        )
        assert order == ["sent", "one", "two"]
        assert await response.read_all(10) == b"hi"
        assert (await fetch(client, upstream.origin)).body == b"next"
        assert upstream.connections == 1


@pytest.mark.parametrize("tls", [False, True])
async def test_the_source_waits_for_the_upstream(tls: bool) -> None:
    go = asyncio.Event()
    taken = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(300):
            taken += 1
            yield bytes(100_000)

    async with (
        scripted([until(go), read, send(answer())], tls=server() if tls else None) as upstream,
        fresh_client(ssl_context=trusting()) as client,
    ):
        upload = client.open_upload(upstream.origin, HEAD % 30_000_000, body(), deadline=soon())
        task = asyncio.ensure_future(upload)
        before = -1
        while before != taken or not taken:  # until the sockets are full
            before = taken
            await asyncio.sleep(0.02)
        assert taken < 200
        go.set()
        assert await (await task).read_all(10) == b"hi"
        assert len(upstream.requests[0]) == 30_000_000 + len(HEAD % 30_000_000)


async def test_an_early_answer_ends_the_sending_and_the_connection() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(100_000)

    async def read_the_head_only(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")

    refusal = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno"
    async with scripted([read_the_head_only, send(refusal)]) as upstream, fresh_client() as client:
        response = await client.open_upload(upstream.origin, HEAD % 10**9, endless(), deadline=soon())
        assert (response.status, await response.read_all(10)) == (413, b"no")
        assert client.idle_connections == 0
        await upstream.gone()


async def test_an_upstream_that_ends_in_the_middle_of_an_upload_is_an_error() -> None:
    async def read_the_head_only(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")

    async def body() -> AsyncIterator[bytes]:
        while True:
            yield bytes(100_000)
            await asyncio.sleep(0)

    async with scripted([read_the_head_only, close]) as upstream, fresh_client() as client:
        with pytest.raises(Disconnected):
            await client.open_upload(upstream.origin, HEAD % 10**9, body(), deadline=soon())


async def test_an_upstream_that_stops_reading_is_a_first_byte_timeout() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(100_000)

    end = asyncio.Event()
    async with scripted([until(end)]) as upstream, fresh_client() as client:
        with pytest.raises(FirstByteTimeout):
            await client.open_upload(upstream.origin, HEAD % 10**9, endless(), deadline=soon(), first_byte_s=0.05)
        end.set()


@pytest.mark.parametrize("error", [asyncio.CancelledError, ArithmeticError])
async def test_a_source_that_fails_cuts_the_connection(error: type[BaseException]) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        raise error

    async with scripted([]) as upstream, fresh_client() as client:
        with pytest.raises(error):
            await client.open_upload(upstream.origin, HEAD % 6, body(), deadline=soon())
        await upstream.gone()


async def test_an_upload_that_is_cancelled_cuts_the_connection() -> None:
    got = asyncio.Event()
    async with scripted([read, then(got)]) as upstream, fresh_client() as client:
        upload = client.open_upload(upstream.origin, HEAD % 3, pieces(b"one"), deadline=soon())
        task = asyncio.ensure_future(upload)
        await got.wait()
        await cancelled(task)
        await upstream.gone()
