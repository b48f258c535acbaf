"""The pooled client against scripted upstreams: answers, reuse, refusals, times, cancellation."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from scripted_upstream import POST, Step, answer, close, read, reset, scripted, send, then, until

from tollway.http1.answer import Response, StreamedResponse
from tollway.http1.budget import Budget
from tollway.http1.client import Client
from tollway.http1.errors import (
    BadResponse,
    ConnectFailed,
    Disconnected,
    FirstByteTimeout,
    IdleTimeout,
    ResponseTooLarge,
    TotalTimeout,
    UpstreamError,
)
from tollway.http1.limits import ClientLimits
from tollway.http1.origin import Origin

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\n"


@asynccontextmanager
async def fresh_client(budget: Budget | None = None, **settings: Any) -> AsyncIterator[Client]:
    budget = budget or Budget()
    client = Client(sweep_s=0.01, budget=budget, **settings)
    try:
        yield client
    finally:
        client.close()
        await asyncio.sleep(0)  # the loop tells the connections that they are lost
        await asyncio.sleep(0)
        assert client.open_connections == 0
        assert client._pool.places_taken == 0
        budget.sweep(0.0)  # answers that a test has forgotten are counted out
        assert budget.held == 0


def soon(seconds: float = 5) -> float:
    return asyncio.get_running_loop().time() + seconds


async def fetch(client: Client, origin: Origin, message: bytes = POST, **times: Any) -> Response:
    return await client.fetch(origin, message, **{"deadline": soon(), **times})


async def refused_with(error: type[UpstreamError], *steps: Step, **times: Any) -> UpstreamError:
    """Both ways of asking end with the error, on a connection that is not kept."""
    async with fresh_client() as client:
        async with scripted([read, *steps]) as upstream:
            with pytest.raises(error) as raised:
                await fetch(client, upstream.origin, **times)
            await upstream.gone()
            assert client.idle_connections == 0
        async with scripted([read, *steps]) as upstream:
            with pytest.raises(error):
                response = await client.open(upstream.origin, POST, **{"deadline": soon(), **times})
                await response.read_all(10_000)
            await upstream.gone()
            assert client.idle_connections == 0
    assert "127.0.0.1" not in raised.value.reason
    return raised.value


# Answers


async def test_an_answer_has_status_headers_and_body() -> None:
    async with (
        scripted([read, send(answer(b"hi", b"X-A: 1\r\nx-a: 2\r\nSet-Cookie: c\r\n"))]) as upstream,
        fresh_client() as client,
    ):
        response = await fetch(client, upstream.origin)
    assert (response.status, response.body) == (200, b"hi")
    assert response.headers == {b"x-a": b"1, 2", b"content-length": b"2"}
    assert upstream.requests == [POST]


@pytest.mark.parametrize(
    "pieces",
    [
        [CHUNKED, b"5\r\nhello\r\n", b"0\r\n\r\n"],
        [CHUNKED + b"5\r\nhello\r\n0\r\nx-trailer: dropped\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nContent-Le", b"ngth: 5\r\n\r", b"\nhel", b"lo"],
        [b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + answer(b"hello")],
    ],
)
async def test_a_body_is_found_however_it_is_framed_and_the_connection_is_kept(pieces: list[bytes]) -> None:
    async with scripted([read, *map(send, pieces), read, send(answer())]) as upstream, fresh_client() as client:
        assert (await fetch(client, upstream.origin)).body == b"hello"
        assert client.idle_connections == 1
        assert (await fetch(client, upstream.origin)).body == b"hi"
        assert upstream.connections == 1


async def test_a_body_may_end_with_the_connection() -> None:
    async with (
        scripted([read, send(UNTIL_CLOSE), send(b"he"), send(b"llo"), close]) as upstream,
        fresh_client() as client,
    ):
        assert (await fetch(client, upstream.origin)).body == b"hello"
        assert client.idle_connections == 0


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_some_answers_have_no_body(status: bytes) -> None:
    async with (
        scripted([read, send(b"HTTP/1.1 %b\r\nContent-Length: 9\r\n\r\n" % status)]) as upstream,
        fresh_client() as client,
    ):
        assert (await fetch(client, upstream.origin)).body == b""
        assert client.idle_connections == 1


async def test_an_answer_to_head_has_no_body() -> None:
    async with (
        scripted([read, send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")]) as upstream,
        fresh_client() as client,
    ):
        assert (await fetch(client, upstream.origin, b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")).body == b""
        assert client.idle_connections == 1


async def test_a_redirect_is_just_an_answer() -> None:
    async with (
        scripted([read, send(b"HTTP/1.1 302 Found\r\nLocation: http://x\r\nContent-Length: 0\r\n\r\n")]) as up,
        fresh_client() as client,
    ):
        response = await fetch(client, up.origin)
    assert (response.status, response.headers[b"location"], up.connections) == (302, b"http://x", 1)


async def test_a_unix_socket_is_an_origin(tmp_path: Path) -> None:
    async with scripted([read, send(answer())], unix=str(tmp_path / "s")) as upstream, fresh_client() as client:
        assert (await fetch(client, upstream.origin)).body == b"hi"
        with pytest.raises(ConnectFailed, match="no such file"):
            await fetch(client, Origin.unix(str(tmp_path / "absent")))


# Whose answer is it?


@pytest.mark.parametrize("head", [b"", b"Connection: close\r\n"])
async def test_bytes_after_an_answer_end_the_connection_and_reach_nobody(head: bytes) -> None:
    stolen = answer(b"somebody else's")
    async with (
        scripted([read, send(answer(b"mine", head) + stolen)], [read, send(answer(b"right"))]) as upstream,
        fresh_client() as client,
    ):
        assert (await fetch(client, upstream.origin)).body == b"mine"
        assert client.idle_connections == 0
        assert (await fetch(client, upstream.origin)).body == b"right"
        await upstream.gone(0)


@pytest.mark.parametrize("late", [send(answer(b"somebody else's")), close, reset])
async def test_a_kept_connection_that_speaks_or_ends_is_dropped(late: Step) -> None:
    go = asyncio.Event()
    async with (
        scripted([read, send(answer(b"mine")), until(go), late], [read, send(answer(b"right"))]) as upstream,
        fresh_client() as client,
    ):
        assert (await fetch(client, upstream.origin)).body == b"mine"
        go.set()
        await upstream.gone(0)
        while client.idle_connections:
            await asyncio.sleep(0)
        assert (await fetch(client, upstream.origin)).body == b"right"


@pytest.mark.parametrize("broken", [b"HTTP/1.1 204 No Content\r\n\r\nsurplus", answer() + b"\r\n"])
async def test_even_harmless_surplus_ends_the_connection(broken: bytes) -> None:
    async with scripted([read, send(broken)]) as upstream, fresh_client() as client:
        await fetch(client, upstream.origin)
        await upstream.gone()


async def test_concurrent_answers_never_cross() -> None:
    async def echo(peer: Any) -> None:
        while True:
            await read(peer)
            body = peer.requests[-1][-5:]
            peer.writer.write(CHUNKED + b"5\r\n%b\r\n0\r\n\r\n" % body)

    async def call(client: Client, origin: Origin, number: int) -> bool:
        canary = b"%05d" % number
        task = asyncio.ensure_future(fetch(client, origin, POST[:-5] + canary))
        for _ in range(number % 7):
            await asyncio.sleep(0)
        if number % 3 == 0:
            task.cancel()
        done = (await asyncio.gather(task, return_exceptions=True))[0]
        return isinstance(done, asyncio.CancelledError) or (isinstance(done, Response) and done.body == canary)

    async with scripted(*[[echo]] * 400) as upstream, fresh_client() as client:
        for start in range(0, 400, 20):
            calls = [call(client, upstream.origin, number) for number in range(start, start + 20)]
            assert all(await asyncio.gather(*calls))
        assert client.open_connections <= 20


async def test_an_early_answer_is_delivered_and_its_connection_is_not_kept() -> None:
    upload = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 30000000\r\n\r\n" + bytes(30_000_000)

    async def read_the_head_only(peer: Any) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")

    refusal = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno"
    never = asyncio.Event()
    async with scripted([read_the_head_only, send(refusal), until(never)]) as upstream, fresh_client() as client:
        response = await fetch(client, upstream.origin, upload)
        assert (response.status, response.body, client.idle_connections) == (413, b"no", 0)
        never.set()
        await upstream.gone()


# Reuse and the one repeat


@pytest.mark.parametrize("end", [close, reset])
async def test_a_stale_connection_costs_one_repeat_on_a_fresh_one(end: Step) -> None:
    async with (
        scripted([read, send(answer()), read, end], [read, send(answer(b"again"))]) as upstream,
        fresh_client() as client,
    ):
        await fetch(client, upstream.origin)
        assert (await fetch(client, upstream.origin)).body == b"again"
        assert upstream.connections == 2


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_caller_hears_of_each_time_its_request_is_sent(streamed: bool) -> None:
    heard = []
    async with scripted([read, send(answer()), read, close], [read, send(answer())]) as upstream:
        async with fresh_client() as client:
            call = client.open if streamed else client.fetch
            for _ in range(2):
                response = await call(
                    upstream.origin, POST, deadline=soon(), on_sent=lambda _: heard.append(len(upstream.requests))
                )
                if isinstance(response, StreamedResponse):
                    await response.read_all(10)
        assert heard == [0, 1, 2]  # the last one is the repeat


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_request_that_finds_no_connection_was_not_sent(streamed: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        origin = Origin("http", "127.0.0.1", taken.getsockname()[1])
    async with fresh_client() as client:
        call = client.open if streamed else client.fetch
        with pytest.raises(ConnectFailed):
            await call(origin, POST, deadline=soon(), on_sent=lambda _: pytest.fail("it was not sent"))


async def test_the_repeat_never_uses_another_kept_connection() -> None:
    gate = asyncio.Event()
    kept: list[Step] = [read, until(gate), send(answer()), read, close]
    async with scripted(kept, kept, [read, send(answer(b"fresh"))]) as upstream, fresh_client() as client:
        both = asyncio.gather(fetch(client, upstream.origin), fetch(client, upstream.origin))
        while len(upstream.requests) < 2:
            await asyncio.sleep(0)
        gate.set()
        await both
        assert client.idle_connections == 2
        assert (await fetch(client, upstream.origin)).body == b"fresh"
        assert len(upstream.requests) == 4


async def test_a_fresh_connection_that_ends_is_an_error() -> None:
    error = await refused_with(Disconnected, close)
    assert error.nothing_received
    error = await refused_with(Disconnected, reset)
    assert error.nothing_received


@pytest.mark.parametrize("part", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n", answer()[:-1]])
async def test_a_kept_connection_that_ends_after_one_byte_of_the_answer_is_not_repeated(part: bytes) -> None:
    async with scripted([read, send(answer()), read, send(part), close]) as upstream, fresh_client() as client:
        await fetch(client, upstream.origin)
        with pytest.raises(Disconnected) as raised:
            await fetch(client, upstream.origin)
        assert not raised.value.nothing_received
        assert upstream.connections == 1


async def test_the_last_used_connection_is_used_first() -> None:
    gate = asyncio.Event()
    async with (
        scripted([read, send(answer()), read, send(answer())], [read, until(gate), send(answer())]) as upstream,
        fresh_client() as client,
    ):
        second_done = asyncio.gather(fetch(client, upstream.origin), fetch(client, upstream.origin))
        while len(upstream.requests) < 2:
            await asyncio.sleep(0)
        gate.set()
        await second_done
        assert (client.idle_connections, client.open_connections) == (2, 2)


async def test_no_more_connections_are_kept_than_allowed() -> None:
    gate = asyncio.Event()
    script: list[Step] = [read, until(gate), send(answer())]
    async with (
        scripted(script, script, script) as upstream,
        fresh_client(limits=ClientLimits(max_idle_per_origin=1)) as client,
    ):
        calls = asyncio.gather(*[fetch(client, upstream.origin) for _ in range(3)])
        while len(upstream.requests) < 3:
            await asyncio.sleep(0)
        gate.set()
        await calls
        assert client.idle_connections == 1


async def test_a_kept_connection_expires() -> None:
    async with (
        scripted([read, send(answer())]) as upstream,
        fresh_client(limits=ClientLimits(idle_s=0.02)) as client,
    ):
        await fetch(client, upstream.origin)
        await upstream.gone()
        while client.open_connections:
            await asyncio.sleep(0)


@pytest.mark.parametrize("head", [b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 200 OK\r\nConnection: Close\r\n"])
async def test_an_upstream_that_wants_to_close_is_not_kept(head: bytes) -> None:
    async with scripted([read, send(head + b"Content-Length: 0\r\n\r\n")]) as upstream, fresh_client() as client:
        await fetch(client, upstream.origin)
        assert client.idle_connections == 0
        await upstream.gone()


# Hostile and broken answers


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x00\x05hello\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi!",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        answer(b"\x1f\x8b\x08", b"Content-Encoding: gzip\r\n"),
        CHUNKED + b"xyz\r\n",
        CHUNKED + b"1\r\nx\r\n" * 10_000,
        CHUNKED + b"2\r\nhi!!0\r\n\r\n",
        CHUNKED + b"0\r\n" + b"t: x\r\n" * 100 + b"\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000,
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 17 + answer(),
    ],
)
async def test_what_is_not_http_as_we_accept_it_is_refused(data: bytes) -> None:
    await refused_with(BadResponse, send(data))


@pytest.mark.parametrize("status", [b"400", b"429", b"503"])
@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 3\r\n\r\n\x1f\x8b\x08",
        b"Content-Length: 100000000\r\n\r\n\x1f",
        b"Transfer-Encoding: chunked\r\n\r\n3\r\n\x1f\x8b\x08\r\n",
        b"\r\n\x1f\x8b\x08",
    ],
)
async def test_the_head_of_a_compressed_error_counts_and_its_body_is_not_read(status: bytes, body: bytes) -> None:
    coded = b"HTTP/1.1 " + status + b" Oops\r\nContent-Encoding: gzip\r\nRetry-After: 7\r\n" + body
    async with fresh_client() as client, scripted([read, send(coded)], [read, send(coded)]) as upstream:
        whole = await fetch(client, upstream.origin)
        streamed = await client.open(upstream.origin, POST, deadline=soon())
        for found in (whole, streamed):
            assert (found.status, found.headers) == (int(status), {b"retry-after": b"7"})
        assert whole.body == await streamed.read_all(100) == b""
        assert client.idle_connections == 0


@pytest.mark.parametrize(
    "data",
    [
        answer(b"x" * 101),
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        CHUNKED + b"32\r\n" + b"x" * 50 + b"\r\n33\r\n" + b"x" * 51 + b"\r\n0\r\n\r\n",
        CHUNKED + b"fffffff\r\n",
        UNTIL_CLOSE + b"x" * 101,
    ],
)
async def test_an_answer_above_the_limit_is_refused(data: bytes) -> None:
    await refused_with(ResponseTooLarge, send(data), max_body=100)


@pytest.mark.parametrize("data", [answer(b"1234567890"), CHUNKED + b"a\r\n1234567890\r\n0\r\n\r\n"])
async def test_a_stream_has_a_limit_of_its_own(data: bytes) -> None:
    for most in 9, 10:
        async with (
            scripted([read, send(data)]) as upstream,
            fresh_client(limits=ClientLimits(max_body=5, max_stream=most)) as client,
        ):
            try:
                response = await client.open(upstream.origin, POST, deadline=soon())
                assert await response.read_all(100) == b"1234567890"
                assert most == 10
            except ResponseTooLarge:
                assert most == 9


async def test_an_answer_at_the_limit_is_taken() -> None:
    for data in (answer(b"x" * 100), CHUNKED + b"64\r\n" + b"x" * 100 + b"\r\n0\r\n\r\n"):
        async with scripted([read, send(data)]) as upstream, fresh_client() as client:
            assert len((await fetch(client, upstream.origin, max_body=100)).body) == 100


@pytest.mark.parametrize("end", [close, reset])
@pytest.mark.parametrize("part", [answer()[:-1], CHUNKED + b"5\r\nhello\r\n", CHUNKED + b"0\r\n", b"HTTP/1.1 2"])
async def test_an_answer_that_ends_in_its_middle_is_an_error(part: bytes, end: Step) -> None:
    error = await refused_with(Disconnected, send(part), end)
    assert end is reset or not error.nothing_received


async def test_a_reset_is_not_the_end_of_a_body_that_ends_with_the_connection() -> None:
    await refused_with(Disconnected, send(UNTIL_CLOSE + b"half"), reset)


# Times


async def test_silence_before_the_answer_is_a_first_byte_timeout() -> None:
    error = await refused_with(FirstByteTimeout, first_byte_s=0.03)
    assert error.nothing_received


@pytest.mark.parametrize("part", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", CHUNKED])
async def test_silence_before_the_body_is_a_first_byte_timeout(part: bytes) -> None:
    error = await refused_with(FirstByteTimeout, send(part), first_byte_s=0.03)
    assert not error.nothing_received


@pytest.mark.parametrize("part", [answer()[:-1], CHUNKED + b"5\r\nhello\r\n", UNTIL_CLOSE + b"x"])
async def test_silence_in_the_answer_is_an_idle_timeout(part: bytes) -> None:
    await refused_with(IdleTimeout, send(part), idle_s=0.03)


async def test_a_drip_is_ended_by_the_deadline() -> None:
    async def drip(peer: Any) -> None:
        while not peer.writer.is_closing():
            peer.writer.write(b"1\r\nx\r\n")
            await asyncio.sleep(0.005)

    async with scripted([read, send(CHUNKED), drip]) as upstream, fresh_client() as client:
        with pytest.raises(TotalTimeout):
            await fetch(client, upstream.origin, idle_s=0.5, deadline=soon(0.05))


async def test_a_deadline_that_has_passed_ends_the_call() -> None:
    async with scripted() as upstream, fresh_client() as client:
        with pytest.raises(TotalTimeout):
            await fetch(client, upstream.origin, deadline=soon(-1))


async def test_a_refused_connection_is_named_so() -> None:
    async with scripted() as upstream:
        pass
    async with fresh_client() as client:
        with pytest.raises(ConnectFailed, match=r"^connection refused$"):
            await fetch(client, upstream.origin)


# Cancellation


async def cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("part", [b"", b"HTTP/1.1 200 OK\r\n", CHUNKED, CHUNKED + b"5\r\nhello\r\n"])
async def test_a_cancelled_call_cuts_its_connection(part: bytes) -> None:
    sent = asyncio.Event()
    async with scripted([read, send(part), then(sent)]) as upstream, fresh_client() as client:
        task = asyncio.ensure_future(fetch(client, upstream.origin))
        await sent.wait()
        await cancelled(task)
        await upstream.gone()
        assert client.idle_connections == 0


@pytest.mark.parametrize("steps", range(6))
async def test_a_call_that_is_cancelled_at_any_turn_of_the_loop_leaves_nothing_behind(steps: int) -> None:
    async with scripted([read, send(answer()), read, send(answer())]) as upstream, fresh_client() as client:
        await fetch(client, upstream.origin)
        task = asyncio.ensure_future(fetch(client, upstream.origin))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        (result,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(result, Response):
            assert client.idle_connections == 1
        for _ in range(3):
            await asyncio.sleep(0)
        assert client.open_connections == client.idle_connections


async def test_a_call_that_is_cancelled_just_after_its_answer_does_not_cut_the_next_call() -> None:
    go = asyncio.Event()
    async with scripted([read, until(go), send(answer()), read, send(answer(b"next"))]) as up, fresh_client() as client:
        first = asyncio.ensure_future(fetch(client, up.origin))
        while not up.requests:
            await asyncio.sleep(0)
        go.set()
        while client.idle_connections == 0:
            await asyncio.sleep(0)
        second = asyncio.ensure_future(fetch(client, up.origin))
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert (await second).body == b"next"
        assert up.connections == 1


# Shutdown


async def test_closing_the_client_ends_running_and_later_calls() -> None:
    async with scripted([read]) as upstream, fresh_client() as client:
        task = asyncio.ensure_future(fetch(client, upstream.origin))
        while not upstream.requests:
            await asyncio.sleep(0)
        client.close()
        with pytest.raises(Disconnected):
            await task
        with pytest.raises(Disconnected):
            await fetch(client, upstream.origin)
        await upstream.gone()
