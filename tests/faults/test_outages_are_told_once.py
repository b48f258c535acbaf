"""An outage of PostgreSQL is one line in each process when it begins and one when it ends, whatever ended it."""

import asyncio
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes.connections import connected
from fakes.fixtures import StartGateway
from fakes.gateway import Gateway, new_tenant, patiently
from fakes.given_server import GivenServer
from fakes.upstream import Upstream, openai_reply

ENCRYPTION_KEY = "ab" * 32
UNRESOLVED = """
SELECT count(*) FROM tollway.models m
LEFT JOIN tollway.builtin_prices b ON b.provider = m.provider AND b.model = COALESCE(m.upstream_name, m.name)
WHERE m.input_cost_per_1k IS NULL AND b.model IS NULL
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GivenServer]:
    with GivenServer(tmp_path / "given") as running:
        yield running


def said(gateway: Gateway, since: int) -> dict[str, list[tuple[str, str]]]:
    """Level and message of what each process logged since then, but for the lines of requests."""
    lines: dict[str, list[tuple[str, str]]] = {}
    for text in gateway.stderr.splitlines()[since:]:
        line = json.loads(text)
        assert "traceback" not in line, line
        if "call_id" not in line:
            lines.setdefault(line["process"], []).append((line["level"], line["message"]))
    return lines


async def said_when_over(gateway: Gateway, since: int) -> dict[str, list[tuple[str, str]]]:
    """The same, once every process that noticed the outage has noticed its end."""
    for _ in patiently("the end of the outage"):
        ready = await gateway.client.get("/readyz")
        lines = said(gateway, since)
        noticed = [lines[process][-1][0] for process in ("worker-0", "control-plane") if process in lines]
        if ready.json["status"] == "ok" and set(noticed) <= {"info"}:
            return lines
    raise AssertionError("unreachable")


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_b1_an_outage_is_told_when_it_begins_and_when_it_ends(
    start_gateway: StartGateway, server: GivenServer, how: str
) -> None:
    gateway = start_gateway(DATABASE_URL=server.url(), ENCRYPTION_KEY=ENCRYPTION_KEY)
    tenant = await new_tenant(gateway)
    tenant.openai.answers(openai_reply())
    assert (await tenant.chat()).status == 200
    await tenant.ledger(1)
    before = len(gateway.stderr.splitlines())
    server.stop() if how == "stop" else server.kill()
    assert (await tenant.chat()).status == 200
    server.wait_for_attempts(6)
    server.start()
    await tenant.ledger(2)
    lines = await said_when_over(gateway, before)
    assert set(lines) == {"worker-0", "control-plane"}
    for begins, ends in lines.values():
        assert begins[0] == "warning"
        assert ends[0] == "info"
    assert "the last one stays in force" in lines["worker-0"][0][1]
    assert "settlements wait" in lines["control-plane"][0][1]
    assert "Traceback" not in gateway.stderr


async def test_b1_a_control_plane_that_starts_meanwhile_says_so_once(
    start_gateway: StartGateway, server: GivenServer
) -> None:
    gateway = start_gateway(DATABASE_URL=server.url(), ENCRYPTION_KEY=ENCRYPTION_KEY)
    tenant = await new_tenant(gateway)
    tenant.openai.answers(openai_reply())
    await gateway.configuration_is_live()
    server.stop()
    old = gateway.child("tollway.controlplane")
    old.kill()
    old.wait()
    before = len(gateway.stderr.splitlines())
    assert (await tenant.chat()).status == 200
    server.wait_for_attempts(6)
    server.start()
    await tenant.ledger(1)
    levels = [level for level, _ in (await said_when_over(gateway, before))["control-plane"]]
    assert levels == ["warning", "info"]


async def test_b1_an_embedded_server_that_dies_leaves_no_traceback(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    tenant = await new_tenant(gateway)
    tenant.openai.answers(openai_reply())
    postmaster = gateway.postmaster()
    assert postmaster is not None
    before = len(gateway.stderr.splitlines())
    os.killpg(postmaster.pid, signal.SIGKILL)
    assert (await tenant.chat()).status == 200
    await tenant.ledger(1)
    await said_when_over(gateway, before)
    await gateway.logged(process="supervisor", level="info", message="the embedded PostgreSQL runs again")
    lines = said(gateway, before)
    assert [level for level, _ in lines["supervisor"]] == ["error", "info"]
    for process in ("worker-0", "control-plane"):
        assert [level for level, _ in lines.get(process, [])] in ([], ["warning", "info"])
    assert "Traceback" not in gateway.stderr


async def test_b2_a_start_that_waits_for_the_database_says_so_once(
    gateway_factory: Callable[[dict[str, str]], Gateway], server: GivenServer
) -> None:
    gateway = gateway_factory({"DATABASE_URL": server.url(), "ENCRYPTION_KEY": ENCRYPTION_KEY})
    server.stop()
    try:
        starting = asyncio.ensure_future(asyncio.to_thread(gateway.start))
        await asyncio.to_thread(server.wait_for_attempts, 3)
        assert not starting.done()
        server.start()
        await starting
        gateway.stop()
        told = [message for _, message in said(gateway, 0)["supervisor"] if "PostgreSQL" in message]
        assert [message.partition(",")[0] for message in told] == ["PostgreSQL does not answer", "PostgreSQL answers"]
    finally:
        gateway.end()


@pytest.mark.parametrize("setting", ["default_transaction_read_only = on", "statement_timeout = 1"])
async def test_b15_a_start_that_waits_says_that_the_server_answers(
    gateway_factory: Callable[[dict[str, str]], Gateway], server: GivenServer, setting: str
) -> None:
    gateway = gateway_factory({"DATABASE_URL": server.url(), "ENCRYPTION_KEY": ENCRYPTION_KEY})
    try:
        async with connected(server.direct_url) as psql:
            await psql.execute(f"ALTER DATABASE tollway SET {setting}")
            starting = asyncio.ensure_future(asyncio.to_thread(gateway.start))
            await asyncio.to_thread(server.wait_for_attempts, 5)
            assert not starting.done(), "somebody may set it back"
            await psql.execute("SET default_transaction_read_only = off; ALTER DATABASE tollway RESET ALL")
        await starting
        gateway.stop()
        told = [message for _, message in said(gateway, 0)["supervisor"] if "PostgreSQL" in message]
        assert [message.partition(",")[0] for message in told] == [
            "PostgreSQL answers but cannot be used yet",
            "PostgreSQL answers",
        ]
    finally:
        gateway.end()


def test_a_fresh_database_gives_no_reason_for_a_warning(
    tmp_path: Path, openai_provider: Upstream, mistral_provider: Upstream
) -> None:
    gateway = Gateway(tmp_path / "home", openai_provider, mistral_provider, {})
    try:
        gateway.start()
        asyncio.run(gateway.becomes(0, UNRESOLVED))
        lines = [json.loads(line) for line in gateway.stderr.splitlines()]
        assert [line for line in lines if line["level"] not in ("info", "debug")] == []
        listed = json.loads(gateway.command("models", "list", "--json").stdout)
        assert "unknown" in {model["price"] for model in listed}, "what has no price is told to who asks"
        gateway.stop()
    finally:
        gateway.end()
