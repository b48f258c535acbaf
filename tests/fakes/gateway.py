"""The real gateway, started as a user starts it: ``python -m tollway serve`` with a home of its own.

:class:`Gateway` is the process with its embedded PostgreSQL; :class:`Tenant` is one customer of it, with a key,
accounts at both scripted providers and models that no other test uses, so that tests may share a gateway.
"""

import asyncio
import contextlib
import json
import os
import re
import resource
import secrets
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

import asyncpg
import psutil

from fakes.client import Client, Reply
from fakes.upstream import PATIENCE_S, Account, Upstream

READY = re.compile(r"^LLM proxy server listening on port (\d+)\. Connected to PostgreSQL via asyncpg$")
START_S = 60.0
"""A first start makes a database cluster; only a failing test waits this long."""

_PASSED_THROUGH = ("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "COVERAGE_PROCESS_START")
"""All that the gateway sees of the developer's environment: no provider key, no proxy, no database."""


class StartFailedError(Exception):
    """The gateway ended before it was ready."""

    def __init__(self, code: int, stdout: str, stderr: str) -> None:
        super().__init__(f"exit {code}\nstdout: {stdout}\nstderr: {stderr}")
        self.code = code
        self.stdout = stdout
        self.stderr = stderr


class Gateway:
    """One gateway. :meth:`start` returns when the ready line has come."""

    def __init__(self, home: Path, openai: Upstream, mistral: Upstream, settings: Mapping[str, str]) -> None:
        self.home = home
        self.openai = openai
        self.mistral = mistral
        self.settings = {
            "HOST": "127.0.0.1",
            "PORT": "0",
            "OPENAI_BASE_URL": openai.url,
            "MISTRAL_BASE_URL": mistral.url,
            **settings,
        }
        self.secrets: set[str] = set()
        """What must never be found in anything that the gateway prints."""
        self.port = 0
        self.open_files: int | None = None
        """As ``ulimit -n`` before the start; None: as the tests have it."""
        self.tls: ssl.SSLContext | None = None
        """How to talk to it where it serves HTTPS."""
        self.stdout: list[str] = []
        self.terminal: int | None = None
        """A descriptor to take the place of the file that standard error goes to."""
        self._log = home.with_name(home.name + ".stderr")
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._database_url = ""

    # The process

    def environment(self) -> dict[str, str]:
        """The whole environment of the gateway and of commands that talk about it."""
        inherited = {name: os.environ[name] for name in _PASSED_THROUGH if name in os.environ}
        return {**inherited, "HOME": str(self.home.parent), "TOLLWAY_HOME": str(self.home), **self.settings}

    def start(self) -> Self:
        """Start, or start again on the same home; raises StartFailedError with everything it said."""
        self.stdout = []
        self._database_url = ""
        ready = threading.Event()
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tollway", "serve"],
                env=self.environment(),
                cwd=self.home.parent,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log if self.terminal is None else self.terminal,
                text=True,
                start_new_session=True,
                preexec_fn=self._limit_files if self.open_files is not None else None,
            )
        self._reader = threading.Thread(target=self._read_output, args=(self._process, ready), daemon=True)
        self._reader.start()
        came = ready.wait(START_S)
        if not self.port or not came:
            code = self._end()
            raise StartFailedError(code, "".join(self.stdout), self.stderr)
        return self

    def _limit_files(self) -> None:
        assert self.open_files is not None
        resource.setrlimit(resource.RLIMIT_NOFILE, (self.open_files, self.open_files))

    def _read_output(self, process: subprocess.Popen[str], ready: threading.Event) -> None:
        self.port = 0
        assert process.stdout is not None
        for line in process.stdout:
            self.stdout.append(line)
            if match := READY.match(line.rstrip("\n")):
                self.port = int(match[1])
                ready.set()
        ready.set()  # the end of the output: there will be no ready line any more

    @property
    def process(self) -> subprocess.Popen[str]:
        assert self._process is not None, "not started"
        return self._process

    @property
    def stderr(self) -> str:
        """Everything since the first start on this home."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    async def logged(self, within_s: float = PATIENCE_S, **members: object) -> dict[str, Any]:
        """The first log line that has all of these members, as soon as there is one."""
        until = time.monotonic() + within_s
        while True:
            for line in self.log_lines():
                if all(name in line and line[name] == value for name, value in members.items()):
                    return line
            assert time.monotonic() < until, f"no line with {members} in:\n{self.stderr[-3000:]}"
            await asyncio.sleep(0.02)

    def log_lines(self) -> list[dict[str, Any]]:
        """Everything that was logged, line by line."""
        return [json.loads(line) for line in self.stderr.split("\n")[:-1] if line.startswith("{")]

    def terminate(self) -> None:
        """SIGTERM, as an operator or an orchestrator sends it; :meth:`wait` waits for the end."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self, within_s: float = PATIENCE_S) -> int:
        """The exit code."""
        code = self.process.wait(within_s)
        assert self._reader is not None
        self._reader.join(PATIENCE_S)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code

    def stop(self) -> None:
        """SIGTERM; the end must be clean, and nothing may be left behind or have been given away."""
        family = self.family()
        self.terminate()
        code = self.wait()
        assert code == 0, f"exit {code}\n{self.stderr[-4000:]}"
        _, alive = psutil.wait_procs(family, timeout=PATIENCE_S)
        assert not alive, f"left running: {alive}"
        self.assert_nothing_given_away()

    def kill_everything(self) -> None:
        """SIGKILL to every process at once, PostgreSQL included: the machine lost its power."""
        family = self.family()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()  # so that no parent sees a child die and reacts
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.wait()
        psutil.wait_procs(family, timeout=PATIENCE_S)

    def _end(self) -> int:
        if self.process.poll() is None:
            self.kill_everything()
        return self.wait()

    def end(self) -> None:
        """Whatever state a test left it in: nothing of it runs afterwards."""
        if self._process is not None:
            self._end()
            if postmaster := self.postmaster():
                for process in [*postmaster.children(), postmaster]:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()

    def family(self) -> list[psutil.Process]:
        """The supervisor, its children, PostgreSQL and its children."""
        supervisor = psutil.Process(self.process.pid)
        found = {supervisor, *supervisor.children(recursive=True)}
        if postmaster := self.postmaster():
            found |= {postmaster, *postmaster.children(recursive=True)}
        return sorted(found, key=lambda process: process.pid)

    def child(self, module: str) -> psutil.Process:
        """The running child ``python -m <module>``; waits for it where it is just being restarted."""
        for _ in patiently(f"a process of {module}"):
            for process in psutil.Process(self.process.pid).children():
                with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                    if module in process.cmdline():
                        return process
        raise AssertionError("unreachable")

    def postmaster(self) -> psutil.Process | None:
        """The embedded PostgreSQL's first process, by its own pid file."""
        pid_file = self.home / "postgres" / "postmaster.pid"
        try:
            process = psutil.Process(int(pid_file.read_text().split()[0]))
            return process if "postgres" in process.name() else None
        except (OSError, ValueError, IndexError, psutil.NoSuchProcess):
            return None

    def command(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """``tollway <words>`` in the same environment."""
        return subprocess.run(
            [sys.executable, "-m", "tollway", *words],
            env={**self.environment(), **environment},
            cwd=self.home.parent,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START_S,
            check=False,
        )

    def assert_nothing_given_away(self) -> None:
        """No secret of any test has been printed."""
        printed = "".join(self.stdout) + self.stderr
        leaked = sorted(secret for secret in self.secrets if secret in printed)
        assert not leaked, f"printed: {leaked}"

    # Its outside

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def client(self) -> Client:
        return Client(self.port, self.tls)

    async def new_key(self) -> tuple[str, str]:
        """A fresh virtual key and its id, by the API."""
        reply = await self.client.post("/api/generate-virtual-key")
        assert reply.status == 200, reply
        self.secrets.add(reply.json["virtualKey"])
        return reply.json["virtualKey"], reply.json["id"]

    async def save_keys(self, virtual_key: str, **keys: str) -> Reply:
        """``openaiKey=…``, ``mistralKey=…``, by the API."""
        self.secrets |= {key for key in keys.values() if len(key) > 8}
        return await self.client.post("/api/save-keys", {"virtualKey": virtual_key, **keys})

    async def metrics(self) -> dict[str, float]:
        """What ``/metrics`` shows, by name and labels as they stand there."""
        reply = await self.client.get("/metrics", self.settings.get("ADMIN_KEY"))
        assert reply.status == 200, reply
        lines = [line.rpartition(" ") for line in reply.body.decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in lines}

    async def gauge(self, name: str) -> float:
        """One of the only worker's gauges."""
        return (await self.metrics())[f'{name}{{worker="0"}}']

    async def configuration_is_live(self) -> None:
        """Wait until everything that was committed so far is in force.

        The answer to a write is held until its revision is in force, and revisions go up with the commits.
        """
        await self.new_key()

    # Its database

    @property
    def database_url(self) -> str:
        """What ``tollway db url`` prints."""
        if not self._database_url:
            done = self.command("db", "url")
            assert done.returncode == 0, done
            self._database_url = done.stdout.strip()
        return self._database_url

    @contextlib.asynccontextmanager
    async def database(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection; waits for a PostgreSQL that is just being started again."""
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                connection = await asyncpg.connect(self.database_url)
                break
            except (OSError, asyncpg.PostgresConnectionError, asyncpg.CannotConnectNowError):
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(0.02)
        try:
            yield connection
        finally:
            await connection.close()

    async def sql(self, statement: str, *arguments: object) -> list[asyncpg.Record]:
        """One statement on a connection of its own."""
        async with self.database() as connection:
            return await connection.fetch(statement, *arguments)

    async def value(self, query: str, *arguments: object) -> Any:
        """The first column of the first row."""
        rows = await self.sql(query, *arguments)
        return rows[0][0] if rows else None

    async def becomes(self, expected: object, query: str, *arguments: object, within_s: float = PATIENCE_S) -> None:
        """Ask again and again until the first value is the expected one."""
        until = time.monotonic() + within_s
        async with self.database() as connection:
            while (found := await connection.fetchval(query, *arguments)) != expected:
                assert time.monotonic() < until, f"still {found!r}, not {expected!r}"
                await asyncio.sleep(0.02)


def patiently(what: str, within_s: float = PATIENCE_S) -> Iterator[None]:
    """Try again every few milliseconds, for tests that have no loop; AssertionError when it never came."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        yield
        time.sleep(0.01)
    raise AssertionError(f"waited in vain for {what}")


class Tenant:
    """One customer with everything of its own. Make one with :func:`new_tenant`."""

    def __init__(self, gateway: Gateway, key: str, key_id: str) -> None:
        self.gateway = gateway
        self.key = key
        self.key_id = key_id
        self.openai: Account = gateway.openai.account()
        self.mistral: Account = gateway.mistral.account()
        name = secrets.token_hex(6)
        self.model = f"alone-{name}"
        """Served by OpenAI, with no fallback."""
        self.mistral_model = f"mistral-{name}"
        """Served by Mistral, with no fallback."""
        self.pair = f"pair-{name}"
        """Served by OpenAI; falls back to :attr:`mistral_model`."""

    @property
    def client(self) -> Client:
        """To the gateway as it runs now: after a restart its port is another one."""
        return self.gateway.client

    async def chat(self, model: str | None = None, content: Any = "Hello", **more: Any) -> Reply:
        return await self.client.chat(self.key, model or self.model, content, **more)

    def stream(self, model: str | None = None, content: Any = "Hello", **more: Any):
        return self.client.stream(self.key, model or self.model, content, **more)

    async def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> Reply:
        return await self.client.post(path, body, self.key, headers)

    async def limit(self, requests: int | None = 60, tokens: int | None = 100_000) -> None:
        """Set both limits by SQL; in force on return."""
        await self.gateway.sql(
            'UPDATE "Users" SET "requestsPerMinute" = $2, "tokensPerMinute" = $3 WHERE id = $1',
            self.key_id,
            requests,
            tokens,
        )
        await self.gateway.configuration_is_live()

    async def add_model(
        self,
        provider: str = "openai",
        fallback: str | None = None,
        input_cost: str | None = "0.001",
        output_cost: str | None = "0.002",
    ) -> str:
        """A model of this tenant's own by SQL, in force on return; ``fallback`` as somebody types it into psql."""
        name = f"{provider}-{secrets.token_hex(6)}"
        async with self.gateway.database() as connection:
            await insert_model(connection, name, provider, fallback, input_cost, output_cost)
        await self.gateway.configuration_is_live()
        return name

    async def add_provider(self, url: str, *, wants_key: bool = True) -> str:
        """A provider of OpenAI's dialect by one row, in force on return."""
        name = f"third-{secrets.token_hex(6)}"
        sql = "INSERT INTO tollway.providers (name, dialect, api_base, quirks) VALUES ($1, 'openai', $2, $3)"
        await self.gateway.sql(sql, name, url, [] if wants_key else ["no_credential"])
        await self.gateway.configuration_is_live()
        return name

    async def cost_becomes(self, dollars: str | Decimal, within_s: float = PATIENCE_S) -> None:
        """Wait until ``"totalCost"`` shows exactly this."""
        query = 'SELECT "totalCost" FROM "Users" WHERE id = $1'
        await self.gateway.becomes(Decimal(dollars), query, self.key_id, within_s=within_s)

    async def ledger(self, attempts: int) -> list[asyncpg.Record]:
        """This key's rows of the ledger in the order of their attempts, when there are that many."""
        await self.gateway.becomes(attempts, "SELECT count(*) FROM tollway.ledger WHERE key_id = $1", self.key_id)
        return await self.gateway.sql(
            "SELECT * FROM tollway.ledger WHERE key_id = $1 ORDER BY call_id, attempt", self.key_id
        )


async def new_tenant(gateway: Gateway, requests: int | None = None, tokens: int | None = None) -> Tenant:
    """A key with accounts and three models. Without limits, unless the test is about limits."""
    key, key_id = await gateway.new_key()
    tenant = Tenant(gateway, key, key_id)
    async with gateway.database() as connection:
        await insert_model(connection, tenant.model, "openai")
        await insert_model(connection, tenant.mistral_model, "mistral")
        await insert_model(connection, tenant.pair, "openai", tenant.mistral_model)
        await connection.execute(
            'UPDATE "Users" SET "requestsPerMinute" = $2, "tokensPerMinute" = $3 WHERE id = $1',
            key_id,
            requests,
            tokens,
        )
    saved = await gateway.save_keys(key, openaiKey=tenant.openai.secret, mistralKey=tenant.mistral.secret)
    assert saved.status == 200, saved
    return tenant


async def insert_model(
    connection: asyncpg.Connection,
    name: str,
    provider: str,
    fallback: str | None = None,
    input_cost: str | None = "0.001",
    output_cost: str | None = "0.002",
) -> None:
    """A row as somebody types it into psql; prices in US dollars per 1,000 tokens."""
    await connection.execute(
        'INSERT INTO "LLMModels" (name, provider, fallback, "inputCostPer1k", "outputCostPer1k")'
        " VALUES ($1, $2, $3, $4, $5)",
        name,
        provider,
        fallback,
        None if input_cost is None else Decimal(input_cost),
        None if output_cost is None else Decimal(output_cost),
    )


def totals(rows: Sequence[asyncpg.Record]) -> tuple[int, int]:
    """Input and output tokens of ledger rows, to compare with :meth:`fakes.upstream.Account.owed`."""
    return sum(row["input_tokens"] for row in rows), sum(row["output_tokens"] for row in rows)
