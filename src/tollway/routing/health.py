"""Which targets are well: one circuit for each thing that can fail on its own.

1. Nothing is kept about what is well: without a recent failure, ordering and success cost one look at an empty dict.
2. A target that rests is tried last, never dropped: the last target of a route is always tried.
3. When a rest is over, one call at a time probes; the rest doubles with every probe that fails.
4. What one key's provider account did wrong (bad key, no money, too fast) never rests the target for other keys.
"""

import enum
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

from tollway.domain.failures import FailureKind, UpstreamFailure
from tollway.routing.retry import RetryBudget
from tollway.routing.snapshot import KeyGrant, Provider, Target

WINDOW_S = 30.0
"""Failures and successes are compared over this long, beginning with a failure."""

MAX_FAILURES_IN_A_ROW = 10
"""Twice Envoy's default for outliers: a fallback makes single failures cheap, and a rest hides a target from all."""

MIN_RESULTS, MAX_FAILURE_SHARE = 20, 0.5
"""Half of at least this many results: a few broken connections out of many do not condemn a target."""

REST_S, MAX_REST_S = 5.0, 60.0
"""The first rest of a failing target, and the longest."""

BUSY_REST_S = 1.0
"""The first rest after many 429 that name no time."""

ACCOUNT_REST_S, MAX_ACCOUNT_REST_S = 60.0, 600.0
"""Rests of a credential that was refused, or has no money: people have to act first."""

MIN_RETRY_AFTER_S, MAX_RETRY_AFTER_S = 1.0, 60.0
"""What a provider may ask for; it may not switch itself off for a day, nor ask to be hammered."""

PROBE_S = 30.0
"""A probe without a result for so long (its client hung up, or it is a long stream) lets another one start."""

FORGET_S = 900.0
"""A circuit that nothing happened to for so long is dropped."""


_CircuitKey: TypeAlias = tuple[Provider, str, str]
"""Provider; its name of the model, "" for the whole account; the stored form of the key's own credential, "" for all.

A corrected address, model name or credential makes another key: it is tried at once.
"""

PLATFORM = "platform"
"""The credential of keys that bring none of their own."""


class TargetName(NamedTuple):
    """What the metrics call a target."""

    provider: str
    model: str
    """The provider's name of it, "" for the platform's account as a whole."""


