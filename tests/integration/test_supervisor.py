"""The supervisor with stand-ins for its children and its database: starting, restarting, stopping, in which order."""

import contextlib
import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tollway.home import Home, StartError
from tollway.settings import Settings, read
from tollway.store.server_socket import try_socket
from tollway.supervisor import next_steps

PATIENCE_S = 15.0

PROGRAM = '''
"""A child that notes what happens to it, answers "hello", and is busy as long as a file called "busy" lies there."""
import asyncio, os, socket, sys
from tollway.child import SupervisorLine, read_config

def main(name):
    config = read_config()
    asyncio.run(serve(name, config))

async def serve(name, config):
    def note(text):
        with (config.settings.home / "events").open("a") as events:
            events.write(f"{name} {text}\\n")
    note(f"started {os.getpid()}")
    if (config.settings.home / f"broken-{name}").exists():
        sys.exit(3)
    line = SupervisorLine()
    await line.open()
    server = await asyncio.start_server(hello, sock=socket.socket(fileno=config.listen_fd))
    line.announce_ready()
    await line.stop.wait()
    note("stopping")
    server.close()
    while (config.settings.home / f"busy-{name}").exists() and not line.cut.is_set():
        await asyncio.sleep(0.01)
    while (config.settings.home / f"deaf-{name}").exists():
        await asyncio.sleep(0.01)
    note("cut" if line.cut.is_set() else "ended")
    if (config.settings.home / f"failing-{name}").exists():
        sys.exit(4)

async def hello(reader, writer):
    writer.write(b"hello")
    writer.close()
'''

GATEWAY = """
import asyncio, os, signal, sys
from tollway import supervisor
from tollway.domain.keys import Secret
from tollway.home import Home
from tollway.observe import log
from tollway.settings import read

class Database:
    async def open(self):
        note("database opening")
        while (settings.home / "database-away").exists():
            await asyncio.sleep(0.01)
        return Secret("postgresql://user:canary-password@nowhere/db")

    async def settle(self):
        pass

    async def keep(self):
        await asyncio.Event().wait()

    async def close(self):
        note("database closed")

def note(text):
    with (settings.home / "events").open("a") as events:
        events.write(text + "\\n")

supervisor._GRACE_S = 0.5
settings = read(os.environ)
writer = log.start("supervisor", settings.log_level, settings.secrets)
home = Home(settings.home)
with home.locked():
    orders = supervisor.Orders()
    if (home.path / "early-signal").exists():
        os.kill(os.getpid(), signal.SIGTERM)
    code = asyncio.run(supervisor.Supervisor(settings, home, Database(), orders, "standin").run())
writer.stop()
sys.exit(code)
"""


