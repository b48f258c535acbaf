"""Rows become a snapshot whole, or a list of everything that is wrong with them."""

import ipaddress
import random
import string
from collections.abc import Sequence
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tollway.domain.keys import KeyHash
from tollway.domain.prices import Price, price_per_1k
from tollway.http1.origin import Origin
from tollway.routing.snapshot import (
    NOTHING,
    KeyRow,
    KeyTable,
    ModelRow,
    Problem,
    ProviderRow,
    Snapshot,
    base_url_problem,
    compile_snapshot,
    grants,
    is_forbidden_address,
)

OPENAI = ProviderRow("openai", "openai", "https://api.openai.com/v1/", None)
KEY = KeyRow("key_1", b"h" * 32, None, None, 60, 100_000, None, None, False)


def model(name: str = "a", provider: str = "openai", **values: object) -> ModelRow:
    empty = ModelRow(name, provider, None, (), Decimal("0.5"), Decimal("1.5"), None, None, None, None)
    return empty._replace(**values)


def compiled(*models: ModelRow, providers: Sequence[ProviderRow] = (OPENAI,)) -> Snapshot:
    result = compile_snapshot(7, {}, providers, models)
    assert isinstance(result, Snapshot), result
    return result


def price_of(row: ModelRow) -> Price | None:
    return compiled(row).routes[row.name].targets[0].price


def test_a_route_is_the_model_and_then_its_fallbacks_in_order() -> None:
    snapshot = compiled(model("a", fallback=["c", "b", "c"]), model("b"), model("c"))
    assert [target.model for target in snapshot.routes["a"].targets] == ["a", "c", "b"]
    assert snapshot.revision == 7


def test_a_target_knows_the_providers_own_name_of_the_model() -> None:
    assert compiled(model("a", upstream_name="gpt-x")).routes["a"].targets[0].upstream_model == "gpt-x"
    assert compiled(model("a")).routes["a"].targets[0].upstream_model == "a"


def test_an_address_loses_the_slash_at_its_end() -> None:
    assert compiled().providers["openai"].base_url == "https://api.openai.com/v1"


def test_all_problems_are_listed() -> None:
    problems = compile_snapshot(
        1,
        {},
        [ProviderRow("p", "klingon", "https://p.example", None), ProviderRow("q", "openai", "ftp://q.example", None)],
        [
            model("a", "nobody"),
            model("b", "q", fallback=["gone"]),
            model("c", "q", input_cost=Decimal("-1")),
            model("d", "q", output_cost=Decimal("NaN")),
        ],
    )
    assert isinstance(problems, list)
    assert [problem.where for problem in problems] == [
        "model 'a'",
        "model 'b'",
        "model 'c'",
        "model 'd'",
        "provider 'p'",
        "provider 'q'",
    ]


def test_a_problem_reads_as_one_sentence() -> None:
    assert str(Problem("model 'a'", "there is no provider 'x'")) == "model 'a': there is no provider 'x'"


def test_a_cost_that_the_row_leaves_open_is_the_lists() -> None:
    listed = {
        "builtin_input_cost": Decimal(1),
        "builtin_output_cost": Decimal(2),
        "builtin_cached_input_cost": Decimal("0.1"),
    }
    unset = {"input_cost": None, "output_cost": None}
    assert price_of(model(**listed, **unset)) == price_per_1k(Decimal(1), Decimal(2), Decimal("0.1"))
    assert price_of(model(**listed, input_cost=None)) == price_per_1k(Decimal(1), Decimal("1.5"), Decimal("0.1"))
    # The list's cached cost belongs to the list's input cost.
    assert price_of(model(**listed, output_cost=None)) == price_per_1k(Decimal("0.5"), Decimal(2))
    assert price_of(model(**unset)) is None
    assert price_of(model(output_cost=None)) is None


def test_a_cost_of_any_number_of_decimals_is_exact() -> None:
    price = price_of(model(input_cost=Decimal("0.123456789012345678")))
    assert price is not None
    assert Decimal(price.input).scaleb(-price.scale) * 1000 == Decimal("0.123456789012345678")


