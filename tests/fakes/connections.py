"""Plain connections to PostgreSQL, as psql has them."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import asyncpg


@contextlib.asynccontextmanager
async def connected(url: str, **arguments: Any) -> AsyncIterator[asyncpg.Connection]:
    """A connection with the default search_path; ``arguments`` go before what the URI says."""
    connection = await asyncpg.connect(url, **arguments)
    try:
        yield connection
    finally:
        await connection.close()


def database_url(url: str, name: str) -> str:
    """The same server, another database."""
    return urlsplit(url)._replace(path=f"/{name}").geturl()
