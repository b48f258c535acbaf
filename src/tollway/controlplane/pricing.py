"""Keeps the built-in prices of the configured models at hand in the database, where workers find them."""

import asyncio
import contextlib
import logging
import random

from tollway.accounting.builtin_prices import resolve_missing
from tollway.domain.keys import Secret
from tollway.store.configuration import CHANNEL
from tollway.store.outage import AWAY, Outage
from tollway.store.postgres import connect

_COALESCE_S = 0.1  # edits often come in bursts
_EVERY_S = 60.0  # without any edit: a listed price can have a first day
_PAUSE_S = 2.0

_log = logging.getLogger("tollway.pricing")


async def follow_prices(url: Secret) -> None:
    """Look up what has no price: at once, after every change of the configuration, once a minute. Runs for ever."""
    outage = Outage(_log, "built-in prices cannot be looked up", "built-in prices are looked up again")
    while True:
        try:
            await _follow(url, outage)
        except AWAY:  # the poster, in the same process, says so already
            pass
        except Exception as error:  # calls go on without a price, and postings with them
            outage.note(error)
        await asyncio.sleep(_PAUSE_S * random.uniform(0.5, 1.5))  # noqa: S311  # not all gateways at the same moment


async def _follow(url: Secret, outage: Outage) -> None:
    changed = asyncio.Event()
    connection = await connect(url.reveal(), "prices")
    try:
        await connection.add_listener(CHANNEL, lambda *_: changed.set())
        connection.add_termination_listener(lambda _: changed.set())  # or its end would go unnoticed for a minute
        while True:
            changed.clear()
            await resolve_missing(connection)
            outage.end()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), _EVERY_S)
            await asyncio.sleep(_COALESCE_S)
    finally:
        connection.terminate()
