"""One line for every attempt, with what it cost and without what was said."""

import itertools
import json
import logging
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from fakes.settlements import settlement
from tollway.accounting.journal import Journal
from tollway.accounting.records import Settlement
from tollway.controlplane.request_log import MAX_CALLS_HELD, MAX_LINES_PER_S, JournalFollower, RequestLog, short_line
from tollway.observe.log import LogFormat
from tollway.observe.redact import Redactor

FAILED = settlement(
    call_id="req_1",
    model="gpt-4o",
    upstream_model="gpt-4o-2024-08-06",
    outcome="client_gone",
    stream=True,
    state="partial",
    cause="The client hung up in the middle of the answer.",
    provider_request_id="req_0123456789abcdef0123456789abcdef",
)


def as_json(record: logging.LogRecord) -> dict[str, Any]:
    return json.loads(LogFormat("control-plane", False, Redactor()).line(record))


def as_text(record: logging.LogRecord) -> str:
    return LogFormat("control-plane", True, Redactor()).line(record).decode()


def printed(caplog: pytest.LogCaptureFixture, *batches: Sequence[Settlement]) -> list[logging.LogRecord]:
    caplog.clear()
    log = RequestLog()
    with caplog.at_level(logging.INFO, "tollway.requests"):
        for batch in batches:
            log.tell(batch)
    return list(caplog.records)


def test_an_attempt_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    (record,) = printed(caplog, [FAILED])
    line = as_json(record)
    for volatile in ("level", "process", "logger"):
        del line[volatile]
    assert line == {
        "time": "2023-11-14T22:13:21.312Z",
        "message": "attempt at openai ended: client_gone",
        "call_id": "req_1",
        "attempt": 1,
        "key_id": "key_1",
        "operation": "chat/completions",
        "model": "gpt-4o",
        "provider": "openai",
        "upstream_model": "gpt-4o-2024-08-06",
        "status": 200,
        "outcome": "client_gone",
        "stream": True,
        "duration_ms": 812,
        "first_byte_ms": None,
        "input_tokens": 100,
        "cached_input_tokens": 20,
        "output_tokens": 50,
        "usage": "partial",
        "cost_usd": "0.000114",
        "charged": True,
        "revision": 7,
        "cause": "The client hung up in the middle of the answer.",
        "provider_request_id": "req_0123456789abcdef0123456789abcdef",
    }


def test_a_line_has_the_time_at_which_the_attempt_ended(caplog: pytest.LogCaptureFixture) -> None:
    """However late it is read from its journal."""
    one = settlement(started_unix=1_600_000_000.25, duration_ms=1500.0)
    (record,) = printed(caplog, [one])
    assert datetime.fromisoformat(as_json(record)["time"]).timestamp() == pytest.approx(1_600_000_001.75)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "200 gpt-4.1-mini openai 0.81s 100+50 $0.000114"),
        ({"duration_ms": 1240.0}, "200 gpt-4.1-mini openai 1.2s 100+50 $0.000114"),
        ({"priced": False}, "200 gpt-4.1-mini openai 0.81s 100+50 $?"),
        ({"model": "", "operation": "files"}, "200 files openai 0.81s 100+50 $0.000114"),
        ({"outcome": "client_gone", "status": 0}, "499 gpt-4.1-mini openai 0.81s 100+50 $0.000114 client_gone"),
        ({"outcome": "server_error"}, "200 gpt-4.1-mini openai 0.81s 100+50 $0.000114 server_error"),
    ],
)
def test_for_a_person_it_is_short(changes: dict[str, object], line: str) -> None:
    assert short_line(settlement(**changes)) == line


def failed(**changes: object) -> Settlement:
    return settlement(**{"call_id": "req_1", "outcome": "server_error", "status": 500, "charged": False, **changes})


def test_for_a_person_a_call_is_one_line_with_the_attempts_that_failed(caplog: pytest.LogCaptureFixture) -> None:
    last = settlement(call_id="req_1", attempt=3, provider="mistral")
    records = printed(caplog, [failed(), failed(attempt=2, provider="spare")], [last, settlement(call_id="req_2")])
    lines = [as_text(record) for record in records]
    assert lines[:2] == ["", ""], "what became of the call is not known yet"
    assert "200 gpt-4.1-mini mistral 0.81s 100+50 $0.000114 after openai server_error, spare server_error\n" in lines[2]
    assert "after" not in lines[3]
    assert len({as_json(record)["message"] for record in records}) == 4, "a program gets a line for each attempt"


