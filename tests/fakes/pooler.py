"""PgBouncer before a PostgreSQL: the real one where it is installed, and a stand-in with the two habits that matter.

The stand-in refuses settings in the first message, as PgBouncer does, and, where it gives every transaction another
session, loses notifications, because nobody knows whose they are.
"""

import asyncio
import contextlib
import os
import pwd
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from fakes.relay import Relay, socket_of
from fakes.upstream import PATIENCE_S

_KNOWN = {"user", "database", "client_encoding", "application_name"}

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


class StandIn(Relay):
    """See above; ``mode`` is ``session`` or ``transaction``."""

    def __init__(self, target: str, mode: str) -> None:
        super().__init__(target)
        self._loses = mode == "transaction"
        self.answer = self._pool

    async def _pool(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (length,) = struct.unpack(">I", head := await reader.readexactly(4))
        message = await reader.readexactly(length - 4)
        names = message[4:].split(b"\0")[:-2:2]
        for name in (name.decode() for name in names):
            if name not in _KNOWN:
                fields = b"SFATAL\0C08P01\0Munsupported startup parameter: %b\0\0" % name.encode()
                writer.write(b"E" + struct.pack(">I", len(fields) + 4) + fields)
                return
        address = socket_of(self._target)
        if isinstance(address, str):
            there, back = await asyncio.open_unix_connection(address)
        else:
            there, back = await asyncio.open_connection(*address)
        with contextlib.closing(back):
            back.write(head + message)
            ways = {
                asyncio.ensure_future(self._to_server(reader, back)),
                asyncio.ensure_future(self._back(there, writer)),
            }
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)

    async def _to_server(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readexactly(5):
            body = await reader.readexactly(struct.unpack(">xI", head)[0] - 4)
            if head[:1] == b"A" and self._loses:
                continue
            writer.write(head + body)
            await writer.drain()


@contextlib.contextmanager
def real(target: str, mode: str, folder: Path) -> Iterator[str]:
    """A PgBouncer before the target, as its package comes; the URI through it."""
    assert PGBOUNCER is not None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    parts, address = urlsplit(target), socket_of(target)
    host, _, there = address.rpartition("/.s.PGSQL.") if isinstance(address, str) else (address[0], "", address[1])
    folder.mkdir()
    (folder / "users").write_text(f'"{parts.username}" "{parts.password}"\n')
    (folder / "pgbouncer.ini").write_text(
        f"""
        [databases]
        * = host={host} port={there}
        [pgbouncer]
        listen_addr = 127.0.0.1
        listen_port = {port}
        unix_socket_dir =
        auth_type = plain
        auth_file = {folder}/users
        pool_mode = {mode}
    """.replace("        ", "")
    )
    command, user = [PGBOUNCER, "-q", str(folder / "pgbouncer.ini")], None
    if os.geteuid() == 0:  # it does not run as root
        user = pwd.getpwnam("nobody").pw_uid
        for path in (folder, *folder.iterdir()):
            os.chown(path, user, -1)
        for parent in folder.parents[:-2]:
            parent.chmod(parent.stat().st_mode | 0o011)
    with subprocess.Popen(command, user=user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            until = time.monotonic() + PATIENCE_S
            while time.monotonic() < until:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.01)
            yield f"postgresql://{parts.username}:{parts.password}@127.0.0.1:{port}{parts.path}?sslmode=disable"
        finally:
            process.terminate()
