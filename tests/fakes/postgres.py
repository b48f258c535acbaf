"""A real PostgreSQL for tests: one cluster for the whole run, a database of its own for every test that asks.

``postgres_url`` is migrated, seeded, priced, ``empty_postgres_url`` is bare. The root conftest loads it for all tests.
"""

import asyncio
import contextlib
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.connections import connected, database_url
from fakes.plain_server import CHOSEN, FAST, running
from tollway.accounting.builtin_prices import resolve_missing
from tollway.store.embedded import EmbeddedPostgres
from tollway.store.migrate import migrate
from tollway.store.seed import seed

_TEMPLATE = "template_tollway"
_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[str]:
    """The URI of a database in a cluster that this run starts and stops; its role is a superuser."""
    with (
        tempfile.TemporaryDirectory(prefix="tollway-test-") as folder,
        running(Path(CHOSEN), Path(folder)) if CHOSEN else _embedded(Path(folder)) as url,
    ):
        asyncio.run(_execute(url, f"CREATE DATABASE {_TEMPLATE} TEMPLATE template0"))
        asyncio.run(_prepare(database_url(url, _TEMPLATE)))
        yield url


@contextlib.contextmanager
def _embedded(home: Path) -> Iterator[str]:
    server = EmbeddedPostgres(home, FAST)
    url = asyncio.run(server.start())
    try:
        yield url
    finally:
        asyncio.run(server.stop())


@pytest.fixture
def postgres_url(postgres_cluster: str) -> Iterator[str]:
    """The URI of a fresh database, migrated and seeded."""
    yield from _database(postgres_cluster, _TEMPLATE)


@pytest.fixture
def empty_postgres_url(postgres_cluster: str) -> Iterator[str]:
    """The URI of a fresh database with nothing in it."""
    yield from _database(postgres_cluster, "template0")


def _database(cluster: str, template: str) -> Iterator[str]:
    name = f"test_{os.getpid()}_{next(_numbers)}"
    asyncio.run(_execute(cluster, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy"))
    yield database_url(cluster, name)
    asyncio.run(_execute(cluster, f"DROP DATABASE {name} WITH (FORCE)"))


async def _execute(url: str, statement: str) -> None:
    async with connected(url) as connection:
        await connection.execute(statement)


async def _prepare(url: str) -> None:
    async with connected(url) as connection:
        await migrate(connection)
        await seed(connection)
        await resolve_missing(connection)
