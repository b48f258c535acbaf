"""The gateway's PostgreSQL, given or embedded: waited for, migrated and seeded before anybody uses it."""

import asyncio
import contextlib
import logging
import random
import secrets

import asyncpg

from tollway.accounting.builtin_prices import resolve_missing
from tollway.domain.keys import Secret
from tollway.home import Home, StartError
from tollway.settings import Settings
from tollway.store.embedded import EmbeddedPostgres
from tollway.store.installation import WrongEncryptionKeyError, check_encryption_key
from tollway.store.last_good import LastGoodFile, UnusableError
from tollway.store.migrate import migrate
from tollway.store.outage import AWAY, WRONG, Outage, in_one_line, may_pass, was_answered
from tollway.store.postgres import connect
from tollway.store.seed import seed
from tollway.store.server_errors import EmbeddedError
from tollway.store.vault import Vault

_PATIENCE_S = 2.0  # with a database that does not answer, before a start goes without it if it can
_NOTIFICATION_S = 5.0  # takes a millisecond
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 5.0  # also the longest delay between the database's return and a start that waited for it
_OPENINGS = 3  # starts of the embedded one, should it be killed before its schema is current

_UNICODE = ("UTF8", "SQL_ASCII")  # the latter takes any bytes as they are

_UNUSABLE = "PostgreSQL answers but cannot be used yet, it is waited for"

_log = logging.getLogger("tollway.database")


