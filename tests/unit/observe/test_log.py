"""Log lines: their form, and that writing them never holds anything up."""

import contextlib
import gc
import json
import logging
import os
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from tollway.domain.keys import Secret
from tollway.observe import log
from tollway.observe.log import LogFormat, LogWriter
from tollway.observe.redact import Redactor


def record(message: str, *args: object, level: int = logging.INFO, **extra: object) -> logging.LogRecord:
    made = logging.getLogger("test").makeRecord("test", level, "", 0, message, args, None, extra=extra)
    return made


def as_json(made: logging.LogRecord) -> dict[str, Any]:
    line = LogFormat("worker-0", False, Redactor()).line(made)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert len(line) <= log.MAX_LINE
    return json.loads(line)


def test_a_program_gets_one_json_object_per_line() -> None:
    line = as_json(record("call %s ended", "req_1", status=200, cost="0.5", stream=True, model=None))
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "process": "worker-0",
        "logger": "test",
        "message": "call req_1 ended",
        "status": 200,
        "cost": "0.5",
        "stream": True,
        "model": None,
    }


def test_a_person_gets_a_readable_line() -> None:
    line = LogFormat("worker-0", True, Redactor()).line(record("call ended", status=200)).decode()
    assert "call ended" in line and "status=200" in line


def as_text(made: logging.LogRecord) -> str:
    return LogFormat("worker-0", True, Redactor([Secret("canary-known")])).line(made).decode()


def test_for_a_person_a_record_may_say_its_line_itself() -> None:
    line = as_text(record("the long form", short="200 m openai", status=200))
    assert line.endswith(" 200 m openai\n")
    assert "long form" not in line and "status" not in line
    assert as_text(record("the long form", short="")) == "", "nothing for a person"


def test_for_a_program_it_says_all() -> None:
    line = as_json(record("the long form", short="200 m openai", status=200))
    assert (line["message"], line["status"]) == ("the long form", 200)
    assert "short" not in line


def test_what_stands_in_a_short_line_is_cleaned_too() -> None:
    line = as_text(record("x", short="200 canary-known sk-canary1234567890 \x1b[31m\nx"))
    assert "canary" not in line
    assert line.count("\n") == 1 and line.count("\x1b") == 2, "only the dimmed clock"


def test_a_cause_may_be_longer_than_other_members() -> None:
    line = as_json(record("x", cause="c" * 5000, other="o" * 5000))
    assert len(line["cause"]) == 1001
    assert len(line["other"]) == 257


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("req_0123456789abcdef0123456789abcdef", "req_0123456789abcdef0123456789abcdef"),
        ("req_canary-known", "req_***"),
        ("sk-canary1234567890", "sk-cana***"),
        ("a\nb", "a\\nb"),
    ],
)
def test_an_id_of_a_request_is_no_secret(text: str, shown: str) -> None:
    made = record("x", provider_request_id=text)
    line = json.loads(LogFormat("worker-0", False, Redactor([Secret("canary-known")])).line(made))
    assert line["provider_request_id"] == shown


def test_members_cannot_replace_ours() -> None:
    line = as_json(record("truth", time="forged", level="forged"))
    assert "forged" not in line.values()


def test_secrets_are_masked_in_messages_members_and_tracebacks() -> None:
    made = record("key %s", "sk-canary1234567890", key=Secret("canary"), header="Bearer canary1234")
    try:
        raise ValueError("password=canary-in-exception")
    except ValueError as error:
        made.exc_info = (ValueError, error, error.__traceback__)
    text = json.dumps(as_json(made))
    assert "canary" not in text
    assert "ValueError" in text


def test_outside_text_is_escaped_and_cut() -> None:
    line = as_json(record("said %s", "\x1b[31m\n\u2028" + "x" * 100_000, name_of_model="m" * 100_000))
    assert line["message"].startswith(r"said \x1b[31m\n\u2028xxx")
    assert len(line["message"]) <= 1001
    assert len(line["name_of_model"]) <= 257


def test_a_line_is_never_longer_than_a_pipe_takes_at_once() -> None:
    members = {f"member_{number}": "ü" * 1000 for number in range(100)}
    line = as_json(record("é" * 5000, **members))
    assert line["cut"] is True


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize("broken", [record("%d", "x"), record("x", member=Unprintable())], ids=["args", "member"])
def test_a_record_that_cannot_be_shown_is_still_a_line(broken: logging.LogRecord) -> None:
    assert "could not be formatted" in as_json(broken)["message"]


