"""kill -9 of each process and of all of them: service returns by itself, and the books are complete."""

import asyncio
import contextlib
import os
import signal
from decimal import Decimal

import psutil
import pytest

from fakes.client import BrokenAnswerError
from fakes.fixtures import StartGateway
from fakes.gateway import Gateway, Tenant, new_tenant
from fakes.upstream import Bill, Gate, openai_reply, openai_stream


async def answers_again(tenant: Tenant) -> None:
    """Wait until a call succeeds; before that only refused or broken connections are allowed, no false answers."""
    for _ in range(1500):
        try:
            assert (await tenant.chat()).status == 200
            return
        except (ConnectionError, BrokenAnswerError):
            await asyncio.sleep(0.01)
    raise AssertionError("it does not come back")


async def test_a1_a_killed_data_plane_is_started_again(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    tenant = await new_tenant(gateway)
    tenant.openai.answers(openai_reply(bill=Bill(1000, 0)))
    for _ in range(10):
        assert (await tenant.chat()).status == 200
    for _ in range(2):
        worker = gateway.child("tollway.dataplane")
        worker.kill()
        worker.wait(10)
        await answers_again(tenant)
    rows = await tenant.ledger(12)
    assert sum(row["input_tokens"] for row in rows) == tenant.openai.owed()[0]
    await tenant.cost_becomes("0.012")


async def test_a3_killed_in_mid_stream_the_client_sees_a_cut_and_never_an_end(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    tenant = await new_tenant(gateway)
    gate = Gate()
    tenant.openai.answers(openai_stream(["Hel", gate]), openai_reply())
    async with tenant.stream() as stream:
        assert await stream.next_text() == "Hel"
        gateway.child("tollway.dataplane").kill()
        with pytest.raises(BrokenAnswerError):
            await stream.events()
    await tenant.openai.hang_ups.reaches(1)
    await answers_again(tenant)


async def test_a4_what_a_client_has_seen_the_end_of_survives_a_kill_at_once(start_gateway: StartGateway) -> None:
    """The settlement is on disk before the last byte goes out."""
    gateway = start_gateway()
    tenant = await new_tenant(gateway)
    tenant.openai.answers(openai_stream(["a"], Bill(1000, 0)), openai_reply(bill=Bill(0, 0)))
    async with tenant.stream() as stream:
        await stream.chunks()
        gateway.child("tollway.dataplane").kill()
    await answers_again(tenant)
    await tenant.cost_becomes("0.001")
    assert len(await tenant.ledger(2)) == 2


async def test_a_killed_control_plane_does_not_disturb_requests_and_comes_back(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    tenant = await new_tenant(gateway)
    tenant.openai.answers(openai_reply(bill=Bill(1000, 0)))
    control = gateway.child("tollway.controlplane")
    control.kill()
    control.wait(10)
    assert [(await tenant.chat()).status for _ in range(10)] == [200] * 10
    for _ in range(1500):
        if (await gateway.client.post("/api/generate-virtual-key")).status == 200:
            break
        await asyncio.sleep(0.01)
    await tenant.cost_becomes("0.01")
    assert len(await tenant.ledger(10)) == 10


async def test_a_killed_supervisor_takes_its_children_along(start_gateway: StartGateway) -> None:
    """Orphans would hold the port and the home; and the next start must work."""
    gateway = start_gateway()
    tenant = await new_tenant(gateway)
    tenant.openai.answers(openai_reply(bill=Bill(1000, 0)))
    assert (await tenant.chat()).status == 200
    children = psutil.Process(gateway.process.pid).children()
    planes = [child for child in children if "tollway" in " ".join(child.cmdline())]
    gateway.process.kill()
    gateway.wait()
    _, alive = await asyncio.to_thread(psutil.wait_procs, planes, 10)
    assert not alive
    gateway.start()
    assert (await tenant.chat()).status == 200
    await tenant.cost_becomes("0.002")


async def test_everything_is_killed_and_nothing_is_lost(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    tenant = await new_tenant(gateway)
    tenant.openai.answers(openai_reply(bill=Bill(1000, 7)))
    for kills in range(1, 4):
        await asyncio.gather(*(tenant.chat() for _ in range(20)))
        gateway.kill_everything()
        gateway.start()
        assert len(await tenant.ledger(20 * kills)) == 20 * kills
    rows = await tenant.ledger(60)
    assert sum(row["input_tokens"] for row in rows) == tenant.openai.owed()[0]
    assert sum(row["output_tokens"] for row in rows) == tenant.openai.owed()[1]
    await tenant.cost_becomes(60 * Decimal("0.001014"))
    assert (await tenant.chat()).status == 200


async def test_a_start_on_a_database_that_survived_its_gateway(start_gateway: StartGateway) -> None:
    """Only the gateway was killed: PostgreSQL still runs on the same data, and must not be started beside itself."""
    gateway = start_gateway()
    tenant = await new_tenant(gateway)
    tenant.openai.answers(openai_reply(bill=Bill(1000, 0)))
    assert (await tenant.chat()).status == 200
    left = gateway.postmaster()
    assert left is not None
    family = [process for process in gateway.family() if "postgres" not in process.name()]
    for process in family:
        process.suspend()
    for process in family:
        process.kill()
    gateway.wait()
    gateway.start()
    assert (await tenant.chat()).status == 200
    await tenant.cost_becomes("0.002")


async def test_a6_terminating_under_load_loses_nothing(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    tenant = await new_tenant(gateway)
    gate = Gate()
    tenant.openai.answers(openai_stream(["a", gate, "b"], Bill(1000, 0)))

    async def read() -> str:
        async with tenant.stream() as stream:
            return (await stream.events())[-1]

    readers = [asyncio.create_task(read()) for _ in range(50)]
    await gate.reached(50)
    gateway.process.send_signal(signal.SIGTERM)
    gate.open()
    assert await asyncio.gather(*readers) == ["[DONE]"] * 50
    assert await asyncio.to_thread(gateway.wait) == 0
    gateway.start()
    await tenant.cost_becomes("0.05")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_to_the_whole_group_cuts_no_stream(start_gateway: StartGateway, number: signal.Signals) -> None:
    """As systemd sends it by default, and a terminal that is closed."""
    gateway = start_gateway()
    tenant = await new_tenant(gateway)
    gate = Gate()
    tenant.openai.answers(openai_stream(["a", gate, "b"], Bill(1000, 0)))
    async with tenant.stream() as stream:
        assert await stream.next_text() == "a"
        os.killpg(gateway.process.pid, number)
        await refuses_connections(gateway)
        gate.open()
        assert (await stream.events())[-1] == "[DONE]"
    assert await asyncio.to_thread(gateway.wait) == 0
    assert "failed" not in gateway.stderr
    gateway.start()
    await tenant.cost_becomes("0.001")


async def refuses_connections(gateway: Gateway) -> None:
    """Wait until the drain has begun."""
    for _ in range(1500):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        except ConnectionError:
            return
        writer.close()
        await asyncio.sleep(0.01)
    raise AssertionError("it still takes connections")


async def test_a_worker_that_waits_for_its_first_configuration_can_be_stopped(start_gateway: StartGateway) -> None:
    """PostgreSQL hangs, and the worker has just been started again."""
    gateway = start_gateway(DRAIN_SECONDS="1")
    await new_tenant(gateway)
    postmaster = gateway.postmaster()
    assert postmaster is not None
    old = gateway.child("tollway.dataplane")
    stopped = [postmaster, *postmaster.children()]
    for process in stopped:
        process.suspend()
    try:
        old.kill()
        old.wait(10)
        worker = gateway.child("tollway.dataplane")
        await in_its_loop(worker)
        gateway.terminate()
        await asyncio.to_thread(worker.wait, 5)
    finally:
        for process in reversed(stopped):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
    assert await asyncio.to_thread(gateway.wait, 60) == 0
    assert "is killed" not in gateway.stderr


async def in_its_loop(worker: psutil.Process) -> None:
    """Wait until it tries to reach PostgreSQL."""
    for _ in range(1500):
        if worker.net_connections("inet"):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it does not connect")


async def test_a_paused_gateway_goes_on_where_it_stood(start_gateway: StartGateway) -> None:
    """Row A10: a suspended machine."""
    gateway: Gateway = start_gateway()
    tenant = await new_tenant(gateway)
    gate = Gate()
    tenant.openai.answers(openai_stream(["a", gate, "b"], Bill(1000, 0)))
    async with tenant.stream() as stream:
        await stream.next_text()
        worker = gateway.child("tollway.dataplane")
        worker.suspend()
        gate.open()
        worker.resume()
        assert await stream.events()
    await tenant.cost_becomes("0.001")
    assert len(await tenant.ledger(1)) == 1
