"""Handing a request for set-up, administration or metrics to the control plane, which is one more upstream."""

import time

from tollway.admission.administrators import judge
from tollway.admission.authenticate import authenticate, bearer
from tollway.dataplane.answers import key_id_of, refuse
from tollway.dataplane.reporting import report
from tollway.dataplane.world import World
from tollway.domain.refusals import BadKey, ControlPlaneAway, Refusal
from tollway.http1.errors import UpstreamError
from tollway.http1.exchange import Request
from tollway.routing.snapshot import KeyGrant

MAX_REQUEST = 64 * 1024
"""Largest body of an administrative request, in bytes; the control plane takes no more either."""

OWNERS = frozenset({b"/api/save-keys"})
"""Where a virtual key may do for itself what an administrator may do for it; whose it is the control plane judges."""

MAX_REPLY = 16 * 1024 * 1024
"""Largest answer of the control plane: metrics with all their series, long listings."""

_TIMEOUT_S = 30.0
_REVISION_WAIT_S = 1.0

_FORWARDED = (b"authorization", b"content-type", b"accept", b"origin", b"host")
"""What the control plane needs to judge a request. It trusts its socket, so nothing else passes."""

_RETURNED = (
    b"content-type",
    b"cache-control",
    b"www-authenticate",
    b"retry-after",
    b"allow",
    b"x-tollway-config-revision",
)


async def serve_control(world: World, request: Request) -> None:
    """Relay one request. The answer to a write waits until this worker's own configuration holds it."""
    call_id = world.call_ids.next()
    refusal = who_may_not(world, request)
    if refusal is not None:
        refuse(world, request, call_id, refusal)
        return
    body = await request.read_body(MAX_REQUEST)
    if request.path == b"/metrics":
        await report(world)
    method = b"GET" if request.method == b"HEAD" else request.method
    head = [b"%b %b HTTP/1.1\r\n" % (method, request.path)]
    head += [b"%b: %b\r\n" % (name, request.headers[name]) for name in _FORWARDED if name in request.headers]
    message = b"%bx-request-id: %b\r\nx-tollway-key-id: %b\r\ncontent-length: %d\r\n\r\n%b" % (
        b"".join(head),
        call_id.encode(),
        key_id_of(world, request).encode(),
        len(body),
        body,
    )
    try:
        reply = await world.client.fetch(
            world.control,
            message,
            first_byte_s=_TIMEOUT_S,
            idle_s=_TIMEOUT_S,
            deadline=world.now() + _TIMEOUT_S,
            max_body=MAX_REPLY,
        )
    except UpstreamError:
        refuse(world, request, call_id, ControlPlaneAway())
        return
    revision = reply.headers.get(b"x-tollway-config-revision")
    if revision is not None:
        await world.configuration.reached(int(revision), _REVISION_WAIT_S)
    lines = b"".join([b"%b: %b\r\n" % (name, reply.headers[name]) for name in _RETURNED if name in reply.headers])
    request.respond(reply.status, b"%bx-request-id: %b\r\n" % (lines, call_id.encode()), reply.body)


def who_may_not(world: World, request: Request) -> Refusal | None:
    """Why a request is refused before its body is read: nobody can make us hold a body without showing who it is."""
    headers, admin_key = request.headers, world.settings.admin_key
    refusal = judge(headers, request.minor, admin_key=admin_key, host=world.settings.host)
    if refusal is None or admin_key is None or request.path not in OWNERS:
        return refusal
    configuration, key = world.configuration, bearer(headers.get(b"authorization"))
    grant = authenticate(key, configuration.snapshot, world.hasher, time.time(), fresh=configuration.fresh)
    if isinstance(grant, KeyGrant):
        return None
    return refusal if isinstance(grant, BadKey) else grant