class Standin:
    """One supervised stand-in gateway."""

    def __init__(self, directory: Path, **settings: str) -> None:
        self.home = directory / "home"
        (self.home / "journals").mkdir(parents=True)
        package = directory / "standin"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "program.py").write_text(PROGRAM)
        for name in ("dataplane", "controlplane"):
            (package / f"{name}.py").write_text(f"from standin.program import main\nmain({name!r})\n")
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(directory),
            "HOME": str(directory),
            "TOLLWAY_HOME": str(self.home),
            "PORT": "0",
            "ENCRYPTION_KEY": "ca" * 32,
            "OPENAI_API_KEY": "sk-canary-of-the-platform",
            **settings,
        }
        self.process: subprocess.Popen[str]

    def start(self, ready: bool = True, stderr: int = subprocess.PIPE) -> "Standin":
        self.process = subprocess.Popen(
            [sys.executable, "-c", GATEWAY],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )
        if ready:
            assert self.process.stdout is not None
            line = self.process.stdout.readline()
            match = re.fullmatch(
                r"LLM proxy server listening on port (\d+)\. Connected to PostgreSQL via asyncpg\n", line
            )
            assert match, (line, self.process.stderr and self.process.stderr.read())
            self.port = int(match[1])
        return self

    def mark(self, name: str) -> Path:
        path = self.home / name
        path.touch()
        return path

    @property
    def events(self) -> list[str]:
        path = self.home / "events"
        return path.read_text().splitlines() if path.exists() else []

    def await_event(self, event: str, times: int = 1) -> None:
        eventually(lambda: sum(line.startswith(event) for line in self.events) >= times, f"{event} in {self.events}")

    def pids(self, name: str) -> list[int]:
        return [int(line.split()[-1]) for line in self.events if line.startswith(f"{name} started")]

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(PATIENCE_S)

    def errors(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def hello(self) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE_S) as connection:
            return connection.recv(16)

    def end(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            family = psutil.Process(self.process.pid).children(recursive=True)
            self.process.kill()
            for child in family:
                child.kill()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        self.process.wait()


def eventually(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


Start = Callable[..., Standin]


@pytest.fixture
def standin(tmp_path: Path) -> Iterator[Start]:
    made: list[Standin] = []

    def make(**settings: str) -> Standin:
        made.append(Standin(tmp_path, **settings))
        return made[-1]

    yield make
    for one in made:
        one.end()


def test_it_is_announced_once_everything_works_and_ends_in_order(standin: Start) -> None:
    gateway = standin().start()
    assert gateway.hello() == b"hello"
    gateway.send(signal.SIGTERM)
    assert gateway.wait() == 0
    order = [re.sub(r" \d+$", "", event) for event in gateway.events]
    assert order[0] == "database opening"
    assert set(order[1:3]) == {"controlplane started", "dataplane started"}
    assert order[3:] == [
        "dataplane stopping",
        "dataplane ended",
        "controlplane stopping",
        "controlplane ended",
        "database closed",
    ]
    assert gateway.process.stdout is not None
    assert gateway.process.stdout.read() == "", "the ready line is all there is on standard output"


@pytest.mark.parametrize("admin_key", ["", "an-admin-key-that-is-long"])
def test_somebody_at_a_terminal_is_told_where_to_go_next(standin: Start, admin_key: str) -> None:
    """On standard error: standard output keeps its one line."""
    terminal, their_end = os.openpty()
    gateway = standin(**({"ADMIN_KEY": admin_key} if admin_key else {})).start(stderr=their_end)
    os.close(their_end)
    said = b""
    while b"Ctrl-C" not in said:
        said += os.read(terminal, 65536)
    expected = ["tollway keys create"] if admin_key else [f"curl -X POST http://127.0.0.1:{gateway.port}/api/generate"]
    for words in (*expected, f"http://127.0.0.1:{gateway.port}/v1/chat/completions", "demo/echo", "README.md"):
        assert words in said.decode()
    assert admin_key.encode() not in said or not admin_key
    gateway.send(signal.SIGTERM)
    assert gateway.wait() == 0
    os.close(terminal)
    assert gateway.process.stdout is not None
    assert gateway.process.stdout.read() == ""


def test_programs_that_start_it_are_spared_that(standin: Start) -> None:
    gateway = standin().start()
    gateway.send(signal.SIGTERM)
    assert gateway.wait() == 0
    assert "README" not in gateway.errors()


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({"HOST": "::1"}, "http://[::1]:4000/"),
        ({"HOST": "0.0.0.0", "ADMIN_KEY": "an-admin-key-that-is-long"}, "http://localhost:4000/"),
        ({"HOST": "::", "ADMIN_KEY": "an-admin-key-that-is-long"}, "http://localhost:4000/"),
        ({"HOST": "localhost"}, "http://localhost:4000/"),
    ],
)
def test_the_address_in_it_can_be_typed(environ: dict[str, str], url: str) -> None:
    settings = read(environ)
    assert isinstance(settings, Settings)
    assert url in next_steps(settings, 4000)


