"""The budget of bytes: who fits, who waits, who is given up, and that nothing is lost from the count."""

import gc
import threading

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tollway.http1.budget import FREE_SHARE, SLOW_BYTES, SLOW_S, STEP, WINDOW_S, Budget, Hold

MIB = 1 << 20


class Mover:
    """An owner as bodies and answers are."""

    def __init__(self, budget: Budget, size: int = 0) -> None:
        self.held_up = self.gone = False
        self.told = 0
        self.hold = budget.watch(size, self)

    def is_held_up(self) -> bool:
        return self.held_up

    def read_on(self) -> None:
        self.told += 1

    def give_up(self) -> None:
        self.gone = True
        self.hold.release()


def windows(budget: Budget, count: int, begin: float = 100.0) -> float:
    """Let so many windows pass; the time afterwards."""
    for number in range(count):
        budget.sweep(begin + number * WINDOW_S)
    return begin + count * WINDOW_S


def test_what_is_held_is_counted_until_it_is_released() -> None:
    budget = Budget(100)
    first, second = budget.take(60), budget.take(10)
    assert (budget.held, budget.full) == (70, False)
    second.resize(40)
    assert (budget.held, budget.full) == (100, True)
    first.release()
    first.release()
    assert (budget.held, budget.full, budget.peak, budget.given_back) == (40, False, 100, 60)


def test_a_hold_that_nobody_released_is_given_back_when_nothing_refers_to_it() -> None:
    budget = Budget(100)
    gc.disable()
    try:
        hold = budget.take(60)
        del hold
        assert not budget.full
        assert budget.fits(50), "the look at it makes sure"
        assert budget.held == 0
    finally:
        gc.enable()


def test_a_hold_may_die_in_any_thread() -> None:
    budget = Budget()
    holds = [budget.take(1000) for _ in range(400)]
    threads = [threading.Thread(target=holds.pop) for _ in range(400)]
    for thread in threads:
        thread.start()
        budget.take(10).release()
    for thread in threads:
        thread.join()
    budget.sweep(1.0)
    assert budget.held == 0


def test_what_does_not_fit_is_refused_and_counted() -> None:
    budget = Budget(100)
    hold = budget.take(60)
    assert budget.fits(40)
    assert not budget.fits(41)
    assert budget.refused == 1
    hold.release()
    assert budget.fits(100)


def test_without_a_limit_everything_fits() -> None:
    budget = Budget()
    mover = Mover(budget, 1 << 50)
    assert budget.fits(1 << 50)
    assert mover.hold.grow(1 << 50)
    windows(budget, 3)
    assert not mover.gone and not budget.full


def test_an_answer_that_finds_no_room_waits_and_one_goes_on_beyond_the_limit() -> None:
    budget = Budget(10 * MIB)
    first, second, third = (Mover(budget, 3 * MIB) for _ in range(3))
    assert first.hold.grow(MIB), "the first to find none goes on"
    assert first.hold.grow(MIB), "and on"
    assert not second.hold.grow(MIB)
    assert not third.hold.grow(MIB)
    first.hold.release()
    assert second.told == third.told == 1, "there is room for both"
    assert second.hold.grow(4 * MIB)
    assert not third.hold.grow(MIB)
    second.hold.settle()  # complete, but still held
    assert third.told == 2, "the one that has waited longest goes on, although there is no room"
    assert third.hold.grow(MIB)


def test_as_many_go_on_as_there_is_room_for() -> None:
    budget = Budget(10 * MIB)
    large = budget.take(10 * MIB)
    waiting = [Mover(budget) for _ in range(10)]
    assert not any(mover.hold.grow(1) for mover in waiting)
    large.resize(large.size - 3 * STEP)
    assert [mover.told for mover in waiting] == [1, 1, 1, 1] + [0] * 6, "and one beyond it"
    large.resize(large.size - 2 * MIB)
    assert all(mover.told for mover in waiting)


