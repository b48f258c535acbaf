"""Calls that pass: what a status of the provider's means for the client, and which headers go either way."""

import json

import pytest

from fakes.gateway import Tenant
from fakes.upstream import error, reply


@pytest.mark.parametrize("status", [400, 403, 404, 409, 413, 415, 422])
async def test_what_is_wrong_with_the_clients_own_objects_keeps_its_status(tenant: Tenant, status: int) -> None:
    tenant.openai.answers(error(status, "Not so.", param="purpose", code="some_code"))
    answer = await tenant.client.call("DELETE", "/v1/files/file-1", key=tenant.key)
    assert answer.status == status
    assert answer.error == {
        "message": "Not so.",
        "type": "invalid_request_error",
        "param": "purpose",
        "code": "some_code",
    }
    assert len(tenant.openai.requests) == 1
    (entry,) = await tenant.ledger(1)
    assert (entry["charged"], entry["status"], entry["operation"]) == (False, status, "files/{file_id}")


@pytest.mark.parametrize("status", [400, 403, 413, 422])
async def test_so_does_what_is_wrong_with_a_call_of_a_model(tenant: Tenant, status: int) -> None:
    tenant.openai.answers(error(status, "Not so.", param="input"))
    answer = await tenant.post("/v1/responses", {"model": tenant.pair, "input": "x"})
    assert (answer.status, answer.error["message"], answer.error["param"]) == (status, "Not so.", "input")
    assert len(tenant.openai.requests) == 1, "no other target would say anything else"


@pytest.mark.parametrize(
    ("status", "told"), [(401, (502, "upstream_auth_error")), (404, (502, "upstream_model_not_found"))]
)
async def test_what_is_wrong_with_the_gateways_own_set_up_is_not_the_clients_fault(
    tenant: Tenant, status: int, told: tuple[int, str]
) -> None:
    tenant.openai.answers(error(status, f"Ask the owner of {tenant.openai.secret}."))
    answer = await tenant.post("/v1/responses", {"model": tenant.model, "input": "x"})
    assert answer.refusal == told
    assert b"owner" not in answer.body


async def test_another_target_is_tried_if_it_speaks_openais_language(tenant: Tenant) -> None:
    last = await tenant.add_model()
    first = await tenant.add_model(fallback=json.dumps([tenant.mistral_model, last]))
    tenant.openai.answers(error(500), reply(200, {"id": "resp_1", "usage": {"input_tokens": 3, "output_tokens": 4}}))
    answer = await tenant.post("/v1/responses", {"model": first, "input": "x"})
    assert (answer.status, answer.header("x-tollway-model")) == (200, last)
    assert [request.json["model"] for request in tenant.openai.requests] == [first, last]
    assert not tenant.mistral.requests
    failed, answered = await tenant.ledger(2)
    assert (failed["outcome"], failed["charged"], answered["outcome"], answered["charged"]) == (
        "server_error",
        False,
        "ok",
        True,
    )


async def test_a_model_of_another_language_is_refused(tenant: Tenant) -> None:
    answer = await tenant.post("/v1/responses", {"model": tenant.mistral_model, "input": "x"})
    assert answer.refusal == (400, "unsupported_endpoint")
    assert "/v1/responses" in answer.error["message"]
    assert answer.error["param"] == "model"
    assert not tenant.mistral.requests
    line = await tenant.gateway.logged(call_id=answer.header("x-request-id"))
    assert line["code"] == "unsupported_endpoint"
    assert (await tenant.gateway.metrics())['tollway_refusals_total{code="unsupported_endpoint"}'] >= 1


async def test_what_is_sent_to_nobody_takes_nothing_from_the_limits(tenant: Tenant) -> None:
    closed = await tenant.add_model(await tenant.add_provider(tenant.gateway.openai.url))
    first = await tenant.add_model("mistral", fallback=json.dumps([closed]))
    await tenant.limit(requests=5)
    for model, path in ((first, "/v1/responses"), (closed, "/v1/responses"), (closed, "/v1/chat/completions")):
        body = {"model": model, "input": "x", "messages": [{"role": "user", "content": "x"}]}
        answer = await tenant.post(path, body)
        assert answer.refusal == (503, "no_provider_key")
        assert answer.header("x-ratelimit-remaining-requests") == "5"
    tenant.openai.answers(error(401))
    assert (await tenant.chat()).header("x-ratelimit-remaining-requests") == "4", "somebody was asked"


# Heads

_FOREIGN = {
    "cookie": "session=1",
    "openai-organization": "org-of-the-client",
    "openai-project": "proj-of-the-client",
    "x-forwarded-for": "10.1.2.3",
    "x-stainless-lang": "python",
    "user-agent": "OpenAI/Python",
    "x-request-id": "chosen-by-the-client",
    "accept-encoding": "gzip",
}
_MEANT = {"accept": "application/json", "idempotency-key": "once", "openai-beta": "assistants=v2", "range": "bytes=0-9"}


async def test_of_a_clients_head_only_what_the_provider_should_know_goes_on(tenant: Tenant) -> None:
    tenant.openai.answers(reply(200, {"data": []}))
    body, keys = {"model": tenant.model, "prompt": "a cat"}, {"x-api-key": tenant.key, "api-key": tenant.key}
    assert (await tenant.post("/v1/images/generations", body, {**_FOREIGN, **_MEANT, **keys})).status == 200
    (request,) = tenant.openai.requests
    assert dict(request.headers) == {
        **_MEANT,
        "host": f"127.0.0.1:{tenant.gateway.openai.port}",
        "accept-encoding": "identity",
        "user-agent": "tollway",
        "content-type": "application/json",
        "authorization": f"Bearer {tenant.openai.secret}",
        "content-length": str(len(request.body)),
    }
    assert len(request.headers) == len(dict(request.headers)), "each once"
    assert tenant.key.encode() not in request.head + request.body


async def test_of_a_providers_head_only_what_belongs_to_the_answer_goes_on(tenant: Tenant) -> None:
    belongs = {
        "content-type": "audio/mpeg",
        "content-disposition": 'attachment; filename="a.mp3"',
        "accept-ranges": "bytes",
        "openai-version": "2020-10-01",
    }
    foreign = {
        "set-cookie": "__cf_bm=1",
        "openai-organization": "org-of-the-gateway",
        "openai-project": "proj-of-the-gateway",
        "x-request-id": "req_of_the_provider",
        "x-ratelimit-remaining-requests": "9999",
        "x-ratelimit-limit-tokens": "30000000",
        "cf-ray": "1-FRA",
        "server": "cloudflare",
        "access-control-allow-origin": "*",
        "retry-after": "1",
    }
    tenant.openai.answers(reply(200, b"\x00\xff" * 1000, {**foreign, **belongs}))
    await tenant.limit(requests=5, tokens=None)
    answer = await tenant.post("/v1/audio/speech", {"model": tenant.model, "input": "x", "voice": "alloy"})
    assert (answer.status, answer.body) == (200, b"\x00\xff" * 1000)
    assert {name: answer.header(name) for name in belongs} == belongs
    assert answer.header("x-ratelimit-remaining-requests") == "4", "the key's own, not the provider's"
    shown = repr(answer.headers)
    assert not [value for value in foreign.values() if len(value) > 3 and value in shown]
    assert answer.header("retry-after") is None
