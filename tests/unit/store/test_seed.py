"""The seed agrees with itself, and the built-in price list knows its models."""

from tollway.accounting.builtin_prices import listed_periods
from tollway.store.seed import MODELS

UNLISTED = {"gpt-image-2.6-sunburst", "gpt-image-2.6-flare"}
"""Billed by tokens that no list knows the price of yet."""

FREE = {"omni-moderation-latest", "omni-moderation-2024-09-26", "mistral-moderation-latest"}
"""The list has them without a rate; the operation is free."""


def test_the_built_in_list_prices_what_is_seeded_without_a_price() -> None:
    unpriced = {model.name for model in MODELS if model.input_per_1k is None}
    unknown = {model.name for model in MODELS if not listed_periods(model.provider, model.name)}
    assert unpriced & unknown == UNLISTED | FREE


def test_only_the_simulated_models_have_prices_of_their_own() -> None:
    assert {model.provider for model in MODELS if model.input_per_1k is not None} == {"demo"}


def test_every_fallback_is_a_model() -> None:
    names = {model.name for model in MODELS}
    assert len(names) == len(MODELS)
    assert {model.fallback for model in MODELS if model.fallback} <= names


def test_the_predecessors_example_falls_back_to_mistral() -> None:
    assert {model.name: model.fallback for model in MODELS}["gpt-3.5-turbo"] == "mistral-small-latest"
