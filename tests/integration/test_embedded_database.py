"""The embedded PostgreSQL as the gateway's database: opened whatever befalls it, kept at one address."""

import asyncio
import logging
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.connections import connected
from tollway import database
from tollway.database import EmbeddedDatabase
from tollway.home import Home, StartError
from tollway.settings import Settings, read


def database_in(home_path: Path) -> EmbeddedDatabase:
    settings = read({"TOLLWAY_HOME": str(home_path)})
    assert isinstance(settings, Settings)
    home = Home(home_path)
    return EmbeddedDatabase(home, settings, home.encryption_key())


def postmaster(home: Path) -> int:
    return int((home / "postgres" / "postmaster.pid").read_text().split("\n")[0])


def before_preparing(monkeypatch: pytest.MonkeyPatch, happens: Callable[[int], object]) -> list[int]:
    """Let something happen whenever the server is up and its schema is not; the numbers of the times so far."""
    times: list[int] = []
    prepare = database.prepare

    async def prepared(*arguments: Any) -> None:
        times.append(len(times))
        happens(times[-1])
        await prepare(*arguments)

    monkeypatch.setattr(database, "prepare", prepared)
    return times


async def test_killed_before_its_schema_is_current_it_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"

    def kill(time: int) -> None:
        if time == 0:
            os.killpg(postmaster(home), signal.SIGKILL)

    times = before_preparing(monkeypatch, kill)
    embedded = database_in(home)
    try:
        url = (await embedded.open()).reveal()
        assert times == [0, 1]
        async with connected(url) as connection:
            assert await connection.fetchval('SELECT count(*) FROM "Providers"') > 0
    finally:
        await embedded.close()


async def test_one_that_dies_again_and_again_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    before_preparing(monkeypatch, lambda _: os.killpg(postmaster(home), signal.SIGKILL))
    embedded = database_in(home)
    try:
        with pytest.raises(StartError, match=r"^TOLLWAY_HOME: the embedded PostgreSQL cannot be used: .") as error:
            await embedded.open()
        assert "\n" not in str(error.value)
    finally:
        await embedded.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of a size that fills up."""
    mount = shutil.which("mount")
    where = tmp_path / "disk"
    where.mkdir()
    command = [str(mount), "-t", "tmpfs", "-o", "size=64m,mode=700", "tmpfs", str(where)]
    if mount is None or os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield where
    subprocess.run(["umount", "--lazy", str(where)], check=True)


async def test_a_disk_that_fills_up_before_the_schema_is_there_is_said(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filler = small_disk / "filler"

    def fill(_: int) -> None:
        with filler.open("wb") as file, pytest.raises(OSError, match="No space left"):
            while True:
                os.write(file.fileno(), bytes(4096))

    before_preparing(monkeypatch, fill)
    embedded = database_in(small_disk / "home")
    try:
        with pytest.raises(StartError, match="No space left on device") as error:
            await embedded.open()
        assert str(error.value).startswith("TOLLWAY_HOME: ")
        assert "\n" not in str(error.value)
    finally:
        await embedded.close()
    monkeypatch.undo()
    filler.unlink()
    embedded = database_in(small_disk / "home")
    try:
        assert await embedded.open()
    finally:
        await embedded.close()


async def test_it_is_kept_at_its_address_and_each_outage_is_told_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """When it begins and when it ends, however often a start fails in between."""
    monkeypatch.setattr(database, "_LONGEST_PAUSE_S", 0.02)
    home = tmp_path / "home"
    embedded = database_in(home)
    url = (await embedded.open()).reveal()
    keeping = asyncio.create_task(embedded.keep())
    try:
        with caplog.at_level(logging.INFO, "tollway.database"):
            password = home / "postgres-password"
            password.rename(home / "password-away")  # a start fails, and is tried again
            os.kill(postmaster(home), signal.SIGKILL)
            await said(caplog, "cannot be set up")
            await asyncio.sleep(0.2)
            (home / "password-away").rename(password)
            await said(caplog, "runs again")
        async with connected(url) as connection:
            assert await connection.fetchval("SELECT 1") == 1
        texts = [record.message for record in caplog.records if record.name == "tollway.database"]
        assert [text.partition(":")[0] for text in texts] == [
            "the embedded PostgreSQL died and is started again",
            "the embedded PostgreSQL cannot be set up",
            "the embedded PostgreSQL runs again",
        ]
    finally:
        keeping.cancel()
        await embedded.close()


async def said(caplog: pytest.LogCaptureFixture, words: str) -> None:
    for _ in range(1500):
        if any(words in record.message for record in caplog.records):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"it never said: {words}")
