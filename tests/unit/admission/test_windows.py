"""The sliding window against an exact log of what was taken."""

from hypothesis import given
from hypothesis import strategies as st

from tollway.admission.windows import WINDOW_S, SlidingWindow

MOMENTS = st.lists(st.floats(0, 300, allow_nan=False), min_size=1, max_size=80).map(sorted)


@given(MOMENTS, st.lists(st.integers(0, 50), min_size=80, max_size=80))
def test_what_was_taken_in_the_last_sixty_seconds_always_counts(moments: list[float], amounts: list[int]) -> None:
    window = SlidingWindow()
    taken: list[tuple[float, int]] = []
    for now, amount in zip(moments, amounts, strict=False):
        used = window.used(int(now))
        assert used >= sum(a for at, a in taken if at > now - WINDOW_S)
        assert used <= sum(a for at, a in taken if at > now - WINDOW_S - 1)
        window.take(int(now), amount)
        taken.append((now, amount))


@given(MOMENTS, st.integers(1, 20), st.integers(1, 20))
def test_waiting_exactly_as_long_as_told_is_enough_and_a_second_less_is_not(
    moments: list[float], limit: int, amount: int
) -> None:
    window = SlidingWindow()
    for now in moments:
        if window.used(int(now)) < limit:
            window.take(int(now), 1)
    wait_s = window.wait_s(moments[-1], amount, limit)
    if amount > limit:
        assert wait_s is None
        return
    assert wait_s is not None
    then = moments[-1] + wait_s
    if wait_s > 0:
        assert window.used(int(then) - 1) + amount > limit
    assert window.used(int(then)) + amount <= limit


@given(st.floats(0, 1e9, allow_nan=False))
def test_a_wait_is_true_to_the_last_bit_of_the_clock(now: float) -> None:
    window = SlidingWindow()
    window.take(int(now), 1)
    wait_s = window.wait_s(now, 1, 1)
    assert wait_s is not None and 60 <= wait_s <= 61
    assert window.used(int(now + wait_s)) == 0


def test_a_settled_amount_changes_the_second_in_which_it_was_taken() -> None:
    window = SlidingWindow()
    window.take(10, 500)
    window.take(30, 7)
    window.settle(10, -400)
    assert window.used(30) == 107
    assert window.used(70) == 107
    assert window.used(71) == 7


def test_settling_what_no_longer_counts_changes_nothing() -> None:
    window = SlidingWindow()
    window.take(10, 500)
    assert window.used(71) == 0
    window.settle(10, 1000)
    assert window.used(71) == 0


def test_the_window_is_free_when_the_last_second_that_holds_anything_is_out() -> None:
    window = SlidingWindow()
    assert window.reset_s(5.25) == 0
    window.take(5, 3)
    window.take(8, 2)
    assert window.reset_s(8.5) == 69 - 8.5
    window.settle(8, -2)
    assert window.reset_s(8.5) == 66 - 8.5


def test_memory_is_one_number_per_second_of_the_window() -> None:
    window = SlidingWindow()
    for tick in range(10_000):
        window.used(tick // 10)
        window.take(tick // 10, 1)
    assert len(window._amounts) == WINDOW_S + 1
