"""PostgreSQL under the home starts whatever was killed before, as root and as anybody else."""

import asyncio
import contextlib
import errno
import grp
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psutil
import pytest

from fakes.connections import connected
from tollway.store import cluster, embedded, server_binaries, server_socket
from tollway.store.embedded import EmbeddedPostgres, running_url
from tollway.store.server_binaries import binaries, psql
from tollway.store.server_errors import EmbeddedError
from tollway.store.server_process import ServerProcess

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


def directory_of(url: str) -> Path:
    """Where the socket lies that the URI names."""
    return Path(parse_qs(urlsplit(url).query)["host"][0])


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
        with pytest.raises(Exception, match="password"):
            async with connected(url, password="guess"):
                pass
    for secret in ("postgres-password", "postgres.log"):
        assert (tmp_path / secret).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "postgres").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("length", ["short", "long"])
async def test_it_listens_on_a_socket_that_its_user_alone_reaches(tmp_path: Path, long_home: Path, length: str) -> None:
    home = tmp_path / "home" if length == "short" else long_home
    async with started(home) as (_, url):
        server = psutil.Process(postmaster(home))
        assert server.net_connections("inet") == []
        directory = directory_of(url)
        assert directory.is_relative_to(home) == (length == "short")
        assert directory.stat().st_mode & 0o777 == 0o700
        assert directory.stat().st_uid == server.uids().effective
        (found,) = directory.glob(".s.PGSQL*[0-9]")
        assert found.stat().st_mode & 0o777 == 0o700
        assert found.stat().st_uid == server.uids().effective
    assert directory.is_relative_to(home) or not directory.exists(), "nothing is left outside the home"


async def test_every_client_of_libpq_understands_the_address(long_home: Path) -> None:
    async with started(long_home) as (_, url):
        for program, arguments in (("psql", ["-XAtc", "SELECT 1"]), ("pg_dump", ["--schema-only"])):
            command = [psql().with_name(program), url, *arguments]
            done = subprocess.run(command, capture_output=True, text=True, env={"PGPORT": "1"})
            assert done.returncode == 0, done


async def test_the_server_has_a_session_of_its_own(tmp_path: Path) -> None:
    async with started(tmp_path):
        assert os.getsid(postmaster(tmp_path)) == postmaster(tmp_path)


async def test_a_server_that_outlived_its_gateway_is_adopted(tmp_path: Path) -> None:
    first = EmbeddedPostgres(tmp_path)
    url = await first.start()
    await write(url, 1)
    pid = postmaster(tmp_path)
    async with started(tmp_path) as (second, again):  # the first gateway was killed: nobody stopped its server
        assert (again, postmaster(tmp_path)) == (url, pid)
        assert await values(url) == [1]
        await second.stop()
        await asyncio.wait_for(first.lost(), 5)


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
    await asyncio.wait_for(server.lost(), 5)
    assert await server.start() == url
    assert await values(url) == [1]
    await server.stop()


async def test_a_lock_file_that_names_another_program_does_no_harm(tmp_path: Path) -> None:
    async with started(tmp_path) as (server, url):
        await write(url, 1)
        lock = (tmp_path / "postgres" / "postmaster.pid").read_text().split("\n", 1)[1]
        os.killpg(postmaster(tmp_path), signal.SIGKILL)
        await server.lost()
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


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(str(path))


def a_directory(path: Path) -> None:
    path.mkdir()
    (path / "file").touch()


@pytest.mark.parametrize("put", [a_socket, a_directory, Path.touch], ids=["socket", "directory", "file"])
@pytest.mark.parametrize("length", ["short", "long"])
async def test_whatever_lies_in_the_way_it_comes_back_at_the_same_address(
    tmp_path: Path, long_home: Path, length: str, put: Callable[[Path], None]
) -> None:
    home = tmp_path / "home" if length == "short" else long_home
    server = EmbeddedPostgres(home)
    url = await server.start()
    try:
        await write(url, 1)
        os.killpg(postmaster(home), signal.SIGKILL)
        await asyncio.wait_for(server.lost(), 5)
        (path,) = directory_of(url).glob(".s.PGSQL*[0-9]")
        path.unlink()
        put(path)
        assert await server.start() == url
        assert await values(url) == [1]
    finally:
        await server.stop()


