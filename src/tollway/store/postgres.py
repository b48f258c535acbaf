"""Connections to PostgreSQL: one set of habits for all of them, and the SQL that lies in files."""

import functools
from pathlib import Path
from typing import Any

import asyncpg

CONNECT_TIMEOUT_S = 5.0
COMMAND_TIMEOUT_S = 10.0
"""No statement of the running gateway takes a tenth of it; a connection into nowhere is given up after it."""

_QUERIES = Path(__file__).parent / "queries"


async def connect(url: str, application: str, *, command_timeout_s: float = COMMAND_TIMEOUT_S) -> asyncpg.Connection:
    """A connection; ``application`` is what an administrator sees in ``pg_stat_activity``."""
    return await asyncpg.connect(url, **_habits(application, command_timeout_s))


async def create_pool(url: str, application: str, *, max_size: int = 8) -> asyncpg.Pool:
    """A pool that opens its first connection now and the others when they are needed."""
    return await asyncpg.create_pool(
        url,
        min_size=1,
        max_size=max_size,
        max_inactive_connection_lifetime=60,
        **_habits(application, COMMAND_TIMEOUT_S),
    )


@functools.cache
def query(name: str) -> str:
    """The statement in ``queries/<name>.sql``."""
    return (_QUERIES / f"{name}.sql").read_text("utf-8")


def _habits(application: str, command_timeout_s: float) -> dict[str, Any]:
    return {
        "timeout": CONNECT_TIMEOUT_S,
        "command_timeout": command_timeout_s,
        # Our statements name the schema of everything. Whatever else a search_path holds must not get between.
        "server_settings": {"application_name": f"tollway {application}", "search_path": "pg_catalog"},
    }
