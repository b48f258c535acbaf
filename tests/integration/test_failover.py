"""Failover by the table in the documentation, for whole answers and for streams: who answers, and who is told."""

import json

import pytest

from fakes.client import text_of
from fakes.gateway import Gateway, Tenant, new_tenant
from fakes.upstream import (
    CLOSE,
    LAST_CHUNK,
    RESET,
    STREAM_HEAD,
    Gate,
    Upstream,
    error,
    event,
    head,
    mistral_error,
    mistral_reply,
    mistral_stream,
    openai_reply,
    openai_stream,
    raw,
    reply,
)

BEFORE_ANY_ANSWER = {
    "reset": raw(RESET),
    "closed without an answer": raw(CLOSE),
    "half a head": raw(b"HTTP/1.1 200 O", CLOSE),
    "no HTTP": raw(b"SSH-2.0-OpenSSH_9.6\r\n", CLOSE),
    "408": error(408),
    "409": error(409),
    "429": error(429),
    "429 without quota": error(429, code="insufficient_quota"),
    "500": error(500),
    "502 as HTML": reply(502, "<html>Bad gateway</html>", {"content-type": "text/html"}),
    "503": error(503),
    "504 with nothing": reply(504, ""),
    "520": reply(520, ""),
    "529": error(529),
    "401": error(401),
    "402": error(402),
    "403": error(403),
    "404": error(404, code="model_not_found"),
    "redirect": reply(302, "", {"location": "http://127.0.0.1:1/"}),
}
INVALID_WHOLE = {
    "no JSON": reply(200, "<html>"),
    "nothing": reply(200, ""),
    "half JSON": reply(200, '{"choices": [{"index": 0'),
    "an array": reply(200, "[]"),
    "no choices": reply(200, {"id": "x", "object": "chat.completion"}),
    "an error in a 200": reply(200, {"error": {"message": "no", "type": "server_error", "param": None, "code": None}}),
    "cut in the body": raw(head(200, {"content-length": "100"}), b'{"choices"', CLOSE),
    "reset in the body": raw(head(200, {"content-length": "100"}), b'{"choices"', RESET),
    "204": raw(head(204, {})),
}
INVALID_STREAM = {
    "an error as the first event": raw(STREAM_HEAD, event({"error": {"message": "no", "code": "x"}}), LAST_CHUNK),
    "a text as the error": raw(STREAM_HEAD, event({"error": "overloaded"}), LAST_CHUNK),
    "no event at all": raw(STREAM_HEAD, LAST_CHUNK),
    "only a comment": raw(STREAM_HEAD, b"f\r\n: keep-alive\r\n\r\n\r\n", LAST_CHUNK),
    "closed before the first event": raw(STREAM_HEAD, CLOSE),
    "reset before the first event": raw(STREAM_HEAD, RESET),
    "nonsense as the first event": raw(STREAM_HEAD, event("nonsense"), LAST_CHUNK),
    "done at once": raw(STREAM_HEAD, event("[DONE]"), LAST_CHUNK),
    "HTML": reply(200, "<html>", {"content-type": "text/html"}),
    "an error as JSON": reply(200, {"error": {"message": "no", "type": "server_error", "param": None, "code": None}}),
    "role and then reset": openai_stream([RESET]),
}


@pytest.mark.parametrize("failure", [*BEFORE_ANY_ANSWER, *INVALID_WHOLE])
async def test_the_next_provider_answers(tenant: Tenant, failure: str) -> None:
    tenant.openai.answers({**BEFORE_ANY_ANSWER, **INVALID_WHOLE}[failure])
    tenant.mistral.answers(mistral_reply("from Mistral"))
    answer = await tenant.chat(tenant.pair)
    assert answer.text == "from Mistral"
    assert answer.header("x-tollway-provider") == "mistral"
    assert answer.header("x-tollway-model") == tenant.mistral_model
    assert answer.header("x-tollway-attempts") == "2"
    assert tenant.mistral.requests[0].json["model"] == tenant.mistral_model


@pytest.mark.parametrize("failure", [*BEFORE_ANY_ANSWER, *INVALID_STREAM])
async def test_the_next_provider_streams(tenant: Tenant, failure: str) -> None:
    tenant.openai.answers({**BEFORE_ANY_ANSWER, **INVALID_STREAM}[failure])
    tenant.mistral.answers(mistral_stream(["from ", "Mistral"]))
    async with tenant.stream(tenant.pair) as stream:
        assert stream.status == 200
        chunks = await stream.chunks()
    assert text_of(chunks) == "from Mistral"
    assert sum("role" in choice["delta"] for chunk in chunks for choice in chunk["choices"]) == 1
    assert stream.header("x-tollway-provider") == "mistral"
    assert stream.header("x-tollway-attempts") == "2"
    assert len({chunk["id"] for chunk in chunks}) == 1, "nothing of the first attempt came through"


