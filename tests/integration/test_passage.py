"""Paths that pass as they are: what goes on, what comes back, what is refused, what is billed."""

from decimal import Decimal

from fakes.client import form
from fakes.gateway import Tenant
from fakes.upstream import error, reply

PICTURE = {"created": 1, "data": [{"b64_json": "aGk="}], "usage": {"input_tokens": 7, "output_tokens": 50}}


async def test_a_call_in_json_goes_on_as_it_came(tenant: Tenant) -> None:
    tenant.openai.answers(reply(200, PICTURE))
    body = b'{"model":"%b","prompt":"caf\\u00e9","big":12345678901234567890.10,"x":{"y" : [1]}}'
    body %= tenant.model.encode()
    answer = await tenant.client.post("/v1/images/generations?a=b", body, tenant.key)
    assert (answer.status, answer.json) == (200, PICTURE)
    (request,) = tenant.openai.requests
    assert (request.method, request.path, request.body) == ("POST", "/v1/images/generations?a=b", body)
    assert request.header("authorization") == f"Bearer {tenant.openai.secret}"
    assert answer.header("x-tollway-cost") == "0.000107"
    (entry,) = await tenant.ledger(1)
    assert (entry["operation"], entry["input_tokens"], entry["output_tokens"]) == ("images/generations", 7, 50)
    assert entry["cost"] == Decimal("0.000107")


async def test_a_form_streams_on_with_the_providers_name_of_the_model(tenant: Tenant) -> None:
    sql = "UPDATE tollway.models SET upstream_name = 'whisper-1' WHERE name = $1"
    await tenant.gateway.sql(sql, tenant.model)
    await tenant.gateway.configuration_is_live()
    tenant.openai.answers(reply(200, {"text": "hi"}))
    sound = bytes(range(256)) * 4096
    body, headers = form(("file", "a.wav", sound), ("model", "", tenant.model.encode()), ("language", "", b"en"))
    answer = await tenant.client.post("/v1/audio/transcriptions", body, tenant.key, headers)
    assert (answer.status, answer.json) == (200, {"text": "hi"})
    (request,) = tenant.openai.requests
    assert request.body == body.replace(tenant.model.encode(), b"whisper-1")
    assert request.header("content-type") == headers["content-type"]
    (entry,) = await tenant.ledger(1)
    assert (entry["operation"], entry["priced"], entry["cost"], entry["state"]) == (
        "audio/transcriptions",
        False,
        0,
        "none",
    )


async def test_an_object_that_is_not_there_is_the_clients_404(tenant: Tenant) -> None:
    tenant.openai.answers(error(404, "No such File object: file-1", param="id"))
    answer = await tenant.client.get("/v1/files/file-1", tenant.key)
    assert answer.status == 404
    assert answer.error == {
        "message": "No such File object: file-1",
        "type": "invalid_request_error",
        "param": "id",
        "code": None,
    }


async def test_an_object_that_only_the_body_names_is_the_clients_404_too(tenant: Tenant) -> None:
    tenant.openai.answers(error(404, "No assistant found with id 'asst_1'."))
    answer = await tenant.post("/v1/threads/runs", {"assistant_id": "asst_1"})
    assert (answer.status, answer.error["message"]) == (404, "No assistant found with id 'asst_1'.")


async def test_models_are_those_that_the_key_may_use(tenant: Tenant) -> None:
    listed = (await tenant.client.get("/v1/models", tenant.key)).json
    assert listed["object"] == "list"
    by_id = {model["id"]: model for model in listed["data"]}
    assert by_id[tenant.model] == {
        "id": tenant.model,
        "object": "model",
        "created": 1_700_000_000,
        "owned_by": "openai",
    }
    assert "" not in by_id
    assert (await tenant.client.get(f"/models/{tenant.model}", tenant.key)).json == by_id[tenant.model]
    assert (await tenant.client.get("/v1/models/demo%2Fecho", tenant.key)).json["id"] == "demo/echo"
    assert (await tenant.client.get("/v1/models/nothing", tenant.key)).refusal == (404, "model_not_found")
    assert (await tenant.client.get("/v1/models", "sk-wrong")).refusal == (401, "invalid_api_key")
    sql = "UPDATE tollway.virtual_keys SET allowed_models = $2 WHERE id = $1"
    await tenant.gateway.sql(sql, tenant.key_id, [tenant.model])
    await tenant.limit(requests=5, tokens=None)
    listed = (await tenant.client.get("/v1/models", tenant.key)).json
    assert [model["id"] for model in listed["data"]] == [tenant.model]
    assert (await tenant.client.get("/v1/models/demo/echo", tenant.key)).refusal == (403, "model_not_allowed")
    assert (await tenant.client.get("/v1/models", tenant.key)).status == 200, "a refusal counts as no request"
    assert (await tenant.client.get("/v1/models", tenant.key)).refusal == (429, "rate_limit_exceeded")