def test_a_second_sigterm_does_not_cut_the_drain_short(standin: Start) -> None:
    gateway = standin().start()
    busy = gateway.mark("busy-dataplane")
    for _ in range(3):
        gateway.send(signal.SIGTERM)
        gateway.await_event("dataplane stopping")
    with pytest.raises(ConnectionRefusedError):
        gateway.hello()
    busy.unlink()
    assert gateway.wait() == 0
    assert "dataplane ended" in gateway.events


def test_a_second_interrupt_cuts_the_drain_short(standin: Start) -> None:
    gateway = standin().start()
    gateway.mark("busy-dataplane")
    posting = gateway.mark("busy-controlplane")
    os.killpg(gateway.process.pid, signal.SIGINT)  # as a terminal does it: to every process of the group
    gateway.await_event("dataplane stopping")
    os.killpg(gateway.process.pid, signal.SIGINT)
    gateway.await_event("dataplane cut")
    gateway.await_event("controlplane stopping")
    posting.unlink()
    assert gateway.wait() == 0
    assert "controlplane ended" in gateway.events, "what was cut is still posted"
    assert "Traceback" not in gateway.errors()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_to_the_whole_group_is_an_order_to_the_supervisor_alone(
    standin: Start, number: signal.Signals
) -> None:
    gateway = standin().start()
    busy = gateway.mark("busy-dataplane")
    os.killpg(gateway.process.pid, number)
    gateway.await_event("dataplane stopping")
    os.killpg(gateway.process.pid, signal.SIGTERM)
    os.killpg(gateway.process.pid, signal.SIGHUP)
    busy.unlink()
    assert gateway.wait() == 0
    assert [event for event in gateway.events if event.endswith("ended")] == ["dataplane ended", "controlplane ended"]
    assert "failed" not in gateway.errors()


def test_a_group_signal_cannot_end_a_child_that_has_only_just_begun(standin: Start) -> None:
    gateway = standin()
    gateway.mark("database-away")
    gateway.start(ready=False)
    gateway.await_event("database opening")
    os.killpg(gateway.process.pid, signal.SIGTERM)
    assert gateway.wait() == 0
    assert "failed" not in gateway.errors()


def test_a_child_that_fails_while_it_is_stopping_is_logged(standin: Start) -> None:
    gateway = standin().start()
    gateway.mark("failing-dataplane")
    gateway.send(signal.SIGTERM)
    assert gateway.wait() == 0
    assert "dataplane failed while it was stopping" in gateway.errors()


def test_a_signal_before_anything_runs_ends_it_cleanly(standin: Start) -> None:
    gateway = standin()
    gateway.mark("early-signal")
    gateway.start(ready=False)
    assert gateway.wait() == 0
    assert gateway.events == [], "nothing was even begun"


