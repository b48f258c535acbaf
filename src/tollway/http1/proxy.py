"""HTTP proxies on the way to an upstream: which one, and how it is asked.

An https origin is reached through a tunnel (CONNECT), so the proxy sees neither the request nor the credential in it.
An http origin is reached by asking the proxy for the absolute URL.
"""

import asyncio
import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self
from urllib.parse import unquote_to_bytes

from tollway.http1.channel import Channel
from tollway.http1.errors import BadResponse, ConnectFailed
from tollway.http1.head import parse_response_head
from tollway.http1.origin import Origin

_MAX_TUNNEL_HEAD: Final = 16 * 1024
"""Bytes of a proxy's answer to CONNECT; real ones are below 1 KiB."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """One proxy. ``credential`` is a whole header line, or nothing."""

    origin: Origin
    credential: bytes = field(default=b"", repr=False)

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read ``[http[s]://][user[:password]@]host[:port]``; raises ValueError with a text that holds no secret."""
        scheme, separator, rest = url.partition("://")
        if not separator:
            scheme, rest = "http", url
        userinfo, _, place = rest.rpartition("@")
        origin, path = Origin.parse(f"{scheme}://{place}")
        if path:
            raise ValueError("a proxy has no path")
        return cls(origin, _basic(userinfo) if userinfo else b"")

    def absolute_form(self, origin: Origin, message: bytes) -> bytes:
        """Rewrite a request in origin-form (``POST /path …``) for ``origin`` into what this proxy takes."""
        end = message.index(b"\r\n") + 2
        method, target = message[:end].split(b" ", 1)
        return b"%b http://%b%b%b%b" % (method, origin.authority, target, self.credential, message[end:])


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxies of a process and the hosts that are reached without one."""

    http: Proxy | None = None
    https: Proxy | None = None
    exempt: tuple[str, ...] = ()
    """``*``, or host names and addresses, with ``:port`` where only that port is meant."""

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Self:
        """Read HTTP_PROXY, HTTPS_PROXY and NO_PROXY, in lower case first, as curl does.

        Raises ValueError that names the variable.
        """

        def value(name: str) -> str:
            return (environment.get(name.lower()) or environment.get(name) or "").strip()

        def proxy(name: str) -> Proxy | None:
            try:
                return Proxy.parse(text) if (text := value(name)) else None
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None

        names = (name.strip().lower().removeprefix("*.").lstrip(".") for name in value("NO_PROXY").split(","))
        return cls(proxy("HTTP_PROXY"), proxy("HTTPS_PROXY"), tuple(name for name in names if name))

    def choose(self, origin: Origin) -> Proxy | None:
        """Return the proxy for this origin; None means to connect directly."""
        proxy = {"http": self.http, "https": self.https}.get(origin.scheme)
        if proxy is None or any(_covers(name, origin) for name in self.exempt):
            return None
        return proxy


def _covers(name: str, origin: Origin) -> bool:
    """Whether one entry of NO_PROXY means this origin: the host itself or any name below it."""
    if name == "*":
        return True
    host, separator, port = name.rpartition(":")
    if separator and port.isdecimal() and (":" not in host or host.startswith("[")):
        if int(port) != origin.port:
            return False
        name = host
    name = name.strip("[]")
    return origin.host == name or origin.host.endswith(f".{name}")


def _basic(userinfo: str) -> bytes:
    user, _, password = userinfo.partition(":")
    pair = unquote_to_bytes(user) + b":" + unquote_to_bytes(password)
    return b"Proxy-Authorization: Basic %b\r\n" % base64.b64encode(pair)


async def open_tunnel(channel: Channel, origin: Origin, proxy: Proxy) -> None:
    """Ask the proxy at the other end of ``channel`` for a connection to ``origin``; afterwards the channel is that.

    Raises ConnectFailed. The caller keeps the time, and owns the channel in every outcome.
    """
    answer = _TunnelAnswer()
    channel.set_protocol(answer)
    if channel.is_closing():
        raise ConnectFailed("the proxy closed the connection")
    target = origin.host_and_port
    channel.write(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (target, target, proxy.credential))
    status = await answer.status
    if isinstance(status, str):
        raise ConnectFailed(status)
    if status == 407:
        raise ConnectFailed("the proxy does not accept our credential")
    if not 200 <= status < 300:
        raise ConnectFailed(f"the proxy refused the tunnel with status {status}")


class _TunnelAnswer(asyncio.Protocol):
    """Waits for the head of the answer to CONNECT. Nobody may speak before we do, so nothing may follow a 2xx."""

    __slots__ = ("_head", "status")

    def __init__(self) -> None:
        self.status: asyncio.Future[int | str] = asyncio.get_running_loop().create_future()
        """Or why there is none. No exception: in a future it would keep the frames that it is raised in."""
        self._head = bytearray()

    def data_received(self, data: bytes) -> None:
        head = self._head
        head += data
        end = head.find(b"\r\n\r\n")
        if end < 0:
            if len(head) > _MAX_TUNNEL_HEAD:
                self._fail("the proxy's answer is too large")
            return
        try:
            status = parse_response_head(bytes(head[: end + 4]), b"CONNECT").status
        except BadResponse:
            self._fail("the proxy does not speak HTTP/1.1")
            return
        if status < 300 and len(head) > end + 4:
            self._fail("the proxy sent more than its answer")
        elif not self.status.done():
            self.status.set_result(status)

    def eof_received(self) -> None:
        self._fail("the proxy closed the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail("the proxy closed the connection")

    def _fail(self, reason: str) -> None:
        if not self.status.done():
            self.status.set_result(reason)
