"""TLS towards upstreams: what is trusted, what is refused, and that no byte is lost between records."""

import asyncio
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import trustme
from scripted_upstream import POST, Peer, answer, close, read, reset, scripted, send
from test_client import CHUNKED, UNTIL_CLOSE, fetch, fresh_client, soon
from test_fuzz_client import Wire

from tollway.http1.errors import Disconnected, TlsFailed
from tollway.http1.limits import ClientLimits
from tollway.http1.origin import Origin
from tollway.http1.proxy import Proxies, Proxy
from tollway.http1.tls import TlsChannel, client_context

AUTHORITY = trustme.CA()


def server(*names: str, authority: trustme.CA = AUTHORITY, **more: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*(names or ("localhost",)), **more).configure_cert(context)
    return context


def trusting(authority: trustme.CA = AUTHORITY) -> Callable[[], ssl.SSLContext]:
    def make() -> ssl.SSLContext:
        context = client_context()
        authority.configure_trust(context)
        return context

    return make


def test_nothing_is_trusted_without_proof() -> None:
    context = client_context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.cert_store_stats()["x509_ca"] > 50


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_calls_share_an_encrypted_connection(version: ssl.TLSVersion) -> None:
    context = server()
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2", "http/1.1"])
    protocols = []

    async def note(peer: Peer) -> None:
        protocols.append(peer.writer.get_extra_info("ssl_object").selected_alpn_protocol())

    async with (
        scripted([note, read, send(answer()), read, send(answer(b"again"))], tls=context) as upstream,
        fresh_client(ssl_context=trusting()) as client,
    ):
        assert (await fetch(client, upstream.origin)).body == b"hi"
        assert (await fetch(client, upstream.origin)).body == b"again"
        assert (upstream.connections, protocols) == (1, ["http/1.1"])


