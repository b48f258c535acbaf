"""A child process's end of the line to its supervisor.

The supervisor writes to the child's standard input: first one line of configuration, later ``stop`` (finish what is
running, then exit) and ``cut`` (finish now). The end of the input means that the supervisor died: also ``stop``. The
child writes one line, ``ready``, to its standard output.
"""

import asyncio
import signal
import sys
from collections.abc import Callable

from tollway.settings import ChildConfig

GROUP_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
"""What terminals and service managers send to every process of a gateway at once: orders for the supervisor alone.

It starts a child with these blocked, so that not even the first moments of one can be ended by them."""

_MAX_CONFIG = 1024 * 1024  # bytes of the first line; a real one is about 2 KiB
READY = b"ready\n"


def read_config() -> ChildConfig:
    """Wait for the first line of standard input. Blocks; for the very beginning of a process.

    Ends the process where there is none: the supervisor was stopped before it could tell us anything.
    """
    for number in GROUP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, GROUP_SIGNALS)
    with open(0, "rb", buffering=0, closefd=False) as stdin:  # unbuffered: nothing that follows is swallowed
        line = stdin.readline(_MAX_CONFIG)
    if not line:
        sys.exit(0)
    return ChildConfig.decode(line)


class SupervisorLine:
    """What the supervisor wants, for the rest of the child's life."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        """Set when the child shall finish."""
        self.cut = asyncio.Event()
        """Set when it shall not wait for running calls any longer."""

    async def open(self) -> None:
        """Begin to listen."""
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: _Lines(self._heard, self.stop.set), sys.stdin.buffer)

    def announce_ready(self) -> None:
        """Tell the supervisor that this process does its work."""
        sys.stdout.buffer.write(READY)
        sys.stdout.buffer.flush()

    def _heard(self, line: bytes) -> None:
        if line == b"cut":
            self.cut.set()
        self.stop.set()


class _Lines(asyncio.Protocol):
    def __init__(self, on_line: Callable[[bytes], None], on_end: Callable[[], None]) -> None:
        self._on_line = on_line
        self._on_end = on_end
        self._held = b""

    def data_received(self, data: bytes) -> None:
        *lines, self._held = (self._held + data).split(b"\n")
        for line in lines:
            self._on_line(line)

    def eof_received(self) -> None:
        self._on_end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_end()
