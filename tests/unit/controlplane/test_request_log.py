"""One line for every attempt, with what it cost and without what was said."""

import json
import logging

import pytest

from fakes.settlements import settlement
from tollway.controlplane.request_log import MAX_LINES_PER_S, RequestLog
from tollway.observe.log import LogFormat
from tollway.observe.redact import Redactor

FAILED = settlement(
    model="gpt-4o",
    upstream_model="gpt-4o-2024-08-06",
    outcome="client_gone",
    stream=True,
    state="partial",
    cause="the client left",
)


def test_an_attempt_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "tollway.requests"):
        RequestLog()([FAILED])
    (record,) = caplog.records
    line = json.loads(LogFormat("control-plane", False, Redactor()).line(record))
    for volatile in ("time", "level", "process", "logger"):
        del line[volatile]
    assert line == {
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
        "cause": "the client left",
    }


def test_a_flood_is_counted_instead_of_printed(caplog: pytest.LogCaptureFixture) -> None:
    now = [10.0]
    log = RequestLog(lambda: now[0])
    with caplog.at_level(logging.INFO, "tollway.requests"):
        log([FAILED] * (MAX_LINES_PER_S - 1))
        log([FAILED] * 100)
        assert len(caplog.records) == MAX_LINES_PER_S
        now[0] = 11.0
        log([FAILED])
    assert [record.getMessage() for record in caplog.records[MAX_LINES_PER_S:]] == [
        "99 more attempts ended, too many for a line each",
        "attempt at openai ended: client_gone",
    ]
