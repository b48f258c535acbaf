"""Other gateways on the same database: noticed, because each counts its limits for itself.

A process that counts holds an advisory lock in its session, shared by all processes of its gateway; locks are shown to
every role, and go with the session. Commands hold none, and a gateway that is started again is still the same.
"""

import contextlib
import hashlib
import logging
import os
import secrets
from pathlib import Path

import asyncpg

from tollway.store.postgres import query

FILE_NAME = "gateway-number"
LOOK_S = 5.0

_CLASS = 0x746F6C6C  # "toll"; the first half of the lock's number
_LARGEST = 2**31 - 1

_log = logging.getLogger("tollway.neighbours")


class Neighbours:
    """What one process knows of other gateways."""

    __slots__ = ("_known", "_number")

    def __init__(self, number: int) -> None:
        self._number = number
        self._known = 0

    async def announce(self, connection: asyncpg.Connection) -> None:
        """Be seen by others for as long as this connection lasts."""
        await connection.execute("SELECT pg_advisory_lock_shared($1, $2)", _CLASS, self._number)

    async def look(self, connection: asyncpg.Connection) -> None:
        """Say so when there are other gateways now and were none before, or the other way round."""
        others: int = await connection.fetchval(query("neighbours"), _CLASS, self._number)
        if others and not self._known:
            _log.warning(
                "another gateway works on this database: limits per minute hold in each of them, not in all together",
                extra={"others": others},
            )
        elif self._known and not others:
            _log.info("no other gateway works on this database any more")
        self._known = others


def gateway_number(home: Path) -> int:
    """The number of the gateway in this home: the same at every start, another one in a copy of the home.

    Where nothing can be kept it is good for this process.
    """
    path = home / FILE_NAME
    try:
        if not path.exists():
            draft = home / f"{FILE_NAME}.{os.getpid()}"
            draft.touch(0o600)
            draft.write_text(f"{secrets.token_hex(16)}\n")
            with contextlib.suppress(FileExistsError):  # another process of the gateway was quicker
                path.hardlink_to(draft)
            draft.unlink()
        place = home.stat()
        kept = f"{path.read_text()} {place.st_dev} {place.st_ino}"
    except (OSError, ValueError):
        kept = secrets.token_hex(16)
    return 1 + int.from_bytes(hashlib.blake2b(kept.encode(), digest_size=8).digest()) % _LARGEST
