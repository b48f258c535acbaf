"""Streamed answers: pulled, pushed, paused, given up, cut."""

import asyncio
from typing import Any

import pytest
from scripted_upstream import POST, Step, answer, close, read, reset, scripted, send, then, until
from test_client import CHUNKED, UNTIL_CLOSE, cancelled, fetch, fresh_client, soon

from tollway.http1.answer import Answer, StreamedResponse
from tollway.http1.client import Client
from tollway.http1.errors import BadResponse, Disconnected, IdleTimeout, ResponseTooLarge, TotalTimeout
from tollway.http1.limits import ClientLimits
from tollway.http1.origin import Origin


async def opened(client: Client, origin: Origin, **times: Any) -> StreamedResponse:
    return await client.open(origin, POST, **{"deadline": soon(), **times})


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def test_the_head_is_there_before_the_body() -> None:
    go = asyncio.Event()
    async with (
        scripted([read, send(CHUNKED), until(go), send(chunk(b"one") + b"0\r\n\r\n")]) as upstream,
        fresh_client() as client,
    ):
        response = await opened(client, upstream.origin)
        assert (response.status, response.complete) == (200, False)
        go.set()
        assert await response.read() == b"one"
        assert await response.read() == b""
        assert await response.read() == b""
        assert client.idle_connections == 1


@pytest.mark.parametrize(
    "steps",
    [
        [send(answer(b"whole"))],
        [send(CHUNKED + chunk(b"who")), send(chunk(b"le") + b"0\r\n\r\n")],
        [send(UNTIL_CLOSE), send(b"who"), send(b"le"), close],
    ],
)
async def test_a_stream_can_be_read_to_its_end(steps: list[Step]) -> None:
    async with scripted([read, *steps]) as upstream, fresh_client() as client:
        response = await opened(client, upstream.origin)
        assert await response.read_all(5) == b"whole"
        response.close()


async def test_reading_all_stops_at_the_limit() -> None:
    async with scripted([read, send(answer(b"123456"))]) as upstream, fresh_client() as client:
        response = await opened(client, upstream.origin)
        with pytest.raises(ResponseTooLarge):
            await response.read_all(5)


async def test_pieces_are_pushed_without_a_task_in_between() -> None:
    go = asyncio.Event()
    async with (
        scripted([read, send(CHUNKED + chunk(b"a")), until(go), send(chunk(b"b")), send(b"0\r\n\r\n")]) as upstream,
        fresh_client() as client,
    ):
        response = await opened(client, upstream.origin)
        pieces: list[bytes] = []
        await asyncio.sleep(0.01)
        response.attach(pieces.append)
        assert pieces == [b"a"]
        go.set()
        await response.finished()
        assert pieces == [b"a", b"b"]
        assert client.idle_connections == 1


async def test_a_sink_may_be_attached_after_the_end() -> None:
    async with scripted([read, send(answer(b"whole"))]) as upstream, fresh_client() as client:
        response = await opened(client, upstream.origin)
        pieces: list[bytes] = []
        response.attach(pieces.append)
        await response.finished()
        assert pieces == [b"whole"]


async def test_what_a_sink_raises_ends_the_stream() -> None:
    def sink(data: bytes) -> None:
        raise ArithmeticError

    go = asyncio.Event()
    async with (
        scripted([read, send(CHUNKED), until(go), send(chunk(b"a"))]) as upstream,
        fresh_client() as client,
    ):
        response = await opened(client, upstream.origin)
        response.attach(sink)
        go.set()
        with pytest.raises(ArithmeticError):
            await response.finished()
        await upstream.gone()


async def test_a_sink_may_close_its_stream() -> None:
    go = asyncio.Event()
    async with (
        scripted([read, send(CHUNKED), until(go), send(chunk(b"a") + b"0\r\n\r\n")]) as upstream,
        fresh_client() as client,
    ):
        response = await opened(client, upstream.origin)
        response.attach(lambda data: response.close())
        go.set()
        with pytest.raises(Disconnected):
            await response.finished()
        await upstream.gone()
        assert client.idle_connections == 0


@pytest.mark.parametrize("push", [False, True])
async def test_what_arrived_before_the_error_is_delivered_first(push: bool) -> None:
    go = asyncio.Event()
    async with (
        scripted([read, send(CHUNKED + chunk(b"good")), until(go), send(b"zz\r\n")]) as upstream,
        fresh_client() as client,
    ):
        response = await opened(client, upstream.origin)
        while not response.received:
            await asyncio.sleep(0)
        go.set()
        await upstream.gone()
        pieces: list[bytes] = []
        with pytest.raises(BadResponse):
            if push:
                response.attach(pieces.append)
                await response.finished()
            while True:
                pieces.append(await response.read())
        assert pieces == [b"good"]


