"""Who may use the admin surface: one decision for both planes.

The data plane asks before it reads a body, the control plane asks again, because what it serves is its to guard.

With ADMIN_KEY: whoever presents it. Without: whoever is on this machine, for then only a loopback address is listened
on. But others reach such an address too:

1. A browser is on this machine and runs the programs of strangers. A page may send requests to localhost (cross-site
   request forgery), or give its own name the address 127.0.0.1 (DNS rebinding). Such requests show themselves by an
   ``Origin``, or by a ``Host`` that is a stranger's name.
2. A reverse proxy on this machine speaks for the whole world. Most add headers that say so; nginx's defaults, before
   1.29.7, show themselves by HTTP/1.0, which no client speaks any more. A proxy that adds nothing cannot be told from
   a local client: nothing but ADMIN_KEY helps there, and docs/operate.md says so.
"""

import hmac
from collections.abc import Mapping

from tollway.admission.authenticate import bearer
from tollway.domain.hosts import host_name, is_loopback
from tollway.domain.keys import Secret
from tollway.domain.refusals import NotAdministrator

_PROXY_HEADERS = frozenset(
    b"forwarded via cdn-loop client-ip true-client-ip proxy-client-ip wl-proxy-client-ip"
    b" x-client-ip x-cluster-client-ip x-real-ip x-remote-ip x-remote-addr x-proxyuser-ip x-coming-from"
    b" cf-connecting-ip fly-client-ip fastly-client-ip do-connecting-ip ali-cdn-real-ip akamai-origin-hop"
    b" x-host x-rewrite-url x-url-scheme x-scheme front-end-https x-amzn-trace-id x-amz-cf-id x-cloud-trace-context"
    b" x-nginx-proxy x-varnish x-bluecoat-via proxy-connection proxy-authorization x-request-start x-iinfo".split()
)
_PROXY_FAMILIES = (
    *(b"x-forwarded", b"x-original-", b"x-real-", b"x-envoy-", b"x-azure-", b"x-appengine-", b"x-arr-"),
    *(b"x-akamai-", b"x-vercel-", b"x-nf-", b"x-sucuri-", b"cf-", b"fly-", b"fastly-", b"tailscale-"),
)
"""Headers that proxies, balancers and tunnels add, by name and by the beginning of the name; clients send none."""

_MAX_SHOWN = 64  # characters of such a header's name


def judge(
    headers: Mapping[bytes, bytes], minor: int, *, admin_key: Secret | None, host: str
) -> NotAdministrator | None:
    """Why a request may not use the admin surface; None if it may do everything there.

    Names of ``headers`` are in lower case; ``minor`` is the second digit of the HTTP version; ``host`` is HOST.
    """
    if admin_key is not None:
        presented = bearer(headers.get(b"authorization"))
        if presented is not None and hmac.compare_digest(presented, admin_key.reveal().encode()):
            return None
        return NotAdministrator(401, "invalid_api_key", "The admin key is missing or not valid.")
    sign = "speaks HTTP/1.0" if minor == 0 else _sign_of_a_proxy(headers)
    if sign is not None:
        text = f"The request came through a proxy: it {sign}. Set ADMIN_KEY to use the admin surface through one."
        return NotAdministrator(403, "admin_key_required", text)
    if b"origin" in headers:
        return NotAdministrator(403, "origin_not_allowed", "Without ADMIN_KEY, requests from web pages are refused.")
    name = host_name(headers.get(b"host", b"").decode("latin-1"))
    if name != host.lower() and not is_loopback(name):
        text = "Without ADMIN_KEY, only requests to a loopback Host are taken."
        return NotAdministrator(403, "host_not_allowed", text)
    return None


def _sign_of_a_proxy(headers: Mapping[bytes, bytes]) -> str | None:
    for name in headers:
        if name in _PROXY_HEADERS or name.startswith(_PROXY_FAMILIES):
            return f"has the header '{name[:_MAX_SHOWN].decode('latin-1')}'"
    return None