def test_what_went_on_beyond_the_limit_is_gone_before_the_next_one_follows() -> None:
    budget = Budget(10 * MIB)
    movers = [Mover(budget, 2 * MIB) for _ in range(5)]
    first, second, *_ = movers
    assert [mover.hold.grow(1) for mover in movers] == [True, False, False, False, False]
    assert first.hold.grow(9 * MIB)
    first.hold.settle()
    assert second.told == 0, "its client has not read it yet"
    first.hold.resize(2 * MIB)
    assert (second.told, movers[2].told) == (1, 0)
    assert second.hold.grow(MIB)


def test_where_nothing_moves_one_goes_on_all_the_same() -> None:
    budget = Budget(MIB)
    prompt = budget.take(MIB)
    first, second = Mover(budget), Mover(budget)
    assert not first.hold.grow(1)
    assert not second.hold.grow(1)
    budget.sweep(100.0)
    assert (first.told, second.told) == (1, 0)
    assert first.hold.grow(MIB)
    budget.sweep(100.25)
    assert second.told == 0, "one at a time"
    first.hold.release()
    budget.sweep(100.5)
    assert second.told == 0, "something was given back"
    budget.sweep(100.75)
    assert second.told == 1, "its answer may be what the prompt waits for"
    prompt.release()


def test_whoever_is_released_waits_for_nothing_any_more() -> None:
    budget = Budget(MIB)
    large = budget.take(MIB)
    first, second = Mover(budget), Mover(budget)
    first.hold.grow(1)
    second.hold.grow(1)
    second.hold.release()
    first.hold.release()
    large.release()
    assert (first.told, second.told) == (0, 0)


def test_the_slowest_go_first_and_no_more_than_it_takes() -> None:
    budget = Budget(16 * MIB)
    movers = [Mover(budget, 4 * MIB) for _ in range(4)]
    at = windows(budget, 1)  # the first window is incomplete: it says nothing
    for mover, moved in zip(movers, (5000, 1000, 4 * MIB, 3000), strict=True):
        mover.hold.moved += moved
    budget.sweep(at)
    assert [mover.gone for mover in movers] == [False, True, False, False]
    assert budget.held <= budget.limit - budget.limit // FREE_SHARE
    assert budget.given_up == 1


def test_as_much_room_is_made_as_somebody_was_refused() -> None:
    budget = Budget(16 * MIB)
    movers = [Mover(budget, 3 * MIB) for _ in range(5)]
    at = windows(budget, 2)
    assert not any(mover.gone for mover in movers), "while there is room nobody is too slow"
    assert not budget.fits(6 * MIB)
    budget.sweep(at)
    assert sum(mover.gone for mover in movers) == 2
    assert budget.fits(6 * MIB)


def test_who_moves_again_what_he_holds_within_a_minute_is_not_slow() -> None:
    budget = Budget(8 * MIB)
    enough = Mover(budget, 4 * MIB)
    too_little = Mover(budget, 4 * MIB)
    at = windows(budget, 1)
    enough.hold.moved += 4 * MIB * WINDOW_S / SLOW_S
    too_little.hold.moved += 4 * MIB * WINDOW_S / SLOW_S - 1
    budget.sweep(at)
    assert (enough.gone, too_little.gone) == (False, True)


def test_who_waits_for_us_or_holds_little_or_is_complete_is_never_slow() -> None:
    budget = Budget(4 * MIB)
    complete, held_up, little = Mover(budget, MIB), Mover(budget, 3 * MIB), Mover(budget, SLOW_BYTES - 1)
    complete.hold.settle()
    held_up.held_up = True
    windows(budget, 5)
    assert budget.full
    assert not (complete.gone or held_up.gone or little.gone)
    held_up.held_up = False
    budget.sweep(1000.0)
    assert not held_up.gone, "it had no time yet"
    budget.sweep(1000.0 + WINDOW_S)
    assert held_up.gone


