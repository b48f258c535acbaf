"""The server's manners: order, framing of answers, who is gone when, how a drain goes."""

import asyncio
import gc
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from serving import Wire, echo, eventually, serving

from tollway.http1.errors import BodyTooLarge
from tollway.http1.exchange import Request
from tollway.http1.inbound import Connection
from tollway.http1.server import Handler

GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
CHUNKS = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKED = CHUNKS + b"2\r\nhe\r\n3\r\nllo\r\n0\r\nAuthorization: late\r\n\r\n"


class Gate:
    """A handler that waits until it is let go, and tells what happened to it."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.cancelled = 0
        self.open: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def __call__(self, request: Request) -> None:
        self.requests.append(request)
        try:
            await asyncio.shield(self.open)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        request.respond(200, b"", b"done")

    async def entered(self, count: int = 1) -> Request:
        await eventually(lambda: len(self.requests) == count)
        return self.requests[-1]


def answering(respond: Callable[[Request], None]) -> Callable[[Request], object]:
    async def handler(request: Request) -> None:
        respond(request)

    return handler


# Answers.


async def test_an_answer_has_its_date_its_length_and_the_handlers_headers() -> None:
    async def handler(request: Request) -> None:
        request.respond(404, b"x-request-id: r1\r\ncontent-type: text/plain\r\n", b"nothing here")

    async with serving(handler) as running:
        wire = await running.connect()
        wire.send(GET)
        raw = await wire.reader.readuntil(b"nothing here")
    lines = raw.split(b"\r\n")
    assert lines[:4] == [
        b"HTTP/1.1 404 Not Found",
        b"x-request-id: r1",
        b"content-type: text/plain",
        b"content-length: 12",
    ]
    assert lines[4].startswith(b"date: ") and lines[4].endswith(b" GMT")
    assert lines[5:] == [b"", b"nothing here"]


async def test_an_unknown_status_needs_no_phrase() -> None:
    async with serving(answering(lambda request: request.respond(599, b"", b""))) as running:
        wire = await running.connect()
        wire.send(GET)
        assert (await wire.reader.readline()) == b"HTTP/1.1 599 \r\n"


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_a_body_has_no_length(status: int) -> None:
    async with serving(answering(lambda request: request.respond(status, b"", b""))) as running:
        wire = await running.connect()
        for _ in range(2):
            answer = await wire.ask(GET)
            assert answer.status == status
            assert b"content-length" not in answer.headers


async def test_head_gets_the_head_alone() -> None:
    async with serving() as running:
        wire = await running.connect()
        wire.send(b"HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await wire.answer(head_only=True)).headers[b"content-length"] == b"8"
        assert (await wire.ask(GET)).body == b"GET /x "


async def test_head_of_a_stream_gets_the_head_alone() -> None:
    def respond(request: Request) -> None:
        stream = request.start(200, b"")
        stream.write(b"body")
        stream.end()

    async with serving(answering(respond)) as running:
        wire = await running.connect()
        wire.send(b"HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await wire.answer(head_only=True)).headers[b"transfer-encoding"] == b"chunked"
        assert (await wire.ask(GET)).body == b"body"


@pytest.mark.parametrize("target", [b"*", b"/x"])
async def test_options_passes_to_the_handler(target: bytes) -> None:
    async with serving() as running:
        wire = await running.connect()
        answer = await wire.ask(b"OPTIONS " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answer.body == b"OPTIONS " + target + b" "


async def test_a_large_answer_arrives_whole() -> None:
    body = bytes(range(256)) * 40_000
    async with serving(answering(lambda request: request.respond(200, b"", body))) as running:
        wire = await running.connect()
        assert (await wire.ask(GET)).body == body
        assert (await wire.ask(GET)).body == body


async def test_a_stream_is_chunked_and_leaves_empty_pieces_out() -> None:
    def respond(request: Request) -> None:
        stream = request.start(200, b"content-type: text/event-stream\r\n")
        for piece in (b"one", b"", b"two"):
            stream.write(piece)
        stream.end()
        stream.end()
        stream.write(b"late")
        stream.abort()

    async with serving(answering(respond)) as running:
        wire = await running.connect()
        for _ in range(2):
            answer = await wire.ask(GET)
            assert answer.body == b"onetwo"
            assert answer.headers[b"content-type"] == b"text/event-stream"
            assert b"content-length" not in answer.headers


async def test_a_stream_that_is_aborted_cannot_be_taken_for_complete() -> None:
    def respond(request: Request) -> None:
        stream = request.start(200, b"")
        stream.write(b"one")
        stream.abort()

    async with serving(answering(respond)) as running:
        wire = await running.connect()
        wire.send(GET)
        assert not (await wire.rest()).endswith(b"0\r\n\r\n")
        wire = await running.connect()
        wire.send(b"GET /x HTTP/1.0\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            await wire.rest()
    assert not running.crashes


async def test_a_request_is_answered_once() -> None:
    async def handler(request: Request) -> None:
        request.respond(200, b"", b"first")
        with pytest.raises(RuntimeError):
            request.respond(200, b"", b"second")
        with pytest.raises(RuntimeError):
            request.start(200, b"")

    async with serving(handler) as running:
        assert (await (await running.connect()).ask(GET)).body == b"first"
    assert not running.crashes


# Requests.


@pytest.mark.parametrize("message", [GET, POST, CHUNKED, b"\r\n" + POST])
@pytest.mark.parametrize("step", [1, 2, 7, 1000])
async def test_a_request_is_the_same_however_its_bytes_arrive(message: bytes, step: int) -> None:
    seen = []

    async def handler(request: Request) -> None:
        body = await request.read_body()
        assert await request.read_body() is body
        seen.append((request.method, request.target, request.headers, body))
        request.respond(200, b"", b"ok")

    async with serving(handler) as running:
        whole = await running.connect()
        await whole.ask(message)
        cut = await running.connect()
        for at in range(0, len(message), step):
            cut.send(message[at : at + step])
            await asyncio.sleep(0)
        assert (await cut.answer()).body == b"ok"
        assert (await cut.ask(GET)).body == b"ok"
    assert seen[0] == seen[1]
    assert b"authorization" not in seen[0][2]


async def test_a_body_that_came_with_its_head_is_there_at_once() -> None:
    bodies = []
    async with serving(
        answering(lambda request: (bodies.append(request.body), request.respond(200, b"", b"")))
    ) as running:
        wire = await running.connect()
        for message in (GET, POST, CHUNKED):
            await wire.ask(message)
    assert bodies == [b"", b"hello", b"hello"]


async def test_a_handler_starts_before_the_body_has_come() -> None:
    started: list[Request] = []

    async def handler(request: Request) -> None:
        assert request.body is None
        started.append(request)
        await echo(request)
        assert request.body == b"hello"

    async with serving(handler) as running:
        wire = await running.connect()
        wire.send(POST[:-5])
        await eventually(lambda: started)
        upload = started[0].upload
        assert upload is not None
        wire.send(b"he")
        await eventually(lambda: upload.size == 2)
        wire.send(b"llo" + POST[:-5])
        assert (await wire.answer()).body == b"POST /x hello"
        wire.send(b"hello")
        assert (await wire.answer()).body == b"POST /x hello"
    assert not running.crashes


@pytest.mark.parametrize("message", [POST, CHUNKED, GET])
@pytest.mark.parametrize("step", [3, 1000])
async def test_a_body_can_be_read_in_pieces(message: bytes, step: int) -> None:
    async def handler(request: Request) -> None:
        pieces = [piece async for piece in request.iter_body()]
        assert all(pieces)
        request.respond(200, b"", b"".join(pieces))

    async with serving(handler) as running:
        wire = await running.connect()
        for at in range(0, len(message), step):
            wire.send(message[at : at + step])
            await asyncio.sleep(0)
        assert (await wire.answer()).body == (b"" if message is GET else b"hello")
        assert (await wire.ask(GET)).status == 200
    assert not running.crashes


# Keep-alive, pipelining, Expect, HTTP/1.0.


async def test_pipelined_requests_are_answered_in_order_one_at_a_time() -> None:
    running_now = 0

    async def handler(request: Request) -> None:
        nonlocal running_now
        running_now += 1
        assert running_now == 1
        await asyncio.sleep(0)
        request.respond(200, b"", request.path)
        await asyncio.sleep(0)
        running_now -= 1

    async with serving(handler) as running:
        wire = await running.connect()
        bodies = [b"", b"Content-Length: 5\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"]
        wire.send(b"".join(b"POST /%d HTTP/1.1\r\nHost: a\r\n%b" % (n, bodies[n % 3] or b"\r\n") for n in range(1000)))
        for n in range(1000):
            assert (await wire.answer()).body == b"/%d" % n
    assert not running.crashes


@pytest.mark.parametrize("end", [b"Connection: close\r\n\r\n", b"Connection: x, Close\r\n\r\n"])
async def test_a_client_that_wants_the_connection_closed_gets_that(end: bytes) -> None:
    async with serving(linger_s=1000) as running:
        wire = await running.connect()
        wire.send(b"GET /x HTTP/1.1\r\nHost: a\r\n" + end + GET)
        assert (await wire.answer()).headers[b"connection"] == b"close"
        assert await wire.rest() == b""


async def test_http_1_0_closes_unless_asked_to_stay() -> None:
    async with serving(linger_s=1000) as running:
        wire = await running.connect()
        for _ in range(2):
            answer = await wire.ask(b"GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert answer.headers[b"connection"] == b"keep-alive"
        answer = await wire.ask(b"GET /x HTTP/1.0\r\n\r\n")
        assert (answer.headers[b"connection"], answer.body) == (b"close", b"GET /x ")
        assert await wire.rest() == b""


async def test_a_stream_for_http_1_0_ends_with_the_connection() -> None:
    def respond(request: Request) -> None:
        stream = request.start(200, b"")
        stream.write(b"one")
        stream.write(b"two")
        stream.end()

    async with serving(answering(respond), linger_s=1000) as running:
        wire = await running.connect()
        answer = await wire.ask(b"GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert answer.body == b"onetwo"
        assert answer.headers[b"connection"] == b"close"
        assert b"transfer-encoding" not in answer.headers


EXPECT = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"


async def test_a_client_is_told_to_continue_when_the_handler_asks_for_the_body() -> None:
    async with serving() as running:
        wire = await running.connect()
        assert (await wire.ask(EXPECT)).status == 100
        assert (await wire.ask(b"hello")).body == b"POST /x hello"
        assert (await wire.ask(GET)).status == 200


async def test_a_client_is_not_told_to_continue_by_a_handler_that_refuses() -> None:
    async with serving(answering(lambda request: request.respond(401, b"", b"who?"))) as running:
        wire = await running.connect()
        answer = await wire.ask(EXPECT)
        assert (answer.status, answer.headers[b"connection"]) == (401, b"close")
        assert await wire.rest() == b""


async def test_a_body_asked_for_after_the_answer_brings_no_interim_answer() -> None:
    async def handler(request: Request) -> None:
        request.respond(200, b"", b"early")
        await request.read_body()

    async with serving(handler) as running:
        wire = await running.connect()
        assert (await wire.ask(EXPECT)).body == b"early"
        wire.send(b"hello")
        assert await wire.rest() == b""


async def test_a_client_that_did_not_wait_is_not_told_to_continue() -> None:
    async with serving() as running:
        wire = await running.connect()
        assert (await wire.ask(EXPECT + b"hello")).status == 200
        assert (await wire.ask(EXPECT.replace(b"1.1", b"1.0", 1) + b"hello")).status == 200


def reads_at_most(limit: int, entered: asyncio.Event, go: asyncio.Event) -> Handler:
    async def handler(request: Request) -> None:
        entered.set()
        await go.wait()
        try:
            body = await request.read_body(limit)
        except BodyTooLarge:
            if request.body is None:  # it did not come with the head
                with pytest.raises(BodyTooLarge):
                    [piece async for piece in request.iter_body()]
            raise
        request.respond(200, b"", body)

    return handler


@pytest.mark.parametrize("late", [0, 2, 5])
@pytest.mark.parametrize("asked_late", [False, True])
@pytest.mark.parametrize("message", [POST, CHUNKED])
async def test_a_handler_has_a_limit_of_its_own(message: bytes, late: int, asked_late: bool) -> None:
    for limit, status in (5, 200), (4, 413):
        entered, go = asyncio.Event(), asyncio.Event()
        async with serving(reads_at_most(limit, entered, go)) as running:
            wire = await running.connect()
            wire.send(message[: len(message) - late])
            await entered.wait()
            if not asked_late:
                go.set()
                await asyncio.sleep(0.005)
            wire.send(message[len(message) - late :])
            if asked_late:
                await asyncio.sleep(0.005)
                go.set()
            assert (await wire.answer()).status == status
        assert not running.crashes


@pytest.mark.parametrize(
    "unfinished",
    [POST[:-1], POST.replace(b"\r\n\r\nhello", b"\r\nExpect: 100-continue\r\n\r\n"), CHUNKS + b"5\r\nhello\r\n"],
)
async def test_a_body_above_the_handlers_limit_is_refused_as_soon_as_that_is_known(unfinished: bytes) -> None:
    go = asyncio.Event()
    go.set()
    async with serving(reads_at_most(4, asyncio.Event(), go)) as running:
        wire = await running.connect()
        assert (await wire.ask(unfinished)).status == 413


async def test_an_unread_body_ends_the_connection_after_the_answer() -> None:
    async with serving(answering(lambda request: request.respond(401, b"", b"who?"))) as running:
        wire = await running.connect()
        wire.send(CHUNKS)
        answer = await wire.answer()
        assert (answer.status, answer.headers[b"connection"]) == (401, b"close")
        wire.send(b"5\r\nhello\r\n0\r\n\r\n" + GET)
        assert await wire.rest() == b""


# Clients that leave.


def hang_up(wire: Wire) -> None:
    wire.writer.close()


def close_sending_side(wire: Wire) -> None:
    wire.writer.write_eof()


def reset(wire: Wire) -> None:
    wire.reset()


@pytest.mark.parametrize("leave", [hang_up, close_sending_side, reset])
async def test_a_client_that_leaves_cancels_its_handler(leave: Callable[[Wire], None]) -> None:
    gate = Gate()
    async with serving(gate) as running:
        wire = await running.connect()
        wire.send(GET)
        request = await gate.entered()
        assert not request.closed
        leave(wire)
        await running.until(connections=0)
        assert gate.cancelled == 1
        assert request.closed
        request.respond(200, b"", b"to nobody")
    assert not running.crashes


@pytest.mark.parametrize("leave", [hang_up, close_sending_side, reset])
async def test_a_handler_that_wants_to_be_told_goes_on_when_its_client_leaves(leave: Callable[[Wire], None]) -> None:
    gate = Gate()
    told: list[bool] = []
    async with serving(gate) as running:
        wire = await running.connect()
        wire.send(GET)
        request = await gate.entered()
        request.on_gone = lambda: told.append(request.closed)
        leave(wire)
        await eventually(lambda: told == [True])
        assert (gate.cancelled, running.server.connections) == (0, 1)
        draining = asyncio.create_task(running.server.drain(5))
        assert await asyncio.wait({draining}, timeout=0.05) == (set(), {draining}), "a drain waits for it"
        gate.open.set_result(None)
        await draining
        assert (told, running.server.connections) == ([True], 0)
    assert not running.crashes


@pytest.mark.parametrize("message", [POST[:-2], CHUNKS + b"5\r\nhe"])
@pytest.mark.parametrize("leave", [hang_up, reset])
async def test_a_client_that_leaves_inside_its_body_cancels_the_reading(
    message: bytes, leave: Callable[[Wire], None]
) -> None:
    entered: list[Request] = []
    endings = []

    async def handler(request: Request) -> None:
        entered.append(request)
        try:
            await request.read_body()
        except asyncio.CancelledError:
            endings.append("cancelled")
            with pytest.raises(asyncio.CancelledError):
                await request.read_body()
            raise

    async with serving(handler) as running:
        wire = await running.connect()
        wire.send(message)
        await eventually(lambda: entered)
        leave(wire)
        await running.until(connections=0)
    assert endings == ["cancelled"]


async def test_a_handler_that_has_answered_may_finish_after_the_client_has_left() -> None:
    finished = []

    async def handler(request: Request) -> None:
        request.respond(200, b"", b"ok")
        while not request.closed:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        finished.append(True)

    async with serving(handler) as running:
        wire = await running.connect()
        await wire.ask(GET)
        wire.writer.close()
        await running.until(connections=0)
        assert finished


async def test_a_client_that_leaves_cancels_whoever_waits_for_its_body() -> None:
    tasks: list[asyncio.Task[bytes]] = []

    async def handler(request: Request) -> None:
        tasks.append(asyncio.create_task(request.read_body()))
        await asyncio.shield(tasks[0])

    async with serving(handler) as running:
        wire = await running.connect()
        wire.send(POST[:-1])
        await eventually(lambda: tasks)
        wire.reset()
        await eventually(lambda: tasks[0].done())
        assert tasks[0].cancelled()


async def test_a_task_of_the_process_may_write_on_to_a_client_that_has_left() -> None:
    tasks = []

    async def pump(request: Request) -> None:
        stream = request.start(200, b"")
        while not request.closed:
            stream.write(b"x")
            await stream.drained()
            await asyncio.sleep(0)
        stream.write(b"x")
        await stream.drained()
        stream.end()

    async def handler(request: Request) -> None:
        tasks.append(asyncio.create_task(pump(request)))
        await asyncio.shield(tasks[0])

    async with serving(handler) as running:
        wire = await running.connect()
        wire.send(GET)
        await wire.reader.readuntil(b"x")
        wire.reset()
        await running.until(connections=0)
        await asyncio.wait_for(tasks[0], 5)
    assert not running.crashes


async def test_clients_may_reset_at_any_moment() -> None:
    async def handler(request: Request) -> None:
        stream = request.start(200, b"")
        for _ in range(5):
            stream.write(b"x" * 50_000)
            await asyncio.sleep(0)
        stream.end()

    async with serving(handler) as running:
        for turns in range(40):
            for message in (GET, POST[:-1], GET * 3, GET[:-2], b"GET /x HTTP/1.0\r\n\r\n"):
                wire = await running.connect()
                wire.send(message)
                for _ in range(turns // 2):
                    await asyncio.sleep(0)
                wire.reset()
        await running.until(connections=0)
        gc.collect()  # a task that failed says so when it is forgotten
    assert not running.crashes


class BrokenTransport(asyncio.Transport):
    """What uvloop's is between a failed write and connection_lost."""

    def is_closing(self) -> bool:
        return True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        raise RuntimeError("the handle is closed")

    def resume_reading(self) -> None:
        raise RuntimeError("the handle is closed")

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None: ...
    def abort(self) -> None: ...
    def pause_reading(self) -> None: ...
    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...
    def write(self, data: object) -> None: ...


