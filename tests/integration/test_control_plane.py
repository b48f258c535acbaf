"""The control plane as a process on a real PostgreSQL, spoken to over its socket as a worker does."""

import asyncio
import http.client
import json
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from fakes.connections import connected
from fakes.relay import Relay
from fakes.settlements import settlement
from fakes.usages import told
from tollway.accounting.journal import Journal
from tollway.accounting.records import Settlement
from tollway.admission.authenticate import KeyHasher
from tollway.domain.keys import Secret, is_well_formed
from tollway.observe.metrics import Gauges, Metrics
from tollway.observe.refusals import MAX_STRANGERS_PER_S
from tollway.settings import ChildConfig, Settings, read
from tollway.store.vault import Vault, provider_key_binding
from tollway.supervisor import listen_privately

PATIENCE_S = 15.0
KEY = Secret("5e" * 32)


class ControlPlane:
    """The process, its socket, and what a supervisor would hold."""

    def __init__(self, directory: Path, database_url: str, **environ: str) -> None:
        settings = read({"TOLLWAY_HOME": str(directory), "LOG_LEVEL": "debug", **environ})
        assert isinstance(settings, Settings), settings
        self.settings = settings
        self.database_url = database_url
        self.path = directory / "control.sock"
        self.journals = directory / "journals"
        self.journals.mkdir()
        self.vault = Vault.of(KEY, settings.iv)
        self.listener = listen_privately(self.path)
        config = ChildConfig(
            settings=settings,
            database_url=Secret(database_url),
            encryption_key=KEY,
            control_socket=self.path,
            journals=self.journals,
            listen_fd=self.listener.fileno(),
        )
        self.log = directory / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tollway.controlplane"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                pass_fds=[self.listener.fileno()],
            )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(config.encode())
        self.process.stdin.flush()
        began = time.monotonic()
        assert self.process.stdout.readline() == b"ready\n", self.log.read_text()
        self.ready_after_s = time.monotonic() - began

    def stop(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.write(b"stop\n")
        self.process.stdin.flush()
        return self.process.wait(PATIENCE_S)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.listener):
            assert pipe is not None
            pipe.close()

    def call(self, method: str, path: str, body: bytes | None = None, **headers: str) -> "Reply":
        connection = UnixConnection(self.path)
        head = {"Host": "localhost", **{name.replace("_", "-"): value for name, value in headers.items()}}
        connection.request(method, path, body, head)
        response = connection.getresponse()
        reply = Reply(response.status, dict(response.getheaders()), response.read())
        connection.close()
        return reply

    def post(self, path: str, body: Any = None, **headers: str) -> "Reply":
        return self.call("POST", path, None if body is None else json.dumps(body).encode(), **headers)

    def row(self, statement: str, *arguments: object) -> Any:
        async def fetch() -> Any:
            async with connected(self.database_url) as connection:
                return await connection.fetchrow(statement, *arguments)

        return asyncio.run(fetch())


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(str(self._path))


class Reply:
    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = {name.lower(): value for name, value in headers.items()}
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def refusal(self) -> tuple[int, str | None, str | None]:
        error = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return self.status, error["code"], error["param"]


Start = Callable[..., ControlPlane]


@pytest.fixture
def start(tmp_path: Path, postgres_url: str) -> Iterator[Start]:
    made: list[ControlPlane] = []

    def make(database_url: str = postgres_url, **environ: str) -> ControlPlane:
        made.append(ControlPlane(tmp_path, database_url, **environ))
        return made[-1]

    yield make
    for one in made:
        one.end()


@pytest.fixture
def control(start: Start) -> ControlPlane:
    return start()


