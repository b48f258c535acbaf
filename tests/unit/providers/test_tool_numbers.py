"""Calls that wait for a name are bounded together, however many there are and in however small pieces they come."""

import tracemalloc

import msgspec
import pytest

from tollway.providers.tool_numbers import (
    MAX_CALLS,
    MAX_ID_BYTES,
    MAX_NAME_CHARACTERS,
    MAX_UNNAMED_BYTES,
    CallNumbers,
    Place,
)


def test_all_calls_of_a_choice_wait_within_one_bound() -> None:
    numbers = CallNumbers()
    half = "a" * (MAX_UNNAMED_BYTES // 2)
    assert numbers.place("a", 0, None, half) is None
    assert numbers.place("b", 1, None, half[2:]) is None
    assert numbers.place("c", 2, None, "{}") == Place(0, True, None, "c"), "there is no room for it"
    assert numbers.place("a", 0, "f", "") == Place(1, True, "f", "a", half)
    assert numbers.place("d", 3, None, half) is None, "what has been told makes room"
    assert [place.before for place in numbers.unnamed()] == [half[2:], half]


def test_a_name_that_never_ends_is_none() -> None:
    numbers = CallNumbers()
    numbers.place("a", 0, "f" * MAX_NAME_CHARACTERS, "")
    numbers.begin_delta()
    with pytest.raises(msgspec.ValidationError):
        numbers.place(None, 0, "g", "")


def test_ids_count_whenever_they_come() -> None:
    numbers = CallNumbers()
    told = 0
    for index in range(MAX_CALLS):
        told += numbers.place(None, index, None, "a") is not None
        told += numbers.place(f"{index:03}" + "x" * (MAX_ID_BYTES - 3), index, None, "") is not None
    assert MAX_CALLS - told <= MAX_UNNAMED_BYTES // MAX_ID_BYTES


@pytest.mark.parametrize("piece", ["a" * (63 * 1024), "€"])
def test_calls_that_wait_hold_little(piece: str) -> None:
    tracemalloc.start()
    try:
        numbers = CallNumbers()
        for number in range(60_000 if len(piece) == 1 else MAX_CALLS):
            numbers.place(None, number % MAX_CALLS, None, (piece * 2)[: len(piece)])  # a text of its own
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held < 1024 * 1024
