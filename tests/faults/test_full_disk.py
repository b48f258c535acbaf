"""The disk of the journals takes no more. With PostgreSQL well nothing changes; without it no call starts."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil
import pytest

from fakes.fixtures import StartGateway
from fakes.gateway import Gateway, new_tenant
from fakes.upstream import Bill, Gate, openai_reply, openai_stream
from faults.test_database_away import pause

pytestmark = pytest.mark.skipif(
    not hasattr(psutil, "RLIMIT_FSIZE"), reason="the system sets no limits for other processes"
)


@contextmanager
def full_disk(gateway: Gateway) -> Iterator[None]:
    """No file of the worker's grows any more."""
    worker = gateway.child("tollway.dataplane")
    _, most = worker.rlimit(psutil.RLIMIT_FSIZE)
    worker.rlimit(psutil.RLIMIT_FSIZE, (1, most))
    try:
        yield
    finally:
        worker.rlimit(psutil.RLIMIT_FSIZE, (most, most))


async def becomes_ready(gateway: Gateway) -> None:
    async with asyncio.timeout(15):
        while (await gateway.client.get("/readyz")).status != 200:
            await asyncio.sleep(0.02)


async def test_a13_a_full_disk_with_postgresql_well_changes_nothing(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    tenant = await new_tenant(gateway)
    gate = Gate()
    tenant.openai.answers(openai_stream(["a", gate, "b"], Bill(1000, 0)), openai_reply(bill=Bill(1000, 0)))
    async with tenant.stream() as stream:
        await stream.next_text()
        with full_disk(gateway):
            for _ in range(20):
                assert (await tenant.chat()).status == 200
                assert (await gateway.client.get("/readyz")).status == 200
            gate.open()
            assert (await stream.events())[-1] == "[DONE]"
            await tenant.cost_becomes("0.021")  # while nothing can be written
            rows = await tenant.ledger(21)
            assert {(row["state"], row["charged"]) for row in rows} == {("exact", True)}
            metrics = (await gateway.client.get("/metrics")).body.decode()
            assert 'tollway_unready{reason="accounting_unavailable",worker="0"} 0.0' in metrics
    await gateway.logged(message="the disk takes records again")
    for _ in range(5):
        assert (await tenant.chat()).status == 200
    await tenant.cost_becomes("0.026")
    worker = gateway.child("tollway.dataplane")
    worker.kill()
    worker.wait(10)
    last = await tenant.chat()
    await tenant.cost_becomes("0.027")
    await gateway.becomes(1, "SELECT count(*) FROM tollway.journal_positions")  # the dead worker's journal is gone
    assert len(await tenant.ledger(27)) == 27, "the stream's intent is on the disk, its settlement in PostgreSQL"
    await tenant.cost_becomes("0.027")
    metrics = (await gateway.client.get("/metrics")).body.decode()
    assert "tollway_lost_attempts_total 0.0" in metrics
    await gateway.logged(logger="tollway.requests", call_id=last.header("x-request-id"))
    told = [line["call_id"] for line in gateway.log_lines() if line["logger"] == "tollway.requests"]
    assert len(told) == len(set(told)) == 27, "each attempt is told once, whichever way it went"


async def test_a13_m12_where_neither_disk_nor_postgresql_take_anything_no_provider_is_asked(
    start_gateway: StartGateway,
) -> None:
    gateway = start_gateway()
    tenant = await new_tenant(gateway)
    gate = Gate()
    tenant.openai.answers(openai_stream(["a", gate, "b"], Bill(1000, 0)), openai_reply(bill=Bill(1000, 0)))
    async with tenant.stream() as stream:
        await stream.next_text()
        stopped = pause(gateway)
        try:
            with full_disk(gateway):
                for _ in range(3):
                    refused = await tenant.chat()
                    assert refused.refusal == (503, "accounting_unavailable")
                    assert refused.header("retry-after") == "5"
                assert len(tenant.openai.requests) == 1, "what could not be noted is not asked for"
                unready = await gateway.client.get("/readyz")
                assert (unready.status, unready.json["status"]) == (503, "accounting_unavailable")
                assert (await gateway.client.get("/livez")).status == 200
                metrics = (await gateway.client.get("/metrics")).body.decode()
                assert 'tollway_unready{reason="accounting_unavailable",worker="0"} 1.0' in metrics
                assert 'tollway_unready{reason="draining",worker="0"} 0.0' in metrics
                gate.open()
                assert (await stream.events())[-1] == "[DONE]", "a call that runs is answered; its record waits"
        finally:
            for process in stopped:
                with suppress(psutil.NoSuchProcess):
                    process.resume()
    await becomes_ready(gateway)
    assert (await tenant.chat()).status == 200
    await tenant.cost_becomes("0.002")
    assert len(await tenant.ledger(2)) == 2