async def test_large_messages_cross_many_records_both_ways() -> None:
    size = 3_000_000
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size
    upload = head + bytes(range(250)) * (size // 250)
    download = bytes(reversed(range(250))) * (size // 250)
    async with (
        scripted([read, send(answer(download)), read, send(answer())], tls=server()) as upstream,
        fresh_client(ssl_context=trusting()) as client,
    ):
        assert (await fetch(client, upstream.origin, upload)).body == download
        assert (await fetch(client, upstream.origin, upload)).body == b"hi"
        assert upstream.requests == [upload, upload]


async def test_a_stream_of_small_records_arrives_whole() -> None:
    async def drip(peer: Peer) -> None:
        for number in range(300):
            peer.writer.write(b"4\r\n%04d\r\n" % number)
            if number % 10 == 0:
                await asyncio.sleep(0)
        peer.writer.write(b"0\r\n\r\n")

    async with (
        scripted([read, send(CHUNKED), drip], tls=server()) as upstream,
        fresh_client(ssl_context=trusting()) as client,
    ):
        response = await client.open(upstream.origin, POST, deadline=soon())
        pieces: list[bytes] = []
        response.attach(pieces.append)
        await response.finished()
        assert b"".join(pieces) == b"".join(b"%04d" % number for number in range(300))
        assert client.idle_connections == 1


async def test_backpressure_reaches_through_tls() -> None:
    size = 20_000_000
    async with (
        scripted([read, send(answer(bytes(size)))], tls=server()) as upstream,
        fresh_client(ssl_context=trusting(), limits=ClientLimits(high_water=100_000)) as client,
    ):
        response = await client.open(upstream.origin, POST, deadline=soon())
        await asyncio.sleep(0.1)
        assert response.received < size // 2
        assert len(await response.read_all(size)) == size


@pytest.mark.parametrize(
    ("context", "reason"),
    [
        (server("elsewhere.test"), "for another name"),
        (server(authority=trustme.CA()), "unknown authority"),
        (server(not_after=datetime(2020, 1, 1, tzinfo=UTC)), "expired"),
    ],
)
async def test_a_certificate_that_proves_nothing_is_refused(context: ssl.SSLContext, reason: str) -> None:
    async with (
        scripted([read, send(answer())], tls=context) as upstream,
        fresh_client(ssl_context=trusting()) as client,
    ):
        with pytest.raises(TlsFailed, match=reason) as raised:
            await fetch(client, upstream.origin)
        assert "localhost" not in raised.value.reason
        assert upstream.requests == []
        assert client.open_connections == 0


async def test_an_address_needs_a_certificate_of_its_own() -> None:
    async with scripted(tls=server("localhost")) as upstream, fresh_client(ssl_context=trusting()) as client:
        with pytest.raises(TlsFailed, match="another address"):
            await fetch(client, Origin("https", "127.0.0.1", upstream.origin.port))
    async with (
        scripted([read, send(answer())], tls=server("127.0.0.1")) as upstream,
        fresh_client(ssl_context=trusting()) as client,
    ):
        assert (await fetch(client, Origin("https", "127.0.0.1", upstream.origin.port))).body == b"hi"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_old_versions_of_tls_are_refused() -> None:
    context = server()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    async with scripted(tls=context) as upstream, fresh_client(ssl_context=trusting()) as client:
        with pytest.raises(TlsFailed):
            await fetch(client, upstream.origin)


async def test_a_plain_upstream_is_not_taken_for_an_encrypted_one() -> None:
    async with scripted([send(answer())]) as upstream, fresh_client(ssl_context=trusting()) as client:
        with pytest.raises(TlsFailed, match=r"handshake failed|ended"):
            await fetch(client, Origin("https", "localhost", upstream.origin.port))


@pytest.mark.parametrize(("wire", "host"), [(Wire(), ".x"), (Wire(closing=True), "localhost")])
async def test_a_handshake_that_cannot_begin_is_an_error(wire: Wire, host: str) -> None:
    with pytest.raises(TlsFailed):
        await TlsChannel.start(wire, trusting()(), host)


@pytest.mark.parametrize("part", [answer()[:-1], UNTIL_CLOSE + b"half"])
@pytest.mark.parametrize("step", ["cut", "reset"])
async def test_an_end_without_close_notify_is_a_cut(part: bytes, step: str) -> None:
    async def cut(peer: Peer) -> None:
        peer.writer.transport.abort()

    end = cut if step == "cut" else reset
    async with (
        scripted([read, send(part), end], tls=server()) as upstream,
        fresh_client(ssl_context=trusting()) as client,
    ):
        with pytest.raises(Disconnected):
            await fetch(client, upstream.origin)


async def test_close_notify_ends_a_body_that_ends_with_the_connection() -> None:
    async with (
        scripted([read, send(UNTIL_CLOSE + b"whole"), close], tls=server()) as upstream,
        fresh_client(ssl_context=trusting()) as client,
    ):
        assert (await fetch(client, upstream.origin)).body == b"whole"
        assert client.idle_connections == 0


async def test_an_upstream_that_closes_or_speaks_while_idle_is_dropped() -> None:
    for step in (close, reset, send(answer(b"unasked"))):
        async with (
            scripted([read, send(answer()), read, send(answer(b"x"))], tls=server()) as upstream,
            fresh_client(ssl_context=trusting()) as client,
        ):
            await fetch(client, upstream.origin)
        async with (
            scripted([read, send(answer()), step], [read, send(answer(b"fresh"))], tls=server()) as upstream,
            fresh_client(ssl_context=trusting()) as client,
        ):
            await fetch(client, upstream.origin)
            while client.idle_connections:
                await asyncio.sleep(0)
            assert (await fetch(client, upstream.origin)).body == b"fresh"


async def test_an_upstream_that_speaks_before_the_first_request_is_dropped() -> None:
    async with (
        scripted([send(answer(b"unasked"))], tls=server()) as upstream,
        fresh_client(ssl_context=trusting()) as client,
    ):
        await client._dialer.dial(upstream.origin, soon())
        await upstream.gone()


async def test_silence_in_the_handshake_is_a_connect_timeout() -> None:
    async with (
        scripted([]) as upstream,
        fresh_client(ssl_context=trusting(), limits=ClientLimits(connect_s=0.05)) as client,
    ):
        with pytest.raises(Exception, match="in time"):
            await fetch(client, Origin("https", "localhost", upstream.origin.port))
        await upstream.gone()


async def test_a_call_that_is_cancelled_in_the_handshake_cuts_the_connection() -> None:
    async with scripted([]) as upstream, fresh_client(ssl_context=trusting()) as client:
        task = asyncio.ensure_future(fetch(client, Origin("https", "localhost", upstream.origin.port)))
        while not upstream.connections:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await upstream.gone()


# Records


class Memory(Wire):
    """A channel whose other end is an OpenSSL server in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.server = server().wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.channel: Any = None

    def set_protocol(self, protocol: object) -> None:
        self.channel = protocol

    def write(self, data: bytes) -> None:
        self.incoming.write(data)


class Reader(asyncio.Protocol):
    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.ended = False

    def data_received(self, data: bytes) -> None:
        self.pieces.append(data)

    def eof_received(self) -> None:
        self.ended = True


async def shaken() -> tuple[Memory, TlsChannel, Reader]:
    wire = Memory()
    task = asyncio.ensure_future(TlsChannel.start(wire, trusting()(), "localhost"))
    await asyncio.sleep(0)
    while True:
        try:
            wire.server.do_handshake()
            break
        except ssl.SSLWantReadError:
            wire.channel.data_received(wire.outgoing.read())
    channel = await task
    reader = Reader()
    channel.set_protocol(reader)
    return wire, channel, reader


@pytest.mark.parametrize("size", [1, 2, 5, 100, 1000, 16_000, 10**6])
async def test_the_text_does_not_depend_on_where_its_records_are_cut(size: int) -> None:
    wire, channel, reader = await shaken()
    text = [b"a", b"bc" * 100, b"d" * 16_384, b"e" * 20_000]
    for part in text:
        while part:
            part = part[wire.server.write(part) :]
    with pytest.raises(ssl.SSLWantReadError):
        wire.server.unwrap()
    data = wire.outgoing.read()
    for start in range(0, len(data), size):
        channel.data_received(data[start : start + size])
    assert b"".join(reader.pieces) == b"".join(text)
    assert reader.ended
    assert wire.closing
    if size >= len(data):
        assert len(reader.pieces) == 1


async def test_a_forged_record_ends_the_connection_and_none_of_it_is_delivered() -> None:
    wire, channel, reader = await shaken()
    channel.data_received(wire.outgoing.read())
    wire.server.write(b"true")
    channel.data_received(wire.outgoing.read())
    wire.server.write(b"false")
    record = bytearray(wire.outgoing.read())
    record[-1] ^= 1
    channel.data_received(bytes(record))
    assert reader.pieces == [b"true"]
    assert wire.closing


async def test_a_request_of_usual_size_is_one_record_and_one_write() -> None:
    wire, channel, _ = await shaken()
    writes: list[bytes] = []
    wire.write = writes.append  # type: ignore[method-assign]
    channel.write(b"x" * 16_000)
    assert len(writes) == 1
    wire.incoming.write(writes[0])
    assert wire.server.read(20_000) == b"x" * 16_000


# Through proxies


@pytest.mark.parametrize("proxy_tls", [False, True])
async def test_a_tunnel_carries_tls_to_the_upstream_even_inside_tls_to_the_proxy(proxy_tls: bool) -> None:
    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            sink.write(data)
        sink.close()

    async def relay(peer: Peer) -> None:
        port = int(peer.requests[0].split()[1].rpartition(b":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        peer.writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(pump(peer.reader, writer), pump(reader, peer.writer))

    body = b"x" * 200_000
    async with (
        scripted([read, send(answer(body)), read, send(answer(b"again"))], tls=server()) as upstream,
        scripted([read, relay], tls=server() if proxy_tls else None) as middle,
    ):
        proxies = Proxies(https=Proxy(middle.origin, b"Proxy-Authorization: Basic dTpw\r\n"))
        async with fresh_client(ssl_context=trusting(), proxies=proxies) as client:
            assert (await fetch(client, upstream.origin)).body == body
            assert (await fetch(client, upstream.origin)).body == b"again"
        assert (middle.connections, upstream.connections) == (1, 1)
        assert all(b"Proxy-Auth" not in request for request in upstream.requests)
