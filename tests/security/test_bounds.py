"""What one key, or one answer, may make the gateway do and hold: seen from outside."""

import asyncio
import json
from pathlib import Path

import pytest

from fakes.client import form, request_bytes
from fakes.fixtures import StartGateway
from fakes.gateway import Tenant, new_tenant
from fakes.upstream import Bill, Gate, error, openai_reply, openai_stream, reply

MANY = b'{"model":"m","input":[' + b"{}," * 60_000 + b"{}]}"


@pytest.mark.parametrize(
    "path", ["chat/completions", "completions", "embeddings", "moderations", "responses", "images/generations"]
)
async def test_a9_r4_a_body_of_nothing_but_structure_is_refused(tenant: Tenant, path: str) -> None:
    answer = await tenant.post(f"/v1/{path}", MANY)
    assert answer.refusal == (400, "request_too_complex")
    assert tenant.openai.requests == []


@pytest.mark.parametrize("length", [200_000, None])
@pytest.mark.parametrize(("requests", "tokens"), [(0, None), (None, 0)])
async def test_s18_a_key_that_may_do_nothing_is_refused_before_its_body_comes(
    tenant: Tenant, length: int | None, requests: int | None, tokens: int | None
) -> None:
    await tenant.limit(requests=requests, tokens=tokens)
    framing = {"content-length": str(length)} if length else {"content-length": None, "transfer-encoding": "chunked"}
    for path in ("/v1/chat/completions", "/v1/responses", "/v1/audio/transcriptions"):
        async with tenant.client.connect() as wire:
            await wire.send(request_bytes("POST", path, b"", tenant.key, framing))
            answer = await wire.reply()
            assert answer.refusal == (429, "rate_limit_exceeded")
            assert answer.header("x-should-retry") == "false"


async def test_s18_so_is_one_whose_minute_is_used_up(tenant: Tenant) -> None:
    tenant.openai.answers(openai_reply())
    await tenant.limit(requests=1, tokens=None)
    assert (await tenant.chat()).status == 200
    async with tenant.client.connect() as wire:
        await wire.send(request_bytes("POST", "/v1/chat/completions", b"", tenant.key, {"content-length": "200000"}))
        answer = await wire.reply()
        assert answer.refusal == (429, "rate_limit_exceeded")
        assert 0 < int(answer.header("retry-after")) <= 61


async def test_a9_a_large_body_is_served_as_a_small_one_is(tenant: Tenant) -> None:
    prompt = "Is {this} a [list]? \\ é 😀\n" * 100_000
    tenant.openai.answers(openai_reply("Yes"))
    tenant.mistral.answers(error(503))
    assert (await tenant.chat(content=prompt)).text == "Yes"
    assert tenant.openai.requests[0].json["messages"][0]["content"] == prompt
    async with tenant.stream(content=prompt) as stream:
        assert stream.status == 200
    assert (await tenant.post("/v1/responses", {"model": tenant.model, "input": prompt})).status == 200
    assert tenant.openai.requests[-1].json["input"] == prompt


async def test_a9_a_large_answer_is_passed_as_a_small_one_is(tenant: Tenant) -> None:
    text = "{" * 1_000_000
    tenant.openai.answers(openai_reply(text, Bill(9, 250_000)))
    tenant.mistral.answers(error(503))
    assert (await tenant.chat()).text == text
    (row,) = await tenant.ledger(1)
    assert (row["output_tokens"], row["state"]) == (250_000, "exact")


async def test_a9_r4_an_answer_of_nothing_but_structure_is_none(tenant: Tenant) -> None:
    tenant.openai.answers(reply(200, b'{"choices":[' + b"{}," * 1_100_000 + b"{}]}"))
    answer = await tenant.chat()
    assert answer.refusal == (502, "upstream_invalid_response")
    assert (await tenant.client.get("/livez")).status == 200


async def test_s18_a_key_has_so_many_calls_at_the_same_time_and_no_more(start_gateway: StartGateway) -> None:
    gateway = start_gateway(MAX_PARALLEL_PER_KEY="3")
    tenant, other = await new_tenant(gateway), await new_tenant(gateway)
    gate = Gate()
    tenant.openai.answers(openai_stream(["a", gate, "b"]))
    other.openai.answers(openai_reply())
    running = [asyncio.create_task(tenant.chat(stream=True)) for _ in range(3)]
    await gate.reached(3)
    refused = await tenant.chat()
    assert refused.refusal == (429, "rate_limit_exceeded")
    assert (refused.header("retry-after"), refused.header("x-should-retry")) == ("1", None)
    assert (await other.chat()).status == 200, "it is nobody else's limit"
    gate.open()
    assert {answer.status for answer in await asyncio.gather(*running)} == {200}
    tenant.openai.answers(openai_reply())
    assert (await tenant.chat()).status == 200, "a slot is free when the answer has ended"