@as_root
async def test_a_directory_that_is_a_strangers_is_not_used(long_home: Path) -> None:
    server = EmbeddedPostgres(long_home)
    url = await server.start()
    os.killpg(postmaster(long_home), signal.SIGKILL)
    await asyncio.wait_for(server.lost(), 5)
    directory = directory_of(url)
    shutil.rmtree(directory)
    directory.mkdir()
    os.chown(directory, 1, 1)
    with pytest.raises(EmbeddedError, match="belongs to somebody else"):
        await server.start()
    async with started(long_home) as (_, other):  # the next gateway may have another address
        assert directory_of(other) != directory
        await write(other, 1)
    assert directory.stat().st_uid == 1
    directory.rmdir()


async def test_a_socket_that_was_removed_is_missed_and_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_LOOK_AFTER_S", 0.05)
    async with started(tmp_path) as (server, url):
        await write(url, 1)
        (path,) = directory_of(url).glob(".s.PGSQL*[0-9]")
        lost = asyncio.ensure_future(server.lost())
        await asyncio.wait({lost}, timeout=0.2)
        assert not lost.done(), "nothing is wrong yet"
        path.unlink()
        await asyncio.wait_for(lost, 10)
        assert await server.start() == url
        assert await values(url) == [1]


async def test_where_no_socket_can_be_it_says_so(long_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(server_socket, "try_socket", refuse)
    with pytest.raises(
        EmbeddedError, match=r"needs a directory for its Unix socket .* set TMPDIR .*not supported"
    ) as error:
        await EmbeddedPostgres(long_home).start()
    tried = re.findall(r"(/\S+/tollway-\w+): ", str(error.value))
    assert tried
    assert not [path for path in tried if Path(path).exists()], "nothing is left behind"


async def test_it_waits_for_the_end_instead_of_looking_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    is_alive = ServerProcess.is_alive

    def counted(process: ServerProcess) -> bool:
        nonlocal looks
        looks += 1
        return is_alive(process)

    first = EmbeddedPostgres(tmp_path)
    url = await first.start()
    adopting = EmbeddedPostgres(tmp_path)
    assert await adopting.start() == url
    monkeypatch.setattr(ServerProcess, "is_alive", counted)
    waiting = [asyncio.ensure_future(server.lost()) for server in (first, adopting)]
    async with connected(url) as connection:
        await connection.execute("SELECT pg_sleep(0.5)")
    assert not any(one.done() for one in waiting)
    assert looks <= len(waiting)
    os.kill(postmaster(tmp_path), signal.SIGTERM)
    await asyncio.wait_for(asyncio.gather(*waiting), 10)
    assert looks <= 2 * len(waiting)


async def test_the_end_is_noticed_where_the_system_does_not_tell_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pid: int) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "pidfd_open", refuse)
    async with started(tmp_path) as (server, url):
        os.kill(postmaster(tmp_path), signal.SIGKILL)
        await asyncio.wait_for(server.lost(), 10)
        assert await server.start() == url


async def test_a_cluster_that_was_not_finished_is_made_anew(tmp_path: Path) -> None:
    junk = tmp_path / "postgres-unfinished" / "data" / "base"
    junk.mkdir(parents=True)
    (tmp_path / "postgres-password").write_text("of no use")
    async with started(tmp_path) as (_, url):
        await write(url, 1)
    assert not (tmp_path / "postgres-unfinished").exists()


async def test_another_major_version_is_one_line(tmp_path: Path) -> None:
    async with started(tmp_path):
        pass
    (tmp_path / "postgres" / "PG_VERSION").write_text("12\n")
    with pytest.raises(EmbeddedError, match=r"was made by PostgreSQL 12, and this is 18$"):
        await EmbeddedPostgres(tmp_path).start()


