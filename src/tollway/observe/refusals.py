"""One log line for every refused call, so that a client's ``x-request-id`` is always found; but for floods.

A line costs some 30 microseconds, and strangers can be refused as often as they like. So a code has so many lines in a
second, fewer where no key stands behind it, and the rest of the second is counted in one line.
"""

import logging
import time
from collections.abc import Callable, Iterator

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


class Ration:
    """So many lines of a kind in a second. ``label`` is of a closed set. Belongs to one thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._second = 0
        self._wanted: dict[str, int] = {}
        self._printed: dict[str, int] = {}

    def takes(self, label: str, most: int) -> bool:
        """Whether another line may be printed; call :meth:`over` before."""
        self._wanted[label] = self._wanted.get(label, 0) + 1
        printed = self._printed.get(label, 0)
        if printed >= most:
            return False
        self._printed[label] = printed + 1
        return True

    def over(self) -> Iterator[tuple[str, int]]:
        """Once a second is over: what had no line in it, by label."""
        second = int(self._clock())
        if second != self._second:
            self._second = second
            wanted, printed = self._wanted, self._printed
            self._wanted, self._printed = {}, {}
            for label, count in wanted.items():
                if (untold := count - printed.get(label, 0)) > 0:
                    yield label, untold


class RefusalLog:
    """Prints refusals, or counts them."""

    def __init__(self, enabled: bool = True, clock: Callable[[], float] = time.monotonic) -> None:
        self._enabled = enabled
        self._ration = Ration(clock)

    def has_room(self, label: str, *, stranger: bool) -> bool:
        """Count a refusal; whether it may have a line. ``label`` is of a closed set."""
        if not self._enabled:
            return False
        self.turn()
        return self._ration.takes(label, MAX_STRANGERS_PER_S if stranger else MAX_LINES_PER_S)

    def tell(
        self, status: int, code: str, *, call_id: str, key_id: str, method: str, path: str, tried: str = ""
    ) -> None:
        """Print one line. ``path`` is a template; ``tried`` says what became of each target."""
        members: dict[str, object] = {
            "call_id": call_id,
            "key_id": key_id or None,
            "status": status,
            "code": code,
            "method": method or None,
            "path": path or None,
            "short": ShortLine(lambda: " ".join(word for word in (str(status), code, tried, key_id) if word)),
        }
        if tried:
            members["tried"] = tried
        level = logging.WARNING if status >= 500 else logging.INFO
        _log.log(level, "refused: %d %s", status, code, extra=members)

    def turn(self) -> None:
        """Say how many refusals of the last second had no line. Call it once a second."""
        for label, untold in self._ration.over():
            _log.info("%d more calls were refused with %s, too many for a line each", untold, label)
