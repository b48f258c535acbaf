"""What the machine gives this process, and what follows from it for the bounds that no setting names."""

import ctypes
import functools
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, cast

from tollway.http1.limits import ServerLimits
from tollway.settings import Settings

USUAL_BUFFERED_BYTES: Final = 512 * 1024 * 1024
"""For bodies and answers, unless the setting says otherwise, the machine is small, or bodies may be very large."""
MEMORY_SHARE: Final = 4
"""… and no more than a quarter of the machine's memory: Python, PostgreSQL and the kernel's buffers want some, too."""

OWN_FILES: Final = 64
"""Descriptors for ourselves: some 25 for the loop, the journal, the database, the log, and 32 to the control plane."""
LEAST_CONNECTIONS: Final = 8
"""On either side, however few descriptors there are."""

_MMAP_THRESHOLD: Final = -3  # M_MMAP_THRESHOLD in glibc's malloc.h
_APART_BYTES: Final = 1024 * 1024  # smaller pieces come and go too often for pages of their own

_LIMITS_OF_GROUPS: Final = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class Connections(NamedTuple):
    """How many connections the descriptors are enough for."""

    clients: int
    refused: int
    """Beyond them, clients that are told that there is no room."""
    providers: int


def connections(files: int, most: ServerLimits) -> Connections:
    """Divide ``files`` descriptors: one half for clients, so that a call can always have a connection to a provider."""
    half = max(0, files - OWN_FILES) // 2
    refused = min(most.max_refused, half // 8)
    clients = min(most.max_connections, max(LEAST_CONNECTIONS, half - refused))
    return Connections(clients, refused, max(LEAST_CONNECTIONS, files - OWN_FILES - clients - refused))


def files() -> int:
    """Descriptors that this process may have open."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limit if limit != resource.RLIM_INFINITY else 2**20


def buffered_bytes(settings: Settings, memory: int) -> int:
    """How many bytes of bodies and answers a worker may hold on a machine with so much memory."""
    if settings.max_buffered_bytes is not None:
        return settings.max_buffered_bytes
    return max(settings.least_buffered_bytes, min(USUAL_BUFFERED_BYTES, memory // MEMORY_SHARE // settings.workers))


def memory() -> int:
    """Bytes of memory of the machine, or of the container that we run in, whichever is less."""
    found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for name in _LIMITS_OF_GROUPS:
        try:
            found = min(found, int(Path(name).read_text()))
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return found


def keep_large_blocks_apart() -> None:
    """Let the C library give large bodies back to the system as soon as they are freed.

    glibc raises its threshold for blocks of their own to the largest one that was freed; then bodies lie in the heap,
    below whatever came after them, and stay with the process. A threshold that was set is not raised any more. Other
    libraries have nothing of that name, and need none.
    """
    if (mallopt := _of_allocator("mallopt")) is not None:
        mallopt(_MMAP_THRESHOLD, _APART_BYTES)


def give_memory_back() -> None:
    """Let the C library return free pages to the system, also those between used ones; some 50 µs for a mebibyte."""
    if (malloc_trim := _of_allocator("malloc_trim")) is not None:
        malloc_trim(0)


@functools.cache
def _of_allocator(name: str) -> Callable[..., int] | None:
    """A function of glibc's malloc; None where the C library is another one."""
    try:
        return cast("Callable[..., int]", getattr(ctypes.CDLL(None), name))
    except (OSError, AttributeError):
        return None