async def test_what_cannot_be_started_says_so_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_ATTEMPTS", 1)
    with pytest.raises(EmbeddedError, match=r"does not start: FATAL: +invalid value .*log\)$") as error:
        await EmbeddedPostgres(tmp_path, {"shared_buffers": "many"}).start()
    assert "\n" not in str(error.value)
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedError, match="cannot be set up"):
        await EmbeddedPostgres(tmp_path / "file").start()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of as many KiB as a test says by mounting it anew."""
    mount = shutil.which("mount")
    where = tmp_path / "disk"
    where.mkdir()
    command = [str(mount), "-t", "tmpfs", "-o", "size=100k,mode=700", "tmpfs", str(where)]
    if mount is None or os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield where
    subprocess.run(["umount", "--lazy", str(where)], check=True)


@pytest.mark.parametrize("kib", [8, 16, 100, 30_000, 40_000])
async def test_a_full_disk_is_said_and_spoils_nothing(small_disk: Path, kib: int) -> None:
    """From the first file to the last step, which makes the database in the new cluster."""
    subprocess.run(["mount", "-o", f"remount,size={kib}k", str(small_disk)], check=True)
    home = small_disk / "home"
    with pytest.raises(EmbeddedError, match="the disk is full") as error:
        await EmbeddedPostgres(home).start()
    assert "\n" not in str(error.value)
    assert list(home.iterdir()) == []
    subprocess.run(["mount", "-o", "remount,size=100m", str(small_disk)], check=True)
    async with started(home) as (_, url):
        await write(url, 1)


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
def public_directory() -> Iterator[Path]:
    """Where every user gets to."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def owned_by(path: Path, user: pwd.struct_passwd) -> Path:
    path.mkdir()
    os.chown(path, user.pw_uid, user.pw_gid)
    return path


SOMEBODY = next(user for user in pwd.getpwall() if user.pw_uid not in (0, NOBODY.pw_uid))
as_nobody = {"user": NOBODY.pw_uid, "group": NOBODY.pw_gid, "extra_groups": []}


@as_root
def test_a_normal_user_starts_it_too(public_directory: Path) -> None:
    home = owned_by(public_directory / "home", SOMEBODY)
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(SOMEBODY.pw_uid), str(SOMEBODY.pw_gid), home]
    result = subprocess.run(command, cwd="/", capture_output=True, text=True)
    assert result.stdout.split() == [str(SOMEBODY.pw_uid), "works"], result.stderr


@as_root
def test_a_user_without_a_name_is_told_what_initdb_wants(public_directory: Path) -> None:
    home = public_directory / "home"
    home.mkdir()
    os.chown(home, 54_321, 54_321)
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), "54321", "54321", home]
    result = subprocess.run(command, cwd="/", capture_output=True, text=True)
    assert "EmbeddedError: no PostgreSQL can be set up: initdb wants a user with a name" in result.stderr


