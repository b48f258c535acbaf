"""HTTP's own methods: what each path takes, and is said to take; heads alone; whole URLs as targets."""

from collections.abc import Iterator

import pytest

from fakes.client import Reply, chat_body, request_bytes
from fakes.fixtures import StartGateway
from fakes.gateway import Gateway, Tenant
from fakes.upstream import HANG, openai_reply, raw, reply
from tollway.dataplane.routes import ROUTES
from tollway.wire.paths import RULES

METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")


def taken() -> dict[str, set[str]]:
    """Every path of the gateway, with one segment for each parameter, and what may be done with it."""
    paths: dict[str, set[str]] = {"/v1/models/a_model": {"GET"}}
    for path, methods in ROUTES.items():
        paths.setdefault(path.decode(), set()).update(method.decode() for method in methods)
    for method, rule in RULES:
        path = rule.template.replace("{", "a_").replace("}", "")
        for prefix in ("/v1", ""):
            paths.setdefault(prefix + path, set()).add(method.decode())
    paths["/models/a_model"].add("GET")
    del paths["*"]
    return paths


async def test_a_method_that_a_path_does_not_take_is_answered_with_those_that_it_takes(gateway: Gateway) -> None:
    paths = taken()
    assert len(paths) > 100
    async with gateway.client.connect() as wire:
        for path, methods in paths.items():
            allowed = {*methods, *({"HEAD"} if "GET" in methods else ())}
            for method in set(METHODS) - allowed:
                await wire.send(request_bytes(method, path))
                answer = await wire.reply(method)
                assert (answer.status, answer.header("allow")) == (405, ", ".join(sorted(allowed))), (method, path)
                if method != "HEAD":
                    assert answer.error["code"] == "method_not_allowed"


@pytest.mark.parametrize("admin", ["", "the-admin-key-of-this-test"])
async def test_a_refused_credential_is_told_what_would_help(start_gateway: StartGateway, admin: str) -> None:
    gateway = start_gateway(**({"ADMIN_KEY": admin} if admin else {}))
    refused = [
        await gateway.client.get("/v1/models"),
        await gateway.client.get("/v1/models", "wrong"),
        await gateway.client.get("/v1/files"),
        await gateway.client.post("/chat/completions", {}),
    ]
    if admin:
        for key in (None, "wrong"):
            refused += [
                await gateway.client.get("/metrics", key),
                await gateway.client.post("/api/generate-virtual-key", {}, key),
                await gateway.client.post("/api/save-keys", {"virtualKey": "wrong"}, key),
            ]
    assert {(answer.refusal, answer.header("www-authenticate")) for answer in refused} == {
        ((401, "invalid_api_key"), "Bearer")
    }


# HEAD


def names(answer: Reply) -> set[str]:
    return {name for name, _ in answer.headers}


def same(one: Reply, other: Reply) -> Iterator[tuple[str, str | None, str | None]]:
    """The headers of two answers that must not differ."""
    assert names(one) == names(other)
    for name in names(one) - {"date", "x-request-id", "x-ratelimit-remaining-requests"}:
        yield name, one.header(name), other.header(name)


async def test_head_is_get_without_its_body(tenant: Tenant) -> None:
    client = tenant.client
    for path in ("/v1/models", "/models", f"/v1/models/{tenant.model}", "/v1/models/none", "/livez", "/metrics"):
        whole = await client.get(path, tenant.key)
        head = await client.call("HEAD", path, key=tenant.key)
        assert (head.status, head.body) == (whole.status, b""), path
        if path == "/metrics":  # what is measured goes on meanwhile
            assert int(head.header("content-length") or 0) > 1000
        else:
            assert not [difference for difference in same(head, whole) if difference[1] != difference[2]]
    refused = await client.call("HEAD", "/v1/models", key="wrong")
    assert (refused.status, refused.header("www-authenticate"), refused.body) == (401, "Bearer", b"")
    assert (await client.call("HEAD", "/nowhere")).status == 404


async def test_head_of_a_stored_object_is_asked_for_as_a_whole_and_held_back(tenant: Tenant) -> None:
    tenant.openai.answers(reply(200, {"id": "file-1"}), reply(200, {"id": "file-1"}), reply(404, {"error": {}}))
    whole = await tenant.client.get("/v1/files/file-1", tenant.key)
    head = await tenant.client.call("HEAD", "/v1/files/file-1?a=b", key=tenant.key)
    assert (head.status, head.body) == (200, b"")
    assert not [difference for difference in same(head, whole) if difference[1] != difference[2]]
    assert (await tenant.client.call("HEAD", "/v1/files/file-1", key=tenant.key)).status == 404
    assert [(sent.method, sent.path) for sent in tenant.openai.requests] == [
        ("GET", "/v1/files/file-1"),
        ("GET", "/v1/files/file-1?a=b"),
        ("GET", "/v1/files/file-1"),
    ]
    entries = await tenant.ledger(3)
    assert [(entry["outcome"], entry["cost"]) for entry in entries[:2]] == [("ok", 0)] * 2


