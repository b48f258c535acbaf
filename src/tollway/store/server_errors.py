"""Why the embedded PostgreSQL does not start, in one line for people who have to mend it."""

import errno
import re


class EmbeddedError(Exception):
    """The embedded PostgreSQL cannot run; the text is one line for people."""


_WORDS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
}


_FULL = _WORDS[errno.ENOSPC]
_SHARED = "the shared memory of the system"
_MEMORY = "there is not enough memory"
_LIBRARY = "a library of the system is missing"

_KINDS: tuple[tuple[tuple[str, ...], str], ...] = (
    # Before the disk: the system says "No space left on device" of its other tables as well.
    (("shared memory", "No space left"), f"{_SHARED} is full (/dev/shm)"),
    (("semaphores", "No space left"), "the system has no semaphores left"),
    (("shared memory segment", "Permission denied"), f"{_SHARED} cannot be used (/dev/shm)"),
    (("shared memory segment", "No such file"), f"{_SHARED} cannot be used (/dev/shm)"),
    (("shared memory segment", "not permitted"), f"{_SHARED} cannot be used (/dev/shm)"),
    (("No space left on device",), _FULL),
    (("wrote only ", " bytes"), _FULL),
    (("Disk quota exceeded",), _WORDS[errno.EDQUOT]),
    (("Read-only file system",), _WORDS[errno.EROFS]),
    (("Cannot allocate memory",), _MEMORY),
    (("out of memory",), _MEMORY),
    (("could not map anonymous",), _MEMORY),
    (("Too many open files",), "there are too many open files"),
    (("Input/output error",), "the disk is failing"),
    (("could not look up effective user ID",), "initdb wants a user with a name: add this id to /etc/passwd"),
    (("error while loading shared libraries",), _LIBRARY),
    (("not found (required by",), _LIBRARY),
)
"""What a line of PostgreSQL's programs holds, and what people call it."""

_TROUBLE = re.compile(r"FATAL:|PANIC:|error:|: error while loading|not found \(required by")
_STAMP = re.compile(r"^[\d-]+ [\d:.]+ \w+ \[\d+\] ")


def os_words(error: OSError) -> str:
    """What people call an error of the operating system."""
    return _WORDS.get(error.errno or 0) or error.strerror or str(error)


def os_reason(error: OSError) -> str:
    """The same, with the file where it names one."""
    return f"{os_words(error)} ({error.filename})" if error.filename else os_words(error)


def server_reason(output: bytes) -> str:
    """The reason in what a program of PostgreSQL wrote before it ended: what people call it, and its own words.

    The first line that is known counts, for the ones after it are its consequences; else the last line of trouble.
    """
    lines = output.decode("utf-8", "replace").strip().splitlines() or ["no output"]
    trouble = [index for index, line in enumerate(lines) if _TROUBLE.search(line)] or [len(lines) - 1]
    for line in (*(lines[index] for index in trouble), *lines):  # a warning may be all that tells
        for parts, words in _KINDS:
            if all(part in line for part in parts):
                return f"{words} ({_STAMP.sub('', line).strip()})"
    last = trouble[-1]
    return " ".join(
        _STAMP.sub("", line).strip() for line in lines[last : last + 2] if line is lines[last] or "DETAIL:" in line
    )