@pytest.mark.parametrize("failure", [mistral_error(429, "Rate limit exceeded", "1300"), mistral_error(500), raw(RESET)])
async def test_it_fails_over_from_mistral_to_openai_as_well(tenant: Tenant, failure: object) -> None:
    backwards = await tenant.add_model("mistral", fallback=tenant.model)
    tenant.mistral.answers(failure)
    tenant.openai.answers(openai_reply("from OpenAI"))
    answer = await tenant.chat(backwards)
    assert answer.text == "from OpenAI"
    assert tenant.openai.requests[0].json["model"] == tenant.model


async def test_the_first_good_target_answers_alone(tenant: Tenant) -> None:
    tenant.openai.answers(openai_reply("from OpenAI"))
    answer = await tenant.chat(tenant.pair)
    assert answer.text == "from OpenAI"
    assert answer.header("x-tollway-attempts") == "1"
    assert tenant.mistral.requests == []


async def test_fallbacks_are_tried_in_their_order(tenant: Tenant) -> None:
    second = await tenant.add_model("openai")
    first = await tenant.add_model("openai", fallback=json.dumps([second, tenant.mistral_model]))
    tenant.openai.answers(error(500), error(503))
    tenant.mistral.answers(mistral_reply("the third"))
    answer = await tenant.chat(first)
    assert answer.text == "the third"
    assert [request.json["model"] for request in tenant.openai.requests] == [first, second]
    assert answer.header("x-tollway-attempts") == "3"


async def test_a_fallback_that_the_key_may_not_use_is_skipped(tenant: Tenant) -> None:
    edit = "UPDATE tollway.virtual_keys SET allowed_models = ARRAY[$2] WHERE id = $1"
    await tenant.gateway.sql(edit, tenant.key_id, tenant.pair)
    await tenant.gateway.configuration_is_live()
    tenant.openai.answers(error(500))
    tenant.mistral.answers(mistral_reply())
    assert (await tenant.chat(tenant.pair)).status == 502
    assert tenant.mistral.requests == []


async def test_every_request_of_an_outage_is_answered_by_the_fallback(tenant: Tenant) -> None:
    tenant.openai.answers(error(500))
    tenant.mistral.answers(mistral_reply("from Mistral"))
    texts = [(await tenant.chat(tenant.pair)).text for _ in range(40)]
    assert texts == ["from Mistral"] * 40
    assert len(tenant.openai.requests) < 40, "a provider that is down is left alone after a while"


async def test_a_refused_connection_fails_over(start_gateway) -> None:
    with Upstream() as down:
        port_url = down.url
    gateway: Gateway = start_gateway(OPENAI_BASE_URL=port_url)
    tenant = await new_tenant(gateway)
    tenant.mistral.answers(mistral_reply("from Mistral"))
    assert (await tenant.chat(tenant.pair)).text == "from Mistral"
    refused = await tenant.chat(tenant.model)
    assert refused.refusal == (502, "upstream_connection_error")
    assert "127.0.0.1" not in refused.body.decode()


async def test_a_kept_connection_that_the_provider_closed_is_no_failure(tenant: Tenant) -> None:
    tenant.openai.answers(openai_reply())
    for _ in range(5):
        answer = await tenant.chat()
        assert answer.header("x-tollway-attempts") == "1"
        tenant.gateway.openai.close_idle_connections()
    assert len(tenant.openai.requests) == 5


async def test_a_provider_that_closes_a_kept_connection_on_the_request_is_asked_once_more(tenant: Tenant) -> None:
    """The race between our request and its closing: nothing of an answer has come, so a fresh connection decides."""
    tenant.openai.answers(openai_reply(), raw(CLOSE), openai_reply("again"))
    assert (await tenant.chat()).status == 200
    answer = await tenant.chat()
    assert answer.text == "again"
    assert len({request.connection for request in tenant.openai.requests[1:]}) == 2


