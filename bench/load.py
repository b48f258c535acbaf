"""Requests as fast as they are answered: wrk, and what it reports."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench import exchange, machine, processes
from bench.programs import Program

_REPORT = "bench-report "

# wrk's `done` gets exact numbers, which spares us reading its table for people. Durations are in microseconds.
_DONE = """
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '%s{"requests": %%d, "duration_us": %%d, "failures": %%d, "p50_us": %%d, "p99_us": %%d}\\n',
    summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What one load did."""

    requests: int
    seconds: float
    p50_us: float
    p99_us: float


def script(key: str, model: str = exchange.MODEL) -> str:
    """The Lua program that makes wrk send our request. It is static: wrk formats the request once."""
    headers = exchange.REQUEST_HEADERS | {"Authorization": f"Bearer {key}"}
    lines = [f"wrk.headers[{name!r}] = {value!r}" for name, value in headers.items()]
    body = f"wrk.body = [==[{exchange.chat(model)}]==]"
    return "\n".join(['wrk.method = "POST"', *lines, body, _DONE % _REPORT])


def parse(output: str) -> Load:
    """Read what our script made wrk print; raise :class:`BenchError` where requests failed or nothing was answered."""
    for line in output.splitlines():
        if line.startswith(_REPORT):
            report = json.loads(line.removeprefix(_REPORT))
            break
    else:
        raise processes.BenchError(f"wrk printed no report:\n{output}")
    if report["failures"] or not report["requests"]:
        raise processes.BenchError(f"{report['failures']} requests failed, {report['requests']} were answered")
    return Load(report["requests"], report["duration_us"] / 1e6, report["p50_us"], report["p99_us"])


def run(program: Program, seconds: int, connections: int, folder: Path) -> Load:
    """Load ``program`` with one request at a time on each connection. wrk knows whole seconds only."""
    lua = folder / f"{program.name}.lua"
    lua.write_text(script(program.key, program.model))
    command = [machine.tool("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "--latency"]
    url = f"http://127.0.0.1:{program.port}{exchange.PATH}"
    done = subprocess.run([*command, "-s", lua, url], capture_output=True, text=True, timeout=seconds + 30)
    try:
        return parse(done.stdout + done.stderr)
    except processes.BenchError as problem:
        raise processes.BenchError(f"{program.name} under load: {problem}") from None
