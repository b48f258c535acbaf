"""``/metrics``: what the workers count, summed, and what the control plane knows itself, in Prometheus' text format."""

import os
import time
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import TYPE_CHECKING, NamedTuple

from tollway.accounting.posting import PostingFigures
from tollway.observe.metrics import DURATION_BUCKETS_S, FAMILIES, Labels, Samples, WorkerReport
from tollway.store.migrate import head

if TYPE_CHECKING:  # 0.08 s that the start does not need
    from prometheus_client.core import Metric

_STALE_S = 10.0  # a worker reports every second; after this its gauges say nothing any more
_MAX_WORKERS = 4096  # more than any WORKERS; bounds what a mistaken caller can make us keep

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class _Life(NamedTuple):
    """The newest numbers of one worker, in one life of it."""

    report: WorkerReport
    at: float


class Reports:
    """The workers' numbers. A counter never falls: what a worker counted before it died is kept."""

    def __init__(self) -> None:
        self._lives: dict[int, _Life] = {}
        self._buried: dict[str, dict[Labels, list[float]]] = {}

    def put(self, worker: int, report: WorkerReport, now: float) -> None:
        """Take a worker's newest report. Raises ValueError for a worker's number that is none."""
        if not 0 <= worker < _MAX_WORKERS:
            raise ValueError("no such worker")
        known = self._lives.get(worker)
        if known is not None and (known.report.pid, known.report.started) != (report.pid, report.started):
            _add(self._buried, _counted(known.report.samples))
        self._lives[worker] = _Life(report, now)

    def pids(self) -> dict[str, int]:
        """The processes that reported last, by name."""
        return {f"worker-{worker}": life.report.pid for worker, life in sorted(self._lives.items())}

    def samples(self, now: float) -> dict[str, dict[Labels, list[float]]]:
        """Counters and histograms summed over all workers, gauges of each worker that is alive."""
        total: dict[str, dict[Labels, list[float]]] = {}
        _add(total, {name: list(series.items()) for name, series in self._buried.items()})
        for worker, life in sorted(self._lives.items()):
            _add(total, _counted(life.report.samples))
            if now - life.at <= _STALE_S:
                for name, series in life.report.samples.items():
                    if name in FAMILIES and FAMILIES[name].kind == "gauge":
                        total.setdefault(name, {}).update({(str(worker), *key): list(v) for key, v in series})
        return total


class Exposition:
    """Turns numbers into Prometheus' text."""

    def __init__(self, reports: Reports, posting: PostingFigures) -> None:
        self._reports = reports
        self._posting = posting
        self._build = {"version": version("tollway"), "python": python_version(), "schema": head()}

    def render(self) -> tuple[bytes, str]:
        """The text and its content type."""
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry), CONTENT_TYPE_LATEST

    def collect(self) -> "Iterator[Metric]":
        """Every family, also those without a sample yet: that a metric exists is worth knowing."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        samples = self._reports.samples(time.monotonic())
        for name, family in FAMILIES.items():
            series = samples.get(name, {})
            if family.kind == "histogram":
                histogram = HistogramMetricFamily(name, family.help, labels=family.labels)
                for key, values in series.items():
                    histogram.add_metric(key, _cumulative(values), values[-1])
                yield histogram
            elif family.kind == "counter":
                counter = CounterMetricFamily(name, family.help, labels=family.labels)
                for key, values in series.items():
                    counter.add_metric(key, values[0])
                yield counter
            else:
                gauge = GaugeMetricFamily(name, family.help, labels=("worker", *family.labels))
                for key, values in series.items():
                    gauge.add_metric(key, values[0])
                yield gauge
        yield from self._own()
        yield from _processes({"control-plane": os.getpid(), "supervisor": os.getppid(), **self._reports.pids()})

    def _own(self) -> "Iterator[Metric]":
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        posting = self._posting
        build = GaugeMetricFamily("tollway_build_info", "What runs here; always 1.", labels=tuple(self._build))
        build.add_metric(tuple(self._build.values()), 1)
        yield build
        yield CounterMetricFamily("tollway_ledger_entries_total", "Entries posted to the ledger.", posting.posted)
        yield CounterMetricFamily(
            "tollway_ledger_set_aside_total", "Records that could not be posted.", posting.set_aside
        )
        yield CounterMetricFamily(
            "tollway_lost_attempts_total", "Attempts entered by estimate, because their worker died.", posting.lost
        )
        yield GaugeMetricFamily(
            "tollway_journal_behind_bytes", "Bytes of the journals that are not posted yet.", posting.behind_bytes
        )
        yield GaugeMetricFamily("tollway_database_up", "0 while PostgreSQL takes no entries.", not posting.away)


def _processes(pids: dict[str, int]) -> "Iterator[Metric]":
    """What the system says of each of our processes; nothing where there is no /proc."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    label = ("process",)
    cpu = CounterMetricFamily("process_cpu_seconds_total", "CPU time, user and system.", labels=label)
    memory = GaugeMetricFamily("process_resident_memory_bytes", "Resident memory.", labels=label)
    files = GaugeMetricFamily("process_open_fds", "Open file descriptors.", labels=label)
    for name, pid in pids.items():
        try:
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            open_files = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
        except OSError:
            continue
        cpu.add_metric((name,), (int(stat[11]) + int(stat[12])) / _TICKS)
        memory.add_metric((name,), int(stat[21]) * _PAGE)
        files.add_metric((name,), open_files)
    yield from (cpu, memory, files)


def _counted(samples: Samples) -> Samples:
    return {name: series for name, series in samples.items() if name in FAMILIES and FAMILIES[name].kind != "gauge"}


def _add(total: dict[str, dict[Labels, list[float]]], samples: Samples) -> None:
    for name, series in samples.items():
        into = total.setdefault(name, {})
        for key, values in series:
            known = into.get(tuple(key))
            into[tuple(key)] = list(values) if known is None else [a + b for a, b in zip(known, values, strict=True)]


def _cumulative(values: Iterable[float]) -> list[tuple[str, float]]:
    *counts, _sum = values
    bounds = [f"{bound:g}" for bound in DURATION_BUCKETS_S] + ["+Inf"]
    so_far = 0.0
    buckets = []
    for bound, count in zip(bounds, counts, strict=True):
        so_far += count
        buckets.append((bound, so_far))
    return buckets