def eventually(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def test_a_key_is_made_without_a_body_and_works_at_once(control: ControlPlane) -> None:
    made = control.post("/api/generate-virtual-key")
    assert made.status == 200
    assert set(made.json) == {"virtualKey", "id"}
    assert is_well_formed(made.json["virtualKey"])
    assert int(made.headers["x-tollway-config-revision"]) > 0
    assert made.headers["cache-control"] == "no-store"
    hashed = KeyHasher(control.vault.pepper)(made.json["virtualKey"].encode())
    row = control.row("SELECT * FROM tollway.virtual_keys WHERE hash = $1", hashed)
    assert (row["id"], row["requests_per_minute"], row["tokens_per_minute"]) == (made.json["id"], 60, 100_000)
    assert made.json["virtualKey"] not in str(dict(row))


def test_a_key_is_made_to_measure(control: ControlPlane) -> None:
    expiry = (datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0)
    body = {
        "name": "Team Search",
        "requestsPerMinute": 0,
        "tokensPerMinute": None,
        "models": ["gpt-4o", "demo/echo"],
        "expiresAt": expiry.isoformat(),
    }
    made = control.post("/api/generate-virtual-key", body)
    assert made.status == 200
    row = control.row("SELECT * FROM tollway.virtual_keys WHERE id = $1", made.json["id"])
    assert (row["name"], row["requests_per_minute"], row["tokens_per_minute"]) == ("Team Search", 0, None)
    assert (row["allowed_models"], row["expires_at"]) == (["gpt-4o", "demo/echo"], expiry)


def test_a_database_that_lets_us_in_no_more_is_as_good_as_away(start: Start, postgres_url: str) -> None:
    control = start(postgres_url.replace("/tollway:", "/visitor:").replace("//tollway:", "//visitor:"))
    answer = control.post("/api/generate-virtual-key")
    assert answer.refusal == (503, "database_unavailable", None)
    assert "Traceback" not in control.log.read_text()


WRONG_NEW_KEYS: list[tuple[bytes, str | None]] = [
    (b"{", None),
    (b"[]", None),
    (b"null", None),
    (b"\xff", None),
    (b'{"requestsPerMinute": "60"}', "requestsPerMinute"),
    (b'{"requestsPerMinute": -1}', "requestsPerMinute"),
    (b'{"requestsPerMinute": 1.5}', "requestsPerMinute"),
    (b'{"tokensPerMinute": 3000000000}', "tokensPerMinute"),
    (b'{"models": "gpt-4o"}', "models"),
    (b'{"models": [5]}', "models"),
    (b'{"name": "a\\u0000b"}', "name"),
    (b'{"expiresAt": "2020-01-01T00:00:00Z"}', "expiresAt"),
    (b'{"expiresAt": "2999-01-01T00:00:00"}', "expiresAt"),
    (b'{"requestPerMinute": 60}', "requestPerMinute"),
]


def test_a_wrong_body_makes_no_key(control: ControlPlane) -> None:
    for body, param in WRONG_NEW_KEYS:
        status, _, named = control.call("POST", "/api/generate-virtual-key", body).refusal
        assert (status, named) == (400, param), body
    assert control.row("SELECT count(*) FROM tollway.virtual_keys")[0] == 0


def test_a_body_that_is_too_large_is_refused(control: ControlPlane) -> None:
    reply = control.call("POST", "/api/save-keys", b'{"virtualKey": "' + b"x" * 100_000 + b'"}')
    assert reply.refusal == (413, "request_too_large", None)


def test_provider_keys_are_stored_encrypted_cleared_and_left_alone(control: ControlPlane) -> None:
    made = control.post("/api/generate-virtual-key").json

    def stored() -> dict[str, str | None]:
        row = control.row('SELECT "openaiKey", "mistralKey" FROM "Users" WHERE id = $1', made["id"])
        opened: dict[str, str | None] = {}
        for provider in ("openai", "mistral"):
            sealed = row[f"{provider}Key"]
            secret = control.vault.decrypt(sealed, provider_key_binding(made["id"], provider)) if sealed else None
            opened[provider] = None if secret is None else secret.reveal()
        return opened

    def save(**keys: str) -> None:
        saved = control.post("/api/save-keys", {"virtualKey": made["virtualKey"], **keys})
        assert (saved.status, saved.json) == (200, {"message": "API keys saved successfully."})
        assert int(saved.headers["x-tollway-config-revision"]) > 0

    save(openaiKey="sk-openai", mistralKey="mistral-one")
    assert stored() == {"openai": "sk-openai", "mistral": "mistral-one"}
    save(mistralKey="mistral-two")
    assert stored() == {"openai": "sk-openai", "mistral": "mistral-two"}
    save(openaiKey="")
    assert stored() == {"openai": None, "mistral": "mistral-two"}
    save()
    assert stored() == {"openai": None, "mistral": "mistral-two"}


NOT_SAVED: list[tuple[dict[str, Any], tuple[int, str, str]]] = [
    ({}, (400, "invalid_request", "virtualKey")),
    ({"virtualKey": 5}, (400, "invalid_request", "virtualKey")),
    ({"virtualKey": "{key}", "openaiKey": None}, (400, "invalid_request", "openaiKey")),
    ({"virtualKey": "{key}", "mistralKey": ["x"]}, (400, "invalid_request", "mistralKey")),
    ({"virtualKey": "{key}", "openaiKey": "line\nbreak"}, (400, "invalid_provider_key", "openaiKey")),
    ({"virtualKey": "{key}", "mistralKey": "ключ"}, (400, "invalid_provider_key", "mistralKey")),
    ({"virtualKey": "unknown"}, (404, "virtual_key_not_found", "virtualKey")),
    ({"virtualKey": ""}, (404, "virtual_key_not_found", "virtualKey")),
    ({"virtualKey": "'\"; --\u0000%_"}, (404, "virtual_key_not_found", "virtualKey")),
]


def test_what_cannot_be_saved_is_refused_and_changes_nothing(control: ControlPlane) -> None:
    key = control.post("/api/generate-virtual-key").json["virtualKey"]
    for body, refusal in NOT_SAVED:
        filled = {name: key if value == "{key}" else value for name, value in body.items()}
        assert control.post("/api/save-keys", filled).refusal == refusal, body
    assert control.row("SELECT count(*) FROM tollway.provider_keys")[0] == 0


def test_a_revoked_key_takes_no_provider_keys(control: ControlPlane) -> None:
    made = control.post("/api/generate-virtual-key").json
    control.row("UPDATE tollway.virtual_keys SET revoked_at = now() WHERE id = $1 RETURNING id", made["id"])
    assert control.post("/api/save-keys", {"virtualKey": made["virtualKey"]}).status == 404


def test_without_an_admin_key_strangers_are_refused(control: ControlPlane) -> None:
    for method, path in (("POST", "/api/generate-virtual-key"), ("POST", "/api/save-keys"), ("GET", "/metrics")):
        for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}, {"X_Forwarded_For": "1.2.3.4"}):
            assert control.call(method, path, **headers).status == 403, (path, headers)


