"""One log line for every refused call, so that a client's ``x-request-id`` is always found; but for floods.

A line costs some 30 microseconds, and strangers can be refused as often as they like. So a code has so many lines in a
second, fewer where no key stands behind it, and the rest of the second is counted in one line.
"""

import logging
import time
from collections.abc import Callable
from typing import NamedTuple

from tollway.observe.ration import Ration

MAX_LINES_PER_S = 100
"""Lines of one code in one second."""

MAX_STRANGERS_PER_S = 10
"""… of one code, for requests that no known key stands behind."""

_log = logging.getLogger("tollway.refusals")


class ShortLine:
    """What a person at a terminal reads; made only where there is one."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[], str]) -> None:
        self._make = make

    def __str__(self) -> str:
        return self._make()


class Refused(NamedTuple):
    """What the line of one refusal says."""

    status: int
    code: str
    call_id: str
    key_id: str = ""
    method: str = ""
    path: str = ""
    """A template."""
    tried: str = ""
    """What became of each target."""
    cause: str = ""
    """What is behind it, for those who run the gateway."""


class RefusalLog:
    """Prints refusals, or counts them."""

    def __init__(self, enabled: bool = True, clock: Callable[[], float] = time.monotonic) -> None:
        self._enabled = enabled
        self._ration = Ration(MAX_LINES_PER_S, _tell_left_out, clock)

    def note(self, label: str, describe: Callable[[], Refused], *, stranger: bool) -> None:
        """A refusal, described only where there is room for its line. ``label`` is of a closed set."""
        if self._enabled and self._ration.takes(label, MAX_STRANGERS_PER_S if stranger else MAX_LINES_PER_S):
            _print(describe())

    def turn(self) -> None:
        """Say what the last second had no line for. Call it once a second."""
        self._ration.turn()


def _print(one: Refused) -> None:
    members: dict[str, object] = {
        "call_id": one.call_id,
        "key_id": one.key_id or None,
        "status": one.status,
        "code": one.code,
        "method": one.method or None,
        "path": one.path or None,
        "short": ShortLine(
            lambda: " ".join(str(word) for word in (one.status, one.code, one.tried, one.key_id) if word)
        ),
    }
    members |= {name: text for name, text in (("tried", one.tried), ("cause", one.cause)) if text}
    level = logging.WARNING if one.status >= 500 else logging.INFO
    _log.log(level, "refused: %d %s", one.status, one.code, extra=members)


def _tell_left_out(label: str, count: int) -> None:
    _log.info("%d more calls were refused with %s, too many for a line each", count, label)
