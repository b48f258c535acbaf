"""Rows become a snapshot; one that cannot be used holds up nothing but itself, and everything wrong is listed."""

import random
from collections.abc import Sequence
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollway.domain.keys import KeyHash
from tollway.domain.prices import Price, Rate
from tollway.domain.prices import price_of as price_of_rates
from tollway.domain.tariffs import Period, periods_json
from tollway.domain.usage import Bucket
from tollway.routing.snapshot import (
    KEPT,
    LEFT_OUT,
    NO_MODEL,
    NOTHING,
    KeyRow,
    KeyTable,
    ModelRow,
    Problem,
    ProviderRow,
    Rows,
    Snapshot,
    Target,
    compile_snapshot,
    grants,
)

OPENAI = ProviderRow("openai", "openai", "https://api.openai.com/v1/", None)
KEY = KeyRow("key_1", b"h" * 32, None, None, 60, 100_000, None, None, False)


def model(name: str = "a", provider: str = "openai", **values: object) -> ModelRow:
    empty = ModelRow(name, provider, None, (), Decimal("0.5"), Decimal("1.5"), None, None)
    return empty._replace(**values)


def compiled(*models: ModelRow, providers: Sequence[ProviderRow] = (OPENAI,)) -> Snapshot:
    snapshot, problems, in_force = compile_snapshot(7, {}, Rows(tuple(providers), models))
    assert problems == ()
    assert in_force == Rows(tuple(providers), models)
    return snapshot


def price_of(row: ModelRow) -> Price | None:
    return price_of_target(compiled(row).routes[row.name].targets[0])


def price_of_target(target: Target) -> Price | None:
    return None if target.tariff is None else target.tariff.at(1e9)


def price_per_1k(input_cost: Decimal, output_cost: Decimal, cached_input_cost: Decimal | None = None) -> Price:
    rates = [Rate(Bucket.INPUT, input_cost, 1000), Rate(Bucket.OUTPUT, output_cost, 1000)]
    cached = [] if cached_input_cost is None else [Rate(Bucket.CACHE_READ, cached_input_cost, 1000)]
    return price_of_rates(rates + cached)


def test_a_route_is_the_model_and_then_its_fallbacks_in_order() -> None:
    snapshot = compiled(model("a", fallback=["c", "b", "c"]), model("b"), model("c"))
    assert [target.model for target in snapshot.routes["a"].targets] == ["a", "c", "b"]
    assert snapshot.revision == 7


def test_a_target_knows_the_providers_own_name_of_the_model() -> None:
    assert compiled(model("a", upstream_name="gpt-x")).routes["a"].targets[0].upstream_model == "gpt-x"
    assert compiled(model("a")).routes["a"].targets[0].upstream_model == "a"


def test_an_answers_model_is_found_with_and_without_the_date_of_its_version() -> None:
    other = ProviderRow("other", "openai", "https://other.example", None)
    rows = (
        *(
            model("x", upstream_name="gpt-x"),
            model("gpt-x"),
            model("b-y", upstream_name="y"),
            model("a-y", upstream_name="y"),
        ),
        *(model("gpt-z-2026-01-31"), model("elsewhere", "other", upstream_name="e")),
    )
    snapshot = compiled(*rows, providers=(OPENAI, other))

    def answered(name: str) -> str | None:
        target = snapshot.target_that_answered("openai", name)
        return target and target.model

    assert [answered(name) for name in ("gpt-x", "gpt-x-2026-01-31", "gpt-x-20260131", "y")] == [
        *("gpt-x", "gpt-x", "gpt-x", "a-y")
    ]
    assert [answered(name) for name in ("gpt-z-2026-01-31", "gpt-z", "gpt-x-mini", "e", "")] == [
        *("gpt-z-2026-01-31", None, None, None, None)
    ]


def test_an_address_loses_the_slash_at_its_end() -> None:
    assert compiled().providers["openai"].base_url == "https://api.openai.com/v1"


def test_all_problems_are_listed_and_nothing_else_is_held_up() -> None:
    providers = (
        OPENAI,
        ProviderRow("p", "klingon", "https://p.example", None),
        ProviderRow("q", "openai", "ftp://q.example", None),
        ProviderRow("r", "openai", "https://r.example", None, (["no_credential"],)),
        ProviderRow("s t", "openai", "https://s.example", None),
        ProviderRow("u", "openai", "https://u.example", "1\r\n"),
    )
    models = (
        model("a", "nobody"),
        model("b", "q", fallback=["gone"]),
        model("c", "q", input_cost=Decimal("-1")),
        model("d", "q", output_cost=Decimal("NaN")),
        model("e", fallback=None),
        model("f g"),
        model("h", upstream_name="\x1b"),
        model("i", fallback=["a", "gone", "j"]),
        model("j"),
        model("k", on_disconnect="perhaps"),
    )
    snapshot, problems, in_force = compile_snapshot(1, {}, Rows(providers, models))
    assert [problem.where for problem in problems] == [
        *(f"model {name!r}" for name in ("a", "b", "c", "d", "e", "f g", "h", "i", "k")),
        *(f"provider {name!r}" for name in ("p", "q", "r", "s t", "u")),
    ]
    assert {problem.consequence for problem in problems if problem.where != "model 'i'"} == {LEFT_OUT}
    assert set(snapshot.providers) == {"openai"}
    assert set(snapshot.routes) == {NO_MODEL, "i", "j"}
    assert [target.model for target in snapshot.routes["i"].targets] == ["i", "j"]
    assert in_force == Rows((OPENAI,), models[-3:-1])