@pytest.mark.parametrize(
    ("changes", "colour"),
    [
        ({}, None),
        ({"outcome": "client_gone"}, "\x1b[33m"),
        ({"outcome": "server_error", "state": "partial"}, "\x1b[31m"),
        ({"outcome": "internal_error", "charged": False}, "\x1b[31m"),
    ],
)
def test_for_a_person_what_did_not_end_well_has_a_colour(
    caplog: pytest.LogCaptureFixture, changes: dict[str, object], colour: str | None
) -> None:
    (record,) = printed(caplog, [settlement(**changes)])
    line = as_text(record)
    assert ("\x1b[3" in line) is (colour is not None)
    assert f"{colour or ''}200 gpt-4.1-mini" in line


def test_calls_that_never_end_are_not_remembered_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    seconds = itertools.count(1)
    log = RequestLog(lambda: next(seconds))
    with caplog.at_level(logging.INFO, "tollway.requests"):
        for number in range(2 * MAX_CALLS_HELD):
            log.tell([failed(call_id=f"req_{number}")])
    assert len(log._failed) == MAX_CALLS_HELD


async def test_a_flood_is_counted_instead_of_printed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    now = [10.0]
    log = RequestLog(lambda: now[0])
    follower = JournalFollower(tmp_path, log)
    journal = Journal(tmp_path, 1_700_000_000.0)

    async def come(count: int) -> None:
        for _ in range(count):
            journal.append(FAILED)
        await follower.follow()

    with caplog.at_level(logging.INFO, "tollway.requests"):
        await come(MAX_LINES_PER_S - 1)
        await come(100)
        await come(5000)
        assert len(caplog.records) == MAX_LINES_PER_S
        now[0] = 11.0
        await come(1)
    assert [record.getMessage() for record in caplog.records[MAX_LINES_PER_S:]] == [
        "5099 more attempts ended, too many for a line each",
        "attempt at openai ended: client_gone",
    ]


async def test_a_flood_passes_damage_as_well(tmp_path: Path) -> None:
    told = Told(room=1)
    journal = Journal(tmp_path, 1_700_000_000.0)
    for number in range(3):
        journal.append(settlement(call_id=f"a-{number}"))
    (path,) = tmp_path.glob("*.journal")
    whole = path.read_bytes()
    path.write_bytes(whole + b"junk" + whole + whole[:20])
    follower = JournalFollower(tmp_path, told)
    await follower.follow()
    assert told.ids == ["a-0"]
    assert told.left_out == 5
    told.most = 10
    path.write_bytes(whole + b"junk" + whole + whole)
    await follower.follow()
    assert told.ids == ["a-0", "a-0", "a-1", "a-2"]


# Following the journals


class Told(RequestLog):
    """The attempts that were handed on."""

    def __init__(self, room: int = 1000) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.left_out = 0
        self.most = room

    def room(self) -> int:
        return self.most - len(self.ids)

    def tell(self, records: Sequence[Settlement]) -> None:
        self.ids += [record.call_id for record in records]

    def leave_out(self, count: int) -> None:
        self.left_out += count


async def test_each_record_is_handed_on_once_as_it_comes(tmp_path: Path) -> None:
    told = Told()
    follower = JournalFollower(tmp_path, told)
    journal = Journal(tmp_path, 1_700_000_000.0)
    await follower.follow()
    for number in (1, 2):
        journal.append(settlement(call_id=f"a-{number}"))
        await follower.follow()
        await follower.follow()
    assert told.ids == ["a-1", "a-2"]


async def test_a_turn_does_not_run_after_a_writer_that_never_rests(tmp_path: Path) -> None:
    class Busy(Told):
        def tell(self, records: Sequence[Settlement]) -> None:
            super().tell(records)
            if len(self.ids) < 20:
                journal.append(settlement())

    told = Busy()
    follower = JournalFollower(tmp_path, told)
    journal = Journal(tmp_path, 1_700_000_000.0)
    journal.append(settlement())
    for turn in range(1, 4):
        await follower.follow()
        assert len(told.ids) == turn
    journal.close()


