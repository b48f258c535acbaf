"""How long starting and importing take, and what a gateway holds that has nothing to do."""

import subprocess
import sys
import time

from bench import processes, tollway
from bench.programs import clean_environment
from bench.report import TOLLWAY, Measure
from bench.run import Run

_MODULE = "tollway.dataplane.worker"
_IMPORT = f"import time; begun = time.perf_counter(); import {_MODULE}; print(time.perf_counter() - begun)"
_IDLE_S = 3
"""Until the memory of a gateway that nobody uses is read."""


def starts(run: Run) -> list[Measure]:
    """From ``tollway serve`` to the ready line, on all cores; then the memory of the idle gateway."""
    run.say("  first start")
    with tollway.start(run.place, run.home, pinned=False) as started:
        first = started.ready_after_s
    later: list[float] = []
    for number in range(1, run.lengths.starts + 1):
        run.say(f"  later start {number} of {run.lengths.starts}")
        with tollway.start(run.place, run.home, pinned=False) as started:
            later.append(started.ready_after_s)
            if number == run.lengths.starts:
                memory = _idle_memory(started)
    return [
        Measure("first start to the ready line, database made", "s", {TOLLWAY: [first]}),
        Measure("later start to the ready line", "s", {TOLLWAY: later}, at_most=5),
        *memory,
    ]


def imports(run: Run) -> list[Measure]:
    """Importing the data plane in a fresh interpreter, compiled files present."""
    command = [sys.executable, "-c", _IMPORT]
    taken = []
    for _ in range(run.lengths.imports + 1):
        done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise processes.BenchError(f"cannot import {_MODULE}: {done.stderr.strip()}")
        taken.append(float(done.stdout))
    return [Measure(f"import {_MODULE}", "s", {TOLLWAY: taken[1:]}, at_most=0.3)]


def _idle_memory(started: tollway.Started) -> list[Measure]:
    time.sleep(_IDLE_S)
    resident, proportional = processes.memory_kib(started.worker)
    with tollway.Database(started.database_url()) as database:
        control = processes.Family(started.supervisor, (started.worker, database.postmaster))
        others = {
            tollway.CONTROL: control.memory_kib(),
            tollway.DATABASE: processes.Family(database.postmaster).memory_kib(),
        }
    return [
        Measure("resident memory of the idle data plane", "MiB", {TOLLWAY: [resident / 1024]}, at_most=80),
        Measure("proportional memory of the idle data plane", "MiB", {TOLLWAY: [proportional / 1024]}),
        *(Measure(f"proportional memory, {name}", "MiB", {TOLLWAY: [kib / 1024]}) for name, kib in others.items()),
    ]
