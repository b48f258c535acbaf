from tollway.domain.keys import KeyId
from tollway.domain.refusals import ModelNotAllowed, ModelNotFound
from tollway.routing.plan import plan
from tollway.routing.snapshot import NOTHING, KeyGrant, Provider, Route, Snapshot, Target

PROVIDER = Provider("openai", "openai", "https://api.example/v1")
A, B, C = (Target(name, name, PROVIDER, None) for name in "abc")
SNAPSHOT = Snapshot(1, {}, {"a": Route("a", (A, B, C)), "b": Route("b", (B,))}, {})


def grant(*models: str) -> KeyGrant:
    return KeyGrant(KeyId("key_1"), None, None, frozenset(models) if models else None, None, False, NOTHING)


def test_a_key_without_an_allow_list_may_use_the_model_and_all_its_fallbacks() -> None:
    assert plan("a", grant(), SNAPSHOT) == (A, B, C)


def test_fallbacks_that_the_key_may_not_use_are_left_out_in_order() -> None:
    assert plan("a", grant("c", "a"), SNAPSHOT) == (A, C)


def test_an_unknown_model_is_not_found() -> None:
    assert plan("d", grant(), SNAPSHOT) == ModelNotFound("d")
    assert plan("d", grant("d"), SNAPSHOT) == ModelNotFound("d")


def test_a_model_that_is_not_on_the_list_is_refused_even_if_its_fallbacks_are() -> None:
    assert plan("a", grant("b", "c"), SNAPSHOT) == ModelNotAllowed("a")
