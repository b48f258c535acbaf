"""A bill is exact, by the rates that hold for its size, its service tier and each of its buckets."""

from decimal import Decimal

import pytest

from tollway.domain.money import to_decimal
from tollway.domain.prices import (
    MAX_DECIMALS,
    MAX_RATES,
    UNPRICED_BUCKET,
    UNPRICED_TIER,
    Price,
    Rate,
    price_of,
    rates_json,
    read_rates,
)
from tollway.domain.usage import Bucket, Usage


def rate(bucket: str, usd: str, **more: object) -> Rate:
    return Rate(Bucket(bucket), Decimal(usd), **more)  # type: ignore[arg-type]


PLAIN = price_of([rate("input", "2"), rate("output", "10"), rate("cache_read", "0.2")])
SIZES = price_of(
    [
        *(
            rate("input", "5"),
            rate("input", "10", above=272_000),
            rate("output", "30"),
            rate("output", "45", above=272_000),
        ),
        *(rate("input", "12.5", tier="priority"), rate("output", "75", tier="priority")),
    ]
)


def cost(price: Price, usage: Usage) -> Decimal:
    return to_decimal(price.bill(usage)[0], price.scale)


def test_each_bucket_is_billed_by_its_rate_and_what_has_none_by_what_it_falls_back_to() -> None:
    usage = Usage(1_000_000, 1_000_000, 1_000_000, 1_000_000, {Bucket.CACHE_WRITE_1H: 1_000_000})
    assert cost(PLAIN, usage) == Decimal(2 + 10) + Decimal("0.2") + 10 + 2
    assert PLAIN.bill(usage)[1] == ""


@pytest.mark.parametrize(("tokens", "dollars"), [(272_000, "1.36"), (272_001, "2.72001")])
def test_the_size_of_the_prompt_decides_for_every_token(tokens: int, dollars: str) -> None:
    assert cost(SIZES, Usage(tokens, 0)) == Decimal(dollars)
    assert cost(SIZES, Usage(0, 0, tokens)) == Decimal(dollars), "cached tokens belong to the prompt, too"
    cut = {Bucket.CACHE_WRITE: tokens - 10, Bucket.INPUT_AUDIO: 10}
    assert cost(SIZES, Usage(0, 0, others=cut)) == Decimal(dollars), "and those of the rare buckets"


def test_a_service_tier_replaces_a_buckets_rates_with_all_their_sizes() -> None:
    assert cost(SIZES, Usage(300_000, 1000, service_tier="priority")) == Decimal("3.825")
    assert SIZES.bill(Usage(1, 1, service_tier="priority"))[1] == ""


def test_tokens_that_a_tier_has_no_rate_for_are_billed_as_usual_and_said_so() -> None:
    price = price_of([rate("input", "1"), rate("output", "2"), rate("output", "4", tier="flex")])
    assert price.bill(Usage(0, 7, service_tier="flex"))[1] == ""
    assert price.bill(Usage(7, 7, service_tier="flex"))[1] == UNPRICED_TIER
    assert price.bill(Usage(0, 7, others={"input_audio": 1}, service_tier="flex"))[1] == UNPRICED_TIER
    assert "unpriced_tier" not in price.bill(Usage(0, 7, others={"images": 1}, service_tier="flex"))[1]


def test_a_tier_without_rates_is_billed_as_usual_and_said_so() -> None:
    assert SIZES.bill(Usage(7, 7, service_tier="scale")) == (SIZES.bill(Usage(7, 7))[0], UNPRICED_TIER)
    assert PLAIN.bill(Usage(7, 7, others={"images": 1}, service_tier="flex", doubt="sum"))[1] == (
        f"sum,{UNPRICED_TIER},{UNPRICED_BUCKET}"
    )


def test_what_has_no_rate_costs_nothing_and_is_said_so() -> None:
    assert PLAIN.bill(Usage(0, 0, others={Bucket.IMAGES: 3})) == (0, UNPRICED_BUCKET)
    assert PLAIN.amounts(Usage(0, 0, others={Bucket.IMAGES: 3}))[0].rate is None


