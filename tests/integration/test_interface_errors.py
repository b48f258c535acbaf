"""Every line of the documented table of errors: status, code, param, headers, and the order in which they are judged.

Nothing in this file may reach a provider, but for the calls that say so.
"""

import asyncio
import itertools
import math
import time

import pytest

from fakes.client import Client, Reply, chat_body, request_bytes
from fakes.fixtures import StartGateway
from fakes.gateway import Gateway, Tenant
from fakes.upstream import HANG, RESET, error, openai_reply, raw, reply

PATHS = ("/v1/chat/completions", "/chat/completions")


def untouched(tenant: Tenant) -> bool:
    return tenant.openai.requests == [] and tenant.mistral.requests == []


# 401


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer unknown",
        "Bearer sk-tw-" + "0" * 49,
        "Basic dXNlcjpwYXNzd29yZA==",
        "{key}",
        "Token {key}",
        "Bearer {key}x",
        "Bearer {key} {key}",
        "Bearer {key},",
        'Bearer "{key}"',
    ],
)
async def test_a_header_that_is_no_known_key_is_refused(tenant: Tenant, path: str, authorization: str | None) -> None:
    headers = {} if authorization is None else {"authorization": authorization.replace("{key}", tenant.key)}
    answer = await tenant.client.post(path, chat_body(tenant.model), headers=headers)
    assert answer.refusal == (401, "invalid_api_key")
    assert answer.error["param"] is None
    assert untouched(tenant)


@pytest.mark.parametrize(
    ("edit", "codes"),
    [
        ("UPDATE tollway.virtual_keys SET expires_at = now() - interval '1 second' WHERE id = $1", "expired_api_key"),
        ("UPDATE tollway.virtual_keys SET revoked_at = now() WHERE id = $1", "revoked_api_key"),
        ('DELETE FROM "Users" WHERE id = $1', "revoked_api_key"),
    ],
)
async def test_a_key_whose_time_is_over_is_refused(tenant: Tenant, edit: str, codes: str) -> None:
    await tenant.gateway.sql(edit, tenant.key_id)
    await tenant.gateway.configuration_is_live()
    answer = await tenant.chat()
    assert answer.status == 401
    assert answer.error["code"] in {codes, "invalid_api_key"}
    assert untouched(tenant)


async def test_a_key_that_expires_is_refused_from_that_moment_without_any_edit(tenant: Tenant) -> None:
    tenant.openai.answers(openai_reply())
    edit = "UPDATE tollway.virtual_keys SET expires_at = now() + interval '400 milliseconds' WHERE id = $1"
    await tenant.gateway.sql(edit, tenant.key_id)
    await tenant.gateway.configuration_is_live()
    until = time.monotonic() + 5
    while (answer := await tenant.chat()).status == 200:
        assert time.monotonic() < until
        await asyncio.sleep(0.02)
    assert answer.status == 401


# 400, 403: the model


@pytest.mark.parametrize("stream", [False, True])
async def test_an_unknown_model_is_a_bad_request(tenant: Tenant, stream: bool) -> None:
    answer = await tenant.chat("no-such-model", stream=stream)
    assert answer.refusal == (400, "model_not_found")
    assert answer.error["param"] == "model"
    assert answer.error["type"] == "invalid_request_error"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_that_the_key_may_not_use_is_forbidden(tenant: Tenant, stream: bool) -> None:
    tenant.openai.answers(openai_reply())
    edit = "UPDATE tollway.virtual_keys SET allowed_models = ARRAY[$2] WHERE id = $1"
    await tenant.gateway.sql(edit, tenant.key_id, tenant.model)
    await tenant.gateway.configuration_is_live()
    answer = await tenant.chat(tenant.mistral_model, stream=stream)
    assert answer.refusal == (403, "model_not_allowed")
    assert answer.error["param"] == "model"
    assert untouched(tenant)
    assert (await tenant.chat(tenant.model)).status == 200


