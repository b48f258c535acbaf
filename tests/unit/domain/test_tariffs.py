"""Which price holds at a moment, by the list, the columns of a model's row and its rows of prices."""

from decimal import Decimal

import pytest

from tollway.domain.prices import Rate
from tollway.domain.tariffs import (
    MAX_OWN_PRICES,
    ColumnCosts,
    OwnPrice,
    Period,
    Tariff,
    periods_json,
    read_own_prices,
    read_periods,
    tariff_of,
)
from tollway.domain.usage import Bucket, Usage

DAY = 86_400.0


def rates(input_usd: int, output_usd: int = 0, **more: object) -> tuple[Rate, ...]:
    return Rate(Bucket.INPUT, Decimal(input_usd), **more), Rate(Bucket.OUTPUT, Decimal(output_usd), **more)  # type: ignore[arg-type]


def input_usd(tariff: Tariff | None, unix: float, tier: str = "", bucket: Bucket = Bucket.INPUT) -> Decimal | None:
    price = None if tariff is None else tariff.at(unix)
    if price is None:
        return None
    counts = {bucket: 1_000_000}
    usage = Usage(counts.get(Bucket.INPUT, 0), counts.get(Bucket.OUTPUT, 0), counts.get(Bucket.CACHE_READ, 0))
    cost, _ = price.bill(Usage(usage.input, usage.output, usage.cache_read, service_tier=tier))
    return Decimal(cost).scaleb(-price.scale)


LISTED = [
    Period(rates(1)),
    Period(rates(2), since=10 * DAY),
    Period(rates(3), since=10 * DAY, clock=3600),
    Period(rates(2), since=10 * DAY, clock=7200),
]


def test_a_price_begins_on_its_day_and_at_its_hour() -> None:
    tariff = tariff_of(LISTED)
    ten = 10 * DAY
    moments = (-5, 0, ten - 1, ten, ten + 3599.9, ten + 3600, ten + 7199, ten + 7200, ten + 5 * DAY + 3600)
    assert [input_usd(tariff, unix) for unix in moments] == [1, 1, 1, 2, 2, 3, 3, 2, 3]


def test_own_prices_hold_in_their_time_and_the_later_one_counts() -> None:
    own = [OwnPrice(5 * DAY, 12 * DAY, rates(7)), OwnPrice(11 * DAY, None, rates(8))]
    tariff = tariff_of(LISTED, own=own)
    days = (4, 5, 10.05, 11, 12, 400)
    assert [input_usd(tariff, day * DAY) for day in days] == [1, 7, 7, 8, 8, 8]


def test_what_is_not_set_is_the_lists_at_that_time() -> None:
    own = [OwnPrice(0, None, (Rate(Bucket.OUTPUT, Decimal(9)),))]
    tariff = tariff_of(LISTED, own=own)
    assert [input_usd(tariff, unix) for unix in (0, 10 * DAY + 3600)] == [1, 3]
    assert input_usd(tariff, 0, bucket=Bucket.OUTPUT) == 9


def test_set_columns_replace_all_sizes_and_tiers_of_their_buckets() -> None:
    listed = [Period((*rates(1, 2), *rates(5, 6, tier="priority"), Rate(Bucket.CACHE_READ, Decimal("0.1"))))]
    tariff = tariff_of(listed, ColumnCosts(input=Decimal("0.004")))
    assert [input_usd(tariff, 0, tier) for tier in ("", "priority")] == [4, 4]
    assert input_usd(tariff, 0, "priority", Bucket.OUTPUT) == 6
    assert input_usd(tariff, 0, bucket=Bucket.CACHE_READ) == Decimal("0.1")


def test_a_row_of_prices_stands_before_the_columns_and_these_before_the_list() -> None:
    listed = [Period((*rates(1, 2), Rate(Bucket.CACHE_READ, Decimal("0.1"))))]
    own = [OwnPrice(DAY, None, (Rate(Bucket.OUTPUT, Decimal(9)),))]
    tariff = tariff_of(listed, ColumnCosts(Decimal("0.004"), Decimal("0.005")), own)
    buckets = (Bucket.INPUT, Bucket.OUTPUT, Bucket.CACHE_READ)
    assert [input_usd(tariff, 0, bucket=bucket) for bucket in buckets] == [4, 5, Decimal("0.1")]
    assert [input_usd(tariff, DAY, bucket=bucket) for bucket in buckets] == [4, 9, Decimal("0.1")]


