"""Where a provider may be: the grammar of its address, and the places where none may ever be.

The function ``tollway.address_problem`` of the database says the same of every text; a test compares the two.
"""

import ipaddress
import re
from collections.abc import Iterator

BUILTIN = "builtin:"
"""An address that begins so is answered inside the gateway, without a credential."""

_METADATA_NAMES = frozenset({"metadata", "metadata.google.internal", "metadata.goog", "instance-data"})
_FORBIDDEN_V4 = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "169.254.0.0/16",  # link-local; AWS, Azure, GCP, OpenStack and most others serve credentials at 169.254.169.254
        "100.100.100.200/32",  # Alibaba Cloud
        "168.63.129.16/32",  # Azure's wire server
        "192.0.0.192/32",  # Oracle Cloud
    )
)
_FORBIDDEN_V6 = tuple(
    ipaddress.IPv6Network(text)
    for text in (
        "fe80::/10",  # link-local
        "fd00:ec2::/32",  # AWS
        "fd20:ce::254/128",  # Google Cloud
        "fd00:42::42/128",  # Scaleway
    )
)
_LOW_96 = tuple(
    ipaddress.IPv6Network(text)
    for text in (
        "::/96",  # IPv4-compatible (RFC 4291)
        "::ffff:0:0/96",  # IPv4-mapped (RFC 4291)
        "::ffff:0:0:0/96",  # IPv4-translated (RFC 2765)
        "64:ff9b::/96",  # NAT64 (RFC 6052)
    )
)
_LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")  # RFC 8215; how long a translator's prefix is, nobody can see
_SIX_TO_FOUR = ipaddress.IPv6Network("2002::/16")
_TEREDO = ipaddress.IPv6Network("2001::/32")
_ISATAP = (0x00005EFE, 0x02005EFE)  # the upper half of an interface's identifier (RFC 5214)

_URL = re.compile(
    r"[Hh][Tt][Tt][Pp][Ss]?://"
    r"(?P<host>[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]*)*"
)
"""What ``http1.origin.Origin.parse`` takes: an address that passes here and not there would fail every call."""

_BUILTIN = re.compile(re.escape(BUILTIN) + r"[a-z]+")
_OLD_NUMBER = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)(?:\.(?:0x[0-9a-f]*|[0-9]+))*")


def is_forbidden_address(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether no provider may ever be there: link-local and cloud metadata, also when wrapped into IPv6."""
    if isinstance(address, ipaddress.IPv4Address):
        return any(address in network for network in _FORBIDDEN_V4)
    if any(address in network for network in _FORBIDDEN_V6):
        return True
    return any(inner in network for inner in _wrapped(address) for network in _FORBIDDEN_V4)


def base_url_problem(url: str) -> str | None:
    """Why a provider cannot be at this address; what a name resolves to is judged when connecting."""
    if _BUILTIN.fullmatch(url):
        return None
    parts = _URL.fullmatch(url)
    if parts is None or not 0 < int(parts["port"] or 80) < 65536:
        return "the address must be http(s)://host[:port][/path], without user name, query and fragment"
    host = parts["host"].lower().rstrip(".")
    try:
        if host.startswith("["):
            forbidden = is_forbidden_address(ipaddress.IPv6Address(host[1:-1]))
        else:
            forbidden = is_forbidden_address(ipaddress.IPv4Address(host))
    except ValueError:
        if host.startswith("["):
            return "the address holds no IPv6 address that can be read"
        if _OLD_NUMBER.fullmatch(host):
            return "an IPv4 address is written as four decimal numbers"
        forbidden = host in _METADATA_NAMES
    return "link-local and metadata addresses are never accepted" if forbidden else None


def _wrapped(address: ipaddress.IPv6Address) -> Iterator[ipaddress.IPv4Address]:
    """The IPv4 addresses that a packet for this one may end up at, somewhere."""
    bits = int(address)
    if any(address in network for network in _LOW_96):
        yield _v4(bits)
    elif address in _LOCAL_NAT64:
        # RFC 6052, section 2.2: behind a prefix of 96, 64, 56 or 48 bits; the eight bits from the 64th on are left out.
        yield _v4(bits)
        yield _v4(bits >> 24)
        yield _v4(bits >> 40 & 0xFF000000 | bits >> 32 & 0xFFFFFF)
        yield _v4(bits >> 48 & 0xFFFF0000 | bits >> 40 & 0xFFFF)
    elif address in _SIX_TO_FOUR:
        yield _v4(bits >> 80)
    elif address in _TEREDO:
        yield _v4(bits >> 64)  # the server
        yield _v4(~bits)  # the client
    if bits >> 32 & 0xFFFFFFFF in _ISATAP:
        yield _v4(bits)


def _v4(bits: int) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(bits & 0xFFFFFFFF)
