"""What a worker counts, and the list of everything that ``/metrics`` shows.

Counting is one look-up and a few additions; turning the counts into Prometheus' text is the control plane's work.

No label comes from outside: models and providers are those of the configuration, everything else is of a closed set
(outcomes, endings, :data:`REFUSALS`, :data:`STATUSES`), and what is in none of them counts as ``other``. Past
``MAX_SERIES`` in a family whatever is new does, too.
"""

import math
import os
import time
from bisect import bisect_left
from collections.abc import Mapping
from decimal import Decimal
from typing import Literal

import msgspec

from tollway.domain.endings import ENDINGS, OK
from tollway.domain.failures import OF_THE_REQUEST
from tollway.domain.money import PICODOLLARS, to_decimal
from tollway.domain.usage import Usage

MAX_SERIES = 2000  # per family and worker; more than any sensible configuration, less than hurts a Prometheus server

DURATION_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0)
"""From a cached answer to the longest stream that the default deadline allows."""

_OTHER = "other"

STATUSES = frozenset({200, 201, 202, 203, 204, 206, 207, 208, 226, 499})
"""Of answered calls: a provider may invent numbers. 499 is a client that did not wait."""

REFUSALS = frozenset(
    {
        # who asks
        *("invalid_api_key", "expired_api_key", "revoked_api_key", "keys_unavailable", "model_not_allowed"),
        "model_not_priced",
        *("provider_key_required", "origin_not_allowed", "admin_key_required", "host_not_allowed"),
        # what is asked
        *("invalid_http_request", "invalid_request_error", "request_too_large", "unknown_url", "method_not_allowed"),
        *("invalid_json", "invalid_form", "invalid_type", "invalid_value", "missing_required_parameter"),
        *("array_above_max_length", "empty_array", "request_too_complex", "unsupported_content_type"),
        *("unsupported_parameter", "unsupported_value", "unsupported_endpoint", "model_not_found"),
        # the key's limits
        "rate_limit_exceeded",
        # what a provider refused for a reason of the client's own making
        *(kind.value for kind in OF_THE_REQUEST),
        # what came of the providers that were asked
        *("upstream_rate_limit_exceeded", "upstream_insufficient_quota", "upstream_auth_error", "upstream_error"),
        *("upstream_connection_error", "upstream_timeout", "upstream_invalid_response", "upstream_model_not_found"),
        "no_provider_key",
        # the gateway
        *("accounting_unavailable", "control_plane_away", "draining", "overloaded", "server_error"),
    }
)
"""Why calls are refused. Our limits and those of a provider are different words; clients know both by one code."""

Labels = tuple[str, ...]
Samples = dict[str, list[tuple[Labels, list[float]]]]


class Family(msgspec.Struct, frozen=True):
    """One metric: its kind, what it means, the names of its labels."""

    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: Labels = ()


FAMILIES: dict[str, Family] = {
    "tollway_requests_total": Family(
        "counter", "Answered calls, by model, provider and status.", ("model", "provider", "status")
    ),
    "tollway_request_duration_seconds": Family(
        "histogram", "From the request's head to the answer's last byte.", ("model", "provider")
    ),
    "tollway_time_to_first_byte_seconds": Family(
        "histogram", "From the start of an attempt to the provider's first byte.", ("model", "provider")
    ),
    "tollway_tokens_total": Family("counter", "Tokens that were billed.", ("model", "provider", "kind")),
    "tollway_cost_usd_total": Family("counter", "What was charged to keys, in US dollars.", ("model", "provider")),
    "tollway_upstream_attempts_total": Family("counter", "Attempts at providers.", ("provider", "outcome")),
    "tollway_unpriced_total": Family(
        "counter", "Answers whose cost nobody can tell: no price is known, or no usage.", ("model", "provider")
    ),
    "tollway_refusals_total": Family("counter", "Requests that were answered with an error, by its reason.", ("code",)),
    "tollway_calls_total": Family("counter", "Calls of OpenAI's API, each once, by how they ended.", ("outcome",)),
    "tollway_inflight_requests": Family("gauge", "Calls that are running."),
    "tollway_open_connections": Family("gauge", "Open client connections."),
    "tollway_upstream_connections": Family("gauge", "Open connections to providers."),
    "tollway_max_connections": Family("gauge", "Client connections that there are descriptors for."),
    "tollway_max_upstream_connections": Family("gauge", "Connections to providers that there are descriptors for."),
    "tollway_connections_closed_for_room_total": Family("counter", "Idle client connections closed for new ones."),
    "tollway_buffered_bytes": Family("gauge", "Bytes of large requests and answers that are held."),
    "tollway_max_buffered_bytes": Family("gauge", "How many may be held before new calls are answered 503."),
    "tollway_breaker_state": Family("gauge", "0 closed, 1 half-open, 2 open.", ("target",)),
    "tollway_config_revision": Family("gauge", "Revision of the configuration in force."),
    "tollway_config_age_seconds": Family("gauge", "Seconds since the configuration was last known to be current."),
    "tollway_log_lines_dropped_total": Family("counter", "Log lines lost to a slow or full log."),
    "tollway_journal_bytes_total": Family("counter", "Bytes written to the journal."),
    "tollway_journal_sync_failures_total": Family("counter", "Times that the disk did not confirm the journal."),
    "tollway_attempts_under_way": Family("gauge", "Attempts that are noted as sent and not as ended."),
    "tollway_settlements_waiting": Family("gauge", "Settlements in memory, because the disk takes none."),
    "tollway_loop_lag_seconds": Family("gauge", "How late the event loop's timers ran, at worst, in the last second."),
    "tollway_draining": Family("gauge", "1 while the worker finishes its last calls."),
    "tollway_unready": Family("gauge", "1 while the worker refuses every new call for this reason.", ("reason",)),
}
"""Everything a worker reports, by name."""


