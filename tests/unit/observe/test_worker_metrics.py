"""What a worker counts, and how it reports it."""

import math

import pytest

from fakes.usages import told
from tollway.observe import metrics
from tollway.observe.metrics import DURATION_BUCKETS_S, FAMILIES, Gauges, Labels, Metrics, WorkerReport

USAGE = told(input_tokens=10, output_tokens=5, cached_input_tokens=4)


def samples(counted: Metrics, gauges: Gauges | None = None) -> dict[str, dict[Labels, list[float]]]:
    report = counted.report(gauges or Gauges())
    assert WorkerReport.decode(report.encode()) == report
    return {name: dict(series) for name, series in report.samples.items()}


def test_an_answer_counts_everywhere_it_should() -> None:
    counted = Metrics()
    counted.answered("m", "openai", 200, 0.3, USAGE, cost=25, scale=13)
    counted.answered("m", "openai", 200, 700.0, USAGE, cost=1, scale=12)
    found = samples(counted)
    assert found["tollway_requests_total"] == {("m", "openai", "200"): [2]}
    assert found["tollway_tokens_total"] == {
        ("m", "openai", "input"): [12],
        ("m", "openai", "cached_input"): [8],
        ("m", "openai", "output"): [10],
    }
    assert found["tollway_cost_usd_total"] == {("m", "openai"): [3.5e-12]}
    (durations,) = found["tollway_request_duration_seconds"].values()
    assert len(durations) == len(DURATION_BUCKETS_S) + 2
    assert durations[DURATION_BUCKETS_S.index(0.5)] == 1, "0.3 s is at most 0.5 s"
    assert durations[-2] == 1, "700 s is beyond every bound"
    assert durations[-1] == pytest.approx(700.3)


def test_attempts_refusals_and_first_bytes_are_counted() -> None:
    counted = Metrics()
    counted.attempt("openai", "ok")
    counted.attempt("openai", "ok")
    counted.attempt("openai", "timeout")
    counted.refused("rate_limit_exceeded")
    counted.first_byte("m", "openai", 0.05)
    found = samples(counted)
    assert found["tollway_upstream_attempts_total"] == {("openai", "ok"): [2], ("openai", "timeout"): [1]}
    assert found["tollway_refusals_total"] == {("rate_limit_exceeded",): [1]}
    assert found["tollway_time_to_first_byte_seconds"][("m", "openai")][0] == 1, "a bound belongs to its bucket"


def test_gauges_are_reported_as_they_are() -> None:
    gauges = Gauges(inflight_requests=3, breaker_state={"openai/m": 2}, draining=True, config_age_seconds=math.inf)
    found = samples(Metrics(), gauges)
    assert found["tollway_inflight_requests"] == {(): [3]}
    assert found["tollway_breaker_state"] == {("openai/m",): [2]}
    assert found["tollway_draining"] == {(): [1]}
    assert "tollway_config_age_seconds" not in found, "JSON has no infinity"


def test_everything_that_is_reported_has_a_description() -> None:
    assert set(samples(Metrics(), Gauges(config_age_seconds=1))) == set(FAMILIES)


def test_the_number_of_series_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MAX_SERIES", 3)
    counted = Metrics()
    for number in range(10):
        counted.answered(f"m{number}", "p", 200, 1.0, USAGE)
        counted.attempt(f"p{number}", "ok")
        counted.first_byte(f"m{number}", "p", 1.0)
    found = samples(counted)
    for name in ("tollway_requests_total", "tollway_upstream_attempts_total", "tollway_time_to_first_byte_seconds"):
        assert len(found[name]) == 4
    assert found["tollway_requests_total"][("other", "other", "other")] == [7]
    assert found["tollway_upstream_attempts_total"][("other", "other")] == [7]
