"""A PostgreSQL of the user's own, for gateways with DATABASE_URL: it can be stopped, killed and started again."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from fakes.relay import Relay
from tollway.store.embedded import EmbeddedPostgres


class GivenServer(Relay):
    """One server with a relay before it; a context manager."""

    def __init__(self, home: Path, settings: Mapping[str, str] | None = None) -> None:
        super().__init__("")
        self._home = home
        self._server_of_its_own = EmbeddedPostgres(home, {"fsync": "off", **(settings or {})})

    def __enter__(self) -> Self:
        super().__enter__()
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
        super().__exit__(*exception)

    @property
    def direct_url(self) -> str:
        """Past the relay."""
        return self._target

    def start(self) -> None:
        """Start the server, or start it again where it was before."""
        self._target = self.do(self._server_of_its_own.start())

    def stop(self) -> None:
        """As an administrator stops it: connections are cut, everything is on disk."""
        self.do(self._server_of_its_own.stop())

    def kill(self) -> None:
        """``kill -9`` to all its processes at once."""
        pid = int((self._home / "postgres" / "postmaster.pid").read_text().split()[0])
        os.killpg(pid, signal.SIGKILL)
        self.stop()  # which finds it dead
