"""Requests that are answered at once: CPU, throughput and latency, with a plain and with a TLS upstream."""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from bench import load, nginx, processes, tollway
from bench.programs import Program
from bench.report import BARE, NGINX, TOLLWAY, Measure
from bench.run import Run

_CONNECTIONS = 32
_LATENCY_LOAD_S = 1
_LEDGER_LIMIT_S = 30


@dataclass(frozen=True, slots=True)
class _Turn:
    """One program's part of one round. It begins and ends with a quiet background."""

    busy: load.Load
    alone: load.Load
    worker_us: float
    alone_us: float
    """As ``worker_us``, with one connection: one request at a time, so every program sleeps and wakes for each."""
    background_us: dict[str, float]
    share: float

    @property
    def answered(self) -> int:
        return self.busy.requests + self.alone.requests

    @property
    def everything_us(self) -> float:
        return self.worker_us + sum(self.background_us.values())


def plain(run: Run) -> list[Measure]:
    """The upstream speaks HTTP; the bare upstream takes its turns too."""
    with ExitStack() as stack:
        upstream = stack.enter_context(nginx.mock_upstream(run.place))
        bare = stack.enter_context(nginx.bare_upstream(run.place))
        proxy = stack.enter_context(nginx.reverse_proxy(run.place, upstream))
        gateway = stack.enter_context(tollway.gateway(run.place, run.home, upstream))
        turns = _rounds(run, [bare, proxy, gateway])
    return [*_cpu(turns, target=2.0), *_latency(turns)]


def tls(run: Run) -> list[Measure]:
    """The upstream speaks TLS, as real providers do."""
    with ExitStack() as stack:
        upstream = stack.enter_context(nginx.mock_upstream(run.place, tls=True))
        proxy = stack.enter_context(nginx.reverse_proxy(run.place, upstream))
        gateway = stack.enter_context(tollway.gateway(run.place, run.home, upstream))
        turns = _rounds(run, [proxy, gateway])
    return _cpu(turns)


def _rounds(run: Run, programs: Sequence[Program]) -> dict[str, list[_Turn]]:
    """Program -> its turns. They alternate, so that what the machine does besides hits all alike."""
    turns: dict[str, list[_Turn]] = defaultdict(list)
    entries_before = {one.name: one.ledger() for one in programs if one.ledger}
    answered = {one.name: load.run(one, 1, _CONNECTIONS, run.place.folder).requests for one in programs}  # warm-up
    for program in programs:
        run.wait_until_quiet(program)
    for number in range(1, run.lengths.rounds + 1):
        run.say(f"  round {number} of {run.lengths.rounds}")
        for program in programs:
            turn = _turn(run, program)
            turns[program.name].append(turn)
            answered[program.name] += turn.answered
    for program in programs:
        if program.ledger:
            _check_ledger(program, entries_before[program.name] + answered[program.name])
    return turns


def _turn(run: Run, program: Program) -> _Turn:
    background = program.background_cpu_s()
    worker = processes.cpu_s(program.worker)
    busy = load.run(program, run.lengths.load_s, _CONNECTIONS, run.place.folder)
    worker = processes.cpu_s(program.worker) - worker
    run.wait_until_quiet(program)  # its work for these requests counts to the end
    background = {name: after - background[name] for name, after in program.background_cpu_s().items()}
    worker_alone = processes.cpu_s(program.worker)
    alone = load.run(program, _LATENCY_LOAD_S, 1, run.place.folder)
    worker_alone = processes.cpu_s(program.worker) - worker_alone
    run.wait_until_quiet(program)
    return _Turn(
        busy,
        alone,
        worker_us=worker / busy.requests * 1e6,
        alone_us=worker_alone / alone.requests * 1e6,
        background_us={name: seconds / busy.requests * 1e6 for name, seconds in background.items()},
        share=worker / busy.seconds,
    )


def _check_ledger(program: Program, expected: int) -> None:
    """Fail unless every answered request has its entry: fast by not accounting is not fast."""
    assert program.ledger
    deadline = time.monotonic() + _LEDGER_LIMIT_S
    while (entries := program.ledger()) < expected:
        if time.monotonic() > deadline:
            raise processes.BenchError(f"{program.name}'s ledger lacks {expected - entries} of {expected} calls")
        time.sleep(0.5)


def _each(turns: Mapping[str, Sequence[_Turn]], pick: Callable[[_Turn], float]) -> dict[str, list[float]]:
    return {name: [pick(turn) for turn in its] for name, its in turns.items()}


def _cpu(turns: Mapping[str, Sequence[_Turn]], target: float | None = None) -> list[Measure]:
    background = [
        Measure(
            f"besides, in the background: {name}",
            "µs",
            {TOLLWAY: [turn.background_us[name] for turn in turns[TOLLWAY]]},
        )
        for name in turns[TOLLWAY][0].background_us
    ]
    return [
        Measure("CPU per request", "µs", _each(turns, lambda turn: turn.worker_us), ratio_at_most=target),
        Measure("CPU per request, one connection", "µs", _each(turns, lambda turn: turn.alone_us)),
        *background,
        Measure("CPU per request, background included", "µs", _each(turns, lambda turn: turn.everything_us)),
        Measure("requests per second", "1/s", _each(turns, lambda turn: turn.busy.requests / turn.busy.seconds)),
        Measure("share of its core in use meanwhile", "%", _each(turns, lambda turn: turn.share * 100)),
    ]


def _latency(turns: Mapping[str, Sequence[_Turn]]) -> list[Measure]:
    percentiles: list[tuple[str, Callable[[_Turn], float]]] = [
        ("p50, one connection", lambda turn: turn.alone.p50_us),
        ("p99, one connection", lambda turn: turn.alone.p99_us),
        (f"p50, {_CONNECTIONS} connections", lambda turn: turn.busy.p50_us),
        (f"p99, {_CONNECTIONS} connections", lambda turn: turn.busy.p99_us),
    ]
    measures = []
    for name, pick in percentiles:
        whole = _each(turns, pick)
        added = {
            program: [proxied - direct for proxied, direct in zip(whole[program], whole[BARE], strict=True)]
            for program in (NGINX, TOLLWAY)
        }
        measures += [Measure(name, "µs", whole), Measure(f"added to {name}", "µs", added)]
    return measures
