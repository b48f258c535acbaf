"""Journals under a hidden name, left by a process that was killed before it could give them their own."""

import contextlib
import time
from pathlib import Path

from tollway.accounting.journal import SUFFIX
from tollway.accounting.journal_reader import is_abandoned

MIN_AGE_S = 3600.0
"""Nobody who lives takes so long over one."""


def remove_drafts(directory: Path) -> int:
    """Remove old ones that nobody writes to; how many. What they were to hold stands in other files as well."""
    removed = 0
    for path in directory.glob(f".*{SUFFIX}"):
        with contextlib.suppress(OSError):  # removed by another process, or no file at all
            if path.is_file() and time.time() - path.stat().st_mtime > MIN_AGE_S and is_abandoned(path):
                path.unlink()
                removed += 1
    return removed
