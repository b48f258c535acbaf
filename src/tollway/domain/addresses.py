"""Which addresses a provider may live at.

Administrators may point a provider at loopback and private addresses (self-hosted models are common), but never at the
link-local range, where clouds keep their metadata services, nor at an address that is none.
"""

import ipaddress

_METADATA = {ipaddress.ip_address("fd00:ec2::254"), ipaddress.ip_address("100.100.100.200")}
"""Metadata services outside the link-local ranges (Amazon over IPv6, Alibaba)."""


def is_allowed(address: str) -> bool:
    """Whether Tollway connects to this numeric IPv4 or IPv6 address; False for anything that is no address."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or ip.sixtofour or ip
    return not (ip.is_link_local or ip.is_multicast or ip.is_unspecified or ip in _METADATA)
