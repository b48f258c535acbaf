"""What comes back of calls that pass: files, sound, large JSON, errors; and from whom."""

import json

import pytest

from fakes.client import BrokenAnswerError, request_bytes
from fakes.fixtures import StartGateway
from fakes.gateway import Tenant, new_tenant
from fakes.upstream import RESET, Gate, Upstream, error, head, raw, reply

SOUND = bytes(range(256)) * 1024


async def test_sound_streams_to_the_byte_and_as_it_comes(tenant: Tenant) -> None:
    gate = Gate()
    fields = {"content-type": "audio/mpeg", "content-length": str(len(SOUND))}
    tenant.openai.answers(raw(head(200, fields) + SOUND[:1000], gate, SOUND[1000:]))
    body = {"model": tenant.model, "input": "Hi", "voice": "alloy"}
    async with tenant.client.connect() as wire:
        await wire.send(request_bytes("POST", "/v1/audio/speech", body, tenant.key))
        answer = await wire.head()
        assert (answer.status, answer.header("content-type")) == (200, "audio/mpeg")
        pieces = wire.pieces()
        got = b""
        while len(got) < 1000:
            got += await anext(pieces)
        gate.open()
        assert got + b"".join([piece async for piece in pieces]) == SOUND
    (entry,) = await tenant.ledger(1)
    assert (entry["operation"], entry["state"], entry["priced"]) == ("audio/speech", "none", False)


async def test_a_file_keeps_its_name_and_its_range(tenant: Tenant) -> None:
    fields = {
        "content-type": "application/octet-stream",
        "content-disposition": 'attachment; filename="a.jsonl"',
        "content-range": "bytes 0-3/9",
        "accept-ranges": "bytes",
    }
    tenant.openai.answers(reply(206, b"\n\n: ", fields))
    sent = {"range": "bytes=0-3"}
    answer = await tenant.client.call("GET", "/v1/files/file-1/content", b"", tenant.key, sent)
    assert (answer.status, answer.body) == (206, b"\n\n: ")
    assert {name: answer.header(name) for name in fields} == fields
    assert tenant.openai.requests[0].header("range") == "bytes=0-3"
    (entry,) = await tenant.ledger(1)
    assert (entry["state"], entry["priced"], entry["cost"]) == ("none", True, 0), "it ran no model"


async def test_an_answer_may_be_nothing(tenant: Tenant) -> None:
    tenant.openai.answers(raw(head(204, {})))
    answer = await tenant.client.call("DELETE", "/v1/videos/video_1", b"", tenant.key)
    assert (answer.status, answer.body) == (204, b"")
    assert tenant.openai.requests[0].header("content-length") is None


async def test_large_json_streams_and_its_usage_is_found(tenant: Tenant) -> None:
    picture = "A" * 3_000_000
    document = {"data": [{"b64_json": picture}], "usage": {"input_tokens": 5, "output_tokens": 6}}
    whole = json.dumps(document).encode()
    gate = Gate()
    fields = {"content-type": "application/json", "content-length": str(len(whole))}
    tenant.openai.answers(raw(head(200, fields) + whole[:2_000_000], gate, whole[2_000_000:]))
    async with tenant.client.connect() as wire:
        body = {"model": tenant.model, "prompt": "x"}
        await wire.send(request_bytes("POST", "/v1/images/generations", body, tenant.key))
        assert (await wire.head()).header("x-tollway-cost") is None
        pieces = wire.pieces()
        got = await anext(pieces)
        gate.open()
        assert got + b"".join([piece async for piece in pieces]) == whole
    (entry,) = await tenant.ledger(1)
    assert (entry["input_tokens"], entry["output_tokens"], entry["state"]) == (5, 6, "exact")


async def test_a_file_that_breaks_off_does_not_look_whole(tenant: Tenant) -> None:
    tenant.openai.answers(raw(head(200, {"content-type": "audio/mpeg", "content-length": "999999"}) + SOUND, RESET))
    with pytest.raises(BrokenAnswerError):
        await tenant.post("/v1/audio/speech", {"model": tenant.model, "input": "Hi", "voice": "alloy"})
    (entry,) = await tenant.ledger(1)
    assert (entry["outcome"], entry["priced"]) == ("broken", False)


async def test_what_reads_like_events_in_a_file_is_no_stream(start_gateway: StartGateway) -> None:
    """No comment of ours in a file that pauses after an empty line."""
    tenant = await new_tenant(start_gateway(STREAM_KEEPALIVE_S="1"))
    gate = Gate()
    events = raw(head(200, {"content-type": "text/event-stream", "content-length": "12"}), b"data: 1\n\n", gate, b": x")
    text = raw(head(200, {"content-type": "text/plain", "content-length": "6"}), b"ab\n\n", gate, b"cd")
    tenant.openai.answers(text, events)
    async with tenant.client.connect() as file, tenant.client.connect() as stream:
        for wire in (file, stream):
            await wire.send(request_bytes("GET", "/v1/files/file-1/content", b"", tenant.key))
            await wire.head("GET")
        said = b""
        async for piece in stream.pieces():  # the file has been silent for longer
            said += piece
            if said == b"data: 1\n\n: keep-alive\n\n":
                gate.open()
        assert b"".join([piece async for piece in file.pieces()]) == b"ab\n\ncd"


