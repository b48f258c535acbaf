"""How a span of time is covered by roll-ups."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from tollway.store import usage as module
from tollway.store.usage import EVER, Span, spans_of

HOUR = timedelta(hours=1)
WIDTHS = {"usage_hours": HOUR, "usage_key_days": timedelta(days=1), "usage_key_weeks": timedelta(weeks=1)}
moments = st.integers(-5000, 5000).map(lambda hours: datetime(2027, 1, 1, tzinfo=UTC) + hours * HOUR)


@given(moments, moments)
def test_every_hour_is_covered_once_and_by_whole_roll_ups(start: datetime, end: datetime) -> None:
    spans = sorted(spans_of(module._OF_KEYS, start, end), key=lambda span: span.start)
    reached = start
    for table, first, last in spans:
        assert first == reached and first < last
        assert (first - datetime(1970, 1, 5, tzinfo=UTC)) % WIDTHS[table] == timedelta(0)
        assert (last - first) % WIDTHS[table] == timedelta(0)
        reached = last
    assert reached == max(start, end) if start < end else spans == []
    assert sum(span.table != "usage_key_weeks" for span in spans) <= 4


def test_without_an_end_the_coarsest_reach_to_the_end() -> None:
    start = datetime(2027, 1, 1, tzinfo=UTC)  # a Friday
    monday = datetime(2027, 1, 4, tzinfo=UTC)
    assert list(spans_of(module._OF_KEYS, start, EVER)) == [
        Span("usage_key_weeks", monday, EVER),
        Span("usage_key_days", start, monday),
    ]
