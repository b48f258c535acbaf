"""What a provider says of its failure: it reaches the log, the ledger and, in mid-stream, the client; and nobody else.

A canary is planted in every text of a provider's and looked for wherever that text travels.
"""

import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from fakes.client import Reply, chat_body, request_bytes
from fakes.fixtures import StartGateway
from fakes.gateway import Gateway, Tenant, new_tenant
from fakes.upstream import (
    CLOSE,
    HANG,
    LAST_CHUNK,
    STREAM_HEAD,
    Answer,
    Gate,
    Part,
    Received,
    error,
    event,
    head,
    mistral_reply,
    openai_reply,
    openai_stream,
    raw,
    reply,
)

SAID = {"message": "The hamster is tired", "type": "hamster_error", "code": "E42", "param": None}
REQUEST_ID = "req_" + "0123456789abcdef" * 2


async def midway(tenant: Tenant, failure: dict[str, Any], model: str | None = None, **headers: str) -> dict[str, Any]:
    """The error in which a stream ends whose provider has failed in the middle of it."""
    gate = Gate()
    started = head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked", **headers})
    chunk = event({"choices": [{"index": 0, "delta": {"content": "Hel"}, "finish_reason": None}]})
    tenant.openai.answers(raw(started, chunk, gate, event(failure), LAST_CHUNK))
    async with tenant.stream(model) as stream:
        assert await stream.next_text() == "Hel"
        gate.open()
        events = await stream.events()
    assert "[DONE]" not in events
    return json.loads(events[-1])["error"]


# The log and the ledger


@pytest.mark.parametrize("stream", [False, True])
async def test_what_a_provider_says_before_an_answer_is_logged_and_entered_and_not_told(
    tenant: Tenant, stream: bool
) -> None:
    tenant.openai.answers(reply(503, {"error": SAID}, {"x-request-id": REQUEST_ID}))
    refused = await tenant.chat(stream=stream)
    assert refused.status == 503
    assert "hamster" not in refused.body.decode() + repr(refused.headers)
    rows = await tenant.ledger(len(tenant.openai.requests))
    for row in rows:
        assert row["cause"] == (
            "The provider failed. It said: The hamster is tired "
            f"(code E42, type hamster_error, request id {REQUEST_ID})"
        )
    line = await tenant.gateway.logged(call_id=refused.header("x-request-id"), outcome="server_error")
    assert "It said: The hamster is tired (code E42" in line["cause"]
    assert line["provider_request_id"] == REQUEST_ID


async def test_what_a_provider_says_in_mid_stream_is_told_logged_and_entered(tenant: Tenant) -> None:
    assert await midway(tenant, {"error": SAID}, **{"request-id": REQUEST_ID}) == SAID
    (row,) = await tenant.ledger(1)
    assert (row["outcome"], row["state"], row["charged"]) == ("server_error", "partial", True)
    assert row["cause"] == (
        f"The provider failed. It said: The hamster is tired (code E42, type hamster_error, request id {REQUEST_ID})"
        " It was in the middle of the answer."
    )
    line = await tenant.gateway.logged(key_id=tenant.key_id, outcome="server_error")
    assert line["provider_request_id"] == REQUEST_ID


@pytest.mark.parametrize(
    "failure",
    [
        {"error": "The hamster is tired"},
        {"error": {"error": {"message": "The hamster is tired"}}},
        {"error": {"message": json.dumps({"error": {"message": "The hamster is tired"}})}},
        {"error": [{"message": "The hamster is tired"}]},
        {"error": ["The hamster is tired"]},
        {"errors": [{"message": "The hamster is tired"}]},
        {"object": "error", "message": "The hamster is tired"},
        {"detail": "The hamster is tired"},
    ],
    ids=json.dumps,
)
async def test_an_error_in_any_shape_keeps_its_message(tenant: Tenant, failure: dict[str, Any]) -> None:
    assert (await midway(tenant, failure))["message"] == "The hamster is tired"


# Canaries


CANARIES = {
    "key": "{secret}",
    "key in capitals": "{SECRET}",
    "half the key": "{half}...",
    "address": "10.98.76.54:4711",
    "IPv6": "[fd00:dead:beef::4711]:99",
    "host": "gpu-4711.ml.svc.cluster.local",
    "host and port": "vllm-4711:8000",
    "URL": "http://canary.example/v1/4711?key=4711",
    "organisation": "org-canary4711",
    "path": "/home/canary4711/server.py",
    "mail": "canary4711@example.com",
}


