"""A first start is ended at every stage of it, gently and not: the next one always works."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from fakes.fixtures import StartGateway
from fakes.gateway import Gateway, patiently
from fakes.upstream import PATIENCE_S, Upstream

STAGES = [
    "postgres-unfinished-*",
    "postgres-unfinished-*/data/global/pg_control",
    "postgres-unfinished-*/data/base/4",
    "postgres/pg_hba.conf",
    "postgres/postmaster.pid",
    "postgres/socket/.s.PGSQL.5432",
]
"""What appears one after the other."""


def begun(gateway: Gateway, stage: str) -> subprocess.Popen[bytes]:
    """A gateway that has come so far."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tollway", "serve"],
        env=gateway.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    for _ in patiently(stage):
        if next(gateway.home.glob(stage), None) is not None:
            return process
    raise AssertionError("unreachable")


@pytest.fixture
def newcomer(tmp_path: Path, openai_provider: Upstream, mistral_provider: Upstream) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path / "home", openai_provider, mistral_provider, {})
    yield gateway
    gateway.end()


@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_any_stage_of_the_first_start(newcomer: Gateway, stage: str) -> None:
    """The gateway alone: what makes the cluster goes on for a moment, and must not disturb the next start."""
    process = begun(newcomer, stage)
    process.kill()
    process.communicate()
    newcomer.start()
    newcomer.stop()
    if list(newcomer.home.glob("postgres-unfinished*")):  # it wrote once more while the start removed what it had made
        newcomer.start()
        newcomer.stop()
    assert not list(newcomer.home.glob("postgres-unfinished*"))


@pytest.mark.parametrize("stage", STAGES[1::4])
def test_everything_killed_at_any_stage_of_the_first_start(newcomer: Gateway, stage: str) -> None:
    process = begun(newcomer, stage)
    with contextlib.suppress(psutil.NoSuchProcess):
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for each in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
    process.communicate()
    newcomer.start()
    newcomer.stop()


@pytest.mark.parametrize("stage", STAGES[::2])
def test_told_to_stop_at_any_stage_of_the_first_start(newcomer: Gateway, stage: str) -> None:
    process = begun(newcomer, stage)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, errors
    assert b"Traceback" not in errors
    assert newcomer.postmaster() is None
    newcomer.start()
    newcomer.stop()


def occupied(gateway: Gateway) -> None:
    """A file where the socket was, made in the moment of a crash."""
    postmaster = gateway.postmaster()
    assert postmaster is not None
    (path,) = (gateway.home / "postgres" / "socket").glob(".s.PGSQL*[0-9]")
    family = [postmaster, *postmaster.children(recursive=True)]
    for process in family:
        process.suspend()
    path.unlink()
    path.mkdir()
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def killed(gateway: Gateway) -> None:
    postmaster = gateway.postmaster()
    assert postmaster is not None
    os.kill(postmaster.pid, signal.SIGKILL)


def a_backend_killed(gateway: Gateway) -> None:
    """The first process then starts all others again by itself."""
    postmaster = gateway.postmaster()
    assert postmaster is not None
    backends = [process for process in postmaster.children() if "tollway" in " ".join(process.cmdline())]
    backends[0].kill()


@pytest.mark.parametrize("crash", [killed, occupied, a_backend_killed], ids=lambda crash: crash.__name__)
async def test_after_a_crash_every_process_finds_it_at_the_same_address(
    start_gateway: StartGateway, crash: Callable[[Gateway], None]
) -> None:
    gateway = start_gateway()
    before = gateway.database_url
    crash(gateway)
    for _ in range(1500):
        if (await gateway.client.post("/api/generate-virtual-key")).status == 200:
            break  # the control plane is there again
        await asyncio.sleep(0.01)
    key, key_id = await gateway.new_key()
    assert (await gateway.client.chat(key, "demo/echo", "Hello")).text == "Hello", "the data plane, too"
    await gateway.becomes(True, 'SELECT "totalCost" > 0 FROM "Users" WHERE id = $1', key_id)
    assert gateway.command("db", "url").stdout.strip() == before
