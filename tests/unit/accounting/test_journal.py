import errno
import os
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.settlements import PRICE, intent_of, settlement
from tollway.accounting import journal as module
from tollway.accounting.frames import framed, read_frames
from tollway.accounting.journal import SUFFIX, Journal, JournalFull
from tollway.accounting.journal_reader import Chunk, is_abandoned, left_in_order, read_records, skip_records
from tollway.accounting.records import Checkpoint, Finished, PriceCard, Record, Settlement
from tollway.domain.prices import rates_json


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path, 1_700_000_000.0)
    yield journal
    journal.close()


def only_file(directory: Path) -> Path:
    (path,) = directory.iterdir()
    return path


def read(directory: Path, position: int = 0, *, abandoned: bool = False) -> Chunk:
    return read_records(only_file(directory), position, abandoned=abandoned)


def frames(*records: Settlement, directory: Path) -> bytes:
    """The bytes of a journal with these records, whose writer died."""
    journal = Journal(directory, 0.0)
    for record in records:
        journal.append(record)
    path = only_file(directory)
    data = path.read_bytes()
    journal.close()
    path.unlink()
    return data


def settlements(path: Path) -> list[Settlement]:
    """Those of a journal whose writer is gone."""
    return [one for one in read_records(path, 0, abandoned=True).records if isinstance(one, Settlement)]


def test_what_was_appended_is_read_back_in_order(journal: Journal, tmp_path: Path) -> None:
    records = [settlement(first_byte_ms=12.5, cause="client hung up in mid-stream") for _ in range(3)]
    for record in records:
        journal.append(record)
    chunk = read(tmp_path)
    assert chunk.records == records
    assert chunk.position == chunk.ends[-1] == only_file(tmp_path).stat().st_size
    assert chunk.damaged == []


def test_reading_goes_on_from_any_records_end(journal: Journal, tmp_path: Path) -> None:
    records = [settlement() for _ in range(3)]
    for record in records:
        journal.append(record)
    assert read(tmp_path, read(tmp_path).ends[0]).records == records[1:]
    assert read(tmp_path, read(tmp_path).position).records == []


def test_a_record_can_be_read_as_soon_as_append_returns(journal: Journal, tmp_path: Path) -> None:
    for number in range(1, 20):
        journal.append(settlement())
        assert len(read(tmp_path).records) == number


@pytest.mark.parametrize(
    "changes",
    [
        {"cost": 10**40, "scale": 35},
        {"cost": -(10**40)},
        {"input": 2**63, "output": 2**64 - 1},
        {"others": {"images": 2**64, "audio_input": 3}},
        {"model": "nul \x00, and U+2028 \u2028"},
    ],
)
def test_numbers_of_any_size_and_odd_texts_survive(
    journal: Journal, tmp_path: Path, changes: dict[str, object]
) -> None:
    record = settlement(**changes)
    journal.append(record)
    assert read(tmp_path).records == [record]


def test_counts_of_any_size_survive_in_what_is_noted_of_a_stream() -> None:
    noted = Checkpoint("req_a", 1, 0.0, 200, None, 5, (2**64, 0, 1, 2), {"images": 2**64})
    assert read_frames(framed(noted)) == [noted]


def test_lone_surrogates_are_replaced_and_the_money_is_kept(journal: Journal, tmp_path: Path) -> None:
    journal.append(settlement(model="bad \ud800", cost=5))
    (record,) = read(tmp_path).records
    assert (record.model, record.cost) == ("bad ?", 5)


def test_texts_of_an_enormous_record_are_cut(journal: Journal, tmp_path: Path) -> None:
    journal.append(settlement(model="m" * 300_000, cost=5))
    (record,) = read(tmp_path).records
    assert (record.model, record.cost) == ("m" * 1024, 5)


