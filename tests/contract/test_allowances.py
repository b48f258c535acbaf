"""What every store of allowances keeps, whatever it is built on (the laws of limits)."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tollway.admission.allowances import AllowanceStore, Hold, MemoryAllowances
from tollway.domain.refusals import TooFast, TooLarge

STORES: list[Callable[[], AllowanceStore]] = [MemoryAllowances]

every_store = pytest.mark.parametrize("new_store", STORES)


class Laws(RuleBasedStateMachine):
    """One key under random calls, beside a book of everything that was ever taken, with true times."""

    new_store: Callable[[], AllowanceStore]

    def __init__(self) -> None:
        super().__init__()
        self.store = self.new_store()
        self.now = 1000.0
        self.requests_limit: int | None = 5
        self.tokens_limit: int | None = 100
        self.book: list[list[float | int]] = []  # [moment, tokens that count]
        self.open: list[tuple[Hold, list[float | int]]] = []
        self.refused: TooFast | None = None
        self.wanted = 0

    def taken(self, seconds: float) -> tuple[int, int]:
        recent = [tokens for moment, tokens in self.book if moment > self.now - seconds]
        return len(recent), int(sum(recent))

    def call(self, tokens: int) -> Hold | TooFast | TooLarge:
        return self.store.admit("key", self.requests_limit, self.tokens_limit, tokens, self.now)

    @rule(seconds=st.floats(0, 70))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.refused = None

    @rule(requests=st.none() | st.integers(0, 8), tokens=st.none() | st.integers(0, 150))
    def change_the_limits(self, requests: int | None, tokens: int | None) -> None:
        self.requests_limit, self.tokens_limit = requests, tokens
        self.refused = None

    @rule(tokens=st.integers(0, 120))
    def ask(self, tokens: int) -> None:
        requests_limit, tokens_limit = self.requests_limit, self.tokens_limit
        strict_requests, strict_tokens = self.taken(60)
        counted_requests, counted_tokens = self.taken(61)
        answer = self.call(tokens)
        self.refused = None
        if isinstance(answer, Hold):  # L1: never over in any true window of sixty seconds
            assert requests_limit is None or strict_requests + 1 <= requests_limit
            assert tokens_limit is None or (tokens_limit and strict_tokens + tokens <= tokens_limit)
            entry: list[float | int] = [self.now, tokens]
            self.book.append(entry)
            self.open.append((answer, entry))
            return
        too_large = (requests_limit == 0) or (tokens_limit is not None and (tokens > tokens_limit or tokens_limit == 0))
        assert isinstance(answer, TooLarge) == too_large
        if isinstance(answer, TooFast):  # L3: not too strict, the sixty-first second is all that is added
            assert (requests_limit is not None and counted_requests + 1 > requests_limit) or (
                tokens_limit is not None and counted_tokens + tokens > tokens_limit
            )
            assert 0 < answer.wait_s <= 61
            self.refused, self.wanted = answer, tokens

    @precondition(lambda self: self.refused)
    @rule()
    def wait_as_long_as_told(self) -> None:
        assert self.refused is not None
        self.now += self.refused.wait_s
        self.refused = None
        answer = self.call(self.wanted)
        assert isinstance(answer, Hold)  # L4: the wait is true
        self.book.append(entry := [self.now, self.wanted])
        self.open.append((answer, entry))

    @precondition(lambda self: self.open)
    @rule(choice=st.integers(0, 1000), tokens=st.integers(0, 200))
    def settle(self, choice: int, tokens: int) -> None:
        hold, entry = self.open.pop(choice % len(self.open))
        assert hold.settle(tokens, self.now)
        assert not hold.settle(tokens + 50, self.now)  # L6: once
        entry[1] = tokens
        self.refused = None

    @invariant()
    def what_remains_is_what_the_book_says(self) -> None:  # L6 and L7: refusals took nothing, settling left the truth
        lines = dict(line.split(b": ") for line in self.store.header_lines("key", 1000, 100_000, self.now).splitlines())
        for dimension, least, most in zip(("requests", "tokens"), self.taken(60), self.taken(61), strict=True):
            limit, remaining = (
                int(lines[b"x-ratelimit-%b-%b" % (w, dimension.encode())]) for w in (b"limit", b"remaining")
            )
            assert least <= limit - remaining <= most


@every_store
def test_the_laws_hold_under_any_sequence_of_calls(new_store: Callable[[], AllowanceStore]) -> None:
    machine = type("TheLaws", (Laws,), {"new_store": staticmethod(new_store)})
    case = machine.TestCase  # type: ignore[attr-defined]
    case.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
    case("runTest").runTest()


@every_store
def test_of_many_calls_at_once_exactly_as_many_as_allowed_are_admitted(new_store: Callable[[], AllowanceStore]) -> None:
    store = new_store()
    answers = [store.admit("key", 50, None, 1, 7.0) for _ in range(300)]
    assert sum(isinstance(answer, Hold) for answer in answers) == 50


@every_store
def test_of_many_large_calls_exactly_those_that_fit_are_admitted(new_store: Callable[[], AllowanceStore]) -> None:
    store = new_store()
    answers = [store.admit("key", 1000, 10_000, 500, 7.0) for _ in range(200)]
    assert sum(isinstance(answer, Hold) for answer in answers) == 20
    assert b"remaining-requests: 980\r\n" in store.header_lines("key", 1000, 10_000, 7.0)


@every_store
def test_the_wait_is_for_all_limits_that_stand_in_the_way(new_store: Callable[[], AllowanceStore]) -> None:
    store = new_store()
    store.admit("key", 2, 100, 10, 0.5)
    store.admit("key", 2, 100, 80, 30.5)
    refusal = store.admit("key", 2, 100, 50, 31.0)
    assert refusal == TooFast("tokens", limit=100, used=90, wanted=50, wait_s=91 - 31.0)
    assert isinstance(store.admit("key", 2, 100, 10, 31.0), TooFast)
    assert isinstance(store.admit("key", 2, 100, 50, 31.0 + 60.0), Hold)


@every_store
@pytest.mark.parametrize(
    ("requests", "tokens", "wanted", "dimension"),
    [(0, None, 0, "requests"), (0, 10, 5, "requests"), (None, 0, 0, "tokens"), (None, 0, 5, "tokens"),
     (9, 10, 11, "tokens")],
)  # fmt: skip
def test_what_can_never_fit_is_too_large_whatever_the_window_holds(
    new_store: Callable[[], AllowanceStore], requests: int | None, tokens: int | None, wanted: int, dimension: str
) -> None:
    store = new_store()
    store.admit("key", None, None, 3, 1.0)
    answer = store.admit("key", requests, tokens, wanted, 2.0)
    assert isinstance(answer, TooLarge) and answer.dimension == dimension


@every_store
def test_a_limit_of_zero_admits_not_even_a_call_without_tokens(new_store: Callable[[], AllowanceStore]) -> None:
    assert new_store().admit("key", None, 0, 0, 1.0) == TooLarge("tokens", limit=0, wanted=0)


@every_store
@given(st.integers(0, 1000), st.integers(0, 2000))
def test_tokens_beyond_the_reservation_hold_up_what_follows_until_it_fits(
    new_store: Callable[[], AllowanceStore], reserved: int, used: int
) -> None:
    store = new_store()
    hold = store.admit("key", None, 1000, reserved, 5.0)
    assert isinstance(hold, Hold) and hold.settle(used, 9.0)
    answer = store.admit("key", None, 1000, 300, 10.0)
    assert isinstance(answer, Hold if used + 300 <= 1000 else TooFast)


@every_store
def test_keys_do_not_share_a_window(new_store: Callable[[], AllowanceStore]) -> None:
    store = new_store()
    store.admit("key_a", 1, None, 1, 5.0)
    assert isinstance(store.admit("key_b", 1, None, 1, 5.0), Hold)


@every_store
def test_a_limit_that_is_set_later_counts_what_was_taken_before(new_store: Callable[[], AllowanceStore]) -> None:
    store = new_store()
    for _ in range(3):
        store.admit("key", None, None, 100, 5.0)
    assert isinstance(store.admit("key", 3, None, 1, 6.0), TooFast)
    assert isinstance(store.admit("key", None, 300, 1, 6.0), TooFast)


@every_store
@given(
    st.none() | st.integers(0, 3),
    st.none() | st.integers(0, 30),
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 20)), max_size=6),
)
def test_a_key_is_exhausted_exactly_when_the_smallest_call_would_be_refused(
    new_store: Callable[[], AllowanceStore], requests: int | None, tokens: int | None, calls: list[tuple[int, int]]
) -> None:
    store, now = new_store(), 5.0
    for wanted, pause_s in calls:
        store.admit("key", requests, tokens, wanted, now)
        now += pause_s
    told = store.exhausted("key", requests, tokens, now)
    assert store.exhausted("key", requests, tokens, now) == told, "asking takes nothing"
    smallest = store.admit("key", requests, tokens, 1, now)
    assert smallest == told if told is not None else isinstance(smallest, Hold)


@every_store
def test_a_call_that_is_cancelled_counts_as_none(new_store: Callable[[], AllowanceStore]) -> None:
    store = new_store()
    for _ in range(5):
        hold = store.admit("key", 1, 100, 90, 5.0)
        assert isinstance(hold, Hold)
        hold.cancel()
        hold.cancel()
        assert not hold.settle(7, 6.0)
    spent = store.admit("key", 1, 100, 90, 5.0)
    assert isinstance(spent, Hold) and spent.settle(10, 6.0)
    spent.cancel()
    assert isinstance(store.admit("key", 1, 100, 1, 7.0), TooFast), "what was settled is not given back"
