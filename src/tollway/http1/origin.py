"""Where an upstream listens. Pure."""

import ipaddress
import re
from typing import Final, NamedTuple, Self

_URL: Final = re.compile(
    r"(?P<scheme>(?ai:https?))://"
    r"(?P<host>[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]*)*)",
)
"""An absolute URL without user information, query and fragment, in ASCII (RFC 3986)."""

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """One place to connect to; connections are shared between calls to equal origins, and never between others."""

    scheme: str
    host: str
    """Lower case, without brackets; for a unix socket its path."""
    port: int
    """0 for a unix socket."""

    @classmethod
    def parse(cls, url: str) -> tuple[Self, bytes]:
        """Split a base URL into the origin and the path prefix (without a slash at its end; ``b""`` for none).

        Raises ValueError with a text for people. Unix sockets have no URL: no text from outside can name one.
        """
        match = _URL.fullmatch(url)
        if match is None:
            raise ValueError("not an http(s) URL of host, port and path only")
        scheme, host = match["scheme"].lower(), match["host"].lower()
        if host.startswith("["):
            host = host[1:-1]
            try:
                ipaddress.IPv6Address(host)
            except ValueError:
                raise ValueError("not an IPv6 address between the brackets") from None
        port = int(match["port"] or _DEFAULT_PORTS[scheme])
        if not 0 < port < 65536:
            raise ValueError("the port is not between 1 and 65535")
        return cls(scheme, host, port), match["path"].rstrip("/").encode()

    @classmethod
    def unix(cls, path: str) -> Self:
        """Return the origin of plain HTTP on the unix socket at ``path``."""
        return cls("unix", path, 0)

    @property
    def tls(self) -> bool:
        """Whether TLS is spoken to this origin."""
        return self.scheme == "https"

    @property
    def host_and_port(self) -> bytes:
        """The host, in brackets if it is IPv6, always with the port: what CONNECT asks for."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}".encode()

    @property
    def authority(self) -> bytes:
        """The value of ``Host``: the port only where it is not the scheme's own."""
        if self.scheme == "unix":
            return b"localhost"
        text = self.host_and_port
        return text.rpartition(b":")[0] if _DEFAULT_PORTS[self.scheme] == self.port else text
