"""What stands for a count that a provider told as nothing, where that cannot be."""

import pytest
from msgspec.structs import replace

from fakes.usages import told
from tollway.domain.usage import Bucket, Usage
from tollway.wire.estimate import with_estimates, with_later_text


def test_no_prompt_is_nothing() -> None:
    usage = Usage(100, 40, measured=False, doubt="prompt_untold")
    assert with_estimates(told(0, 40), 100, 9) == usage
    assert with_estimates(told(0, 40, 0, 40), 100, 9) == Usage(100, 0, 0, 40, measured=False, doubt="prompt_untold")


def test_where_no_tokens_are_told_at_all_both_are_estimated() -> None:
    others = {Bucket.WEB_SEARCHES: 2}
    assert with_estimates(Usage(0, 0, others=others), 100, 9) == Usage(
        100, 9, others=others, measured=False, doubt="prompt_untold"
    )


def test_an_output_of_nothing_beside_a_text_is_in_doubt() -> None:
    assert with_estimates(told(5, 0, 5), 100, 9) == Usage(0, 0, 5, doubt="output_untold")


def test_an_output_that_was_not_told_is_what_was_said() -> None:
    half = Usage(1000, 0, measured=False, doubt="output_untold")
    assert with_estimates(half, 100, 9) == replace(half, output=9)


@pytest.mark.parametrize(("said", "input_tokens"), [(9, 100), (4950, 50), (9000, 0)])
def test_of_a_total_alone_the_prompt_is_as_estimated_and_the_rest_came_out(said: int, input_tokens: int) -> None:
    total = Usage(5000, 0, measured=False, doubt="split_untold")
    assert with_estimates(total, 100, said) == replace(total, input=input_tokens, output=5000 - input_tokens)


def test_what_can_be_true_stays() -> None:
    for usage in (told(5, 0), told(5, 7, 5, 7), Usage(0, 3, others={Bucket.INPUT_AUDIO: 4})):
        assert with_estimates(usage, 100, 0) is usage


def test_a_usage_before_far_more_text_than_it_tells_of_was_interim() -> None:
    early = told(1000, 1)
    assert with_later_text(early, 300, 4000) == Usage(1000, 1000, measured=False, doubt="interim_usage")
    thought = Usage(1000, 10, reasoning=90)
    assert with_later_text(thought, 0, 4000) == replace(thought, output=910, measured=False, doubt="interim_usage"), (
        "thoughts are a part of what was told"
    )


def test_a_usage_that_may_have_counted_the_text_holds() -> None:
    for usage, before, in_all in ((told(5, 500), 0, 4000), (told(5, 1), 4000, 4000), (told(5, 1), 4300, 4000)):
        assert with_later_text(usage, before, in_all) is usage
