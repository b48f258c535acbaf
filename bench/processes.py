"""Processes under measurement: starting, ending, pinning them; their CPU and their memory."""

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_CPU_CLOCK_OF_PROCESS = 2  # CPUCLOCK_SCHED, as glibc's clock_getcpuclockid(3) makes it


class BenchError(Exception):
    """A program did not do what the measurement needs; the text says which and what."""


@contextmanager
def running(
    name: str,
    command: Sequence[str],
    log: Path,
    *,
    cores: Collection[int],
    environment: Mapping[str, str] | None = None,
    patience_s: float = 5,
) -> Iterator[subprocess.Popen[bytes]]:
    """A child with its output in ``log``, in a session of its own so that Ctrl-C reaches only us.

    It starts on ``cores``, as will all that it starts. Ends it with SIGTERM, and with SIGKILL after ``patience_s``.
    """
    ours = os.sched_getaffinity(0)
    with log.open("wb") as output:
        os.sched_setaffinity(0, cores)  # the child inherits it
        try:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        finally:
            os.sched_setaffinity(0, ours)
    try:
        yield child
    except BenchError as problem:
        said = tail(log)
        raise BenchError(f"{problem}\n--- end of the output of {name}:\n{said}" if said else str(problem)) from None
    finally:
        family = {pid: _started(pid) for pid in descendants(child.pid)}
        child.terminate()
        try:
            child.wait(patience_s)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):  # a second Ctrl-C: no more patience
            child.kill()
            child.wait()
        for pid, started in family.items():
            if started and _started(pid) == started:  # else the number belongs to somebody else by now
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log, for messages."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def free_port() -> int:
    """A loopback port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_port(child: subprocess.Popen[bytes], port: int, limit_s: float = 10) -> None:
    """Return once ``port`` accepts connections; raise :class:`BenchError` when the child ends or time runs out."""
    deadline = time.monotonic() + limit_s
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if child.poll() is not None or time.monotonic() > deadline:
            raise BenchError(f"nothing listens on port {port} (exit code {child.returncode})")
        time.sleep(0.02)


def pin(pid: int, core: int) -> None:
    """Bind every thread of a process to one core; threads and children that come later inherit it."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), {core})


def descendants(pid: int) -> set[int]:
    """All processes below ``pid``, without itself."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: set[int] = set()
    todo = [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found.update(below)
        todo += below
    return found


def parent(pid: int) -> int:
    """The parent of a living process."""
    fields = _stat(pid)
    if not fields:
        raise BenchError(f"process {pid} has gone")
    return int(fields[1])


def only_below(pid: int, word: str, limit_s: float = 5) -> int:
    """The one process below ``pid`` whose command line contains ``word``, as soon as there is one."""
    deadline = time.monotonic() + limit_s
    while True:
        found = [one for one in descendants(pid) if word in _command_line(one)]
        if len(found) == 1:
            return found[0]
        if time.monotonic() > deadline:
            raise BenchError(f"{len(found)} processes of `{word}`, one was expected")
        time.sleep(0.02)


def cpu_s(pid: int) -> float:
    """CPU time of one process, all its threads, the ended ones too: exact to the nanosecond."""
    return time.clock_gettime_ns((~pid << 3) | _CPU_CLOCK_OF_PROCESS) / 1e9


def resident_kib(pid: int) -> int:
    """Resident size of one process, read as quickly as it can be."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE // 1024


def memory_kib(pid: int) -> tuple[int, int]:
    """Resident and proportional set size of one process. Socket buffers lie in the kernel and are in neither."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    sizes = dict(re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE))
    return int(sizes["Rss"]), int(sizes["Pss"])


@dataclass(frozen=True, slots=True)
class Family:
    """A process and all below it, but for the branches at ``without``."""

    top: int
    without: tuple[int, ...] = ()

    def members(self) -> set[int]:
        """The processes of the family that live now."""
        left_out = set(self.without).union(*map(descendants, self.without))
        return {self.top, *descendants(self.top)} - left_out

    def cpu_s(self) -> float:
        """CPU time so far, that of members that have ended included: exact to about 10 ms for each."""
        # utime, stime, and the same two of children that were waited for
        ticks = sum(int(field) for pid in self.members() for field in _stat(pid)[11:15])
        return ticks / _TICKS_PER_S

    def memory_kib(self) -> int:
        """The sum of the proportional set sizes: what is shared among the members counts once."""
        return sum(memory_kib(pid)[1] for pid in self.members())


def _started(pid: int) -> list[str]:
    """When a process began, in ticks since the boot; nothing where it has gone."""
    return _stat(pid)[19:20]


def _command_line(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    return ""


def _stat(pid: int) -> list[str]:
    """The fields of ``/proc/PID/stat`` from ``state`` on (the third of proc(5)); none where the process has gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
