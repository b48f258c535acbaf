"""A usage is the same after it has been told by totals that contain each other, as the ledger keeps it."""

from hypothesis import given
from hypothesis import strategies as st

from tollway.domain.usage import Bucket, Usage, told_by_totals

COUNT = st.integers(0, 10**9)
COMMON = {Bucket.INPUT, Bucket.OUTPUT, Bucket.CACHE_READ, Bucket.REASONING}
OTHERS = st.dictionaries(st.sampled_from(sorted(set(Bucket) - COMMON)), st.integers(1, 10**9))


@given(st.builds(Usage, COUNT, COUNT, COUNT, COUNT, OTHERS, st.sampled_from(["", "flex"])))
def test_totals_say_it_all(usage: Usage) -> None:
    totals = (usage.input_tokens, usage.output_tokens, usage.cached_input_tokens, usage.reasoning)
    assert told_by_totals(*totals, usage.others, usage.service_tier) == usage


def test_totals_that_were_cut_at_a_columns_end_give_nothing_below_zero() -> None:
    assert told_by_totals(5, 5, 9, 9, {}, "") == Usage(0, 0, 9, 9)
