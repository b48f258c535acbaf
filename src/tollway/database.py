"""The gateway's PostgreSQL, given or embedded: waited for, migrated and seeded before anybody uses it."""

import asyncio
import logging

from tollway.domain.keys import Secret
from tollway.home import Home, StartError
from tollway.settings import Settings
from tollway.store.embedded import EmbeddedError, EmbeddedPostgres
from tollway.store.installation import WrongEncryptionKeyError, check_encryption_key
from tollway.store.migrate import migrate
from tollway.store.outage import AWAY, WRONG, Outage, in_one_line, may_pass
from tollway.store.postgres import connect
from tollway.store.seed import seed
from tollway.store.vault import Vault

_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 5.0  # also the longest delay between the database's return and a start that waited for it

_log = logging.getLogger("tollway.database")


class GivenDatabase:
    """The user's own server."""

    def __init__(self, url: Secret, settings: Settings, key: Secret) -> None:
        self._url = url
        self._settings = settings
        self._key = key

    async def open(self) -> Secret:
        """Wait until it answers, bring its schema up to date; its URL. Raises StartError where waiting is no use."""
        pause_s = _FIRST_PAUSE_S
        outage = Outage(_log, "PostgreSQL does not answer, it is waited for", "PostgreSQL answers")
        while True:
            try:
                await prepare(self._url, self._settings, self._key)
            except (*AWAY, *WRONG) as error:
                if not may_pass(error):
                    raise StartError("DATABASE_URL", f"cannot be used: {in_one_line(error)}") from None
                outage.note(error)
            else:
                outage.end()
                return self._url
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def keep(self) -> None:
        """It is not ours to keep."""
        await asyncio.Event().wait()

    async def close(self) -> None:
        """It is not ours to stop."""


class EmbeddedDatabase:
    """The one under TOLLWAY_HOME; whoever opens it holds the lock on the home."""

    def __init__(self, home: Home, settings: Settings, key: Secret) -> None:
        self._server = EmbeddedPostgres(home.path)
        self._settings = settings
        self._key = key

    async def open(self) -> Secret:
        """Start it, bring its schema up to date; its URL. Raises StartError."""
        try:
            url = Secret(await self._server.start())
        except EmbeddedError as error:
            raise StartError("TOLLWAY_HOME", in_one_line(error)) from None
        await prepare(url, self._settings, self._key)
        return url

    async def keep(self) -> None:
        """Start it again whenever it dies, on the same port, until cancelled."""
        while True:
            await self._server.died()
            _log.error("the embedded PostgreSQL died and is started again")
            try:
                await self._server.start()
            except EmbeddedError as error:
                _log.error("%s", in_one_line(error))
                await asyncio.sleep(_LONGEST_PAUSE_S)

    async def close(self) -> None:
        """Stop it."""
        await self._server.stop()


def database_of(settings: Settings, home: Home) -> GivenDatabase | EmbeddedDatabase:
    """The database that the settings ask for."""
    if settings.database_url is None:
        return EmbeddedDatabase(home, settings, settings.encryption_key or home.encryption_key())
    assert settings.encryption_key is not None  # settings.read() sees to it
    return GivenDatabase(settings.database_url, settings, settings.encryption_key)


async def prepare(url: Secret, settings: Settings, key: Secret) -> None:
    """Migrate, check the encryption key, seed. Raises StartError, and what asyncpg raises."""
    connection = await connect(url.reveal(), "start")
    try:
        await migrate(connection)
        await check_encryption_key(connection, Vault.of(key, settings.iv))
        await seed(connection)
        for provider, base_url in settings.base_urls.items():
            try:
                await seed(connection, {provider: base_url})
            except ValueError as error:
                raise StartError(f"{provider.upper()}_BASE_URL", in_one_line(error)) from None
    except WrongEncryptionKeyError as error:
        raise StartError("ENCRYPTION_KEY", str(error)) from None
    finally:
        await connection.close()