def test_with_an_admin_key_everything_needs_it(start: Start) -> None:
    control = start(ADMIN_KEY="admin-key-of-this-test")
    admin = {"Authorization": "Bearer admin-key-of-this-test"}
    for method, path in (("POST", "/api/generate-virtual-key"), ("POST", "/api/save-keys"), ("GET", "/metrics")):
        refused = control.call(method, path)
        assert refused.refusal == (401, "invalid_api_key", None)
        assert refused.headers["www-authenticate"] == "Bearer"
    assert control.call("GET", "/metrics", **admin).status == 200
    key = control.post("/api/generate-virtual-key", **admin).json["virtualKey"]
    other = control.post("/api/generate-virtual-key", **admin).json["virtualKey"]
    body = {"virtualKey": key, "openaiKey": "sk-x"}
    assert control.post("/api/save-keys", body, Authorization=f"Bearer {key}").status == 200
    assert control.post("/api/save-keys", body, Authorization=f"Bearer {other}").status == 401
    assert control.post("/api/save-keys", body, **admin).status == 200


def test_every_route_is_known_here(control: ControlPlane) -> None:
    """A new route must say who may use it: here, and in the tests above."""
    from tollway.accounting.posting import Poster
    from tollway.controlplane.app import control_plane
    from tollway.controlplane.change_log import ChangeLog
    from tollway.observe.refusals import RefusalLog

    poster = Poster(None, control.settings.home)  # type: ignore[arg-type]
    app = control_plane(control.settings, None, control.vault, poster, RefusalLog(), ChangeLog())  # type: ignore[arg-type]
    assert sorted(route.path for route in app.routes) == [  # type: ignore[attr-defined]
        "/api/generate-virtual-key",
        "/api/save-keys",
        "/demo",
        "/internal/metrics/{worker:int}",
        "/internal/settlements",
        "/metrics",
    ]
    assert control.call("GET", "/nowhere").refusal == (404, None, None)
    wrong = control.call("GET", "/api/save-keys")
    assert (wrong.status, wrong.headers["allow"]) == (405, "POST")
    wrong = control.call("POST", "/metrics")
    assert (wrong.status, set(wrong.headers["allow"].split(", "))) == (405, {"GET", "HEAD"})