async def test_a_restart_hands_on_what_came_meanwhile_and_nothing_twice(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 1_700_000_000.0)
    journal.append(settlement(call_id="a-1"))
    await JournalFollower(tmp_path, Told()).follow()
    journal.append(settlement(call_id="a-2"))
    other = Journal(tmp_path, 1_700_000_001.0)
    other.append(settlement(call_id="b-1"))
    again = Told()
    await JournalFollower(tmp_path, again).follow()
    assert sorted(again.ids) == ["a-2", "b-1"]
    marks = tmp_path / ".logged"
    assert marks.stat().st_mode & 0o077 == 0
    marks.write_text("nonsense")
    assert JournalFollower(tmp_path, Told())._positions == {}, "a damaged note only costs lines that come twice"


async def test_what_is_left_of_a_journal_is_handed_on_before_it_goes(tmp_path: Path) -> None:
    told = Told()
    follower = JournalFollower(tmp_path, told)
    journal = Journal(tmp_path, 1_700_000_000.0)
    journal.append(settlement(call_id="a-1"))
    await follower.follow()
    journal.append(settlement(call_id="a-2"))
    (path,) = tmp_path.glob("*.journal")
    follower.finish(path)
    path.unlink()
    await follower.follow()
    assert told.ids == ["a-1", "a-2"]
    assert json.loads((tmp_path / ".logged").read_bytes()) == {}, "nothing is kept of journals that are gone"


async def test_of_a_journal_that_was_rescued_only_what_is_new_is_handed_on(tmp_path: Path) -> None:
    told = Told()
    follower = JournalFollower(tmp_path, told)
    journal = Journal(tmp_path, 1_700_000_000.0)
    journal.append(settlement(call_id="a-1"))
    await follower.follow()
    (path,) = tmp_path.glob("*.journal")
    path.unlink()
    journal.append(settlement(call_id="a-2"))
    await follower.follow()
    journal.abandon()
    journal.append(settlement(call_id="b-1"))
    journal.rescue()
    await follower.follow()
    assert sorted(told.ids) == ["a-1", "a-2", "b-1"]
    again = Told()
    await JournalFollower(tmp_path, again).follow()
    assert again.ids == []


async def test_of_a_journal_that_was_cut_all_that_was_rescued_is_handed_on(tmp_path: Path) -> None:
    told = Told()
    follower = JournalFollower(tmp_path, told)
    journal = Journal(tmp_path, 1_700_000_000.0)
    for number in range(9):
        journal.append(settlement(call_id=f"a-{number}"))
    await follower.follow()
    (path,) = tmp_path.glob("*.journal")
    os.truncate(path, 0)
    journal.append(settlement(call_id="a-9"))
    journal.abandon()
    journal.rescue()
    await follower.follow()
    assert told.ids == [f"a-{number}" for number in range(10)]


async def test_journals_that_vanish_are_not_remembered_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tollway.controlplane.request_log.MAX_GONE", 2)
    follower = JournalFollower(tmp_path, Told())
    for number in range(5):
        journal = Journal(tmp_path, float(number))
        journal.append(settlement())
        await follower.follow()
        for path in tmp_path.glob("*.journal"):
            path.unlink()
        await follower.follow()
    assert len(follower._positions) == 2


async def test_a_torn_end_is_awaited_and_a_damaged_piece_passed(tmp_path: Path) -> None:
    told = Told()
    follower = JournalFollower(tmp_path, told)
    journal = Journal(tmp_path, 1_700_000_000.0)
    journal.append(settlement(call_id="a-1"))
    (path,) = tmp_path.glob("*.journal")
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:20])
    await follower.follow()
    path.write_bytes(whole + b"junk" + whole)
    await follower.follow()
    assert told.ids == ["a-1", "a-1"]


async def test_journals_that_cannot_be_read_are_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower = JournalFollower(tmp_path, Told())
    turns = 0

    def broken(*_: object, **__: object) -> None:
        raise PermissionError("no")

    class EnoughError(Exception):
        pass

    async def sleep(seconds: float) -> None:
        nonlocal turns
        turns += 1
        if turns == 5:
            raise EnoughError

    Journal(tmp_path, 1_700_000_000.0).append(settlement())
    monkeypatch.setattr("tollway.controlplane.request_log.read_records", broken)
    monkeypatch.setattr("tollway.controlplane.request_log.asyncio.sleep", sleep)
    with pytest.raises(EnoughError):
        await follower.run()
    assert len(caplog.records) == 1
