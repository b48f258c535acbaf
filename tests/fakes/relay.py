"""A TCP relay before PostgreSQL: it counts who tries to connect, can cut everybody off or let nothing through, and can
speak TLS.

With the count a test waits for attempts rather than for time to pass. It runs in a thread of its own, because starting
a gateway blocks the test.
"""

import asyncio
import contextlib
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from fakes.upstream import PATIENCE_S

SSL_REQUEST = b"\0\0\0\x08\x04\xd2\x16\x2f"

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Relay:
    """One listener before one server; a context manager."""

    def __init__(self, target: str, tls: ssl.SSLContext | None = None, *, direct: bool = False) -> None:
        self.attempts = 0
        """How many connections were asked for so far."""
        self.answer: Answer | None = None
        """Answers connections in the server's place, where it is set."""
        self._target = target
        self._tls = tls
        self._direct = direct
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._flows = asyncio.Event()
        self._flows.set()

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self.do(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._server.close)
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def url(self, host: str = "127.0.0.1", query: str = "sslmode=disable") -> str:
        """The target's URI, through here."""
        parts = urlsplit(self._target)
        return f"postgresql://{parts.username}:{parts.password}@{host}:{self.port}{parts.path}?{query}"

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run something on the relay's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    def cut(self) -> None:
        """Cut every connection; the server itself goes on."""
        self.do(self._cut())

    def vanish(self) -> None:
        """Cut every connection and close each new one, until :meth:`mend`."""
        self.answer = _closing
        self.cut()

    def stall(self) -> None:
        """Let no byte through, until :meth:`mend`."""
        self._loop.call_soon_threadsafe(self._flows.clear)

    def mend(self) -> None:
        """Pass on again."""
        self.answer = None
        self._loop.call_soon_threadsafe(self._flows.set)

    def wait_for_attempts(self, number: int) -> None:
        """Until so many more have tried to connect."""
        wanted, until = self.attempts + number, time.monotonic() + PATIENCE_S
        while self.attempts < wanted:
            assert time.monotonic() < until, f"{self.attempts} attempts to connect, not {wanted}"
            time.sleep(0.01)

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Join a client's connection with one to the server."""
        address = socket_of(self._target)
        opening = (
            asyncio.open_unix_connection(address) if isinstance(address, str) else asyncio.open_connection(*address)
        )
        there, back = await opening
        with contextlib.closing(back):
            ways = {asyncio.ensure_future(self._pump(*way)) for way in ((reader, back), (there, writer))}
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()

    async def _cut(self) -> None:
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.attempts += 1
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        try:
            with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
                if self._tls is not None:
                    if not self._direct:
                        assert await reader.readexactly(8) == SSL_REQUEST
                        writer.write(b"S")
                    await writer.start_tls(self._tls)
                await (self.answer or self.pass_on)(reader, writer)
        finally:
            writer.close()
            del self._connections[task]


def socket_of(url: str) -> str | tuple[str, int]:
    """Where a PostgreSQL listens: the path of its Unix socket, or host and port."""
    parts = urlsplit(url)
    named = parse_qs(parts.query)
    host = named["host"][0] if "host" in named else parts.hostname or ""
    port = int(named["port"][0]) if "port" in named else parts.port or 5432
    return f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port)


async def _closing(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    """Say nothing; the connection is closed after that."""