# 400: the body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b'{"model": "gpt-4o", "messages": [{"role": "user", "content": "a"}]',
        b'{"model": "gpt-4o", "messages": [{"role": "user", "content": "a"}]} {}',
        b"\xef\xbb\xbf{}",
        b'{"model": "gpt-4o", "messages": [{"role": "user", "content": "\xff"}]}',
        b'{"model": "gpt-4o", "temperature": NaN, "messages": [{"role": "user", "content": "a"}]}',
        b'{"model": "gpt-4o", "temperature": Infinity, "messages": [{"role": "user", "content": "a"}]}',
        b'{"model": "gpt-4o", "messages": [{"role": "user", "content": "a\nb"}]}',
    ],
    ids=repr,
)
async def test_a_body_that_is_not_json_is_a_bad_request(tenant: Tenant, body: bytes) -> None:
    answer = await tenant.post("/v1/chat/completions", body.replace(b"gpt-4o", tenant.model.encode()))
    assert answer.status == 400
    assert answer.error["type"] == "invalid_request_error"
    assert untouched(tenant)


HELLO = {"role": "user", "content": "Hello"}


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": None}, "model"),
        ({"model": 5}, "model"),
        ({"model": ""}, "model"),
        ({"model": ["a"]}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": {}}, "messages"),
        ({"messages": ["Hello"]}, "messages[0]"),
        ({"messages": [HELLO, {"content": "Hello"}]}, "messages[1].role"),
        ({"messages": [{"role": "wizard", "content": "Hello"}]}, "messages[0].role"),
        ({"messages": [{"role": 1, "content": "Hello"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"stream": "yes"}, "stream"),
        ({"stream": 1}, "stream"),
        ({"stream": True, "stream_options": "usage"}, "stream_options"),
        ({"stream": True, "stream_options": {"include_usage": "yes"}}, "stream_options.include_usage"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_completion_tokens": "many"}, "max_completion_tokens"),
        ({"n": 0}, "n"),
        ({"n": "2"}, "n"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"frequency_penalty": 3}, "frequency_penalty"),
        ({"stop": 5}, "stop"),
        ({"seed": "x"}, "seed"),
        ({"tools": "hammer"}, "tools"),
        ({"tools": [{}]}, "tools[0].type"),
        ({"response_format": "json"}, "response_format"),
        ({"logprobs": "yes"}, "logprobs"),
        ({"user": 5}, "user"),
    ],
    ids=repr,
)
async def test_a_field_of_the_wrong_type_is_named(tenant: Tenant, change: dict[str, object], param: str) -> None:
    body = {name: value for name, value in {**chat_body(tenant.model), **change}.items() if value is not None}
    answer = await tenant.post("/v1/chat/completions", body)
    assert answer.status == 400
    assert answer.error["type"] == "invalid_request_error"
    assert answer.error["param"] == param
    assert untouched(tenant)


@pytest.mark.parametrize("body", [[], "text", 5, None, True])
async def test_a_body_that_is_no_object_is_a_bad_request(tenant: Tenant, body: object) -> None:
    answer = await tenant.post("/v1/chat/completions", body)
    assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")
    assert untouched(tenant)


async def test_null_stands_for_a_parameter_that_is_not_given(tenant: Tenant) -> None:
    tenant.openai.answers(openai_reply())
    assert (await tenant.chat(temperature=None, stop=None, stream=None, max_tokens=None)).status == 200


# 413


@pytest.mark.parametrize("path", PATHS)
async def test_a_body_that_is_too_large_by_its_length_is_refused_before_it_comes(tenant: Tenant, path: str) -> None:
    length = {"content-length": str(33_554_432 + 1)}
    async with tenant.client.connect() as wire:
        await wire.send(request_bytes("POST", path, b"", tenant.key, length))
        answer = await wire.reply()
        assert answer.refusal == (413, "request_too_large")
        assert await wire.is_closed()
    assert untouched(tenant)


# 429


async def test_the_request_limit_tells_the_truth(tenant: Tenant) -> None:
    tenant.openai.answers(openai_reply())
    await tenant.limit(requests=1)
    before = time.monotonic()
    assert (await tenant.chat()).status == 200
    refused = await tenant.chat()
    elapsed_s = time.monotonic() - before
    assert refused.refusal == (429, "rate_limit_exceeded")
    assert refused.error["type"] == "requests"
    wait_ms = int(refused.header("retry-after-ms") or "")
    assert (60 - elapsed_s) * 1000 - 1 <= wait_ms <= 61_000, "one second of resolution on sixty seconds"
    assert int(refused.header("retry-after") or "") == math.ceil(wait_ms / 1000)
    assert refused.header("x-should-retry") != "false"
    assert refused.header("x-ratelimit-limit-requests") == "1"
    assert refused.header("x-ratelimit-remaining-requests") == "0"
    assert len(tenant.openai.requests) == 1


async def test_the_token_limit_tells_the_truth(tenant: Tenant) -> None:
    tenant.openai.answers(raw(HANG))  # what is reserved stays reserved
    await tenant.limit(requests=None, tokens=1500)
    async with tenant.client.connect() as wire:
        body = chat_body(tenant.model, max_tokens=1000)
        await wire.send(request_bytes("POST", "/v1/chat/completions", body, tenant.key))
        await tenant.openai.seen.reaches(1)
        refused = await tenant.chat(max_tokens=1000)
    assert refused.refusal == (429, "rate_limit_exceeded")
    assert refused.error["type"] == "tokens"
    assert 0 < int(refused.header("retry-after-ms") or "") <= 61_000
    assert len(tenant.openai.requests) == 1


async def test_a_single_request_larger_than_the_token_limit_need_not_wait(tenant: Tenant) -> None:
    await tenant.limit(tokens=100)
    refused = await tenant.chat(max_tokens=101)
    assert refused.refusal == (429, "rate_limit_exceeded")
    assert refused.header("x-should-retry") == "false"
    assert refused.header("retry-after") is None
    assert refused.header("retry-after-ms") is None
    assert untouched(tenant)


@pytest.mark.parametrize(("requests", "tokens"), [(0, None), (None, 0)])
async def test_a_limit_of_zero_allows_nothing_at_all(tenant: Tenant, requests: int | None, tokens: int | None) -> None:
    await tenant.limit(requests=requests, tokens=tokens)
    refused = await tenant.chat()
    assert refused.refusal == (429, "rate_limit_exceeded")
    assert refused.header("x-should-retry") == "false", "waiting does not help"
    assert untouched(tenant)


# 502, 503, 504


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (raw(RESET), 502),
        (error(500), 502),
        (error(503), 503),
        (reply(200, "<html>"), 502),
        (error(401, "Incorrect API key provided: sk-upstr***"), 502),
        (error(404, "The model does not exist", code="model_not_found"), 502),
    ],
    ids=["reset", "500", "503", "html", "401", "404"],
)
async def test_no_provider_could_answer(tenant: Tenant, answer: object, status: int, stream: bool) -> None:
    tenant.openai.answers(answer)
    tenant.mistral.answers(answer)
    refused = await tenant.chat(tenant.pair, stream=stream)
    assert refused.status == status
    assert refused.header("x-should-retry") == "false" or refused.header("retry-after") is not None
    message = refused.error["message"]
    assert tenant.pair in message and tenant.mistral_model in message, "it says which were tried"
    for secret in (tenant.openai.secret, tenant.mistral.secret, "127.0.0.1", "sk-upstr", "scripted", "<html>"):
        assert secret not in refused.body.decode()
    assert tenant.openai.requests and tenant.mistral.requests


