"""What must not get out: canaries are planted everywhere and looked for everywhere.

Names begin with the rows of docs/faults.md. No canary is ever found in anything that the gateway prints.
"""

import asyncio
import json
import os
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path

import asyncpg
import psutil
import pytest

from fakes.client import Reply, chat_body
from fakes.fixtures import StartGateway
from fakes.gateway import Gateway, Tenant, new_tenant
from fakes.upstream import (
    RESET,
    Answer,
    Gate,
    Part,
    Received,
    error,
    event,
    mistral_error,
    mistral_reply,
    openai_reply,
    openai_stream,
    raw,
    reply,
)


async def found_in_database(gateway: Gateway, canary: str) -> list[str]:
    """Every table with a row that holds the text anywhere, bytes and JSON included."""
    found = []
    async with gateway.database() as connection:
        tables = await connection.fetch(
            "SELECT format('%I.%I', table_schema, table_name) FROM information_schema.tables"
            " WHERE table_schema IN ('tollway', 'public')"
        )
        for (table,) in tables:
            query = f"SELECT count(*) FROM {table} AS rows WHERE strpos(rows::text, $1) > 0"
            if await connection.fetchval(query, canary):
                found.append(table)
    return found


def echoing(status: int) -> Answer:
    """A provider that repeats everything it was sent, credential included, in its error."""

    def answer(request: Received) -> Iterable[Part]:
        echo = f"Incorrect API key provided: {request.header('authorization')} in {request.body.decode()}"
        return error(status, echo, headers={"x-echo": "1", "www-authenticate": echo[:40]})(request)

    return answer


async def every_kind_of_failure(tenant: Tenant, prompt: str) -> list[Reply]:
    """One call for each way in which a provider's words could come out."""
    answers = []
    scripts = [
        *(echoing(status) for status in (400, 401, 403, 404, 422, 429, 500, 503)),
        lambda request: reply(200, request.body)(request),
        lambda request: reply(200, {"echo": request.head.decode()})(request),
        lambda request: raw(request.head)(request),
        raw(RESET),
    ]
    for script in scripts:
        tenant.openai.answers(script)
        answers.append(await tenant.chat(content=prompt))
    return answers


async def test_k1_s34_a_provider_that_echoes_our_credential_cannot_give_it_away(tenant: Tenant) -> None:
    canary = tenant.openai.secret
    for answer in await every_kind_of_failure(tenant, "a prompt"):
        assert answer.status >= 400
        assert canary not in answer.body.decode() + repr(answer.headers)
        assert tenant.key not in answer.body.decode() + repr(answer.headers)
        assert "127.0.0.1" not in answer.body.decode()
        assert "Traceback" not in answer.body.decode()
    tenant.gateway.assert_nothing_given_away()
    assert await found_in_database(tenant.gateway, canary) == []


async def test_k1_an_error_in_mid_stream_cannot_give_it_away(tenant: Tenant) -> None:
    canary = tenant.openai.secret
    failure = event({"error": {"message": f"key {canary} at 10.0.0.7", "type": canary, "code": canary}})
    gate = Gate()
    tenant.openai.answers(openai_stream(["Hel", gate, failure]))
    async with tenant.stream() as stream:
        await stream.next_text()
        gate.open()
        body = (await stream.body()).decode()
    assert canary not in body and "10.0.0.7" not in body
    tenant.gateway.assert_nothing_given_away()


async def test_k1_mistrals_errors_cannot_give_it_away(tenant: Tenant) -> None:
    canary = tenant.mistral.secret
    tenant.mistral.answers(mistral_error(422, f"Authorization: Bearer {canary}"), mistral_error(400, canary))
    for _ in range(2):
        assert canary not in (await tenant.chat(tenant.mistral_model)).body.decode()