def travelled(gateway: Gateway, *answers: Reply) -> str:
    """All that came out of the gateway."""
    told = "".join(answer.body.decode() + repr(answer.headers) for answer in answers)
    return (told + gateway.stderr + "".join(gateway.stdout)).casefold()


@pytest.mark.parametrize("canary", CANARIES.values(), ids=CANARIES.keys())
async def test_no_canary_in_a_providers_words_gets_out_by_any_way(tenant: Tenant, canary: str) -> None:
    secret = tenant.openai.secret
    canary = canary.format(secret=secret, SECRET=secret.upper(), half=secret[:30])
    planted = {"message": f"It broke at {canary}, sorry", "type": canary, "code": canary, "param": canary}
    heads = {"x-request-id": canary, "retry-after": "20", "x-echo": canary}
    answers = []
    for status in (400, 401, 402, 404, 429, 500):
        tenant.openai.answers(reply(status, {"error": planted, "request_id": canary}, heads))
        answers.append(await tenant.chat())
    tenant.openai.answers(reply(200, {"error": planted}), reply(502, f"<html>{canary}</html>"))
    answers += [await tenant.chat(), await tenant.chat()]
    told = json.dumps([await midway(tenant, {"error": planted}), await midway(tenant, {"error": canary})])
    passing = {**planted, "type": "error"}
    tenant.openai.answers(raw(STREAM_HEAD, event({"type": "response.created"}), event(passing), LAST_CHUNK))
    answers.append(await tenant.post("/v1/responses", {"model": tenant.model, "input": "x", "stream": True}))
    answers.append(await tenant.client.get("/metrics"))
    await tenant.ledger(len(tenant.openai.requests))
    await tenant.gateway.logged(key_id=tenant.key_id, operation="responses")
    needle = (secret[:20] if "..." in canary else canary).casefold()
    assert needle not in travelled(tenant.gateway, *answers)
    assert needle not in told.casefold()
    rows = await tenant.gateway.sql("SELECT * FROM tollway.ledger WHERE key_id = $1", tenant.key_id)
    assert needle not in repr(rows).casefold()
    for kept in (repr(rows), told):
        assert "It broke at ***" in kept and ", sorry" in kept, "the rest of the sentence is there"


async def test_a_prompt_that_a_provider_repeats_is_in_no_log_and_no_ledger(tenant: Tenant) -> None:
    canary = f"my dog is called {secrets.token_hex(3)} and nobody may know that"
    detail = [{"loc": ["body", "messages"], "msg": "bad", "input": canary}]

    def answers() -> Iterator[Answer]:
        yield lambda request: error(500, f"Failed to parse input at pos 7: {request.body.decode()}")(request)
        yield error(400, f"Unexpected text: {canary}")
        yield error(500, f"[{{'msg': 'Field required', 'input': '{canary}'}}]")
        yield reply(422, {"detail": detail})
        yield error(503, f"no room for '{canary[:30]}")

    for answer in answers():
        tenant.openai.answers(answer)
        await tenant.chat(content=canary)
    rows = await tenant.ledger(len(tenant.openai.requests))
    assert all("It said: " in row["cause"] for row in rows)
    for text in (repr(rows), tenant.gateway.stderr):
        assert canary[17:40] not in text
        assert canary[:30] not in text


async def test_what_a_provider_says_of_the_platforms_account_is_for_the_operator(start_gateway: StartGateway) -> None:
    gateway = start_gateway(OPENAI_API_KEY="sk-platform-" + secrets.token_hex(12))
    account = gateway.openai.account(gateway.settings["OPENAI_API_KEY"])
    tenant = await new_tenant(gateway)
    await gateway.save_keys(tenant.key, openaiKey="")
    tenant.openai = account
    spent = {"message": "You exceeded your current quota of 500 dollars", "type": "insufficient_quota"}
    limit = {"message": "Rate limit reached for gpt in organization Acme Widgets", "code": "rate_limit_exceeded"}
    for failure, code in ((spent, "insufficient_quota"), (limit, "rate_limit_exceeded")):
        told = await midway(tenant, {"error": failure})
        assert told["code"] == code
        assert "dollars" not in json.dumps(told) and "Acme" not in json.dumps(told)
    told = await midway(tenant, {"error": {"message": "slow down, please", "code": "rate_limit_exceeded"}})
    assert told["message"] == "slow down, please"
    account.answers(error(401, "Incorrect API key provided for Acme Widgets"))
    refused = await tenant.chat()
    assert "the provider refused the gateway's credential" in refused.error["message"]
    rows = await tenant.ledger(4)
    assert sum("Acme Widgets" in row["cause"] for row in rows) == 2, "who runs the gateway reads it"
    await gateway.save_keys(tenant.key, openaiKey=account.secret)
    assert "500 dollars" in (await midway(tenant, {"error": spent}))["message"], "its own account is its own business"