class GivenDatabase:
    """The user's own server."""

    def __init__(self, url: Secret, settings: Settings, key: Secret) -> None:
        self._url = url
        self._settings = settings
        self._key = key
        self._answers = asyncio.Event()
        self._preparing: asyncio.Task[None] | None = None

    async def open(self) -> Secret:
        """Wait until it answers, bring its schema up to date; its URL. Raises StartError where waiting is no use.

        Where it does not answer and an earlier start has left a good configuration, calls can be served by that: then
        the rest is done meanwhile, and :meth:`settle` waits for it.
        """
        self._preparing = asyncio.create_task(self._prepare())
        answers = asyncio.ensure_future(self._answers.wait())
        await asyncio.wait({self._preparing, answers}, timeout=_PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        away = not (answers.done() or self._preparing.done())
        answers.cancel()
        if not (away and await self._can_be_done_without()):
            await self._preparing
        return self._url

    async def settle(self) -> None:
        """Return when the schema is current. Raises StartError."""
        assert self._preparing is not None
        await self._preparing

    async def keep(self) -> None:
        """It is not ours to keep."""
        await asyncio.Event().wait()

    async def close(self) -> None:
        """It is not ours to stop."""
        if self._preparing is not None:
            self._preparing.cancel()
            await asyncio.gather(self._preparing, return_exceptions=True)

    async def _prepare(self) -> None:
        pause_s = _FIRST_PAUSE_S
        outage = Outage(_log, "PostgreSQL does not answer, it is waited for", "PostgreSQL answers")
        while True:
            try:
                connection = await connect(self._url.reveal(), "start")
                self._answers.set()
                try:
                    await require_sessions(connection, self._url)
                except BaseException:
                    connection.terminate()
                    raise
                await prepare_on(connection, self._settings, self._key)
            except (*AWAY, *WRONG) as error:
                if not may_pass(error):
                    raise StartError("DATABASE_URL", f"cannot be used: {in_one_line(error)}") from None
                outage.note(error, _UNUSABLE if was_answered(error) else "")
            else:
                outage.end()
                return
            await asyncio.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311  # not all gateways at the same moment
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _can_be_done_without(self) -> bool:
        file = LastGoodFile(self._settings.home, Vault.of(self._key, self._settings.iv), self._url)
        try:
            return await asyncio.to_thread(file.load) is not None
        except UnusableError as error:
            _log.warning("the last good configuration is not used: %s", error)
            return False


class EmbeddedDatabase:
    """The one under TOLLWAY_HOME; whoever opens it holds the lock on the home."""

    def __init__(self, home: Home, settings: Settings, key: Secret) -> None:
        self._server = EmbeddedPostgres(home.path)
        self._settings = settings
        self._key = key

    async def open(self) -> Secret:
        """Start it, bring its schema up to date; its URL. Raises StartError."""
        for opening in range(1, _OPENINGS + 1):
            try:
                url = Secret(await self._server.start())
                await prepare(url, self._settings, self._key)
                return url
            except EmbeddedError as error:
                raise StartError("TOLLWAY_HOME", in_one_line(error)) from None
            except (*AWAY, *WRONG) as error:
                # Killed by whoever, it comes back, and what was not committed is done again. On a disk that is full it
                # may have panicked: its log knows why, and the driver only that the connection is gone.
                if not isinstance(error, AWAY) or opening == _OPENINGS:
                    reason = self._server.last_words() or in_one_line(error)
                    raise StartError("TOLLWAY_HOME", f"the embedded PostgreSQL cannot be used: {reason}") from None
        raise AssertionError("unreachable")

    async def settle(self) -> None:
        """It is settled when it is open."""

    async def keep(self) -> None:
        """Start it again whenever it dies, at the same address, until cancelled."""
        while True:
            await self._server.lost()
            _log.error("the embedded PostgreSQL died and is started again")
            await self._revive()
            _log.info("the embedded PostgreSQL runs again")

    async def _revive(self) -> None:
        said = ""
        while True:
            try:
                await self._server.start()
                return
            except EmbeddedError as error:
                reason = in_one_line(error)
            if reason != said:
                _log.error("%s", reason)
                said = reason
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


async def require_sessions(connection: asyncpg.Connection, url: Secret) -> None:
    """Raise StartError where a pooler stands between that gives every transaction another session of the server.

    What works through it cannot be told by a name or a number, so it is tried: what another session says has to arrive.
    """
    channel, heard = f"tollway_start_{secrets.token_hex(8)}", asyncio.Event()

    def hear(*_: object) -> None:
        heard.set()

    try:
        await connection.add_listener(channel, hear)
        other = await connect(url.reveal(), "start")
        try:
            await other.execute(f"NOTIFY {channel}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(heard.wait(), _NOTIFICATION_S)
        finally:
            other.terminate()
        if heard.is_set():
            await connection.remove_listener(channel, hear)
            return
    except (asyncpg.DuplicatePreparedStatementError, asyncpg.InvalidSQLStatementNameError):
        pass  # somebody else's, in the session that we were given now
    raise StartError(
        "DATABASE_URL",
        "leads through a pooler that gives every transaction another session, as PgBouncer's transaction mode does: "
        "notifications do not arrive through it; use its session mode, or the server itself",
    )


async def require_unicode(connection: asyncpg.Connection) -> None:
    """Raise StartError for a database that cannot spell what providers say: its entries would be refused."""
    encoding: str = await connection.fetchval("SELECT current_setting('server_encoding')")
    if encoding not in _UNICODE:
        raise StartError(
            "DATABASE_URL",
            f"names a database whose encoding is {encoding}, which not every text can be written in; "
            "create one with ENCODING 'UTF8'",
        )


async def prepare(url: Secret, settings: Settings, key: Secret) -> None:
    """Migrate, check the encryption key, seed. Raises StartError, and what asyncpg raises."""
    await prepare_on(await connect(url.reveal(), "start"), settings, key)


async def prepare_on(connection: asyncpg.Connection, settings: Settings, key: Secret) -> None:
    """As :func:`prepare`, on a connection, which is closed afterwards."""
    try:
        await require_unicode(connection)
        await migrate(connection)
        await check_encryption_key(connection, Vault.of(key, settings.iv))
        await seed(connection)
        await resolve_missing(connection)  # or the first calls would find no price
        for provider, base_url in settings.base_urls.items():
            try:
                await seed(connection, {provider: base_url})
            except ValueError as error:
                raise StartError(f"{provider.upper()}_BASE_URL", in_one_line(error)) from None
    except WrongEncryptionKeyError as error:
        raise StartError("ENCRYPTION_KEY", str(error)) from None
    finally:
        await connection.close()
