"""Looks after the ledger's months once an hour: makes the one that comes, forgets those that need not be kept."""

import asyncio
import logging

import asyncpg

from tollway.store import ledger
from tollway.store.outage import AWAY, Outage

EVERY_S = 3600.0

_AGAIN_S = 300.0

_log = logging.getLogger("tollway.retention")


class Retention:
    """``days``: how long entries are kept; None: for ever."""

    def __init__(self, pool: asyncpg.Pool, days: int | None) -> None:
        self._pool = pool
        self._days = days
        self._outage = Outage(_log, "the ledger's months wait", "the ledger's months are looked after again")

    async def run(self) -> None:
        """Look after them until cancelled."""
        while True:
            pause_s = _AGAIN_S
            try:
                await self.turn()
                self._outage.end()
                pause_s = EVERY_S
            except AWAY:  # the poster, in the same process, says so already
                pass
            except Exception as error:  # whatever it is, entries are posted all the same
                self._outage.note(error)
            await asyncio.sleep(pause_s)

    async def turn(self) -> None:
        """Do what is to be done now. Raises what asyncpg raises: the next turn does it."""
        async with self._pool.acquire() as connection:
            await ledger.make_months(connection)
            if self._days is None:
                return
            before = await ledger.days_ago(connection, self._days)
            count = await ledger.prune(connection, before)
        if count:
            _log.info("%d entries of the ledger from before %s are forgotten, their sums stay", count, before.date())
