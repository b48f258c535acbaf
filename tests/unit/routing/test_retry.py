"""What follows a failure, and how often."""

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollway.domain.failures import FailureKind, UpstreamFailure
from tollway.routing.retry import (
    MAX_RETRY_SHARE,
    MIN_RETRIES,
    REPEAT_PAUSE_S,
    RetryBudget,
    Step,
    decide,
    repeat_pause_s,
)


def failed(kind: FailureKind, **members: Any) -> UpstreamFailure:
    return UpstreamFailure(kind, "", **members)


@pytest.mark.parametrize("kind", FailureKind)
def test_only_what_the_client_did_wrong_is_returned_without_another_attempt(kind: FailureKind) -> None:
    clients = {FailureKind.REQUEST, FailureKind.CONTEXT, FailureKind.CONTENT}
    assert (decide(failed(kind)) is Step.RETURN) == (kind in clients)


@pytest.mark.parametrize("kind", FailureKind)
def test_the_same_target_is_asked_again_only_where_that_may_help(kind: FailureKind) -> None:
    again = {FailureKind.CONNECT, FailureKind.BROKEN, FailureKind.INVALID, FailureKind.SERVER}
    assert (decide(failed(kind)) is Step.NEXT_OR_SAME) == (kind in again)
    assert decide(failed(kind, once_more=False)) is not Step.NEXT_OR_SAME


@pytest.mark.parametrize(
    ("wait_s", "step"),
    [(None, Step.NEXT), (0.0, Step.NEXT_OR_SAME), (1.0, Step.NEXT_OR_SAME), (1.001, Step.NEXT)],
)
def test_a_short_limit_is_waited_out(wait_s: float | None, step: Step) -> None:
    assert decide(failed(FailureKind.BUSY, retry_after_s=wait_s)) is step
    assert decide(failed(FailureKind.QUOTA, retry_after_s=wait_s)) is Step.NEXT


def test_the_pause_is_as_long_as_the_limit_lasts() -> None:
    assert repeat_pause_s(failed(FailureKind.BUSY, retry_after_s=0.8)) == 0.8
    assert repeat_pause_s(failed(FailureKind.BUSY, retry_after_s=0.0)) == REPEAT_PAUSE_S
    assert repeat_pause_s(failed(FailureKind.SERVER, retry_after_s=30.0)) == REPEAT_PAUSE_S


def allowed(budget: RetryBudget, attempts: int, now: float) -> int:
    return sum(budget.may_retry(now) for _ in range(attempts))


def test_a_few_retries_are_always_allowed() -> None:
    assert allowed(RetryBudget(), 100, 5.0) == MIN_RETRIES


def test_under_load_a_fifth_of_the_recent_calls_may_be_retries() -> None:
    budget = RetryBudget()
    for _ in range(1000):
        budget.called(5.0)
    assert allowed(budget, 1000, 6.0) == 200


def test_old_calls_and_old_retries_are_forgotten() -> None:
    budget = RetryBudget()
    for _ in range(1000):
        budget.called(5.0)
    allowed(budget, 1000, 6.0)
    assert allowed(budget, 100, 10.5) == 0
    assert allowed(budget, 100, 30.0) == MIN_RETRIES


@given(st.lists(st.tuples(st.floats(0, 3), st.booleans())))
def test_retries_are_never_more_than_a_share_of_the_last_ten_seconds(events: Iterable[tuple[float, bool]]) -> None:
    budget = RetryBudget()
    now = 100.0
    calls: list[float] = []
    retries: list[float] = []
    for step, retry in events:
        now += step
        if not retry:
            calls.append(now)
            budget.called(now)
        elif budget.may_retry(now):
            retries.append(now)
            lately = sum(at > now - 5 for at in retries)
            assert lately <= max(MIN_RETRIES, MAX_RETRY_SHARE * sum(at >= now - 10 for at in calls))
