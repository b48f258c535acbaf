"""Where the embedded PostgreSQL listens: a Unix socket in a directory that only its user, and root, can enter.

The directory lies with the data. Where a path of that length, or a socket on that file system, cannot be, it lies below
a directory for temporary files, under a name that nobody can foresee. (``XDG_RUNTIME_DIR`` would be the obvious place,
but it goes when its user logs out.)
"""

import contextlib
import errno
import hashlib
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from tollway.store.server_errors import EmbeddedError
from tollway.store.server_user import ServerUser

PORT = 5432
"""Part of the socket's name and of nothing else; what clients take where they are told none."""

_NAME = f".s.PGSQL.{PORT}"
MAX_PATH = 100  # bytes; the kernel's limit is 104 on macOS and 108 on Linux
_INSIDE = "socket"
_SYSTEM = ("/run",)  # where root has its sockets


class Place(NamedTuple):
    """A directory for the socket: what clients call it, and what the server does, whose working directory is the data.

    By a relative name the server reaches it without the right to walk the way to it, through root's home for example.
    """

    directory: Path
    argument: str

    @property
    def socket(self) -> Path:
        """The socket's path."""
        return self.directory / _NAME

    @property
    def query(self) -> str:
        """The part of a URI that leads there."""
        return f"host={quote(os.fsencode(self.directory), safe='')}&port={PORT}"

    @property
    def is_inside(self) -> bool:
        """Whether it lies with the data, where nobody else has any business."""
        return not self.argument.startswith("/")


def place_of(data: Path, argument: str) -> Place:
    """The place where a server listens that was given this argument."""
    return Place(data / argument, argument)


def claim_first(data: Path, user: ServerUser | None, secret: str) -> Place:
    """Claim the first of all places where a socket can be; raises EmbeddedError where none can.

    The same data and secret find the same place again, as long as nothing around it changes.
    """
    reasons = []
    for place in _places(data, secret):
        try:
            claim(place, user)
            return place
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                reasons.append(f"{place.directory}: {error.strerror}")
    raise EmbeddedError(
        "the embedded PostgreSQL needs a directory for its Unix socket and finds none: "
        "set TMPDIR to a short path on a local disk, or DATABASE_URL "
        f"({'; '.join(reasons) or 'every path is too long'})"
    )


def claim(place: Place, user: ServerUser | None) -> None:
    """Make a place fit for a server that is about to start; raises OSError where that is impossible.

    The directory becomes the user's alone. Whatever lies in it is removed: the sockets of servers that were killed.
    """
    if not _fits(place):
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    if not place.is_inside and not _is_safe(place.directory.parent, user):
        raise OSError(errno.EACCES, "others could replace it, or PostgreSQL could not reach it")
    is_new = _make(place)
    try:
        descriptor = os.open(place.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            _take(descriptor, user)
            _clear(descriptor)
        finally:
            os.close(descriptor)
        try_socket(place.directory / "trial")
    except OSError:
        if is_new:
            leave(place)
        raise


def try_socket(path: Path) -> None:
    """Raise OSError where no Unix socket can be: not every file system takes them, and no kernel a long path."""
    if len(os.fsencode(path)) > MAX_PATH:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(path))
    path.unlink()


def temporary_directories() -> list[str]:
    """Where files for the time being may lie, best first."""
    found = ["/tmp", "/var/tmp"]  # noqa: S108
    with contextlib.suppress(OSError):  # none of those that it knows can be written
        found.insert(0, tempfile.gettempdir())
    return list(dict.fromkeys(found))


def leave(place: Place) -> None:
    """Take away the directory for good, where it is not the data's; nothing happens while a server listens there."""
    if not place.is_inside:
        with contextlib.suppress(OSError):
            place.directory.rmdir()


def identity(path: Path) -> tuple[int, int] | None:
    """Which socket lies there, to notice that it has vanished or another took its place; None: none."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISSOCK(status.st_mode) else None


def _places(data: Path, secret: str) -> Iterator[Place]:
    yield place_of(data, _INSIDE)
    name = hashlib.blake2b(os.fsencode(data), key=secret.encode()[:64], digest_size=12).hexdigest()
    for directory in (*(_SYSTEM if os.geteuid() == 0 else ()), *temporary_directories()):
        yield place_of(data, f"{directory}/tollway-{name}")


def _fits(place: Place) -> bool:
    path = os.fsencode(place.socket)
    try:
        path.decode()  # or what reads URIs would make another name of it
    except UnicodeDecodeError:
        return False
    # Commas divide hosts in URIs, and directories in the server's argument, where quotes would be read, too.
    return len(path) <= MAX_PATH and b"," not in path and (place.is_inside or b'"' not in path)


def _is_safe(directory: Path, user: ServerUser | None) -> bool:
    """Whether nobody but root and we can replace what lies in there, and the server's user may walk there."""
    real = directory.resolve()
    for path in (real, *real.parents):
        status = path.stat()
        is_sticky = bool(status.st_mode & stat.S_ISVTX)
        if status.st_uid not in (0, os.geteuid()) or (status.st_mode & 0o022 and not is_sticky):
            return False
        if user is not None and not status.st_mode & 0o001:
            return False
    return True


def _make(place: Place) -> bool:
    """Whether it was not there before."""
    try:
        place.directory.mkdir(0o700)
    except FileExistsError:
        if not place.is_inside or (place.directory.is_dir() and not place.directory.is_symlink()):
            return False
        place.directory.unlink()
        place.directory.mkdir(0o700)
    return True


def _take(descriptor: int, user: ServerUser | None) -> None:
    wanted = user or ServerUser(os.geteuid(), os.getegid())
    status = os.fstat(descriptor)
    if status.st_uid not in (wanted.uid, os.geteuid()):
        raise OSError(errno.EACCES, "it belongs to somebody else")
    if (status.st_uid, status.st_gid) != wanted:
        os.fchown(descriptor, *wanted)
    os.fchmod(descriptor, 0o700)


def _clear(descriptor: int) -> None:
    with os.scandir(descriptor) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in found:
        if is_directory:
            shutil.rmtree(name, dir_fd=descriptor)
        else:
            os.unlink(name, dir_fd=descriptor)
