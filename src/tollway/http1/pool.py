"""The open connections of a client: who is idle, who is late."""

import asyncio
from typing import Final

from tollway.http1.connection import Connection
from tollway.http1.errors import Disconnected, NoRoom
from tollway.http1.limits import ClientLimits
from tollway.http1.origin import Origin

SWEEP_S: Final = 0.25
"""How exact timeouts are: one timer for all connections instead of several per request."""

_SLEPT_S: Final = 1.0
"""A sweep that is later than this finds a process that was stopped, not upstreams that were silent: it lets the loop
read what has arrived meanwhile, and leaves the judgement to the next one."""


class Pool:
    """Idle connections by origin, the last used first; times for all."""

    __slots__ = (
        "_idle",
        "_open",
        "_places",
        "_slept",
        "_sweep_due",
        "_sweep_s",
        "_timer",
        "closed_for_room",
        "limits",
        "refused",
    )

    def __init__(self, limits: ClientLimits, sweep_s: float = SWEEP_S) -> None:
        self.limits = limits
        self._idle: dict[Origin, list[Connection]] = {}
        self._open: set[Connection] = set()
        self._places = {True: 0, False: 0}  # taken by connections, open or being made; True: to Unix sockets
        self.refused = 0
        """Connections that there was no room for, since the start."""
        self.closed_for_room = 0
        """Idle connections that were closed for others, since the start."""
        self._sweep_s = sweep_s
        self._sweep_due = 0.0
        self._slept = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def open_connections(self) -> int:
        """Connections whose socket is open, busy or idle."""
        return len(self._open)

    @property
    def places_taken(self) -> int:
        """Connections that are open or being made."""
        return sum(self._places.values())

    @property
    def idle_connections(self) -> int:
        """Connections that wait for a request."""
        return sum(map(len, self._idle.values()))

    def make_room(self, origin: Origin) -> None:
        """Take a place for a connection that is about to be made; where that fails, :meth:`give_place_back`.

        Where there is none, the connection that has been idle for longest is closed; raises NoRoom where none is.
        """
        unix = _is_unix(origin)
        most = self.limits.max_unix_connections if unix else self.limits.max_connections
        if self._places[unix] >= most and not self._close_longest_idle(unix=unix):
            self.refused += 1
            raise NoRoom("there is no room for another connection")
        self._places[unix] += 1

    def give_place_back(self, origin: Origin) -> None:
        """The connection was not made, or is gone."""
        self._places[_is_unix(origin)] -= 1

    def add(self, connection: Connection) -> None:
        """Take a new connection into care."""
        self._open.add(connection)
        if self._timer is None:
            self._schedule()

    def take(self, origin: Origin) -> Connection | None:
        """Return an idle connection to the origin; the caller uses it at once."""
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.usable:
                return connection
        return None

    def release(self, connection: Connection) -> None:
        idle = self._idle.get(connection.origin)
        if idle is None:
            idle = self._idle[connection.origin] = []
        if len(idle) < self.limits.max_idle_per_origin:
            idle.append(connection)
        else:
            connection.close()

    def forget(self, connection: Connection) -> None:
        if connection in self._open:
            self._open.remove(connection)
            self.give_place_back(connection.origin)
        idle = self._idle.get(connection.origin)
        if idle is not None and connection in idle:
            idle.remove(connection)

    def close(self) -> None:
        """End every connection; what is running fails."""
        for connection in tuple(self._open):
            connection.fail(Disconnected("the client is closed", nothing_received=False))
        self._idle.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close_longest_idle(self, *, unix: bool) -> bool:
        first = [idle[0] for origin, idle in self._idle.items() if idle and _is_unix(origin) is unix]
        if not first:
            return False
        connection = min(first, key=lambda connection: connection.quiet_since)
        self._idle[connection.origin].remove(connection)
        connection.cut()
        self.closed_for_room += 1
        return True

    def _schedule(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweep_due = loop.time() + self._sweep_s
        self._timer = loop.call_later(self._sweep_s, self._sweep)

    def _sweep(self) -> None:
        now = asyncio.get_running_loop().time()
        self._timer = None
        self._slept = now - self._sweep_due > _SLEPT_S and not self._slept
        if not self._slept:
            for connection in tuple(self._open):
                connection.check(now)
            for origin in [origin for origin, idle in self._idle.items() if not idle]:
                del self._idle[origin]
        if self._open:
            self._schedule()


def _is_unix(origin: Origin) -> bool:
    return origin.scheme == "unix"