@given(st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(order: random.Random) -> None:
    providers = [OPENAI, ProviderRow("mistral", "mistral", "https://api.mistral.ai/v1", None)]
    models = [model(name, fallback=["x"]) for name in "abc"] + [model("x", "mistral")]
    expected = compile_snapshot(1, {}, providers, models)
    order.shuffle(providers)
    order.shuffle(models)
    assert compile_snapshot(1, {}, providers, models) == expected


text = st.text(max_size=8)
cost = st.none() | st.decimals()


@given(
    st.lists(
        st.builds(ProviderRow, text, text | st.just("openai"), text | st.just("https://x"), st.none()), max_size=2
    ),
    st.lists(
        st.builds(
            ModelRow, text, text, st.none() | text, st.lists(text, max_size=2), cost, cost, cost, cost, cost, cost
        ),
        max_size=2,
    ),
)
def test_junk_gives_problems_and_no_exception(providers: list[ProviderRow], models: list[ModelRow]) -> None:
    assert isinstance(compile_snapshot(1, {}, providers, models), Snapshot | list)


def test_a_key_has_one_entry_and_during_a_rotation_two() -> None:
    [(current, grant)] = grants(KEY, {"openai": "sealed"})
    assert (current, grant.id, grant.secrets) == (b"h" * 32, "key_1", {"openai": "sealed"})
    assert grant.models is None
    rotated = KEY._replace(previous_hash=b"p" * 32, previous_valid_until=100.0, expires_at=200.0)
    both = dict(grants(rotated, NOTHING))
    assert both[b"h" * 32].expires_at == 200.0
    assert both[b"p" * 32].expires_at == 100.0
    assert dict(grants(rotated._replace(expires_at=50.0), NOTHING))[b"p" * 32].expires_at == 50.0


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


@pytest.mark.parametrize(
    "url",
    [
        "https://api.openai.com/v1",
        "HTTP://127.0.0.1:9000/v1",
        "http://10.0.0.1",
        "http://[::1]:8080/v1/",
        "http://localhost",
        "http://a_b.internal/x",
        "builtin:demo",
    ],
)
def test_an_address_for_a_provider_is_accepted(url: str) -> None:
    assert base_url_problem(url) is None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.openai.com",
        "ftp://x",
        "https://",
        "https:///v1",
        "https://user:password@x/v1",
        "https://x/v1?key=1",
        "https://x/v1#f",
        "https://x y/",
        "https://x\r\nHost: y/",
        "https://x:99999",
        "https://[::1",
        "https://ex\u00e4mple",
        "http://169.254.169.254/latest",
        "http://[fe80::1]/",
        "http://[fe80::1%25eth0]/",
        "http://[::ffff:169.254.169.254]/",
        "http://[64:ff9b::a9fe:a9fe]/",
        "http://[2002:a9fe:a9fe::]/",
        "http://[fd00:ec2::254]/",
        "http://METADATA.google.internal./",
        "http://2852039166/",
        "http://0xa9fea9fe/",
        "http://0251.0376.0251.0376/",
        "http://169.254.43518/",
        "http://100.100.100.200",
    ],
)
def test_an_address_where_no_provider_may_be_is_refused(url: str) -> None:
    assert base_url_problem(url)


def is_origin(url: str) -> bool:
    try:
        Origin.parse(url)
    except (ValueError, LookupError):
        return False
    return True


@pytest.mark.parametrize(
    "url",
    [
        "https://host.example/openai/{deployment}",
        "https://h/a b",
        "https://h/a|b",
        "https://h/\\",
        'https://h/"',
        "https://h/a%20b/@x;y=(1)!",
        "https://h//a//",
        "https://h:0",
        "https://h:65536",
        "https://h:65535",
        "https://h:",
        "https://h:000080/",
        "https://h:00080/",
        "https://" + "a" * 253,
        "https://" + "a" * 254,
        "https://[::1]",
        "https://[1.2.3.4]",
        "https://[::1.2.3.4]",
        "https://[00001::]",
        "https://[::1]x",
        "https://[v1.a]",
        "https://h\n",
        "https://h\u0660",
        "https://h:\u0661",
        "http\u017f://h",
        "https://.",
        "https://h!",
        "https://*",
        "https://%41",
        "https://@h",
        "https://h\\@evil",
        "https:/h",
        "unix:/tmp/s",
    ],
)
def test_what_may_be_written_is_exactly_what_can_be_called(url: str) -> None:
    assert (base_url_problem(url) is None) == is_origin(url)


PIECES = [
    "http",
    "https",
    "HTTPS",
    ":",
    "/",
    "//",
    "://",
    "h",
    "a.b",
    "_",
    "[",
    "]",
    "[::1]",
    "::",
    "1",
    "443",
    "%2F",
    "@",
]


@given(
    st.one_of(st.text(), st.lists(st.sampled_from([*PIECES, *string.printable])).map("".join)).map("https://h".__add__)
)
@example("https://h/{x}")
def test_no_text_can_be_written_that_cannot_be_called(url: str) -> None:
    assert (base_url_problem(url) is None) == is_origin(url)


@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
def test_no_row_of_pieces_can_be_written_that_cannot_be_called(url: str) -> None:
    problem = base_url_problem(url)
    assert is_origin(url) if problem is None else not is_origin(url) or "IPv4" in problem


@pytest.mark.parametrize(
    "url", ["builtin:", "builtin:Demo", "builtin:demo/..", "builtin:../internal", "builtin:demo\n"]
)
def test_only_a_name_stands_behind_builtin(url: str) -> None:
    assert base_url_problem(url)


def test_loopback_and_private_addresses_are_not_forbidden() -> None:
    allowed = ["127.0.0.1", "10.1.2.3", "192.168.0.1", "::1", "fd00::1", "8.8.8.8", "::ffff:10.0.0.1"]
    assert not [text for text in allowed if is_forbidden_address(ipaddress.ip_address(text))]