def test_what_a_worker_reports_is_shown(control: ControlPlane) -> None:
    counted = Metrics()
    counted.answered("m", "openai", 200, 0.1, told(1, 2))
    report = counted.report(Gauges(inflight_requests=3)).encode()
    assert control.call("POST", "/internal/metrics/0", report).status == 204
    shown = control.call("GET", "/metrics").body.decode()
    assert 'tollway_requests_total{model="m",provider="openai",status="200"} 1.0' in shown
    assert 'tollway_inflight_requests{worker="0"} 3.0' in shown
    for junk in (b"", b"{}", b"[1,2,3]", secrets.token_bytes(50)):
        assert control.call("POST", "/internal/metrics/0", junk).status == 400


def spent(key_id: str, call_id: str) -> Settlement:
    return settlement(key_id=key_id, call_id=call_id, started_unix=time.time(), cost=1_500_000)


def test_what_a_worker_delivers_is_in_the_ledger_when_it_is_answered(control: ControlPlane, tmp_path: Path) -> None:
    made = control.post("/api/generate-virtual-key").json
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    journal = Journal(folder, time.time())
    journal.append(spent(made["id"], "delivered"))
    (path,) = folder.iterdir()
    frames = path.read_bytes()
    journal.close()
    for _ in range(2):
        assert control.call("POST", "/internal/settlements", frames).status == 204
        row = control.row("SELECT total_cost, requests FROM tollway.key_totals WHERE key_id = $1", made["id"])
        assert tuple(row) == (Decimal("0.0000015"), 1)
    assert control.call("POST", "/internal/settlements", b"").status == 204
    for junk in (b"{}", frames[:-1], secrets.token_bytes(50)):
        assert control.call("POST", "/internal/settlements", junk).status == 400


def test_settlements_are_in_the_ledger_within_two_seconds_and_all_of_them_at_the_end(control: ControlPlane) -> None:
    made = control.post("/api/generate-virtual-key").json
    journal = Journal(control.journals, time.time())
    journal.append(spent(made["id"], "first"))

    def total() -> Decimal:
        return control.row('SELECT "totalCost" FROM "Users" WHERE id = $1', made["id"])[0]

    began = time.monotonic()
    eventually(lambda: total() == Decimal("0.0000015"), "not posted")
    assert time.monotonic() - began < 2
    for number in range(100):
        journal.append(spent(made["id"], f"more {number}"))
    assert control.stop() == 0
    assert total() == Decimal("0.0001515")


def test_a_model_without_a_price_gets_the_listed_one(control: ControlPlane) -> None:
    control.row(
        'INSERT INTO "LLMModels" (name, provider) VALUES ($1, $2) RETURNING name', "gpt-4o-2024-08-06", "openai"
    )
    question = "SELECT periods::text FROM tollway.builtin_prices WHERE model = 'gpt-4o-2024-08-06'"
    eventually(lambda: control.row(question), "not looked up")
    assert '"usd": "2.5"' in control.row(question)[0]


def test_it_obeys_the_supervisor_and_no_signal(control: ControlPlane) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        control.process.send_signal(number)
    assert control.post("/api/generate-virtual-key").status == 200
    assert control.stop() == 0


def test_it_ends_when_the_supervisor_is_gone(control: ControlPlane) -> None:
    assert control.process.stdin is not None
    control.process.stdin.close()
    assert control.process.wait(PATIENCE_S) == 0


def test_it_is_ready_within_a_second(control: ControlPlane) -> None:
    assert control.ready_after_s < 1.5, "half a second for a machine that is busy with other tests"


