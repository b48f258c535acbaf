"""What the server bounds: sizes, times, memory, connections, and how it says so."""

import asyncio
from typing import Any

import pytest
from serving import Wire, echo, eventually, serving

from tollway.http1.errors import SlowBody
from tollway.http1.exchange import Request, ResponseStream
from tollway.http1.head import MAX_HEADERS
from tollway.http1.inbound import Connection

HEAD = b"POST /x HTTP/1.1\r\nHost: a\r\n"
GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def body_of(size: int) -> bytes:
    return HEAD + b"Content-Length: %d\r\n\r\n" % size + b"x" * size


def connection_of(request: Request) -> Connection:
    return request._connection


async def never(request: Request) -> None:
    raise AssertionError("this request should not have reached a handler")


async def refused(wire: Wire, status: int) -> bytes:
    """The connection is answered with this status and then ends; returns the reason."""
    answer = await wire.answer()
    assert answer.status == status
    assert answer.headers[b"connection"] == b"close"
    assert answer.headers[b"x-request-id"] == b"made-up"
    assert await wire.rest() == b""
    return answer.body


# Sizes.


@pytest.mark.parametrize("step", [100, 100_000])
async def test_exactly_the_limit_of_the_head_passes(step: int) -> None:
    def head(size: int) -> bytes:
        start = b"GET /x HTTP/1.1\r\nHost: a\r\nX: "
        return start + b"y" * (size - len(start) - 4) + b"\r\n\r\n"

    async with serving(max_head=1000) as running:
        wire = await running.connect()
        for size, status in ((1000, 200), (1001, 431)):
            for at in range(0, size, step):
                wire.send(head(size)[at : at + step])
                await asyncio.sleep(0)
            assert (await wire.answer()).status == status
        assert await wire.rest() == b""


@pytest.mark.parametrize("step", [1, 10, 5000])
async def test_a_large_head_that_is_none_is_refused_for_that_however_it_comes(step: int) -> None:
    async with serving(never, max_head=1000) as running:
        wire = await running.connect()
        head = b"\nGET /x HTTP/1.1\r\nX: " + b"y" * 2000 + b"\r\n\r\n"
        for at in range(0, 100 * step, step):
            wire.send(head[at : at + step])
            await asyncio.sleep(0)
        await refused(wire, 400)