async def test_every_provider_busy_is_a_429_with_the_shortest_wait(tenant: Tenant) -> None:
    tenant.openai.answers(error(429, headers={"retry-after": "20"}))
    tenant.mistral.answers(error(429, headers={"retry-after": "7"}))
    refused = await tenant.chat(tenant.pair)
    assert refused.refusal == (429, "rate_limit_exceeded")
    assert refused.header("retry-after") == "7"


@pytest.mark.parametrize("told", ["-1", "1000000000", "soon", "Wed, 21 Oct 2015 07:28:00 GMT", ""])
async def test_a_senseless_wait_of_a_provider_becomes_a_sane_one(tenant: Tenant, told: str) -> None:
    tenant.openai.answers(error(429, headers={"retry-after": told}))
    refused = await tenant.chat()
    assert refused.status == 429
    if (wait := refused.header("retry-after")) is not None:
        assert 1 <= int(wait) <= 60
    else:
        assert refused.header("x-should-retry") == "false"


async def test_a_key_without_any_provider_key_gets_an_answer_that_says_so(gateway: Gateway, tenant: Tenant) -> None:
    key, _ = await gateway.new_key()
    refused = await gateway.client.chat(key, tenant.pair)
    assert refused.status in (502, 503)
    assert untouched(tenant)