# A prompt that does not fit


LLAMA = "request (4267 tokens) exceeds the available context size (4096 tokens), try increasing it"
LLAMA_ERROR = {
    "code": 400,
    "message": LLAMA,
    "type": "exceed_context_size_error",
    "n_prompt_tokens": 4267,
    "n_ctx": 4096,
}
EXCEEDED = {"code": 500, "message": "Context size has been exceeded.", "type": "server_error"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "failure"), [(400, LLAMA_ERROR), (400, EXCEEDED), (500, EXCEEDED)], ids=["400", "400 midway", "500"]
)
async def test_a_prompt_that_does_not_fit_is_told_in_openais_words(
    tenant: Tenant, status: int, failure: dict[str, Any], stream: bool
) -> None:
    tenant.openai.answers(reply(status, {"error": failure}))
    refused = await tenant.chat(tenant.pair, stream=stream)
    assert refused.refusal == (400, "context_length_exceeded")
    assert (refused.error["param"], refused.error["type"]) == ("messages", "invalid_request_error")
    assert refused.error["message"] == failure["message"], "clients know the server's own words, too"
    assert len(tenant.openai.requests) == 1 and tenant.mistral.requests == []


async def test_in_mid_stream_it_is_told_so_too(tenant: Tenant) -> None:
    told = await midway(tenant, {"error": EXCEEDED})
    assert told == {
        "message": EXCEEDED["message"],
        "type": "invalid_request_error",
        "param": "messages",
        "code": "context_length_exceeded",
    }
    (row,) = await tenant.ledger(1)
    assert row["outcome"] == "context_length_exceeded"


async def test_prompts_that_do_not_fit_say_nothing_of_the_servers_health(tenant: Tenant) -> None:
    tenant.openai.answers(reply(500, {"error": EXCEEDED}))
    for _ in range(30):
        assert (await tenant.chat(tenant.pair)).status == 400
    tenant.openai.answers(openai_reply("still the first"))
    assert (await tenant.chat(tenant.pair)).text == "still the first"


# An account without money


BROKE = reply(
    402, {"error": {"message": "Insufficient Balance", "type": "unknown_error", "code": "invalid_request_error"}}
)
LOW = error(400, "Your credit balance is too low to access the API. Please go to Plans & Billing to purchase credits.")


@pytest.mark.parametrize("answer", [BROKE, LOW], ids=["402", "400"])
async def test_without_money_the_next_model_answers(tenant: Tenant, answer: Answer) -> None:
    tenant.openai.answers(answer)
    tenant.mistral.answers(mistral_reply("from Mistral"))
    assert (await tenant.chat(tenant.pair)).text == "from Mistral"
    rows = await tenant.ledger(2)
    assert rows[0]["outcome"] == "quota_exhausted"
    assert rows[0]["cause"].startswith("The API key's own account at openai has no money or no quota left. It said: ")
    assert (await tenant.chat(tenant.pair)).text == "from Mistral"
    assert len(tenant.openai.requests) == 1, "the account rests"


@pytest.mark.parametrize("answer", [BROKE, LOW], ids=["402", "400"])
async def test_where_no_model_is_left_it_is_insufficient_quota(tenant: Tenant, answer: Answer) -> None:
    tenant.openai.answers(answer)
    refused = await tenant.chat()
    assert refused.refusal == (429, "insufficient_quota")
    assert refused.header("x-should-retry") == "false"
    assert refused.header("retry-after") is None
    assert "the API key's own account at openai has no quota left" in refused.error["message"]
    line = await tenant.gateway.logged(call_id=refused.header("x-request-id"), outcome="quota_exhausted")
    assert "money" in line["cause"]


# A rate limit without a time


