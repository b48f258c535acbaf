"""The pooled HTTP/1.1 client: one request, one answer, no redirects, no cookies, no decompression."""

import asyncio
import ssl
from collections.abc import AsyncIterable, Callable, Coroutine
from typing import Any, TypeVar

from tollway.http1.answer import Answer, Response, StreamedResponse
from tollway.http1.budget import Budget
from tollway.http1.connection import Connection
from tollway.http1.dial import AddressPolicy, Dialer, Resolver, any_address, system_resolver
from tollway.http1.errors import Disconnected
from tollway.http1.limits import ClientLimits
from tollway.http1.origin import Origin
from tollway.http1.pool import SWEEP_S, Pool
from tollway.http1.proxy import Proxies
from tollway.http1.tls import client_context

_Answer = TypeVar("_Answer", bound=Answer)


class Client:
    """Connections to all upstreams of a process. Belongs to one event loop.

    Every call raises only UpstreamError, whose text names no host; being cancelled cuts the connection at once.
    A kept connection that turns out to be dead before one byte of the answer costs one repeat on a fresh one.

    ``first_byte_s`` is counted from sending to the first byte of the body, ``idle_s`` from piece to piece,
    ``deadline`` is loop time for everything; each is judged every quarter of a second. ``max_body`` is in bytes.
    What is large of requests and answers counts against ``budget``; an answer that finds no room waits for it.
    ``on_sent`` gets the answer to be as soon as the request has been handed to a connection, at the repeat once more: a
    call that ends without it has cost the upstream nothing, and one that is cancelled finds there what had come.
    """

    def __init__(
        self,
        limits: ClientLimits | None = None,
        *,
        budget: Budget | None = None,
        ssl_context: Callable[[], ssl.SSLContext] = client_context,
        proxies: Proxies | None = None,
        address_policy: AddressPolicy = any_address,
        resolver: Resolver = system_resolver,
        sweep_s: float = SWEEP_S,
    ) -> None:
        self._limits = limits = limits or ClientLimits()
        self._budget = budget or Budget()
        self._dialer = Dialer(limits.connect_s, ssl_context, proxies or Proxies(), address_policy, resolver)
        self._pool = Pool(limits, sweep_s)
        self._closed = False

    def fetch(
        self,
        origin: Origin,
        message: bytes,
        *,
        deadline: float,
        first_byte_s: float | None = None,
        idle_s: float | None = None,
        max_body: int | None = None,
        on_sent: Callable[[Answer], None] | None = None,
    ) -> Coroutine[Any, Any, Response]:
        """Send ``message``, a whole request, and return the whole answer."""
        limits = self._limits
        answer = Response(
            message.startswith(b"HEAD "),
            limits.first_byte_s if first_byte_s is None else first_byte_s,
            limits.idle_read_s if idle_s is None else idle_s,
            deadline,
            limits.max_body if max_body is None else max_body,
            self._budget,
        )
        return self._exchange(answer, origin, message, on_sent)

    def open(
        self,
        origin: Origin,
        message: bytes,
        *,
        deadline: float,
        first_byte_s: float | None = None,
        idle_s: float | None = None,
        max_body: int | None = None,
        on_sent: Callable[[Answer], None] | None = None,
    ) -> Coroutine[Any, Any, StreamedResponse]:
        """Send ``message``, a whole request, and return the answer as soon as its head is there."""
        return self._exchange(
            self._streamed(message, deadline, first_byte_s, idle_s, max_body), origin, message, on_sent
        )

    async def open_upload(
        self,
        origin: Origin,
        head: bytes,
        body: AsyncIterable[bytes],
        *,
        deadline: float,
        first_byte_s: float | None = None,
        idle_s: float | None = None,
        max_body: int | None = None,
        on_sent: Callable[[Answer], None] | None = None,
    ) -> StreamedResponse:
        """Send ``head``, then the pieces of ``body`` as they are and as fast as the upstream takes them.

        ``head`` says how the pieces are framed. They cannot be sent twice, so the connection is always a fresh one.
        ``first_byte_s`` is counted from the last piece. An answer that comes early ends the sending.
        """
        answer = self._streamed(head, deadline, first_byte_s, idle_s, max_body)
        try:
            await answer.upload(await self._connect(origin, deadline), head, body, on_sent)
        except BaseException:
            answer.close()
            raise
        if answer.error is not None and not answer.readable:
            raise answer.failure()
        return answer

    @property
    def open_connections(self) -> int:
        """Open connections, busy and idle."""
        return self._pool.open_connections

    @property
    def max_connections(self) -> int:
        """How many may be open, but for those to Unix sockets."""
        return self._limits.max_connections

    @property
    def refused(self) -> int:
        """Connections that there was no room for, since the start."""
        return self._pool.refused

    @property
    def closed_for_room(self) -> int:
        """Idle connections that were closed for others, since the start."""
        return self._pool.closed_for_room

    @property
    def idle_connections(self) -> int:
        """Open connections that wait for a request."""
        return self._pool.idle_connections

    def close(self) -> None:
        """Cut every connection; running calls fail, later ones too."""
        self._closed = True
        self._pool.close()

    def _streamed(
        self, message: bytes, deadline: float, first_byte_s: float | None, idle_s: float | None, max_body: int | None
    ) -> StreamedResponse:
        limits = self._limits
        return StreamedResponse(
            message.startswith(b"HEAD "),
            limits.first_byte_s if first_byte_s is None else first_byte_s,
            limits.idle_read_s if idle_s is None else idle_s,
            deadline,
            limits.max_stream if max_body is None else max_body,
            self._budget,
            high_water=limits.high_water,
        )

    async def _exchange(
        self, answer: _Answer, origin: Origin, message: bytes, on_sent: Callable[[Answer], None] | None
    ) -> _Answer:
        """Send the request, and return the answer when its caller can have it.

        ``fetch`` and ``open`` are no coroutines themselves, because one inside another costs each request 0.2 µs.
        """
        try:
            connection = self._pool.take(origin)
            if connection is not None:
                await answer.send(connection, message, on_sent)
            if connection is None or answer.stale:
                await answer.send(await self._connect(origin, answer.deadline), message, on_sent)
        except BaseException:
            answer.close()
            raise
        if answer.error is not None and not answer.readable:
            raise answer.failure()
        return answer

    async def _connect(self, origin: Origin, deadline: float) -> Connection:
        self._pool.make_room(origin)
        try:
            channel, proxy = await self._dialer.dial(origin, deadline)
            if self._closed or channel.is_closing():
                channel.abort()
                raise Disconnected("the connection ended before the request")
        except BaseException:
            self._pool.give_place_back(origin)
            raise
        connection = Connection(self._pool, origin, channel, proxy, asyncio.get_running_loop().time())
        self._pool.add(connection)
        return connection
