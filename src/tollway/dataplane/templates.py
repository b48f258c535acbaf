"""The paths of requests as a log may name them: of a closed set, with names in braces for what clients put there."""

from tollway.http1.exchange import Request
from tollway.wire.paths import find

SERVED = frozenset(
    {
        *(b"/chat/completions", b"/embeddings", b"/completions", b"/moderations", b"/models"),
        *(b"/health/liveness", b"/health/readiness", b"/livez", b"/readyz"),
        *(b"/metrics", b"/api/generate-virtual-key", b"/api/save-keys"),
    }
)
"""Without ``/v1``: what ``routes.py`` serves beside the paths that pass."""

UNKNOWN = "(unknown)"

_OURS = (b"/health", b"/livez", b"/readyz", b"/metrics", b"/api")
"""What these begin with is no path of OpenAI's API."""


def is_call(request: Request) -> bool:
    """Whether this is a call of OpenAI's API, be it a wrong one: neither administration, nor a browser that asks."""
    return request.method != b"OPTIONS" and not request.path.startswith(_OURS)


def template_of(request: Request) -> str:
    """The path's template, ``/v1`` in front where it belongs."""
    path = request.path.removeprefix(b"/v1")
    if path in SERVED:
        return path.decode() if path.startswith(_OURS) else f"/v1{path.decode()}"
    if path.startswith(b"/models/"):
        return "/v1/models/{model}"
    known = find(request.path)
    if known is None:
        return UNKNOWN
    rule = known.rules.get(request.method) or next(iter(known.rules.values()))
    return f"/v1{rule.template}"
