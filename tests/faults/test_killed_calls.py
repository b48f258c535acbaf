"""Calls that die with their worker are entered by estimate, soon after the next one has started."""

import asyncio
import signal
import time
from collections.abc import Iterator
from decimal import Decimal

import asyncpg

from fakes.client import BrokenAnswerError
from fakes.fixtures import StartGateway
from fakes.gateway import Gateway, Tenant, new_tenant
from fakes.upstream import HANG, Gate, Part, Received, openai_reply, openai_stream
from tollway.accounting.journal import SUFFIX
from tollway.accounting.journal_reader import read_records
from tollway.accounting.records import Checkpoint

LONG = "word " * 100
WORDS = 200
_SOON_S = 10.0


async def checkpoint(gateway: Gateway) -> Checkpoint:
    """The last one that stands in a journal, as soon as there is one."""
    async with asyncio.timeout(15):
        while True:
            for path in (gateway.home / "journals").glob(f"[!.]*{SUFFIX}"):
                records = read_records(path, 0, abandoned=False, under_way=True).records
                if found := [record for record in records if isinstance(record, Checkpoint)]:
                    return found[-1]
            await asyncio.sleep(0.05)


async def lost(tenant: Tenant, attempts: int) -> list[asyncpg.Record]:
    """What was entered for as many attempts as died; it comes within ten seconds of the restart."""
    began = time.monotonic()
    rows = await tenant.ledger(attempts)
    assert time.monotonic() - began < _SOON_S
    for row in rows:
        assert (row["outcome"], row["state"], row["charged"], row["priced"]) == ("lost", "estimated", True, True)
        await tenant.gateway.logged(outcome="lost", call_id=row["call_id"], usage="estimated")
        assert row["attempt"] == 1 and row["cause"].startswith("The gateway's process died")
        assert row["cost"] == (row["input_tokens"] + 2 * row["output_tokens"]) * Decimal("0.000001")
    await tenant.cost_becomes(sum((row["cost"] for row in rows), Decimal(0)))
    return rows


async def dies_with_its_worker(tenant: Tenant) -> None:
    try:
        reply = await tenant.chat(content=LONG)
    except (BrokenAnswerError, ConnectionError):
        return
    raise AssertionError(f"a made-up answer: {reply}")


async def test_a2_a3_a_whole_call_and_a_stream_die_with_their_worker(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    tenant = await new_tenant(gateway)
    gate = Gate()

    def waits(request: Received) -> Iterator[Part]:
        yield gate
        yield from openai_reply()(request)

    tenant.openai.answers(openai_stream(["word "] * WORDS + [HANG]), waits, openai_reply())
    async with tenant.stream(content=LONG) as stream:
        for _ in range(WORDS):
            await stream.next_text()
        whole = asyncio.create_task(dies_with_its_worker(tenant))
        await gate.reached(1)
        seen = await checkpoint(gateway)
        worker = gateway.child("tollway.dataplane")
        worker.kill()
        await whole
        worker.wait(10)
        rows = await lost(tenant, 2)
    waited, streamed = sorted(rows, key=lambda row: row["stream"])
    assert streamed["output_tokens"] >= seen.output_tokens >= WORDS
    assert streamed["input_tokens"] >= 100 and streamed["status"] == 200
    assert waited["input_tokens"] >= 100 and waited["output_tokens"] == 0
    metrics = (await gateway.client.get("/metrics")).body.decode()
    assert "tollway_lost_attempts_total 2.0" in metrics
    assert (await tenant.chat()).status == 200
    assert len(await tenant.ledger(3)) == 3


async def test_a7_told_to_end_and_then_killed_by_somebody_impatient(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    tenant = await new_tenant(gateway)
    tenant.openai.answers(openai_stream(["word "] * WORDS + [HANG]))
    async with tenant.stream(content=LONG) as stream:
        for _ in range(WORDS):
            await stream.next_text()
        seen = await checkpoint(gateway)
        gateway.process.send_signal(signal.SIGTERM)
        await gateway.logged(message="draining: 1 connections")
        gateway.kill_everything()
        await asyncio.to_thread(gateway.start)
        (row,) = await lost(tenant, 1)
    assert row["output_tokens"] >= seen.output_tokens
