"""Which path is served by whom. What is neither here nor in ``wire/paths.py`` gets 404, whatever the key.

What can be got can also be asked for its head alone: ``HEAD`` is ``GET`` whose body stays here.
"""

import logging
from collections.abc import Awaitable, Callable

from tollway.dataplane.answers import refuse, refuse_unread
from tollway.dataplane.calls import Operation
from tollway.dataplane.control import serve_control
from tollway.dataplane.cross_origin import PREFIX, VARY, CrossOrigin, preflight_lines
from tollway.dataplane.health import serve_liveness, serve_readiness
from tollway.dataplane.models import PATHS as MODEL_PATHS
from tollway.dataplane.models import serve_model, serve_models
from tollway.dataplane.operations import CHAT, COMPLETIONS, EMBEDDINGS, MODERATIONS
from tollway.dataplane.passage import serve_passage
from tollway.dataplane.serve import Parse, reading, serve
from tollway.dataplane.world import World
from tollway.domain.refusals import BadRequest, Overloaded
from tollway.http1.exchange import Request
from tollway.wire.chat_request import parse_chat
from tollway.wire.completion_request import parse_completion
from tollway.wire.embeddings_request import parse_embeddings
from tollway.wire.moderation_request import parse_moderation
from tollway.wire.openai_errors import error_body, to_http
from tollway.wire.paths import find

_log = logging.getLogger("tollway.routes")

_MAX_SHOWN = 200  # bytes of a path in a message; like methods, they are printable ASCII

Serve = Callable[[World, Request], Awaitable[None]]


def operation(of: Operation, parse: Parse) -> Serve:
    """Serves one operation whose bodies this parser judges."""
    read = reading(parse)
    return lambda world, request: serve(world, request, of, read, parse)


def _got(serve: Serve) -> dict[bytes, Serve]:
    return {b"GET": serve, b"HEAD": serve}


async def serve_everything(world: World, request: Request) -> None:
    """``OPTIONS *``: what the server as a whole can do (RFC 9110, section 9.3.7)."""
    head = b"allow: DELETE, GET, HEAD, OPTIONS, POST\r\nx-request-id: %b\r\n" % world.call_ids.next().encode()
    request.respond(204, head, b"")


_ON_OPENAIS_PATHS: dict[bytes, dict[bytes, Serve]] = {
    b"/chat/completions": {b"POST": operation(CHAT, parse_chat)},
    b"/embeddings": {b"POST": operation(EMBEDDINGS, parse_embeddings)},
    b"/completions": {b"POST": operation(COMPLETIONS, parse_completion)},
    b"/moderations": {b"POST": operation(MODERATIONS, parse_moderation)},
    b"/models": _got(serve_models),
}
"""Served with ``/v1`` and without. Everything else of OpenAI's API is in ``wire/paths.py``."""

ROUTES: dict[bytes, dict[bytes, Serve]] = {
    **{b"/v1" + path: methods for path, methods in _ON_OPENAIS_PATHS.items()},
    **_ON_OPENAIS_PATHS,
    b"/health/liveness": _got(serve_liveness),
    b"/health/readiness": _got(serve_readiness),
    b"/livez": _got(serve_liveness),
    b"/readyz": _got(serve_readiness),
    b"/metrics": _got(serve_control),
    b"/api/generate-virtual-key": {b"POST": serve_control},
    b"/api/save-keys": {b"POST": serve_control},
    b"*": {b"OPTIONS": serve_everything},
}


class Router:
    """Hands each request to whoever serves its path and method."""

    def __init__(self, world: World) -> None:
        self._world = world

    def serve(self, request: Request) -> Awaitable[None]:
        """Answer one request."""
        methods = ROUTES.get(request.path)
        serve = methods.get(request.method) if methods is not None else None
        return (serve or serve_other)(self._world, request)

    def render_error(self, status: int, reason: str) -> tuple[bytes, bytes]:
        """Header lines and body for what the HTTP server itself refuses, in OpenAI's format."""
        world = self._world
        if status == 503:
            return self._render_overload()
        code = "request_too_large" if status == 413 else "invalid_http_request" if status < 500 else "server_error"
        kind = "invalid_request_error" if status < 500 else "server_error"
        call_id = world.call_ids.next()
        refuse_unread(world, call_id, status, code)
        lines = b"content-type: application/json\r\nx-request-id: %b\r\n" % call_id.encode()
        return lines, error_body(reason[:1].upper() + reason[1:] + ".", kind, code)

    def lines_for_refused(self, head: bytes) -> bytes:
        """Nothing more than what :meth:`render_error` says."""
        return b""

    def _render_overload(self) -> tuple[bytes, bytes]:
        error, call_id = to_http(Overloaded()), self._world.call_ids.next()
        refuse_unread(self._world, call_id, error.status, error.code)
        lines = b"content-type: application/json\r\nx-request-id: %b\r\n%b"
        return lines % (call_id.encode(), error.headers), error.body

    def report_crash(self, error: BaseException) -> None:
        """Our own bug: the request died with a bare 500, the process lives."""
        _log.error("a request failed by a bug of ours", exc_info=error)


