"""What happens where there is no room: bodies, answers, slow readers, connections to upstreams."""

import asyncio
import errno
import os
import resource
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trustme
from scripted_upstream import POST, answer, read, scripted, send, then, until
from serving import Wire, eventually, serving
from test_client import fetch, fresh_client, soon

from tollway.http1.budget import COUNTED, WINDOW_S, Budget
from tollway.http1.errors import ConnectFailed, NoRoom
from tollway.http1.exchange import Request
from tollway.http1.limits import ClientLimits
from tollway.http1.origin import Origin

MIB = 1 << 20
HEAD = b"POST /x HTTP/1.1\r\nHost: a\r\n"
GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def head_of(size: int, more: bytes = b"") -> bytes:
    return HEAD + b"Content-Length: %d\r\n%b\r\n" % (size, more)


async def length(request: Request) -> None:
    request.respond(200, b"", b"%d" % len(await request.read_body()))


async def let_time_pass(running: Any, windows: int = 2) -> None:
    """So long that whoever does not move is seen not to."""
    for _ in range(windows):
        await asyncio.sleep(0.01)
        running.pass_time(WINDOW_S + 0.1)


# Heads


BEGUN = HEAD + b"X-Long: "


async def begin_head(running: Any, size: int) -> Wire:
    wire: Wire = await running.connect()
    wire.send(BEGUN + b"x" * (size - len(BEGUN)))
    return wire


@pytest.mark.parametrize("size", [COUNTED, COUNTED + 1, 60_000])
async def test_a_head_counts_until_it_is_complete(size: int) -> None:
    budget = Budget()
    async with serving(length, budget=budget) as running:
        wire = await begin_head(running, size)
        await eventually(lambda: running.server.connections == 1)
        await eventually(lambda: held_of(running) == size)
        assert budget.held == (size if size > COUNTED else 0)
        assert (await wire.ask(b"\r\nContent-Length: 2\r\n\r\nab")).body == b"2"
        assert budget.held == 0
        wire.send(GET[:5])
        wire.send(b"x" * 60_000)
        await eventually(lambda: budget.held)
        wire.reset()
        await eventually(lambda: budget.held == 0)


def held_of(running: Any) -> int:
    """How much of a head the only connection holds."""
    (connection,) = running.server._connections
    return len(connection._held or b"")


@pytest.mark.parametrize("end", [b"x" * 10_000, b"\n\n"], ids=["too large", "malformed"])
async def test_a_head_that_is_refused_counts_no_more(end: bytes) -> None:
    budget = Budget()
    async with serving(length, budget=budget) as running:
        wire = await begin_head(running, 60_000)
        await eventually(lambda: budget.held == 60_000)
        assert (await wire.ask(end)).status in (400, 431)
        assert budget.held == 0


async def test_heads_that_come_too_late_count_no_more() -> None:
    budget = Budget()
    async with serving(length, budget=budget) as running:
        wire = await begin_head(running, 60_000)
        await eventually(lambda: budget.held == 60_000)
        running.pass_time(100)
        assert (await wire.answer()).status == 408
        assert budget.held == 0


async def test_a_head_that_would_grow_large_is_refused_where_there_is_no_room() -> None:
    budget = Budget(4 * MIB)
    room = budget.take(4 * MIB - 50_000)
    async with serving(length, budget=budget) as running:
        first = await begin_head(running, 40_000)
        await eventually(lambda: budget.held == 4 * MIB - 10_000)
        second, small = await begin_head(running, 40_000), await begin_head(running, COUNTED)
        refused = await second.answer()
        assert (refused.status, refused.headers[b"connection"]) == (503, b"close")
        assert budget.refused == 1
        assert (await small.ask(b"\r\nContent-Length: 1\r\n\r\na")).body == b"1", "what is small goes on"
        first.send(b"x" * 20_000)
        assert (await first.answer()).status == 503
        assert budget.held == room.size
        room.release()


