"""A PostgreSQL of the user's own, for gateways with DATABASE_URL: it can be stopped, killed and started again.

Between the two stands a relay that counts who tries to connect, so that a test can wait for attempts rather than for
time to pass. It runs in a thread of its own, because starting a gateway blocks the test.
"""

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from fakes.upstream import PATIENCE_S
from tollway.store.embedded import EmbeddedPostgres


class GivenServer:
    """One server with a relay before it; a context manager."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._server = EmbeddedPostgres(home, {"fsync": "off"})
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._target: str | tuple[str, int] = ""
        self.attempts = 0
        """How many connections were asked for so far."""
        self.answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]] | None = None
        """Answers connections in the server's place, where it is set."""
        self.direct_url = ""
        """Past the relay."""
        self.url = ""
        """Through the relay."""

    def __enter__(self) -> Self:
        self._thread.start()
        self.start()
        self._relay = self._do(asyncio.start_server(self._accept, "127.0.0.1", 0))
        port = self._relay.sockets[0].getsockname()[1]
        parts = urlsplit(self.direct_url)
        login = f"{parts.username}:{parts.password}"
        self.url = f"postgresql://{login}@127.0.0.1:{port}{parts.path}?sslmode=disable"
        return self

    def __exit__(self, *_: object) -> None:
        self._relay.close()
        self._do(self._end())
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def start(self) -> None:
        """Start the server, or start it again where it was before."""
        self.direct_url = self._do(self._server.start())
        parts = urlsplit(self.direct_url)
        named = parse_qs(parts.query)
        host = named["host"][0] if "host" in named else parts.hostname or ""
        port = int(named["port"][0]) if "port" in named else parts.port or 5432
        self._target = f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port)

    def stop(self) -> None:
        """As an administrator stops it: connections are cut, everything is on disk."""
        self._do(self._server.stop())

    def kill(self) -> None:
        """``kill -9`` to all its processes at once."""
        pid = int((self._home / "postgres" / "postmaster.pid").read_text().split()[0])
        os.killpg(pid, signal.SIGKILL)
        self._do(self._server.died())

    def cut(self) -> None:
        """Cut every connection; the server itself goes on."""
        self._do(self._end())

    def wait_for_attempts(self, number: int) -> None:
        """Until so many more have tried to connect."""
        wanted, until = self.attempts + number, time.monotonic() + PATIENCE_S
        while self.attempts < wanted:
            assert time.monotonic() < until, f"{self.attempts} attempts to connect, not {wanted}"
            time.sleep(0.01)

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        for writer in self._writers:
            writer.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.attempts += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        with contextlib.suppress(OSError, asyncio.CancelledError), contextlib.closing(writer):
            if self.answer is not None:
                await self.answer(reader, writer)
            else:
                await self._relay_to_server(reader, writer)
        self._tasks.discard(task)
        self._writers.discard(writer)

    async def _relay_to_server(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if isinstance(self._target, str):
            there, back = await asyncio.open_unix_connection(self._target)
        else:
            there, back = await asyncio.open_connection(*self._target)
        with contextlib.closing(back):
            done, left = await asyncio.wait(
                {asyncio.ensure_future(_pump(reader, back)), asyncio.ensure_future(_pump(there, writer))},
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in left:
                task.cancel()
            await asyncio.gather(*done, *left, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
