"""The log of a running gateway: a line for each call and each refusal, whoever reads it and whatever is away."""

import asyncio
import contextlib
import os
import pty
import re
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime

import psutil
import pytest

from fakes.client import chat_body
from fakes.fixtures import StartGateway
from fakes.gateway import Gateway, Tenant, new_tenant
from fakes.upstream import Bill, error, mistral_reply, openai_reply
from tollway.observe.refusals import MAX_STRANGERS_PER_S


def logged_at(line: dict[str, object]) -> float:
    return datetime.fromisoformat(str(line["time"])).timestamp()


# Calls


@contextlib.contextmanager
def postgresql_stands_still(gateway: Gateway) -> Iterator[None]:
    postmaster = gateway.postmaster()
    assert postmaster is not None
    stopped = [postmaster, *postmaster.children(recursive=True)]
    for process in stopped:
        process.suspend()
    try:
        yield
    finally:
        for process in stopped:
            with contextlib.suppress(psutil.NoSuchProcess):  # a backend that ended just as it was stopped
                process.resume()


async def test_a_line_comes_when_the_call_has_ended_though_postgresql_is_away(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    tenant = await new_tenant(gateway)
    tenant.openai.answers(openai_reply())
    with postgresql_stands_still(gateway):
        began = time.time()
        answer = await tenant.chat()
        ended = time.time()
        line = await gateway.logged(call_id=answer.header("x-request-id"), outcome="ok", within_s=5.0)
        assert began - 0.01 <= logged_at(line) <= ended + 0.01, "its time, not that of the line"
    await tenant.ledger(1)
    await asyncio.sleep(0.6)  # twice as long as journals wait to be looked at
    lines = [line for line in gateway.log_lines() if line.get("call_id") == answer.header("x-request-id")]
    assert len(lines) == 1, "posting it later is no news"


async def test_no_line_is_lost_or_doubled_when_the_control_plane_dies(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    tenant = await new_tenant(gateway)
    tenant.openai.answers(openai_reply())
    ids = [(await tenant.chat()).header("x-request-id") for _ in range(3)]
    await gateway.logged(call_id=ids[-1], outcome="ok")
    await asyncio.sleep(0.6)  # what is printed is noted as such
    gateway.child("tollway.controlplane").kill()
    ids += [(await tenant.chat()).header("x-request-id") for _ in range(3)]
    await gateway.logged(call_id=ids[-1], outcome="ok")
    printed = [line["call_id"] for line in gateway.log_lines() if line.get("outcome") == "ok"]
    assert sorted(printed) == sorted(str(call_id) for call_id in ids)


async def test_the_last_calls_before_the_end_have_their_lines(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    tenant = await new_tenant(gateway)
    tenant.openai.answers(openai_reply())
    ids = {(await tenant.chat()).header("x-request-id") for _ in range(20)}
    gateway.stop()
    assert ids == {line["call_id"] for line in gateway.log_lines() if line.get("outcome") == "ok"}


async def test_who_wants_no_lines_of_calls_gets_none(start_gateway: StartGateway) -> None:
    gateway = start_gateway(LOG_REQUESTS="false")
    tenant = await new_tenant(gateway)
    tenant.openai.answers(openai_reply())
    assert (await tenant.chat()).status == 200
    assert (await tenant.chat("no-such-model")).status == 400
    await tenant.ledger(1)
    gateway.stop()
    assert not [line for line in gateway.log_lines() if line["logger"] in ("tollway.requests", "tollway.refusals")]


# Refusals


async def test_every_refusal_is_found_by_its_request_id(tenant: Tenant) -> None:
    tenant.openai.answers(error(400, "Bad thing", code="code_1_acme"), error(500))
    asked = [
        (lambda: tenant.client.chat("sk-wrong", tenant.model), 401, "invalid_api_key", False),
        (lambda: tenant.post("/v1/chat/completions", b"{"), 400, "invalid_json", True),
        (lambda: tenant.chat("no-such-model"), 400, "model_not_found", True),
        (lambda: tenant.post("/v1/no-such-path/sk-secret", {}), 404, "unknown_url", True),
        (lambda: tenant.client.call("PATCH", "/v1/chat/completions", key=tenant.key), 405, "method_not_allowed", True),
        (lambda: tenant.chat(), 400, "code_1_acme", True),
        (lambda: tenant.chat(), 502, "upstream_error", True),
    ]
    for ask, status, code, known in asked:
        answer = await ask()
        assert answer.status == status
        line = await tenant.gateway.logged(call_id=answer.header("x-request-id"), logger="tollway.refusals")
        assert (line["status"], line["code"]) == (status, code)
        assert line["key_id"] == (tenant.key_id if known else None)
        assert line["path"] in ("/v1/chat/completions", "(unknown)")
        assert "sk-secret" not in repr(line)
    tenant.gateway.assert_nothing_given_away()


async def test_a_refusal_by_the_limits_names_its_key(tenant: Tenant) -> None:
    await tenant.limit(requests=0)
    answer = await tenant.chat()
    line = await tenant.gateway.logged(call_id=answer.header("x-request-id"))
    assert (line["status"], line["code"], line["key_id"]) == (429, "rate_limit_exceeded", tenant.key_id)


async def test_it_is_told_whose_credential_was_refused(start_gateway: StartGateway) -> None:
    gateway = start_gateway(MY_LLM_API_KEY="sk-the-gateways-own")
    tenant = await new_tenant(gateway)
    sql = "INSERT INTO tollway.providers (name, dialect, api_base) VALUES ('my-llm', 'openai', $1)"
    await gateway.sql(sql, gateway.openai.url)
    model = await tenant.add_model("my-llm")
    tenant.openai.answers(error(401))
    for asked, whose in ((tenant.model, "the key's own"), (model, "the gateway's")):
        answer = await tenant.chat(asked)
        line = await gateway.logged(call_id=answer.header("x-request-id"), logger="tollway.refusals")
        assert line["tried"].endswith(f": credential_refused 401 ({whose})")


async def test_a_revoked_key_is_named_that_somebody_still_uses(tenant: Tenant) -> None:
    await tenant.gateway.sql("UPDATE tollway.virtual_keys SET revoked_at = now() WHERE id = $1", tenant.key_id)
    await tenant.gateway.configuration_is_live()
    answer = await tenant.chat()
    line = await tenant.gateway.logged(call_id=answer.header("x-request-id"))
    assert (line["code"], line["key_id"]) == ("revoked_api_key", tenant.key_id)


async def test_no_body_and_no_prompt_is_in_the_line_of_a_refusal(tenant: Tenant) -> None:
    canary = "canary-of-a-body"
    body = {**chat_body(tenant.model, canary), "temperature": canary, canary: 1}
    for path in ("/v1/chat/completions", f"/v1/{canary}", f"/v1/files/{canary}?{canary}"):
        answer = await tenant.post(path, body)
        assert answer.status in (400, 404, 405, 502)
        await tenant.gateway.logged(call_id=answer.header("x-request-id"))
    assert canary not in tenant.gateway.stderr


async def test_strangers_cannot_flood_the_log(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    key, _ = await gateway.new_key()

    async def knock() -> None:
        for _ in range(50):
            assert (await gateway.client.chat("sk-wrong", "m")).status == 401

    began = time.monotonic()
    await asyncio.gather(*(knock() for _ in range(8)))
    seconds = time.monotonic() - began
    refused = await gateway.client.chat(key, "no-such-model")
    await gateway.logged(call_id=refused.header("x-request-id"))
    await asyncio.sleep(2.1)  # the rest of a second is told when it is over
    lines = [line for line in gateway.log_lines() if line["logger"] == "tollway.refusals"]
    single = [line for line in lines if line.get("code") == "invalid_api_key"]
    assert len(single) <= MAX_STRANGERS_PER_S * (seconds + 2)
    counts = [re.match(r"(\d+) more calls were refused with invalid_api_key", line["message"]) for line in lines]
    assert len(single) + sum(int(count[1]) for count in counts if count) == 400, "none is forgotten"


async def test_strangers_cannot_flood_the_log_by_the_admin_surface_or_by_preflights(
    start_gateway: StartGateway,
) -> None:
    gateway = start_gateway(CORS_ALLOW_ORIGINS="https://chat.example")
    client = gateway.client
    codes = ("host_not_allowed", "admin_key_required", "origin_not_allowed", "unknown_url")
    page = {"origin": "https://evil.example"}
    began = time.monotonic()
    for _ in range(40):
        assert (await client.post("/api/generate-virtual-key", headers={"host": "evil.example"})).status == 403
        assert (await client.post("/api/generate-virtual-key", headers={"via": "1.1 x"})).status == 403
        assert (await client.call("OPTIONS", "/v1/chat/completions", headers=page)).status == 403
        assert (await client.get("/nowhere")).status == 404
    seconds = time.monotonic() - began
    lines = [line.get("code") for line in gateway.log_lines() if line["logger"] == "tollway.refusals"]
    for code in codes:
        assert 0 < lines.count(code) <= MAX_STRANGERS_PER_S * (seconds + 2)
    counted = await gateway.metrics()
    assert counted['tollway_refusals_total{code="origin_not_allowed"}'] == 40
    assert counted['tollway_calls_total{outcome="refused"}'] == 0, "none of them was a call"
    assert counted['tollway_calls_total{outcome="client_error"}'] == 40, "but for the unknown path"


# Administrative changes


async def test_administrative_changes_are_logged_without_any_secret(gateway: Gateway) -> None:
    made = await gateway.client.post("/api/generate-virtual-key", {"name": "Team Search"})
    key, key_id = made.json["virtualKey"], made.json["id"]
    gateway.secrets |= {key, "sk-canary-of-a-change"}
    line = await gateway.logged(call_id=made.header("x-request-id"), change="key_made")
    assert line["key_id"] == key_id
    saved = await gateway.client.post(
        "/api/save-keys", {"virtualKey": key, "openaiKey": "sk-canary-of-a-change", "mistralKey": ""}, key=key
    )
    line = await gateway.logged(call_id=saved.header("x-request-id"), change="provider_keys_saved")
    assert (line["key_id"], line["saved"], line["cleared"]) == (key_id, "openai", "mistral")
    assert line["by"] == "the key itself"
    gateway.assert_nothing_given_away()


async def test_a_refused_change_is_logged_too(gateway: Gateway) -> None:
    answer = await gateway.client.post("/api/save-keys", {"virtualKey": "unknown", "openaiKey": "sk-x"})
    line = await gateway.logged(call_id=answer.header("x-request-id"), logger="tollway.refusals")
    assert (line["status"], line["code"], line["path"]) == (404, "virtual_key_not_found", "/api/save-keys")


async def test_a_refused_change_names_the_key_that_asked_for_it(tenant: Tenant) -> None:
    body = {"virtualKey": tenant.key, "openaiKey": 5}
    answer = await tenant.client.post("/api/save-keys", body, key=tenant.key)
    line = await tenant.gateway.logged(call_id=answer.header("x-request-id"), logger="tollway.refusals")
    assert (line["status"], line["key_id"]) == (400, tenant.key_id)


# At a terminal


class Terminal:
    """A pseudo-terminal that a gateway has for its standard error, and what it shows."""

    def __init__(self) -> None:
        self._reading, self.fd = pty.openpty()
        self._shown = bytearray()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(self._reading, 65536):
                self._shown += data

    @property
    def lines(self) -> list[str]:
        return self._shown.decode("utf-8", "replace").replace("\r\n", "\n").split("\n")

    async def shows(self, pattern: str) -> str:
        """The first line that matches."""
        until = time.monotonic() + 10
        while True:
            for line in self.lines:
                if re.search(pattern, line):
                    return line
            assert time.monotonic() < until, f"{pattern} not in:\n" + "\n".join(self.lines[-20:])
            await asyncio.sleep(0.02)


@pytest.fixture
def terminal() -> Terminal:
    return Terminal()


RED, YELLOW, PLAIN = (re.escape(f"\x1b[{code}m") for code in ("31", "33", "0"))


async def test_at_a_terminal_a_call_is_one_short_line(
    gateway_factory: Callable[[dict[str, str]], Gateway], terminal: Terminal
) -> None:
    gateway = gateway_factory({})
    gateway.terminal = terminal.fd
    try:
        gateway.start()
        tenant = await new_tenant(gateway)
        tenant.openai.answers(openai_reply(bill=Bill(19, 10)), error(500), error(500), error(500), error(401))
        tenant.mistral.answers(mistral_reply(bill=Bill(19, 10)))
        assert (await tenant.chat()).status == 200
        await terminal.shows(rf"{PLAIN} 200 {tenant.model} openai [0-9]+\.[0-9]+s 19\+10 \$0\.000039$")
        assert (await tenant.chat(tenant.pair)).status == 200
        await terminal.shows(rf" 200 {tenant.pair} mistral [0-9.]+s 19\+10 \$0\.000039 after openai server_error$")
        assert (await tenant.chat()).status == 502
        failed = rf"{tenant.model} at openai: server_error 500, {tenant.model} at openai: server_error 500"
        await terminal.shows(rf" {RED}502 upstream_error {failed} {tenant.key_id}{PLAIN}$")
        await tenant.limit(requests=0)
        assert (await tenant.chat()).status == 429
        await terminal.shows(rf" {YELLOW}429 rate_limit_exceeded {tenant.key_id}{PLAIN}$")
        gateway.stop()
        calls = [line for line in terminal.lines if re.search("[m ](?:200|429|502) ", line)]
        assert len(calls) == 4, "\n".join(terminal.lines)
        assert all(len(line) < 200 for line in calls)
    finally:
        gateway.end()
