"""What follows a failed attempt, while nothing of an answer has reached the client."""

import enum

from tollway.domain.failures import FailureKind, UpstreamFailure


class Step(enum.Enum):
    """What to do after an attempt failed."""

    NEXT = "next"
    """The next target."""
    NEXT_OR_SAME = "next_or_same"
    """The next target; where none is left the same once more, if the :class:`RetryBudget` allows it."""
    RETURN = "return"
    """The client made the mistake: every target would say so."""


_STEPS = {
    FailureKind.CONNECT: Step.NEXT_OR_SAME,
    FailureKind.TIMEOUT: Step.NEXT,  # waiting twice as long helps nobody
    FailureKind.BROKEN: Step.NEXT_OR_SAME,
    FailureKind.INVALID: Step.NEXT_OR_SAME,
    FailureKind.BUSY: Step.NEXT,  # but see SHORT_WAIT_S
    FailureKind.QUOTA: Step.NEXT,
    FailureKind.CREDENTIAL: Step.NEXT,
    FailureKind.NO_CREDENTIAL: Step.NEXT,
    FailureKind.MODEL: Step.NEXT,
    FailureKind.OVERLOADED: Step.NEXT,
    FailureKind.SERVER: Step.NEXT_OR_SAME,
    FailureKind.CONTEXT: Step.RETURN,
    FailureKind.CONTENT: Step.RETURN,  # a laxer model is not looked for behind the client's back
    FailureKind.REQUEST: Step.RETURN,
    FailureKind.UNPRICED: Step.NEXT,
    FailureKind.UNSUPPORTED: Step.NEXT,
}


SHORT_WAIT_S = 1.0
"""Who is told to come back so soon waits and asks the same target once more, if there is no other."""

REPEAT_PAUSE_S = 0.25
"""Before a target is asked once more: long enough for a restart or a dropped connection to pass."""


def decide(failure: UpstreamFailure) -> Step:
    """What follows a failure."""
    step = _STEPS[failure.kind]
    if failure.kind is FailureKind.BUSY and failure.retry_after_s is not None:
        step = Step.NEXT_OR_SAME if failure.retry_after_s <= SHORT_WAIT_S else step
    return Step.NEXT if step is Step.NEXT_OR_SAME and not failure.once_more else step


def repeat_pause_s(failure: UpstreamFailure) -> float:
    """How long to wait before the same target is asked once more."""
    wait_s = failure.retry_after_s if failure.kind is FailureKind.BUSY else None
    return max(REPEAT_PAUSE_S, wait_s or 0.0)


MIN_RETRIES = 3
"""So many are always allowed: a share of few calls would be none."""

MAX_RETRY_SHARE = 0.2
"""Retries as a share of recent calls; Envoy's default. More would multiply the load on providers that are down."""

_HALF_S = 5.0  # recent calls: those of this half and of the one before


class RetryBudget:
    """Bounds attempts without a good prospect: the same target again, and targets that are resting.

    ``Health.order`` asks it before it hands out a resting target as a further attempt. Moving on to a healthy target
    needs no budget: it adds no load to what is failing, and it is what fallbacks are for.
    """

    __slots__ = ("_calls", "_earlier_calls", "_earlier_retries", "_half_ends", "_retries")

    def __init__(self) -> None:
        self._calls = self._earlier_calls = 0
        self._retries = self._earlier_retries = 0
        self._half_ends = 0.0

    def called(self, now: float) -> None:
        """Count one call (not its attempts)."""
        if now >= self._half_ends:
            self._turn(now)
        self._calls += 1

    def may_retry(self, now: float) -> bool:
        """Whether one more retry is allowed; if so, it is counted."""
        if now >= self._half_ends:
            self._turn(now)
        share = MAX_RETRY_SHARE * (self._calls + self._earlier_calls)
        if self._retries + self._earlier_retries + 1 > max(MIN_RETRIES, share):
            return False
        self._retries += 1
        return True

    def _turn(self, now: float) -> None:
        recent = now < self._half_ends + _HALF_S
        self._earlier_calls = self._calls if recent else 0
        self._earlier_retries = self._retries if recent else 0
        self._calls = self._retries = 0
        self._half_ends = now + _HALF_S
