"""Mixed load for a while: memory, descriptors and journals stay flat, and the books are equal.

Half a minute here; ``TOLLWAY_SOAK_S=1200`` is for the long run before a release, which prints what it saw (``-s``).
"""

import asyncio
import os
import time
from pathlib import Path
from typing import NamedTuple

import psutil

from fakes.fixtures import StartGateway
from fakes.gateway import Gateway, new_tenant
from fakes.mixed_load import MixedLoad

_SECONDS = float(os.environ.get("TOLLWAY_SOAK_S", "20"))
_SAMPLES = 10
_WARM_UP = 0.3
"""Of the time: pools fill, allocators take what they need."""

_GROWTH_BYTES = 24 * 1024 * 1024
"""Of a process after it is warm; allocators keep pieces."""


class Sample(NamedTuple):
    """What a process holds."""

    resident: int
    descriptors: int


def sample(gateway: Gateway) -> dict[str, Sample]:
    """Of each of our processes, by name."""
    children = {
        module: psutil.Process(gateway.child(module).pid) for module in ("tollway.dataplane", "tollway.controlplane")
    }
    processes = {"supervisor": psutil.Process(gateway.process.pid), **children}
    return {name: Sample(one.memory_info().rss, one.num_fds()) for name, one in processes.items()}


def journal_bytes(home: Path) -> int:
    return sum(path.stat().st_size for path in (home / "journals").glob("*.journal"))


async def test_nothing_grows_under_mixed_load(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    tenant = await new_tenant(gateway)
    load = MixedLoad(tenant, seed=1, clients=8, pace_s=0.05)
    samples: list[dict[str, Sample]] = []
    async with load.running():
        await asyncio.sleep(_SECONDS * _WARM_UP)
        for _ in range(_SAMPLES):
            await asyncio.sleep(_SECONDS * (1 - _WARM_UP) / _SAMPLES)
            samples.append(sample(gateway))
            print(
                f"{time.strftime('%H:%M:%S')} {load.seen.total()} calls, {samples[-1]}, {journal_bytes(gateway.home)} B"
            )
    assert not load.broken
    outcomes = await load.assert_booked()
    assert not outcomes["lost"]
    print(f"{load.seen.total()} attempts: {dict(outcomes)}")
    half = len(samples) // 2
    for name in samples[0]:
        early, late = samples[:half], samples[half:]
        grown = min(one[name].resident for one in late) - max(one[name].resident for one in early)
        assert grown < _GROWTH_BYTES, f"{name} grew by {grown} bytes"
        opened = min(one[name].descriptors for one in late) - max(one[name].descriptors for one in early)
        assert opened <= 0, f"{name} holds {opened} descriptors more"
