"""How a command reaches the gateway's database, whether the gateway runs or not."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg

from tollway.admission.authenticate import KeyHasher
from tollway.cli.words import CommandError
from tollway.database import EmbeddedDatabase
from tollway.domain.keys import PREFIX, KeyId, Secret
from tollway.home import Home, HomeInUseError, StartError
from tollway.settings import Settings, parse
from tollway.store import keys
from tollway.store.embedded import running_url
from tollway.store.postgres import connect
from tollway.store.vault import Vault

_STARTING_S = 15.0  # how long a gateway that holds the home may take until its database answers
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Session:
    """A connection, and what it takes to understand what lies behind it."""

    connection: asyncpg.Connection
    settings: Settings

    @property
    def hasher(self) -> KeyHasher:
        """The keyed hash of virtual keys. Raises StartError where the encryption key is not known."""
        return KeyHasher(Vault.of(encryption_key(self.settings), self.settings.iv).pepper)

    async def key_id(self, key: str) -> KeyId:
        """The id of a key given by its id or by its secret. Raises CommandError for one that is not known."""
        if not key.startswith(PREFIX):
            return KeyId(key)
        found = await keys.find(self.connection, self.hasher, key)
        if found is None:
            raise CommandError("no valid key has this secret")
        return found

    async def used_key(self, key: str) -> KeyId:
        """The same for a key that there is, or that has used something. Raises CommandError for any other."""
        key_id = await self.key_id(key)
        if not await keys.was_used(self.connection, key_id):
            raise CommandError(f"there is no key {key!r}, and none has used anything; see: tollway keys list")
        return key_id


def settings_of_commands() -> Settings:
    """The settings as far as commands need them. Raises StartError."""
    settings = parse(os.environ)
    if isinstance(settings, Settings):
        return settings
    variable, _, reason = settings[0].partition(": ")
    raise StartError(variable, reason)


def encryption_key(settings: Settings) -> Secret:
    """The configured or generated encryption key. Raises StartError."""
    if settings.encryption_key is not None:
        return settings.encryption_key
    if settings.database_url is not None:
        raise StartError("ENCRYPTION_KEY", "must be set together with DATABASE_URL")
    return Home(settings.home).encryption_key()


@asynccontextmanager
async def session() -> AsyncIterator[Session]:
    """A connection for one command."""
    settings = settings_of_commands()
    async with database_url(settings) as url:
        try:
            connection = await connect(url.reveal(), "command")
        except ValueError as error:
            raise StartError("DATABASE_URL", f"cannot be used: {error}") from None
        try:
            yield Session(connection, settings)
        except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
            raise CommandError("the database has no schema of this version yet; run: tollway db migrate") from None
        finally:
            await connection.close()


@asynccontextmanager
async def database_url(settings: Settings, create: bool = False) -> AsyncIterator[Secret]:
    """The URL of the database that the settings mean, running.

    Where the embedded one does not run because no gateway does, it is started for the duration; ``create`` makes it
    where it does not exist. Raises CommandError, StartError.
    """
    if settings.database_url is not None:
        yield settings.database_url
        return
    url = running_url(settings.home)
    if url is not None:
        yield Secret(url)
        return
    if not create and not (settings.home / "postgres").exists():
        raise CommandError(
            f"there is no gateway under {settings.home}; start one with: tollway serve, "
            "or say where it is by TOLLWAY_HOME or DATABASE_URL"
        )
    home = Home(settings.home)
    try:
        with home.locked():
            embedded = EmbeddedDatabase(home, settings, settings.encryption_key or home.encryption_key())
            try:
                yield await embedded.open()
            finally:
                await embedded.close()
    except HomeInUseError:
        yield await _starting_url(settings)


async def _starting_url(settings: Settings) -> Secret:
    """The URL of a database that a gateway is just starting."""
    for _ in range(int(_STARTING_S / _POLL_S)):
        url = running_url(settings.home)
        if url is not None:
            return Secret(url)
        await asyncio.sleep(_POLL_S)
    raise CommandError(f"the gateway under {settings.home} runs, but its database does not answer")