@pytest.mark.parametrize("data", [GET[:-2], b"nonsense\r\n\r\n", GET.replace(b"1.1", b"1.0"), GET])
async def test_a_connection_whose_write_has_failed_is_left_alone(data: bytes) -> None:
    async with serving() as running:
        connection = Connection(running.server)
        connection.connection_made(BrokenTransport())
        connection.data_received(data)
        if data == GET:
            connection.data_received(b"GET /" + b"x" * 65_536)  # held, and more than we want to hold
        for _ in range(3):
            await asyncio.sleep(0)
        running.pass_time(11)
        connection.connection_lost(None)
        gc.collect()
    assert not running.crashes


async def test_a_request_and_its_end_in_one_packet_start_nothing() -> None:
    gate = Gate()
    async with serving(gate) as running:
        wire = await running.connect()
        wire.send(GET)
        wire.writer.write_eof()
        assert await wire.rest() == b""
        await running.until(connections=0)
        assert gate.cancelled == len(gate.requests)


# Handlers that fail.


async def test_an_error_of_the_message_is_worded_by_the_gateway() -> None:
    async def handler(request: Request) -> None:
        raise BodyTooLarge("the body is too large")

    async with serving(handler) as running:
        wire = await running.connect()
        answer = await wire.ask(GET)
        assert (answer.status, answer.body) == (413, b"the body is too large")
        assert answer.headers[b"x-request-id"] == b"made-up"
    assert not running.crashes


