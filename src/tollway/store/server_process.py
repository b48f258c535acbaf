"""The first process of the embedded PostgreSQL, a child of ours or one that outlived the gateway that started it."""

import asyncio
import contextlib
import os
import subprocess
from pathlib import Path

_PROC = Path("/proc")  # Linux has it, macOS does not
_LOOK_S = 0.5  # where the system cannot tell of the end of a process


class ServerProcess:
    """One process, as long as it works on this data: its number alone may be given to another program later."""

    def __init__(self, pid: int, data: Path, child: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self._data = data
        self._child = child

    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._child.poll() is None if self._child is not None else works_on(self.pid, self._data)

    def send(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def ended(self) -> None:
        """Wait for its end, at no cost where the system tells of it (Linux since 5.3)."""
        try:
            handle = os.pidfd_open(self.pid)
        except (AttributeError, OSError):
            while self.is_alive():  # noqa: ASYNC110  # nothing here could set an event
                await asyncio.sleep(_LOOK_S)
            return
        loop = asyncio.get_running_loop()
        end = asyncio.Event()
        loop.add_reader(handle, end.set)
        try:
            if self.is_alive():  # asked once the handle is there: it is this process's for certain
                await end.wait()
                self.is_alive()  # a child is taken off the system's table
        finally:
            loop.remove_reader(handle)
            os.close(handle)


def works_on(pid: int, data: Path) -> bool:
    """Whether the process is a PostgreSQL on this data."""
    try:
        if _PROC.exists():
            process = _PROC / str(pid)
            # A shell may stand there, too; of other users' processes only the name can be read.
            return (process / "comm").read_text() == "postgres\n" and (process / "cwd").samefile(data)
        command = subprocess.run(["/bin/ps", "-o", "command=", "-p", str(pid)], capture_output=True, check=False)  # noqa: S603
        return os.fsencode(data) in command.stdout
    except OSError:
        return False


def all_that_work_on(data: Path) -> list[int]:
    """The processes of a server, also those that its first one left behind; none where the system does not tell."""
    return [int(entry.name) for entry in _PROC.glob("[0-9]*") if works_on(int(entry.name), data)]
