"""One log line for every attempt at a provider, printed from the journals: no worker ever formats one.

1. The journals are read here by themselves, four times a second, so a line comes when the attempt has ended, whether
   PostgreSQL takes entries or not. It has the attempt's time.
2. How far they are read is kept beside them, so that a restart prints no line twice, but for those of the last moment.
3. A line costs some 30 microseconds. Above ``MAX_LINES_PER_S`` the rest of a second is counted in one line: the ledger
   has every attempt, and a log that nobody can read must not take a processor from those who work.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from tollway.accounting.journal import SUFFIX, rescued_from
from tollway.accounting.journal_reader import read_records, skip_records
from tollway.accounting.posting import TAIL_INTERVAL_S
from tollway.accounting.records import Settlement
from tollway.domain.failures import FailureKind
from tollway.domain.money import format_dollars
from tollway.observe.ration import Ration
from tollway.observe.refusals import ShortLine

MAX_LINES_PER_S = 500

MAX_CALLS_HELD = 1000
"""Calls whose failed attempts are remembered until they have ended, for the one line that a person reads."""

MAX_GONE = 100
"""Journals that are gone, and not by the poster, of which it is remembered how far they were read."""

_MARKS = ".logged"

_log = logging.getLogger("tollway.requests")
_FOLLOWED = frozenset({*(kind.value for kind in FailureKind), "client_failed"})
"""Outcomes, uncharged, after which another attempt comes or the worker refuses the call in a line of its own."""


class RequestLog:
    """Prints attempts; nothing of what was said, and no key."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._ration = Ration(MAX_LINES_PER_S, _tell_left_out, clock)
        self._failed: dict[str, list[Settlement]] = {}

    def room(self) -> int:
        """How many lines this second still takes."""
        return self._ration.room()

    def tell(self, settlements: Sequence[Settlement]) -> None:
        """Print a batch, no larger than there is room for."""
        self._ration.print(len(settlements))
        for one in settlements:
            log_attempt(one, ShortLine(self._short(one)))

    def note(self, settlements: Sequence[Settlement]) -> None:
        """Print as many as there is room for."""
        room = self.room()
        self.tell(settlements[:room])
        if room < len(settlements):
            self.leave_out(len(settlements) - room)

    def leave_out(self, count: int) -> None:
        """Note attempts that get no line."""
        self._ration.leave_out(count)

    def turn(self) -> None:
        """Say what the last second had no line for. Call it once a second."""
        self._ration.turn()

    def _short(self, one: Settlement) -> Callable[[], str]:
        """A call is one line for a person: what failed before is told with what came of it."""
        if one.outcome in _FOLLOWED and not one.charged:
            if len(self._failed) >= MAX_CALLS_HELD:
                self._failed.pop(next(iter(self._failed)))
            self._failed.setdefault(one.call_id, []).append(one)
            return str
        before = self._failed.pop(one.call_id, [])
        return lambda: short_line(one, before)


def _tell_left_out(_: str, count: int) -> None:
    _log.info("%d more attempts ended, too many for a line each", count)


def short_line(one: Settlement, before: Sequence[Settlement] = ()) -> str:
    """``200 gpt-4o-mini openai 1.2s 19+10 $0.00003``."""
    seconds = one.duration_ms / 1000
    took = f"{seconds:.2f}s" if seconds < 1 else f"{seconds:.1f}s"
    cost = f"${format_dollars(one.cost, one.scale)}" if one.priced else "$?"
    words = [str(one.status or 499), one.model or one.operation, one.provider, took]
    usage = one.usage
    words += [f"{usage.input_tokens}+{usage.output_tokens}", cost]
    if one.outcome != "ok":
        words.append(one.outcome)
    if before:
        words.append("after " + ", ".join(f"{failed.provider} {failed.outcome}" for failed in before))
    return " ".join(words)