async def test_a_crash_is_a_bare_500_and_is_reported() -> None:
    async def handler(request: Request) -> None:
        raise ValueError("secret detail")

    async with serving(handler) as running:
        wire = await running.connect()
        for _ in range(2):
            answer = await wire.ask(GET)
            assert (answer.status, answer.body) == (500, b"internal error")
    assert [str(crash) for crash in running.crashes] == ["secret detail"] * 2


@pytest.mark.parametrize("respond", [lambda r: r.respond(200, "no bytes", b""), lambda r: r.start(200, "no bytes")])
async def test_an_answer_that_cannot_be_written_is_a_crash_like_others(respond: Callable[[Request], None]) -> None:
    async with serving(answering(respond)) as running:
        wire = await running.connect()
        assert (await wire.ask(GET)).status == 500
    assert isinstance(running.crashes[0], TypeError)


async def test_every_answer_to_a_request_has_the_lines_that_were_asked_for_it() -> None:
    async def handler(request: Request) -> None:
        request.lines = b"x-for: %b\r\n" % request.path
        if request.path == b"/crash":
            raise RuntimeError
        if request.path == b"/body":
            await request.read_body(1)
        elif request.path == b"/stream":
            request.start(200, b"x-own: 1\r\n").end()
        elif request.path != b"/none":
            request.respond(204 if request.path == b"/bodiless" else 200, b"x-own: 1\r\n", b"hi")

    async with serving(handler) as running:
        wire = await running.connect()
        for path in (b"/whole", b"/bodiless", b"/stream", b"/crash", b"/none", b"/body"):
            answer = await wire.ask(POST.replace(b"/x", path))
            assert answer.headers[b"x-for"] == path
        other = await running.connect()
        assert b"x-for" not in (await other.ask(b"nonsense\r\n\r\n")).headers


