"""PostgreSQL's being away or busy: how it shows, and how it is told once, not at every attempt."""

import logging
import re
import ssl
import time

import asyncpg

AWAY = (
    OSError,  # TimeoutError is one
    EOFError,
    asyncpg.InterfaceError,  # the connection is gone
    asyncpg.InternalClientError,  # it ended in the middle of a message
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # it is stopping or starting
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,  # a failover is under way
)
"""What PostgreSQL's being away raises: it may pass."""

WRONG = (ValueError, asyncpg.PostgresError)
"""Every other answer: waiting does not mend it. ValueError: a URI that cannot be read."""

_NEVER_PASSES = (
    ssl.SSLError,
    PermissionError,
    NotADirectoryError,  # on the way to a socket
    asyncpg.ClientConfigurationError,
    asyncpg.UnsupportedClientFeatureError,
)
_CUT_OFF = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)  # in the middle of a handshake
_POOLERS_NO = re.compile(
    "startup parameter|no such (user|database)|does not exist|auth|not (allowed|supported)", re.IGNORECASE
)
"""Poolers give all of their refusals one code, and the same one to a server that is away behind them."""


def may_pass(error: BaseException) -> bool:
    """Whether it may help to try again later, with the same settings."""
    if isinstance(error, asyncpg.ProtocolViolationError):
        return not _POOLERS_NO.search(str(error))
    return isinstance(error, AWAY) and (isinstance(error, _CUT_OFF) or not isinstance(error, _NEVER_PASSES))


def was_answered(error: BaseException) -> bool:
    """Whether the server itself says so, and not the driver that it is away."""
    return isinstance(error, asyncpg.PostgresError) and not isinstance(error, asyncpg.PostgresConnectionError)


class Outage:
    """What one follower of the database says of it: a line when it goes away and one when it is back."""

    __slots__ = ("_began", "_begins", "_log", "_over")

    def __init__(self, log: logging.Logger, begins: str, over: str) -> None:
        self._log = log
        self._begins = begins
        self._over = over
        self._began: float | None = None

    def note(self, error: Exception, begins: str = "", **members: object) -> None:
        """An attempt failed. ``begins``: what follows of it this time, in place of what usually does."""
        if self._began is None:
            self._began = time.monotonic()
            ours = error if not isinstance(error, (*AWAY, *WRONG)) else None  # then the traceback says where
            self._log.warning("%s: %s", begins or self._begins, in_one_line(error), exc_info=ours, extra=members)

    def end(self) -> None:
        """An attempt succeeded."""
        if self._began is not None:
            self._log.info("%s", self._over, extra={"outage_s": round(time.monotonic() - self._began, 1)})
            self._began = None


def in_one_line(error: BaseException) -> str:
    """What went wrong, for a log line or a terminal.

    Of PostgreSQL's words the message and the hint: its detail may be the whole row that was to be written.
    """
    if isinstance(error, asyncpg.PostgresError):
        words = " ".join([*map(str, error.args[:1]), error.hint or ""])
    else:
        words = str(error)
    return " ".join(words.split()) or type(error).__name__
