"""Where a call may go, in order."""

from tollway.domain.refusals import ModelNotAllowed, ModelNotFound
from tollway.routing.snapshot import NO_MODEL, KeyGrant, Snapshot, Target


def plan(model: str, grant: KeyGrant, snapshot: Snapshot) -> tuple[Target, ...] | ModelNotFound | ModelNotAllowed:
    """The model's own target, then its fallbacks without those that the key may not use.

    Calls that name no model have a target of their own, which is no matter of allow-lists.
    """
    route = snapshot.routes.get(model)
    if route is None:
        return ModelNotFound(model)
    allowed = grant.models
    if allowed is None or model == NO_MODEL:
        return route.targets
    if model not in allowed:
        return ModelNotAllowed(model)
    return tuple([target for target in route.targets if target.model in allowed])