def test_signals_are_obeyed_before_the_settings_are_read() -> None:
    """The first order of the whole program; what follows may take long."""
    script = textwrap.dedent("""
        import os, signal, sys
        from tollway import supervisor

        def read(environ):
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                os.kill(os.getpid(), number)
            return ["still here"]

        supervisor.read = read
        sys.exit(supervisor.serve({}))
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stderr) == (2, b"tollway: still here\n")


def test_a_child_that_does_not_end_is_killed_and_the_exit_code_says_so(standin: Start) -> None:
    gateway = standin(DRAIN_SECONDS="0").start()
    gateway.mark("deaf-dataplane")
    gateway.send(signal.SIGTERM)
    assert gateway.wait() == 1
    assert gateway.events[-1] == "database closed"
    assert "did not end in time" in gateway.errors()


@pytest.mark.parametrize("name", ["dataplane", "controlplane"])
def test_a_killed_child_is_started_again(standin: Start, name: str) -> None:
    gateway = standin().start()
    os.kill(gateway.pids(name)[0], signal.SIGKILL)
    gateway.await_event(f"{name} started", times=2)
    assert gateway.hello() == b"hello"
    gateway.send(signal.SIGTERM)
    assert gateway.wait() == 0


def test_connections_wait_while_the_worker_is_started_again(standin: Start) -> None:
    gateway = standin().start()
    os.kill(gateway.pids("dataplane")[0], signal.SIGKILL)
    assert gateway.hello() == b"hello"


def test_a_child_that_keeps_failing_is_started_ever_more_slowly(standin: Start) -> None:
    gateway = standin()
    gateway.mark("broken-controlplane")
    gateway.start(ready=False)
    gateway.await_event("controlplane started", times=4)
    gateway.send(signal.SIGTERM)
    assert gateway.wait() == 0
    lines = [line for line in gateway.errors().splitlines() if "died" in line]
    assert [re.findall(r'"pause_s":([\d.]+)', line)[0] for line in lines][:3] == ["0.1", "0.2", "0.4"]
    assert all('"exit_code":3' in line for line in lines)


def test_when_the_supervisor_is_killed_its_children_end(standin: Start) -> None:
    gateway = standin().start()
    children = psutil.Process(gateway.process.pid).children()
    assert len(children) == 2
    gateway.send(signal.SIGKILL)
    _, alive = psutil.wait_procs(children, timeout=PATIENCE_S)
    assert not alive


def test_it_can_be_stopped_while_it_waits_for_the_database(standin: Start) -> None:
    gateway = standin()
    gateway.mark("database-away")
    gateway.start(ready=False)
    gateway.await_event("database opening")
    gateway.send(signal.SIGTERM)
    assert gateway.wait() == 0
    assert gateway.events == ["database opening", "database closed"]
    assert "Traceback" not in gateway.errors()


def test_children_get_no_secret_by_their_arguments_or_environment(standin: Start) -> None:
    gateway = standin().start()
    for child in psutil.Process(gateway.process.pid).children():
        shown = " ".join(child.cmdline()) + str(child.environ())
        assert "canary" not in shown
        assert "ca" * 32 not in shown
        assert child.environ()["PYTHONPATH"], "what is not ours passes through"


def test_core_dumps_are_off_and_descriptors_plenty(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import resource
        from tollway.supervisor import raise_limits
        raise_limits()
        assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert soft == hard or soft >= 10_000
    """)
    subprocess.run([sys.executable, "-c", script], check=True, timeout=PATIENCE_S)


def test_the_control_socket_is_for_its_owner_alone(standin: Start) -> None:
    gateway = standin().start()
    path = gateway.home / "run" / "control.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    gateway.send(signal.SIGTERM)
    assert gateway.wait() == 0
    assert not path.exists()


def test_a_log_that_nobody_reads_does_not_hold_up_the_end(standin: Start) -> None:
    gateway = standin(LOG_LEVEL="debug").start()
    assert gateway.process.stderr is not None
    fill(gateway.process.stderr.fileno(), gateway)
    began = time.monotonic()
    gateway.send(signal.SIGTERM)
    assert gateway.wait() == 0
    assert time.monotonic() - began < 5


def fill(reading_end: int, gateway: Standin) -> None:
    """Fill the pipe whose reading end we hold, so that whoever writes to it next would wait."""
    writing_end = os.open(f"/proc/{gateway.process.pid}/fd/2", os.O_WRONLY | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing_end, b"x" * 65536)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing_end, b"x")
    os.close(writing_end)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_taken_port_is_one_line_and_exit_code_2(tmp_path: Path, host: str) -> None:
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as taken:
        port = taken.getsockname()[1]
        done = serve({"TOLLWAY_HOME": str(tmp_path / "home"), "HOST": host, "PORT": str(port)})
    assert done.returncode == 2
    assert done.stderr == f"tollway: PORT: {port} on {host} is already in use\n"


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "HTTP_PROXY"])
def test_a_proxy_that_cannot_be_used_is_one_line_and_exit_code_2(tmp_path: Path, name: str) -> None:
    done = serve({"TOLLWAY_HOME": str(tmp_path / "home"), name: "socks5://user:secret@127.0.0.1:1080"})
    assert done.returncode == 2
    assert done.stderr.startswith(f"tollway: {name}: ")
    assert done.stderr.count("\n") == 1
    assert "secret" not in done.stderr