async def test_k1_s33_prompts_and_answers_are_kept_nowhere(tenant: Tenant) -> None:
    prompt, answer = "prompt-" + secrets.token_hex(12), "answer-" + secrets.token_hex(12)
    tenant.openai.answers(openai_reply(answer), openai_stream([answer]), error(500, answer))
    assert (await tenant.chat(content=prompt)).text == answer
    async with tenant.stream(content=prompt) as stream:
        await stream.chunks()
    await tenant.chat(content=prompt)
    await tenant.post("/v1/chat/completions", {**chat_body(tenant.model, prompt), "temperature": prompt})
    await tenant.gateway.becomes(True, "SELECT count(*) >= 3 FROM tollway.ledger WHERE key_id = $1", tenant.key_id)
    for canary in (prompt, answer):
        assert await found_in_database(tenant.gateway, canary) == []
        assert canary not in tenant.gateway.stderr + "".join(tenant.gateway.stdout)
        assert canary not in (await tenant.client.get("/metrics")).body.decode()
        assert not files_with(tenant.gateway.home, canary, "postgres")


def files_with(folder: Path, canary: str, but_not: str) -> list[Path]:
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and but_not not in path.parts and canary.encode() in path.read_bytes()
    ]


async def test_s1_virtual_keys_are_stored_as_hashes(tenant: Tenant) -> None:
    assert await found_in_database(tenant.gateway, tenant.key) == []
    shown = await tenant.gateway.value('SELECT "virtualKey" FROM "Users" WHERE id = $1', tenant.key_id)
    assert tenant.key not in shown
    assert shown.startswith(tenant.key[:6]) and shown.endswith(tenant.key[-4:])
    assert len(shown) < 24


async def test_s1_keys_that_begin_or_end_alike_are_different_keys(tenant: Tenant) -> None:
    for near in (tenant.key[:-1], tenant.key + "0", tenant.key[:-1] + ("0" if tenant.key[-1] != "0" else "1")):
        assert (await tenant.client.chat(near, tenant.model)).status == 401
    assert (await tenant.client.chat(tenant.key.swapcase(), tenant.model)).status == 401


async def test_s4_nothing_that_is_stored_is_a_credential(tenant: Tenant) -> None:
    row = (await tenant.gateway.sql("SELECT * FROM tollway.virtual_keys WHERE id = $1", tenant.key_id))[0]
    stored = [row["id"], row["hint"], row["hash"].hex(), row["hash"].decode("latin-1")]
    shown = await tenant.gateway.value('SELECT "virtualKey" FROM "Users" WHERE id = $1', tenant.key_id)
    for text in [*stored, shown]:
        try:
            text.encode("ascii")
        except UnicodeEncodeError:
            text = text.encode("utf-8").decode("latin-1")
        if any(ord(letter) < 32 for letter in text):
            continue
        assert (await tenant.client.chat(text, tenant.model)).status == 401


async def test_s3_unknown_and_malformed_keys_get_the_same_bytes(tenant: Tenant) -> None:
    answers = {
        (await tenant.client.chat(key, tenant.model)).body
        for key in ("x", "sk-tw-" + "0" * 49, tenant.key[:-1] + "_", "a" * 5000)
    }
    assert len(answers) == 1


async def test_s36_provider_keys_are_encrypted_and_bound_to_their_row(gateway: Gateway) -> None:
    one, two = await new_tenant(gateway), await new_tenant(gateway)
    for tenant in (one, two):
        tenant.openai.answers(openai_reply())
        assert await found_in_database(gateway, tenant.openai.secret) == []
        assert (await tenant.chat()).status == 200
    taken = await gateway.value('SELECT "openaiKey" FROM "Users" WHERE id = $1', one.key_id)
    await gateway.sql('UPDATE "Users" SET "openaiKey" = $2 WHERE id = $1', two.key_id, taken)
    await gateway.configuration_is_live()
    before = len(one.openai.requests)
    assert (await two.chat()).status in (502, 503), "a stolen ciphertext is worth nothing in another row"
    assert len(one.openai.requests) == before
    again = await gateway.save_keys(one.key, openaiKey=one.openai.secret)
    assert again.status == 200
    fresh = await gateway.value('SELECT "openaiKey" FROM "Users" WHERE id = $1', one.key_id)
    assert fresh != taken, "a fresh nonce each time"


