"""The table: ratios are taken within rounds, and targets are judged on medians."""

from bench.report import BARE, NGINX, TOLLWAY, Measure, markdown, number


def test_a_ratio_is_taken_within_its_round() -> None:
    slow_then_fast = Measure("x", "µs", {NGINX: [20, 10, 10], TOLLWAY: [40, 18, 30]})
    assert slow_then_fast.ratios() == [2.0, 1.8, 3.0]


def test_a_target_is_held_against_the_median() -> None:
    samples = {NGINX: [10, 10, 10], TOLLWAY: [15, 19, 90]}
    assert Measure("x", "µs", samples, ratio_at_most=2).met() is True
    assert Measure("x", "µs", samples, ratio_at_most=1.8).met() is False
    assert Measure("x", "µs", samples, at_most=19).met() is True
    assert Measure("x", "µs", samples, at_most=18).met() is False


def test_without_a_target_or_values_nothing_is_judged() -> None:
    assert Measure("x", "s", {TOLLWAY: [1]}).met() is None
    assert Measure("x", "s", {TOLLWAY: [1]}, ratio_at_most=2).met() is None
    assert Measure("x", "s", {NGINX: [1]}, at_most=2).met() is None


def test_a_difference_that_drowned_in_noise_has_no_ratio() -> None:
    assert Measure("added", "µs", {NGINX: [-3, 5], TOLLWAY: [4, 6]}).ratios() == []


def test_the_report_says_what_was_measured_and_what_was_missed() -> None:
    measure = Measure("CPU", "µs", {BARE: [4, 4], NGINX: [10, 20], TOLLWAY: [25, 44]}, ratio_at_most=2)
    text = markdown([("kernel", "Linux 6")], {"Requests": [measure]}, ["took long"])
    assert "| kernel  | Linux 6 |" in text
    (line,) = (line for line in text.splitlines() if line.startswith("| CPU "))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == ["CPU", "µs", "4.00", "15.0", "34.5", "2.35x (2.20 to 2.50)", "≤ 2x: MISSED"]
    assert "- took long" in text
    assert "| Requests: CPU | µs   | 4.00 4.00     | 10.0 20.0 | 25.0 44.0 |" in text


def test_numbers_keep_three_digits() -> None:
    assert [number(value) for value in (0, 0.1234, 9.876, 33.33, 234.5, 29_123.4, -867)] == [
        "0",
        "0.12",
        "9.88",
        "33.3",
        "234",
        "29,123",
        "-867",
    ]