class State(enum.Enum):
    """The state of one circuit."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class _Scope(enum.IntEnum):
    """How far a failure reaches; the number is the place in :func:`_keys`."""

    TARGET = 0  # the model at this provider, for everyone
    ACCOUNT = 1  # everything at this provider, for one credential
    ACCOUNT_AND_MODEL = 2


class _Rule(NamedTuple):
    scope: _Scope
    rest_s: float
    max_rest_s: float
    at_once: bool = False
    """Whether one failure is enough: it says itself that the next call will meet the same."""


_FAILING = _Rule(_Scope.TARGET, REST_S, MAX_REST_S)
_BUSY = _Rule(_Scope.ACCOUNT_AND_MODEL, BUSY_REST_S, MAX_REST_S)
_REFUSED = _Rule(_Scope.ACCOUNT, ACCOUNT_REST_S, MAX_ACCOUNT_REST_S)
_UNPAID = _REFUSED._replace(at_once=True)
_REFUSED_MODEL = _REFUSED._replace(scope=_Scope.ACCOUNT_AND_MODEL)

_RULES = {
    FailureKind.CONNECT: _FAILING,
    FailureKind.TIMEOUT: _FAILING,
    FailureKind.BROKEN: _FAILING,
    FailureKind.INVALID: _FAILING,
    FailureKind.SERVER: _FAILING,
    FailureKind.BUSY: _BUSY,
    FailureKind.QUOTA: _UNPAID,
    FailureKind.CREDENTIAL: _REFUSED,
    FailureKind.MODEL: _REFUSED_MODEL,
}

_ANSWERED = frozenset({FailureKind.CONTEXT, FailureKind.CONTENT, FailureKind.REQUEST})
"""The provider is well, the request was not."""


class _Circuit:
    __slots__ = ("failures", "in_a_row", "openings", "probe_ends", "rest_ends", "seen", "since", "successes")

    def __init__(self, now: float) -> None:
        self.since = self.seen = now
        self.failures = self.successes = self.in_a_row = 0
        self.openings = 0  # 0: closed
        self.rest_ends = self.probe_ends = now

    def available(self, now: float) -> bool:
        return not self.openings or (now >= self.rest_ends and now >= self.probe_ends)

    def succeeded(self, now: float) -> bool:
        """Whether nothing needs to be remembered any more."""
        if self.openings:
            # While it rests, an answer proves nothing: it was asked for before.
            return now >= self.rest_ends
        self.successes += 1
        self.in_a_row = 0
        return now >= self.since + WINDOW_S

    def failed(self, rule: _Rule, retry_after_s: float | None, now: float) -> None:
        self.seen = now
        if self.openings:
            if now >= self.rest_ends:
                self._open(rule, retry_after_s, now)
            return  # while it rests, the failures of calls that began before are no news
        if now >= self.since + WINDOW_S:
            self.since, self.failures, self.successes = now, 0, 0
        self.failures += 1
        self.in_a_row += 1
        results = self.failures + self.successes
        if (
            rule.at_once
            or retry_after_s is not None
            or self.in_a_row >= MAX_FAILURES_IN_A_ROW
            or (results >= MIN_RESULTS and self.failures >= results * MAX_FAILURE_SHARE)
        ):
            self._open(rule, retry_after_s, now)

    def _open(self, rule: _Rule, retry_after_s: float | None, now: float) -> None:
        rest_s = min(rule.rest_s * 2 ** min(self.openings, 16), rule.max_rest_s)
        if retry_after_s is not None:
            rest_s = max(rest_s, min(max(MIN_RETRY_AFTER_S, retry_after_s), MAX_RETRY_AFTER_S))
        self.openings += 1
        self.rest_ends, self.probe_ends = now + rest_s, now


class Health:
    """The circuits of one process. A call orders its targets once and reports what came of each attempt."""

    def __init__(self, budget: RetryBudget) -> None:
        self._budget = budget
        self._circuits: dict[_CircuitKey, _Circuit] = {}
        self._sweep_at = 64

    def order(self, targets: Sequence[Target], grant: KeyGrant, now: float) -> Iterable[Target]:
        """The targets in the order in which to try them: those that are well, then those that rest, soonest first.

        Iterate it as attempts are made: a target whose rest is over is handed to one call at a time as its probe,
        and a resting target is a second attempt only within the retry budget.
        """
        self._budget.called(now)
        return self._well_then_resting(targets, grant, now) if self._circuits else targets

    def succeeded(self, target: Target, grant: KeyGrant, now: float) -> None:
        """The target has answered this call well."""
        if not self._circuits:
            return
        for key in _keys(target, grant):
            circuit = self._circuits.get(key)
            if circuit is not None and circuit.succeeded(now):
                del self._circuits[key]

    def failed(self, target: Target, grant: KeyGrant, failure: UpstreamFailure, now: float) -> None:
        """The attempt failed."""
        if failure.kind in _ANSWERED:
            self.succeeded(target, grant, now)
            return
        rule = _RULES.get(failure.kind)
        if rule is None:  # nothing was sent
            return
        if failure.kind is FailureKind.CREDENTIAL and failure.status == 403:
            rule = _REFUSED_MODEL  # the account may be good for other models
        key = _keys(target, grant)[rule.scope]
        circuit = self._circuits.get(key)
        if circuit is None:
            self._forget_old(now)
            circuit = self._circuits[key] = _Circuit(now)
        circuit.failed(rule, failure.retry_after_s, now)

    def states(self, now: float) -> Iterable[tuple[TargetName, State]]:
        """The targets that are not well, for everyone or for keys that use the platform's credential.

        What concerns the credential of one key is not told: there may be as many as there are keys.
        """
        states: dict[TargetName, State] = {}
        for (provider, model, credential), circuit in self._circuits.items():
            if circuit.openings and credential in ("", PLATFORM):
                name = TargetName(provider.name, model)
                state = State.OPEN if now < circuit.rest_ends else State.HALF_OPEN
                states[name] = max(state, states.get(name, state), key=lambda state: state.value)
        return states.items()

    def _well_then_resting(self, targets: Sequence[Target], grant: KeyGrant, now: float) -> Iterator[Target]:
        resting: list[tuple[float, int]] = []
        for place, target in enumerate(targets):
            circuits = [self._circuits[key] for key in _keys(target, grant) if key in self._circuits]
            rests = [circuit.rest_ends for circuit in circuits if not circuit.available(now)]
            if rests:
                resting.append((max(rests), place))
                continue
            for circuit in circuits:
                circuit.probe_ends = now + PROBE_S
            yield target
        tried = len(resting) < len(targets)
        for _, place in sorted(resting):
            if tried and not self._budget.may_retry(now):
                return
            tried = True
            yield targets[place]

    def _forget_old(self, now: float) -> None:
        """Keep memory bounded by what failed lately, at a cost that is constant per failure on average."""
        if len(self._circuits) >= self._sweep_at:
            self._circuits = {
                key: circuit
                for key, circuit in self._circuits.items()
                if now < max(circuit.seen, circuit.rest_ends) + FORGET_S
            }
            self._sweep_at = 2 * len(self._circuits) + 64


def _keys(target: Target, grant: KeyGrant) -> tuple[_CircuitKey, _CircuitKey, _CircuitKey]:
    """The circuits that this target depends on for this key, in the order of :class:`_Scope`."""
    provider, model = target.provider, target.upstream_model
    credential = grant.secrets.get(provider.name, PLATFORM)
    return (provider, model, ""), (provider, "", credential), (provider, model, credential)
