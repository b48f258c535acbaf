"""What PostgreSQL's programs say when they fail, in words for people; the texts are theirs."""

import errno
import os

import pytest

from tollway.store.server_errors import os_reason, server_reason

STAMP = "2027-01-31 10:11:12.131 UTC [4711] "

INITDB_ON_A_FULL_DISK = """\
2027-01-31 10:11:12.131 UTC [4711] FATAL:  could not write to file "pg_wal/xlogtemp.4711": No space left on device
child process exited with exit code 1
initdb: removing contents of data directory "/proc/self/cwd"
"""

PANIC_ON_A_FULL_DISK = """\
2027-01-31 10:11:12.131 UTC [4711] PANIC:  could not write to file "pg_wal/xlogtemp.4711": No space left on device
2027-01-31 10:11:12.131 UTC [4710] LOG:  client backend (PID 4711) was terminated by signal 6: Aborted
2027-01-31 10:11:12.131 UTC [4710] LOG:  terminating any other active server processes
2027-01-31 10:11:12.131 UTC [4713] FATAL:  the database system is in recovery mode
"""

INITDB_IN_AN_ODD_MOMENT = """\
2027-01-31 10:11:12.131 UTC [4711] WARNING:  could not extend file "base/1/2": wrote only 4096 of 8192 bytes at block 11
2027-01-31 10:11:12.131 UTC [4711] HINT:  Check free disk space.
2027-01-31 10:11:12.131 UTC [4711] PANIC:  cannot abort transaction 1, it was already committed
Aborted
child process exited with exit code 134
"""


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (INITDB_ON_A_FULL_DISK, "the disk is full"),
        (PANIC_ON_A_FULL_DISK, "the disk is full"),
        (INITDB_IN_AN_ODD_MOMENT, "the disk is full"),
        ('initdb: error: could not write file "/x/PG_VERSION": No space left on device', "the disk is full"),
        (STAMP + 'FATAL:  could not extend file "base/1/2": Disk quota exceeded', "the disk quota is used up"),
        (STAMP + 'FATAL:  could not create lock file "postmaster.pid": Read-only file system', "read-only"),
        (STAMP + "FATAL:  could not map anonymous shared memory: Cannot allocate memory", "not enough memory"),
        (
            STAMP + 'FATAL:  could not resize shared memory segment "/PostgreSQL.1" to 1048576 bytes: '
            "No space left on device",
            "the shared memory of the system is full",
        ),
        (STAMP + "FATAL:  could not create semaphores: No space left on device", "no semaphores left"),
        (
            STAMP + 'FATAL:  could not open shared memory segment "/PostgreSQL.2": Permission denied',
            "the shared memory of the system cannot be used",
        ),
        ("initdb: error: could not look up effective user ID 54321: user does not exist", "a user with a name"),
        ("initdb: could not look up effective user ID 54321: user does not exist", "a user with a name"),
        (
            "/x/postgres: error while loading shared libraries: libz.so.1: cannot open shared object file",
            "a library of the system is missing",
        ),
    ],
)
def test_what_people_can_mend_is_named(output: str, words: str) -> None:
    reason = server_reason(output.encode())
    assert words in reason
    assert "\n" not in reason
    assert "2027" not in reason, "the log's own time says nothing here"


def test_what_is_not_known_is_passed_on_with_its_detail() -> None:
    output = f"""\
{STAMP}LOG:  starting PostgreSQL 18.4
{STAMP}FATAL:  database files are incompatible with server
{STAMP}DETAIL:  The data directory was initialized by PostgreSQL version 12.
"""
    assert server_reason(output.encode()) == (
        "FATAL:  database files are incompatible with server "
        "DETAIL:  The data directory was initialized by PostgreSQL version 12."
    )
    assert server_reason(b"\xff\n") == "\ufffd"
    assert server_reason(b"") == "no output"


def test_errors_of_the_system_name_the_file() -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x/y")
    assert os_reason(full) == "the disk is full (/x/y)"
    assert os_reason(OSError(errno.ENOENT, os.strerror(errno.ENOENT))) == "No such file or directory"
    assert os_reason(OSError("no number")) == "no number"