@pytest.mark.parametrize("end", [close, reset])
async def test_a_stream_that_is_cut_is_an_error(end: Step) -> None:
    go = asyncio.Event()
    async with (
        scripted([read, send(CHUNKED + chunk(b"a")), until(go), end]) as upstream,
        fresh_client() as client,
    ):
        response = await opened(client, upstream.origin)
        assert await response.read() == b"a"
        go.set()
        with pytest.raises(Disconnected) as raised:
            await response.read()
        assert not raised.value.nothing_received
        with pytest.raises(Disconnected):
            await response.finished()


async def test_a_never_ending_stream_ends_at_its_limit() -> None:
    async def endless(peer: Any) -> None:
        while not peer.writer.is_closing():
            peer.writer.write(chunk(b"x" * 1000))
            await peer.writer.drain()

    async with scripted([read, send(CHUNKED), endless]) as upstream, fresh_client() as client:
        response = await opened(client, upstream.origin, max_body=100_000)
        total = 0
        response.attach(lambda data: None)
        with pytest.raises(ResponseTooLarge):
            await response.finished()
        assert response.received <= 100_000
        assert total == 0


# Backpressure


async def test_a_stream_that_nobody_reads_stops_the_upstream() -> None:
    sent = 0

    async def pour(peer: Any) -> None:
        nonlocal sent
        for _ in range(400):
            peer.writer.write(chunk(bytes(65536)))
            sent += 65536
            await peer.writer.drain()
        peer.writer.write(b"0\r\n\r\n")

    limits = ClientLimits(high_water=100_000)
    async with scripted([read, send(CHUNKED), pour]) as upstream, fresh_client(limits=limits) as client:
        response = await opened(client, upstream.origin, idle_s=0.05)
        before = -1
        while before != sent:  # until the sockets are full
            before = sent
            await asyncio.sleep(0.02)
        assert response.received < sent < 400 * 65536
        await asyncio.sleep(0.1)  # our own pause is not the upstream's silence
        assert len(await response.read_all(400 * 65536)) == 400 * 65536
        assert client.idle_connections == 1


async def test_a_paused_stream_delivers_nothing_and_is_not_silent() -> None:
    go = asyncio.Event()
    async with (
        scripted([read, send(CHUNKED + chunk(b"a")), until(go), send(chunk(b"b") + b"0\r\n\r\n")]) as upstream,
        fresh_client() as client,
    ):
        response = await opened(client, upstream.origin, idle_s=0.03)
        pieces: list[bytes] = []
        response.attach(pieces.append)
        response.pause()
        response.pause()
        go.set()
        await asyncio.sleep(0.1)
        assert pieces == [b"a"]
        response.resume()
        response.resume()
        await response.finished()
        assert pieces == [b"a", b"b"]
        assert client.idle_connections == 1


class Line:
    """A connection that only knows whether it reads."""

    full = False
    reads = True
    answer: Answer | None = None

    def begin(self, answer: Answer, message: bytes) -> None:
        self.answer = answer

    def write(self, data: bytes) -> None:
        pass

    def pause(self) -> None:
        self.reads = False

    def resume(self) -> None:
        self.reads = True

    def cut(self) -> None:
        self.answer = None


def on_a_line() -> tuple[Line, StreamedResponse]:
    line = Line()
    response = StreamedResponse(False, 1, 1, 1, 1000, high_water=10)
    response.send(line, POST)
    return line, response


@pytest.mark.parametrize("size", [1, 11])
async def test_attaching_does_not_end_a_pause_of_the_caller(size: int) -> None:
    line, response = on_a_line()
    response.take(bytes(size))
    response.pause()
    pieces: list[bytes] = []
    response.attach(pieces.append)
    assert pieces == [bytes(size)]
    assert not line.reads
    response.resume()
    assert line.reads


async def test_attaching_ends_the_pause_of_a_full_buffer() -> None:
    line, response = on_a_line()
    response.take(bytes(11))
    assert not line.reads
    response.attach(lambda piece: None)
    assert line.reads


async def test_a_sink_that_pauses_while_it_is_attached_is_obeyed() -> None:
    line, response = on_a_line()
    response.take(bytes(11))
    response.attach(lambda piece: response.pause())
    assert not line.reads


async def test_reading_does_not_end_a_pause_of_the_caller() -> None:
    line, response = on_a_line()
    response.take(bytes(11))
    response.pause()
    assert await response.read() == bytes(11)
    assert not line.reads
    response.resume()
    assert line.reads


async def test_resuming_does_not_overfill_a_full_buffer() -> None:
    line, response = on_a_line()
    response.take(bytes(11))
    response.pause()
    response.resume()
    assert not line.reads
    await response.read()
    assert line.reads


async def test_a_stream_that_is_paused_in_its_last_piece_gives_its_connection_back_reading() -> None:
    go = asyncio.Event()
    async with (
        scripted([read, send(CHUNKED), until(go), send(chunk(b"a") + b"0\r\n\r\n"), read, close]) as upstream,
        fresh_client() as client,
    ):
        response = await opened(client, upstream.origin)
        response.attach(lambda data: response.pause())
        go.set()
        await response.finished()
        response.pause()  # means nothing any more
        with pytest.raises(Disconnected):
            await fetch(client, upstream.origin)