def test_while_the_database_is_away_it_says_so_and_recovers(start: Start, postgres_url: str) -> None:
    with Relay(postgres_url) as relay:
        control = start(relay.url())
        made = control.post("/api/generate-virtual-key").json
        relay.vanish()
        refused = control.post("/api/generate-virtual-key")
        assert refused.refusal == (503, "database_unavailable", None)
        assert refused.headers["retry-after"] == "1"
        Journal(control.journals, time.time()).append(spent(made["id"], "while it was away"))
        eventually(lambda: b"tollway_database_up 0.0" in control.call("GET", "/metrics").body, "not noticed")
        relay.mend()
        eventually(lambda: control.post("/api/generate-virtual-key").status == 200, "did not recover")
        eventually(lambda: b"tollway_ledger_entries_total 1.0" in control.call("GET", "/metrics").body, "not posted")


def logged(control: ControlPlane, logger: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in control.log.read_text().splitlines()]
    return [line for line in lines if line["logger"] == logger]


def test_nobody_can_flood_the_log_while_the_database_is_away(start: Start, postgres_url: str) -> None:
    with Relay(postgres_url) as relay:
        control = start(relay.url())
        control.post("/api/generate-virtual-key")
        relay.vanish()
        began = time.monotonic()
        for _ in range(60):
            assert control.post("/api/generate-virtual-key", x_request_id="req_1").status == 503
        seconds = time.monotonic() - began
        relay.mend()
    eventually(lambda: len(logged(control, "tollway.refusals")) > 1, "the count never came")
    lines = logged(control, "tollway.refusals")
    assert len(lines) <= (MAX_STRANGERS_PER_S + 1) * (seconds + 2)
    assert (lines[0]["code"], lines[0]["call_id"]) == ("database_unavailable", "req_1")
    assert lines[0]["cause"], "what is the matter is told with it"
    assert len(logged(control, "tollway.control")) == 0, "that there is an outage is told by those who follow it"


def test_what_had_no_line_is_counted_though_nothing_follows(control: ControlPlane) -> None:
    for number in range(MAX_STRANGERS_PER_S * 4):
        control.call("GET", f"/nowhere/{number}")
    eventually(lambda: "more calls were refused with not_found" in control.log.read_text(), "never told")


def test_a_refusal_names_the_callers_key(control: ControlPlane) -> None:
    made = control.post("/api/generate-virtual-key").json
    body = {"virtualKey": made["virtualKey"], "openaiKey": 5}
    head = {"x_request_id": "req_1", "x_tollway_key_id": made["id"]}
    assert control.post("/api/save-keys", body, **head).status == 400
    eventually(lambda: logged(control, "tollway.refusals"), "not told")
    (line,) = logged(control, "tollway.refusals")
    assert (line["call_id"], line["key_id"], line["code"]) == ("req_1", made["id"], "invalid_request")


def test_what_the_demo_provider_refuses_is_told_by_the_worker_alone(control: ControlPlane) -> None:
    for method, path in (("POST", "/demo/v1/embeddings"), ("GET", "/demo/v1/chat/completions"), ("POST", "/demo/")):
        refused = control.call(method, path, b"{}")
        assert refused.refusal == (404, "unknown_url", None)
    assert control.stop() == 0
    assert not logged(control, "tollway.refusals")


def test_a_save_that_changes_nothing_is_no_change(control: ControlPlane) -> None:
    made = control.post("/api/generate-virtual-key").json
    assert control.post("/api/save-keys", {"virtualKey": made["virtualKey"], "nope": "x"}).status == 200
    assert control.stop() == 0
    assert [line["change"] for line in logged(control, "tollway.changes")] == ["key_made"]


def test_it_prints_no_secret(start: Start) -> None:
    control = start(ADMIN_KEY="canary-admin-key", OPENAI_API_KEY="sk-canary-platform-key")
    admin = {"Authorization": "Bearer canary-admin-key"}
    key = control.post("/api/generate-virtual-key", **admin).json["virtualKey"]
    control.post("/api/save-keys", {"virtualKey": key, "openaiKey": "sk-canary-provider-key"}, **admin)
    control.post("/api/save-keys", {"virtualKey": key, "openaiKey": "sk-canary broken"}, **admin)
    control.post("/api/generate-virtual-key", Authorization="Bearer canary-wrong")
    assert control.stop() == 0
    printed = control.log.read_text()
    assert "canary" not in printed
    assert key not in printed
    assert KEY.reveal() not in printed