def log_attempt(one: Settlement, short: ShortLine) -> None:
    """Print one line, with the time at which the attempt ended."""
    if not _log.isEnabledFor(logging.INFO):
        return
    usage = one.usage
    members: dict[str, object] = {
        "call_id": one.call_id,
        "attempt": one.attempt,
        "key_id": one.key_id,
        "operation": one.operation,
        "model": one.model,
        "provider": one.provider,
        "upstream_model": one.upstream_model,
        "status": one.status,
        "outcome": one.outcome,
        "stream": one.stream,
        "duration_ms": round(one.duration_ms),
        "first_byte_ms": None if one.first_byte_ms is None else round(one.first_byte_ms),
        "input_tokens": usage.input_tokens,
        "cached_input_tokens": usage.cached_input_tokens,
        "output_tokens": usage.output_tokens,
        "usage": one.state,
        "cost_usd": format_dollars(one.cost, one.scale) if one.priced else None,
        "charged": one.charged,
        "revision": one.revision,
        "cause": one.cause or None,
        "provider_request_id": one.provider_request_id or None,
        "short": short,
    }
    message = "attempt at %s ended: %s"
    record = _log.makeRecord(_log.name, logging.INFO, "", 0, message, (one.provider, one.outcome), None, extra=members)
    record.created = one.started_unix + one.duration_ms / 1000
    record.msecs = record.created % 1 * 1000
    _log.handle(record)


# --- following the journals ---------------------------------------------------------------------------------


class JournalFollower:
    """Hands on the records of a directory of journals, each once, in the order of its file.

    What gets no line is not even decoded, only counted: the poster reads it, too, and once is enough.
    """

    def __init__(self, directory: Path, log: RequestLog) -> None:
        self._directory = directory
        self._log = log
        self._positions = self._marked()
        self._kept = dict(self._positions)

    async def run(self) -> None:
        """Follow until cancelled."""
        failing = False
        while True:
            try:
                await self.follow()
            except OSError as error:
                if not failing:
                    _log.warning("the journals cannot be read for the log of requests: %s", error)
                failing = True
            else:
                failing = False
            await asyncio.sleep(TAIL_INTERVAL_S)

    async def follow(self) -> None:
        """Hand on what has come since the last time."""
        names = set()
        for path in sorted(self._directory.glob(f"[!.]*{SUFFIX}")):
            names.add(path.name)
            end = _size(path)  # what is written meanwhile is left to the next time
            while self._positions.get(path.name, 0) < end and self._read_on(path):  # noqa: ASYNC110
                await asyncio.sleep(0)  # others have a turn between the pieces
        gone = [name for name in self._positions if name not in names]
        for name in gone[:-MAX_GONE]:
            del self._positions[name]
        self._mark()

    def finish(self, path: Path) -> None:
        """Hand on the rest of a journal that is about to be removed."""
        while self._read_on(path):
            pass
        self._positions.pop(path.name, None)

    def _read_on(self, path: Path) -> bool:
        """Take the next records; False where there are none."""
        room = self._log.room()
        with contextlib.suppress(FileNotFoundError):
            position = self._position(path)
            if room == 0:
                count, following = skip_records(path, position)
                if following > position:
                    self._log.leave_out(count)
                    self._positions[path.name] = following
                    return True
            chunk = read_records(path, position, abandoned=False, most=max(room, 1))
            if chunk.position > position:
                self._positions[path.name] = chunk.position
                settlements = [record for record in chunk.records if isinstance(record, Settlement)]
                if room:
                    self._log.tell(settlements)
                else:
                    self._log.leave_out(len(settlements))
                return True
        return False

    def _position(self, path: Path) -> int:
        """Where to read on. One that was rescued repeats a journal that is gone: where that one was left."""
        position = self._positions.get(path.name)
        if position is None:
            position = self._positions.get(rescued_from(path.name), 0)
            if position > path.stat().st_size:  # that one was cut
                position = 0
        return position

    def _marked(self) -> dict[str, int]:
        try:
            return msgspec.json.decode((self._directory / _MARKS).read_bytes(), type=dict[str, int])
        except (OSError, msgspec.DecodeError):
            return {}

    def _mark(self) -> None:
        """Note how far the journals are read; without a disk that takes it, a restart may print lines again."""
        if self._positions == self._kept:
            return
        self._kept = dict(self._positions)
        marks = self._directory / _MARKS
        fresh = marks.with_suffix(".new")
        with contextlib.suppress(OSError):
            file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with open(file, "wb") as out:
                out.write(msgspec.json.encode(self._positions))
            fresh.rename(marks)


def _size(path: Path) -> int:
    """0 for one that is gone."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
