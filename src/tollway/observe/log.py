"""Log lines: for people at a terminal, one JSON object per line otherwise. The one place that formats them.

Rules: (1) whoever logs only puts a record into a queue; formatting and writing happen in a thread of this module. Only
exceptions become text at once: a record that waits must not keep alive what their frames hold;
(2) the queue is bounded; when the reader of standard error is slow or gone, lines are dropped and counted, and nobody
waits; (3) everything passes :mod:`~tollway.observe.redact`; (4) a line is at most ``MAX_LINE`` bytes, which a pipe
takes in one piece, so that lines of several processes never mix.

Code logs with the standard library: ``log.info("what happened", extra={"key_id": …})``. What is given as ``extra``
becomes members of the JSON object; but for ``short``, which is the whole line for people where a record has one, and
no line at all where it is empty.
"""

import functools
import logging
import os
import queue
import select
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Mapping

import msgspec

from tollway.domain.keys import Secret
from tollway.observe.redact import Redactor

MAX_LINE = 4096  # PIPE_BUF on Linux: writes up to this size do not mix

_MAX_QUEUED = 10_000  # records; about 5 MiB at worst, some seconds of the busiest log
_MAX_TEXT = 1000  # characters of a message
_MAX_VALUE = 256  # characters of a member
_MAX_CAUSE = 1000  # … of the one that says what went wrong, in a provider's words too
_MAX_TRACEBACK = 1500  # characters, the end of it: the exception and its nearest frames
_MAX_MEMBERS = 40
_CLOSE_S = 1.0  # a blocked pipe holds up the end of the process no longer than this

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "short"}
_LENGTHS = {"cause": _MAX_CAUSE}
_IDS = frozenset({"call_id", "provider_request_id"})  # random by nature, and worth nothing as secrets
_ALARM, _MISHAP, _PLAIN = "\x1b[31m", "\x1b[33m", "\x1b[0m"
_COLOURS = {"WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31m", "DEBUG": "\x1b[2m"}

_encode = msgspec.json.Encoder(enc_hook=str).encode


