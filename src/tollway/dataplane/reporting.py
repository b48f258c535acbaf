"""Telling the control plane what this worker counts, and looking after what needs a look every second."""

import asyncio
import contextlib
import logging
import time

from tollway.admission.authenticate import authenticate, presented_key
from tollway.dataplane.calls import Call, Clock, Cut
from tollway.dataplane.health import reasons
from tollway.dataplane.room import Room
from tollway.dataplane.world import World
from tollway.domain.refusals import ExpiredKey, KeysUnavailable
from tollway.http1.answer import Response
from tollway.http1.client import Client
from tollway.http1.errors import UpstreamError
from tollway.http1.origin import Origin
from tollway.observe.metrics import Gauges
from tollway.routing.snapshot import KeyGrant

_log = logging.getLogger("tollway.worker")

INTERVAL_S = 1.0

SYNC_S = 1.0
"""How long after it was noted something is put on the disk: a power cut loses so much, and what that takes."""

CHECKPOINT_S = 2.0
"""How much of a stream a killed worker forgets, at most."""

_CHECKPOINTS_AT_ONCE = 100  # a few hundred microseconds
_TIMEOUT_S = 2.0
_DELIVERY_TIMEOUT_S = 5.0
_DONE = 204
_MAX_REPLY = 64 * 1024


async def keep_house(world: World) -> None:
    """Once a second: look at the loop's lag, keys that are no longer good, a lost journal, room, silent streams."""
    seen = world.configuration.snapshot
    room = Room(world)
    while True:
        due = world.now() + INTERVAL_S
        await asyncio.sleep(INTERVAL_S)
        world.loop_lag_s = max(0.0, world.now() - due)
        try:
            cut_expired(world)
            if world.configuration.snapshot is not seen:
                seen = world.configuration.snapshot
                cut_revoked(world)
            await world.books.rescue()
            world.refusals.turn()
            room.look()
            keep_streams_alive(world)
        except Exception:
            _log.exception("house-keeping failed and goes on")


async def keep_checkpoints(world: World) -> None:
    """Note from time to time what of the running streams has come, a few of them in each turn of the loop."""
    while True:
        await asyncio.sleep(CHECKPOINT_S)
        relays = tuple(world.relays)
        for start in range(0, len(relays), _CHECKPOINTS_AT_ONCE):
            some = [relay.checkpoint() for relay in relays[start : start + _CHECKPOINTS_AT_ONCE]]
            if noted := [one for one in some if one is not None]:
                world.books.note(noted)
            await asyncio.sleep(0)


async def keep_synced(world: World) -> None:
    """Have the disk take what was noted."""
    while True:
        await asyncio.sleep(SYNC_S)
        await world.books.sync()


async def keep_reporting(world: World) -> None:
    """Once a second: tell the control plane what this worker counts."""
    while True:
        await asyncio.sleep(INTERVAL_S)
        await report(world)


def keep_streams_alive(world: World) -> None:
    """Send comments on streams whose providers are silent, where the settings ask for that."""
    if after_s := world.settings.stream_keepalive_s:
        for relay in tuple(world.relays):
            relay.keep_alive(world.now(), after_s)


def cut_expired(world: World) -> None:
    """End the streams of keys whose time is over."""
    now_unix = time.time()
    for call in list(world.calls):
        if call.expires_at is not None and now_unix >= call.expires_at and call.asked.stream:
            cut(world, call, Cut.EXPIRED)


def cut_revoked(world: World) -> None:
    """End the streams of keys that the new snapshot refuses. What they used is billed."""
    configuration, now_unix = world.configuration, time.time()
    for call in list(world.calls):
        key = presented_key(call.request.headers)
        grant = authenticate(key, configuration.snapshot, world.hasher, now_unix, fresh=configuration.fresh)
        if isinstance(grant, KeyGrant):
            call.expires_at = grant.expires_at
        elif not isinstance(grant, KeysUnavailable) and call.asked.stream:
            cut(world, call, Cut.EXPIRED if isinstance(grant, ExpiredKey) else Cut.REVOKED)


def cut_all(world: World) -> None:
    """End every call: the drain is over."""
    for call in list(world.calls):
        cut(world, call, Cut.DRAINED)


def cut(world: World, call: Call, reason: Cut) -> None:
    """End one call: it refuses or ends its stream by an error event, and settles."""
    call.cut = reason
    world.calls[call].cancel()


async def report(world: World) -> None:
    """Push this worker's numbers; a control plane that is away gets the next ones."""
    body = world.metrics.report(gauges(world)).encode()
    with contextlib.suppress(UpstreamError):
        path = b"/internal/metrics/%d" % world.number
        await _post(world.client, world.control, path, b"application/json", body, world.now() + _TIMEOUT_S)


async def deliver(client: Client, control: Origin, now: Clock, frames: bytes) -> bool:
    """Have the control plane post settlements that the disk does not take; whether they are in PostgreSQL now."""
    try:
        reply = await _post(
            client, control, b"/internal/settlements", b"application/octet-stream", frames, now() + _DELIVERY_TIMEOUT_S
        )
    except UpstreamError:
        return False
    return reply.status == _DONE


async def _post(
    client: Client, control: Origin, path: bytes, content_type: bytes, body: bytes, deadline: float
) -> Response:
    head = b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n"
    return await client.fetch(
        control,
        head % (path, content_type, len(body)) + body,
        first_byte_s=_DELIVERY_TIMEOUT_S,
        idle_s=_DELIVERY_TIMEOUT_S,
        deadline=deadline,
        max_body=_MAX_REPLY,
    )


def gauges(world: World) -> Gauges:
    """What is read at this moment rather than counted."""
    return Gauges(
        inflight_requests=len(world.calls),
        open_connections=world.server.connections,
        upstream_connections=world.client.open_connections,
        max_connections=world.server.limits.max_connections,
        max_upstream_connections=world.client.max_connections,
        connections_closed_for_room_total=world.server.closed_for_room,
        buffered_bytes=world.server.budget.held,
        max_buffered_bytes=world.server.budget.limit,
        breaker_state={f"{key.provider}/{key.model}": state.value for key, state in world.health.states(world.now())},
        config_revision=world.configuration.snapshot.revision,
        config_age_seconds=world.configuration.age_s,
        log_lines_dropped_total=world.log_writer.dropped,
        journal_bytes_total=world.books.journal_bytes,
        journal_sync_failures_total=world.books.sync_failures,
        attempts_under_way=world.books.under_way,
        settlements_waiting=world.delivery.waiting,
        loop_lag_seconds=world.loop_lag_s,
        draining=world.draining,
        unready={reason: int(holds) for reason, holds in reasons(world).items()},
    )
