"""Who may use the admin surface.

With ADMIN_KEY: whoever presents it. Without: whoever is on this machine, for then only a loopback address is listened
on. But a browser is on this machine too, and runs the programs of strangers: a page may send requests to localhost
(cross-site request forgery), or give its own name the address 127.0.0.1 (DNS rebinding). Such requests show themselves
by an ``Origin`` header, or by a ``Host`` that is a stranger's name, and are refused.
"""

import hmac

from starlette.requests import Request

from tollway.controlplane.errors import ApiError
from tollway.domain.keys import Secret
from tollway.settings import Settings, is_loopback


class Access:
    """Judges requests to the admin surface."""

    def __init__(self, settings: Settings) -> None:
        self._admin_key = settings.admin_key
        self._host = settings.host

    def require_admin(self, request: Request) -> None:
        """Raises ApiError unless the request may do everything."""
        if self._admin_key is None:
            self._require_local(request)
        elif not _equal(bearer(request), self._admin_key):
            raise ApiError(401, "The admin key is missing or not valid.", "invalid_api_key")

    def require_some_credential(self, request: Request) -> None:
        """Raises ApiError for a request that cannot become allowed, whatever its body says."""
        if self._admin_key is None:
            self._require_local(request)
        elif bearer(request) is None:
            self.require_admin(request)

    def require_owner(self, request: Request, virtual_key: Secret) -> None:
        """Raises ApiError unless the request may change this virtual key: an administrator's, or the key's own."""
        if self._admin_key is None or not _equal(bearer(request), virtual_key):
            self.require_admin(request)

    def _require_local(self, request: Request) -> None:
        if "origin" in request.headers:
            raise ApiError(403, "Without ADMIN_KEY, requests from web pages are refused.", "origin_not_allowed")
        name = _host_name(request.headers.get("host", ""))
        if name != self._host and not is_loopback(name):
            raise ApiError(403, "Without ADMIN_KEY, only requests to a loopback Host are taken.", "host_not_allowed")


def bearer(request: Request) -> Secret | None:
    """The token of the ``Authorization`` header."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return Secret(token.strip()) if scheme.lower() == "bearer" and token.strip() else None


def _equal(presented: Secret | None, expected: Secret) -> bool:
    return presented is not None and hmac.compare_digest(presented.reveal().encode(), expected.reveal().encode())


def _host_name(host: str) -> str:
    """``host:port`` or ``[address]:port`` without the port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()
