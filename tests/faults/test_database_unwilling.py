"""PostgreSQL answers, and not what is needed: no connection left, a full disk, a server that became a standby."""

import asyncio
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import pytest

from fakes.connections import connected
from fakes.fixtures import StartGateway
from fakes.gateway import Gateway, new_tenant
from fakes.given_server import GivenServer
from fakes.plain_server import PlainServer, older_binaries
from fakes.upstream import openai_reply
from tollway.store.configuration import Configuration
from tollway.store.migrate import migrate
from tollway.store.neighbours import Neighbours
from tollway.store.seed import seed

ENCRYPTION_KEY = "ab" * 32
THROW_OUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ^@ 'tollway '"
UNKNOWN = "sk-tw-" + "0" * 49


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GivenServer]:
    with GivenServer(tmp_path / "given", {"max_connections": "25"}) as running:
        yield running


def told(gateway: Gateway, process: str, text: str) -> list[str]:
    lines = [json.loads(line) for line in gateway.stderr.splitlines()]
    assert not [line for line in lines if "traceback" in line]
    return [line["message"] for line in lines if line["process"] == process and text in line["message"]]


async def becomes_told(gateway: Gateway, process: str, text: str) -> None:
    for _ in range(1500):
        if told(gateway, process, text):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{process} never said {text!r}")


async def take_all(stack: AsyncExitStack, url: str) -> None:
    """Throw the gateway out and take every connection that there is."""
    held = await stack.enter_async_context(connected(url))
    while True:
        await held.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ^@ 'tollway '"
        )
        try:
            while True:
                await stack.enter_async_context(connected(url))
        except asyncpg.TooManyConnectionsError:
            if not await held.fetchval("SELECT count(*) FROM pg_stat_activity WHERE application_name ^@ 'tollway '"):
                return


async def test_b5_without_a_connection_left_calls_go_on_and_nobody_storms(
    start_gateway: StartGateway, server: GivenServer
) -> None:
    gateway = start_gateway(DATABASE_URL=server.url(), ENCRYPTION_KEY=ENCRYPTION_KEY)
    tenant = await new_tenant(gateway)
    tenant.openai.answers(openai_reply())
    await gateway.configuration_is_live()
    async with AsyncExitStack() as stack:
        await take_all(stack, server.direct_url)
        assert (await tenant.chat()).status == 200
        assert (await gateway.client.get("/readyz")).json["status"] == "degraded"
        assert (await gateway.client.chat(UNKNOWN, tenant.model)).refusal == (503, "keys_unavailable")
        assert (await gateway.client.post("/api/generate-virtual-key")).refusal == (503, "database_unavailable")
        began = time.monotonic()
        await asyncio.to_thread(server.wait_for_attempts, 10)
        assert time.monotonic() - began > 2.0, "attempts come ever more slowly"
        before = server.attempts
    assert len(await tenant.ledger(1)) == 1
    await gateway.new_key()
    assert server.attempts - before <= 10, "each comes back with the few connections that it needs"
    assert len(told(gateway, "worker-0", "cannot be read")) == 1
    assert (
        told(gateway, "control-plane", "settlements wait")[0].split(", ")[1].startswith("PostgreSQL has no connection")
    )
    assert len(told(gateway, "control-plane", "settlements wait")) == 1


async def test_b15_a_server_that_became_read_only_is_read_and_said_to_be_so(
    start_gateway: StartGateway, server: GivenServer
) -> None:
    gateway = start_gateway(DATABASE_URL=server.url(), ENCRYPTION_KEY=ENCRYPTION_KEY)
    tenant, revoked = await new_tenant(gateway), await new_tenant(gateway)
    for one in (tenant, revoked):
        one.openai.answers(openai_reply())
    async with connected(server.direct_url) as psql:
        await psql.execute("ALTER DATABASE tollway SET default_transaction_read_only = on")
        await psql.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ^@ 'tollway '"
        )
        assert (await tenant.chat()).status == 200
        await becomes_told(gateway, "control-plane", "settlements wait")
        assert (await gateway.client.post("/api/generate-virtual-key")).refusal == (503, "database_unavailable")
        # Reads go on: what is written elsewhere, and replicated to here, is in force.
        await psql.execute("SET default_transaction_read_only = off")
        await psql.execute("UPDATE tollway.virtual_keys SET revoked_at = now() WHERE id = $1", revoked.key_id)
        for _ in range(500):
            if (await revoked.chat()).status == 401:
                break
            await asyncio.sleep(0.01)
        assert (await revoked.chat()).status == 401
        assert (await gateway.client.chat(UNKNOWN, tenant.model)).status == 401
        assert (await gateway.client.get("/readyz")).json["status"] == "ok"
        await psql.execute("ALTER DATABASE tollway RESET default_transaction_read_only")
    assert len(await tenant.ledger(1)) == 1
    await gateway.new_key()
    (line,) = told(gateway, "control-plane", "settlements wait")
    assert "PostgreSQL takes no writes (is it a standby now?)" in line
    assert len(told(gateway, "control-plane", "posted again")) == 1


@pytest.fixture
def plain_server() -> Iterator[PlainServer]:
    with tempfile.TemporaryDirectory(prefix="tollway-test-") as folder:  # which nobody, the user, can enter
        server = PlainServer(older_binaries(), Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()


async def test_b15_the_configuration_of_a_standby_is_followed(plain_server: PlainServer) -> None:
    async with connected(plain_server.url) as psql:
        await migrate(psql)
        await seed(psql)
    plain_server.stop()
    (plain_server.data / "standby.signal").touch()
    plain_server.start()
    configuration = Configuration(plain_server.url, neighbours=Neighbours(1))
    await asyncio.wait_for(configuration.start(), 10)
    try:
        async with connected(plain_server.url) as psql:
            assert await psql.fetchval("SELECT pg_is_in_recovery()")
            assert configuration.fresh
            assert "gpt-4o" in configuration.snapshot.routes
            assert await psql.fetchval("SELECT pg_promote()")
            await psql.execute("""INSERT INTO "LLMModels" (name, provider) VALUES ('new', 'openai')""")
        async with asyncio.timeout(10):
            while "new" not in configuration.snapshot.routes:
                await asyncio.sleep(0.01)
    finally:
        await configuration.close()


async def test_b15_a_server_with_a_full_disk_is_read_and_said_to_be_so(
    start_gateway: StartGateway, server: GivenServer
) -> None:
    gateway = start_gateway(DATABASE_URL=server.url(), ENCRYPTION_KEY=ENCRYPTION_KEY)
    tenant = await new_tenant(gateway)
    tenant.openai.answers(openai_reply())
    async with connected(server.direct_url) as psql:
        await psql.execute("""
            CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$;
            CREATE TRIGGER full_disk BEFORE INSERT ON tollway.ledger EXECUTE FUNCTION full_disk();
        """)
        for _ in range(3):
            assert (await tenant.chat()).status == 200
        await becomes_told(gateway, "control-plane", "settlements wait")
        await psql.execute('UPDATE "Users" SET "requestsPerMinute" = 0 WHERE id = $1', tenant.key_id)
        await gateway.configuration_is_live()
        assert (await tenant.chat()).status == 429
        await psql.execute("DROP TRIGGER full_disk ON tollway.ledger")
    assert len(await tenant.ledger(3)) == 3
    (line,) = told(gateway, "control-plane", "settlements wait")
    assert "PostgreSQL's disk is full" in line