@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        (b"nonsense\r\n\r\nmore", b"nonsense\r\n\r\n"),
        (b"GET /x HTTP/1.1\r\nX: " + b"y" * 1000, b"GET /x HTTP/1.1\r\nX: " + b"y" * 1000),
        (b"GET /x HTTP/1.1\nX: y", b"GET /x HTTP/1.1\nX: y"),
    ],
)
@pytest.mark.parametrize("earlier", [b"", GET])
async def test_an_answer_to_a_broken_head_may_depend_on_what_came_of_it(
    sent: bytes, seen: bytes, earlier: bytes
) -> None:
    heads = []

    def lines(head: bytes) -> bytes:
        heads.append(head)
        return b"x-for: the broken\r\n"

    async with serving(max_head=500) as running:
        running.server.lines_for_refused = lines
        wire = await running.connect()
        wire.send(earlier + sent)
        if earlier:
            assert b"x-for" not in (await wire.answer()).headers
        answer = await wire.answer()
        assert (answer.headers[b"x-for"], answer.headers[b"connection"]) == (b"the broken", b"close")
    assert heads == [seen]


async def test_a_crash_in_mid_answer_cuts_the_connection() -> None:
    async def handler(request: Request) -> None:
        request.start(200, b"").write(b"half")
        raise ValueError

    async with serving(handler) as running:
        wire = await running.connect()
        wire.send(GET)
        assert b"0\r\n\r\n" not in await wire.rest()
    assert len(running.crashes) == 1


