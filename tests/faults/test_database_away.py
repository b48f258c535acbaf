"""PostgreSQL is away: a designed mode. Known keys are served, unknown ones wait, and afterwards the books are whole."""

import asyncio
import signal
from collections import Counter
from contextlib import suppress

import psutil

from fakes.fixtures import StartGateway
from fakes.gateway import Gateway, new_tenant
from fakes.upstream import Bill, openai_reply, openai_stream


def pause(gateway: Gateway) -> list[psutil.Process]:
    """Every process of PostgreSQL stands still: connections stay open and nothing answers."""
    postmaster = gateway.postmaster()
    assert postmaster is not None
    stopped = [postmaster, *postmaster.children(recursive=True)]
    for process in stopped:
        process.suspend()
    return stopped


async def test_b1_known_keys_keep_working_while_postgresql_answers_nothing(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    tenant = await new_tenant(gateway)
    tenant.openai.answers(openai_reply(bill=Bill(1000, 0)))
    assert (await tenant.chat()).status == 200
    await tenant.cost_becomes("0.001")
    stopped = pause(gateway)
    try:
        answers = await asyncio.gather(*(tenant.chat() for _ in range(100)))
        assert Counter(answer.status for answer in answers) == {200: 100}
        assert (await gateway.client.get("/livez")).status == 200
        assert (await gateway.client.get("/readyz")).status == 200
    finally:
        for process in stopped:
            with suppress(psutil.NoSuchProcess):  # a backend that ended just as it was stopped
                process.resume()
    rows = await tenant.ledger(101)
    assert sum(row["input_tokens"] for row in rows) == 101_000


async def test_b1_postgresql_is_killed_under_load_and_nothing_is_lost(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    tenant = await new_tenant(gateway)
    tenant.openai.answers(openai_reply(bill=Bill(1000, 0)))
    postmaster = gateway.postmaster()
    assert postmaster is not None
    statuses: list[int] = []

    async def load() -> None:
        for _ in range(40):
            statuses.append((await tenant.chat()).status)

    loads = [asyncio.create_task(load()) for _ in range(4)]
    await tenant.openai.seen.reaches(40)
    postmaster.send_signal(signal.SIGQUIT)  # PostgreSQL's immediate stop
    await asyncio.gather(*loads)
    assert Counter(statuses) == {200: 160}
    again = await replaced_postmaster(gateway, postmaster)
    assert again.pid != postmaster.pid, "the supervisor has started it again"
    assert len(await tenant.ledger(160)) == 160
    await tenant.cost_becomes("0.16")
    tenant.openai.answers(openai_reply("after"))
    assert (await tenant.chat()).text == "after"
    key, _ = await gateway.new_key()
    await gateway.save_keys(key, openaiKey=tenant.openai.secret)
    assert (await gateway.client.chat(key, tenant.model)).text == "after"


async def replaced_postmaster(gateway: Gateway, old: psutil.Process) -> psutil.Process:
    for _ in range(1500):
        now = gateway.postmaster()
        if now is not None and now.pid != old.pid:
            return now
        await asyncio.sleep(0.01)
    raise AssertionError("PostgreSQL was not started again")


async def test_b1_unknown_keys_are_told_to_wait_and_never_401(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    tenant = await new_tenant(gateway)
    tenant.openai.answers(openai_reply())
    postmaster = gateway.postmaster()
    assert postmaster is not None
    stopped = pause(gateway)
    unknown = "sk-tw-" + "0" * 49
    try:
        for _ in range(3000):
            answer = await gateway.client.chat(unknown, tenant.model)
            if answer.status != 401:
                break
            await asyncio.sleep(0.01)
        assert answer.status == 503
        assert int(answer.header("retry-after") or "") >= 1
        assert (await tenant.chat()).status == 200
        assert (await gateway.client.get("/readyz")).status == 200
    finally:
        for process in stopped:
            with suppress(psutil.NoSuchProcess):  # a backend that ended just as it was stopped
                process.resume()
    for _ in range(1500):
        if (await gateway.client.chat(unknown, tenant.model)).status == 401:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("still unsure of unknown keys")


async def test_f3_an_edit_while_the_gateway_was_cut_off_is_in_force_afterwards(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    tenant = await new_tenant(gateway)
    tenant.openai.answers(openai_reply())
    async with gateway.database() as connection:
        # Everybody else is thrown out, the listener too, so that its notification may be lost.
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )
        await connection.execute("UPDATE tollway.virtual_keys SET revoked_at = now() WHERE id = $1", tenant.key_id)
    for _ in range(1000):
        if (await tenant.chat()).status == 401:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the revoked key still works")


async def test_the_request_path_asks_postgresql_nothing(start_gateway: StartGateway) -> None:
    """Not one statement for a hundred requests, but for the poster's batches."""
    gateway = start_gateway()
    tenant = await new_tenant(gateway)
    tenant.openai.answers(openai_stream(["a"]))
    stopped = pause(gateway)
    try:
        for _ in range(50):
            async with tenant.stream() as stream:
                await stream.chunks()
    finally:
        for process in stopped:
            with suppress(psutil.NoSuchProcess):  # a backend that ended just as it was stopped
                process.resume()
    await tenant.ledger(50)