def test_a_rate_of_a_tier_replaces_those_of_that_tier_only() -> None:
    listed = [Period((*rates(1, 2), *rates(5, 6, tier="priority"), *rates(3, 4, tier="flex")))]
    own = [OwnPrice(0, None, (Rate(Bucket.INPUT, Decimal(50), tier="priority"),))]
    tariff = tariff_of(listed, own=own)
    assert [input_usd(tariff, 0, tier) for tier in ("", "priority", "flex")] == [1, 50, 3]


def test_cached_input_without_a_price_costs_as_much_as_fresh() -> None:
    tariff = tariff_of([], ColumnCosts(Decimal("0.001"), Decimal("0.002")))
    assert input_usd(tariff, 0, bucket=Bucket.CACHE_READ) == 1


def test_prices_that_hold_at_the_same_time_add_up_bucket_by_bucket() -> None:
    own = [
        OwnPrice(0, None, (Rate(Bucket.INPUT, Decimal(3)), Rate(Bucket.CACHE_READ, Decimal(1)))),
        OwnPrice(0, 2 * DAY, (Rate(Bucket.OUTPUT, Decimal(12)),)),
        OwnPrice(DAY, None, (Rate(Bucket.INPUT, Decimal(4)),)),
    ]
    tariff = tariff_of([Period(rates(1, 2))], own=own)
    buckets = (Bucket.INPUT, Bucket.OUTPUT, Bucket.CACHE_READ)
    assert [input_usd(tariff, 0, bucket=bucket) for bucket in buckets] == [3, 12, 1]
    assert [input_usd(tariff, DAY, bucket=bucket) for bucket in buckets] == [4, 12, 1]
    assert [input_usd(tariff, 2 * DAY, bucket=bucket) for bucket in buckets] == [4, 2, 1]


def test_half_a_price_is_none_and_a_time_without_one_is_unknown() -> None:
    half = Rate(Bucket.INPUT, Decimal(1))
    assert tariff_of([], ColumnCosts(input=Decimal(1))) is None
    assert tariff_of([], ColumnCosts(cached_input=Decimal(1))) is None
    assert tariff_of([], own=[OwnPrice(0, None, (half,))]) is None
    assert tariff_of([], own=[OwnPrice(0, None, (Rate(Bucket.INPUT_AUDIO_MS, Decimal(1)),))]) is not None
    assert tariff_of([], own=[OwnPrice(0, None, rates(1, 1, tier="priority"))]) is None, "the usual tier is free"
    assert tariff_of([], own=[OwnPrice(0, None, (Rate(Bucket.REQUESTS, Decimal(1)),))]) is None, "tokens are free"
    assert tariff_of([]) is None
    later = tariff_of([], own=[OwnPrice(DAY, None, rates(1))])
    assert [input_usd(later, unix) for unix in (0, DAY)] == [None, 1]
    assert input_usd(tariff_of([Period(()), Period(rates(1), since=DAY)]), 0) is None


def test_equal_tariffs_are_one_key_of_a_table() -> None:
    one, other = tariff_of(LISTED), tariff_of(list(LISTED))
    assert one == other and hash(one) == hash(other) and one is not other
    assert one != tariff_of(LISTED[:1])


def test_a_price_that_cannot_be_used_is_refused_whole() -> None:
    with pytest.raises(ValueError, match="from zero"):
        tariff_of([], own=[OwnPrice(0, None, rates(-1))])
    with pytest.raises(ValueError, match="prices of its own"):
        tariff_of([], own=[OwnPrice(0, None, rates(1))] * (MAX_OWN_PRICES + 1))
    with pytest.raises(ValueError, match="rates in its own"):
        tariff_of([], own=[OwnPrice(0, None, rates(1) * 11)] * 50)


def test_periods_and_own_prices_come_back_from_their_text() -> None:
    assert read_periods(periods_json(LISTED)) == LISTED
    assert read_own_prices('[[1.5, null, [{"bucket": "input", "usd": "1"}]]]') == [
        OwnPrice(1.5, None, (Rate(Bucket.INPUT, Decimal(1)),))
    ]


@pytest.mark.parametrize("text", ["", "[]", '[{"rates": [], "since": 5}]', '[{"rates": [], "clock": 86400}]', "[1]"])
def test_periods_that_do_not_fill_the_time_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="period"):
        read_periods(text)