async def test_s18_a_call_that_hangs_up_while_its_body_comes_gives_its_slot_back(start_gateway: StartGateway) -> None:
    gateway = start_gateway(MAX_PARALLEL_PER_KEY="1")
    tenant = await new_tenant(gateway)
    tenant.openai.answers(openai_reply())
    head = request_bytes("POST", "/v1/chat/completions", b"{", tenant.key, {"content-length": "100"})
    for leave in ("close", "reset"):
        async with gateway.client.connect() as wire:
            await wire.send(head)
            while (await tenant.chat()).status != 429:
                await asyncio.sleep(0.01)
            if leave == "reset":
                wire.reset()
        while (answer := await tenant.chat()).status == 429:
            await asyncio.sleep(0.01)
        assert answer.status == 200


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/images/generations", "/v1/responses"])
async def test_s18_what_a_provider_does_not_offer_takes_nothing_from_any_limit(tenant: Tenant, path: str) -> None:
    body = {"model": tenant.mistral_model, "input": [1, 2], "prompt": "x"}
    await tenant.limit(requests=1, tokens=100_000)
    tenant.mistral.answers(error(500))
    for _ in range(3):
        answer = await tenant.post(path, body)
        assert answer.status == 400
        assert answer.header("x-ratelimit-remaining-requests") == "1"
        assert answer.header("x-ratelimit-remaining-tokens") == "100000"
    assert tenant.mistral.requests == []


async def test_s31_an_idempotency_key_is_the_keys_own_on_a_shared_credential(start_gateway: StartGateway) -> None:
    gateway = start_gateway(OPENAI_API_KEY="sk-shared-by-everybody-1234")
    account = gateway.openai.account("sk-shared-by-everybody-1234")
    account.answers(reply(200, {"id": "x", "usage": {"input_tokens": 1, "output_tokens": 1}}))
    (one, _), (two, _) = [await gateway.new_key() for _ in range(2)]
    for key, name in ((one, "order-1"), (one, "order-1"), (one, "order-2"), (two, "order-1")):
        answer = await gateway.client.post(
            "/v1/responses", {"model": "gpt-4o", "input": "x"}, key, {"idempotency-key": name}
        )
        assert answer.status == 200
    seen = [request.header("idempotency-key") for request in account.requests]
    assert seen[0] == seen[1] and len(set(seen)) == 3
    assert not any("order" in name for name in seen)


async def test_s31_on_a_credential_of_ones_own_it_stays_as_it_is(tenant: Tenant) -> None:
    tenant.openai.answers(reply(200, {"id": "x", "usage": {"input_tokens": 1, "output_tokens": 1}}))
    body, form_headers = form(("model", "", tenant.model.encode()), ("file", "a.wav", b"RIFF"))
    await tenant.post("/v1/responses", {"model": tenant.model, "input": "x"}, {"idempotency-key": "order-1"})
    await tenant.post("/v1/audio/transcriptions", body, {**form_headers, "idempotency-key": "order-2"})
    assert [request.header("idempotency-key") for request in tenant.openai.requests] == ["order-1", "order-2"]


@pytest.mark.parametrize("journals", ["worker-*.journal", ""])
async def test_j1_a_journal_that_vanishes_is_noticed_and_nothing_is_lost(
    start_gateway: StartGateway, journals: str
) -> None:
    gateway = start_gateway()
    tenant = await new_tenant(gateway)
    tenant.openai.answers(openai_reply(bill=Bill(1000, 0)))
    directory: Path = gateway.home / "journals"
    for _ in range(3):
        for path in directory.glob(journals) if journals else [directory]:
            path.rename(path.with_name(f".{path.name}.gone")) if not journals else path.unlink()
        assert [(await tenant.chat()).status for _ in range(5)] == [200] * 5
        while "was gone or cut" not in gateway.stderr or not list(directory.glob("worker-*.journal")):
            await asyncio.sleep(0.02)
        if not journals:
            break
    await tenant.cost_becomes("0.005" if not journals else "0.015")
    errors = [json.loads(line) for line in gateway.stderr.splitlines() if '"error"' in line]
    assert all("journal" in line["message"] for line in errors)


@pytest.mark.parametrize("heals_by", ["itself", "the old one"])
async def test_j1_where_there_can_be_no_journal_calls_are_refused_until_there_can(
    start_gateway: StartGateway, heals_by: str
) -> None:
    gateway = start_gateway()
    tenant = await new_tenant(gateway)
    tenant.openai.answers(openai_reply(bill=Bill(1000, 0)))
    assert (await tenant.chat()).status == 200
    directory: Path = gateway.home / "journals"
    moved = directory.with_name("moved")
    directory.rename(moved)
    directory.touch()
    answered = 1
    while (answer := await tenant.chat()).status == 200:
        answered += 1
    assert answer.refusal == (503, "accounting_unavailable")
    ready = await gateway.client.get("/readyz")
    assert (ready.status, ready.json["status"]) == (503, "accounting_unavailable")
    directory.unlink()
    if heals_by != "itself":
        moved.rename(directory)
    while (await gateway.client.get("/readyz")).status != 200:
        await asyncio.sleep(0.02)
    assert (await tenant.chat()).status == 200
    await tenant.cost_becomes(f"{(answered + 1) / 1000:.3f}")