@contextlib.contextmanager
def writer_on(fd: int) -> Iterator[LogWriter]:
    writer = LogWriter(fd, LogFormat("test", False, Redactor()))
    try:
        yield writer
    finally:
        writer.stop()


def test_lines_come_out_in_order() -> None:
    reading, writing = os.pipe()
    with writer_on(writing) as writer:
        for number in range(100):
            writer.emit(record(f"line {number}"))
    os.close(writing)
    with open(reading, "rb") as pipe:
        messages = [json.loads(line)["message"] for line in pipe]
    assert messages == [f"line {number}" for number in range(100)]


WAITING_S = 4.0
"""Whoever waits for a reader waits longer, be it a millisecond for each of five thousand lines."""


def test_a_pipe_that_nobody_reads_drops_lines_and_counts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_MAX_QUEUED", 200)
    reading, writing = os.pipe()
    with writer_on(writing) as writer:
        began = time.perf_counter()
        for number in range(5000):
            writer.emit(record(f"line {number} " + "x" * 500))
        assert time.perf_counter() - began < WAITING_S, "whoever logs does not wait"
        assert writer.dropped > 4000
        began = time.perf_counter()
        writer.stop()
        assert time.perf_counter() - began < WAITING_S, "and neither does the end of the process"
        with open(reading, "rb") as pipe:  # somebody reads again: everything queued comes, and how much was lost
            threading.Timer(0.5, os.close, [writing]).start()
            messages = [json.loads(line)["message"] for line in pipe]
    assert any("log lines were dropped" in message for message in messages)


class Body:
    """Something large in a frame."""


def fail_with(body: Body) -> None:
    raise ValueError("what went wrong")


def test_a_record_that_waits_keeps_no_frame_alive() -> None:
    reading, writing = os.pipe()
    with writer_on(writing) as writer:
        gc.disable()
        try:
            body = Body()
            seen = weakref.ref(body)
            try:
                fail_with(body)
            except ValueError as error:
                made = record("failed: %s (%r)", error, error)
                made.exc_info = (ValueError, error, error.__traceback__)
                writer.emit(made)
            del body
            assert seen() is None, "neither by the record nor by the thread that waits for the next one"
        finally:
            gc.enable()
    os.close(writing)
    with open(reading, "rb") as pipe:
        line = json.loads(pipe.read())
    assert line["message"] == "failed: what went wrong (ValueError('what went wrong'))"
    assert "fail_with" in line["traceback"] and "what went wrong" in line["traceback"]


def test_an_exception_that_cannot_be_shown_is_still_a_line() -> None:
    class OddError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    reading, writing = os.pipe()
    with writer_on(writing) as writer:
        writer.emit(record("failed: %s", OddError()))
    os.close(writing)
    with open(reading, "rb") as pipe:
        assert json.loads(pipe.read())["message"] == "failed: OddError"


def test_a_closed_pipe_drops_lines_and_counts_them() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with writer_on(writing) as writer:
        for _ in range(10):
            writer.emit(record("lost"))
    os.close(writing)
    assert writer.dropped == 10


def test_a_descriptor_that_somebody_made_non_blocking_loses_nothing() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    received: list[bytes] = []

    def read() -> None:
        with open(reading, "rb") as pipe:
            time.sleep(0.05)
            received.append(pipe.read())

    thread = threading.Thread(target=read)
    thread.start()
    with writer_on(writing) as writer:
        for _ in range(500):
            writer.emit(record("x" * 900))
    os.close(writing)
    thread.join()
    assert received[0].count(b"\n") == 500
    assert writer.dropped == 0


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    ours = logging.getLogger("tollway")
    before = root.handlers[:], root.level, ours.level
    yield root
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])
    logging.captureWarnings(False)


def test_the_whole_process_logs_through_it(root_logger: logging.Logger) -> None:
    reading, writing = os.pipe()
    writer = log.start("worker-7", "warning", [Secret("canary-known")], writing)
    logging.getLogger("tollway.anything").info("too quiet")
    logging.getLogger("alembic").info("of no interest")
    logging.getLogger("tollway.anything").warning("heard canary-known")
    assert writer.dropped == 0
    writer.stop()
    os.close(writing)
    with open(reading, "rb") as pipe:
        (line,) = map(json.loads, pipe)
    assert (line["process"], line["message"]) == ("worker-7", "heard ***")