@pytest.mark.parametrize("begun", [True, False])
async def test_a_handler_that_ends_without_an_answer_has_crashed(begun: bool) -> None:
    async def handler(request: Request) -> None:
        if begun:
            request.start(200, b"")

    async with serving(handler) as running:
        wire = await running.connect()
        wire.send(GET)
        if begun:
            assert b"0\r\n\r\n" not in await wire.rest()
        else:
            assert (await wire.answer()).status == 500
    assert len(running.crashes) == 1


async def test_a_handler_that_cancels_itself_cuts_the_connection() -> None:
    async def handler(request: Request) -> None:
        raise asyncio.CancelledError

    async with serving(handler) as running:
        wire = await running.connect()
        wire.send(GET)
        assert await wire.rest() == b""
        await running.until(connections=0)


# Sockets.


async def test_it_serves_on_a_unix_socket(tmp_path: Path) -> None:
    async with serving(path=str(tmp_path / "s")) as running:
        assert running.server.port == 0
        wire = await running.connect()
        assert (await wire.ask(POST)).body == b"POST /x hello"


async def test_it_knows_its_port() -> None:
    async with serving() as running:
        assert running.server.port == running.address[1] != 0
        assert (await (await running.connect()).ask(GET)).status == 200


async def test_it_serves_over_tls() -> None:
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(tls)
    trust = ssl.create_default_context()
    authority.configure_trust(trust)

    async def handler(request: Request) -> None:
        body = await request.read_body()
        stream = request.start(200, b"")
        stream.write(body * 100_000)
        stream.end()

    async with serving(handler, tls=tls, linger_s=1000) as running:
        last = await running.connect(trust)
        assert len((await last.ask(b"GET /x HTTP/1.0\r\n\r\n")).body) == 0
        assert await last.rest() == b""
        wire = await running.connect(trust)
        assert len((await wire.ask(POST)).body) == 500_000
        assert len((await wire.ask(CHUNKED)).body) == 500_000
        refused = await running.connect(trust)
        assert (await refused.ask(b"nonsense\r\n\r\n")).status == 400
        refused.writer.close()
        plain = await running.connect()
        plain.send(GET)
        await plain.rest()
        wire.writer.close()
        await running.until(connections=0)