@pytest.mark.parametrize("ending", [RESET, CLOSE])
async def test_after_content_no_other_provider_is_tried(tenant: Tenant, ending: object) -> None:
    gate = Gate()
    tenant.openai.answers(openai_stream(["Hel", gate, "lo", ending]))
    tenant.mistral.answers(mistral_stream(["never"]))
    async with tenant.stream(tenant.pair) as stream:
        assert await stream.next_text() == "Hel"
        gate.open()
        events = await stream.events()
    assert text_of([json.loads(data) for data in events[:-1]]) in ("lo", "")
    assert set(json.loads(events[-1])["error"]) == {"message", "type", "param", "code"}
    assert "[DONE]" not in events
    assert tenant.mistral.requests == []


async def test_a_refusal_of_any_size_is_the_clients_and_is_asked_for_once(tenant: Tenant) -> None:
    """Some providers echo the whole request in their refusal."""
    tenant.openai.answers(error(422, "x" * 1_500_000))
    async with tenant.stream() as stream:
        refused = await stream.body()
    assert stream.status == 400
    assert json.loads(refused)["error"]["type"] == "invalid_request_error"
    assert len(refused) < 10_000
    assert len(tenant.openai.requests) == 1


async def test_a_fault_of_the_client_is_told_even_after_a_failure_of_another_provider(tenant: Tenant) -> None:
    too_long = {"message": "8192 tokens at most", "type": "invalid_request_error", "param": "messages"}
    tenant.openai.answers(error(503))
    tenant.mistral.answers(
        raw(STREAM_HEAD, event({"error": {**too_long, "code": "context_length_exceeded"}}), LAST_CHUNK)
    )
    async with tenant.stream(tenant.pair) as stream:
        refused = json.loads(await stream.body())["error"]
    assert (stream.status, refused["code"]) == (400, "context_length_exceeded")
    assert len(tenant.mistral.requests) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_what_a_fallback_cannot_do_is_no_fault_of_the_client(tenant: Tenant, stream: bool) -> None:
    """The first provider could have answered: to try again is right, to leave the parameter out is not."""
    tenant.openai.answers(error(503))
    refused = await tenant.chat(tenant.pair, logit_bias={"50256": -100}, stream=stream)
    assert refused.status == 503
    assert refused.error["type"] == "server_error"
    assert f"{tenant.pair} at openai" in refused.error["message"]
    assert f"{tenant.mistral_model} at mistral" in refused.error["message"]
    assert tenant.mistral.requests == []


async def test_an_answer_tells_how_it_came_about(tenant: Tenant) -> None:
    tenant.openai.answers(openai_reply())
    answer = await tenant.chat()
    assert answer.header("x-tollway-provider") == "openai"
    assert answer.header("x-tollway-model") == tenant.model
    assert answer.header("x-tollway-attempts") == "1"
    assert int(answer.header("x-tollway-config-revision") or "") > 0
    assert answer.header("x-tollway-cost") == "0.000015"  # 9 in at 0.001, 3 out at 0.002 per 1,000
    assert answer.header("x-tollway-warnings") is None


async def test_what_mistral_cannot_carry_is_said(tenant: Tenant) -> None:
    tenant.mistral.answers(mistral_reply())
    answer = await tenant.chat(tenant.mistral_model, user="somebody", verbosity="low", store=False)
    assert answer.status == 200
    warnings = answer.header("x-tollway-warnings") or ""
    assert "user" in warnings and "verbosity" in warnings
    assert "store" not in warnings, "nothing is lost"
    assert not {"user", "verbosity", "store"} & set(tenant.mistral.requests[0].json)


async def test_what_mistral_cannot_do_is_refused_and_not_dropped(tenant: Tenant) -> None:
    refused = await tenant.chat(tenant.mistral_model, logit_bias={"50256": -100})
    assert refused.refusal == (400, "unsupported_parameter")
    assert refused.error["param"] == "logit_bias"
    assert tenant.mistral.requests == []


async def test_a_key_that_cannot_be_read_counts_for_the_client_and_is_no_attempt_of_the_ledger(tenant: Tenant) -> None:
    """So that every call that was sent has an entry with the number 1."""
    tenant.mistral.answers(mistral_reply("from Mistral"))
    edit = 'UPDATE "Users" SET "openaiKey" = $2 WHERE id = $1'
    await tenant.gateway.sql(edit, tenant.key_id, "sk-this-is-not-valid")
    await tenant.gateway.configuration_is_live()
    answer = await tenant.chat(tenant.pair)
    assert (answer.text, answer.header("x-tollway-attempts")) == ("from Mistral", "2")
    (row,) = await tenant.ledger(1)
    assert (row["attempt"], row["provider"]) == (1, "mistral")