async def test_heads_that_trickle_make_room() -> None:
    budget = Budget(4 * MIB)
    async with serving(length, budget=budget, head_timeout_s=1000) as running:
        strangers = [await begin_head(running, 60_000) for _ in range(60)]
        await eventually(lambda: budget.held == 60 * 60_000)
        await let_time_pass(running, 3)
        newcomer = await running.connect()
        newcomer.send(head_of(MIB))
        assert (await newcomer.answer()).status == 503, "there is no room yet"
        running.pass_time(0.1)
        assert (await (await running.connect()).ask(head_of(MIB) + b"x" * MIB)).status == 200
        assert (await strangers[0].answer()).status == 503


# Bodies


async def test_a_body_that_does_not_fit_is_refused_before_it_is_read() -> None:
    budget = Budget(4 * MIB)
    async with serving(length, budget=budget) as running:
        first = await running.connect()
        first.send(head_of(3 * MIB) + b"x")
        await eventually(lambda: budget.held == 3 * MIB)
        for more in (b"", b"Expect: 100-continue\r\n"):
            second = await running.connect()
            second.send(head_of(2 * MIB, more))
            refused = await second.answer()
            assert (refused.status, refused.headers[b"connection"]) == (503, b"close")
        assert budget.refused == 2
        assert (await (await running.connect()).ask(head_of(MIB) + b"x" * MIB)).body == b"%d" % MIB
        first.send(b"x" * (3 * MIB - 1))
        assert (await first.answer()).body == b"%d" % (3 * MIB)
        await eventually(lambda: budget.held == 0)


async def test_a_body_of_unknown_length_is_refused_when_there_is_no_room_for_more_of_it() -> None:
    budget = Budget(4 * MIB)
    async with serving(length, budget=budget) as running:
        wire = await running.connect()
        wire.send(CHUNKED + (b"100000\r\n" + b"x" * MIB + b"\r\n") * 5)
        assert (await wire.answer()).status == 503
        assert budget.peak <= 4 * MIB


@pytest.mark.parametrize("size", [COUNTED, COUNTED + 1, 10 * COUNTED])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_counts_for_as_long_as_its_handler_runs(size: int, chunked: bool) -> None:
    seen: list[Request] = []
    go: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def handler(request: Request) -> None:
        body = await request.read_body()
        seen.append(request)
        await go
        request.respond(200, b"", b"%d" % len(body))

    budget = Budget()
    async with serving(handler, budget=budget) as running:
        wire = await running.connect()
        message = CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"x" * size) if chunked else head_of(size) + b"x" * size
        wire.send(message)
        await eventually(lambda: seen)
        assert budget.held == (size if size > COUNTED else 0)
        go.set_result(None)
        assert (await wire.answer()).body == b"%d" % size
        await eventually(lambda: budget.held == 0)


async def test_what_a_handler_keeps_of_a_body_counts_and_may_find_no_room() -> None:
    kept: list[int] = []

    async def handler(request: Request) -> None:
        size = 0
        async for piece in request.iter_body():
            size += len(piece)
            kept.append(size)
            request.keeps(size)

    budget = Budget(4 * MIB)
    async with serving(handler, budget=budget) as running:
        wire = await running.connect()
        wire.send(head_of(16 * MIB))
        wire.writer.write(b"x" * 8 * MIB)
        assert (await wire.answer()).status == 503
        assert 3 * MIB < kept[-1] <= 4 * MIB + 512 * 1024


