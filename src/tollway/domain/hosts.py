"""Names of hosts, as settings and ``Host`` headers give them."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address; a name other than ``localhost`` is not trusted to stay one."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def host_name(authority: str) -> str:
    """``host:port`` or ``[address]:port`` without the port, in lower case."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0].lower()
    return authority.partition(":")[0].lower()
