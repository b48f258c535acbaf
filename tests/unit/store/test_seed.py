"""The seed agrees with itself and with the built-in price list."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from tollway.accounting.builtin_prices import builtin_price
from tollway.store.seed import MODELS, SeedModel

LISTED = [model for model in MODELS if model.provider != "demo"]


@pytest.mark.parametrize("model", LISTED, ids=lambda model: model.name)
def test_a_seeded_price_is_the_listed_one(model: SeedModel) -> None:
    listed = builtin_price(model.provider, model.name, datetime.now(UTC))
    assert listed is not None
    costs = (listed.input_per_1k, listed.cached_input_per_1k, listed.output_per_1k)
    assert costs == tuple(
        None if cost is None else Decimal(cost) / 1000 for cost in (model.input, model.cached_input, model.output)
    )


def test_every_fallback_is_a_model() -> None:
    names = {model.name for model in MODELS}
    assert len(names) == len(MODELS)
    assert {model.fallback for model in MODELS if model.fallback} <= names


def test_the_predecessors_example_falls_back_to_mistral() -> None:
    assert {model.name: model.fallback for model in MODELS}["gpt-3.5-turbo"] == "mistral-small-latest"
