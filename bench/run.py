"""One run of the benchmark: its place, its lengths, and what every measurement needs of it."""

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench.programs import Place, Program

_QUIET_SHARE = 0.05
"""Of one core: the background uses less than this when it has nothing left to do."""
_QUIET_WINDOW_S = 0.6
_QUIET_LIMIT_S = 15


@dataclass(frozen=True, slots=True)
class Lengths:
    """How much is measured. Seconds of load are whole, because wrk's are."""

    rounds: int
    load_s: int
    stream_s: float
    starts: int
    imports: int


FULL = Lengths(rounds=5, load_s=3, stream_s=2.0, starts=5, imports=9)
QUICK = Lengths(rounds=2, load_s=1, stream_s=1.0, starts=2, imports=3)


@dataclass(frozen=True, slots=True)
class Run:
    """What the measurements share."""

    place: Place
    home: Path
    """Where Tollway keeps its database: made by the first start, found by every other one."""
    lengths: Lengths
    notes: list[str] = field(default_factory=list)
    """What a reader of the table has to know besides."""

    def say(self, text: str) -> None:
        """Tell the person who waits."""
        print(text, file=sys.stderr, flush=True)

    def wait_until_quiet(self, program: Program) -> None:
        """Return when the background of ``program`` has caught up, so that it disturbs nobody else's turn."""
        deadline = time.monotonic() + _QUIET_LIMIT_S
        before = sum(program.background_cpu_s().values())
        while program.background:
            time.sleep(_QUIET_WINDOW_S)
            now = sum(program.background_cpu_s().values())
            if now - before < _QUIET_SHARE * _QUIET_WINDOW_S:
                return
            if time.monotonic() > deadline:
                self.notes.append(f"{program.name}: the background still worked {_QUIET_LIMIT_S} s after a load")
                return
            before = now
