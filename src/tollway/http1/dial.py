"""New connections to upstreams: name, address policy, TCP or unix socket, proxy, TLS; all under one deadline."""

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from tollway.http1.channel import Channel, Silence
from tollway.http1.errors import ConnectFailed, ConnectTimeout, NoRoom, TotalTimeout, UpstreamError
from tollway.http1.origin import Origin
from tollway.http1.proxy import Proxies, Proxy, open_tunnel
from tollway.http1.tls import TlsChannel

_OURS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM})
"""What this process or its machine has run out of: descriptors, ports, memory. It says nothing of the upstream."""

Address = IPv4Address | IPv6Address
AddressPolicy = Callable[[Address], bool]
"""May we connect there? An IPv6 address that only wraps an IPv4 one is asked about as the latter."""

Resolver = Callable[[str, int], Awaitable[list[Address]]]
"""Host and port to addresses, the best first; raises OSError or UnicodeError."""


def any_address(address: Address) -> bool:
    """Allow every address."""
    return True


async def system_resolver(host: str, port: int) -> list[Address]:
    """Ask the operating system."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ip_address(sockaddr[0]) for *_, sockaddr in found]


class Dialer:
    """Opens channels to origins. The address that was judged is the address that is connected."""

    def __init__(
        self,
        connect_s: float,
        ssl_context: Callable[[], ssl.SSLContext],
        proxies: Proxies,
        address_policy: AddressPolicy,
        resolver: Resolver,
    ) -> None:
        self._connect_s = connect_s
        self._make_context = ssl_context
        self._context: ssl.SSLContext | None = None  # made when first needed: it costs time and memory
        self._proxies = proxies
        self._policy = address_policy
        self._resolver = resolver

    async def dial(self, origin: Origin, deadline: float) -> tuple[Channel, Proxy | None]:
        """Return an open channel, and the proxy that wants requests on it in absolute form, if there is one.

        ``deadline`` is loop time. Raises ConnectFailed, ConnectTimeout, TlsFailed, TotalTimeout.
        """
        connected_by = asyncio.get_running_loop().time() + self._connect_s
        until = min(connected_by, deadline)
        try:
            async with asyncio.timeout_at(until):
                return await self._open(origin, until)
        except TimeoutError:
            if until < connected_by:
                raise TotalTimeout("the deadline passed while connecting") from None
            raise ConnectTimeout("no connection in time") from None

    async def _open(self, origin: Origin, until: float) -> tuple[Channel, Proxy | None]:
        if origin.scheme == "unix":
            return await _connect_unix(origin.host), None
        proxy = self._proxies.choose(origin)
        if proxy is None:
            transport = await self._connect(origin, self._policy, until)
        else:
            if (address := _literal(origin.host)) is not None:  # names are resolved by the proxy
                _permitted([address], self._policy)
            transport = await self._connect(proxy.origin, any_address, until)
        try:
            return await self._prepare(transport, origin, proxy)
        except BaseException:
            transport.abort()
            raise

    async def _prepare(self, channel: Channel, origin: Origin, proxy: Proxy | None) -> tuple[Channel, Proxy | None]:
        if proxy is not None:
            if proxy.origin.tls:
                channel = await self._encrypt(channel, proxy.origin)
            if not origin.tls:
                return channel, proxy
            await open_tunnel(channel, origin, proxy)
        if origin.tls:
            channel = await self._encrypt(channel, origin)
        return channel, None

    async def _connect(self, place: Origin, policy: AddressPolicy, until: float) -> asyncio.Transport:
        """Try the addresses in turn; each gets an equal share of the time that is left."""
        loop = asyncio.get_running_loop()
        addresses = _permitted(await self._resolve(place), policy)
        failed = "no address"  # an exception in its place would keep the frames that it passes, and they keep it
        timed_out = False
        for tried, address in enumerate(addresses):
            share = (until - loop.time()) / (len(addresses) - tried)
            try:
                async with asyncio.timeout(share):
                    transport, _ = await loop.create_connection(Silence, str(address), place.port)
                return transport
            except TimeoutError:
                timed_out = True
            except OSError as error:
                if error.errno in _OURS:
                    raise _failure(error) from None
                failed, timed_out = _reason(error), False
        raise TimeoutError if timed_out else ConnectFailed(failed)

    async def _resolve(self, place: Origin) -> list[Address]:
        if (address := _literal(place.host)) is not None:
            return [address]
        try:
            return await self._resolver(place.host, place.port)
        except (OSError, UnicodeError) as error:
            if isinstance(error, OSError) and error.errno in _OURS:
                raise _failure(error) from None
            raise ConnectFailed("the name does not resolve") from None

    async def _encrypt(self, channel: Channel, place: Origin) -> TlsChannel:
        if self._context is None:
            self._context = self._make_context()
        return await TlsChannel.start(channel, self._context, place.host)


async def _connect_unix(path: str) -> asyncio.Transport:
    try:
        transport, _ = await asyncio.get_running_loop().create_unix_connection(Silence, path)
    except OSError as error:
        raise _failure(error) from None
    return transport


def _literal(host: str) -> Address | None:
    """Return the address that ``host`` spells, in all the ways that resolvers take (``0x7f.1``, ``2130706433``)."""
    try:
        return ip_address(host)
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


def _permitted(addresses: list[Address], policy: AddressPolicy) -> list[Address]:
    allowed = [address for address in addresses if policy(getattr(address, "ipv4_mapped", None) or address)]
    if not allowed:
        raise ConnectFailed("the address is not allowed")
    return allowed


def _failure(error: OSError) -> UpstreamError:
    """Whose fault it is that there is no connection."""
    return NoRoom(_reason(error)) if error.errno in _OURS else ConnectFailed(_reason(error))


def _reason(error: OSError) -> str:
    """Return the system's words for the error; ``str(error)`` would name the address."""
    return os.strerror(error.errno).lower() if error.errno else "the connection failed"
