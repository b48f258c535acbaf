"""A server on a loopback port and a client that sends and sees bytes."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tollway.http1.budget import Budget
from tollway.http1.exchange import Request
from tollway.http1.limits import ServerLimits
from tollway.http1.server import Handler, Server

PATIENCE_S = 5.0
"""How long something that must happen may take before the test fails."""


def render_error(status: int, reason: str) -> tuple[bytes, bytes]:
    return b"content-type: text/plain\r\nx-request-id: made-up\r\n", reason.encode()


async def echo(request: Request) -> None:
    """Answers with what it understood."""
    body = await request.read_body()
    request.respond(200, b"", b"%b %b %b" % (request.method, request.path, body))


@dataclass
class Answer:
    status: int
    headers: dict[bytes, bytes]
    body: bytes


@dataclass
class Wire:
    """One client connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, *, head_only: bool = False) -> Answer:
        """The next answer; fails if it is cut or framed in no known way."""
        async with asyncio.timeout(PATIENCE_S):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[:-2]
            status = int(lines[0].split(b" ")[1])
            headers = dict(line.split(b": ", 1) for line in lines[1:])
            body = b""
            if head_only or status < 200 or status in (204, 304):
                pass
            elif b"content-length" in headers:
                body = await self.reader.readexactly(int(headers[b"content-length"]))
            elif headers.get(b"transfer-encoding") == b"chunked":
                while size := int(await self.reader.readuntil(b"\r\n"), 16):
                    body += (await self.reader.readexactly(size + 2))[:-2]
                assert await self.reader.readexactly(2) == b"\r\n"
            else:
                body = await self.reader.read()
            return Answer(status, headers, body)

    async def rest(self) -> bytes:
        """Everything up to the end of the connection, which must come."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.read()

    async def ask(self, data: bytes) -> Answer:
        self.send(data)
        return await self.answer()

    def reset(self) -> None:
        self.writer.transport.abort()


@dataclass
class Serving:
    server: Server
    address: Any
    crashes: list[Exception] = field(default_factory=list)
    wires: list[Wire] = field(default_factory=list)
    elapsed_s: float = 0.0

    async def connect(self, tls: ssl.SSLContext | None = None, receive_buffer: int = 0) -> Wire:
        sock = socket.socket(socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, self.address)
        except OSError:
            sock.close()
            raise
        name = "localhost" if tls else None
        wire = Wire(*await asyncio.open_connection(sock=sock, ssl=tls, server_hostname=name, limit=1024))
        self.wires.append(wire)
        return wire

    def pass_time(self, seconds: float) -> None:
        """Put the server's clock forward and let it look at its deadlines."""
        self.elapsed_s += seconds
        self.server.clock = lambda: asyncio.get_running_loop().time() + self.elapsed_s
        self.server.sweep()

    async def until(self, connections: int) -> None:
        """Wait until the server has so many connections."""
        await eventually(lambda: self.server.connections == connections)


async def eventually(condition: Any) -> None:
    """Wait for what other callbacks of this loop bring about."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.001)


@asynccontextmanager
async def serving(
    handler: Handler = echo,
    *,
    tls: ssl.SSLContext | None = None,
    path: str = "",
    send_buffer: int = 0,
    budget: Budget | None = None,
    **limits: Any,
) -> AsyncIterator[Serving]:
    """Serve until the end of the block; by then nothing may have reached the loop's exception handler, or be held."""
    loop = asyncio.get_running_loop()
    failures: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: failures.append(context))
    sock = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
    if send_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    sock.bind(path or ("127.0.0.1", 0))
    crashes: list[Exception] = []
    server = Server(handler, ServerLimits(**limits), render_error, crashes.append, budget=budget)
    await server.start(sock, tls)
    running = Serving(server, sock.getsockname(), crashes)
    try:
        yield running
    finally:
        await server.drain(0)
        for wire in running.wires:
            wire.reset()
        await asyncio.sleep(0)
    assert server.connections == 0
    assert server.budget.held == 0
    assert not failures, failures
