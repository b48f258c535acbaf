"""Lines as PostgreSQL's COPY reads them."""

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.settlements import settlement
from tollway.accounting.ledger_rows import COLUMNS, lines_of, months_of

_UNESCAPED = {"\\\\": "\\", "\\t": "\t", "\\n": "\n", "\\r": "\r"}


def fields(line: str) -> dict[str, str]:
    """A line as PostgreSQL reads it, for the escapes that are written."""
    return {name: unescaped(text) for name, text in zip(COLUMNS, line.split("\t"), strict=True)}


def unescaped(text: str) -> str:
    found, rest = "", text
    while rest:
        found += _UNESCAPED.get(rest[:2], rest[0])
        rest = rest[2:] if rest[:2] in _UNESCAPED else rest[1:]
    return found


def test_a_settlement_is_a_line() -> None:
    record = settlement(call_id="req_1", cause="why", upstream_model="other", first_byte_ms=3.5, price_id=0)
    (line,) = lines_of([record]).decode().splitlines()
    assert fields(line) == {
        "call_id": "req_1",
        "attempt": "1",
        "key_id": "key_1",
        "model": "gpt-4.1-mini",
        "provider": "openai",
        "upstream_model": "other",
        "operation": "chat/completions",
        "stream": "f",
        "started_at": "2023-11-14 22:13:20.500000+00",
        "duration_ms": "812",
        "first_byte_ms": "4",
        "status": "200",
        "outcome": "ok",
        "state": "exact",
        "input_tokens": "100",
        "cached_input_tokens": "20",
        "output_tokens": "50",
        "reasoning_tokens": "10",
        "others": "",
        "service_tier": "",
        "cost": "114000000e-12",
        "priced": "t",
        "charged": "t",
        "price_id": "",
        "doubt": "",
        "revision": "7",
        "cause": "why",
    }


@given(st.lists(st.text(max_size=8), min_size=4, max_size=4))
def test_no_text_breaks_out_of_its_field(texts: list[str]) -> None:
    model, cause, tier, bucket = (text.encode("utf-8", "replace").decode() for text in texts)
    odd = settlement(model=model, upstream_model="m", cause=cause, service_tier=tier, others={"b" + bucket: 1})
    plain = settlement(call_id="req_last")
    text = lines_of([odd, plain]).decode()
    first, last, end = text.split("\n")
    assert end == "" and fields(last)["call_id"] == "req_last"
    for name, value in (("model", model), ("cause", cause), ("service_tier", tier)):
        assert fields(first)[name] == value.replace("\0", "\ufffd")


@given(st.floats(min_value=-6e10, max_value=2e11))
def test_a_moment_is_that_of_the_clock_to_the_microsecond(moment: float) -> None:
    (line,) = lines_of([settlement(started_unix=moment)]).decode().splitlines()
    found = dt.datetime.fromisoformat(fields(line)["started_at"])
    exact = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=round(moment * 1_000_000))
    assert found == exact


@pytest.mark.parametrize("moment", [float("nan"), float("inf"), 1e20, -1e15])
def test_a_time_that_is_none_is_refused(moment: float) -> None:
    with pytest.raises((ValueError, OverflowError)):
        lines_of([settlement(started_unix=moment)])
    with pytest.raises((ValueError, OverflowError)):
        months_of([settlement(started_unix=moment)])


def test_durations_beyond_the_column_are_the_longest_it_holds() -> None:
    (line,) = lines_of([settlement(duration_ms=1e15, first_byte_ms=1e15)]).decode().splitlines()
    assert (fields(line)["duration_ms"], fields(line)["first_byte_ms"]) == (str(2**31 - 1),) * 2


def test_the_months_of_settlements_are_those_of_utc() -> None:
    moments = [dt.datetime(2027, 1, 31, 23, 59, tzinfo=dt.UTC), dt.datetime(2027, 2, 1, tzinfo=dt.UTC)]
    found = months_of([settlement(started_unix=moment.timestamp()) for moment in moments * 2])
    assert found == {(2027, 1), (2027, 2)}