# Drain.


async def test_a_drain_closes_the_idle_and_lets_the_running_finish() -> None:
    gate = Gate()
    async with serving(gate) as running:
        idle = await running.connect()
        busy = await running.connect()
        busy.send(GET)
        await gate.entered()
        await running.until(connections=2)
        drain = asyncio.create_task(running.server.drain(60))
        assert await idle.rest() == b""
        with pytest.raises(ConnectionRefusedError):
            await running.connect()
        assert not drain.done()
        gate.open.set_result(None)
        answer = await busy.answer()
        assert (answer.body, answer.headers[b"connection"]) == (b"done", b"close")
        assert await busy.rest() == b""
        busy.writer.close()
        await asyncio.wait_for(drain, 5)
    assert gate.cancelled == 0


async def test_a_drain_ends_a_kept_connection_whose_answer_had_begun() -> None:
    gate = asyncio.Event()

    async def handler(request: Request) -> None:
        stream = request.start(200, b"")
        stream.write(b"begun")
        await gate.wait()
        stream.end()

    async with serving(handler) as running:
        wire = await running.connect()
        wire.send(GET + GET)
        await wire.reader.readuntil(b"begun")
        drain = asyncio.create_task(running.server.drain(60))
        await asyncio.sleep(0)
        gate.set()
        assert await wire.rest() == b"\r\n0\r\n\r\n"
        wire.writer.close()
        await asyncio.wait_for(drain, 5)