@as_root
@pytest.mark.parametrize("right", ["chown", "setuid", "setgid"])
def test_a_root_that_may_not_become_another_is_told_so(tmp_path: Path, right: str) -> None:
    """As in containers without these capabilities."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("needs setpriv")
    script = "import asyncio, sys; from pathlib import Path; from tollway.store.embedded import EmbeddedPostgres\n"
    script += "asyncio.run(EmbeddedPostgres(Path(sys.argv[1])).start())"
    command = [setpriv, "--bounding-set", f"-{right}", sys.executable, "-c", script, tmp_path / "home"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert "EmbeddedError: PostgreSQL does not run as root, and this root may not become" in result.stderr
    assert list((tmp_path / "home").iterdir()) == []


@as_root
async def test_root_gives_way_to_whoever_owns_the_data(public_directory: Path) -> None:
    home = public_directory / "home"
    async with started(home):
        pass
    for path in [home / "postgres", *(home / "postgres").rglob("*")]:
        os.chown(path, SOMEBODY.pw_uid, SOMEBODY.pw_gid, follow_symlinks=False)
    async with started(home) as (_, url):
        assert Path(f"/proc/{postmaster(home)}").stat().st_uid == SOMEBODY.pw_uid
        await write(url, 1)


@as_root
async def test_root_runs_it_as_a_user_of_its_own(public_directory: Path) -> None:
    home = public_directory / "home"
    before = {process.uids().real for process in psutil.process_iter()}
    async with started(home) as (_, url):
        await write(url, 1)
        uid = psutil.Process(postmaster(home)).uids().real
        with pytest.raises(KeyError):
            pwd.getpwuid(uid)
        with pytest.raises(KeyError):
            grp.getgrgid(uid)
        assert uid not in before
        for path in [home / "postgres", *(home / "postgres").rglob("*")]:
            assert (path.lstat().st_uid, path.lstat().st_gid) == (uid, uid), path
        assert psutil.Process(postmaster(home)).gids().real == uid
        assert (home.stat().st_uid, home.stat().st_mode & 0o777) == (0, 0o700)


BREAK_IN = """
    import os, signal, socket, sys

    uid, gid, server = map(int, sys.argv[1:4])
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    print("id:", os.geteuid(), os.getegid())

    def tried(what, *arguments):
        try:
            what(*arguments)
        except OSError:
            return
        print("succeeded:", what, *arguments)

    tried(os.kill, server, signal.SIGHUP)
    tried(os.listdir, f"/proc/{server}/fd")
    for path in sys.argv[4:]:
        tried(open, path)
        tried(open, path, "r+")
        tried(os.listdir, path)
        tried(socket.socket(socket.AF_UNIX).connect, path)
"""


@as_root
@pytest.mark.parametrize("length", ["short", "long"])
async def test_another_service_that_runs_as_nobody_has_no_way_in(
    public_directory: Path, long_home: Path, length: str
) -> None:
    home = public_directory / "home" if length == "short" else long_home
    async with started(home) as (_, url):
        await write(url, 1)
        server = postmaster(home)
        home.chmod(0o755)  # even if somebody opened it
        paths = [
            f"/proc/{server}/cwd/pg_hba.conf",
            home / "postgres" / "postmaster.pid",
            home / "postgres-password",
            directory_of(url),
            directory_of(url) / ".s.PGSQL.5432",
        ]
        ids = [str(NOBODY.pw_uid), str(NOBODY.pw_gid)]
        command = [sys.executable, "-c", textwrap.dedent(BREAK_IN), *ids, str(server), *paths]
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["id:", *ids], "nothing else succeeded"
        assert await values(url) == [1]


def release_before(home: Path) -> subprocess.Popen[bytes]:
    """A cluster as the release before made and ran it as root: it belongs to nobody and listens on TCP."""
    cluster.prepare(home)
    data = home / "postgres"
    for path in [data, *data.rglob("*")]:
        os.chown(path, NOBODY.pw_uid, NOBODY.pw_gid)
    (data / "pg_hba.conf").write_text("local all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [binaries(None) / "postgres", "-D", "/proc/self/cwd", "-p", str(port)]
    command += ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
    server = subprocess.Popen(command, cwd=data, env={"LC_ALL": "C"}, stderr=-3, start_new_session=True, **as_nobody)
    deadline = time.monotonic() + 30
    while b"ready" not in (data / "postmaster.pid").read_bytes() if (data / "postmaster.pid").exists() else True:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    password = (home / "postgres-password").read_text()
    asyncio.run(write(f"postgresql://tollway:{password}@127.0.0.1:{port}/tollway?sslmode=disable", 1))
    return server


def checkpointer(server: int) -> psutil.Process:
    """One process of a server, which stays as long as it."""
    for child in psutil.Process(server).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # others come and go
            if "checkpointer" in " ".join(child.cmdline()):
                return child
    raise AssertionError("it has none")


@as_root
@pytest.mark.parametrize("state", ["stopped", "running", "killed", "interrupted", "restored"])
def test_a_home_of_the_release_before_is_moved_over(public_directory: Path, state: str) -> None:
    """By the next start alone, whatever became of its server; nobody's way in is closed."""
    home = public_directory / "home"
    old = release_before(home)
    data = home / "postgres"
    with (data / "pg_hba.conf").open("a") as access:
        access.write("local all all trust\n")  # as somebody may have done who ran as nobody
    left = checkpointer(old.pid)
    if state == "killed":
        left.suspend()  # it does not notice that its server has died
    if state != "running":
        old.send_signal(signal.SIGKILL if state == "killed" else signal.SIGINT)
        old.wait(30)
    if state == "interrupted":  # by a kill while the files were handed over
        os.chown(data, 0, 0)
    if state == "restored":  # from an archive, without owners
        for path in [data, *data.rglob("*")]:
            os.chown(path, 0, 0)

    async def check() -> None:
        async with started(home) as (_, url):
            assert await values(url) == [1]
            uid = psutil.Process(postmaster(home)).uids().real
            assert uid not in (0, NOBODY.pw_uid)
            assert psutil.Process(postmaster(home)).net_connections("inet") == []
            for path in [data, *data.rglob("*")]:
                assert (path.lstat().st_uid, path.lstat().st_gid) == (uid, uid), path
            assert "trust" not in (data / "pg_hba.conf").read_text()
            async with connected(url) as connection:
                rules = await connection.fetch("SELECT DISTINCT auth_method FROM pg_hba_file_rules")
            assert [rule["auth_method"] for rule in rules] == ["scram-sha-256"]

    asyncio.run(check())
    assert old.wait(30) is not None
    assert not left.is_running() or left.status() == psutil.STATUS_ZOMBIE


