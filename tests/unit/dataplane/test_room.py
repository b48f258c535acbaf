"""Want of room is said once, and so is its end; what is free goes back to the system now and then."""

import gc
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from tollway.dataplane import room
from tollway.dataplane.room import QUIET_S, TIDY_BYTES, TIDY_SHARE, Room, Shortage
from tollway.http1.budget import Budget


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, dict[str, Any]]]:
    wanted = ("held", "limit", "refused", "given_up", "seconds")
    return [(record.message, {k: v for k, v in vars(record).items() if k in wanted}) for record in caplog.records]


def test_one_line_when_it_begins_and_one_when_it_has_ended(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    shortage = Shortage("this", "that happens")
    common: dict[str, Any] = {"held": 7, "limit": 9}
    refused = given_up = 0
    for now in range(100, 200):
        full = now == 110
        refused += now in (112, 118)
        given_up += now == 120
        shortage.look(float(now), full=full, refused=refused, given_up=given_up, **common)
    assert lines(caplog) == [
        ("no more room for this: that happens", {"held": 7, "limit": 9}),
        ("there is room for this again", {"refused": 2, "given_up": 1, "seconds": 10.0}),
    ]


def test_the_next_one_counts_anew(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    shortage = Shortage("this", "that happens")
    for now, refused in ((1.0, 5), (2.0, 5), (2.0 + QUIET_S, 5), (50.0, 6), (51.0 + QUIET_S, 6)):
        shortage.look(now, full=False, held=0, limit=0, refused=refused, given_up=0)
    ends = [members["refused"] for message, members in lines(caplog) if "again" in message]
    assert ends == [5, 1]


def test_what_was_given_back_is_tidied_up_within_a_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    tidied: list[float] = []

    def tidy() -> float:
        tidied.append(world.time)
        return 0.01

    monkeypatch.setattr(room, "tidy", tidy)
    budget = Budget()
    limits = SimpleNamespace(max_connections=1)
    server = SimpleNamespace(budget=budget, connections=0, limits=limits, refused=0, closed_for_room=0)
    client = SimpleNamespace(open_connections=0, max_connections=1, refused=0, closed_for_room=0)
    world: Any = SimpleNamespace(server=server, client=client, time=0.0)
    world.now = lambda: world.time
    house = Room(world)
    for second in range(10):
        world.time = float(second)
        budget.take(TIDY_BYTES // 2).release()
        house.look()
    assert tidied == [1.0, 3.0, 5.0, 7.0, 9.0]
    assert 0.01 / TIDY_SHARE == 2.0


def test_circles_are_collected() -> None:
    gc.disable()
    try:
        circle: list[object] = []
        circle.append(circle)
        before = len(gc.get_objects())
        del circle
        assert room.tidy() > 0
        assert len(gc.get_objects()) < before
    finally:
        gc.enable()
