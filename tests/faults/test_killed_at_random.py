"""kill -9 of any process at any moment under load: the books are equal afterwards.

Few moments here; ``TOLLWAY_KILLS=200`` and ``TOLLWAY_AWAY_S=60`` are for the long run before a release.
"""

import asyncio
import os
import random
from contextlib import suppress

import psutil
import pytest

from fakes.fixtures import StartGateway
from fakes.gateway import Gateway, new_tenant
from fakes.mixed_load import MixedLoad
from faults.test_database_away import pause, replaced_postmaster

_KILLS = int(os.environ.get("TOLLWAY_KILLS", "12"))
_AWAY_S = float(os.environ.get("TOLLWAY_AWAY_S", "3"))
_SEED = int(os.environ.get("TOLLWAY_SEED", "20270101"))


async def kill(gateway: Gateway, victim: str) -> None:
    """``kill -9`` of one process, or of all of them and PostgreSQL, which is a machine that loses its power."""
    if victim == "everything":
        gateway.kill_everything()
        await asyncio.to_thread(gateway.start)
    elif victim == "postgresql":
        if (postmaster := gateway.postmaster()) is not None:
            with suppress(psutil.NoSuchProcess):
                postmaster.kill()
    else:
        process = await asyncio.to_thread(gateway.child, victim)
        with suppress(psutil.NoSuchProcess):
            process.kill()


async def test_the_books_are_equal_after_kills_at_random_moments(start_gateway: StartGateway) -> None:
    gateway, moments = start_gateway(), random.Random(_SEED)
    tenant = await new_tenant(gateway)
    load = MixedLoad(tenant, _SEED)
    victims = ["tollway.dataplane"] * 6 + ["tollway.controlplane"] * 2 + ["postgresql", "everything"]
    async with load.running():
        for _ in range(_KILLS):
            await asyncio.sleep(moments.uniform(0.05, 1.5))
            await kill(gateway, moments.choice(victims))
        await asyncio.sleep(1)
    assert len(load.whole) > _KILLS, load.statuses
    outcomes = await load.assert_booked()
    assert outcomes["lost"] > 0, "kills under load hit running calls"


@pytest.mark.parametrize("way", ["stands still", "is killed"])
async def test_while_postgresql_is_away_no_call_fails_and_nothing_is_lost(
    start_gateway: StartGateway, way: str
) -> None:
    gateway = start_gateway()
    tenant = await new_tenant(gateway)
    load = MixedLoad(tenant, _SEED)
    async with load.running():
        await asyncio.sleep(0.5)
        if way == "stands still":
            stopped = pause(gateway)
            await asyncio.sleep(_AWAY_S)
            for process in stopped:
                with suppress(psutil.NoSuchProcess):
                    process.resume()
        else:
            for _ in range(max(2, min(10, _KILLS // 4))):
                postmaster = gateway.postmaster()
                assert postmaster is not None
                postmaster.kill()
                await replaced_postmaster(gateway, postmaster)
                await asyncio.sleep(0.3)
    assert not load.broken
    assert load.statuses.keys() <= {200, 502}, "only what the provider itself failed"
    outcomes = await load.assert_booked(within_s=20)
    assert not outcomes["lost"]
