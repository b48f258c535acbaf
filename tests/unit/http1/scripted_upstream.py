"""A raw upstream that does what a test tells it, connection by connection, step by step."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tollway.http1.origin import Origin

POST = b"POST /v1/chat HTTP/1.1\r\nHost: upstream\r\nContent-Length: 5\r\n\r\nhello"


def answer(body: bytes = b"hi", headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (headers, len(body), body)


@dataclass
class Peer:
    """One accepted connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    requests: list[bytes]


Step = Callable[[Peer], Awaitable[None]]


async def read(peer: Peer) -> None:
    """Read one whole request."""
    head = await peer.reader.readuntil(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
    peer.requests.append(head + await peer.reader.readexactly(length))


def send(data: bytes) -> Step:
    """Send the bytes, as a segment of their own where the network lets us."""

    async def step(peer: Peer) -> None:
        peer.writer.write(data)
        await peer.writer.drain()

    return step


def until(event: asyncio.Event) -> Step:
    """Wait for the test."""

    async def step(peer: Peer) -> None:
        await event.wait()

    return step


def then(event: asyncio.Event) -> Step:
    """Tell the test."""

    async def step(peer: Peer) -> None:
        event.set()

    return step


async def close(peer: Peer) -> None:
    """Close in the orderly way (FIN; under TLS after close_notify)."""
    peer.writer.close()


async def reset(peer: Peer) -> None:
    """Close with RST."""
    linger = struct.pack("ii", 1, 0)
    peer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    peer.writer.transport.abort()


@dataclass
class Upstream:
    """What has happened so far."""

    origin: Origin
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    ends: list[asyncio.Event] = field(default_factory=list)

    async def gone(self, connection: int = 0) -> None:
        """Wait until this connection has ended, by whichever side."""
        async with asyncio.timeout(5):
            while self.connections <= connection:
                await asyncio.sleep(0)
            await self.ends[connection].wait()


@asynccontextmanager
async def scripted(
    *scripts: list[Step],
    tls: ssl.SSLContext | None = None,
    unix: str | None = None,
    at: tuple[str, int] = ("127.0.0.1", 0),
) -> AsyncIterator[Upstream]:
    """Serve one script per connection, in the order of arrival; connections beyond them are reset.

    After its last step a connection stays open until the client ends it.
    """
    upstream = Upstream(Origin.unix(unix or ""))
    peers: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = upstream.connections
        upstream.connections += 1
        upstream.ends.append(asyncio.Event())
        peers.add(writer)
        peer = Peer(reader, writer, upstream.requests)
        try:
            for step in scripts[number] if number < len(scripts) else [reset]:
                await step(peer)
            while await reader.read(65536):
                pass
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            peers.discard(writer)
            writer.transport.abort()
            upstream.ends[number].set()

    if unix is not None:
        server = await asyncio.start_unix_server(serve, unix)
    else:
        server = await asyncio.start_server(serve, *at, ssl=tls)
        port = server.sockets[0].getsockname()[1]
        upstream.origin = Origin("https" if tls else "http", "localhost" if tls else at[0], port)
    try:
        yield upstream
    finally:
        server.close()
        for writer in peers:
            writer.transport.abort()
        for end in upstream.ends:
            await end.wait()