@as_root
def test_what_lies_in_the_data_of_the_release_before_leads_root_nowhere(public_directory: Path) -> None:
    """Links that somebody put there who ran as nobody."""
    home, outside = public_directory / "home", public_directory / "roots"
    old = release_before(home)
    old.send_signal(signal.SIGINT)
    old.wait(30)
    outside.mkdir()
    treasure, secret = outside / "treasure", outside / "secret"
    treasure.write_text("root's")
    secret.write_text("root's")
    (home / "postgres" / "pg_hba.conf").unlink()
    (home / "postgres" / "pg_hba.conf").symlink_to(treasure)
    (home / "postgres" / "socket").symlink_to(outside)
    (home / "postgres" / "link").symlink_to(outside)
    os.link(secret, home / "postgres" / "second-name")

    async def check() -> None:
        async with started(home) as (_, url):
            assert await values(url) == [1]

    asyncio.run(check())
    assert {path.name for path in outside.iterdir()} == {"treasure", "secret"}
    for path in (outside, treasure, secret):
        assert path.stat().st_uid == 0
    assert treasure.read_text() == "root's"


@as_root
async def test_directories_of_roots_own_keep_their_rights(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    async with started(private / "home") as (_, url):
        await write(url, 1)
    assert [path.stat().st_mode & 0o777 for path in (private, private / "home")] == [0o700, 0o700]
    assert (private / "home").stat().st_uid == 0


@as_root
async def test_binaries_out_of_its_reach_are_copied_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = server_binaries._wheel()
    private = tmp_path / "venv"
    private.mkdir(mode=0o700)
    shutil.copytree(original, private / original.parent.name / original.name)
    libraries = original.parent.with_suffix(".libs")
    if libraries.exists():
        shutil.copytree(libraries, private / libraries.name)
    monkeypatch.setattr(server_binaries, "_wheel", lambda: private / original.parent.name / original.name)
    with tempfile.TemporaryDirectory() as installation:
        monkeypatch.setattr(server_binaries, "_INSTALLATION", Path(installation))
        stamp = (original / "bin" / "postgres").stat()
        left = Path(installation) / f"postgresql-18-{stamp.st_size:x}-{int(stamp.st_mtime):x}.{2**22 + 1}"
        left.mkdir()  # by a gateway that was killed while it copied
        for _ in range(2):
            async with started(tmp_path / "home") as (_, url):
                await write(url, 1)
        assert len(list(Path(installation).iterdir())) == 1
    assert private.stat().st_mode & 0o777 == 0o700
