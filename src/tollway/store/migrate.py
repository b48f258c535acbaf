"""Brings a database to the schema of this version: forward only, all or nothing, by one process at a time."""

import asyncio
import io
import logging
from pathlib import Path

import asyncpg

from tollway.store.outage import Outage
from tollway.store.postgres import query

_log = logging.getLogger("tollway.migrate")

_DIRECTORY = Path(__file__).parent / "migrations"
_ADVISORY_LOCK = 0x746F6C6C776179  # "tollway"
_LOCK_TIMEOUT_MS = 1000  # no statement queues behind a lock, with all others behind it, for longer
_STEP_TIMEOUT_S = 3600.0  # only against a server that has vanished; waiting for locks has its own limit
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0


def head() -> str:
    """The schema version of this code; by the names of files, because importing Alembic takes half a second."""
    return max(path.name for path in (_DIRECTORY / "versions").glob("[0-9]*.sql"))[:4]


async def migrate(connection: asyncpg.Connection) -> bool:
    """Run the steps that are missing; True if there were any.

    A schema newer than this code is left alone: one release back must keep working. Waits as long as another migrator
    or a long transaction is in the way, without holding up others.
    """
    pause_s = _FIRST_PAUSE_S
    waiting = Outage(_log, "the migration waits for a lock", "the migration has its locks")
    while True:
        if (await _version(connection) or "") >= head():
            await connection.execute(query("restamp"))
            return False
        try:
            done = await _upgrade(connection)
            waiting.end()
            return done
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError) as error:
            waiting.note(error)
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


async def _version(connection: asyncpg.Connection) -> str | None:
    try:
        version: str | None = await connection.fetchval("SELECT version_num FROM tollway.alembic_version")
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
        return None
    return version


async def _upgrade(connection: asyncpg.Connection) -> bool:
    async with connection.transaction():
        await connection.execute(f"SET LOCAL lock_timeout = {_LOCK_TIMEOUT_MS}")
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _ADVISORY_LOCK)
        version = await _version_in_transaction(connection)
        if (version or "") >= head():
            return False
        # Only where it is missing: asking for an existing schema needs the right to create one.
        if await connection.fetchval("SELECT to_regnamespace('tollway') IS NULL"):
            await connection.execute("CREATE SCHEMA tollway")
        await connection.execute(await asyncio.to_thread(_script, version), timeout=_STEP_TIMEOUT_S)
    _log.info("the database is at schema version %s (before: %s)", head(), version or "none")
    return True


async def _version_in_transaction(connection: asyncpg.Connection) -> str | None:
    if await connection.fetchval("SELECT to_regclass('tollway.alembic_version') IS NULL"):
        return None
    return await _version(connection)


def _script(version: str | None) -> str:
    """The missing steps as one SQL script, written by Alembic."""
    from alembic import command
    from alembic.config import Config

    logging.getLogger("alembic").setLevel(logging.WARNING)  # what happened, we say ourselves
    output = io.StringIO()
    config = Config(output_buffer=output)
    config.set_main_option("script_location", str(_DIRECTORY).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    command.upgrade(config, f"{version or 'base'}:head", sql=True)
    return output.getvalue()
