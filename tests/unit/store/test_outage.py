"""An outage is told once, without tracebacks and without anything that was to be stored."""

import logging
import ssl

import asyncpg
import pytest

from tollway.store.outage import Outage, in_one_line, may_pass

LOG = logging.getLogger("tollway.test")


def refused_row() -> asyncpg.PostgresError:
    """As asyncpg makes it from the server's message."""
    return asyncpg.PostgresError.new(
        {
            "S": "ERROR",
            "C": "23514",
            "M": "new row violates a rule",
            "D": "Failing row contains (sk-canary).",
            "H": "No.",
        }
    )


def test_a_refused_row_is_never_told() -> None:
    assert in_one_line(refused_row()) == "new row violates a rule No."
    assert in_one_line(OSError("two\nlines")) == "two lines"
    assert in_one_line(TimeoutError()) == "TimeoutError"


def test_an_outage_is_told_when_it_begins_and_when_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    outage = Outage(LOG, "it is away", "it is back")
    outage.end()
    for _ in range(2):
        for error in (ConnectionRefusedError("no"), TimeoutError(), asyncpg.InterfaceError("closed"), refused_row()):
            outage.note(error)
        outage.end()
        outage.end()
    assert [record.message for record in caplog.records] == ["it is away: no", "it is back"] * 2
    assert [record.exc_info for record in caplog.records] == [None] * 4
    assert caplog.records[1].outage_s >= 0


def test_a_mistake_of_our_own_is_told_with_its_place_and_once(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage(LOG, "it is away", "it is back")
    for _ in range(2):
        outage.note(KeyError("x"))
    (record,) = caplog.records
    assert record.exc_info


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionRefusedError(), True),
        (FileNotFoundError(), True),
        (NotADirectoryError(), False),
        (TimeoutError(), True),
        (EOFError(), True),
        (asyncpg.CannotConnectNowError(""), True),
        (asyncpg.TooManyConnectionsError(""), True),
        (asyncpg.DiskFullError(""), True),
        (asyncpg.ReadOnlySQLTransactionError(""), True),
        (asyncpg.ConnectionDoesNotExistError(""), True),
        (ssl.SSLCertVerificationError(), False),
        (asyncpg.ClientConfigurationError(""), False),
        (asyncpg.InvalidPasswordError(""), False),
        (asyncpg.InvalidCatalogNameError(""), False),
        (asyncpg.InsufficientPrivilegeError(""), False),
        (PermissionError(), False),
        (ValueError(), False),
        (KeyError(), False),
    ],
)
def test_what_waiting_mends_is_told_apart_from_what_it_does_not(error: Exception, expected: bool) -> None:
    assert may_pass(error) is expected
