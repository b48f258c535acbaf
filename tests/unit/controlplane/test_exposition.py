"""The workers' numbers in Prometheus' format, read back by Prometheus' own parser."""

import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fakes.usages import told
from tollway.accounting.posting import PostingFigures
from tollway.controlplane.metrics import Exposition, Reports
from tollway.observe.metrics import FAMILIES, Gauges, Metrics, WorkerReport

USAGE = told(input_tokens=10, output_tokens=5)


def report(answers: int, pid: int = 1, started: float = 1.0, **gauges: int) -> WorkerReport:
    counted = Metrics()
    for _ in range(answers):
        counted.answered("m", "openai", 200, 0.3, USAGE)
    made = WorkerReport.decode(counted.report(Gauges(**gauges)).encode())
    return WorkerReport(pid, started, made.samples)


def shown(reports: Reports) -> dict[str, float]:
    body, media_type = Exposition(reports, PostingFigures(posted=7)).render()
    assert media_type.startswith("text/plain")
    return {
        sample.name + repr(sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def requests(reports: Reports) -> float:
    return shown(reports)["tollway_requests_total[('model', 'm'), ('provider', 'openai'), ('status', '200')]"]


def test_counters_are_summed_over_workers() -> None:
    reports = Reports()
    reports.put(0, report(2), time.monotonic())
    reports.put(1, report(3, pid=2), time.monotonic())
    assert requests(reports) == 5


def test_a_newer_report_replaces_the_older_one() -> None:
    reports = Reports()
    reports.put(0, report(2), time.monotonic())
    reports.put(0, report(3), time.monotonic())
    assert requests(reports) == 3


def test_a_worker_that_is_started_again_does_not_lower_the_counters() -> None:
    reports = Reports()
    reports.put(0, report(5), time.monotonic())
    reports.put(0, report(1, pid=2), time.monotonic())
    assert requests(reports) == 6
    reports.put(0, report(0, pid=2, started=9.0), time.monotonic())
    assert requests(reports) == 6


def test_gauges_are_each_workers_own_and_end_with_it() -> None:
    reports = Reports()
    reports.put(0, report(1, inflight_requests=4), time.monotonic())
    reports.put(1, report(1, pid=2, inflight_requests=6), time.monotonic() - 60)
    found = shown(reports)
    assert found["tollway_inflight_requests[('worker', '0')]"] == 4
    assert "tollway_inflight_requests[('worker', '1')]" not in found, "it has not reported for a minute"


def test_histograms_are_cumulative_and_whole() -> None:
    reports = Reports()
    reports.put(0, report(4), time.monotonic())
    labels = "('model', 'm'), ('provider', 'openai')"
    found = shown(reports)
    name = "tollway_request_duration_seconds"
    assert found[f"{name}_bucket[('le', '0.25'), {labels}]"] == 0
    assert found[f"{name}_bucket[('le', '0.5'), {labels}]"] == 4
    assert found[f"{name}_bucket[('le', '+Inf'), {labels}]"] == 4
    assert found[f"{name}_count[{labels}]"] == 4
    assert found[f"{name}_sum[{labels}]"] == pytest.approx(1.2)


def test_every_family_is_described_from_the_first_moment() -> None:
    body, _ = Exposition(Reports(), PostingFigures()).render()
    for name in FAMILIES:
        assert f"# TYPE {name}".encode() in body


def test_the_control_plane_adds_its_own_numbers() -> None:
    found = shown(Reports())
    assert found["tollway_ledger_entries_total[]"] == 7
    assert found["tollway_database_up[]"] == 1


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="only where there is /proc")
def test_processes_are_measured() -> None:
    found = shown(Reports())
    assert found["process_resident_memory_bytes[('process', 'control-plane')]"] > 1_000_000


def test_samples_of_unknown_families_are_left_out() -> None:
    reports = Reports()
    reports.put(0, WorkerReport(1, 1.0, {"invented": [((), [1.0])]}), time.monotonic())
    assert not [name for name in shown(reports) if "invented" in name]


@pytest.mark.parametrize("worker", [-1, 5000])
def test_a_worker_that_cannot_be_is_refused(worker: int) -> None:
    with pytest.raises(ValueError, match="no such worker"):
        Reports().put(worker, report(1), 0.0)
