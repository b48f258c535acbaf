"""Two gateways on one database say that each counts its limits for itself; nobody else makes them say it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fakes.connections import connected
from fakes.fixtures import StartGateway
from fakes.gateway import Gateway, patiently
from tollway.store import configuration as module
from tollway.store.configuration import Configuration
from tollway.store.neighbours import FILE_NAME, Neighbours, gateway_number

KEY = "ab" * 32
SAID = "another gateway works on this database"
GONE = "no other gateway works on this database any more"


def said(gateway: Gateway, text: str = SAID) -> int:
    return sum(text in json.loads(line)["message"] for line in gateway.stderr.splitlines())


async def test_both_of_two_gateways_say_it_once(start_gateway: StartGateway, postgres_url: str) -> None:
    one = start_gateway(DATABASE_URL=postgres_url, ENCRYPTION_KEY=KEY)
    assert one.command("keys", "list").returncode == 0
    one.child("tollway.dataplane").kill()
    for _ in patiently("the data plane is back"):
        try:
            await one.client.get("/livez")
            break
        except OSError:
            continue
    await one.configuration_is_live()
    one.stop()
    one.start()
    assert said(one) == 0, "neither a command nor a restart is another gateway"
    two = start_gateway(DATABASE_URL=postgres_url, ENCRYPTION_KEY=KEY)
    for gateway in (one, two):
        for _ in patiently("both say it"):
            if said(gateway):
                break
    two.stop()
    for _ in patiently("the one that is left says so"):
        if said(one, GONE):
            break
    assert (said(one), said(two), said(one, GONE)) == (1, 1, 1)


@asynccontextmanager
async def counting(url: str, number: int) -> AsyncIterator[Configuration]:
    configuration = Configuration(url, neighbours=Neighbours(number))
    await configuration.start()
    try:
        yield configuration
    finally:
        await configuration.close()


async def test_processes_of_one_gateway_and_other_databases_are_no_neighbours(
    postgres_url: str, empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.0)
    monkeypatch.setattr(module, "POLL_S", 0.02)
    largest = 2**31 - 1
    async with connected(empty_postgres_url) as elsewhere, connected(postgres_url) as psql:
        await elsewhere.execute("SELECT pg_advisory_lock(1953459308, 5)")
        await psql.execute("SELECT pg_advisory_lock(1953459309, 5), pg_advisory_lock(5)")
        async with counting(postgres_url, largest), counting(postgres_url, largest), counting(postgres_url, largest):
            await asyncio.sleep(0.3)
            assert caplog.text == ""
            async with counting(postgres_url, 5):
                async with asyncio.timeout(5):
                    while caplog.text.count(SAID) < 4:
                        await asyncio.sleep(0.01)
                await asyncio.sleep(0.2)
                assert caplog.text.count(SAID) == 4


def test_a_home_keeps_its_number_and_a_copy_of_it_has_another(tmp_path: Path) -> None:
    number = gateway_number(tmp_path)
    assert 0 < number < 2**31
    assert gateway_number(tmp_path) == number
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / FILE_NAME).write_text((tmp_path / FILE_NAME).read_text())
    assert gateway_number(copy) != number
    (tmp_path / FILE_NAME).write_bytes(b"\xff")
    assert 0 < gateway_number(tmp_path) < 2**31
    assert gateway_number(tmp_path / "nowhere") != gateway_number(tmp_path / "nowhere")
