"""Whom the embedded PostgreSQL runs as where root starts it: a user id of its own.

PostgreSQL refuses to be root, and ``nobody`` is everybody who runs as it: another such service could read the data, by
way of ``/proc`` even where no path leads to it. A number that nobody has needs no entry in ``/etc/passwd``; once the
cluster is made, the owner of its files is what remembers the number.
"""

import contextlib
import functools
import grp
import hashlib
import logging
import os
import pwd
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tollway.store.server_errors import EmbeddedError

_PROC = Path("/proc")  # Linux has it, macOS does not
_OVERFLOW = 65_534  # what ids look like that a user namespace does not know; Linux's usual number of nobody
_NO_ID = 65_535  # -1 in 16 bits
_ALL = (range(0, 2**31 - 1),)
_WINDOWS = (
    # systemd's table of ids leaves this free, and so do the ranges that directory services count up in.
    range(2_100_000_000, 2**31 - 1),
    # For namespaces that know 16 bits of ids: what the same table calls unused, then whatever there is.
    range(60_578, 61_184),
    range(65_520, _OVERFLOW),
    range(1, _OVERFLOW),
)
_TRIES = 1000  # numbers of one window; even the second one is hardly ever needed

_log = logging.getLogger("tollway.embedded")


class ServerUser(NamedTuple):
    """A user id and the group of the same files."""

    uid: int
    gid: int


def server_user(home: Path, data: Path) -> ServerUser | None:
    """Whom the server on this data runs as; None: whoever we are.

    Root gives way to the owner of the data, unless that is root itself or ``nobody``, as it was in the first release.
    Raises EmbeddedError where root cannot become anybody else.
    """
    if os.geteuid() != 0:
        return None
    if data.exists():
        status = data.stat()
        if status.st_uid not in {0, _NO_ID, *_nobodies()}:
            return ServerUser(status.st_uid, status.st_gid)
    return _user_of_its_own(home)


def named_user(user: ServerUser | None) -> ServerUser | None:
    """Who makes the cluster: ``initdb`` insists on a user with a name, though the server does not.

    The group is the server's own, so that no other process of that name can look into this one by ``/proc``.
    """
    if user is None or _has_name(user.uid):
        return user
    known = _ids_of("uid_map")
    for entry in sorted(pwd.getpwall(), key=lambda entry: entry.pw_name != "nobody"):
        if entry.pw_uid != 0 and any(entry.pw_uid in ids for ids in known):
            return ServerUser(entry.pw_uid, user.gid)
    raise EmbeddedError(
        "PostgreSQL's initdb does not run as root and wants a user with a name, and /etc/passwd has none: "
        "add one, run as an ordinary user, or set DATABASE_URL"
    )


def become(user: ServerUser | None) -> dict[str, Any]:
    """Arguments of subprocess: as whom the process runs."""
    return {} if user is None else {"user": user.uid, "group": user.gid, "extra_groups": []}


def hand_over(directory: Path, user: ServerUser) -> None:
    """Give a directory and all that lies in it to the user and the group; nobody may be at work in it.

    It is root's while that goes on, so that its old owner is shut out, and an interrupted one shows and is done again.
    Links are not followed, and a file that has a second name somewhere else keeps its owner. Raises OSError.
    """
    os.chown(directory, 0, 0, follow_symlinks=False)
    directory.chmod(0o700)
    for path, directories, files, descriptor in os.fwalk(directory):
        if Path(path) != directory:
            os.fchown(descriptor, *user)
        for name in (*directories, *files):
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            if status.st_nlink == 1:  # most directories have more, and their turn comes
                os.chown(name, *user, dir_fd=descriptor, follow_symlinks=False)
    os.chown(directory, *user)


def pick(windows: Iterable[range], known: Sequence[range], seed: int, is_free: Callable[[int], bool]) -> int | None:
    """A free number out of the first window that has one and is known here; the same seed begins at the same place."""
    for window in windows:
        for ids in known:
            shared = range(max(window.start, ids.start), min(window.stop, ids.stop))
            for step in range(min(len(shared), _TRIES)):
                number = shared[(seed + step) % len(shared)]
                if is_free(number):
                    return number
    return None


def _user_of_its_own(home: Path) -> ServerUser:
    known = list(_both(_ids_of("uid_map"), _ids_of("gid_map")))
    busy = _ids_of_processes()
    seed = int.from_bytes(hashlib.blake2b(os.fsencode(home.absolute()), digest_size=8).digest())
    number = pick(
        _WINDOWS, known, seed, lambda number: number not in busy and not _has_name(number) and not _is_group(number)
    )
    if number is not None:
        return ServerUser(number, number)
    with contextlib.suppress(KeyError):
        nobody = pwd.getpwnam("nobody")
        if any(nobody.pw_uid in ids for ids in _ids_of("uid_map")):
            _log.warning(
                "this system has no user id to spare for the embedded PostgreSQL: it runs as nobody, and every other "
                "service that does can reach its data; better run the gateway as an ordinary user"
            )
            return ServerUser(nobody.pw_uid, nobody.pw_gid)
    raise EmbeddedError(
        "PostgreSQL does not run as root, and this namespace knows no other user id: "
        "run as an ordinary user, or set DATABASE_URL"
    )


def _nobodies() -> set[int]:
    with contextlib.suppress(KeyError):
        return {_OVERFLOW, pwd.getpwnam("nobody").pw_uid}
    return {_OVERFLOW}


@functools.cache
def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _is_group(gid: int) -> bool:
    try:
        grp.getgrgid(gid)
    except KeyError:
        return False
    return True


def _ids_of(name: str) -> Sequence[range]:
    """The ids that mean something here: ``uid_map`` or ``gid_map`` of a user namespace."""
    try:
        rows = (_PROC / "self" / name).read_text().splitlines()
    except OSError:
        return _ALL
    firsts = ((int(first), int(count)) for first, _, count in map(str.split, rows))
    return [range(first, first + count) for first, count in firsts]


def _both(users: Sequence[range], groups: Sequence[range]) -> Iterator[range]:
    for some in users:
        for others in groups:
            yield range(max(some.start, others.start), min(some.stop, others.stop))


def _ids_of_processes() -> set[int]:
    """The user and group ids of everything that runs."""
    if not _PROC.exists():
        listed = subprocess.run(["/bin/ps", "-axo", "uid=,gid="], capture_output=True, check=False)
        return set(map(int, listed.stdout.split()))
    found: set[int] = set()
    for status in _PROC.glob("[0-9]*/status"):
        with contextlib.suppress(OSError):  # it has ended
            for line in status.read_bytes().splitlines():
                if line.startswith((b"Uid:", b"Gid:", b"Groups:")):
                    found.update(map(int, line.split()[1:]))
    return found
