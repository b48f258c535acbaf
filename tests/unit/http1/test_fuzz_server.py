"""Any bytes, cut anywhere: whole answers that an independent parser accepts, then the end; no exception anywhere."""

import asyncio
from collections.abc import Iterator

import h11
import hypothesis.strategies as st
import uvloop
from hypothesis import example, given
from serving import Serving, Wire, serving

from tollway.http1.exchange import Request

LINES = [b"GET /a HTTP/1.1", b"POST /b?c HTTP/1.1", b"HEAD /d HTTP/1.1", b"OPTIONS * HTTP/1.0", b"PUT /e HTTP/1.0"]
LINES += [b"GET http://a/b HTTP/1.1", b"POST HTTPS://[::1]:80 HTTP/1.1", b"GET http:// HTTP/1.1"]
HEADERS = [
    b"Host: a",
    b"Content-Length: 5",
    b"Transfer-Encoding: chunked",
    b"Connection: close",
    b"Connection: keep-alive",
]
HEADERS += [
    b"Expect: 100-continue",
    b"Upgrade: h2c",
    b"Content-Encoding: gzip",
    b"Content-Length: 99999999",
    b"X: \xff",
]
BODIES = [
    b"hello",
    b"5\r\nhello\r\n",
    b"0\r\n\r\n",
    b"3;x=y\r\nabc\r\n0\r\nA: b\r\n\r\n",
    b"fffffffff\r\n",
    b"2\r\nabc\r\n",
]
ENDS = [b"\r\n", b"\r\n\r\n", b"\n", b"\r"]

whole_requests = st.sampled_from(
    [
        b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n1\r\nd\r\n0\r\nA: b\r\n\r\n",
        b"POST /d HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
        b"HEAD /stream HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /stream HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
    ]
)
refused_requests = st.sampled_from(
    [
        b"POST /f HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n",
        b"POST /g HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\nfff\r\n",
        b"POST /h HTTP/1.1\r\nHost: a\r\nContent-Encoding: br\r\nContent-Length: 2\r\n\r\nab",
        b"POST /i HTTP/1.1\r\nHost: a\r\nExpect: more\r\n\r\n",
        b"GET /j HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 2000,
    ]
)
parts = st.sampled_from(LINES + HEADERS + BODIES + ENDS) | st.binary(max_size=6)
lines = st.sampled_from(LINES + HEADERS).map(lambda line: line + b"\r\n")
conversations = st.lists(whole_requests | refused_requests | lines | parts, max_size=12).map(b"".join)
cuts = st.lists(st.integers(1, 60), max_size=8)


async def handler(request: Request) -> None:
    body = await request.read_body()
    if request.path != b"/stream":
        request.respond(200, b"", request.method + b" " + body)
        return
    stream = request.start(200, b"")
    stream.write(b"one")
    await asyncio.sleep(0)
    stream.write(b"two")
    stream.end()


def answers(raw: bytes, methods: Iterator[bytes]) -> list[tuple[int, bytes]]:
    """Status and body of each answer, as h11 reads it; it raises on anything else."""
    found = []
    while raw:
        reader = h11.Connection(h11.CLIENT)
        reader.send(h11.Request(method=next(methods, b"GET"), target="/", headers=[("host", "a")]))
        reader.send(h11.EndOfMessage())
        reader.receive_data(raw)
        reader.receive_data(b"")
        status, body = 0, b""
        while not isinstance(event := reader.next_event(), h11.EndOfMessage):
            assert event is not h11.NEED_DATA
            if isinstance(event, h11.Response):
                status = event.status_code
                closing = (b"connection", b"close") in event.headers
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
        found.append((status, body))
        raw = reader.trailing_data[0]
        assert not (closing and raw)
    return found


async def converse(running: Serving, pieces: list[bytes]) -> bytes:
    """Send the pieces, let every deadline pass, return all that came back."""
    wire: Wire = await running.connect()
    reading = asyncio.create_task(wire.rest())
    for piece in pieces:
        wire.send(piece)
        await asyncio.sleep(0)
    for _ in range(50):  # until a body, a head or an idle connection has run out of time
        for _ in range(8):
            await asyncio.sleep(0)
        if reading.done():
            break
        running.pass_time(100)
    raw = await reading
    wire.writer.close()
    return raw


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [*pieces, data]


@given(conversations, cuts)
@example(b"GET /stream HTTP/1.0\r\n\r\n" * 2, [3])
@example(b"OPTIONS * HTTP/1.0\r\n\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n", [22])
@example(b"GET /a HTTP/1.1\r\nHost: a\n" + b"x" * 2000 + b"\r\n\r\n", [25, 1])
@example(b"\rGET /a HTTP/1.1\r\nHost: a\r\n\r\n", [])
@example(b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET", [48, 2])
@example(b"POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX", [])
def test_any_bytes_bring_whole_answers_and_then_the_end(data: bytes, sizes: list[int]) -> None:
    methods: list[bytes] = []

    async def recording(request: Request) -> None:
        methods.append(request.method)
        await handler(request)

    async def run() -> None:
        conversations = []
        async with serving(recording, max_head=2000, max_body=1000) as running:
            for pieces in ([data], cut(data, sizes)):
                methods.clear()
                raw = await converse(running, pieces)
                conversations.append((list(methods), answers(raw, iter(methods))))
        assert not running.crashes
        one, other = conversations
        assert one == other, "the answers depend on where the bytes were cut"
        assert len(one[0]) <= len(one[1]) <= len(one[0]) + 1, "one answer per request, and one more for a refusal"
        assert all(status in (200, 400, 408, 413, 414, 415, 417, 431) for status, _ in one[1])

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


@given(st.lists(whole_requests, min_size=1, max_size=10), cuts)
def test_good_requests_are_all_answered_however_they_are_cut(requests: list[bytes], sizes: list[int]) -> None:
    methods = [request.split(b" ")[0] for request in requests]

    async def run() -> None:
        async with serving(handler) as running:
            found = answers(await converse(running, cut(b"".join(requests), sizes)), iter(methods))
            assert [status for status, _ in found] == [200] * len(requests)
        assert not running.crashes

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
