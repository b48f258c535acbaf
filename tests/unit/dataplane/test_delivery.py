import asyncio
import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.settlements import intent_of, settlement
from tollway.accounting import journal as module
from tollway.accounting.frames import read_frames
from tollway.accounting.journal import Journal, JournalFull
from tollway.accounting.journal_reader import read_records
from tollway.accounting.records import Record
from tollway.dataplane import delivery as delivery_module
from tollway.dataplane.delivery import PROBE_S, Delivery


class ControlPlane:
    """Takes what is delivered, as long as it does."""

    def __init__(self) -> None:
        self.well = True
        self.taken: list[Record] = []
        self.deliveries = 0
        self.called = asyncio.Event()
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    def hangs(self) -> None:
        """Answer nothing until it is told to go on."""
        self.goes_on.clear()

    async def send(self, frames: bytes) -> bool:
        self.deliveries += 1
        self.called.set()
        await asyncio.sleep(0)
        await self.goes_on.wait()
        if self.well:
            self.taken += read_frames(frames)
        return self.well


class Place:
    """A journal, whether its disk is full, and a clock."""

    def __init__(self, folder: Path) -> None:
        self.journal = Journal(folder, 0.0)
        self.control = ControlPlane()
        self.now = 1000.0
        self.full = False
        self.delivery = Delivery(self.journal, self.control.send, lambda: self.now)

    def write(self, file: int, data: bytes) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, "no space left on device")
        return _write(file, data)

    def settles(self) -> Record:
        record = settlement()
        with contextlib.suppress(JournalFull):
            self.journal.append(record)
        return record

    def may_start(self) -> bool:
        """Whether a call is let in, and its intent noted."""
        if self.delivery.failing:
            return False
        try:
            self.journal.intend(intent_of(settlement()))
        except JournalFull:
            return False
        return True


_write = os.write


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    place = Place(tmp_path)
    monkeypatch.setattr(module.os, "write", place.write)
    yield place
    place.full = False
    place.journal.close()


async def test_what_the_disk_does_not_take_is_delivered_once(place: Place) -> None:
    place.full = True
    records = [place.settles() for _ in range(3)]
    await place.delivery.deliver()
    await place.delivery.deliver()
    assert place.control.taken == records and place.delivery.waiting == 0
    assert await place.delivery.works(place.now + 60)


async def test_a_call_may_start_on_a_full_disk_only_after_a_delivery_has_arrived(place: Place) -> None:
    place.full = True
    assert not place.may_start()
    assert await place.delivery.works(place.now + 60) and place.control.deliveries == 1
    assert await place.delivery.works(place.now + 60) and place.control.deliveries == 1, "it has just arrived"
    place.control.well = False
    place.now += PROBE_S
    assert not await place.delivery.works(place.now + 60)
    assert place.delivery.failing


async def test_what_was_not_delivered_goes_to_the_disk_when_that_has_room(place: Place) -> None:
    place.full, place.control.well = True, False
    record = place.settles()
    await place.delivery.deliver()
    assert place.delivery.failing and place.delivery.waiting == 1
    place.full = False
    assert place.journal.retry() and not place.delivery.failing
    (path,) = place.journal.directory.iterdir()
    assert read_records(path, 0, abandoned=False).records == [record]


async def test_calls_that_ask_at_the_same_time_ask_once(place: Place) -> None:
    place.full = True
    assert not place.may_start()
    assert all(await asyncio.gather(*(place.delivery.works(place.now + 60) for _ in range(20))))
    assert place.control.deliveries == 1


async def test_one_delivery_that_fails_refuses_all_who_waited_for_it_and_who_come_later(place: Place) -> None:
    place.full, place.control.well = True, False
    assert not place.may_start()
    assert not any(await asyncio.gather(*(place.delivery.works(place.now + 60) for _ in range(20))))
    place.now += PROBE_S
    assert not await place.delivery.works(place.now + 60)
    assert place.control.deliveries == 1, "nobody waits for a second one: it is tried beside the calls"