@pytest.mark.parametrize("status", [400, 404])
async def test_what_a_provider_says_of_the_clients_mistakes_is_cleaned(tenant: Tenant, status: int) -> None:
    secret = "sk-" + "a1" * 20
    tenant.openai.answers(error(status, f"Wrong, said {secret} at 10.1.2.3", param="purpose", code="bad_purpose"))
    answer = await tenant.client.call("GET", "/v1/files/file-1", b"", tenant.key)
    assert answer.status == status
    assert answer.error["message"] == "Wrong, said *** at ***"
    assert (answer.error["param"], answer.error["code"]) == ("purpose", "bad_purpose")
    assert answer.header("x-should-retry") is None
    (entry,) = await tenant.ledger(1)
    assert (entry["outcome"], entry["status"], entry["charged"]) == ("request_refused", status, False)


@pytest.mark.parametrize(
    ("status", "refusal"), [(401, (502, "upstream_auth_error")), (402, (429, "insufficient_quota"))]
)
async def test_a_refused_credential_is_never_the_clients_401(
    tenant: Tenant, status: int, refusal: tuple[int, str]
) -> None:
    tenant.openai.answers(error(status, "Incorrect API key provided", code="invalid_api_key"))
    answer = await tenant.client.get("/v1/files", tenant.key)
    assert answer.refusal == refusal
    assert answer.header("www-authenticate") is None


async def test_a_busy_provider_says_when_to_come_back(tenant: Tenant) -> None:
    tenant.openai.answers(error(429, headers={"retry-after": "7"}))
    answer = await tenant.client.get("/v1/files", tenant.key)
    assert answer.refusal == (429, "rate_limit_exceeded")
    assert answer.header("retry-after") == "7"


async def test_only_known_methods_of_known_paths_are_served(tenant: Tenant) -> None:
    for method in ("POST", "PUT", "PATCH"):
        answer = await tenant.client.call(method, "/v1/files/file-1/content", b"", tenant.key)
        assert (answer.status, answer.header("allow")) == (405, "GET, HEAD")
    for path in ("/v1/organization/users", "/v1/files/", "/v1/files/../files", "/v1/files/%2e%2e/content", "/v2/files"):
        answer = await tenant.client.get(path, tenant.key)
        assert answer.refusal == (404, "unknown_url"), path
    assert not tenant.openai.requests


async def test_ids_and_queries_are_kept_to_the_byte(tenant: Tenant) -> None:
    tenant.openai.answers(reply(200, {}))
    path = "/v1/files/a%2Fb%C3%A9%20c/content?after=x%26y&limit=2&a[]=1"
    assert (await tenant.client.get(path, tenant.key)).status == 200
    assert (await tenant.client.get(path.removeprefix("/v1"), tenant.key)).status == 200
    assert [request.path for request in tenant.openai.requests] == [path, path]


async def test_a_third_provider_is_one_row(start_gateway: StartGateway) -> None:
    with Upstream() as third:
        own, platform = third.account("sk-own-of-the-client"), third.account("sk-platform-wide")
        for account in (own, platform):
            account.answers(reply(200, {"output": []}))
        stranger = third.for_anyone(reply(200, {"output": []}))
        gateway = start_gateway(MY_LLM_API_KEY="sk-platform-wide")
        tenant = await new_tenant(gateway)
        sql = "INSERT INTO tollway.providers (name, dialect, api_base) VALUES ('my-llm', 'openai', $1)"
        await gateway.sql(sql, third.url)
        body = {"model": await tenant.add_model("my-llm"), "input": "Hi"}
        assert (await tenant.post("/v1/responses", body)).status == 200
        assert len(platform.requests) == 1
        keys = {"virtualKey": tenant.key, "providerKeys": {"my-llm": "sk-own-of-the-client"}}
        assert (await gateway.client.post("/api/save-keys", keys)).status == 200
        assert (await tenant.post("/v1/responses", body)).status == 200
        assert len(own.requests) == 1
        open_provider = await tenant.add_provider(third.url, wants_key=False)
        body = {"model": await tenant.add_model(open_provider), "input": "Hi"}
        assert (await tenant.post("/v1/responses", body)).status == 200
        assert [request.header("authorization") for request in stranger.requests] == [None]
        closed_provider = await tenant.add_provider(third.url)
        body = {"model": await tenant.add_model(closed_provider), "input": "Hi"}
        assert (await tenant.post("/v1/responses", body)).refusal == (503, "no_provider_key")
