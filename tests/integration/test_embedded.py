"""PostgreSQL under the home starts whatever was killed before, as root and as anybody else."""

import asyncio
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fakes.connections import connected
from tollway.store import embedded
from tollway.store.embedded import EmbeddedError, EmbeddedPostgres, running_url

NOBODY = pwd.getpwnam("nobody")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@asynccontextmanager
async def started(home: Path) -> AsyncIterator[tuple[EmbeddedPostgres, str]]:
    server = EmbeddedPostgres(home, {"fsync": "off"})
    url = await server.start()
    try:
        yield server, url
    finally:
        await server.stop()


def postmaster(home: Path) -> int:
    return int((home / "postgres" / "postmaster.pid").read_text().split("\n")[0])


async def write(url: str, value: int) -> None:
    async with connected(url) as connection:
        await connection.execute(f"CREATE TABLE IF NOT EXISTS t (v int); INSERT INTO t VALUES ({value})")


async def values(url: str) -> list[int]:
    async with connected(url) as connection:
        return [row["v"] for row in await connection.fetch("SELECT v FROM t ORDER BY v")]


@pytest.fixture
def long_home(tmp_path: Path) -> Path:
    """Longer than the path of a Unix socket may be, with what shells trip over."""
    return tmp_path / ("a long % name'$ " * 8) / "home"


async def test_data_and_address_survive_a_stop_and_a_start(long_home: Path) -> None:
    async with started(long_home) as (_, url):
        await write(url, 1)
        assert running_url(long_home) == url
    assert running_url(long_home) is None
    async with started(long_home) as (_, again):
        assert again == url
        assert await values(url) == [1]


async def test_a_second_start_takes_a_fraction_of_a_second(tmp_path: Path) -> None:
    async with started(tmp_path):
        pass
    began = time.perf_counter()
    async with started(tmp_path):
        assert time.perf_counter() - began < 1.0  # 0.03 s where nothing else runs


async def test_nobody_enters_without_the_password(tmp_path: Path) -> None:
    async with started(tmp_path) as (_, url):
        assert url.partition("@")[2].startswith("127.0.0.1:")
        with pytest.raises(Exception, match="password"):
            async with connected(url, password="guess"):
                pass
    secret = tmp_path / "postgres-password"
    assert secret.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "postgres").stat().st_mode & 0o777 == 0o700


async def test_the_server_has_a_session_of_its_own(tmp_path: Path) -> None:
    async with started(tmp_path):
        assert os.getsid(postmaster(tmp_path)) == postmaster(tmp_path)


async def test_a_server_that_outlived_its_gateway_is_adopted(tmp_path: Path) -> None:
    first = EmbeddedPostgres(tmp_path)
    url = await first.start()
    await write(url, 1)
    async with started(tmp_path) as (second, again):  # the first gateway was killed: nobody stopped its server
        assert again == url
        assert await values(url) == [1]
        await second.stop()
        await asyncio.wait_for(first.died(), 5)


@pytest.mark.parametrize("victim", ["postmaster", "everything"])
async def test_after_kill_9_it_starts_again_with_all_that_was_committed(tmp_path: Path, victim: str) -> None:
    server = EmbeddedPostgres(tmp_path)
    url = await server.start()
    await write(url, 1)
    pid = postmaster(tmp_path)
    if victim == "everything":
        os.killpg(pid, signal.SIGKILL)
    else:
        os.kill(pid, signal.SIGKILL)
    await asyncio.wait_for(server.died(), 5)
    assert await server.start() == url
    assert await values(url) == [1]
    await server.stop()


async def test_a_lock_file_that_names_another_program_does_no_harm(tmp_path: Path) -> None:
    async with started(tmp_path) as (server, url):
        await write(url, 1)
        lock = (tmp_path / "postgres" / "postmaster.pid").read_text().split("\n", 1)[1]
        os.killpg(postmaster(tmp_path), signal.SIGKILL)
        await server.died()
    user = NOBODY.pw_uid if os.geteuid() == 0 else os.geteuid()
    other = subprocess.Popen(["sleep", "60"], user=user)
    try:
        (tmp_path / "postgres" / "postmaster.pid").write_text(f"{other.pid}\n{lock}")
        async with started(tmp_path) as (_, again):
            assert await values(again) == [1]
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


