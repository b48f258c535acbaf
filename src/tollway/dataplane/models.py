"""The models that a key may use, as the configuration has them; no provider is asked."""

from collections.abc import Callable
from urllib.parse import unquote_to_bytes

from tollway.dataplane.answers import limit_lines, own_head, refuse
from tollway.dataplane.calls import Call
from tollway.dataplane.operations import MODELS
from tollway.dataplane.serve import admit, identify
from tollway.dataplane.world import World
from tollway.domain.asked import Asked
from tollway.domain.refusals import ModelNotAllowed, ModelNotFound, Refusal
from tollway.http1.exchange import Request
from tollway.routing.snapshot import NO_MODEL, Target
from tollway.wire.models import Model, model_list, model_object

PATHS = (b"/v1/models/", b"/models/")
"""What the name of a single model follows."""

_CREATED = 1_700_000_000
"""OpenAI's schema wants a moment; the configuration knows none, and clients only show it."""


async def serve_models(world: World, request: Request) -> None:
    """All models that the key may use."""
    await _tell(world, request, _all)


async def serve_model(world: World, request: Request) -> None:
    """The one that the path names."""
    await _tell(world, request, _named)


async def _tell(world: World, request: Request, answer: Callable[[Call], bytes | Refusal]) -> None:
    call_id = world.call_ids.next()
    call = identify(world, request, call_id)
    if not isinstance(call, Call):
        refuse(world, request, call_id, call)
        return
    found = answer(call)
    refusal = admit(world, call, MODELS, Asked(model=NO_MODEL)) if isinstance(found, bytes) else found
    if isinstance(found, bytes) and refusal is None:
        world.books.close(call)
        world.metrics.served()
        request.respond(200, own_head(call, world.now()), found)
    elif refusal is not None:
        refuse(world, request, call_id, refusal, limit_lines(world, call.grant))


def _all(call: Call) -> bytes:
    routes = call.snapshot.routes.items()
    return model_list([_model(route.targets[0]) for name, route in routes if name != NO_MODEL and _may_use(call, name)])


def _named(call: Call) -> bytes | Refusal:
    path = call.request.path
    name = unquote_to_bytes(path.partition(b"/models/")[2]).decode("utf-8", "replace")
    route = call.snapshot.routes.get(name)
    if route is None or name == NO_MODEL:
        return ModelNotFound(name, 404)
    return model_object(_model(route.targets[0])) if _may_use(call, name) else ModelNotAllowed(name)


def _may_use(call: Call, name: str) -> bool:
    return call.grant.models is None or name in call.grant.models


def _model(target: Target) -> Model:
    return Model(id=target.model, created=_CREATED, owned_by=target.provider.name)
