"""Accepting clients that speak TLS: each counts as a connection from the moment at which it was accepted.

The loop's own TLS server tells nobody of a client before its handshake is over, so those that never begin one could
take every descriptor unseen.
"""

import asyncio
import math
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final, Protocol

ACCEPT_PAUSE_S: Final = 0.1
"""After the system could not accept: descriptors come back, but not within one turn of the loop."""


class Doorman(Protocol):
    """What a handshake needs of the server."""

    clock: Callable[[], float]

    def admit(self, handshake: "Handshake") -> bool:
        """Count it in, if there is room."""

    def leave(self, handshake: "Handshake") -> None:
        """It is over, or has become a connection."""


class Handshake:
    """A client that has yet to show that it can speak TLS: where there is no room, it may go at any time."""

    __slots__ = ("client", "deadline", "flush_deadline", "known", "since", "task")

    idle: Final = True

    def __init__(self, client: socket.socket, since: float) -> None:
        self.client: socket.socket | None = client  # until the loop has taken it over
        self.deadline = self.flush_deadline = math.inf  # the loop keeps the time
        self.known = False
        self.since = since
        self.task: asyncio.Task[None] | None = None

    def abort(self) -> None:
        if self.task is not None:
            self.task.cancel()

    def close(self) -> None:
        """End one that the loop never heard of."""
        if self.client is not None:
            self.client.close()
            self.client = None

    def drain(self) -> None:
        self.abort()

    def overdue(self, now: float) -> None:
        """Never: it has no deadline of ours."""


class TlsListener:
    """Accepts on one socket and hands each client to the loop, which shakes hands and then makes its connection."""

    def __init__(
        self,
        doorman: Doorman,
        listening: socket.socket,
        context: ssl.SSLContext,
        protocol: Callable[[Handshake], asyncio.Protocol],
        *,
        handshake_s: float,
        shutdown_s: float,
    ) -> None:
        self._doorman = doorman
        self._listening = listening
        self._context = context
        self._protocol = protocol
        self._handshake_s = handshake_s
        self._shutdown_s = shutdown_s
        self._loop = asyncio.get_running_loop()
        self._accepting = self._loop.create_task(self._accept())
        self._accepting.add_done_callback(lambda _: listening.close())  # then the loop does not look at it any more

    def close(self) -> None:
        """Accept no more. Handshakes that have begun go on."""
        self._accepting.cancel()

    async def _accept(self) -> None:
        while True:
            try:
                client, _ = await self._loop.sock_accept(self._listening)
            except OSError:  # no descriptor, or a client that has gone again
                await asyncio.sleep(ACCEPT_PAUSE_S)
                continue
            handshake = Handshake(client, self._doorman.clock())
            if self._doorman.admit(handshake):
                handshake.task = self._loop.create_task(self._shake(handshake))
                handshake.task.add_done_callback(partial(self._over, handshake))
            else:
                handshake.close()

    async def _shake(self, handshake: Handshake) -> None:
        client, handshake.client = handshake.client, None
        assert client is not None
        with suppress(OSError):  # no TLS, not ours, not in time, or gone
            await self._loop.connect_accepted_socket(
                lambda: self._protocol(handshake),
                client,
                ssl=self._context,
                ssl_handshake_timeout=self._handshake_s,
                ssl_shutdown_timeout=self._shutdown_s,
            )

    def _over(self, handshake: Handshake, _: asyncio.Task[None]) -> None:
        """Whatever way it ended, and though it was cancelled before it began."""
        handshake.close()
        handshake.task = None
        self._doorman.leave(handshake)
