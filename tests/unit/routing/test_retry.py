from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollway.domain.failures import FailureKind
from tollway.routing.retry import MAX_RETRY_SHARE, MIN_RETRIES, RetryBudget, Step, decide


@pytest.mark.parametrize("kind", FailureKind)
def test_only_what_the_client_did_wrong_is_returned_without_another_attempt(kind: FailureKind) -> None:
    clients = {FailureKind.REQUEST, FailureKind.CONTEXT, FailureKind.CONTENT}
    assert (decide(kind) is Step.RETURN) == (kind in clients)


@pytest.mark.parametrize("kind", [FailureKind.TIMEOUT, FailureKind.BUSY, FailureKind.CREDENTIAL, FailureKind.MODEL])
def test_what_the_same_target_would_answer_again_is_not_asked_twice(kind: FailureKind) -> None:
    assert decide(kind) is Step.NEXT


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