async def test_a_call_waits_no_longer_than_its_deadline_and_the_delivery_goes_on_without_it(place: Place) -> None:
    place.full = True
    record = place.settles()
    place.control.hangs()
    assert not await place.delivery.works(place.now)
    leaves = asyncio.create_task(place.delivery.works(place.now + 60))
    await place.control.called.wait()
    leaves.cancel()
    await asyncio.wait([leaves])
    assert place.delivery.waiting == 0, "it is under way"
    place.control.goes_on.set()
    await place.delivery.deliver()
    assert place.control.taken == [record] and place.control.deliveries == 1


async def test_what_is_given_back_when_the_disk_has_room_again_goes_there_by_itself(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_module, "INTERVAL_S", 0)
    place.full, place.control.well = True, False
    place.control.hangs()
    first = place.settles()
    running = asyncio.create_task(place.delivery.run())
    await place.control.called.wait()
    place.full = False
    second = place.settles()
    place.control.goes_on.set()
    (path,) = place.journal.directory.iterdir()
    async with asyncio.timeout(10):
        while read_records(path, 0, abandoned=False).records != [second, first]:
            await asyncio.sleep(0)
    running.cancel()
    assert place.delivery.waiting == 0 and not place.delivery.failing


async def test_the_end_of_the_process_waits_for_the_delivery_that_is_under_way(place: Place) -> None:
    place.full = True
    records = [place.settles()]
    place.control.hangs()
    running = asyncio.create_task(place.delivery.deliver())
    await place.control.called.wait()
    running.cancel()
    records.append(place.settles())
    finishing = asyncio.create_task(place.delivery.finish())
    await asyncio.sleep(0)
    place.control.goes_on.set()
    await finishing
    assert place.control.taken == records and place.delivery.waiting == 0


async def test_the_end_of_the_process_tries_once_more_after_a_delivery_that_failed(place: Place) -> None:
    place.full, place.control.well = True, False
    record = place.settles()
    await place.delivery.deliver()
    place.control.well = True
    await place.delivery.finish()
    assert place.control.taken == [record]


async def test_the_end_of_the_process_waits_for_no_delivery_for_ever(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_module, "FINISH_S", 0)
    place.full = True
    place.settles()
    place.control.hangs()
    await place.delivery.finish()
    assert place.control.deliveries == 1
    assert place.delivery.waiting == 1, "what it had taken is counted as lost"


async def test_where_deliveries_are_too_slow_no_call_starts(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_module, "MAX_UNDELIVERED", 5)
    place.full = True
    await place.delivery.works(place.now + 60)
    for _ in range(6):
        place.settles()
    assert place.delivery.failing
    await place.delivery.deliver()
    assert not place.delivery.failing


async def test_the_end_of_the_process_delivers_all_in_pieces(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_module, "MAX_AT_ONCE", 2)
    place.full = True
    records = [place.settles() for _ in range(5)]
    await place.delivery.finish()
    assert place.control.taken == records and place.control.deliveries == 3
    place.settles()
    place.control.well = False
    await place.delivery.finish()
    assert place.delivery.waiting == 1, "it does not try for ever"


async def test_it_looks_after_what_waits_by_itself(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tollway.books")
    monkeypatch.setattr(delivery_module, "INTERVAL_S", 0)
    place.full = True
    record = place.settles()
    running = asyncio.create_task(place.delivery.run())
    async with asyncio.timeout(10):
        while place.delivery.waiting or not place.control.taken:
            await asyncio.sleep(0)
        place.control.well, place.now = False, place.now + PROBE_S / 2
        place.now += PROBE_S
        while not place.delivery.failing:
            await asyncio.sleep(0)
        place.full, place.now = False, place.now + PROBE_S
        while place.journal.full or len(caplog.messages) < 3:
            await asyncio.sleep(0)
    running.cancel()
    assert place.control.taken == [record]
    told, refused, well = caplog.messages
    assert "go to PostgreSQL" in told and "new calls are refused" in refused and "records again" in well
