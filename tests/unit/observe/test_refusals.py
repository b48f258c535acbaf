"""Refused calls leave a line each, and nobody can flood the log with them."""

import json
import logging

import pytest

from tollway.observe.log import LogFormat
from tollway.observe.redact import Redactor
from tollway.observe.refusals import MAX_LINES_PER_S, MAX_STRANGERS_PER_S, RefusalLog, Refused


class Clock:
    now = 10.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, clock: Clock) -> RefusalLog:
    caplog.set_level(logging.INFO, "tollway.refusals")
    return RefusalLog(clock=clock)


def refuse(log: RefusalLog, label: str = "invalid_api_key", *, stranger: bool = True, **members: str) -> bool:
    told = {"call_id": "req_1", "key_id": "key_1", "method": "POST", "path": "/v1/chat/completions", **members}
    described = []

    def describe() -> Refused:
        described.append(label)
        return Refused(int(told.pop("status", "401")), label, **told)

    log.note(label, describe, stranger=stranger)
    return bool(described)


def test_a_refusal_is_one_line(log: RefusalLog, caplog: pytest.LogCaptureFixture) -> None:
    refuse(log)
    (record,) = caplog.records
    line = json.loads(LogFormat("worker-0", False, Redactor()).line(record))
    assert line["message"] == "refused: 401 invalid_api_key"
    assert {name: line[name] for name in ("call_id", "key_id", "status", "code", "method", "path")} == {
        "call_id": "req_1",
        "key_id": "key_1",
        "status": 401,
        "code": "invalid_api_key",
        "method": "POST",
        "path": "/v1/chat/completions",
    }
    assert "tried" not in line and "short" not in line


@pytest.mark.parametrize(
    ("members", "text", "colour"),
    [
        ({}, "401 invalid_api_key key_1", "\x1b[33m"),
        ({"key_id": ""}, "401 invalid_api_key", "\x1b[33m"),
        ({"status": "502", "tried": "m at openai: server_error 500"}, None, "\x1b[31m"),
    ],
)
def test_for_a_person_it_is_short_and_has_a_colour(
    log: RefusalLog, caplog: pytest.LogCaptureFixture, members: dict[str, str], text: str | None, colour: str
) -> None:
    refuse(log, **members)
    (record,) = caplog.records
    line = LogFormat("worker-0", True, Redactor()).line(record).decode()
    text = text or "502 invalid_api_key m at openai: server_error 500 key_1"
    assert line.endswith(f" {colour}{text}\x1b[0m\n")


def test_what_the_gateway_or_a_provider_is_to_blame_for_is_a_warning(
    log: RefusalLog, caplog: pytest.LogCaptureFixture
) -> None:
    refuse(log)
    refuse(log, status="502")
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]


@pytest.mark.parametrize(("stranger", "most"), [(True, MAX_STRANGERS_PER_S), (False, MAX_LINES_PER_S)])
def test_a_flood_is_counted_instead_of_printed(
    log: RefusalLog, caplog: pytest.LogCaptureFixture, clock: Clock, stranger: bool, most: int
) -> None:
    printed = sum(refuse(log, stranger=stranger) for _ in range(1000))
    assert printed == len(caplog.records) == most
    clock.now += 1
    log.turn()
    assert caplog.records[-1].getMessage() == (
        f"{1000 - most} more calls were refused with invalid_api_key, too many for a line each"
    )
    log.turn()
    assert len(caplog.records) == most + 1, "said once"
    assert refuse(log, stranger=stranger), "another second"


def test_one_code_does_not_take_the_lines_of_another(log: RefusalLog) -> None:
    for _ in range(100):
        refuse(log)
    assert refuse(log, "rate_limit_exceeded", stranger=False)
    assert refuse(log, "unknown_url")


def test_who_wants_no_line_for_each_request_gets_none(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tollway.refusals")
    log = RefusalLog(enabled=False)
    assert not refuse(log)
    log.turn()
    assert caplog.records == []
