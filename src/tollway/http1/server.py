"""The server: it accepts clients, counts them in and out, and keeps the time for all of them with one sweep.

What becomes of one client's requests is in ``inbound.py``. A sweep is exact to a quarter second.
"""

import asyncio
import heapq
import socket
import ssl
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from functools import partial
from typing import Final

from tollway.http1.budget import Budget
from tollway.http1.exchange import Request
from tollway.http1.handshakes import Handshake, TlsListener
from tollway.http1.head import RequestHeads
from tollway.http1.inbound import Connection
from tollway.http1.limits import ServerLimits

BACKLOG: Final = 4096
"""Connections that the kernel holds for us between two turns of the loop."""
CLOSED_SHARE: Final = 64
"""Where there is no room, a 64th of the maximum is closed at once: whom to close is found by looking at all."""
SWEEP_S: Final = 0.25
CUT_S: Final = 5.0
"""How long cancelled handlers may take to end when a drain is cut."""

Handler = Callable[[Request], Awaitable[None]]
RenderError = Callable[[int, str], tuple[bytes, bytes]]
"""Status and a safe text to header lines and body."""
LinesForRefused = Callable[[bytes], bytes]
"""What has come of a head that will not become a request, to further header lines of its answer."""


class Server:
    """Accepts on any number of listening sockets and runs ``handler`` once per request.

    ``render_error`` words the answers that no handler gives; ``on_crash`` hears of every exception that a handler lets
    escape; ``lines_for_refused`` adds to the answers to broken heads. None of them must raise. What is large counts
    against ``budget``, whose time is this server's sweep.
    """

    def __init__(
        self,
        handler: Handler,
        limits: ServerLimits,
        render_error: RenderError,
        on_crash: Callable[[Exception], None],
        lines_for_refused: LinesForRefused = lambda head: b"",
        budget: Budget | None = None,
    ) -> None:
        self.handler = handler
        self.limits = limits
        self.budget = budget or Budget()
        self.heads = RequestHeads(limits.max_headers)
        self.render_error = render_error
        self.on_crash = on_crash
        self.lines_for_refused = lines_for_refused
        self.draining = False
        self.loop: asyncio.AbstractEventLoop
        self.clock: Callable[[], float]
        self.now = 0.0  # at the last sweep; coarse on purpose, nothing on the way of a request asks a clock
        self.ending = self.ending_kept = self.ending_last = b""
        self.port = 0
        self.refused = 0
        """Connections that there was no room for, since the start."""
        self.closed_for_room = 0
        """Idle connections that were closed for others, since the start."""
        self.choked: set[Connection] = set()
        self._connections: set[Connection | Handshake] = set()
        self._leaving: set[Connection | Handshake] = set()  # closed for others, and not lost yet
        self._listeners: list[asyncio.Server | TlsListener] = []
        self._ticking = False
        self._empty: asyncio.Future[None] | None = None

    @property
    def connections(self) -> int:
        """Open connections, and closed ones whose handler has not ended."""
        return len(self._connections)

    async def start(self, sock: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Accept on a bound TCP or unix socket. ``port`` is its port (0 for a unix socket)."""
        self.loop = asyncio.get_running_loop()
        self.clock = self.loop.time
        unix = sock.family == socket.AF_UNIX
        if tls is not None:
            sock.setblocking(False)
            sock.listen(BACKLOG)
            times = {"handshake_s": self.limits.head_timeout_s, "shutdown_s": self.limits.linger_s}
            self._listeners.append(TlsListener(self, sock, tls, partial(Connection, self), **times))
        else:
            create = self.loop.create_unix_server if unix else self.loop.create_server
            self._listeners.append(await create(partial(Connection, self), sock=sock, backlog=BACKLOG))
        if not unix:
            self.port = sock.getsockname()[1]

    async def drain(self, seconds: float) -> None:
        """Accept no more, let running requests finish for so long, then cut. A second call may shorten the first."""
        self.draining = True
        for listener in self._listeners:
            listener.close()
        for connection in tuple(self._connections):
            connection.drain()
        await self._until_empty(seconds)
        for connection in tuple(self._connections):
            connection.abort()
        await self._until_empty(CUT_S)

    async def _until_empty(self, seconds: float) -> None:
        if self._connections:
            self._empty = self._empty or self.loop.create_future()
            await asyncio.wait((self._empty,), timeout=seconds)

    # What handshakes call.

    def admit(self, handshake: Handshake) -> bool:
        over = self.adopt(handshake) - self.limits.max_connections
        if over <= 0 or self.make_room(handshake, over):
            return True
        self.refused += 1
        self.leave(handshake)
        return False

    def leave(self, handshake: Handshake) -> None:
        self.forget(handshake)

    # What connections call.

    def adopt(self, connection: Connection | Handshake) -> int:
        """Count a new connection in; returns how many there are but for those that are just being closed."""
        self._connections.add(connection)
        if not self._ticking:
            self._ticking = True
            self._tick()
        return len(self._connections) - len(self._leaving)

    def make_room(self, newcomer: Connection | Handshake, over: int) -> bool:
        """Close ``over`` idle connections for a new one; False, and none is closed, where there are not so many.

        Those that never showed whose they are go first, a few more of them than are needed, and among equals those that
        have been idle for longest. What is at work is never cut.
        """
        idle = [c for c in self._connections if c is not newcomer and c.idle and c not in self._leaving]
        if len(idle) < over:
            return False
        most = max(over, self.limits.max_connections // CLOSED_SHARE)
        for number, connection in enumerate(heapq.nsmallest(most, idle, key=_known_and_idle_since)):
            if number >= over and connection.known:
                break
            self.closed_for_room += 1
            self._leaving.add(connection)
            connection.abort()
        return True

    def forget(self, connection: Connection | Handshake) -> None:
        self._connections.discard(connection)
        self._leaving.discard(connection)
        if not self._connections and self._empty is not None:
            if not self._empty.done():
                self._empty.set_result(None)
            self._empty = None

    def sweep(self) -> None:
        """Enforce the deadlines that have passed. Called four times a second."""
        now = self.now = self.clock()
        for connection in [c for c in self._connections if c.deadline < now or c.flush_deadline < now]:
            connection.overdue(now)
        for connection in self.choked:
            connection.weigh()
        self.budget.sweep(now)

    def _tick(self) -> None:
        if not self._connections:
            self._ticking = False
            return
        date = b"date: %b\r\n" % formatdate(usegmt=True).encode()
        self.ending = date + b"\r\n"
        self.ending_kept = date + b"connection: keep-alive\r\n\r\n"
        self.ending_last = date + b"connection: close\r\n\r\n"
        self.loop.call_later(SWEEP_S, self._tick)
        self.sweep()


def _known_and_idle_since(connection: Connection | Handshake) -> tuple[bool, float]:
    return connection.known, connection.since
