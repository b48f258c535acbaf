"""What machines and their operators do to a gateway: rolling restarts, no descriptor left, clocks that jump."""

import asyncio
import itertools
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from fakes.client import BrokenAnswerError
from fakes.fixtures import StartGateway
from fakes.gateway import Gateway, new_tenant
from fakes.given_server import GivenServer
from fakes.upstream import Bill, Gate, Part, Pause, Received, Upstream, openai_reply, openai_stream
from fakes.worker import MODEL, running_worker
from tollway.accounting.journal_reader import read_records
from tollway.accounting.records import Settlement

_RESTARTS = int(os.environ.get("TOLLWAY_RESTARTS", "6"))
"""Twenty in the long run before a release."""


async def test_a8_rolling_restarts_under_load_fail_no_call(start_gateway: StartGateway, tmp_path: Path) -> None:
    """Two gateways on one database, one after the other taken out of the balancer, restarted and put back."""
    with GivenServer(tmp_path / "given") as server:
        settings = {"DATABASE_URL": server.url(), "ENCRYPTION_KEY": "ab" * 32}
        gateways = [start_gateway(**settings), start_gateway(**settings)]
        tenant = await new_tenant(gateways[0])
        await gateways[1].configuration_is_live()
        welcome = list(gateways)
        statuses: Counter[int] = Counter()
        stopping = asyncio.Event()

        async def calls(*, stream: bool) -> None:
            while not stopping.is_set():
                client = welcome[-1 if stream else next(numbers) % len(welcome)].client
                # Who had just connected when the drain began is hung up on without an answer, and tries again.
                with suppress(ConnectionError, BrokenAnswerError):
                    reply = await client.chat(tenant.key, tenant.model, stream=stream)
                    assert not stream or reply.body.endswith(b"data: [DONE]\n\n")
                    statuses[reply.status] += 1

        tenant.openai.answers(_whole_or_stream)
        numbers = itertools.count()
        load = [asyncio.create_task(calls(stream=number == 0)) for number in range(4)]
        for turn in range(_RESTARTS):
            gateway = gateways[turn % 2]
            welcome.remove(gateway)
            gateway.terminate()
            assert await asyncio.to_thread(gateway.wait) == 0
            await asyncio.to_thread(gateway.start)
            welcome.append(gateway)
        stopping.set()
        await asyncio.gather(*load)
        assert set(statuses) == {200} and statuses[200] > _RESTARTS
        assert statuses[200] == len(tenant.openai.requests), "whose connection was closed had not been served"
        rows = await tenant.ledger(statuses[200])
        assert sum(row["input_tokens"] for row in rows) == tenant.openai.owed()[0]
        assert sum(row["output_tokens"] for row in rows) == tenant.openai.owed()[1]


def _whole_or_stream(request: Received) -> Iterable[Part]:
    if request.json.get("stream"):
        return openai_stream(["a", Pause(0.05), "b"], Bill(1000, 2))(request)
    return openai_reply(bill=Bill(1000, 1))(request)


async def test_a12_without_a_descriptor_left_streams_go_on_and_nothing_turns_in_vain(
    gateway_factory: Callable[[dict[str, str]], Gateway],
) -> None:
    gateway = gateway_factory({})
    gateway.open_files = 256
    crowd: list[socket.socket] = []
    try:
        gateway.start()
        tenant = await new_tenant(gateway)
        gate = Gate()
        tenant.openai.answers(openai_stream(["a", gate, "b"]), openai_reply("after"))
        worker = gateway.child("tollway.dataplane")
        before = worker.num_fds()
        async with tenant.stream() as stream:
            assert await stream.next_text() == "a"
            _, most = worker.rlimit(psutil.RLIMIT_NOFILE)
            worker.rlimit(psutil.RLIMIT_NOFILE, (worker.num_fds(), most))  # accept() fails from now on
            for _ in range(40):
                connection = socket.socket()
                connection.setblocking(False)
                crowd.append(connection)
                connection.connect_ex(("127.0.0.1", gateway.port))
            used = _cpu_s(worker)
            await asyncio.sleep(1)
            assert _cpu_s(worker) - used < 0.5, "it waits for descriptors, it does not ask without end"
            gate.open()
            assert (await stream.events())[-1] == "[DONE]"
        for connection in crowd:
            connection.close()
        worker.rlimit(psutil.RLIMIT_NOFILE, (256, most))
        assert (await tenant.chat()).text == "after"
        for _ in range(500):
            if worker.num_fds() <= before + 4:  # two idle connections to providers, and ours
                break
            await asyncio.sleep(0.02)
        assert worker.num_fds() <= before + 4
        assert len([line for line in gateway.log_lines() if line["level"] in ("warning", "error")]) < 6
    finally:
        for connection in crowd:
            connection.close()
        gateway.end()


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0])
async def test_a16_a_clock_that_jumps_changes_no_wait_and_no_entry_goes_back_in_time(
    tmp_path: Path, openai_provider: Upstream, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    account = openai_provider.account()
    gate, true_time = Gate(), time.time
    async with running_worker(tmp_path, openai_provider.url, OPENAI_API_KEY=account.secret) as worker:
        began = true_time()
        account.answers(openai_stream(["a", gate, "b"]), openai_reply("after"))
        async with worker.client.stream(worker.key, MODEL) as stream:
            assert await stream.next_text() == "a"
            monkeypatch.setattr(time, "time", lambda: true_time() + jump_s)
            gate.open()
            assert (await stream.events())[-1] == "[DONE]"
        assert (await worker.client.chat(worker.key, MODEL)).text == "after"
        ended = true_time()
        (path,) = (tmp_path / "journals").glob("*.journal")
        records = read_records(path, 0, abandoned=False).records
    first, second = (record for record in records if isinstance(record, Settlement))
    assert began <= first.started_unix <= ended, "of the clock at its start"
    assert 0 < (first.first_byte_ms or 0) <= first.duration_ms <= (ended - began) * 1000
    assert began + jump_s <= second.started_unix <= ended + jump_s


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0])
async def test_a16_limits_wait_as_long_as_before(
    tmp_path: Path, openai_provider: Upstream, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    """Windows are kept by a clock that nobody sets."""
    account, true_time = openai_provider.account().answers(openai_reply()), time.time
    environment = {"OPENAI_API_KEY": account.secret}
    async with running_worker(tmp_path, openai_provider.url, requests_per_minute=2, **environment) as worker:
        assert [(await worker.client.chat(worker.key, MODEL)).status for _ in range(2)] == [200, 200]
        monkeypatch.setattr(time, "time", lambda: true_time() + jump_s)
        refused = await worker.client.chat(worker.key, MODEL)
        assert refused.refusal == (429, "rate_limit_exceeded")
        assert 50 <= int(refused.header("retry-after") or "") <= 61
