"""What the setting UNPRICED says, and what follows from it."""

from decimal import Decimal

import pytest

from tollway.domain.asked import NoUsage
from tollway.domain.unpriced import Refused, Unpriced
from tollway.domain.usage import Usage


@pytest.mark.parametrize("word", ["auto", "refuse", "allow", "AUTO"])
def test_a_word_is_a_rule(word: str) -> None:
    assert Unpriced.parse(word) == Unpriced(Refused(word.lower()))
    assert Unpriced.parse(word).price is None


def test_a_price_is_per_thousand_tokens_and_refuses_nothing() -> None:
    rule = Unpriced.parse("0.01/0.03")
    assert rule.price is not None
    cost, _ = rule.price.bill(Usage(1000, 2000))
    assert Decimal(cost).scaleb(-rule.price.scale) == Decimal("0.07")
    assert not any(rule.refuses(no_usage, names_model=True) for no_usage in NoUsage)


@pytest.mark.parametrize("text", ["", "deny", "1", "1/", "/1", "-1/1", "NaN/1", "1/2/3", "1e99/1"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Unpriced.parse(text)


@pytest.mark.parametrize(
    ("word", "refused"),
    [("auto", {NoUsage.ESTIMATE}), ("refuse", {NoUsage.ESTIMATE, NoUsage.UNPRICED}), ("allow", set())],
)
def test_which_calls_are_refused(word: str, refused: set[NoUsage]) -> None:
    rule = Unpriced.parse(word)
    assert {no_usage for no_usage in NoUsage if rule.refuses(no_usage, names_model=True)} == refused


def test_a_call_without_a_model_may_get_its_price_from_its_answer() -> None:
    assert not Unpriced.parse("auto").refuses(NoUsage.ESTIMATE, names_model=False)