async def test_a_drain_waits_until_the_last_answer_is_read() -> None:
    async def handler(request: Request) -> None:
        request.respond(200, b"", b"x" * 1_000_000)

    async with serving(handler, send_buffer=4096) as running:
        wire = await running.connect(receive_buffer=4096)
        wire.send(GET)
        await wire.reader.read(1)
        drain = asyncio.create_task(running.server.drain(60))
        await asyncio.sleep(0)
        assert (await wire.rest()).endswith(b"x" * 1_000_000)
        wire.writer.close()
        await asyncio.wait_for(drain, 5)


async def test_a_drain_is_cut_when_its_time_is_over_or_a_second_one_is_shorter() -> None:
    gate = Gate()
    async with serving(gate) as running:
        wire = await running.connect()
        wire.send(GET)
        await gate.entered()
        first = asyncio.create_task(running.server.drain(60))
        await asyncio.sleep(0)
        await running.server.drain(0.01)
        await asyncio.wait_for(first, 5)
        assert gate.cancelled == 1
        assert running.server.connections == 0


async def test_a_drain_waits_for_what_cancelled_handlers_still_do() -> None:
    entered: list[Request] = []
    settled = []

    async def handler(request: Request) -> None:
        entered.append(request)
        try:
            await asyncio.sleep(3600)
        finally:
            for _ in range(10):
                await asyncio.sleep(0)
            settled.append(True)

    async with serving(handler) as running:
        wire = await running.connect()
        wire.send(GET)
        await eventually(lambda: entered)
        await running.server.drain(0)
        assert settled


@pytest.mark.parametrize("head", [b"GET / HTTP/1.1\nhost: x\n\n", b"GET / HTTP/1.1\r\nhost: x\r\n\n"])
async def test_a_head_with_bare_line_feeds_is_refused_at_once(head: bytes) -> None:
    async with serving() as running:
        wire = await running.connect()
        wire.send(head)
        assert (await wire.answer()).status == 400
