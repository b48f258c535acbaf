"""Bodies that stream through: their bytes, the memory they take, and every way in which an upload may fail."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from fakes.client import Reply, Wire, form, request_bytes
from fakes.gateway import Tenant
from fakes.upstream import Counter, head, reply

MIB = 1024 * 1024
PATH = "/v1/audio/transcriptions"
OK = head(200, {"content-type": "application/json", "content-length": "2"}) + b"{}"


class Listener:
    """A provider that does with each upload what its test says, piece by piece."""

    def __init__(self, act: "Callable[[Listener], Awaitable[None]]") -> None:
        self._act = act
        self.head = b""
        self.digest = hashlib.sha256()
        self.received = 0
        self.connections = 0
        self.lost = Counter()
        """Counts connections that ended while their body was still coming."""
        self.url = ""
        self.half = asyncio.Event()
        """Half a megabyte has come."""
        self._over = asyncio.Event()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Listener"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=64 * 1024)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        async with server:
            yield self
            if self.connections:
                self.writer.transport.abort()
                await self._over.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.connections += 1
        self.head = await reader.readuntil(b"\r\n\r\n")
        try:
            await self._act(self)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            self.lost.add()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        self._over.set()

    async def read_body(self) -> None:
        """All of it, whatever its framing."""
        if b"Transfer-Encoding: chunked" in self.head:
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                await self._take(size)
                await self.reader.readexactly(2)
            await self.reader.readexactly(2)
        else:
            await self._take(int(self.head.partition(b"Content-Length: ")[2].partition(b"\r")[0]))

    async def _take(self, size: int) -> None:
        while size:
            piece = await self.reader.read(min(size, 64 * 1024))
            if not piece:
                raise asyncio.IncompleteReadError(b"", size)
            self.digest.update(piece)
            self.received += len(piece)
            size -= len(piece)
            if self.received > MIB // 2:
                self.half.set()


async def take_all(listener: Listener) -> None:
    await listener.read_body()
    listener.writer.write(OK)


@asynccontextmanager
async def listening(tenant: Tenant, act: Callable[[Listener], Awaitable[None]]) -> AsyncIterator[tuple[Listener, str]]:
    """A listener, and a model that it serves."""
    async with Listener(act).listening() as listener:
        provider = await tenant.add_provider(listener.url, wants_key=False)
        yield listener, await tenant.add_model(provider)


async def upload(wire: Wire, tenant: Tenant, body: bytes, headers: dict[str, str], *, chunked: bool) -> Reply:
    """Send a body in pieces until there is an answer, as curl does."""
    framing = {"transfer-encoding": "chunked", "content-length": None} if chunked else {}
    framing = framing or {"content-length": str(len(body))}
    await wire.send(request_bytes("POST", PATH, b"", tenant.key, {**headers, **framing}))
    answer = asyncio.ensure_future(wire.reply())
    pieces = [body[at : at + 64 * 1024] for at in range(0, len(body), 64 * 1024)]
    for piece in [*[b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces], b"0\r\n\r\n"] if chunked else pieces:
        if answer.done():
            break
        await wire.send(piece)
        await asyncio.sleep(0)
    return await answer


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_large_file_streams_with_bounded_memory(tenant: Tenant, chunked: bool) -> None:
    worker = tenant.gateway.child("tollway.dataplane")
    before = worker.memory_info().rss
    highest = 0

    async def slowly(listener: Listener) -> None:
        nonlocal highest
        reading = asyncio.ensure_future(listener.read_body())
        while not reading.done():
            highest = max(highest, worker.memory_info().rss)
            await asyncio.wait([reading], timeout=0.01)
        await reading
        listener.writer.write(OK)

    async with listening(tenant, slowly) as (listener, model):
        body, headers = form(("model", "", model.encode()), ("file", "a.wav", bytes(range(256)) * 80 * 1024))
        async with tenant.client.connect() as wire:
            answer = await upload(wire, tenant, body, headers, chunked=chunked)
        assert (answer.status, answer.body) == (200, b"{}")
        assert (listener.received, listener.digest.digest()) == (len(body), hashlib.sha256(body).digest())
        assert highest - before < 16 * MIB
    (entry,) = await tenant.ledger(1)
    assert (entry["outcome"], entry["state"], entry["priced"]) == ("ok", "none", False)


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_small_form_that_comes_at_once_has_an_end(tenant: Tenant, chunked: bool) -> None:
    async with listening(tenant, take_all) as (listener, model):
        body, headers = form(("model", "", model.encode()), ("file", "a.wav", b"sound"))
        coded = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body
        framing = {"transfer-encoding": "chunked", "content-length": None} if chunked else {}
        answer = await tenant.client.post(PATH, coded, tenant.key, {**headers, **framing})
        assert answer.status == 200
        assert listener.digest.digest() == hashlib.sha256(body).digest()


async def test_a_slow_provider_slows_its_client(tenant: Tenant) -> None:
    go_on = asyncio.Event()

    async def late(listener: Listener) -> None:
        await go_on.wait()
        await take_all(listener)

    async with listening(tenant, late) as (listener, model):
        body, headers = form(("model", "", model.encode()), ("file", "a.wav", bytes(20 * MIB)))
        async with tenant.client.connect() as wire:
            await wire.send(request_bytes("POST", PATH, b"", tenant.key, {**headers, "content-length": str(len(body))}))
            sending = asyncio.ensure_future(wire.send(body))
            await asyncio.wait([sending], timeout=0.5)  # what must not happen cannot be waited for
            assert not sending.done()
            go_on.set()
            await sending
            assert (await wire.reply()).status == 200
        assert listener.received == len(body)


async def test_a_client_that_goes_in_mid_upload_cuts_the_provider_and_pays_nothing(tenant: Tenant) -> None:
    async with listening(tenant, take_all) as (listener, model):
        body, headers = form(("model", "", model.encode()), ("file", "a.wav", bytes(MIB)))
        async with tenant.client.connect() as wire:
            await wire.send(request_bytes("POST", PATH, b"", tenant.key, {**headers, "content-length": str(len(body))}))
            await wire.send(body[:-1])
            await listener.half.wait()
            wire.reset()
            await listener.lost.reaches(1)
        (entry,) = await tenant.ledger(1)
        assert (entry["outcome"], entry["charged"], entry["priced"]) == ("client_gone", False, True)
        assert listener.connections == 1


async def test_a_second_model_in_a_form_is_refused_and_never_completed(tenant: Tenant) -> None:
    async with listening(tenant, take_all) as (listener, model):
        parts = ("model", "", model.encode()), ("file", "a.wav", bytes(MIB)), ("model", "", b"dearer")
        body, headers = form(*parts)
        async with tenant.client.connect() as wire:
            answer = await upload(wire, tenant, body, headers, chunked=False)
        assert answer.status == 400
        assert "'model'" in answer.error["message"]
        await listener.lost.reaches(1)
        assert listener.received < len(body)
        (entry,) = await tenant.ledger(1)
        assert (entry["outcome"], entry["charged"]) == ("client_failed", False)


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_above_the_limit_is_refused(tenant: Tenant, chunked: bool) -> None:
    async with listening(tenant, take_all) as (listener, model):
        body, headers = form(("model", "", model.encode()), ("file", "a.wav", bytes(33 * MIB)))
        async with tenant.client.connect() as wire:
            answer = await upload(wire, tenant, body, headers, chunked=chunked)
        assert answer.refusal == (413, "request_too_large")
        assert listener.connections == (1 if chunked else 0)


@pytest.mark.parametrize(("status", "refusal"), [(400, (400, None)), (401, (502, "upstream_auth_error"))])
async def test_a_provider_may_answer_before_it_has_read_all(
    tenant: Tenant, status: int, refusal: tuple[int, str | None]
) -> None:
    async def at_once(listener: Listener) -> None:
        said = b'{"error":{"message":"no","type":"invalid_request_error","param":null,"code":null}}'
        fields = {"content-type": "application/json", "content-length": str(len(said)), "connection": "close"}
        listener.writer.write(head(status, fields) + said)
        with suppress(ConnectionError):
            while await listener.reader.read(64 * 1024):
                pass  # to the end of the connection: a kernel that closes with unread bytes takes the answer back

    async with listening(tenant, at_once) as (listener, model):
        body, headers = form(("model", "", model.encode()), ("file", "a.wav", bytes(20 * MIB)))
        async with tenant.client.connect() as wire:
            answer = await upload(wire, tenant, body, headers, chunked=False)
        assert answer.refusal == refusal
        assert listener.connections == 1, "what has streamed cannot be sent twice"


async def test_a_client_may_wait_to_be_asked_for_its_body(tenant: Tenant) -> None:
    async with listening(tenant, take_all) as (listener, model):
        body, headers = form(("model", "", model.encode()), ("file", "a.wav", b"sound"))
        headers |= {"content-length": str(len(body)), "expect": "100-continue"}
        async with tenant.client.connect() as wire:
            await wire.send(request_bytes("POST", PATH, b"", tenant.key, headers))
            assert await wire.interim_status() == 100
            await wire.send(body)
            assert (await wire.reply()).status == 200
        assert b"expect" not in listener.head.lower()
        async with tenant.client.connect() as wire:
            await wire.send(request_bytes("POST", PATH, b"", "sk-unknown", headers))
            assert (await wire.reply()).status == 401
            assert wire.interim == []


async def test_a_file_for_keeping_passes_as_it_is(tenant: Tenant) -> None:
    """A path that takes no model: nothing of the form is looked at, a field named model neither."""
    tenant.openai.answers(reply(200, {"id": "file-1"}))
    body, headers = form(("model", "", b"x"), ("model", "", b"y"), ("purpose", "", b"batch"), ("file", "f", b"{}\n"))
    answer = await tenant.client.post("/v1/files", body, tenant.key, headers)
    assert (answer.status, answer.json) == (200, {"id": "file-1"})
    (request,) = tenant.openai.requests
    assert (request.body, request.header("content-type")) == (body, headers["content-type"])
