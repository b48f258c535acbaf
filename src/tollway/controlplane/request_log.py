"""One log line for every attempt at a provider, printed where the ledger is posted: no worker ever formats one.

A line costs some 30 microseconds. Above ``MAX_LINES_PER_S`` the rest of a second is counted in one line: the ledger has
every attempt, and a log that nobody can read must not take a processor from those who work.
"""

import logging
import time
from collections.abc import Callable, Sequence

from tollway.accounting.records import Settlement
from tollway.domain.money import format_dollars

MAX_LINES_PER_S = 500

_log = logging.getLogger("tollway.requests")


class RequestLog:
    """Prints what the ledger now holds; nothing of what was said, and no key."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._second = 0
        self._printed = 0
        self._untold = 0

    def __call__(self, settlements: Sequence[Settlement]) -> None:
        """Print a batch, or count it."""
        second = int(self._clock())
        if second != self._second:
            self._second, self._printed = second, 0
            if self._untold:
                _log.info("%d more attempts ended, too many for a line each", self._untold)
                self._untold = 0
        told = settlements[: MAX_LINES_PER_S - self._printed]
        self._printed += len(told)
        self._untold += len(settlements) - len(told)
        for settlement in told:
            log_attempt(settlement)


def log_attempt(one: Settlement) -> None:
    """Print one line."""
    _log.info(
        "attempt at %s ended: %s",
        one.provider,
        one.outcome,
        extra={
            "call_id": one.call_id,
            "attempt": one.attempt,
            "key_id": one.key_id,
            "operation": one.operation,
            "model": one.model,
            "provider": one.provider,
            "upstream_model": one.upstream_model,
            "status": one.status,
            "outcome": one.outcome,
            "stream": one.stream,
            "duration_ms": round(one.duration_ms),
            "first_byte_ms": None if one.first_byte_ms is None else round(one.first_byte_ms),
            "input_tokens": one.input_tokens,
            "cached_input_tokens": one.cached_input_tokens,
            "output_tokens": one.output_tokens,
            "usage": one.state,
            "cost_usd": format_dollars(one.cost, one.scale) if one.priced else None,
            "charged": one.charged,
            "revision": one.revision,
            "cause": one.cause or None,
        },
    )