async def test_a_taken_port_is_given_up(tmp_path: Path) -> None:
    async with started(tmp_path) as (_, url):
        port = int(url.rpartition(":")[2].partition("/")[0])
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        async with started(tmp_path) as (_, again):
            assert again != url
            await write(again, 1)


async def test_a_cluster_that_was_not_finished_is_made_anew(tmp_path: Path) -> None:
    junk = tmp_path / "postgres-unfinished" / "data" / "base"
    junk.mkdir(parents=True)
    (tmp_path / "postgres-password").write_text("of no use")
    async with started(tmp_path) as (_, url):
        await write(url, 1)
    assert not (tmp_path / "postgres-unfinished").exists()


async def test_what_cannot_be_started_says_so_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_ATTEMPTS", 1)
    async with started(tmp_path):
        pass
    (tmp_path / "postgres" / "PG_VERSION").write_text("12\n")
    with pytest.raises(EmbeddedError, match=r"does not start: .*FATAL.*initialized by PostgreSQL version 12") as error:
        await EmbeddedPostgres(tmp_path).start()
    assert "\n" not in str(error.value)
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedError, match="cannot be set up"):
        await EmbeddedPostgres(tmp_path / "file").start()


SCRIPT = """
    import asyncio, asyncpg, concurrent.futures.thread, os, sys
    from pathlib import Path
    from tollway.store.embedded import EmbeddedPostgres

    # Not by the parent: the interpreter may be out of the user's reach.
    os.setgroups([])
    os.setgid(int(sys.argv[2]))
    os.setuid(int(sys.argv[1]))

    async def main():
        server = EmbeddedPostgres(Path(sys.argv[3]))
        connection = await asyncpg.connect(await server.start())
        print(os.geteuid(), await connection.fetchval("SELECT 'works'"))
        await connection.close()
        await server.stop()

    asyncio.run(main())
"""


@pytest.fixture
def nobodys_directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        home = Path(name) / "home"
        home.mkdir()
        os.chown(home, NOBODY.pw_uid, NOBODY.pw_gid)
        yield home


@as_root
def test_a_normal_user_starts_it_too(nobodys_directory: Path) -> None:
    who = [str(NOBODY.pw_uid), str(NOBODY.pw_gid)]
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), *who, nobodys_directory]
    result = subprocess.run(command, cwd="/", capture_output=True, text=True)
    assert result.stdout.split() == [str(NOBODY.pw_uid), "works"], result.stderr


@as_root
async def test_root_gives_way_to_whoever_owns_the_data(nobodys_directory: Path) -> None:
    async with started(nobodys_directory):
        assert Path(f"/proc/{postmaster(nobodys_directory)}").stat().st_uid == NOBODY.pw_uid


@as_root
async def test_directories_of_roots_own_keep_their_rights(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    async with started(private / "home") as (_, url):
        await write(url, 1)
    assert [path.stat().st_mode & 0o777 for path in (private, private / "home")] == [0o700, 0o700]
    assert (private / "home").stat().st_uid == 0


@as_root
async def test_binaries_out_of_nobodys_reach_are_copied_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = embedded._wheel()
    private = tmp_path / "venv"
    private.mkdir(mode=0o700)
    shutil.copytree(original, private / original.parent.name / original.name)
    libraries = original.parent.with_suffix(".libs")
    if libraries.exists():
        shutil.copytree(libraries, private / libraries.name)
    monkeypatch.setattr(embedded, "_wheel", lambda: private / original.parent.name / original.name)
    with tempfile.TemporaryDirectory() as installation:
        monkeypatch.setattr(embedded, "_INSTALLATION", Path(installation))
        for _ in range(2):
            async with started(tmp_path / "home") as (_, url):
                await write(url, 1)
        assert len(list(Path(installation).iterdir())) == 1
    assert private.stat().st_mode & 0o777 == 0o700