class LogFormat:
    """Turns a record into the bytes of one line."""

    def __init__(self, process: str, people: bool, redactor: Redactor) -> None:
        self._process = process
        self._people = people
        self._redactor = redactor
        self._clean = redactor.clean

    def line(self, record: logging.LogRecord) -> bytes:
        """The finished line with its newline; never raises, whatever the record holds."""
        try:
            return self._line(record)
        except Exception as error:  # an object that cannot be shown must not take the thread down
            return self._line(_record(f"a log record of {record.name} could not be formatted: {type(error).__name__}"))

    def _line(self, record: logging.LogRecord) -> bytes:
        message = self._clean(record.getMessage().strip(), _MAX_TEXT)
        extra = [(name, value) for name, value in vars(record).items() if name not in _STANDARD]
        members = {name: self._value(name, value) for name, value in extra[:_MAX_MEMBERS]}
        trace = self._traceback(record)
        if not self._people:
            return self._for_programs(record, message, members, trace)
        short: object = vars(record).get("short")
        return self._for_people(record, message, members, trace) if short is None else self._short(record, str(short))

    def _value(self, name: str, value: object) -> object:
        if value is None or isinstance(value, bool | int | float):
            return value
        text = value if isinstance(value, str) else str(value)
        if name in _IDS:
            return self._redactor.clean_id(text)
        return self._clean(text, _LENGTHS.get(name, _MAX_VALUE))

    def _traceback(self, record: logging.LogRecord) -> str:
        text = record.exc_text or _end_of_traceback(record)
        lines = [self._clean(line, _MAX_VALUE) for line in text.splitlines()]
        return "\n".join(lines)[-_MAX_TRACEBACK:]

    def _for_programs(self, record: logging.LogRecord, message: str, members: dict[str, object], trace: str) -> bytes:
        line: dict[str, object] = {
            "time": f"{_utc(int(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "message": message,
        }
        if trace:
            line["traceback"] = trace
        encoded = _encode(line | members | line)  # in this order, and no member replaces one of ours
        if len(encoded) >= MAX_LINE:
            line["message"] = message[: _MAX_TEXT // 4]
            line["traceback"] = trace[-_MAX_TRACEBACK // 4 :]
            encoded = _encode(line | {"cut": True})
        return encoded + b"\n"

    def _short(self, record: logging.LogRecord, text: str) -> bytes:
        if not text:
            return b""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        colour = _colour(vars(record))
        text = self._clean(text, _MAX_TEXT)
        line = f"\x1b[2m{clock}\x1b[0m {f'{colour}{text}{_PLAIN}' if colour else text}\n"
        return line.encode("utf-8", "backslashreplace")

    def _for_people(self, record: logging.LogRecord, message: str, members: dict[str, object], trace: str) -> bytes:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        colour = _COLOURS.get(record.levelname, "")
        rest = "".join(f"  {name}={value}" for name, value in members.items())
        text = f"\x1b[2m{clock}\x1b[0m {colour}{record.levelname.lower():<7}\x1b[0m {message}\x1b[2m{rest}\x1b[0m"
        return (text + ("\n" + trace if trace else "") + "\n").encode("utf-8", "backslashreplace")


class LogWriter(logging.Handler):
    """Takes records without ever waiting, and writes their lines from a thread of its own."""

    def __init__(self, fd: int, line_format: LogFormat) -> None:
        super().__init__()
        self._fd = fd
        self._format = line_format
        self._queue: queue.SimpleQueue[logging.LogRecord | None] = queue.SimpleQueue()
        self._overflowed = 0
        self._unwritten = 0
        self._reported = 0
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Lines lost because the queue was full or standard error could not be written."""
        return self._overflowed + self._unwritten

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the record, or count it as dropped."""
        if self._queue.qsize() >= _MAX_QUEUED:
            self._overflowed += 1
        else:
            _let_go(record)
            self._queue.put(record)

    def stop(self) -> None:
        """Write what is queued, for at most a second. Later records are lost."""
        self._queue.put(None)
        self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        while (record := self._queue.get()) is not None:
            if not self._write(self._format.line(record)):
                self._unwritten += 1
            elif self.dropped > self._reported and self._queue.qsize() < _MAX_QUEUED // 2:
                self._report()

    def _report(self) -> None:
        dropped = self.dropped
        if self._write(self._format.line(_record(f"{dropped - self._reported} log lines were dropped"))):
            self._reported = dropped

    def _write(self, line: bytes) -> bool:
        view = memoryview(line)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:  # somebody who shares the descriptor made it non-blocking
                select.select([], [self._fd], [])
            except OSError:
                return False
        return True


def start(process: str, level: str, secrets: Iterable[Secret] = (), fd: int | None = None) -> LogWriter:
    """Send the whole process's log to standard error (or ``fd``); ``process`` is its name in every line."""
    fd = sys.stderr.fileno() if fd is None else fd
    writer = LogWriter(fd, LogFormat(process, os.isatty(fd), Redactor(secrets)))
    root = logging.getLogger()
    root.handlers[:] = [writer]
    root.setLevel(logging.WARNING)  # what libraries say of their own is for their authors
    logging.getLogger("tollway").setLevel(level.upper())
    logging.captureWarnings(True)
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # not shown, so not looked up
    return writer


def _colour(members: Mapping[str, object]) -> str:
    """Of a call's line: red where the gateway or a provider failed, yellow for what else did not end well."""
    status, outcome = members.get("status"), members.get("outcome", "ok")
    if isinstance(status, int) and status >= 500:
        return _ALARM
    if outcome in ("ok", "client_gone"):
        return _MISHAP if outcome != "ok" or (isinstance(status, int) and status >= 400) else ""
    return _ALARM


def _let_go(record: logging.LogRecord) -> None:
    """Put exceptions into words, so that the record is nothing but values."""
    if record.exc_info:
        record.exc_text = _end_of_traceback(record)
        record.exc_info = None
    if isinstance(record.args, tuple) and any(isinstance(value, BaseException) for value in record.args):
        record.args = tuple(_Said(value) if isinstance(value, BaseException) else value for value in record.args)


class _Said:
    """How an exception reads, for ``%s`` and ``%r``."""

    __slots__ = ("_repr", "_str")

    def __init__(self, error: BaseException) -> None:
        try:
            self._str, self._repr = str(error), repr(error)
        except Exception:  # an exception that cannot be shown must not become another one
            self._str = self._repr = type(error).__name__

    def __str__(self) -> str:
        return self._str

    def __repr__(self) -> str:
        return self._repr


def _end_of_traceback(record: logging.LogRecord) -> str:
    if not record.exc_info or record.exc_info[1] is None:
        return ""
    return "".join(traceback.format_exception(record.exc_info[1]))[-4 * _MAX_TRACEBACK :]


def _record(message: str) -> logging.LogRecord:
    return logging.LogRecord("tollway.observe", logging.WARNING, "", 0, message, None, None)


@functools.lru_cache(maxsize=4)
def _utc(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
