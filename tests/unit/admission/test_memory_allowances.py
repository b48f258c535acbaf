"""What only the store in memory promises; the rest is in tests/contract/test_allowances.py."""

import re

import pytest

from tollway.admission.allowances import Hold, MemoryAllowances
from tollway.domain.refusals import TooFast


def test_keys_that_were_idle_for_a_window_are_forgotten() -> None:
    allowances = MemoryAllowances()
    for number in range(5_000):
        allowances.admit(f"key_{number}", 60, 1000, 10, 100.0)
    for second in range(100, 300):
        allowances.admit("key_busy", 60, 1000, 1, float(second))
    assert set(allowances._accounts) == {"key_busy"}


def test_a_key_with_an_open_hold_inside_the_window_is_remembered() -> None:
    allowances = MemoryAllowances()
    hold = allowances.admit("key_a", 1, 1000, 0, 100.0)
    for second in range(101, 161):
        allowances.admit("key_b", None, None, 1, float(second))
    assert isinstance(hold, Hold) and hold.settle(700, 160.0)
    assert b"remaining-tokens: 300\r\n" in allowances.header_lines("key_a", 1, 1000, 160.9)


def test_a_clock_that_was_read_a_moment_earlier_makes_no_wait_untrue() -> None:
    allowances = MemoryAllowances()
    allowances.admit("key_a", None, 100, 1, 100.01)
    assert isinstance(allowances.admit("key_a", None, 100, 99, 99.99), Hold)
    refusal = allowances.admit("key_a", None, 100, 100, 99.98)
    assert isinstance(refusal, TooFast)
    assert isinstance(allowances.admit("key_a", None, 100, 100, 99.98 + refusal.wait_s), Hold)


def test_the_header_lines_are_those_of_openai() -> None:
    hold = MemoryAllowances().admit("key_a", 60, 100_000, 1_500, 100.25)
    assert isinstance(hold, Hold)
    assert hold.header_lines(100.25) == (
        b"x-ratelimit-limit-requests: 60\r\n"
        b"x-ratelimit-remaining-requests: 59\r\n"
        b"x-ratelimit-reset-requests: 1m1s\r\n"
        b"x-ratelimit-limit-tokens: 100000\r\n"
        b"x-ratelimit-remaining-tokens: 98500\r\n"
        b"x-ratelimit-reset-tokens: 1m1s\r\n"
    )


@pytest.mark.parametrize(
    ("now", "reset"),
    [(100.0, b"1m1s"), (100.5, b"1m1s"), (101.0, b"1m0s"), (101.5, b"1m0s"), (102.0, b"59s"), (159.5, b"2s"),
     (160.0, b"1s"), (160.0005, b"1s"), (160.8265, b"174ms"), (160.9999, b"1ms"), (161.0, b"0s")],
)  # fmt: skip
def test_a_reset_is_rounded_up_to_what_openai_would_write(now: float, reset: bytes) -> None:
    hold = MemoryAllowances().admit("key_a", 60, None, 1, 100.0)
    assert isinstance(hold, Hold)
    assert re.findall(rb"reset-requests: (.*)\r\n", hold.header_lines(now)) == [reset]


def test_a_dimension_without_a_limit_has_no_lines() -> None:
    allowances = MemoryAllowances()
    assert allowances.header_lines("key_a", None, None, 1.0) == b""
    assert b"tokens" not in allowances.header_lines("key_a", 60, None, 1.0)
    assert b"requests" not in allowances.header_lines("key_a", None, 10, 1.0)


def test_nothing_below_zero_remains_when_the_truth_was_more_than_the_reservation() -> None:
    hold = MemoryAllowances().admit("key_a", 60, 100, 50, 100.0)
    assert isinstance(hold, Hold)
    hold.settle(170, 101.0)
    assert b"remaining-tokens: 0\r\n" in hold.header_lines(101.0)