@pytest.mark.parametrize(
    "headers",
    [{}, {"retry-after": "soon"}, {"retry-after": ""}, {"retry-after": "nan"}],
    ids=str,
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_providers_429_without_a_usable_time_may_be_tried_again_soon(
    tenant: Tenant, headers: dict[str, str], stream: bool
) -> None:
    tenant.openai.answers(error(429, headers=headers), openai_reply())
    refused = await tenant.chat(stream=stream)
    assert refused.refusal == (429, "rate_limit_exceeded")
    assert (refused.header("retry-after"), refused.header("retry-after-ms")) == ("1", "1000")
    assert refused.header("x-should-retry") is None
    assert (await tenant.chat()).status == 200


@pytest.mark.parametrize("told", ["0", "-3", "Wed, 21 Oct 2015 07:28:00 GMT"])
async def test_a_time_that_is_over_is_a_second_and_is_waited_out_once(tenant: Tenant, told: str) -> None:
    tenant.openai.answers(error(429, headers={"retry-after": told}))
    refused = await tenant.chat()
    assert (refused.status, refused.header("retry-after")) == (429, "1")
    first, second = tenant.openai.requests
    assert second.at - first.at >= 0.95


# Whose key, and which target


async def test_a_tenants_own_refused_key_reads_so(tenant: Tenant) -> None:
    tenant.openai.answers(error(401, "Incorrect API key provided"))
    refused = await tenant.chat()
    assert refused.refusal == (502, "upstream_auth_error")
    text = "the provider refused the API key's own provider key for openai"
    assert refused.error["message"] == f"No provider could answer ({tenant.model} at openai: {text})."
    (row,) = await tenant.ledger(1)
    assert row["cause"].startswith("The provider refused the API key's own provider key for openai. It said: ")
    line = await tenant.gateway.logged(call_id=refused.header("x-request-id"), outcome="credential_refused")
    assert line["cause"] == row["cause"]


async def test_a_path_without_a_model_names_the_provider_alone(tenant: Tenant) -> None:
    tenant.openai.answers(error(500))
    refused = await tenant.client.get("/v1/files", tenant.key)
    assert refused.status == 502
    message = refused.error["message"]
    assert message.startswith("No provider could answer (openai: the provider failed (status 500)"), message


# Who ended it, and when


async def test_a_hang_up_says_when_it_was(tenant: Tenant) -> None:
    before, begun, middle = Gate(), Gate(), Gate()
    stories: dict[str, tuple[Part, ...]] = {
        "before": (before,),
        "begun": (STREAM_HEAD, begun),
        "middle": (STREAM_HEAD, event({"choices": [{"index": 0, "delta": {"content": "a"}}]}), middle),
    }

    def answer(request: Received) -> Iterator[Part]:
        yield from stories[request.json["messages"][0]["content"]]

    tenant.openai.answers(answer)
    for name, gate in (("before", before), ("begun", begun), ("middle", middle)):
        async with tenant.client.connect() as wire:
            body = chat_body(tenant.model, name, stream=True)
            await wire.send(request_bytes("POST", "/v1/chat/completions", body, tenant.key))
            await gate.reached()
            for _ in range(2):
                await tenant.client.get("/livez")
            wire.reset()
    await tenant.openai.hang_ups.reaches(3)
    rows = await tenant.ledger(3)
    assert sorted(row["cause"] for row in rows) == [
        "The client hung up before anything of the answer had gone out.",
        "The client hung up before the provider's answer began.",
        "The client hung up in the middle of the answer.",
    ]


async def test_a_cut_says_who_made_it(tenant: Tenant) -> None:
    tenant.openai.answers(openai_stream(["a", HANG]))
    async with tenant.stream() as stream:
        await stream.next_text()
        await tenant.gateway.sql("UPDATE tollway.virtual_keys SET revoked_at = now() WHERE id = $1", tenant.key_id)
        await stream.events()
    (row,) = await tenant.ledger(1)
    assert row["cause"] == "The gateway ended it, as the API key was revoked, in the middle of the answer."


async def test_a_lost_connection_says_when_it_was(tenant: Tenant) -> None:
    tenant.openai.answers(openai_stream(["a", CLOSE]))
    async with tenant.stream() as stream:
        await stream.events()
    (row,) = await tenant.ledger(1)
    assert row["cause"] == "The connection ended inside the answer It was in the middle of the answer."


async def test_silence_says_when_it_was(start_gateway: StartGateway) -> None:
    gateway = start_gateway(FIRST_BYTE_TIMEOUT_S="0.4", IDLE_TIMEOUT_S="0.4")
    tenant = await new_tenant(gateway)
    tenant.openai.answers(raw(HANG))
    assert (await tenant.chat()).status == 504
    tenant.openai.answers(openai_stream(["a", HANG]))
    async with tenant.stream() as stream:
        await stream.events()
    causes = {row["cause"] for row in await tenant.ledger(2)}
    assert causes == {
        "The answer did not begin in time",
        "The answer fell silent It was in the middle of the answer.",
    }
