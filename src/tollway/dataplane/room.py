"""Looking after memory and connections once a second: saying when there is no room, and giving back what is free."""

import gc
import logging
import time
from typing import Final, NamedTuple

from tollway.dataplane import machine
from tollway.dataplane.world import World

_log = logging.getLogger("tollway.room")

QUIET_S: Final = 10.0
"""So long nobody may have been turned away before a shortage is over: one that flickers is one line."""

TIDY_BYTES: Final = 64 * 1024 * 1024
"""After so much was held and given back, the collector and the allocator are asked whether something is left of it."""

TIDY_SHARE: Final = 0.005
"""Of time that this may take: some 3 ms usually, ten times that after half a gibibyte."""


class _Counts(NamedTuple):
    """What was done for want of room, since the start. Each only grows."""

    refused: int
    given_up: int

    def __sub__(self, other: "_Counts") -> "_Counts":
        return _Counts(self.refused - other.refused, self.given_up - other.given_up)


class Shortage:
    """One line when there is no room any more, and one when there has been room for a while."""

    def __init__(self, what: str, consequence: str) -> None:
        self._what = what
        self._consequence = consequence
        self._before = self._last = _Counts(0, 0)
        self._began = 0.0
        self._seen = 0.0  # when it was last felt; 0: there is none

    def look(self, now: float, *, full: bool, held: int, limit: int, refused: int, given_up: int) -> None:
        """Judge a second by its counters. ``held`` of ``limit`` are told to people."""
        counts = _Counts(refused, given_up)
        felt, self._last = full or counts != self._last, counts
        if felt and not self._seen:
            self._began = now
            _log.warning("no more room for %s: %s", self._what, self._consequence, extra={"held": held, "limit": limit})
        if felt:
            self._seen = now
        elif self._seen and now - self._seen >= QUIET_S:
            done = counts - self._before
            told = {"refused": done.refused, "given_up": done.given_up, "seconds": round(self._seen - self._began, 1)}
            _log.info("there is room for %s again", self._what, extra=told)
            self._seen = 0.0
        if not self._seen:
            self._before = counts


class Room:
    """What ``keep_house`` does about room."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._bytes = Shortage(
            "bodies and answers", "new calls are answered 503, and who moves too slowly for what he holds is cut"
        )
        self._clients = Shortage("connections of clients", "idle ones are closed for new ones, strangers first")
        self._providers = Shortage("connections to providers", "calls that need another one fail")
        self._tidied = 0  # bytes that had been given back by then
        self._tidy_at = 0.0

    def look(self) -> None:
        """Once a second."""
        world = self._world
        server, client, budget, now = world.server, world.client, world.server.budget, world.now()
        self._bytes.look(
            now,
            full=budget.full,
            held=budget.held,
            limit=budget.limit,
            refused=budget.refused,
            given_up=budget.given_up,
        )
        self._clients.look(
            now,
            full=False,
            held=server.connections,
            limit=server.limits.max_connections,
            refused=server.refused,
            given_up=server.closed_for_room,
        )
        self._providers.look(
            now,
            full=False,
            held=client.open_connections,
            limit=client.max_connections,
            refused=client.refused,
            given_up=client.closed_for_room,
        )
        if budget.given_back - self._tidied >= TIDY_BYTES and now >= self._tidy_at:
            self._tidied = budget.given_back
            self._tidy_at = now + tidy() / TIDY_SHARE


def tidy() -> float:
    """Free what only circles of references hold, and give free memory back to the system; returns how long it took.

    Nothing of ours should need either: what ends is let go of (``http1/answer.py``), and large blocks are apart. This
    is for what a future change forgets, and for pieces of medium size that lie between others.
    """
    began = time.perf_counter()
    gc.collect()
    machine.give_memory_back()
    return time.perf_counter() - began
