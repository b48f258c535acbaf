"""Thousands of connections that have had an answer and stay open: their memory, and what they do to the others."""

import asyncio
from contextlib import ExitStack
from dataclasses import dataclass

import uvloop

from bench import exchange, load, machine, nginx, processes, tollway
from bench.connections import Crowd
from bench.programs import Program
from bench.report import Measure
from bench.run import Run

_OPEN = 10_000
_FIRST = 200
"""Opened before memory is read the first time, so that what a program needs only once is not counted."""

_BUSY_CONNECTIONS = 32


@dataclass(frozen=True, slots=True)
class _Found:
    memory_kib: float
    request_us: float
    p50_us: float


def connections(run: Run) -> list[Measure]:
    """Memory per idle connection; CPU and latency of requests beside them."""
    count = machine.connections_possible(_OPEN, descriptors_each=2)  # the other half is for providers
    if count < _OPEN:
        run.notes.append(f"{count:,} idle connections instead of {_OPEN:,}: the limit on open files allows no more")
    found = {}
    with ExitStack() as stack:
        upstream = stack.enter_context(nginx.mock_upstream(run.place))
        programs = [
            stack.enter_context(nginx.reverse_proxy(run.place, upstream)),
            stack.enter_context(tollway.gateway(run.place, run.home, upstream)),
        ]
        for program in programs:
            run.say(f"  {program.name}")
            found[program.name] = uvloop.run(_fill(run, program, count))
    beside = f"beside {count:,} idle connections"
    return [
        Measure(
            f"resident memory per idle connection, {count:,} open",
            "KiB",
            {name: [it.memory_kib] for name, it in found.items()},
        ),
        Measure(f"CPU per request {beside}", "µs", {name: [it.request_us] for name, it in found.items()}),
        Measure(f"p50, one connection, {beside}", "µs", {name: [it.p50_us] for name, it in found.items()}),
    ]


async def _fill(run: Run, program: Program, count: int) -> _Found:
    load.run(program, 1, _BUSY_CONNECTIONS, run.place.folder)  # warm-up
    crowd = Crowd(program, exchange.CHAT)
    await crowd.grow_to(_FIRST)
    run.wait_until_quiet(program)
    before, _ = processes.memory_kib(program.worker)
    await crowd.grow_to(count)
    run.wait_until_quiet(program)
    after, _ = processes.memory_kib(program.worker)
    # wrk is waited for without running our loop: nothing of ours but open sockets may take part.
    worker = processes.cpu_s(program.worker)
    busy = load.run(program, run.lengths.load_s, _BUSY_CONNECTIONS, run.place.folder)
    worker = processes.cpu_s(program.worker) - worker
    run.wait_until_quiet(program)
    alone = load.run(program, 1, 1, run.place.folder)
    await asyncio.sleep(0.1)  # now our loop may notice connections that were closed meanwhile
    crowd.check_open()
    crowd.close()
    return _Found((after - before) / (count - _FIRST), worker / busy.requests * 1e6, alone.p50_us)