def test_a_row_that_becomes_bad_keeps_its_last_good_version_and_all_others_go_on() -> None:
    other = ProviderRow("other", "openai", "https://other.example", None)
    good = Rows((OPENAI, other), (model("a"), model("b", "other")))
    last_good = compile_snapshot(1, {}, good).in_force
    bad = Rows(
        (OPENAI._replace(api_base="http://169.254.169.254"), other._replace(api_base="https://new.example")),
        (model("a", input_cost=Decimal(9)), model("b", "other", input_cost=Decimal(-1)), model("c")),
    )
    for _ in range(2):  # the last good ones stay so, however often the rows are read
        snapshot, problems, last_good = compile_snapshot(2, {}, bad, last_good)
        assert {problem.consequence for problem in problems} == {KEPT}
        assert [problem.where for problem in problems] == ["model 'b'", "provider 'openai'"]
        assert snapshot.providers["openai"].base_url == "https://api.openai.com/v1"
        assert snapshot.providers["other"].base_url == "https://new.example"
        (a,), (b,), (c,) = (snapshot.routes[name].targets for name in "abc")
        assert price_of_target(a) == price_per_1k(Decimal(9), Decimal("1.5"))
        assert price_of_target(b) == price_per_1k(Decimal("0.5"), Decimal("1.5"))
        assert b.provider.base_url == "https://new.example"
        assert c.provider.name == "openai"
    mended = compile_snapshot(3, {}, good, last_good)
    assert (mended.problems, mended.in_force) == ((), good)


def test_a_model_that_moves_to_a_provider_without_a_good_version_stays_where_it_was() -> None:
    last_good = compile_snapshot(1, {}, Rows((OPENAI,), (model("a"),))).in_force
    odd = ProviderRow("odd", "openai", "ftp://odd", None)
    moved = Rows((OPENAI, odd), (model("a", "odd"), model("b", fallback=["a"])))
    snapshot, problems, _ = compile_snapshot(2, {}, moved, last_good)
    assert snapshot.routes["a"].targets[0].provider.name == "openai"
    assert [target.model for target in snapshot.routes["b"].targets] == ["b", "a"]
    assert [(problem.where, problem.consequence) for problem in problems] == [
        ("model 'a'", KEPT),
        ("provider 'odd'", LEFT_OUT),
    ]


def test_a_last_good_model_goes_with_its_provider() -> None:
    last_good = compile_snapshot(1, {}, Rows((OPENAI,), (model("a"),))).in_force
    odd = ProviderRow("odd", "openai", "ftp://odd", None)
    snapshot, problems, in_force = compile_snapshot(2, {}, Rows((odd,), (model("a", "odd"),)), last_good)
    assert set(snapshot.routes) == {NO_MODEL}
    assert in_force == Rows()
    assert problems


def test_a_row_says_whether_its_answers_are_drained() -> None:
    rows = (model("a"), model("b", on_disconnect="cancel"), model("c", on_disconnect="drain"))
    drained = {name: route.targets[0].drain for name, route in compiled(*rows).routes.items()}
    assert drained == {NO_MODEL: False, "a": False, "b": False, "c": True}


def test_a_problem_reads_as_one_sentence() -> None:
    assert str(Problem("model 'a'", "there is no provider 'x'")) == "model 'a': there is no provider 'x'"


def test_a_cost_that_the_row_leaves_open_is_the_lists() -> None:
    rates = price_per_1k(Decimal(1), Decimal(2), Decimal("0.1")).rates
    listed = {"listed": periods_json([Period(rates)]).decode()}
    unset = {"input_cost": None, "output_cost": None}
    assert price_of(model(**listed, **unset)) == price_per_1k(Decimal(1), Decimal(2), Decimal("0.1"))
    assert price_of(model(**listed, input_cost=None)) == price_per_1k(Decimal(1), Decimal("1.5"), Decimal("0.1"))
    assert price_of(model(**listed, output_cost=None)) == price_per_1k(Decimal("0.5"), Decimal(2), Decimal("0.1"))
    assert price_of(model(**unset)) is None
    assert price_of(model(output_cost=None)) is None


def test_a_row_of_prices_stands_before_the_columns_and_the_rest_is_the_lists() -> None:
    listed = periods_json([Period(price_per_1k(Decimal(1), Decimal(2), Decimal("0.1")).rates)]).decode()
    own = '[[1000000000, null, [{"bucket": "output", "usd": "7", "per": 1000}]]]'
    assert price_of(model(listed=listed, own_prices=own)) == price_per_1k(Decimal("0.5"), Decimal(7), Decimal("0.1"))