def test_a_price_that_leaves_tokens_free_says_so() -> None:
    sound = price_of([rate("input_audio_ms", "1"), rate("requests", "1"), rate("input", "1", tier="flex")])
    usage = Usage(5, 5, others={Bucket.INPUT_AUDIO_MS: 8000})
    assert (sound.bills_tokens, sound.leaves_tokens_free(usage)) == (False, True)
    assert not sound.leaves_tokens_free(Usage(0, 0, others={Bucket.INPUT_AUDIO_MS: 8000, Bucket.PAGES: 1}))
    assert (PLAIN.bills_tokens, PLAIN.leaves_tokens_free(usage)) == (True, False)
    assert not price_of([rate("input", "1")]).bills_tokens


def test_a_fee_for_each_call_is_a_line_of_every_bill() -> None:
    price = price_of([rate("input", "1"), rate("output", "1"), rate("requests", "5", per=1000)])
    assert cost(price, Usage(1_000_000, 0)) == Decimal("1.005")
    assert cost(price, Usage(0, 0)) == Decimal("0.005")


def test_few_are_billed_as_many_where_there_are_any() -> None:
    price = price_of([rate("input_audio_ms", "0.36", per=3_600_000, minimum=10_000)])
    assert [cost(price, Usage(0, 0, others={"input_audio_ms": ms})) for ms in (1, 20_000)] == [
        Decimal("0.001"),
        Decimal("0.002"),
    ]
    assert cost(price, Usage(0, 0)) == 0


def test_what_no_decimal_can_say_has_as_many_digits_as_pythons_decimals() -> None:
    price = price_of([rate("input_audio_ms", "0.1", per=3_600_000)])
    for milliseconds in (1, 7, 3_600_001, 10**12 + 1):
        assert (
            cost(price, Usage(0, 0, others={"input_audio_ms": milliseconds}))
            == Decimal("0.1") * milliseconds / 3_600_000
        )


def test_the_lines_add_up_to_the_bill() -> None:
    usage = Usage(300_000, 5, 7, 9, {Bucket.CACHE_WRITE: 11}, "priority")
    amounts = SIZES.amounts(usage)
    assert {amount.bucket for amount in amounts} == {"input", "output", "cache_read", "reasoning", "cache_write"}
    assert sum(amount.cost for amount in amounts) == SIZES.bill(usage)[0]


def test_the_same_rates_are_the_same_price_whoever_compiles_them() -> None:
    again = price_of(reversed(PLAIN.rates))
    assert (again, again.id, hash(again)) == (PLAIN, PLAIN.id, hash(PLAIN))
    assert 0 < PLAIN.id < 2**63 and PLAIN.id != SIZES.id
    assert price_of(read_rates(rates_json(PLAIN.rates))) == PLAIN


def test_a_price_of_a_thousand_decimals_is_exact() -> None:
    usd = Decimal("0." + "0" * (MAX_DECIMALS - 1) + "1")
    price = price_of([Rate(Bucket.INPUT, usd, 1), rate("output", "1")])
    amount, _ = price.bill(Usage(3, 0))
    assert amount == 3 * 10 ** (price.scale - MAX_DECIMALS)


@pytest.mark.parametrize(
    ("rates", "reason"),
    [
        ([], "between one and"),
        ([rate("input", "1")] * 2, "two rates"),
        ([rate("input", "1", above=number) for number in range(MAX_RATES + 1)], "between one and"),
        ([rate("input", "1", above=1)], "none for shorter"),
        ([rate("input", "1"), rate("input", "1", above=1, tier="flex")], "none for shorter of the service tier flex"),
        ([rate("input", "-1")], "from zero"),
        ([rate("input", "NaN")], "finite"),
        ([rate("input", "Infinity")], "finite"),
        ([rate("input", "1e1000000")], "finite"),
        ([rate("input", "1e-1001")], "decimals"),
        ([rate("input", "1", per=0)], "one or more"),
        ([rate("input", "1", minimum=-1)], "from zero on"),
        ([rate("input", "1", tier="x" * 33)], "letters"),
        ([rate("input", "1"), rate("input", "1", tier="PRIORITY")], "no answer"),
        ([rate("input", "1"), rate("input", "1", tier="default")], "no answer"),
    ],
)
def test_what_cannot_be_a_price_is_refused(rates: list[Rate], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        price_of(rates)


@pytest.mark.parametrize("text", ["", "{}", '[{"bucket": "gold", "usd": "1"}]', '[{"bucket": "input", "usd": "x"}]'])
def test_what_is_no_list_of_rates_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="no list of rates"):
        read_rates(text)