async def test_bodies_that_trickle_make_room_the_slowest_first() -> None:
    budget = Budget(8 * MIB)
    async with serving(length, budget=budget, min_rate=1) as running:
        slow, slower, quick = [await running.connect() for _ in range(3)]
        for wire in (slow, slower, quick):
            wire.send(head_of(2 * MIB) + b"x" * MIB)
        await eventually(lambda: budget.held == 6 * MIB)
        await let_time_pass(running)
        newcomer = await running.connect()
        newcomer.send(head_of(3 * MIB))
        assert (await newcomer.answer()).status == 503, "there is no room yet"
        quick.send(b"x" * (MIB // 2))
        slow.send(b"xx")
        await asyncio.sleep(0.02)
        running.pass_time(WINDOW_S)
        assert (await slower.answer()).status == 503
        newcomer = await running.connect()
        assert (await newcomer.ask(head_of(3 * MIB) + b"x" * 3 * MIB)).status == 200
        for wire, left in ((slow, MIB - 2), (quick, MIB // 2)):
            wire.send(b"x" * left)
            assert (await wire.answer()).body == b"%d" % (2 * MIB)


async def test_a_body_that_we_made_wait_is_not_slow() -> None:
    go: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    requests: list[Request] = []

    async def handler(request: Request) -> None:
        requests.append(request)
        await go
        request.respond(200, b"", b"%d" % sum([len(piece) async for piece in request.iter_body()]))

    budget = Budget(2 * COUNTED)
    async with serving(handler, budget=budget) as running:
        wire = await running.connect()
        wire.send(head_of(MIB) + b"x" * MIB)
        await eventually(lambda: requests and not requests[0]._connection.transport.is_reading())
        assert budget.full
        await let_time_pass(running, 4)
        go.set_result(None)
        assert (await wire.answer()).body == b"%d" % MIB


# Readers


SMALL: dict[str, Any] = {"send_buffer": 4096}


async def unread(running: Any, message: bytes = GET) -> Wire:
    wire = await running.connect(receive_buffer=4096)
    wire.send(message)
    await wire.reader.read(1)
    return wire


async def test_an_answer_counts_until_its_client_has_taken_it() -> None:
    async def handler(request: Request) -> None:
        request.respond(200, b"", b"x" * 4 * MIB)

    budget = Budget()
    async with serving(handler, budget=budget, **SMALL) as running:
        wire = await unread(running)
        await eventually(lambda: budget.held > 3 * MIB)
        left = budget.held
        await wire.reader.readexactly(3 * MIB)
        running.pass_time(0)
        assert budget.held < left - 2 * MIB
        await wire.reader.readexactly(MIB)
        await eventually(lambda: budget.held == 0)


async def test_readers_that_take_nothing_make_room() -> None:
    async def handler(request: Request) -> None:
        stream = request.start(200, b"")
        while not stream.paused:
            stream.write(b"x" * 10_000)
            await asyncio.sleep(0)
        await stream.drained()
        if not request.closed:
            stream.end()

    budget = Budget(MIB)
    async with serving(handler, budget=budget, **SMALL) as running:
        wires = [await unread(running) for _ in range(20)]
        await eventually(lambda: budget.full)
        await let_time_pass(running)
        await eventually(lambda: running.server.connections < 20)
        assert not budget.full
        assert running.server.connections >= 10, "and no more than it takes"
        wires.clear()


async def test_a_reader_that_goes_on_is_not_slow() -> None:
    async def handler(request: Request) -> None:
        request.respond(200, b"connection: close\r\n", b"x" * 2 * MIB)

    budget = Budget(MIB)
    async with serving(handler, budget=budget, **SMALL) as running:
        wire = await unread(running)
        taken = 1
        while taken < MIB:
            taken += len(await wire.reader.readexactly(200_000))
            assert budget.full
            running.pass_time(WINDOW_S + 0.1)
        assert budget.given_up == 0
        await wire.reader.readexactly(MIB // 2)


async def test_requests_that_wait_for_their_turn_count() -> None:
    go: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def handler(request: Request) -> None:
        await asyncio.shield(go)
        request.respond(200, b"", b"")

    budget = Budget()
    count = 30_000
    async with serving(handler, budget=budget) as running:
        wire = await running.connect()
        wire.send(GET * count)
        await eventually(lambda: budget.held > 64 * 1024)
        go.set_result(None)
        answers = 0
        while answers < count:
            answers += (await wire.reader.readuntil(b"\r\n\r\n")).count(b"HTTP/1.1 200")
        await eventually(lambda: budget.held == 0)


# Answers


@pytest.mark.parametrize("streamed", [False, True])
async def test_answers_wait_for_room_and_all_of_them_come(streamed: bool) -> None:
    budget = Budget(2 * MIB)
    body = b"x" * MIB
    count = 8
    script = [read, send(answer(body))]

    async def ask(client: Any, origin: Origin) -> int:
        if not streamed:
            reply = await client.fetch(origin, POST, deadline=soon(10))
            try:
                return len(reply.body)
            finally:
                reply.close()
        response = await client.open(origin, POST, deadline=soon(10))
        try:
            return len(await response.read_all(2 * MIB))
        finally:
            response.close()

    async with scripted(*[script] * count) as upstream, fresh_client(budget) as client:
        asked = [ask(client, upstream.origin) for _ in range(count)]
        assert await asyncio.gather(*asked) == [MIB] * count
        assert budget.peak < 5 * MIB, "the limit, one beyond it, and a read for each"


async def test_an_answer_that_trickles_makes_room() -> None:
    budget = Budget(MIB)
    began, go = asyncio.Event(), asyncio.Event()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (2 * MIB)
    async with (
        scripted([read, send(head + b"x" * MIB), then(began), until(go)]) as upstream,
        fresh_client(budget) as client,
    ):
        asked = asyncio.ensure_future(fetch(client, upstream.origin))
        await began.wait()
        await eventually(lambda: budget.full)
        for number in range(3):
            assert not asked.done()
            budget.sweep(number * WINDOW_S)
        with pytest.raises(NoRoom):
            await asked
        go.set()
        await upstream.gone()


async def test_a_large_request_counts_until_its_answer_has_come() -> None:
    budget = Budget()
    message = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (MIB, b"x" * MIB)
    asked, go = asyncio.Event(), asyncio.Event()
    async with scripted([read, then(asked), until(go), send(answer())]) as upstream, fresh_client(budget) as client:
        asking = asyncio.ensure_future(fetch(client, upstream.origin, message))
        await asked.wait()
        assert budget.held == len(message)
        go.set()
        await asking
        assert budget.held == 0


async def test_what_an_upstream_does_not_take_of_an_upload_counts() -> None:
    budget = Budget()
    go = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b"x" * MIB

    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (64 * MIB)
    async with scripted([until(go), read, send(answer())]) as upstream, fresh_client(budget) as client:
        asking = asyncio.ensure_future(client.open_upload(upstream.origin, head, pieces(), deadline=soon(20)))
        await eventually(lambda: budget.held > 0)
        assert budget.held < 2 * MIB
        go.set()
        response = await asking
        assert budget.held == 0
        response.close()


async def test_what_a_caller_keeps_of_a_stream_counts() -> None:
    budget = Budget()
    async with scripted([read, send(answer(b"x" * MIB))]) as upstream, fresh_client(budget) as client:
        response = await client.open(upstream.origin, POST, deadline=soon())
        while await response.read():
            pass
        assert budget.held == 0
        response.keeps(MIB)
        assert budget.held == MIB
        response.keeps(100)
        assert budget.held == 100
        response.keeps(MIB)
        response.close()
        assert budget.held == 0


# Clients that have yet to shake hands


def authority_and_tls() -> tuple[trustme.CA, ssl.SSLContext]:
    authority, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(tls)
    return authority, tls


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def test_clients_that_never_shake_hands_count_and_make_room() -> None:
    authority, tls = authority_and_tls()
    context = trusting(authority)
    async with serving(length, tls=tls, max_connections=4) as running:
        silent = []
        for number in range(4):
            silent.append(await running.connect())
            await running.until(connections=number + 1)
            await asyncio.sleep(0.003)  # the loop's clock counts milliseconds
        for goes in silent[:3]:
            wire = await running.connect(context)
            assert (await wire.ask(GET)).status == 200
            assert await goes.rest() == b""
            await running.until(connections=4)
        assert (await wire.ask(GET)).status == 200, "an old one goes on"
        assert running.server.closed_for_room == 3


async def test_a_handshake_that_fails_is_forgotten() -> None:
    _, tls = authority_and_tls()
    async with serving(length, tls=tls) as running:
        wrong = await running.connect()
        wrong.send(GET)
        assert not (await wrong.rest()).startswith(b"HTTP")
        gone = await running.connect()
        await running.until(connections=1)
        gone.reset()
        await running.until(connections=0)


async def test_a_handshake_that_is_not_over_in_time_is_forgotten() -> None:
    _, tls = authority_and_tls()
    async with serving(length, tls=tls, head_timeout_s=0.05) as running:
        wire = await running.connect()
        assert await wire.rest() == b""
        await running.until(connections=0)


async def test_where_all_are_at_work_a_client_is_not_even_greeted() -> None:
    authority, tls = authority_and_tls()
    context = trusting(authority)
    go: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    requests: list[Request] = []

    async def handler(request: Request) -> None:
        requests.append(request)
        await go
        request.respond(200, b"", b"")

    async with serving(handler, tls=tls, max_connections=1) as running:
        wire = await running.connect(context)
        wire.send(GET)
        await eventually(lambda: requests)
        assert await (await running.connect()).rest() == b""
        assert running.server.refused == 1
        go.set_result(None)
        assert (await wire.answer()).status == 200


async def test_a_drain_ends_handshakes_and_frees_the_port() -> None:
    _, tls = authority_and_tls()
    async with serving(length, tls=tls) as running:
        wires = [await running.connect() for _ in range(3)]
        await running.until(connections=3)
        await running.server.drain(1)
        assert running.server.connections == 0
        for wire in wires:
            assert await wire.rest() == b""
        await asyncio.sleep(0.01)
        with pytest.raises(ConnectionRefusedError):
            await running.connect()


# Connections to upstreams


async def test_connections_to_upstreams_have_a_bound() -> None:
    go = asyncio.Event()
    script = [read, until(go), send(answer())]
    async with (
        scripted(script, script) as upstream,
        fresh_client(limits=ClientLimits(max_connections=2)) as client,
    ):
        asked = [asyncio.ensure_future(fetch(client, upstream.origin)) for _ in range(2)]
        await eventually(lambda: len(upstream.requests) == 2)
        with pytest.raises(NoRoom):
            await fetch(client, upstream.origin)
        assert client.refused == 1
        go.set()
        for reply in await asyncio.gather(*asked):
            assert reply.body == b"hi"
        assert upstream.connections == 2


async def test_connections_that_are_being_made_count() -> None:
    async def never(*_: object) -> Any:
        await asyncio.get_running_loop().create_future()

    async with fresh_client(limits=ClientLimits(max_connections=1), resolver=never) as client:
        first = asyncio.ensure_future(fetch(client, Origin("http", "nowhere", 80)))
        await asyncio.sleep(0)
        with pytest.raises(NoRoom):
            await fetch(client, Origin("http", "nowhere", 80))
        first.cancel()
        with suppress(asyncio.CancelledError):
            await first


async def test_an_idle_connection_to_another_upstream_makes_room() -> None:
    script = [read, send(answer())]
    async with (
        scripted(script) as first,
        scripted(script) as second,
        scripted(script) as third,
        fresh_client(limits=ClientLimits(max_connections=2)) as client,
    ):
        for upstream in (first, second, third):
            assert (await fetch(client, upstream.origin)).body == b"hi"
        await first.gone()
        assert client.closed_for_room == 1
        await eventually(lambda: client.open_connections == 2)


async def test_unix_sockets_have_places_of_their_own(tmp_path: Path) -> None:
    go = asyncio.Event()
    path = str(tmp_path / "s")
    script = [read, until(go), send(answer())]
    async with (
        scripted(script, unix=path) as local,
        scripted(script) as remote,
        fresh_client(limits=ClientLimits(max_connections=1, max_unix_connections=1)) as client,
    ):
        asked = [asyncio.ensure_future(fetch(client, upstream.origin)) for upstream in (local, remote)]
        await eventually(lambda: local.requests and remote.requests)
        for upstream in (local, remote):
            with pytest.raises(NoRoom):
                await fetch(client, upstream.origin)
        go.set()
        await asyncio.gather(*asked)


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_to_have_no_descriptor_is_not_the_upstreams_fault(kind: str, tmp_path: Path) -> None:
    path = str(tmp_path / "s") if kind == "unix" else None
    async with scripted([read], unix=path) as upstream, fresh_client() as client:
        with no_descriptor_left(), pytest.raises(NoRoom, match="too many open files"):
            await fetch(client, upstream.origin)


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.EMFILE, NoRoom), (errno.ENFILE, NoRoom), (errno.ENOMEM, NoRoom), (errno.ECONNREFUSED, ConnectFailed)],
)
async def test_to_have_no_descriptor_for_a_look_up_is_not_the_upstreams_fault(number: int, kind: type) -> None:
    async def resolver(*_: object) -> Any:
        raise OSError(number, "x")

    async with fresh_client(resolver=resolver) as client:
        with pytest.raises(kind):
            await fetch(client, Origin("http", "nowhere", 80))