def test_a_home_that_is_a_file_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    done = serve({"TOLLWAY_HOME": str(tmp_path / "home")})
    assert done.returncode == 2
    assert done.stderr.startswith("tollway: TOLLWAY_HOME: cannot use ")
    assert done.stderr.count("\n") == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that is nearly full."""
    mount = shutil.which("mount")
    where = tmp_path / "disk"
    where.mkdir()
    command = [str(mount), "-t", "tmpfs", "-o", "size=20m,mode=700", "tmpfs", str(where)]
    if mount is None or os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield where
    subprocess.run(["umount", "--lazy", str(where)], check=True)


@pytest.mark.parametrize(
    ("options", "said"),
    [("size=20m", "the disk is full"), ("size=4k", "the disk is full"), ("ro", "the file system is read-only")],
)
def test_a_disk_that_takes_no_database_is_one_line_and_exit_code_2(small_disk: Path, options: str, said: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(small_disk)], check=True)
    done = serve({"TOLLWAY_HOME": str(small_disk / "home")})
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("tollway: "))
    assert line.startswith("tollway: TOLLWAY_HOME: ")
    assert said in line
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "database", [{}, {"DATABASE_URL": "postgresql://nowhere.invalid/d", "ENCRYPTION_KEY": "ab" * 32}]
)
def test_a_disk_without_a_byte_left_is_one_line_and_exit_code_2(small_disk: Path, database: dict[str, str]) -> None:
    with contextlib.suppress(OSError), (small_disk / "full").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(65536))
    done = serve({"TOLLWAY_HOME": str(small_disk / "home"), **database})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"tollway: TOLLWAY_HOME: cannot use {small_disk / 'home'}: the disk is full\n"


def test_a_home_where_no_socket_can_be_has_it_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        if path.is_relative_to(tmp_path):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        try_socket(path)

    monkeypatch.setattr("tollway.home.try_socket", refuse)
    with Home(tmp_path / "home").control_socket() as path:
        assert not path.is_relative_to(tmp_path)
        assert path.parent.stat().st_mode & 0o777 == 0o700
    assert not path.parent.exists()
    monkeypatch.setattr("tollway.home.temporary_directories", lambda: [str(tmp_path)])
    with pytest.raises(StartError, match=r"^TMPDIR: "), Home(tmp_path / "home").control_socket():
        pass


def test_a_home_that_others_use_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    tmp_path.chmod(0o755)
    done = serve({"TOLLWAY_HOME": str(tmp_path)})
    assert done.returncode == 2
    assert done.stderr.startswith(f"tollway: TOLLWAY_HOME: {tmp_path} holds other files")
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def test_a_home_in_use_is_one_line_and_exit_code_2(standin: Start) -> None:
    gateway = standin().start()
    done = serve({"TOLLWAY_HOME": str(gateway.home)})
    assert done.returncode == 2
    expected = f"{gateway.home} is in use by another gateway (process {gateway.process.pid})"
    assert done.stderr == f"tollway: TOLLWAY_HOME: {expected}\n"


def test_a_host_that_is_not_here_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    done = serve({"TOLLWAY_HOME": str(tmp_path / "home"), "HOST": "192.0.2.1", "ADMIN_KEY": "an-admin-key"})
    assert done.returncode == 2
    assert done.stderr.startswith("tollway: HOST: ")
    assert done.stderr.count("\n") == 1


def serve(settings: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "import os, sys; from tollway.supervisor import serve; sys.exit(serve(os.environ))"],
        env={"PATH": os.environ["PATH"], "HOME": settings["TOLLWAY_HOME"], "PORT": "0", **settings},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
