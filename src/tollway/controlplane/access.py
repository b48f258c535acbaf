"""Who may use the admin surface, as the control plane asks it: ``admission/administrators.py`` decides."""

import hmac

from starlette.requests import Request

from tollway.admission.administrators import judge
from tollway.admission.authenticate import bearer
from tollway.controlplane.errors import ApiError
from tollway.domain.keys import Secret
from tollway.settings import Settings


class Access:
    """Judges requests to the admin surface."""

    def __init__(self, settings: Settings) -> None:
        self._admin_key = settings.admin_key
        self._host = settings.host

    def require_admin(self, request: Request) -> None:
        """Raises ApiError unless the request may do everything."""
        minor = 0 if request.scope.get("http_version") == "1.0" else 1
        refusal = judge(_headers(request), minor, admin_key=self._admin_key, host=self._host)
        if refusal is not None:
            raise ApiError(refusal.status, refusal.message, refusal.code)

    def require_some_credential(self, request: Request) -> None:
        """Raises ApiError for a request that cannot become allowed, whatever its body says."""
        if self._admin_key is None or _bearer(request) is None:
            self.require_admin(request)

    def require_owner(self, request: Request, virtual_key: Secret) -> None:
        """Raises ApiError unless the request may change this virtual key: an administrator's, or the key's own."""
        if self._admin_key is None or not presents(request, virtual_key):
            self.require_admin(request)


def presents(request: Request, virtual_key: Secret) -> bool:
    """Whether the request is authorised by this virtual key."""
    presented = _bearer(request)
    return presented is not None and hmac.compare_digest(presented, virtual_key.reveal().encode("utf-8", "replace"))


def _bearer(request: Request) -> bytes | None:
    return bearer(_headers(request).get(b"authorization"))


def _headers(request: Request) -> dict[bytes, bytes]:
    """By name in lower case; of a repeated one all, as a list, so that nobody can hide one behind another."""
    headers: dict[bytes, bytes] = {}
    for name, value in request.headers.raw:
        headers[name] = headers[name] + b", " + value if name in headers else value
    return headers