def test_what_waits_for_room_is_not_slow_either() -> None:
    budget = Budget(2 * MIB)
    large = budget.take(2 * MIB)
    favoured, waiting = Mover(budget), Mover(budget)
    favoured.hold.grow(MIB)
    assert not waiting.hold.grow(MIB)
    at = 100.0
    for _ in range(5):
        favoured.hold.grow(MIB)
        budget.sweep(at)
        at += WINDOW_S
    assert not waiting.gone
    budget.sweep(at)
    assert favoured.gone, "but the one that goes on beyond the limit has to hurry"
    assert waiting.told == 1
    large.release()


def test_a_shortage_without_anybody_slow_ends_nobody() -> None:
    budget = Budget(MIB)
    budget.take(MIB)
    Mover(budget, 0)
    windows(budget, 3)
    assert budget.given_up == 0


class Books(RuleBasedStateMachine):
    """Whatever comes and goes: the count is the sum of the sizes, and somebody can always go on."""

    def __init__(self) -> None:
        super().__init__()
        self.budget = Budget(10 * MIB)
        self.movers: list[Mover] = []
        self.plain: list[Hold] = []
        self.reading: dict[Mover, int] = {}
        self.now = 100.0

    @rule(size=st.integers(0, 8 * MIB))
    def take(self, size: int) -> None:
        self.plain.append(self.budget.take(size))

    @precondition(lambda self: self.plain)
    @rule(data=st.data(), forgotten=st.booleans())
    def give(self, data: st.DataObject, forgotten: bool) -> None:
        hold = self.plain.pop(data.draw(st.integers(0, len(self.plain) - 1)))
        if not forgotten:
            hold.release()

    @rule(size=st.integers(0, 2 * MIB))
    def begin(self, size: int) -> None:
        mover = Mover(self.budget, size)
        self.movers.append(mover)
        self.reading[mover] = 0

    def can_read(self) -> list[Mover]:
        """Those that were never told to wait, or were told to go on as often."""
        return [mover for mover in self.movers if self.reading[mover] <= mover.told]

    @precondition(lambda self: self.can_read())
    @rule(data=st.data(), size=st.integers(0, 2 * MIB))
    def grow(self, data: st.DataObject, size: int) -> None:
        able = self.can_read()
        mover = able[data.draw(st.integers(0, len(able) - 1))]
        if not mover.hold.grow(size):
            self.reading[mover] = mover.told + 1

    @precondition(lambda self: self.movers)
    @rule(data=st.data(), settled=st.booleans())
    def end(self, data: st.DataObject, settled: bool) -> None:
        mover = self.movers.pop(data.draw(st.integers(0, len(self.movers) - 1)))
        del self.reading[mover]
        if settled:
            mover.hold.settle()
            self.plain.append(mover.hold)
        else:
            mover.hold.release()

    @rule()
    def sweep(self) -> None:
        self.now += 1.0
        self.budget.sweep(self.now)
        self.movers = [mover for mover in self.movers if not mover.gone]
        self.reading = {mover: self.reading[mover] for mover in self.movers}

    @invariant()
    def the_count_is_right(self) -> None:
        self.budget.fits(1 << 60)  # looks at what was only dropped
        held = sum(mover.hold.size for mover in self.movers) + sum(hold.size for hold in self.plain)
        assert self.budget.held == held
        assert self.budget.full == (held >= self.budget.limit)

    @invariant()
    def what_waits_is_counted(self) -> None:
        assert self.budget._stuck == sum(hold.size for hold in self.budget._waiting)

    @invariant()
    def somebody_goes_on(self) -> None:
        if self.movers and not self.can_read():
            self.sweep()
            self.sweep()  # in which nothing was given back
            assert not self.movers or self.can_read()


TestBooks = Books.TestCase


@given(st.lists(st.integers(0, 100), max_size=50))
def test_the_peak_is_the_most_that_was_held(sizes: list[int]) -> None:
    budget = Budget()
    hold, most = budget.take(0), 0
    for size in sizes:
        hold.resize(size)
        most = max(most, size)
    assert budget.peak == most
