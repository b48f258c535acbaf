"""Calls of one key at the same time."""

from hypothesis import given
from hypothesis import strategies as st

from tollway.admission.slots import CallSlots


def test_a_key_has_so_many_slots_and_no_more() -> None:
    slots = CallSlots(2)
    assert [slots.enter("a") for _ in range(3)] == [True, True, False]
    assert slots.enter("b")
    slots.leave("a")
    assert [slots.enter("a") for _ in range(2)] == [True, False]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans())), st.integers(1, 3))
def test_never_more_than_the_limit_and_nothing_is_kept_of_keys_that_are_done(
    steps: list[tuple[str, bool]], limit: int
) -> None:
    slots, running = CallSlots(limit), dict.fromkeys("abc", 0)
    for key, enters in steps:
        if enters:
            assert slots.enter(key) is (running[key] < limit)
            running[key] = min(limit, running[key] + 1)
        elif running[key]:
            slots.leave(key)
            running[key] -= 1
    assert slots._running == {key: count for key, count in running.items() if count}
