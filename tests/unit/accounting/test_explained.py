"""An entry's totals become buckets again, and their bill what it was."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from tollway.accounting.explained import bill
from tollway.domain.money import to_decimal
from tollway.domain.prices import Rate, price_of, rates_json
from tollway.domain.usage import Bucket, Usage, told_by_totals

COMMON = (Bucket.INPUT, Bucket.OUTPUT, Bucket.CACHE_READ, Bucket.REASONING)
rare = st.sampled_from([bucket.value for bucket in Bucket if bucket not in COMMON])
counts = st.integers(0, 10**6)
usages = st.builds(
    Usage,
    input=counts,
    output=counts,
    cache_read=counts,
    reasoning=counts,
    others=st.dictionaries(rare, st.integers(1, 10**6), max_size=5),
    service_tier=st.sampled_from(["", "flex", "priority"]),
)
RATES = [
    Rate(Bucket.INPUT, Decimal("1.25")),
    Rate(Bucket.INPUT, Decimal("2.5"), above=200_000),
    Rate(Bucket.OUTPUT, Decimal("10")),
    Rate(Bucket.OUTPUT, Decimal("5"), tier="flex"),
    Rate(Bucket.OUTPUT_AUDIO_MS, Decimal("1"), per=3600_000),
]


@given(usages)
def test_the_buckets_and_the_bill_of_an_entry_are_found_again(usage: Usage) -> None:
    found = told_by_totals(
        usage.input_tokens,
        usage.output_tokens,
        usage.cached_input_tokens,
        usage.reasoning,
        usage.others,
        usage.service_tier,
    )
    assert found == usage
    price = price_of(RATES)
    made = bill(found, rates_json(RATES).decode())
    assert made.cost == to_decimal(price.bill(usage)[0], price.scale)
    assert made.tier == ("flex" if usage.service_tier == "flex" else "")
    assert made.above == (200_000 if usage.input_tokens > 200_000 else 0)
