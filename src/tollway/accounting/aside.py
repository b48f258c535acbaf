"""What cannot be posted: kept in a file beside its journal, where a person can look at it, and told within a ration."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from tollway.observe.ration import Ration

MAX_LINES = 10
"""Of the log in a second; a whole file of such records is no reason for more."""

_log = logging.getLogger(__name__)


class Aside:
    """Keeps pieces of journals. Belongs to one thread."""

    def __init__(self) -> None:
        self._ration = Ration(MAX_LINES, _tell_left_out)

    def keep(self, journal: Path, pieces: Sequence[bytes], why: str) -> None:
        """Write them to the file beside the journal, a line for each, and say so.

        Raises OSError where the disk takes none and the journal still has them. Where there is no journal, because
        they were delivered on another way, they are logged and given up: they must not hold up what came with them.
        """
        if not pieces:
            return
        beside = journal.with_suffix(".aside")
        try:
            _append(beside, b"".join([piece + b"\n" for piece in pieces]))
        except OSError:
            if journal.exists():
                raise
            for piece in pieces:
                if self._ration.takes():
                    _log.error(
                        "a record cannot be posted, %s, nor set aside: %s", why, piece.decode("utf-8", "replace")
                    )
            return
        if self._ration.takes():
            size = sum(map(len, pieces))
            _log.error(
                "%d pieces of a journal (%d bytes) cannot be posted, %s; they are set aside in %s",
                *(len(pieces), size, why, beside),
            )

    def turn(self) -> None:
        """Tell what the last second had no line for."""
        self._ration.turn()


def _append(path: Path, lines: bytes) -> None:
    """All or nothing, and on the disk. Raises OSError."""
    with path.open("ab", buffering=0) as file:
        before = file.tell()
        try:
            if file.write(lines) != len(lines):
                raise OSError("the disk took only a part")
            os.fsync(file.fileno())
        except OSError:
            file.truncate(before)
            raise


def _tell_left_out(_: str, count: int) -> None:
    _log.error("%d more lines of the last second would say that something cannot be posted", count)
