"""Where the data plane's CPU goes: py-spy samples it from outside while requests run.

It samples without stopping the program. A stop takes effect most easily in system calls, so stopped samples all but
miss what computes; the price is that a stack may now and then be torn.
"""

import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from bench import load, machine, nginx, processes, tollway
from bench.run import Run

_SECONDS = 10
_CONNECTIONS = 32
_RATE = 500
_LINES = 30
_LINE_NUMBER = re.compile(r":\d+\)")


def record(run: Run, output: Path) -> str:
    """Load the gateway, write its stacks (the collapsed format of flame graphs) to ``output``; a table of functions."""
    spy = shutil.which("py-spy") or shutil.which("py-spy", path=str(Path(sys.executable).parent))
    if spy is None:
        raise machine.UnfitError("py-spy is missing: `.venv/bin/pip install py-spy`")
    with nginx.mock_upstream(run.place) as upstream, tollway.gateway(run.place, run.home, upstream) as program:
        load.run(program, 1, _CONNECTIONS, run.place.folder)
        command = [spy, "record", "--nonblocking", "--pid", str(program.worker), "--rate", str(_RATE)]
        with processes.running(
            "py-spy",
            [*command, "--duration", str(_SECONDS), "--format", "raw", "--output", str(output)],
            run.place.folder / "py-spy.log",
            cores={run.place.other_core},
        ) as spying:
            load.run(program, _SECONDS, _CONNECTIONS, run.place.folder)
            if spying.wait(30):
                raise processes.BenchError(
                    "py-spy could not sample the data plane; it needs the right to trace processes"
                )
    return summary(output.read_text().splitlines())


def summary(stacks: Iterable[str]) -> str:
    """Functions by their own share of the samples, and with all that they called, from collapsed stacks."""
    own: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    for stack in stacks:
        frames, _, samples = _LINE_NUMBER.sub(")", stack).rpartition(" ")
        functions = frames.split(";")
        own[functions[-1]] += int(samples)
        whole.update(dict.fromkeys(functions, int(samples)))  # once, however often it recurs
    total = own.total()
    lines = [f"{own[name] / total:7.1%} {whole[name] / total:7.1%}  {name}" for name, _ in own.most_common(_LINES)]
    return "\n".join(["    own   whole  function", *lines])