async def test_a_stream_may_be_pushed_pulled_and_pushed_again() -> None:
    go = asyncio.Event()
    rest = [until(go), send(chunk(b"c") + b"0\r\n\r\n")]
    async with (
        scripted([read, send(CHUNKED + chunk(b"a")), until(go), send(chunk(b"b")), *rest]) as upstream,
        fresh_client() as client,
    ):
        response = await opened(client, upstream.origin)
        pushed: list[bytes] = []

        def sink(piece: bytes) -> None:
            pushed.append(piece)
            response.detach()

        response.attach(sink)
        await response.finished()
        assert pushed == [b"a"]
        assert not response.complete
        go.set()
        pulled = await response.read()
        response.attach(pushed.append)
        await response.finished()
        assert response.complete
        assert pulled + b"".join(pushed[1:]) == b"bc"


async def test_a_sink_may_give_its_piece_back_and_nothing_changes_places() -> None:
    pieces = [b"a", b"b", b"c"]
    async with (
        scripted([read, send(CHUNKED + b"".join(map(chunk, pieces)) + b"0\r\n\r\n")]) as upstream,
        fresh_client() as client,
    ):
        response = await opened(client, upstream.origin)
        while not response.complete:
            await asyncio.sleep(0.001)
        response.pieces = pieces.copy()
        response.attach(response.detach)
        await response.finished()
        assert response.detached
        assert await response.read() == b"abc"
        assert response.held == 0


async def test_the_deadline_ends_a_paused_stream() -> None:
    async with scripted([read, send(CHUNKED + chunk(b"a"))]) as upstream, fresh_client() as client:
        response = await opened(client, upstream.origin, deadline=soon(0.05))
        response.pause()
        with pytest.raises(TotalTimeout):
            await response.finished()


async def test_silence_in_a_stream_is_an_idle_timeout() -> None:
    async with scripted([read, send(CHUNKED + chunk(b"a"))]) as upstream, fresh_client() as client:
        response = await opened(client, upstream.origin, idle_s=0.03)
        assert await response.read() == b"a"
        with pytest.raises(IdleTimeout):
            await response.read()
        await upstream.gone()


# Giving up


async def test_closing_a_stream_cuts_its_connection() -> None:
    async with scripted([read, send(CHUNKED + chunk(b"a"))]) as upstream, fresh_client() as client:
        response = await opened(client, upstream.origin)
        response.close()
        response.close()
        await upstream.gone()
        with pytest.raises(Disconnected):
            await response.finished()
        assert client.idle_connections == 0


async def test_closing_a_complete_stream_leaves_the_next_call_alone() -> None:
    async with scripted([read, send(answer()), read, send(answer(b"next"))]) as upstream, fresh_client() as client:
        response = await opened(client, upstream.origin)
        assert await response.read_all(10) == b"hi"
        task = asyncio.ensure_future(fetch(client, upstream.origin))
        await asyncio.sleep(0)
        response.pause()
        response.close()
        assert (await task).body == b"next"
        assert upstream.connections == 1


@pytest.mark.parametrize("wait", ["open", "read", "finished"])
async def test_a_stream_whose_reader_is_cancelled_is_cut(wait: str) -> None:
    sent = asyncio.Event()
    script = [read, then(sent)] if wait == "open" else [read, send(CHUNKED), then(sent)]
    async with scripted(script) as upstream, fresh_client() as client:

        async def call() -> None:
            response = await opened(client, upstream.origin)
            await (response.read() if wait == "read" else response.finished())

        task = asyncio.ensure_future(call())
        await sent.wait()
        await asyncio.sleep(0.01)
        await cancelled(task)
        await upstream.gone()
        assert client.idle_connections == 0


async def test_a_stream_that_is_cancelled_between_its_head_and_its_reader_is_cut() -> None:
    go = asyncio.Event()
    async with scripted([read, until(go), send(CHUNKED)]) as upstream, fresh_client() as client:
        task = asyncio.ensure_future(opened(client, upstream.origin))
        while not upstream.requests:
            await asyncio.sleep(0)
        (connection,) = client._pool._open
        go.set()
        while connection.answer is not None and connection.answer.status == 0:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if not task.cancelled():  # the head was faster
            task.result().close()
        await upstream.gone()
        assert client.idle_connections == 0


async def test_a_stale_connection_costs_one_repeat_for_streams_too() -> None:
    async with (
        scripted([read, send(answer()), read, close], [read, send(answer(b"again"))]) as upstream,
        fresh_client() as client,
    ):
        await fetch(client, upstream.origin)
        response = await opened(client, upstream.origin)
        assert await response.read_all(10) == b"again"
