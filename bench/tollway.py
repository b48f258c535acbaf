"""Tollway as a user starts it, with nothing switched off: keys, limits, prices, journal, ledger, metrics."""

import asyncio
import http.client
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import asyncpg

from bench import exchange, processes
from bench.hostile import ANSWERS
from bench.programs import Place, Program, Upstream, clean_environment
from bench.report import TOLLWAY

CONTROL = "supervisor and control plane"
DATABASE = "PostgreSQL"

_COMMAND = str(Path(sys.executable).with_name("tollway"))
_READY = b"LLM proxy server listening on port"
_PROVIDER_KEY = "sk-bench-0123456789abcdef"
_START_LIMIT_S = 60
_LIVE_LIMIT_S = 5
_STOP_LIMIT_S = 60
"""Long, because a stop posts what is left in the journals."""

_NO_LIMIT = 2_000_000_000
"""What no load reaches. Not NULL: the windows must be counted as for any other key."""

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever HTTP_PROXY says


@dataclass(frozen=True, slots=True)
class Started:
    """A gateway that has said that it is ready."""

    port: int
    supervisor: int
    worker: int
    ready_after_s: float
    environment: Mapping[str, str]

    def database_url(self) -> str:
        """The URI of its database, asked for as people ask for it."""
        done = subprocess.run([_COMMAND, "db", "url"], env=self.environment, capture_output=True, text=True, timeout=30)
        if done.returncode:
            raise processes.BenchError(f"tollway db url: {done.stderr.strip()}")
        return done.stdout.strip()


@contextmanager
def start(place: Place, home: Path, upstream: Upstream | None = None, *, pinned: bool = True) -> Iterator[Started]:
    """``tollway serve`` on ``home``: its worker on the program's core, everything else of it on the other one."""
    port = processes.free_port()
    settings = {
        "TOLLWAY_HOME": str(home),
        "PORT": str(port),
        "OPENAI_API_KEY": _PROVIDER_KEY,
        "MISTRAL_API_KEY": _PROVIDER_KEY,
        "MAX_PARALLEL_PER_KEY": "100000",
    }
    if upstream:
        settings["OPENAI_BASE_URL"] = settings["MISTRAL_BASE_URL"] = f"{upstream.url}/v1"
        if upstream.authority:
            settings["SSL_CERT_FILE"] = str(upstream.authority)
    environment = clean_environment(**settings)
    log = place.make("tollway") / "output.log"
    cores = {place.other_core} if pinned else {place.program_core, place.other_core}
    begun = time.perf_counter()
    with processes.running(
        "tollway", [_COMMAND, "serve"], log, cores=cores, environment=environment, patience_s=_STOP_LIMIT_S
    ) as child:
        _wait_until_ready(child, log)
        ready_after_s = time.perf_counter() - begun
        worker = processes.only_below(child.pid, "tollway.dataplane")
        if pinned:
            processes.pin(worker, place.program_core)
        yield Started(port, child.pid, worker, ready_after_s, environment)


@contextmanager
def gateway(place: Place, home: Path, upstream: Upstream) -> Iterator[Program]:
    """A gateway ready for load, after an answer has shown that key, limits, price and provider are in force."""
    with start(place, home, upstream) as started, Database(started.database_url()) as database:
        key_id, key = _make_key(started.port)
        database.prepare(key_id)
        _wait_until_live(started.port, key)
        yield Program(
            TOLLWAY,
            started.port,
            started.worker,
            key,
            {
                CONTROL: processes.Family(started.supervisor, (started.worker, database.postmaster)),
                DATABASE: processes.Family(database.postmaster),
            },
            ledger=lambda: database.calls(key_id),
        )


class Database:
    """The few things that the measurement asks of the gateway's database."""

    def __init__(self, url: str) -> None:
        self._runner = asyncio.Runner()
        self._connection: Any = self._runner.run(asyncpg.connect(url, timeout=10))
        # The embedded server has a session of its own, so it is found by way of the process that serves us.
        self.postmaster = processes.parent(self._connection.get_server_pid())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._connection.close())
        self._runner.close()

    def prepare(self, key_id: str) -> None:
        """Set limits that are counted but never reached, and add a model whose price no seed and no list decides."""
        self._runner.run(
            self._connection.execute(
                'UPDATE "Users" SET "requestsPerMinute" = $2::int, "tokensPerMinute" = $2::int WHERE id = $1',
                key_id,
                _NO_LIMIT,
            )
        )
        hostile_models = ((f"hostile-{number}", answer.dialect) for number, answer in enumerate(ANSWERS.values()))
        for model, provider in (*hostile_models, (exchange.MISTRAL_MODEL, "mistral"), (exchange.MODEL, "openai")):
            self._runner.run(
                self._connection.execute(
                    """INSERT INTO "LLMModels" (name, provider, "inputCostPer1k", "outputCostPer1k")
                       SELECT $1::text, $2::text, 0.002, 0.008
                       WHERE NOT EXISTS (SELECT FROM "LLMModels" WHERE name = $1)""",
                    model,
                    provider,
                )
            )

    def calls(self, key_id: str) -> int:
        """How many entries the ledger holds for the key."""
        count: int = self._runner.run(
            self._connection.fetchval("SELECT count(*) FROM tollway.ledger WHERE key_id = $1", key_id)
        )
        return count


def _wait_until_ready(child: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_LIMIT_S
    while _READY not in log.read_bytes():
        if child.poll() is not None or time.monotonic() > deadline:
            raise processes.BenchError(f"tollway serve printed no ready line (exit code {child.returncode})")
        time.sleep(0.005)


def _make_key(port: int) -> tuple[str, str]:
    """The id and the text of a new virtual key."""
    with _post(port, "/api/generate-virtual-key", "{}") as answer:
        made = json.load(answer)
    return made["id"], made["virtualKey"]


def _wait_until_live(port: int, key: str) -> None:
    expected = {"x-ratelimit-limit-requests": str(_NO_LIMIT), "x-ratelimit-limit-tokens": str(_NO_LIMIT)}
    deadline = time.monotonic() + _LIVE_LIMIT_S
    while True:
        try:
            with _post(port, exchange.PATH, exchange.CHAT, key) as answer:
                headers = dict(answer.headers.items())
            if headers.keys() >= {"x-tollway-cost"} and headers.items() >= expected.items():
                return
            found = f"answers with {headers}"
        except urllib.error.HTTPError as refusal:
            found = f"answers {refusal.code} {refusal.read(500)!r}"
        if time.monotonic() > deadline:
            raise processes.BenchError(f"{_LIVE_LIMIT_S} s after its set-up the gateway {found}")
        time.sleep(0.1)


def _post(port: int, path: str, body: str, key: str = "") -> http.client.HTTPResponse:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body.encode(), headers)
    answer: http.client.HTTPResponse = _OPENER.open(request, timeout=10)
    return answer
