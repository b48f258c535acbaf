"""PostgreSQL is away, and a process starts: it serves by the last good configuration, which lies on disk."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from fakes.client import Client, Reply
from fakes.fixtures import StartGateway
from fakes.gateway import Gateway, Tenant, new_tenant, patiently
from fakes.given_server import GivenServer
from fakes.upstream import openai_reply
from tollway.admission.authenticate import KeyHasher
from tollway.domain.keys import Secret
from tollway.store.last_good import FILE_NAME, LastGoodFile
from tollway.store.vault import Vault

ENCRYPTION_KEY = "ab" * 32
VAULT = Vault(bytes.fromhex(ENCRYPTION_KEY))
UNKNOWN = "sk-tw-" + "0" * 49


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GivenServer]:
    with GivenServer(tmp_path / "given") as running:
        yield running


async def written_down(gateway: Gateway, server: GivenServer, tenant: Tenant) -> None:
    """Wait until the file knows the tenant with its model and its provider key."""
    file = LastGoodFile(gateway.home, VAULT, Secret(server.url()))
    digest = KeyHasher(VAULT.pepper)(tenant.key.encode())
    for _ in patiently("the configuration on disk"):
        last = file.load()
        if last is None or tenant.model not in {row.name for row in last.rows.models}:
            continue
        if (grant := last.keys.get(digest)) is not None and "openai" in grant.secrets:
            return


async def becomes(status: int, ask: Callable[[], Awaitable[Reply]]) -> None:
    for _ in range(1500):
        if (await ask()).status == status:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"never {status}")


async def test_b1_a_data_plane_that_starts_meanwhile_serves_known_keys(
    start_gateway: StartGateway, server: GivenServer
) -> None:
    gateway = start_gateway(DATABASE_URL=server.url(), ENCRYPTION_KEY=ENCRYPTION_KEY)
    tenant, revoked = await new_tenant(gateway), await new_tenant(gateway)
    for one in (tenant, revoked):
        one.openai.answers(openai_reply())
    await written_down(gateway, server, revoked)
    await written_down(gateway, server, tenant)
    content = (gateway.home / FILE_NAME).read_bytes()
    for secret in (tenant.key, tenant.openai.secret, ENCRYPTION_KEY, bytes.fromhex(ENCRYPTION_KEY)):
        assert (secret if isinstance(secret, bytes) else secret.encode()) not in content
    server.stop()
    old = gateway.child("tollway.dataplane")
    old.kill()
    old.wait()
    before = len(gateway.stderr.splitlines())
    for _ in patiently("the data plane is back"):
        try:
            ready = await gateway.client.get("/readyz")
            break
        except OSError:
            continue
    assert (ready.status, ready.json["status"]) == (200, "degraded")
    assert (await tenant.chat()).status == 200
    assert (await revoked.chat()).status == 200
    unknown = await gateway.client.chat(UNKNOWN, tenant.model)
    assert unknown.refusal == (503, "keys_unavailable")
    told = [json.loads(line) for line in gateway.stderr.splitlines()]
    (line,) = [line for line in told if "calls are served by the configuration of" in line["message"]]
    assert line["level"] == "warning" and line["keys"] >= 2
    away = [
        line for line in told[before:] if line["process"] == "worker-0" and line["logger"] == "tollway.configuration"
    ]
    assert away == [line], "the same outage is said once"
    server.start()
    await gateway.sql("UPDATE tollway.virtual_keys SET revoked_at = now() WHERE id = $1", revoked.key_id)
    await becomes(401, revoked.chat)
    await becomes(401, lambda: gateway.client.chat(UNKNOWN, tenant.model))
    assert (await gateway.client.get("/readyz")).json["status"] == "ok"
    assert (await tenant.chat()).status == 200
    assert len(await tenant.ledger(2)) == 2


async def test_b2_a_gateway_that_starts_meanwhile_serves_known_keys(
    gateway_factory: Callable[[dict[str, str]], Gateway], server: GivenServer
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {"DATABASE_URL": server.url(), "ENCRYPTION_KEY": ENCRYPTION_KEY, "PORT": str(port)}
    gateway = gateway_factory(settings)
    try:
        gateway.start()
        tenant = await new_tenant(gateway)
        tenant.openai.answers(openai_reply())
        await written_down(gateway, server, tenant)
        gateway.stop()
        server.stop()
        starting = asyncio.ensure_future(asyncio.to_thread(gateway.start))
        client = Client(port)
        for _ in range(2000):
            try:
                ready = await client.get("/readyz")
                break
            except OSError:
                await asyncio.sleep(0.01)
        assert ready.json["status"] == "degraded"
        assert (await client.chat(tenant.key, tenant.model)).status == 200
        assert (await client.chat(UNKNOWN, tenant.model)).refusal == (503, "keys_unavailable")
        assert (await client.post("/api/generate-virtual-key")).refusal == (503, "database_unavailable")
        assert (await client.get("/metrics")).status == 200
        assert not starting.done(), "it says that it is connected when it is"
        assert gateway.stdout == []
        server.start()
        await starting
        assert len(await tenant.ledger(1)) == 1
        await gateway.new_key()
        gateway.stop()
    finally:
        gateway.end()


async def test_b2_with_another_encryption_key_nothing_is_served_from_the_disk(
    gateway_factory: Callable[[dict[str, str]], Gateway], server: GivenServer
) -> None:
    gateway = gateway_factory({"DATABASE_URL": server.url(), "ENCRYPTION_KEY": ENCRYPTION_KEY})
    try:
        gateway.start()
        tenant = await new_tenant(gateway)
        await written_down(gateway, server, tenant)
        gateway.stop()
        server.stop()
        gateway.settings["ENCRYPTION_KEY"] = "cd" * 32
        starting = asyncio.ensure_future(asyncio.to_thread(gateway.start))
        for _ in range(1500):
            if "the last good configuration is not used" in gateway.stderr:
                break
            await asyncio.sleep(0.01)
        await asyncio.to_thread(server.wait_for_attempts, 1)
        assert not starting.done()
        assert gateway.stderr.count("the last good configuration is not used") == 1
        assert gateway.stderr.count("calls are served by") == 0
        server.start()
        with pytest.raises(Exception, match="ENCRYPTION_KEY"):
            await starting
    finally:
        gateway.end()
