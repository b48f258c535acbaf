"""Is this process alive, and should it get new requests."""

from collections.abc import Mapping

from tollway.dataplane.world import World
from tollway.http1.exchange import Request

_HEAD = b"content-type: application/json\r\ncache-control: no-store\r\nx-request-id: %b\r\n"


async def serve_liveness(world: World, request: Request) -> None:
    """200 as long as the event loop turns."""
    _answer(world, request, 200, b'{"status":"ok"}')


async def serve_readiness(world: World, request: Request) -> None:
    """200 while a new call of a known key would be served. A database that is away is a mode, not a reason."""
    reason = next((name for name, holds in reasons(world).items() if holds), None)
    if reason is not None:
        _answer(world, request, 503, b'{"status":"%b"}' % reason.encode())
    else:
        state = b"ok" if world.configuration.fresh else b"degraded"
        _answer(world, request, 200, b'{"status":"%b","revision":%d}' % (state, world.configuration.snapshot.revision))


def reasons(world: World) -> Mapping[str, bool]:
    """Why this process refuses every new call, each with whether it does: those that a call itself would meet."""
    return {
        "draining": world.draining,
        "accounting_unavailable": world.cannot_account,
        "overloaded": world.server.budget.full,
    }


def _answer(world: World, request: Request, status: int, body: bytes) -> None:
    request.respond(status, _HEAD % world.call_ids.next().encode(), body)