class Gauges(msgspec.Struct, kw_only=True):
    """What is read at the moment of reporting rather than counted."""

    inflight_requests: int = 0
    open_connections: int = 0
    upstream_connections: int = 0
    max_connections: int = 0
    max_upstream_connections: int = 0
    connections_closed_for_room_total: int = 0
    buffered_bytes: int = 0
    max_buffered_bytes: int = 0
    breaker_state: Mapping[str, int] = {}
    config_revision: int = 0
    config_age_seconds: float = 0.0
    log_lines_dropped_total: int = 0
    journal_bytes_total: int = 0
    journal_sync_failures_total: int = 0
    attempts_under_way: int = 0
    settlements_waiting: int = 0
    loop_lag_seconds: float = 0.0
    draining: bool = False
    unready: Mapping[str, int] = {}


class WorkerReport(msgspec.Struct, frozen=True, array_like=True):
    """One worker's numbers since it started.

    A counter or gauge has one value; a histogram has the count of each bucket (the last one without a bound), then the
    sum.
    """

    pid: int
    started: float
    """Unix time; with the pid it names this life of the worker."""
    samples: Samples

    def encode(self) -> bytes:
        """For ``POST /internal/metrics/{worker}``."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, body: bytes) -> "WorkerReport":
        """Raises msgspec.ValidationError or msgspec.DecodeError for anything else."""
        return msgspec.json.decode(body, type=cls)


class Metrics:
    """The counters of one worker. Not thread-safe: they belong to the event loop's thread."""

    def __init__(self) -> None:
        self._started = time.time()
        self._requests: dict[Labels, int] = {}
        self._answers: dict[Labels, _Answers] = {}
        self._first_bytes: dict[Labels, _Histogram] = {}
        self._attempts: dict[Labels, int] = {}
        self._refusals: dict[Labels, int] = {}
        self._endings: dict[str, int] = {}
        self._answered_ill = 0  # of those in _requests
        self._served = 0
        self._unpriced: dict[Labels, int] = {}

    def answered(
        self,
        model: str,
        provider: str,
        status: int,
        seconds: float,
        usage: Usage,
        cost: int = 0,
        scale: int = PICODOLLARS,
    ) -> None:
        """A call that reached its client, with what it was charged in units of ``10**-scale`` US dollars."""
        _count(self._requests, (model, provider, str(status) if status in STATUSES else _OTHER))
        answers = self._answers.get((model, provider))
        if answers is None:
            answers = self._answers.setdefault(_room(self._answers, (model, provider)), _Answers())
        answers.durations.observe(seconds)
        answers.input_tokens += usage.input_tokens
        answers.cached_input_tokens += usage.cached_input_tokens
        answers.output_tokens += usage.output_tokens
        answers.cost[scale] = answers.cost.get(scale, 0) + cost

    def first_byte(self, model: str, provider: str, seconds: float) -> None:
        """A provider began to answer, so many seconds after the attempt began."""
        histogram = self._first_bytes.get((model, provider))
        if histogram is None:
            histogram = self._first_bytes.setdefault(_room(self._first_bytes, (model, provider)), _Histogram())
        histogram.observe(seconds)

    def attempt(self, provider: str, outcome: str) -> None:
        """An attempt ended; ``outcome`` is ``ok`` or why it failed."""
        _count(self._attempts, (provider, outcome))

    def unpriced(self, model: str, provider: str) -> None:
        """An answer cost something that nobody can tell."""
        _count(self._unpriced, (model, provider))

    def refused(self, label: str) -> None:
        """A call was answered with an error, for one of the reasons in :data:`REFUSALS`."""
        _count(self._refusals, (label if label in REFUSALS else _OTHER,))

    def ended(self, ending: str, *, answered: bool = False) -> None:
        """A call ended otherwise than well; ``answered``: although :meth:`answered` has counted it."""
        self._endings[ending] = self._endings.get(ending, 0) + 1
        self._answered_ill += answered

    def served(self) -> None:
        """A call that the gateway itself has answered, without any provider."""
        self._served += 1

    def report(self, gauges: Gauges) -> WorkerReport:
        """Everything so far."""
        samples: Samples = {
            "tollway_requests_total": _counted(self._requests),
            "tollway_request_duration_seconds": [(key, a.durations.values()) for key, a in self._answers.items()],
            "tollway_time_to_first_byte_seconds": [(key, h.values()) for key, h in self._first_bytes.items()],
            "tollway_tokens_total": [
                ((*key, kind), [count]) for key, answers in self._answers.items() for kind, count in answers.tokens()
            ],
            "tollway_cost_usd_total": [(key, [answers.dollars()]) for key, answers in self._answers.items()],
            "tollway_upstream_attempts_total": _counted(self._attempts),
            "tollway_unpriced_total": _counted(self._unpriced),
            "tollway_refusals_total": _counted(self._refusals),
            "tollway_calls_total": _counted({(ending,): count for ending, count in self._all_endings().items()}),
        }
        for name, value in msgspec.structs.asdict(gauges).items():
            if isinstance(value, Mapping):
                samples["tollway_" + name] = _counted({(label,): number for label, number in value.items()})
            elif math.isfinite(value):  # JSON has no infinity
                samples["tollway_" + name] = _counted({(): value})
        return WorkerReport(os.getpid(), self._started, samples)

    def _all_endings(self) -> dict[str, int]:
        """Those that ended well are what is left of all that were answered: nothing is counted twice for them."""
        answered_well = sum(self._requests.values()) - self._answered_ill
        return {**dict.fromkeys(sorted(ENDINGS), 0), **self._endings, OK: answered_well + self._served}


