"""Which path is served by whom. Every path that is not here is answered with 404, whatever the key."""

import logging
from collections.abc import Awaitable, Callable

from tollway.dataplane.answers import refuse
from tollway.dataplane.calls import Operation
from tollway.dataplane.control import serve_control
from tollway.dataplane.health import serve_liveness, serve_readiness
from tollway.dataplane.operations import CHAT
from tollway.dataplane.serve import serve
from tollway.dataplane.world import World
from tollway.domain.refusals import BadRequest
from tollway.http1.server import Request
from tollway.wire.openai_errors import error_body

_log = logging.getLogger("tollway.routes")

Serve = Callable[[World, Request], Awaitable[None]]


def operation(of: Operation) -> Serve:
    """Serves one operation."""
    return lambda world, request: serve(world, request, of)


ROUTES: dict[bytes, dict[bytes, Serve]] = {
    b"/v1/chat/completions": {b"POST": operation(CHAT)},
    b"/chat/completions": {b"POST": operation(CHAT)},
    b"/health/liveness": {b"GET": serve_liveness, b"HEAD": serve_liveness},
    b"/health/readiness": {b"GET": serve_readiness, b"HEAD": serve_readiness},
    b"/livez": {b"GET": serve_liveness, b"HEAD": serve_liveness},
    b"/readyz": {b"GET": serve_readiness, b"HEAD": serve_readiness},
    b"/metrics": {b"GET": serve_control},
    b"/api/generate-virtual-key": {b"POST": serve_control},
    b"/api/save-keys": {b"POST": serve_control},
}


class Router:
    """Hands each request to whoever serves its path and method."""

    def __init__(self, world: World) -> None:
        self._world = world

    def serve(self, request: Request) -> Awaitable[None]:
        """Answer one request."""
        methods = ROUTES.get(request.path)
        serve = methods.get(request.method) if methods is not None else None
        return (serve or serve_unknown)(self._world, request)

    def render_error(self, status: int, reason: str) -> tuple[bytes, bytes]:
        """Header lines and body for what the HTTP server itself refuses, in OpenAI's format."""
        world = self._world
        code = "request_too_large" if status == 413 else "invalid_http_request" if status < 500 else "server_error"
        kind = "invalid_request_error" if status < 500 else "server_error"
        world.metrics.refused(code)
        lines = b"content-type: application/json\r\nx-request-id: %b\r\n" % world.call_ids.next().encode()
        return lines, error_body(reason[:1].upper() + reason[1:] + ".", kind, code)

    def report_crash(self, error: BaseException) -> None:
        """Our own bug: the request died with a bare 500, the process lives."""
        _log.error("a request failed by a bug of ours", exc_info=error)


async def serve_unknown(world: World, request: Request) -> None:
    """404 for a path that nobody serves, 405 for a method that its path does not take."""
    refuse(world, request, world.call_ids.next(), _unknown(request, ROUTES.get(request.path)))


def _unknown(request: Request, methods: dict[bytes, Serve] | None) -> BadRequest:
    path = request.path[:200].decode("ascii", "replace")
    method = request.method.decode("ascii", "replace")
    if methods is None:
        return BadRequest(f"Unknown request URL: {method} {path}.", code="unknown_url", status=404)
    allowed = ", ".join(sorted(name.decode() for name in methods))
    return BadRequest(f"{path} takes {allowed}, not {method}.", code="method_not_allowed", status=405)
