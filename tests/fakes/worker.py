"""One worker inside the test's own process and loop: the real data plane, but for PostgreSQL and the control plane.

For what can only be seen from within: what is left in memory, which tasks run. Everything else has a whole gateway.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from fakes.client import Client
from fakes.upstream import PATIENCE_S
from tollway.accounting.journal import Journal
from tollway.accounting.journal_reader import read_records
from tollway.accounting.records import Settlement
from tollway.admission.authenticate import KeyHasher
from tollway.dataplane import machine, worker
from tollway.dataplane.routes import Router
from tollway.dataplane.world import World
from tollway.domain.keys import Secret, new_virtual_key
from tollway.http1 import client as http1_client
from tollway.http1.budget import Budget
from tollway.http1.limits import ServerLimits
from tollway.http1.server import Server
from tollway.routing.snapshot import KeyRow, ModelRow, ProviderRow, Rows, Snapshot, compile_snapshot, grants
from tollway.settings import ChildConfig, parse
from tollway.store.vault import Vault

MODEL = "a-model"


class _Configuration:
    """What a worker asks of the configuration, with one answer for ever."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.fresh = True
        self.age_s = 0.0

    async def reached(self, revision: int, within_s: float) -> None:
        pass


class _LogWriter:
    dropped = 0


@dataclass
class Worker:
    """What runs, a key without limits, and how to talk to it."""

    world: World
    key: str
    client: Client
    journals: Path

    async def settlements(self, number: int) -> list[Settlement]:
        """What the books have, when it is so much."""
        found: list[Settlement] = []

        def are_there() -> bool:
            chunks = [read_records(path, 0, abandoned=False) for path in sorted(self.journals.iterdir())]
            found[:] = [record for chunk in chunks for record in chunk.records if isinstance(record, Settlement)]
            return len(found) >= number

        await until(are_there)
        assert len(found) == number
        return found


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that happens in this process."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.001)


@asynccontextmanager
async def running_worker(
    folder: Path,
    provider_url: str,
    row: Mapping[str, object] | None = None,
    *,
    requests_per_minute: int | None = None,
    **environment: str,
) -> AsyncIterator[Worker]:
    """Serve until the end of the block; :data:`MODEL` is served by ``openai`` at this address.

    ``row``: columns of the model's row that are not as usual.
    """
    settings = parse({"TOLLWAY_HOME": str(folder), "OPENAI_API_KEY": "sk-openai", **environment})
    assert not isinstance(settings, list), settings
    config = ChildConfig(
        settings=settings,
        database_url=Secret("postgresql://nobody/"),
        encryption_key=Secret("0" * 64),
        control_socket=folder / "control",
        journals=folder / "journals",
    )
    (folder / "journals").mkdir(exist_ok=True)
    key = new_virtual_key()
    hashed = KeyHasher(Vault.of(config.encryption_key, None).pepper)(key.encode())
    model = ModelRow(MODEL, "openai", None, (), Decimal(1), Decimal(2), None, None, None, None)
    keys = dict(grants(KeyRow("key_1", hashed, None, None, requests_per_minute, None, None, None, False), {}))
    rows = Rows((ProviderRow("openai", "openai", provider_url, None),), (model._replace(**row or {}),))
    snapshot, problems, _ = compile_snapshot(1, keys, rows)
    assert not problems
    room = machine.connections(machine.files(), ServerLimits())
    budget = Budget(machine.buffered_bytes(settings, machine.memory()))
    client = http1_client.Client(worker.client_limits(settings, room), budget=budget)
    configuration: Any = _Configuration(snapshot)
    writer: Any = _LogWriter()
    journal = Journal(config.journals, 0.0)
    world = worker.build(config, configuration, journal, client, writer)
    router = Router(world)
    limits = worker.server_limits(settings, room)
    world.server = Server(router.serve, limits, router.render_error, router.report_crash, budget=budget)
    listening = socket.create_server(("127.0.0.1", 0))
    await world.server.start(listening)
    try:
        yield Worker(world, key, Client(world.server.port), config.journals)
    finally:
        await world.server.drain(0)
        client.close()
        journal.close()
        await asyncio.sleep(0)