@given(data=st.data())
def test_a_file_that_is_cut_anywhere_gives_its_whole_records_and_the_rest_as_damage(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("cut")
    records = [settlement() for _ in range(3)]
    whole = frames(*records, directory=directory)
    cut = data.draw(st.integers(0, len(whole)))
    path = directory / "worker-1-1-a.journal"
    path.write_bytes(whole[:cut])
    living, dead = (read_records(path, 0, abandoned=abandoned) for abandoned in (False, True))
    assert living.records == dead.records == records[: len(dead.records)]
    assert living.position == (living.ends[-1] if living.ends else 0) and living.damaged == []
    assert dead.position == cut
    assert b"".join(dead.damaged) == whole[living.position : cut]


@given(data=st.data())
def test_a_flipped_bit_costs_the_record_that_it_is_in_and_no_other(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("flip")
    records = [settlement() for _ in range(4)]
    whole = bytearray(frames(*records, directory=directory))
    bit = data.draw(st.integers(0, len(whole) * 8 - 1))
    whole[bit // 8] ^= 1 << bit % 8
    path = directory / "worker-1-1-a.journal"
    path.write_bytes(whole)
    chunk = read_records(path, 0, abandoned=True)
    hit = bit // 8 * 4 // len(whole)
    assert chunk.records == [record for number, record in enumerate(records) if number != hit]
    assert len(chunk.damaged) == 1 and chunk.position == len(whole)


@given(before=st.binary(max_size=300), after=st.binary(max_size=300))
def test_records_between_any_junk_are_found(
    before: bytes, after: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("junk")
    record = settlement()
    path = directory / "worker-1-1-a.journal"
    path.write_bytes(before + frames(record, directory=directory) + after)
    chunk = read_records(path, 0, abandoned=True)
    assert chunk.records == [record]
    assert b"".join(chunk.damaged) == before + after
    assert chunk.position == path.stat().st_size


def test_the_zeros_that_a_power_cut_leaves_are_no_records(tmp_path: Path) -> None:
    path = tmp_path / "worker-1-1-a.journal"
    path.write_bytes(bytes(3_000_000))
    position = 0
    while (chunk := read_records(path, position, abandoned=True)).position > position:
        assert chunk.records == []
        position = chunk.position
    assert position == 3_000_000


def test_records_behind_a_long_damage_are_found_in_later_pieces(tmp_path: Path) -> None:
    record = settlement()
    whole = frames(record, directory=tmp_path)
    path = tmp_path / "worker-1-1-a.journal"
    path.write_bytes(bytes(1024 * 1024 - 100) + whole)  # the frame lies across the end of the first piece
    position, found, damaged = 0, [], 0
    while (chunk := read_records(path, position, abandoned=True)).position > position:
        position, found, damaged = chunk.position, found + chunk.records, damaged + len(b"".join(chunk.damaged))
    assert found == [record] and damaged == 1024 * 1024 - 100


def test_a_sound_frame_that_is_no_settlement_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "worker-1-1-a.journal"
    body = b"\x93\xa5ended\x01\x02"
    junk = struct.pack("<4sII", b"\xf5TW\x01", len(body), zlib.crc32(body)) + body
    record = settlement()
    path.write_bytes(junk + frames(record, directory=tmp_path))
    chunk = read_records(path, 0, abandoned=False)
    assert chunk.records == [record] and chunk.damaged == [junk]


def test_a_journal_is_abandoned_when_its_writer_has_closed_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0.0)
    assert not is_abandoned(only_file(tmp_path))
    journal.close()
    assert is_abandoned(only_file(tmp_path))


def test_a_full_file_is_left_behind_and_the_next_one_begun(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0.0, max_file_bytes=1000)
    records = [settlement() for _ in range(20)]
    for record in records:
        journal.append(record)
    paths = sorted(tmp_path.iterdir(), key=os.path.getctime)
    assert len(paths) == 3
    assert [is_abandoned(path) for path in paths].count(False) == 1
    found = [record for path in paths for record in settlements(path)]
    assert sorted(r.call_id for r in found) == sorted(r.call_id for r in records)
    journal.close()


def test_where_no_new_file_can_be_made_the_full_one_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NEXT_TRY_BYTES", 1000)
    journal = Journal(tmp_path, 0.0, max_file_bytes=1)
    tries = 0

    def no_descriptor(*arguments: object) -> int:
        nonlocal tries
        tries += 1
        raise OSError(errno.EMFILE, "too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "open", no_descriptor)
        for _ in range(20):
            journal.append(settlement())
    size = only_file(tmp_path).stat().st_size
    assert len(read(tmp_path).records) == 20 and size > 2000
    assert 1 < tries <= size // 1000 + 1, "not at each record"
    for _ in range(20):
        journal.append(settlement())
    assert len(list(tmp_path.iterdir())) > 1, "it is tried again"
    journal.close()


class Disk:
    """A disk with so much room."""

    def __init__(self, room: int) -> None:
        self.room = room

    def write(self, file: int, data: bytes) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "no space left on device")
        taken = data[: self.room]
        self.room -= len(taken)
        return real_write(file, taken)


real_write = os.write


def test_a_full_disk_is_told_and_what_it_did_not_take_is_written_when_it_has_room(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(500)
    monkeypatch.setattr(module.os, "write", disk.write)
    records = [settlement() for _ in range(6)]
    refused = 0
    for record in records:
        try:
            journal.append(record)
        except JournalFull:
            refused += 1
    assert refused >= 3 and journal.full and not journal.retry()
    chunk = read(tmp_path, abandoned=True)
    assert chunk.records == records[: 6 - refused]
    disk.room = 1_000_000
    assert journal.retry() and not journal.full
    later = settlement()
    journal.append(later)
    chunk = read(tmp_path, abandoned=True)
    assert chunk.records == [*records, later] and chunk.damaged == []


def test_what_waits_in_memory_is_written_before_what_comes_later(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(0)
    monkeypatch.setattr(module.os, "write", disk.write)
    records = [settlement() for _ in range(3)]
    with pytest.raises(JournalFull):
        journal.append(records[0])
    with pytest.raises(JournalFull):
        journal.append(records[1])
    disk.room = 1_000_000
    journal.append(records[2])
    assert read(tmp_path).records == records and not journal.full


def test_memory_is_bounded_while_the_disk_is_full(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 10)
    monkeypatch.setattr(module.os, "write", Disk(0).write)
    for _ in range(50):
        with pytest.raises(JournalFull):
            journal.append(settlement())
    assert len(journal._waiting) == 10


def test_closing_writes_what_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, disk = Journal(tmp_path, 0.0), Disk(0)
    monkeypatch.setattr(module.os, "write", disk.write)
    records = [settlement() for _ in range(3)]
    for record in records:
        with pytest.raises(JournalFull):
            journal.append(record)
    disk.room = 1_000_000
    assert journal.close() == 0
    assert settlements(only_file(tmp_path)) == records


def test_closing_says_how_many_records_are_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path, 0.0)
    monkeypatch.setattr(module, "MAX_WAITING", 10)
    monkeypatch.setattr(module.os, "write", Disk(0).write)
    for _ in range(15):
        with pytest.raises(JournalFull):
            journal.append(settlement())
    assert journal.close() == 15, "those that wait, and those that were given up before"


def vanish(path: Path) -> None:
    path.unlink()


def replace(path: Path) -> None:
    other = path.with_suffix(".other")
    other.write_bytes(path.read_bytes())
    other.replace(path)


def move_away_with_its_directory(path: Path) -> None:
    path.parent.rename(path.parent.with_name("moved"))


@pytest.mark.parametrize("loss", [vanish, replace, move_away_with_its_directory])
def test_a_journal_that_is_lost_is_noticed_and_nothing_in_it_is(tmp_path: Path, loss: Callable[[Path], None]) -> None:
    directory = tmp_path / "journals"
    directory.mkdir()
    journal = Journal(directory, 1_700_000_000.0)
    records = [settlement(call_id=f"req_{number}") for number in range(4)]
    for record in records[:2]:
        journal.append(record)
    assert not journal.lost
    loss(only_file(directory))
    assert journal.lost
    journal.append(records[2])
    journal.abandon()
    rescued = journal.rescue()
    assert not journal.lost
    journal.append(records[3])
    journal.close()
    found = [record for path in directory.glob(f"*{SUFFIX}") for record in settlements(path)]
    assert {record.call_id for record in found} == {record.call_id for record in records}
    assert rescued > 0 and not list(directory.glob(".*"))
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in directory.glob("rescued-*"))


def test_what_cannot_be_saved_yet_is_kept(tmp_path: Path) -> None:
    directory = tmp_path / "journals"
    directory.mkdir()
    journal = Journal(directory, 1_700_000_000.0)
    records = [settlement(call_id=f"req_{number}") for number in range(4)]
    journal.append(records[0])
    directory.rename(tmp_path / "moved")
    directory.touch()
    for _ in range(2):
        with pytest.raises(OSError):
            journal.abandon()
        assert journal.lost and not journal.unsaved
    journal.append(records[1])
    directory.unlink()
    journal.abandon()
    journal.append(records[2])
    shutil.rmtree(directory)
    for _ in range(2):
        with pytest.raises(OSError):
            journal.rescue()
    assert journal.unsaved
    journal.abandon()
    journal.append(records[3])
    assert journal.rescue() > 0
    assert not journal.unsaved and not journal.lost
    journal.close()
    found = [record for path in directory.glob(f"*{SUFFIX}") for record in settlements(path)]
    assert {record.call_id for record in found} == {record.call_id for record in records}


def test_a_copy_that_fails_leaves_nothing(journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal.append(settlement())
    only_file(tmp_path).unlink()
    journal.abandon()

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError):
        patch.setattr(shutil, "copyfileobj", full)
        journal.rescue()
    assert list(tmp_path.iterdir()) == [journal._path]
    assert journal.rescue() > 0


def test_a_journal_that_was_cut_short_is_noticed(journal: Journal, tmp_path: Path) -> None:
    journal.append(settlement())
    os.truncate(only_file(tmp_path), 0)
    assert journal.lost


def test_the_poster_may_take_what_was_rescued(journal: Journal, tmp_path: Path) -> None:
    journal.append(settlement())
    only_file(tmp_path).unlink()
    journal.abandon()
    journal.rescue()
    (rescued,) = tmp_path.glob("rescued-*")
    assert is_abandoned(rescued)


# What is under way


def all_records(path: Path) -> list[Record]:
    return read_records(path, 0, abandoned=False, under_way=True).records


def test_an_intent_stands_before_its_settlement_and_the_rates_before_both(journal: Journal, tmp_path: Path) -> None:
    record = settlement(price_id=PRICE.id)
    intent = intent_of(record, PRICE.id)
    journal.intend(intent, PRICE)
    assert journal.under_way == 1
    journal.append(record, PRICE)
    card = PriceCard(PRICE.id, rates_json(PRICE.rates).decode())
    assert all_records(only_file(tmp_path)) == [card, intent, record]
    assert journal.under_way == 0


def test_who_posts_is_not_told_of_what_is_under_way(journal: Journal, tmp_path: Path) -> None:
    record = settlement(stream=True)
    journal.intend(intent_of(record))
    journal.note([Checkpoint(record.call_id, 1, 1.0, 200, None, 5)])
    assert read(tmp_path).records == [] and read(tmp_path).position == only_file(tmp_path).stat().st_size
    journal.append(record)
    chunk = read(tmp_path)
    assert chunk.records == [record] and chunk.ends == [chunk.position]


def test_only_settlements_are_counted(journal: Journal, tmp_path: Path) -> None:
    for _ in range(3):
        journal.intend(intent_of(settlement()), PRICE)
    journal.append(settlement())
    path = only_file(tmp_path)
    assert skip_records(path, 0) == (1, path.stat().st_size)


def following(path: Path) -> str:
    last = all_records(path)[-1]
    assert isinstance(last, Finished)
    return last.following


def test_each_file_has_what_is_under_way_and_its_rates_and_says_when_it_is_finished(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0.0, max_file_bytes=1000)
    running = settlement(stream=True)
    intent = intent_of(running, PRICE.id)
    seen = Checkpoint(running.call_id, 1, 1.0, 200, None, 5)
    first = only_file(tmp_path)
    journal.intend(intent, PRICE)
    journal.note([Checkpoint(running.call_id, 1, 0.5, 200, None, 2)])
    journal.note([seen])
    while len(list(tmp_path.iterdir())) < 3:
        journal.append(settlement())
    second = tmp_path / following(first)
    third = tmp_path / following(second)
    card = PriceCard(PRICE.id, rates_json(PRICE.rates).decode())
    assert [all_records(path)[:3] for path in (second, third)] == [[card, intent, seen]] * 2
    journal.append(running, PRICE)
    assert all_records(third)[-1] == running, "the rates stand there already"
    journal.close()
    assert all(left_in_order(path) for path in (first, second, third))


def test_where_a_full_file_cannot_say_that_it_is_finished_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path, 0.0, max_file_bytes=1)
    journal.append(settlement())
    old = only_file(tmp_path)
    full = os.open(old, os.O_RDONLY)

    def write(file: int, data: bytes) -> int:
        if os.path.samestat(os.fstat(file), os.fstat(full)):
            raise OSError(errno.ENOSPC, "no space left on device")
        return real_write(file, data)

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "write", write)
        with pytest.raises(JournalFull):
            journal.intend(intent_of(settlement()))
    assert only_file(tmp_path) == old, "else what is under way in the old file would be taken for lost"
    os.close(full)
    journal.close()


@pytest.mark.parametrize("loss", [vanish, replace])
def test_what_is_under_way_in_a_journal_that_is_lost_goes_on_in_the_next_one(
    tmp_path: Path, loss: Callable[[Path], None]
) -> None:
    journal = Journal(tmp_path, 0.0)
    intent = intent_of(settlement(), PRICE.id)
    journal.intend(intent, PRICE)
    loss(only_file(tmp_path))
    journal.abandon()
    journal.rescue()
    (rescued,) = tmp_path.glob("rescued-*")
    assert left_in_order(rescued)
    assert intent in all_records(journal._path) and not left_in_order(journal._path)
    journal.close()


def test_a_full_disk_takes_no_intent_and_keeps_none(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(0)
    monkeypatch.setattr(module.os, "write", disk.write)
    with pytest.raises(JournalFull):
        journal.intend(intent_of(settlement()))
    assert journal.full and not journal.waiting and not journal.under_way
    disk.room = 100
    assert not journal.retry(), "not enough for a few records"
    disk.room = 1_000_000
    assert journal.retry() and not journal.full
    assert only_file(tmp_path).stat().st_size == 0, "nothing is left of the try"


def test_what_waits_can_be_taken_and_given_back(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.os, "write", Disk(0).write)
    records = [settlement(price_id=PRICE.id) for _ in range(3)]
    for record in records:
        with pytest.raises(JournalFull):
            journal.append(record, PRICE)
    taken = journal.take_waiting(2)
    card = PriceCard(PRICE.id, rates_json(PRICE.rates).decode())
    assert [read_frames(one.frames) for one in taken] == [[card, records[0]], [card, records[1]]]
    assert journal.waiting == 1
    journal.give_back(taken)
    assert [read_frames(one.frames)[1] for one in journal.take_waiting(9)] == records


def test_what_waits_is_under_way_until_it_has_arrived_somewhere(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [settlement() for _ in range(2)]
    for record in records:
        journal.intend(intent_of(record))
    disk = Disk(0)
    monkeypatch.setattr(module.os, "write", disk.write)
    for record in records:
        with pytest.raises(JournalFull):
            journal.append(record)
    taken = journal.take_waiting(1)
    assert journal.under_way == 2
    journal.delivered(taken)
    assert journal.under_way == 1
    disk.room = 1_000_000
    assert journal.retry() and journal.under_way == 0


@pytest.mark.parametrize("data", [b"junk", b"\xf5TW\x01" + bytes(8)])
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="no frame"):
        read_frames(data)


# What the disk has for certain


def test_all_files_are_put_on_the_disk_and_then_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forced: list[int] = []
    monkeypatch.setattr(module, "_force", lambda file: forced.append(os.fstat(file).st_ino))
    journal = Journal(tmp_path, 0.0, max_file_bytes=500)
    journal.sync()
    assert not journal.unforced
    while len(list(tmp_path.iterdir())) < 3:
        journal.append(settlement())
    assert journal.unforced
    forced.clear()
    journal.sync()
    assert set(forced) == {path.stat().st_ino for path in tmp_path.iterdir()}
    assert not journal.unforced and not journal._unforced
    journal.append(settlement())
    assert journal.unforced
    journal.close()


def test_a_disk_that_fails_is_asked_again(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(file: int) -> None:
        raise OSError(errno.EIO, "input/output error")

    journal.append(settlement())
    with monkeypatch.context() as patch:
        patch.setattr(module, "_force", fails)
        for _ in range(2):
            with pytest.raises(OSError):
                journal.sync()
            assert journal.unforced
    journal.sync()
    assert not journal.unforced
