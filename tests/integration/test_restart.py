"""Stopping and starting: what runs is finished, what was earned is kept, and the next start finds everything."""

import asyncio
import contextlib
import os
import signal
from decimal import Decimal

import psutil

from fakes.client import BrokenAnswerError, text_of
from fakes.fixtures import StartGateway
from fakes.gateway import Gateway, new_tenant
from fakes.upstream import HANG, Bill, Gate, openai_reply, openai_stream


async def refuses_connections(gateway: Gateway) -> None:
    """Wait until nobody listens any more."""
    for _ in range(500):
        try:
            async with gateway.client.connect():
                await asyncio.sleep(0.01)
        except ConnectionError:
            return
    raise AssertionError("it still takes new connections")


async def test_sigterm_lets_running_streams_finish_and_settles_them(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    tenant = await new_tenant(gateway)
    gate = Gate()
    tenant.openai.answers(openai_stream(["before ", gate, "after"], Bill(1000, 0)))
    family = gateway.family()
    async with tenant.stream() as stream:
        assert await stream.next_text() == "before "
        gateway.terminate()
        await refuses_connections(gateway)
        gateway.terminate()  # a second one changes nothing
        assert gateway.process.poll() is None
        gate.open()
        assert text_of(await stream.chunks()) == "after"
    assert await asyncio.to_thread(gateway.wait) == 0
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive
    gateway.start()
    await tenant.cost_becomes("0.001")


async def test_a_signal_to_the_whole_group_stops_it_as_cleanly(start_gateway: StartGateway) -> None:
    """Ctrl-C in a terminal reaches every process of the group; PostgreSQL must be the last to go."""
    gateway = start_gateway()
    tenant = await new_tenant(gateway)
    tenant.openai.answers(openai_reply(bill=Bill(1000, 0)))
    assert (await tenant.chat()).status == 200
    os.killpg(gateway.process.pid, signal.SIGINT)  # it leads a group of its own
    assert await asyncio.to_thread(gateway.wait) == 0
    gateway.start()
    await tenant.cost_becomes("0.001")


async def test_a_stream_that_outlasts_the_drain_is_cut_and_settled(start_gateway: StartGateway) -> None:
    gateway = start_gateway(DRAIN_SECONDS="0.5")
    tenant = await new_tenant(gateway)
    tenant.openai.answers(openai_stream(["before", HANG]))
    async with tenant.stream() as stream:
        assert await stream.next_text() == "before"
        gateway.terminate()
        with contextlib.suppress(BrokenAnswerError):  # cut is cut
            assert "[DONE]" not in await stream.events()
    assert await asyncio.to_thread(gateway.wait) == 0
    gateway.start()
    (row,) = await tenant.ledger(1)
    assert row["output_tokens"] >= 1
    await tenant.cost_becomes(row["cost"])


async def test_while_it_drains_it_says_so(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    tenant = await new_tenant(gateway)
    gate = Gate()
    tenant.openai.answers(openai_stream(["before", gate]))
    async with gateway.client.connect() as kept, tenant.stream() as stream:
        await kept.send(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await kept.reply("GET")).status == 200
        await stream.next_text()
        gateway.terminate()
        assert await kept.is_closed(), "idle connections are closed"
        gate.open()
        await stream.chunks()
    assert await asyncio.to_thread(gateway.wait) == 0


async def test_everything_is_there_after_a_restart(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    tenant = await new_tenant(gateway)
    tenant.openai.answers(openai_reply(bill=Bill(1000, 0)))
    await asyncio.gather(*(tenant.chat() for _ in range(25)))
    gateway.stop()  # at once: what is not posted yet is posted now
    gateway.start()
    await tenant.cost_becomes(Decimal("0.025"))
    assert len(await tenant.ledger(25)) == 25
    assert (await tenant.chat()).status == 200
    await tenant.cost_becomes(Decimal("0.026"))


async def test_rows_that_were_deleted_are_not_seeded_again(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    await gateway.sql("""DELETE FROM "LLMModels" WHERE name = 'gpt-4o-mini'""")
    gateway.stop()
    gateway.start()
    left = await gateway.value("""SELECT count(*) FROM "LLMModels" WHERE name = 'gpt-4o-mini'""")
    assert left == 0


async def test_an_outside_database_works_as_the_embedded_one(start_gateway: StartGateway, gateway: Gateway) -> None:
    """A second gateway on a database of its own in somebody else's server, as with a DATABASE_URL of one's own."""
    await gateway.sql("CREATE DATABASE outside")
    base, _, rest = gateway.database_url.rpartition("/")
    query = "?" + rest.partition("?")[2] if "?" in rest else ""
    second = start_gateway(DATABASE_URL=f"{base}/outside{query}", ENCRYPTION_KEY="ab" * 32)
    second.secrets.add("ab" * 32)
    assert second.postmaster() is None
    tenant = await new_tenant(second)
    tenant.openai.answers(openai_reply(bill=Bill(1000, 0)))
    assert (await tenant.chat()).status == 200
    await tenant.cost_becomes("0.001", within_s=2)
    second.stop()
    await gateway.sql("DROP DATABASE outside")
