"""What one hostile request or answer does to the others: how long they stand, and how much the worker holds."""

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import uvloop

from bench import processes, tollway
from bench.hostile import ANSWERS, REQUESTS, Request
from bench.programs import Program, Upstream, clean_environment
from bench.report import TOLLWAY, Measure
from bench.run import Run

_PAUSE_S = 0.005
"""Between two looks at the worker."""

_PATIENCE_S = 120

_WAIT_MS, _GROWTH_MIB = 100, 128
"""The targets."""


def shapes(run: Run) -> list[Measure]:
    """The longest wait of another client, and the worker's growth, for each shape."""
    measures = []
    with _upstream(run) as upstream, tollway.gateway(run.place, run.home, upstream) as program:
        for name, request in _calls():
            run.say(f"  {name}")
            wait_ms, growth_mib, status = uvloop.run(_beside(program, request))
            measures += [
                Measure(f"{name} ({status}): others wait", "ms", {TOLLWAY: [wait_ms]}, at_most=_WAIT_MS),
                Measure(f"{name}: growth", "MiB", {TOLLWAY: [growth_mib]}, at_most=_GROWTH_MIB),
            ]
    return measures


def _calls() -> Iterator[tuple[str, Request]]:
    """Every shape as a request, and how the table calls it."""
    for name, request in REQUESTS.items():
        yield f"request: {name}", request
    for number, (name, answer) in enumerate(ANSWERS.items()):
        stream = b',"stream":true' if answer.streams else b""
        body = b'{"model":"hostile-%d",%b%b}' % (number, answer.asks, stream)
        yield f"answer: {name}", Request(answer.path, partial(bytes, body))


@contextmanager
def _upstream(run: Run) -> Iterator[Upstream]:
    port = processes.free_port()
    command = [sys.executable, "-m", "bench.hostile_upstream", str(port)]
    environment = clean_environment(PYTHONPATH=str(Path(__file__).parents[2]))
    log = run.place.make("hostile-upstream") / "output.log"
    cores = {run.place.other_core}
    with processes.running("the hostile upstream", command, log, cores=cores, environment=environment) as child:
        processes.wait_for_port(child, port)
        yield Upstream(port, child.pid)


async def _beside(program: Program, request: Request) -> tuple[float, float, str]:
    """Send one request and look at the worker meanwhile: longest wait (ms), growth (MiB), status."""
    body = request.body()
    before = most = processes.resident_kib(program.worker)
    call = asyncio.create_task(_call(program, request, body))
    wait_s = 0.0
    reader, writer = await asyncio.open_connection("127.0.0.1", program.port)
    while not call.done():
        begun = time.perf_counter()
        writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"}")
        wait_s = max(wait_s, time.perf_counter() - begun)
        most = max(most, processes.resident_kib(program.worker))
        await asyncio.sleep(_PAUSE_S)
    writer.close()
    return wait_s * 1000, (most - before) / 1024, await call


async def _call(program: Program, request: Request, body: bytes) -> str:
    """The status of the answer, whose bytes are read and dropped."""
    reader, writer = await asyncio.open_connection("127.0.0.1", program.port)
    framing = request.framing or f"Content-Length: {len(body)}"
    writer.write(
        f"POST {request.path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {request.content_type}\r\n{framing}\r\n"
        f"Authorization: Bearer {program.key}\r\nConnection: close\r\n\r\n".encode()
    )
    status = b""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            for start in range(0, len(body), 1 << 18):
                writer.write(body[start : start + (1 << 18)])
                await writer.drain()
            status = await reader.readline()
            while await reader.read(1 << 20):
                pass
    except ConnectionError:
        pass  # it was refused before it was sent
    except TimeoutError:
        return "no end"
    finally:
        writer.close()
    return status[9:12].decode() or "cut"
