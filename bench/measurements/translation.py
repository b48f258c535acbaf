"""What it costs to speak Mistral's dialect: the same calls by two routes of one gateway; large bodies by themselves."""

import dataclasses
import json
import time

import uvloop

from bench import exchange, load, nginx, processes, sse, tollway
from bench.measurements import streams
from bench.programs import Program
from bench.report import TOLLWAY, Measure
from bench.run import Run
from tollway.providers.table import adapters
from tollway.wire.chat_request import ChatCall, parse_chat

_CONNECTIONS = 32
_REPEATS = 5
_MB = 1_000_000


def cost(run: Run) -> list[Measure]:
    """CPU per request and per event by both routes, round by round, and the loop time of large bodies."""
    return [*_compared("request", *_requests(run)), *_compared("streamed event", *_events(run)), *_large_bodies()]


def _routes(gateway: Program) -> tuple[Program, Program]:
    return gateway, dataclasses.replace(gateway, model=exchange.MISTRAL_MODEL)


def _requests(run: Run) -> tuple[list[float], list[float]]:
    each: tuple[list[float], list[float]] = ([], [])
    with nginx.mock_upstream(run.place) as upstream, tollway.gateway(run.place, run.home, upstream) as gateway:
        load.run(gateway, 1, _CONNECTIONS, run.place.folder)  # warm-up
        for number in range(1, run.lengths.rounds + 1):
            run.say(f"  round {number} of {run.lengths.rounds}")
            for samples, program in zip(each, _routes(gateway), strict=True):
                run.wait_until_quiet(program)
                before = processes.cpu_s(program.worker)
                done = load.run(program, run.lengths.load_s, _CONNECTIONS, run.place.folder)
                samples.append((processes.cpu_s(program.worker) - before) / done.requests * 1e6)
    return each


def _events(run: Run) -> tuple[list[float], list[float]]:
    each: tuple[list[float], list[float]] = ([], [])
    count = streams.events_each(run)
    with (
        sse.upstream(run.place, count, streams.INTERVAL_S) as upstream,
        tollway.gateway(run.place, run.home, upstream) as gateway,
    ):
        for number in range(1, run.lengths.rounds + 1):
            run.say(f"  round {number} of {run.lengths.rounds}")
            for samples, program in zip(each, _routes(gateway), strict=True):
                run.wait_until_quiet(program)
                samples.append(uvloop.run(streams.stream(program, count, run.lengths.stream_s)).event_us)
    return each


def _compared(what: str, openai: list[float], mistral: list[float]) -> list[Measure]:
    ratios = [theirs / ours for theirs, ours in zip(mistral, openai, strict=True)]
    return [
        Measure(f"CPU per {what}, OpenAI's route", "µs", {TOLLWAY: openai}),
        Measure(f"CPU per {what}, Mistral's route", "µs", {TOLLWAY: mistral}),
        Measure(f"CPU per {what}, Mistral's route over OpenAI's", "x", {TOLLWAY: ratios}, at_most=1.5),
    ]


def _large_bodies() -> list[Measure]:
    """Judging and encoding a body holds up the event loop for so long."""
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 10 * _MB}}
    bodies = {
        "a prompt of 1 MB": "All work and no play. " * (_MB // 22),
        "a picture of 10 MB": [{"type": "text", "text": "What is this?"}, picture],
    }
    return [
        Measure(f"{what}, judged and encoded for {dialect}", "ms", {TOLLWAY: _times(content, dialect)}, at_most=10)
        for what, content in bodies.items()
        for dialect in ("openai", "mistral")
    ]


def _times(content: object, dialect: str) -> list[float]:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": content}]}).encode()
    adapter = adapters(dialect)["chat/completions"]
    times = []
    for _ in range(_REPEATS):
        begun = time.perf_counter()
        call = parse_chat(body)
        assert isinstance(call, ChatCall)
        adapter.encode(call, "m")
        times.append((time.perf_counter() - begun) * 1000)
    return times