async def test_s36_a_database_without_its_master_key_gives_nothing(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    tenant = await new_tenant(gateway)
    tenant.openai.answers(openai_reply())
    assert (await tenant.chat()).status == 200
    gateway.stop()
    gateway.settings["ENCRYPTION_KEY"] = "00" * 32
    try:
        gateway.start()
    except Exception:
        return  # refusing to start is as good
    refused = await tenant.chat()
    assert refused.status in (401, 502, 503)
    assert len(tenant.openai.requests) == 1


def test_s37_the_home_and_its_secrets_are_for_their_owner_alone(gateway: Gateway) -> None:
    assert stat.S_IMODE(gateway.home.stat().st_mode) == 0o700
    for path in gateway.home.rglob("*"):
        if path.is_symlink():
            continue
        mode = stat.S_IMODE(path.stat().st_mode)
        if path.is_file() and path.relative_to(gateway.home).parts[0] not in ("postgres", "postgres.log"):
            assert mode & 0o077 == 0, f"{path} is {mode:o}"


async def test_s37_no_secret_is_in_any_process_arguments(start_gateway: StartGateway) -> None:
    canaries = {"ADMIN_KEY": "admin-canary-4711", "OPENAI_API_KEY": "sk-canary-4711"}
    gateway = start_gateway(**canaries)
    generated = (gateway.home / "encryption_key").read_text().strip()
    gateway.secrets |= {*canaries.values(), generated}
    assert len(generated) == 64
    password = gateway.database_url.rpartition("@")[0].rpartition(":")[2]
    for process in gateway.family():
        arguments = " ".join(process.cmdline())
        environment = "".join(process.environ().values())
        for canary in (*canaries.values(), generated, password):
            assert canary not in arguments
        assert generated not in environment and password not in environment, "beyond what the user set"
    for path in ("/livez", "/readyz", "/metrics"):
        body = (await gateway.client.get(path, canaries["ADMIN_KEY"])).body.decode()
        assert not [canary for canary in canaries.values() if canary in body]


async def test_s32_the_platforms_key_is_used_and_never_shown(start_gateway: StartGateway) -> None:
    canary = "sk-platform-" + secrets.token_hex(12)
    gateway = start_gateway(OPENAI_API_KEY=canary)
    gateway.secrets.add(canary)
    account = gateway.openai.account(canary).answers(openai_reply(), echoing(401))
    key, _ = await gateway.new_key()
    assert (await gateway.client.chat(key, "gpt-4o-mini")).text == "Bonjour"
    refused = await gateway.client.chat(key, "gpt-4o-mini")
    assert refused.status == 502
    assert canary not in refused.body.decode()
    assert len(account.requests) >= 2
    assert await found_in_database(gateway, canary) == []


@pytest.mark.parametrize(
    "text", ["'\"; --", "%_\\", "$1", "{{7*7}}", "${jndi:ldap://x}", "<script>", "=cmd|' /C calc'!A0"]
)
async def test_s2_s42_text_is_never_code(tenant: Tenant, text: str) -> None:
    counts = """SELECT (SELECT count(*) FROM tollway.virtual_keys), (SELECT count(*) FROM tollway.models)"""
    before = await tenant.gateway.sql(counts)
    for answer in (
        await tenant.client.chat(text, tenant.model),
        await tenant.chat(text),
        await tenant.client.post("/api/save-keys", {"virtualKey": text, "openaiKey": text}),
    ):
        assert answer.status in (400, 401, 404)
        assert "49" not in answer.body.decode()
    saved = await tenant.gateway.save_keys(tenant.key, openaiKey=text.replace(" ", ""))
    assert saved.status in (200, 400)
    assert await tenant.gateway.sql(counts) == before


async def test_s12_the_request_cannot_choose_where_it_goes(tenant: Tenant) -> None:
    tenant.openai.answers(openai_reply())
    elsewhere = {
        "base_url": "http://169.254.169.254/",
        "api_base": "http://169.254.169.254/",
        "custom_host": "http://169.254.169.254/",
        "api_key": "sk-other",
    }
    headers = {"x-portkey-custom-host": "http://169.254.169.254/", "x-base-url": "http://169.254.169.254/"}
    answer = await tenant.post("/v1/chat/completions", {**chat_body(tenant.model), **elsewhere}, headers)
    assert answer.status == 200
    (sent,) = tenant.openai.requests
    assert sent.header("host") == f"127.0.0.1:{tenant.gateway.openai.port}"
    assert sent.header("authorization") == f"Bearer {tenant.openai.secret}"


async def test_s31_no_answer_is_shared_between_keys(gateway: Gateway) -> None:
    one, two = await new_tenant(gateway), await new_tenant(gateway)
    one.openai.answers(openai_reply("for one"))
    two.openai.answers(openai_reply("for two"))
    answers = await asyncio.gather(*(tenant.chat(model=one.model) for _ in range(50) for tenant in (one, two)))
    assert [answer.text for answer in answers] == ["for one", "for two"] * 50


async def test_s35_k2_every_log_line_is_one_json_object_whatever_comes_from_outside(tenant: Tenant) -> None:
    nasty = "a\x1b[31m\u2028\u2029" + "x" * 10_000
    tenant.openai.answers(error(500, nasty, type=nasty), reply(200, nasty))
    tenant.mistral.answers(mistral_reply())
    for _ in range(2):
        await tenant.chat(tenant.pair, user=nasty)
    await tenant.post("/v1/chat/completions", chat_body(tenant.model), {"user-agent": "a\x1b[31m" * 50})
    await tenant.client.get("/" + "%1b%5b31m" * 100)
    lines = tenant.gateway.stderr.splitlines()
    assert lines, "requests are logged"
    for line in lines:
        assert isinstance(json.loads(line), dict), line
        assert "\x1b" not in line
        assert len(line) < 8192


@pytest.mark.parametrize(
    "base",
    [
        "http://169.254.169.254/v1",
        "http://[::ffff:169.254.169.254]/v1",
        "http://0xa9fea9fe/v1",
        "http://2852039166/v1",
        "http://0251.0376.0251.0376/v1",
        "http://metadata.google.internal/v1",
    ],
)
async def test_s13_addresses_that_no_provider_has_are_refused_where_they_are_written(
    gateway: Gateway, base: str
) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await gateway.sql('UPDATE "Providers" SET "apiBase" = $1 WHERE name = $2', base, "openai")


NAMES = {
    "aws.example": ["169.254.169.254"],
    "aws6.example": ["fd00:ec2::254"],
    "alibaba.example": ["100.100.100.200"],
    "azure.example": ["168.63.129.16"],
    "mapped.example": ["::ffff:169.254.169.254"],
    "translated.example": ["64:ff9b::a9fe:a9fe"],
    "several.example": ["169.254.169.254", "fe80::1"],
    "good.example": ["127.0.0.1"],
    "mixed.example": ["169.254.169.254", "127.0.0.1"],
}
RESOLVER = """
from ipaddress import ip_address
from tollway.http1 import dial

async def resolve(host, port):
    return [ip_address(text) for text in {names!r}[host]]

dial.system_resolver = resolve
"""


async def test_s13_names_that_lead_to_such_addresses_are_refused_when_connecting(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(RESOLVER.format(names=NAMES))
    gateway = start_gateway(PYTHONPATH=str(tmp_path))
    tenant = await new_tenant(gateway)
    tenant.openai.answers(openai_reply("from 127.0.0.1"))
    port = gateway.openai.port
    providers = {name: await tenant.add_provider(f"http://{name}:{port}/v1") for name in NAMES}
    keys = {"virtualKey": tenant.key, "providerKeys": dict.fromkeys(providers.values(), tenant.openai.secret)}
    assert (await tenant.client.post("/api/save-keys", keys)).status == 200
    for name, provider in providers.items():
        model = await tenant.add_model(provider)
        answer = await tenant.chat(model)
        if "127.0.0.1" in NAMES[name]:
            assert answer.text == "from 127.0.0.1", "the only address that it may have"
            continue
        assert answer.status == 502, (name, answer)
        line = await gateway.logged(logger="tollway.requests", model=model)
        assert "address is not allowed" in line["cause"]
        assert metadata_connections(gateway) == []
    assert len(tenant.openai.requests) == 2


def metadata_connections(gateway: Gateway) -> list[str]:
    found = []
    for process in gateway.family():
        try:
            connections = process.net_connections("inet")
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
        found += [str(c.raddr.ip) for c in connections if c.raddr and c.raddr.ip.startswith("169.254")]
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has another user to be compared with")
def test_the_embedded_database_does_not_run_as_root(gateway: Gateway) -> None:
    postmaster = gateway.postmaster()
    assert postmaster is not None
    assert postmaster.uids().effective != 0