# Mistakes of the client's own that only the provider sees


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (error(400, "Bad thing", param="temperature", code="invalid_value"), (400, "invalid_value")),
        (error(422, "Bad thing", param="temperature", code="invalid_value"), (400, "invalid_value")),
        (error(400, "Too long", param="messages", code="context_length_exceeded"), (400, "context_length_exceeded")),
        (error(400, "No", code="content_filter"), (400, "content_filter")),
    ],
    ids=["400", "422", "context", "content"],
)
async def test_a_refusal_of_the_clients_own_making_goes_back_without_another_attempt(
    tenant: Tenant, answer: object, expected: tuple[int, str], stream: bool
) -> None:
    tenant.openai.answers(answer)
    refused = await tenant.chat(tenant.pair, stream=stream)
    assert refused.refusal == expected
    assert len(tenant.openai.requests) == 1
    assert tenant.mistral.requests == []


# The order of judgement, and what a refusal takes


async def test_authentication_is_judged_before_the_body(tenant: Tenant) -> None:
    for body in (b"nonsense", chat_body("no-such-model"), {"model": tenant.model, "messages": []}):
        answer = await tenant.client.post("/v1/chat/completions", body, key="wrong")
        assert answer.refusal == (401, "invalid_api_key")
    async with tenant.client.connect() as wire:
        length = {"content-length": str(1 << 40)}
        await wire.send(request_bytes("POST", "/v1/chat/completions", b"", "wrong", length))
        assert (await wire.reply()).refusal == (401, "invalid_api_key")


async def test_the_body_is_judged_before_the_model(tenant: Tenant) -> None:
    answer = await tenant.post("/v1/chat/completions", {"model": "no-such-model", "messages": []})
    assert answer.status == 400
    assert (answer.error["param"], answer.error["code"]) != ("model", "model_not_found")
    assert answer.error["param"] == "messages"


async def test_the_model_is_judged_before_the_limits(tenant: Tenant) -> None:
    await tenant.gateway.sql(
        "UPDATE tollway.virtual_keys SET allowed_models = ARRAY[$2] WHERE id = $1", tenant.key_id, tenant.model
    )
    await tenant.limit(requests=0, tokens=0)
    assert (await tenant.chat("no-such-model")).refusal == (400, "model_not_found")
    assert (await tenant.chat(tenant.mistral_model)).refusal == (403, "model_not_allowed")
    assert (await tenant.chat(tenant.model)).refusal == (429, "rate_limit_exceeded")


async def test_refusals_take_nothing_from_the_limits(tenant: Tenant) -> None:
    tenant.openai.answers(openai_reply())
    await tenant.limit(requests=2, tokens=5000)
    for _ in range(3):
        assert (await tenant.post("/v1/chat/completions", b"{")).status == 400
        assert (await tenant.chat("no-such-model")).status == 400
        assert (await tenant.chat(max_tokens=5001)).status == 429
        assert (await tenant.client.chat(tenant.key + "x", tenant.model)).status == 401
    assert [(await tenant.chat()).status for _ in range(3)] == [200, 200, 429]
    assert len(tenant.openai.requests) == 2


async def test_refusals_name_no_other_error_than_openais_and_carry_a_request_id(tenant: Tenant) -> None:
    answers: list[Reply] = [
        await tenant.client.chat("wrong", tenant.model),
        await tenant.post("/v1/chat/completions", b"{"),
        await tenant.chat("no-such-model"),
        await tenant.post("/v1/no-such-path", {}),
        await tenant.client.call("PATCH", "/v1/chat/completions", key=tenant.key),
        await tenant.client.call("DELETE", "/api/save-keys"),
        await tenant.client.post("/api/save-keys", b"{"),
    ]
    assert [answer.status for answer in answers] == [401, 400, 400, 404, 405, 405, 400]
    ids = [answer.header("x-request-id") for answer in answers]
    assert None not in ids and len(set(ids)) == len(ids)
    for answer in answers:
        assert answer.error["message"]


# The admin surface


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        ({}, 400),
        ({"virtualKey": 5}, 400),
        ({"virtualKey": "{key}", "openaiKey": 5}, 400),
        ({"virtualKey": "{key}", "openaiKey": "line\nbreak"}, 400),
        ({"virtualKey": "unknown", "openaiKey": "sk-x"}, 404),
        ({"virtualKey": "sk-tw-" + "0" * 49, "openaiKey": "sk-x"}, 404),
    ],
    ids=repr,
)
async def test_save_keys_refuses_what_it_cannot_use(tenant: Tenant, body: object, status: int) -> None:
    if isinstance(body, dict) and body.get("virtualKey") == "{key}":
        body = {**body, "virtualKey": tenant.key}
    answer = await tenant.client.post("/api/save-keys", body)
    assert answer.status == status
    assert answer.error["message"]