async def test_a_head_without_an_end_is_refused_at_the_limit() -> None:
    async with serving(never, max_head=1000) as running:
        wire = await running.connect()
        wire.send(b"GET /x HTTP/1.1\r\nX: " + b"y" * 1000)
        await refused(wire, 431)


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (b"GET /x HTTP/1.1\r\nHost: a\r\n" + b"x: y\r\n" * MAX_HEADERS + b"\r\n", 431),
        (b"GET /" + b"a" * 8192 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET /x HTTP/1.1\r\nHost: a\r\nExpect: magic\r\n\r\n", 417),
        (b"GET /x HTTP/1.1\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\nHost: a\n\r\n\r\n", 400),
        (b"\r\n\r\n\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
        (HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + GET, 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    ],
)
async def test_a_bad_head_is_answered_by_its_kind_and_nothing_after_it_is_read(message: bytes, status: int) -> None:
    async with serving(never) as running:
        wire = await running.connect()
        wire.send(message)
        await refused(wire, status)


async def test_a_bad_head_after_a_good_request_is_answered_in_its_turn() -> None:
    async with serving() as running:
        wire = await running.connect()
        wire.send(GET + b"nonsense\r\n\r\n" + GET)
        assert (await wire.answer()).status == 200
        await refused(wire, 400)


async def test_exactly_the_limit_of_the_body_passes() -> None:
    async with serving(max_body=10) as running:
        wire = await running.connect()
        assert (await wire.ask(body_of(10))).status == 200
        assert (await wire.ask(CHUNKED + b"5\r\nhello\r\n5\r\nhello\r\n0\r\n\r\n")).status == 200
        wire.send(body_of(11))
        await refused(wire, 413)


@pytest.mark.parametrize(
    "message", [HEAD + b"Content-Length: 11\r\n\r\n", CHUNKED + b"b\r\n", CHUNKED + b"5\r\nhello\r\n6\r\n"]
)
@pytest.mark.parametrize("expect", [False, True])
async def test_a_body_above_the_limit_is_refused_as_soon_as_it_says_so(message: bytes, expect: bool) -> None:
    if expect:
        message = message.replace(b"Host", b"Expect: 100-continue\r\nHost")
    async with serving(max_body=10) as running:
        wire = await running.connect()
        wire.send(message)
        await refused(wire, 413)
    assert not running.crashes


async def test_who_asks_is_judged_before_the_size_of_the_body() -> None:
    async def handler(request: Request) -> None:
        request.respond(401, b"x-request-id: made-up\r\n", b"")

    async with serving(handler, max_body=10) as running:
        wire = await running.connect()
        wire.send(body_of(11))
        await refused(wire, 401)


@pytest.mark.parametrize("framing", [b"Content-Length: 5\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"])
async def test_a_compressed_body_is_refused(framing: bytes) -> None:
    async with serving() as running:
        wire = await running.connect()
        assert (await wire.ask(HEAD + b"Content-Encoding: identity\r\n" + framing)).status == 200
        wire.send(HEAD + b"Content-Encoding: gzip\r\n" + framing)
        await refused(wire, 415)


@pytest.mark.parametrize("junk", [b"zz\r\n", b"5\r\nhelloX\r\n", b"1" * 2000, b"0\r\n" + b"a: b\r\n" * 65])
@pytest.mark.parametrize("at_once", [True, False])
async def test_bad_chunks_are_a_400_and_the_end(junk: bytes, at_once: bool) -> None:
    async with serving() as running:
        wire = await running.connect()
        wire.send(CHUNKED + junk if at_once else CHUNKED)
        if not at_once:
            await running.until(connections=1)
            wire.send(junk)
        await refused(wire, 400)


async def test_a_refusal_reaches_a_client_that_sends_on() -> None:
    async with serving(max_body=10, linger_bytes=2**30) as running:
        wire = await running.connect()
        wire.send(HEAD + b"Content-Length: 4000000\r\n\r\n" + b"x" * 4_000_000)
        await refused(wire, 413)


async def test_a_client_that_never_stops_sending_is_cut_after_so_many_bytes() -> None:
    async with serving(max_body=10, linger_s=1000) as running:
        wire = await running.connect()
        wire.send(HEAD + b"Content-Length: 20000000\r\n\r\n" + b"x" * 20_000_000)
        assert (await wire.answer()).status == 413
        await running.until(connections=0)


async def test_a_client_that_neither_sends_nor_closes_is_cut_after_a_while() -> None:
    async with serving() as running:
        wire = await running.connect()
        wire.send(b"nonsense\r\n\r\n")
        assert (await wire.answer()).status == 400
        running.pass_time(1.5)
        assert running.server.connections == 1
        running.pass_time(1)
        await running.until(connections=0)


# Times. The limits are 10 s for a head, 75 s between requests, 10 KiB in 10 s for a body, 60 s for a stuck reader.


async def test_a_trickling_head_is_answered_with_408_at_its_deadline() -> None:
    async with serving(never) as running:
        wire = await running.connect()
        wire.send(GET[:3])
        await running.until(connections=1)
        for byte in GET[3:12]:
            await asyncio.sleep(0.001)
            running.pass_time(1)
            wire.send(bytes([byte]))
        running.pass_time(2)
        await refused(wire, 408)


async def test_a_trickling_head_on_a_kept_connection_has_the_same_deadline() -> None:
    async with serving() as running:
        wire = await running.connect()
        assert (await wire.ask(GET)).status == 200
        running.pass_time(60)
        wire.send(GET[:-1])
        await asyncio.sleep(0.01)
        running.pass_time(9)
        wire.send(b"\n" + GET[:3])
        assert (await wire.answer()).status == 200
        running.pass_time(9)
        await asyncio.sleep(0.01)
        running.pass_time(2)
        await refused(wire, 408)


async def test_a_connection_that_says_nothing_is_closed_without_a_word() -> None:
    async with serving() as running:
        wire = await running.connect()
        await running.until(connections=1)
        running.pass_time(9)
        assert running.server.connections == 1
        running.pass_time(2)
        assert await wire.rest() == b""


async def test_an_idle_connection_is_closed_without_a_word() -> None:
    async with serving() as running:
        wire = await running.connect()
        await wire.ask(GET)
        running.pass_time(70)
        await wire.ask(GET)
        running.pass_time(70)
        assert running.server.connections == 1
        running.pass_time(6)
        assert await wire.rest() == b""


@pytest.mark.parametrize("message", [body_of(50_000)[:-49_999], CHUNKED + b"ffff\r\nx"])
async def test_a_body_below_the_minimum_rate_is_a_408(message: bytes) -> None:
    async with serving() as running:
        wire = await running.connect()
        wire.send(message)
        await running.until(connections=1)
        for _ in range(9):
            await asyncio.sleep(0.001)
            running.pass_time(1)
            wire.send(b"x")
        running.pass_time(2)
        assert await refused(wire, 408) == b"the request body did not arrive in time"


async def test_a_body_that_keeps_the_rate_may_take_long_but_not_for_ever() -> None:
    received = 0

    async def handler(request: Request) -> None:
        nonlocal received
        async for piece in request.iter_body():
            received += len(piece)
        request.respond(200, b"", b"")

    async with serving(handler, body_total_s=100.0) as running:
        wire = await running.connect()
        wire.send(CHUNKED + b"ffffff\r\n")
        for turn in range(1, 10):
            wire.send(b"x" * 11_000)
            await eventually(lambda turn=turn: received == turn * 11_000)
            running.pass_time(10.5)
        wire.send(b"x" * 11_000)
        await eventually(lambda: received == 110_000)
        running.pass_time(10.5)
        await refused(wire, 408)


async def test_a_client_that_waits_for_100_continue_is_not_slow() -> None:
    entered: list[Request] = []
    ask: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def handler(request: Request) -> None:
        entered.append(request)
        await ask
        await echo(request)

    async with serving(handler) as running:
        wire = await running.connect()
        wire.send(HEAD + b"Expect: 100-continue\r\nContent-Length: 1\r\n\r\n")
        await eventually(lambda: entered)
        running.pass_time(100)
        ask.set_result(None)
        assert (await wire.answer()).status == 100
        running.pass_time(9)
        assert (await wire.ask(b"x")).status == 200


async def test_a_client_that_was_told_to_continue_and_does_not_is_slow() -> None:
    async with serving() as running:
        wire = await running.connect()
        assert (await wire.ask(HEAD + b"Expect: 100-continue\r\nContent-Length: 1\r\n\r\n")).status == 100
        running.pass_time(11)
        await refused(wire, 408)


@pytest.mark.parametrize("message", [body_of(5), CHUNKED + b"1\r\nx\r\n0\r\n\r\n"])
async def test_a_handler_may_think_for_long(message: bytes) -> None:
    entered: list[Request] = []
    thinking: list[Request] = []
    go: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def handler(request: Request) -> None:
        entered.append(request)
        await request.read_body()
        thinking.append(request)
        await go
        request.respond(200, b"", b"")

    async with serving(handler) as running:
        wire = await running.connect()
        wire.send(message[:-3])
        await eventually(lambda: entered)
        wire.send(message[-3:])
        await eventually(lambda: thinking)
        for _ in range(3):
            running.pass_time(1000)
        go.set_result(None)
        assert (await wire.answer()).status == 200


async def test_a_client_that_we_made_wait_is_not_slow() -> None:
    go: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    requests: list[Request] = []

    async def handler(request: Request) -> None:
        requests.append(request)
        await go
        await echo(request)

    async with serving(handler) as running:
        wire = await running.connect()
        wire.send(body_of(10_000_000))
        await eventually(lambda: requests and not connection_of(requests[0]).transport.is_reading())
        for _ in range(5):
            running.pass_time(11)
        go.set_result(None)
        assert len((await wire.answer()).body) > 10_000_000


async def test_a_handler_that_is_late_to_ask_learns_that_the_body_was_slow() -> None:
    go: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def handler(request: Request) -> None:
        await go
        with pytest.raises(SlowBody):
            await request.read_body()
        with pytest.raises(SlowBody):
            [piece async for piece in request.iter_body()]
        request.respond(200, b"x-request-id: made-up\r\n", b"")

    async with serving(handler) as running:
        wire = await running.connect()
        wire.send(body_of(50_000)[:-1])
        await running.until(connections=1)
        await asyncio.sleep(0.01)
        running.pass_time(11)
        running.pass_time(11)
        go.set_result(None)
        await refused(wire, 200)
    assert not running.crashes


# Readers that are slower than we are.


class Streamer:
    """Streams until the client falls behind, and says when it catches up."""

    def __init__(self) -> None:
        self.stream: ResponseStream
        self.paused = self.resumed = self.written = 0
        self.go_on: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def __call__(self, request: Request) -> None:
        self.stream = request.start(200, b"")
        self.stream.on_pause = self._pause
        self.stream.on_resume = self._resume
        while not self.stream.paused:
            self.stream.write(b"x" * 10_000)
            self.written += 10_000
            await asyncio.sleep(0)
        await self.stream.drained()
        await self.go_on
        self.stream.end()

    def _pause(self) -> None:
        self.paused += 1

    def _resume(self) -> None:
        self.resumed += 1


SMALL: dict[str, Any] = {"send_buffer": 4096}


async def test_a_stream_pauses_for_a_slow_reader_and_goes_on_when_it_has_caught_up() -> None:
    streamer = Streamer()
    async with serving(streamer, high_water=20_000, **SMALL) as running:
        wire = await running.connect(receive_buffer=4096)
        wire.send(GET)
        await eventually(lambda: streamer.paused)
        assert (streamer.paused, streamer.resumed) == (1, 0)
        assert 20_000 < streamer.stream._transport.get_write_buffer_size() < 40_000
        unread = streamer.written
        while not streamer.resumed:
            unread -= (await wire.reader.read(10_000)).count(b"x")
        for _ in range(5):
            running.pass_time(61)  # it has caught up: nobody is waiting for it
            await asyncio.sleep(0)
        streamer.go_on.set_result(None)
        while unread > 0:
            unread -= (await wire.reader.read(10_000)).count(b"x")
        assert (streamer.paused, streamer.resumed) == (1, 1)


async def test_a_stream_knows_that_its_very_head_is_more_than_the_client_takes() -> None:
    streams: list[ResponseStream] = []

    async def handler(request: Request) -> None:
        streams.append(request.start(200, b"x: %b\r\n" % (b"y" * 1_000_000)))
        await streams[0].drained()
        streams[0].end()

    async with serving(handler, **SMALL) as running:
        wire = await running.connect(receive_buffer=4096)
        wire.send(GET)
        await eventually(lambda: streams)
        await asyncio.sleep(0.01)
        assert streams[0].paused


async def test_a_stream_that_has_ended_hears_no_more_of_its_connection() -> None:
    streams: list[ResponseStream] = []

    async def handler(request: Request) -> None:
        if streams:
            request.respond(200, b"", b"x" * 1_000_000)
            return
        streams.append(request.start(200, b""))
        streams[0].end()

    async with serving(handler, **SMALL) as running:
        wire = await running.connect(receive_buffer=4096)
        await wire.ask(GET)
        streams[0].on_pause = never_called
        assert len((await wire.ask(GET)).body) == 1_000_000
    assert not running.crashes


def never_called() -> None:
    raise AssertionError("this should not have been called")


async def test_a_client_that_never_reads_is_cut() -> None:
    streamer = Streamer()
    async with serving(streamer, **SMALL) as running:
        wire = await running.connect(receive_buffer=4096)
        wire.send(GET)
        await eventually(lambda: streamer.paused)
        running.pass_time(59)
        assert running.server.connections == 1
        running.pass_time(2)
        await running.until(connections=0)


async def test_a_client_that_never_reads_a_short_answer_is_cut_when_it_is_closed() -> None:
    async def handler(request: Request) -> None:
        request.respond(200, b"", b"x" * 50_000)

    async with serving(handler, **SMALL) as running:
        wire = await running.connect(receive_buffer=4096)
        wire.send(GET)
        await wire.reader.read(1)
        running.pass_time(76)
        await asyncio.sleep(0.01)
        assert running.server.connections == 1
        running.pass_time(61)
        await running.until(connections=0)


async def test_a_slow_reader_that_makes_progress_gets_everything() -> None:
    async def handler(request: Request) -> None:
        request.respond(200, b"connection: close\r\n", b"x" * 1_000_000)

    async with serving(handler, **SMALL) as running:
        wire = await running.connect(receive_buffer=4096)
        wire.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        received = b""
        while len(received) < 900_000:
            received += await wire.reader.readexactly(100_000)
            await asyncio.sleep(0.002)
            running.pass_time(61)
        received += await wire.rest()
        assert received.count(b"x") == 1_000_000


async def test_a_slow_reader_that_stops_is_cut() -> None:
    async def handler(request: Request) -> None:
        request.respond(200, b"", b"x" * 1_000_000)

    async with serving(handler, **SMALL) as running:
        wire = await running.connect(receive_buffer=4096)
        wire.send(GET)
        await wire.reader.readexactly(300_000)
        running.pass_time(61)
        await wire.reader.readexactly(300_000)
        running.pass_time(61)
        assert running.server.connections == 1
        running.pass_time(61)
        await running.until(connections=0)


async def test_the_next_request_waits_until_the_last_answer_is_read() -> None:
    seen: list[bytes] = []

    async def handler(request: Request) -> None:
        seen.append(request.path)
        request.respond(200, b"", b"x" * 1_000_000)

    async with serving(handler, **SMALL) as running:
        wire = await running.connect(receive_buffer=4096)
        wire.send(GET + GET.replace(b"/x", b"/y"))
        await wire.reader.read(1)
        await asyncio.sleep(0.01)
        assert seen == [b"/x"]
        rest = 0
        while rest < 2_000_000:
            rest += len(await wire.reader.read(65536))
        assert seen == [b"/x", b"/y"]


async def test_a_flood_of_pipelined_requests_is_held_in_bounded_memory() -> None:
    requests: list[Request] = []
    go: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def handler(request: Request) -> None:
        requests.append(request)
        await asyncio.shield(go)
        request.respond(200, b"", b"")

    count = 30_000
    async with serving(handler) as running:
        wire = await running.connect()
        wire.send(GET * count)
        await eventually(lambda: requests and not connection_of(requests[0]).transport.is_reading())
        held = connection_of(requests[0])._held
        assert held is not None and len(held) < 600_000
        go.set_result(None)
        answers = 0
        while answers < count:
            answers += (await wire.reader.readuntil(b"\r\n\r\n")).count(b"HTTP/1.1 200")
    assert not running.crashes


async def test_a_body_that_nobody_reads_is_held_in_bounded_memory() -> None:
    requests: list[Request] = []
    go: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def handler(request: Request) -> None:
        requests.append(request)
        await go
        largest = 0
        async for piece in request.iter_body():
            largest = max(largest, len(piece))
            await asyncio.sleep(0)
        request.respond(200, b"", b"%d" % largest)

    async with serving(handler) as running:
        wire = await running.connect()
        wire.send(body_of(5_000_000))
        await eventually(lambda: requests and not connection_of(requests[0]).transport.is_reading())
        upload = requests[0].upload
        assert upload is not None and upload.size < 600_000
        go.set_result(None)
        assert int((await wire.answer()).body) < 600_000
        assert (await wire.ask(body_of(0))).status == 200


# Connections.


class Working:
    """A handler that is at work until the test lets it go; ``/known`` shows whose its connection is."""

    def __init__(self) -> None:
        self.at_work = 0
        self.go: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def __call__(self, request: Request) -> None:
        if request.path == b"/known":
            request.vouch()
        elif request.path == b"/work":
            self.at_work += 1
            await asyncio.shield(self.go)
        request.respond(200, b"", b"")


KNOWN, WORK = GET.replace(b"/x", b"/known"), GET.replace(b"/x", b"/work")


async def is_cut(wire: Wire) -> bool:
    try:
        return await wire.rest() == b""
    except ConnectionResetError:
        return True


async def test_one_connection_too_many_is_answered_with_503_where_all_are_at_work() -> None:
    working = Working()
    async with serving(working, max_connections=1) as running:
        first = await running.connect()
        first.send(WORK)
        await eventually(lambda: working.at_work)
        for _ in range(3):
            await refused(await running.connect(), 503)
        assert (running.server.refused, running.server.closed_for_room) == (3, 0)
        working.go.set_result(None)
        assert (await first.answer()).status == 200
        for wire in running.wires:
            wire.writer.close()
        await running.until(connections=0)
        assert (await (await running.connect()).ask(GET)).status == 200


async def test_far_too_many_connections_are_told_nothing() -> None:
    working = Working()
    async with serving(working, max_connections=1, max_refused=20) as running:
        (await running.connect()).send(WORK)
        await eventually(lambda: working.at_work)
        for _ in range(20):
            assert (await (await running.connect()).answer()).status == 503
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await (await running.connect()).answer()
        await eventually(lambda: running.server.connections <= 21)
        working.go.set_result(None)


async def test_idle_strangers_make_room_the_longest_idle_first() -> None:
    async with serving(Working(), max_connections=4) as running:
        wires = []
        for request in (GET, KNOWN, GET, GET):
            running.pass_time(1)
            wires.append(await running.connect())
            assert (await wires[-1].ask(request)).status == 200
        running.pass_time(1)
        assert (await wires[0].ask(GET)).status == 200  # now it has been idle for less long than the others
        for goes in (2, 3, 0):
            running.pass_time(1)
            newcomer = await running.connect()
            assert (await newcomer.ask(KNOWN)).status == 200
            assert await is_cut(wires[goes])
            await running.until(connections=4)
        assert (await wires[1].ask(GET)).status == 200
        assert (running.server.refused, running.server.closed_for_room) == (0, 3)


async def test_a_connection_that_is_known_goes_where_no_stranger_is_left() -> None:
    async with serving(Working(), max_connections=2) as running:
        wires = []
        for _ in range(2):
            running.pass_time(1)
            wires.append(await running.connect())
            await wires[-1].ask(KNOWN)
        assert (await (await running.connect()).ask(GET)).status == 200
        assert await is_cut(wires[0])
        assert (await wires[1].ask(GET)).status == 200


async def test_heads_that_trickle_and_refusals_that_linger_make_room_too() -> None:
    async with serving(Working(), max_connections=2, linger_s=1000) as running:
        slow = await running.connect()
        slow.send(GET[:5])
        lingering = await running.connect()
        lingering.send(b"nonsense\r\n\r\n")
        assert (await lingering.answer()).status == 400
        for _ in range(2):
            assert (await (await running.connect()).ask(KNOWN)).status == 200
        assert await is_cut(slow)
        assert await is_cut(lingering)


async def test_what_is_at_work_is_never_cut_for_a_newcomer() -> None:
    working = Working()
    async with serving(working, max_connections=3) as running:
        (await running.connect()).send(WORK)
        body = await running.connect()
        body.send(HEAD.replace(b"/x", b"/work") + b"Content-Length: 5\r\n\r\nhe")
        await eventually(lambda: working.at_work == 2)
        for _ in range(20):  # each of them closes the one before
            assert (await (await running.connect()).ask(GET)).status == 200
        working.go.set_result(None)
        assert [(await wire.answer()).status for wire in running.wires[:2]] == [200, 200]


async def test_a_flood_of_strangers_costs_a_look_at_all_connections_only_now_and_then() -> None:
    async with serving(Working(), max_connections=256) as running:
        for _ in range(256):
            assert (await (await running.connect()).ask(GET)).status == 200
        looks = 0
        make_room = running.server.make_room

        def counted(newcomer: Connection, over: int) -> bool:
            nonlocal looks
            looks += 1
            return make_room(newcomer, over)

        running.server.make_room = counted  # type: ignore[method-assign]
        for _ in range(40):
            assert (await (await running.connect()).ask(GET)).status == 200
        assert looks <= 10