class CrossOriginRouter(Router):
    """A router whose answers some web pages may read: for a gateway with CORS_ALLOW_ORIGINS."""

    def __init__(self, world: World, cross_origin: CrossOrigin) -> None:
        super().__init__(world)
        self._cross_origin = cross_origin

    def serve(self, request: Request) -> Awaitable[None]:
        """Answer one request."""
        if request.path.startswith(PREFIX):
            origin = request.headers.get(b"origin")
            if origin is None:
                request.lines = VARY
            else:
                request.lines = self._cross_origin.lines(origin)
                if request.method == b"OPTIONS":
                    return self._serve_preflight(request, origin)
        return super().serve(request)

    def lines_for_refused(self, head: bytes) -> bytes:
        """Also a page may read why its request was none."""
        return self._cross_origin.lines_for_refused(head)

    async def _serve_preflight(self, request: Request, origin: bytes) -> None:
        """What a browser asks before it lets a page call us; it asks without the page's key."""
        world, call_id = self._world, self._world.call_ids.next()
        methods = methods_of(request.path)
        if not self._cross_origin.allows(origin):
            text = "Pages of this origin may not call this gateway: it is not in CORS_ALLOW_ORIGINS."
            refuse(world, request, call_id, BadRequest(text, code="origin_not_allowed", status=403))
        elif not methods:
            refuse(world, request, call_id, _unknown(request))
        else:
            asked = request.headers.get(b"access-control-request-headers", b"")
            private = request.headers.get(b"access-control-request-private-network") == b"true"
            lines = preflight_lines(methods, asked, private_network=private)
            request.respond(204, b"%bx-request-id: %b\r\n" % (lines, call_id.encode()), b"")


def router_of(world: World) -> Router:
    """The router that the settings ask for."""
    allowed = world.settings.cors_allow_origins
    return Router(world) if allowed is None else CrossOriginRouter(world, CrossOrigin(allowed))


def methods_of(path: bytes) -> list[bytes]:
    """What may be done with a path, in alphabetical order; nothing with one that nobody serves."""
    known = find(path)
    methods = {*ROUTES.get(path, ()), *(known.rules if known is not None else ())}
    if path.startswith(MODEL_PATHS):
        methods.add(b"GET")
    if b"GET" in methods:
        methods.add(b"HEAD")
    return sorted(methods)


async def serve_other(world: World, request: Request) -> None:
    """A path that passes as it is; 404 for one that nobody serves, 405 for a method that its path does not take."""
    method = b"GET" if request.method == b"HEAD" else request.method
    if method == b"GET" and request.path.startswith(MODEL_PATHS):
        await serve_model(world, request)
        return
    known = find(request.path)
    rule = known.rules.get(method) if known is not None else None
    if known is not None and rule is not None:
        await serve_passage(world, request, known.upstream, rule)
        return
    call_id, methods = world.call_ids.next(), methods_of(request.path)
    if methods:
        allowed = b", ".join(methods)
        refuse(world, request, call_id, _not_taken(request, allowed), b"allow: %b\r\n" % allowed)
    else:
        refuse(world, request, call_id, _unknown(request))


def _unknown(request: Request) -> BadRequest:
    text = f"Unknown request URL: {request.method.decode()} {_shown(request.path)}."
    return BadRequest(text, code="unknown_url", status=404)


def _not_taken(request: Request, allowed: bytes) -> BadRequest:
    text = f"{_shown(request.path)} takes {allowed.decode()}, not {request.method.decode()}."
    return BadRequest(text, code="method_not_allowed", status=405)


def _shown(path: bytes) -> str:
    return path[:_MAX_SHOWN].decode()
