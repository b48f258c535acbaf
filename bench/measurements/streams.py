"""Streams: the CPU that an event costs, and the memory that an open stream takes."""

import asyncio
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass

import uvloop

from bench import exchange, machine, nginx, processes, sse, tollway
from bench.connections import Crowd
from bench.programs import Program
from bench.report import Measure
from bench.run import Run

_STREAMS = 100
INTERVAL_S = 0.01
_SETTLE_S = 0.3
"""Until all streams flow; the window of measurement begins after it."""

_OPEN = 5_000
_OPEN_INTERVAL_S = 1.0
_FIRST = 200
"""Opened before memory is read the first time, so that what a program needs only once is not counted."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What one program did in one round."""

    event_us: float
    events_per_s: float


def events_each(run: Run) -> int:
    """How many events a stream needs so that it outlasts the window."""
    return int((run.lengths.stream_s + 2 * _SETTLE_S) / INTERVAL_S) + 50


def events(run: Run) -> list[Measure]:
    """CPU per event, in a window in which nothing begins and nothing ends."""
    count = events_each(run)
    turns: dict[str, list[Turn]] = defaultdict(list)
    with ExitStack() as stack:
        upstream = stack.enter_context(sse.upstream(run.place, count, INTERVAL_S))
        programs = [
            stack.enter_context(nginx.reverse_proxy(run.place, upstream, streams=True)),
            stack.enter_context(tollway.gateway(run.place, run.home, upstream)),
        ]
        for number in range(1, run.lengths.rounds + 1):
            run.say(f"  round {number} of {run.lengths.rounds}")
            for program in programs:
                run.wait_until_quiet(program)
                turns[program.name].append(uvloop.run(stream(program, count, run.lengths.stream_s)))
    return [
        Measure(
            "CPU per streamed event",
            "µs",
            {name: [turn.event_us for turn in its] for name, its in turns.items()},
            ratio_at_most=1.5,
        ),
        Measure(
            f"events per second, {_STREAMS} streams at {1 / INTERVAL_S:.0f}/s",
            "1/s",
            {name: [turn.events_per_s for turn in its] for name, its in turns.items()},
        ),
    ]


async def stream(program: Program, events_each: int, window_s: float) -> Turn:
    """One turn of a program: many streams at once, measured in a window while all of them flow."""
    loop = asyncio.get_running_loop()
    crowd = Crowd(program, exchange.streamed_chat(program.model))
    await crowd.grow_to(_STREAMS)
    await asyncio.sleep(_SETTLE_S)
    begun, cpu, seen = loop.time(), processes.cpu_s(program.worker), crowd.events
    await asyncio.sleep(window_s)
    cpu, seen, passed = processes.cpu_s(program.worker) - cpu, crowd.events - seen, loop.time() - begun
    await crowd.ended()
    expected = events_each + 2  # the one with the finish reason, and [DONE]
    if any(connection.events != expected for connection in crowd.connections):
        raise processes.BenchError(f"{program.name} delivered streams with other than {expected} events")
    crowd.close()
    return Turn(cpu / seen * 1e6, seen / passed)


def memory(run: Run) -> list[Measure]:
    """Memory of thousands of streams that are open at once and flow slowly."""
    count = machine.connections_possible(_OPEN, descriptors_each=2)
    if count < _OPEN:
        run.notes.append(f"{count:,} open streams instead of {_OPEN:,}: the limit on open files allows no more")
    resident, proportional = {}, {}
    with ExitStack() as stack:
        upstream = stack.enter_context(sse.upstream(run.place, 3600, _OPEN_INTERVAL_S))
        programs = [
            stack.enter_context(nginx.reverse_proxy(run.place, upstream, streams=True)),
            stack.enter_context(tollway.gateway(run.place, run.home, upstream)),
        ]
        for program in programs:
            run.say(f"  {program.name}")
            resident[program.name], proportional[program.name] = uvloop.run(_grow(program, count))
    return [
        Measure(f"resident memory per open stream, {count:,} open", "KiB", resident, at_most=20),
        Measure(f"proportional memory per open stream, {count:,} open", "KiB", proportional),
    ]


async def _grow(program: Program, count: int) -> tuple[list[float], list[float]]:
    crowd = Crowd(program, exchange.streamed_chat(program.model))
    await crowd.grow_to(_FIRST)
    await asyncio.sleep(_OPEN_INTERVAL_S)
    before = processes.memory_kib(program.worker)
    await crowd.grow_to(count)
    seen = crowd.events
    await asyncio.sleep(2 * _OPEN_INTERVAL_S)
    after = processes.memory_kib(program.worker)
    crowd.check_open()
    if crowd.events - seen < count:
        raise processes.BenchError(f"{program.name} let streams stand still with {count} of them open")
    crowd.close()
    resident, proportional = ((late - early) / (count - _FIRST) for early, late in zip(before, after, strict=True))
    return [resident], [proportional]
