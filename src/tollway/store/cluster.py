"""The embedded PostgreSQL's files below ``TOLLWAY_HOME``: made whole or not at all, and its server's user's alone."""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from tollway.store.server_binaries import VERSION, binaries
from tollway.store.server_errors import EmbeddedError, server_reason
from tollway.store.server_process import all_that_work_on
from tollway.store.server_user import ServerUser, become, hand_over, named_user, server_user

USER = DATABASE = "tollway"

_PROC = Path("/proc")  # Linux has it, macOS does not
_UNFINISHED = "postgres-unfinished"
_LEFT_BEHIND_S = 10.0  # for processes of a killed server to end, once they were told so by SIGKILL
_PAUSE_S = 0.05

_ACCESS = """\
# Written by Tollway at every start of the embedded PostgreSQL: what is changed here is lost.
# It listens on a Unix socket only, in a directory of its own. The lines for 127.0.0.1 are for the release before, which
# listened there, should anybody want to go back.
local  all  all                scram-sha-256
host   all  all  127.0.0.1/32  scram-sha-256
"""


def data_of(home: Path) -> Path:
    """The data directory of a home."""
    return home / "postgres"


def password_of(home: Path) -> str:
    """The password of the only role; raises OSError."""
    return _password(home).read_text()


def prepare(home: Path) -> ServerUser | None:
    """Make the cluster where there is none, and see to it that all of it is the server's user's; no server may run.

    Who that is; None: whoever we are. Raises EmbeddedError and OSError.
    """
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    data = data_of(home)
    user = server_user(home, data)
    if not data.exists():
        _make(home, user)
    _require_our_version(data)
    if user is not None and data.stat().st_uid != user.uid:
        # By its shared memory no server sees processes that another user ran: none of them may be left.
        _end_what_is_left(data)
        hand_over(data, user)
    _write_access(home, user)
    return user


def data_argument(directory: Path) -> str:
    """What a server is to call its data directory, which must be its working directory.

    By this name its user reaches it without the right to walk the way to it, through root's home for example.
    """
    return f"{_PROC}/self/cwd" if _PROC.exists() else str(directory)


def _make(home: Path, user: ServerUser | None) -> None:
    """In a directory of its own: the final name exists only when the cluster is whole."""
    for left in home.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(left, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=f"{_UNFINISHED}-", dir=home))
    try:
        _initialise(work, user)
        _keep(work / "password", 0o600)
        (work / "password").replace(_password(home))
        (work / "data").rename(data_of(home))
    finally:
        shutil.rmtree(work, ignore_errors=True)  # a disk that is full gets back what this took


def _initialise(work: Path, user: ServerUser | None) -> None:
    data, password = work / "data", work / "password"
    data.mkdir(mode=0o700)
    with open(os.open(password, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
    maker = named_user(user)
    if maker is not None:
        os.chown(data, *maker)
        for path, mode in ((work, 0o710), (password, 0o640)):
            os.chown(path, os.geteuid(), maker.gid)
            path.chmod(mode)
    programs, argument = binaries(user), data_argument(data)
    initdb: list[Path | str] = [programs / "initdb", "-D", argument, "-U", USER, "--pwfile=../password"]
    initdb += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"]
    initdb += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    _run(initdb, data, maker)
    create: list[Path | str] = [programs / "postgres", "--single", "-D", argument]
    create += ["-c", "exit_on_error=on", "postgres"]  # else a disk that fills up here goes unnoticed
    _run(create, data, maker, f"CREATE DATABASE {DATABASE}\n")
    if user is not None:
        hand_over(data, user)


def _run(command: list[Path | str], directory: Path, user: ServerUser | None, text: str = "") -> None:
    result = subprocess.run(  # noqa: S603
        command,
        cwd=directory,
        env={"LC_ALL": "C"},
        input=text.encode(),
        capture_output=True,
        check=False,
        **become(user),
    )
    if result.returncode:
        raise EmbeddedError(f"no PostgreSQL can be set up: {server_reason(result.stderr)}")


def _require_our_version(data: Path) -> None:
    version = (data / "PG_VERSION").read_text().strip()
    if version != str(VERSION):
        raise EmbeddedError(f"{data} was made by PostgreSQL {version}, and this is {VERSION}")


def _end_what_is_left(data: Path) -> None:
    deadline = time.monotonic() + _LEFT_BEHIND_S
    while left := all_that_work_on(data):
        if time.monotonic() > deadline:
            raise EmbeddedError(f"processes of an old PostgreSQL do not end: {', '.join(map(str, left))}")
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_PAUSE_S)


def _write_access(home: Path, user: ServerUser | None) -> None:
    """Say who may connect, whoever may have written what there before."""
    final = data_of(home) / "pg_hba.conf"
    with contextlib.suppress(OSError):
        if final.read_text() == _ACCESS:
            return
    # Made where nobody else writes, for root must not follow what lies in the data.
    draft = home / "pg_hba.conf.new"
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(_ACCESS)
        if user is not None:
            os.fchown(file.fileno(), *user)
    draft.replace(final)


def _keep(path: Path, mode: int) -> None:
    """Ours, and on disk: nobody gets into the cluster without it."""
    os.chown(path, os.geteuid(), os.getegid())
    path.chmod(mode)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _password(home: Path) -> Path:
    return home / "postgres-password"