@pytest.mark.parametrize("text", ["", "{}", '[[0, null, "x"]]', '[[0, null, [{"bucket": "input", "usd": "-1"}]]]'])
def test_prices_that_cannot_be_read_are_a_problem_of_their_model_alone(text: str) -> None:
    for odd in (model("odd", own_prices=text), model("odd", listed=text)):
        snapshot, problems, _ = compile_snapshot(1, {}, Rows((OPENAI,), (odd, model("b"))))
        assert [problem.where for problem in problems] == ["model 'odd'"]
        assert "b" in snapshot.routes


def test_a_cost_of_any_number_of_decimals_is_exact() -> None:
    price = price_of(model(input_cost=Decimal("0.123456789012345678")))
    assert price is not None
    assert Decimal(price.base.input).scaleb(-price.scale) * 1000 == Decimal("0.123456789012345678")


@given(st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(order: random.Random) -> None:
    providers = [OPENAI, ProviderRow("mistral", "mistral", "https://api.mistral.ai/v1", None)]
    models = [model(name, fallback=["x"]) for name in "abc"] + [model("x", "mistral")]
    providers.append(ProviderRow("q", "openai", "ftp://q.example", None))
    models.append(model("y", "nobody"))
    expected = compile_snapshot(1, {}, Rows(tuple(providers), tuple(models)))
    order.shuffle(providers)
    order.shuffle(models)
    assert compile_snapshot(1, {}, Rows(tuple(providers), tuple(models)))[:2] == expected[:2]


text = st.text(max_size=8)
cost = st.none() | st.decimals()


@given(
    st.lists(
        st.builds(ProviderRow, text, text | st.just("openai"), text | st.just("https://x"), st.none()), max_size=2
    ),
    st.lists(
        st.builds(
            ModelRow,
            text,
            text,
            st.none() | text,
            st.none() | st.lists(text, max_size=2),
            cost,
            cost,
            cost,
            st.none() | text,
            st.none() | text,
            on_disconnect=text | st.just("drain"),
        ),
        max_size=2,
    ),
)
def test_junk_gives_problems_and_no_exception(providers: list[ProviderRow], models: list[ModelRow]) -> None:
    first = compile_snapshot(1, {}, Rows(tuple(providers), tuple(models)))
    again = compile_snapshot(1, {}, first.in_force)
    assert (again.problems, again.in_force) == ((), first.in_force)


def test_a_key_has_one_entry_and_during_a_rotation_two() -> None:
    [(current, grant)] = grants(KEY, {"openai": "sealed"})
    assert (current, grant.id, grant.secrets) == (b"h" * 32, "key_1", {"openai": "sealed"})
    assert grant.models is None
    rotated = KEY._replace(previous_hash=b"p" * 32, previous_valid_until=100.0, expires_at=200.0)
    both = dict(grants(rotated, NOTHING))
    assert both[b"h" * 32].expires_at == 200.0
    assert both[b"p" * 32].expires_at == 100.0
    assert dict(grants(rotated._replace(expires_at=50.0), NOTHING))[b"p" * 32].expires_at == 50.0


@pytest.mark.parametrize("hashes", [(b"", None), (b"h" * 31, None), (b"h" * 32, b""), (b"h" * 32, b"p" * 33)])
def test_a_hash_that_no_secret_has_opens_nothing_and_holds_up_nothing(hashes: tuple[bytes, bytes | None]) -> None:
    current, previous = hashes
    row = KEY._replace(hash=current, previous_hash=previous, previous_valid_until=100.0)
    assert [digest for digest, _ in grants(row, NOTHING)] == ([b"h" * 32] if len(current) == 32 else [])


def test_a_list_of_models_in_an_odd_shape_allows_nothing_more() -> None:
    [(_, grant)] = grants(KEY._replace(allowed_models=[["a"], ["b"]]), NOTHING)
    assert grant.models is not None and not grant.models & {"a", "b"}


def test_an_empty_list_of_models_allows_none() -> None:
    [(_, grant)] = grants(KEY._replace(allowed_models=[]), NOTHING)
    assert grant.models == frozenset()


def test_keys_with_the_same_list_of_models_share_it() -> None:
    [(_, first)] = grants(KEY._replace(allowed_models=["a", "b"]), NOTHING)
    [(_, second)] = grants(KEY._replace(allowed_models=["a", "b"]), NOTHING)
    assert first.models is second.models
    assert first.models == {"a", "b"}


HASHES = st.binary(min_size=1, max_size=2).map(KeyHash)


@given(st.lists(st.lists(st.tuples(HASHES, st.booleans()))))
def test_a_key_table_is_a_mapping_that_never_changes(steps: list[list[tuple[KeyHash, bool]]]) -> None:
    [(_, grant)] = grants(KEY, NOTHING)
    table, expected = KeyTable(), {}
    for step in steps:
        before, draft = dict(table), table.draft()
        for key, is_new in step:
            if is_new:
                draft.put(key, grant)
                expected[key] = grant
            else:
                draft.drop(key)
                expected.pop(key, None)
        assert dict(table) == before
        table = draft.done()
        assert dict(table) == expected
        assert len(table) == len(expected)
        assert all(table.get(key) is expected.get(key) for key, _ in step)