async def test_head_of_a_file_does_not_wait_for_the_file(tenant: Tenant) -> None:
    start = b"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nContent-Length: 1000000000\r\n\r\n"
    tenant.openai.answers(raw(start + b"\xff" * 100, HANG))
    async with tenant.client.connect() as wire:
        await wire.send(request_bytes("HEAD", "/v1/files/file-1/content", key=tenant.key))
        head = await wire.reply("HEAD")
        assert (head.status, head.header("content-type"), head.body) == (200, "audio/mpeg", b"")
        await wire.send(request_bytes("GET", "/livez"))
        assert (await wire.reply("GET")).json == {"status": "ok"}, "the connection goes on"
    (entry,) = await tenant.ledger(1)
    assert entry["outcome"] == "ok"


# OPTIONS


async def test_without_cors_a_preflight_is_a_method_that_is_not_taken(gateway: Gateway) -> None:
    asked = {"origin": "https://a.example", "access-control-request-method": "POST"}
    for path, allowed in (("/v1/embeddings", "POST"), ("/v1/models", "GET, HEAD"), ("/api/save-keys", "POST")):
        for headers in ({}, asked):
            answer = await gateway.client.call("OPTIONS", path, headers=headers)
            assert (answer.status, answer.header("allow")) == (405, allowed)
            assert not [name for name in names(answer) if name.startswith("access-control") or name == "vary"]
    assert (await gateway.client.call("OPTIONS", "/nowhere", headers=asked)).status == 404


async def test_options_of_everything_says_what_there_is(gateway: Gateway) -> None:
    for target in ("*", "http://gateway.example"):
        answer = await gateway.client.call("OPTIONS", target)
        assert (answer.status, answer.header("allow")) == (204, "DELETE, GET, HEAD, OPTIONS, POST")
        assert answer.header("x-request-id")


# The absolute form of a target


@pytest.mark.parametrize("start", ["http://gateway.example", "HTTPS://127.0.0.1:1", "http://[::1]:3000"])
async def test_a_whole_url_is_served_as_its_path(tenant: Tenant, start: str) -> None:
    tenant.openai.answers(openai_reply(), reply(200, {"data": []}))
    answer = await tenant.post(start + "/v1/chat/completions", chat_body(tenant.model))
    assert answer.text == "Bonjour"
    assert (await tenant.client.get(start + "/v1/files?limit=1", tenant.key)).status == 200
    assert (await tenant.client.get(start + "/v1/models", "wrong")).refusal == (401, "invalid_api_key")
    assert (await tenant.client.get(start + "/nowhere")).error["message"] == "Unknown request URL: GET /nowhere."
    assert (await tenant.client.get(start)).status == 404
    asked = [(sent.path, sent.header("host")) for sent in tenant.openai.requests]
    own = f"127.0.0.1:{tenant.gateway.openai.port}"
    assert asked == [("/v1/chat/completions", own), ("/v1/files?limit=1", own)]


async def test_the_host_of_a_whole_url_counts_in_place_of_the_header(gateway: Gateway) -> None:
    path = "/api/generate-virtual-key"
    foreign = await gateway.client.post("http://evil.example" + path, headers={"host": "localhost"})
    assert foreign.refusal == (403, "host_not_allowed")
    made = await gateway.client.post("http://localhost:3000" + path, headers={"host": "gateway.example"})
    assert made.status == 200
    gateway.secrets.add(made.json["virtualKey"])


# What must go on working


@pytest.mark.parametrize("spelling", ["org/sub/model:8b-{}", "org%2Fsub%2Fmodel%3A8b-{}", "org%2fsub/model:8b-{}"])
async def test_ids_of_models_may_hold_slashes_and_colons(tenant: Tenant, spelling: str) -> None:
    mark = tenant.model.removeprefix("alone-")
    name = f"org/sub/model:8b-{mark}"
    await tenant.gateway.sql('UPDATE "LLMModels" SET name = $2 WHERE name = $1', tenant.model, name)
    await tenant.gateway.configuration_is_live()
    for prefix in ("/v1/models/", "/models/"):
        for method in ("GET", "HEAD"):
            answer = await tenant.client.call(method, prefix + spelling.format(mark), key=tenant.key)
            assert answer.status == 200
            assert method == "HEAD" or answer.json["id"] == name
    unknown = await tenant.client.get("/v1/models/" + spelling.format("none"), tenant.key)
    assert unknown.refusal == (404, "model_not_found")


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_offer_of_http_2_is_not_taken_up_and_loses_nothing(tenant: Tenant, chunked: bool) -> None:
    tenant.openai.answers(openai_reply())
    offer = {
        "connection": "Upgrade, HTTP2-Settings",
        "upgrade": "h2c",
        "http2-settings": "AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
    }
    framing = {"content-length": None, "transfer-encoding": "chunked"} if chunked else {}
    whole = request_bytes("POST", "/v1/chat/completions", chat_body(tenant.model), tenant.key, {**offer, **framing})
    if chunked:
        head, _, content = whole.partition(b"\r\n\r\n")
        whole = head + b"\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(content), content)
    async with tenant.client.connect() as wire:
        await wire.send(whole)
        assert (await wire.reply()).text == "Bonjour"