class _Histogram:
    """Observations by duration; the last bucket has no bound."""

    __slots__ = ("_counts", "_sum")

    def __init__(self) -> None:
        self._counts = [0] * (len(DURATION_BUCKETS_S) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(DURATION_BUCKETS_S, seconds)] += 1
        self._sum += seconds

    def values(self) -> list[float]:
        return [*self._counts, self._sum]


class _Answers:
    """What the answers of one model by one provider took, used and cost."""

    __slots__ = ("cached_input_tokens", "cost", "durations", "input_tokens", "output_tokens")

    def __init__(self) -> None:
        self.durations = _Histogram()
        self.input_tokens = 0
        self.cached_input_tokens = 0
        self.output_tokens = 0
        self.cost: dict[int, int] = {}  # by scale, so that the sum stays exact until it is shown

    def tokens(self) -> tuple[tuple[str, int], ...]:
        cached = self.cached_input_tokens
        return ("input", self.input_tokens - cached), ("cached_input", cached), ("output", self.output_tokens)

    def dollars(self) -> float:
        return float(sum((to_decimal(cost, scale) for scale, cost in self.cost.items()), Decimal()))


def _count(series: dict[Labels, int], key: Labels) -> None:
    try:
        series[key] += 1
    except KeyError:
        key = _room(series, key)
        series[key] = series.get(key, 0) + 1


def _room(series: Mapping[Labels, object], key: Labels) -> Labels:
    return key if len(series) < MAX_SERIES else (_OTHER,) * len(key)


def _counted(series: Mapping[Labels, float]) -> list[tuple[Labels, list[float]]]:
    return [(key, [+count]) for key, count in series.items()]  # plus: a bool becomes a number