async def test_an_empty_provider_key_clears_and_a_missing_one_stays(tenant: Tenant) -> None:
    tenant.openai.answers(openai_reply())
    tenant.mistral.answers(openai_reply())
    assert (await tenant.gateway.save_keys(tenant.key, openaiKey="")).status == 200
    assert (await tenant.chat(tenant.model)).status in (502, 503)
    assert (await tenant.chat(tenant.mistral_model)).status == 200
    assert tenant.openai.requests == []
    stored = await tenant.gateway.sql('SELECT "openaiKey", "mistralKey" FROM "Users" WHERE id = $1', tenant.key_id)
    assert stored[0]["openaiKey"] in (None, "")
    assert stored[0]["mistralKey"]


async def test_with_an_admin_key_the_admin_surface_is_closed(start_gateway: StartGateway) -> None:
    admin = "admin-key-of-this-test"
    closed = start_gateway(ADMIN_KEY=admin)
    closed.secrets.add(admin)
    client: Client = closed.client
    for wrong in (None, "wrong", admin + "x", admin.upper(), ""):
        assert (await client.post("/api/generate-virtual-key", key=wrong)).status == 401
        assert (await client.post("/api/save-keys", {"virtualKey": "x"}, key=wrong)).status == 401
    made = await client.post("/api/generate-virtual-key", key=admin)
    key = made.json["virtualKey"]
    other = (await client.post("/api/generate-virtual-key", key=admin)).json["virtualKey"]
    closed.secrets |= {key, other}
    body = {"virtualKey": key, "openaiKey": "sk-of-this-key"}
    assert (await client.post("/api/save-keys", body, key=admin)).status == 200
    assert (await client.post("/api/save-keys", body, key=key)).status == 200, "a key may set its own"
    assert (await client.post("/api/save-keys", body, key=other)).status == 401, "and nobody else's"
    assert (await client.post("/api/generate-virtual-key", key=key)).status == 401


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"PORT": "70000"}, "PORT"),
        ({"HOST": "0.0.0.0"}, "ADMIN_KEY"),
        ({"ENCRYPTION_KEY": "short"}, "ENCRYPTION_KEY"),
        ({"DATABASE_URL": "postgresql://127.0.0.1:1/x"}, "ENCRYPTION_KEY"),
        ({"IV": "xyz"}, "IV"),
        ({"WORKERS": "2"}, "WORKERS"),
        ({"ADMIN_KEY": ""}, "ADMIN_KEY"),
        ({"TLS_CERT_FILE": "/nonexistent.pem"}, "TLS_KEY_FILE"),
        ({"REQUEST_TIMEOUT_S": "0"}, "REQUEST_TIMEOUT_S"),
        ({"MISTRAL_BASE_URL": "http://user:secret@host/v1"}, "MISTRAL_BASE_URL"),
        ({"OPENAI_API_KEY": "line\nbreak"}, "OPENAI_API_KEY"),
    ],
    ids=lambda value: repr(value) if isinstance(value, dict) else "",
)
def test_a_setting_that_cannot_be_used_stops_the_start_with_one_line(
    gateway: Gateway, settings: dict[str, str], name: str
) -> None:
    home = gateway.home.with_name("never-started")
    done = gateway.command("serve", TOLLWAY_HOME=str(home), **settings)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert name in line
    assert "secret" not in line.replace("secrets", ""), "a setting's value may be a secret"
    assert not home.exists() or not any(home.iterdir())


def test_a_taken_port_stops_the_start_with_one_line(gateway: Gateway, start_gateway: StartGateway) -> None:
    done = gateway.command("serve", TOLLWAY_HOME=str(gateway.home.with_name("port-taken")), PORT=str(gateway.port))
    assert done.returncode == 2
    assert "PORT" in done.stderr.splitlines()[-1]
    assert str(gateway.port) in done.stderr


def test_a_home_that_is_in_use_stops_the_start(gateway: Gateway) -> None:
    done = gateway.command("serve")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "TOLLWAY_HOME" in done.stderr


async def test_answers_of_all_kinds_have_different_request_ids(tenant: Tenant) -> None:
    tenant.openai.answers(openai_reply())
    answers = [await tenant.chat(), await tenant.chat(), await tenant.client.get("/livez")]
    ids = [answer.header("x-request-id") for answer in answers]
    assert all(ids)
    assert all(first != second for first, second in itertools.pairwise(ids))
