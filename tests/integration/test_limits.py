"""Limits per minute, counted by what reaches the provider: exactly so many, whatever comes at once."""

import asyncio
from collections import Counter

import pytest

from fakes.client import chat_body, request_bytes
from fakes.gateway import Tenant
from fakes.upstream import Bill, Gate, error, mistral_reply, openai_reply, openai_stream, raw, reply


async def test_50_allowed_and_300_at_once_lets_exactly_50_reach_the_provider(tenant: Tenant) -> None:
    gate = Gate()
    tenant.openai.answers(lambda request: [gate, *openai_reply()(request)])
    await tenant.limit(requests=50, tokens=None)
    calls = [asyncio.create_task(tenant.chat()) for _ in range(300)]
    await gate.reached(50)
    gate.open()
    answers = await asyncio.gather(*calls)
    assert Counter(answer.status for answer in answers) == {200: 50, 429: 250}
    assert len(tenant.openai.requests) == 50
    assert {answer.refusal for answer in answers if answer.status != 200} == {(429, "rate_limit_exceeded")}


async def test_tokens_at_once_are_reserved_at_their_worst_case(tenant: Tenant) -> None:
    gate = Gate()
    tenant.openai.answers(lambda request: [gate, *openai_reply(bill=Bill(10, 100))(request)])
    await tenant.limit(requests=None, tokens=10_000)
    calls = [asyncio.create_task(tenant.chat(max_tokens=980)) for _ in range(30)]
    await gate.reached(9)  # each holds 980 and its short prompt
    gate.open()
    answers = await asyncio.gather(*calls)
    served = [answer for answer in answers if answer.status == 200]
    assert 9 <= len(served) == len(tenant.openai.requests) <= 10
    assert all(answer.status in (200, 429) for answer in answers)


async def test_tokens_are_settled_to_the_truth(tenant: Tenant) -> None:
    tenant.openai.answers(openai_reply(bill=Bill(10, 10)))
    await tenant.limit(requests=None, tokens=2000)
    statuses = [(await tenant.chat(max_tokens=1500)).status for _ in range(20)]
    assert statuses == [200] * 20, "20 tokens each, although 1,500 are reserved for a moment"


async def test_a_stream_is_settled_to_the_truth(tenant: Tenant) -> None:
    tenant.openai.answers(openai_stream(["a", "b"], Bill(10, 10)))
    await tenant.limit(requests=None, tokens=2000)
    for _ in range(5):
        async with tenant.stream(max_tokens=1500) as stream:
            assert stream.status == 200
            await stream.chunks()


async def test_a_request_without_a_cap_reserves_the_assumed_output(tenant: Tenant) -> None:
    gate = Gate()
    tenant.openai.answers(lambda request: [gate, *openai_reply()(request)])
    await tenant.limit(requests=None, tokens=2000)
    first = asyncio.create_task(tenant.chat())
    await gate.reached()
    assert (await tenant.chat()).status == 429, "1,024 are held for the first"
    gate.open()
    assert (await first).status == 200
    assert (await tenant.chat()).status == 200


async def test_a_failed_call_gives_its_tokens_back_and_counts_as_one_request(tenant: Tenant) -> None:
    tenant.openai.answers(error(400), error(400), openai_reply())
    await tenant.limit(requests=3, tokens=2000)
    assert [(await tenant.chat(max_tokens=1500)).status for _ in range(4)] == [400, 400, 200, 429]


async def test_one_request_counts_once_however_many_attempts_it_took(tenant: Tenant) -> None:
    tenant.openai.answers(error(500))
    tenant.mistral.answers(mistral_reply())
    await tenant.limit(requests=2, tokens=None)
    statuses = [(await tenant.chat(tenant.pair)).status for _ in range(3)]
    assert statuses == [200, 200, 429]
    assert len(tenant.openai.requests) == len(tenant.mistral.requests) == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_gives_back_what_it_did_not_use(tenant: Tenant, stream: bool) -> None:
    never = Gate()
    answer = openai_stream(["a", never]) if stream else raw(never)
    tenant.openai.answers(answer, openai_reply())
    await tenant.limit(requests=None, tokens=2000)
    async with tenant.client.connect() as wire:
        body = chat_body(tenant.model, max_tokens=1500, stream=stream)
        await wire.send(request_bytes("POST", "/v1/chat/completions", body, tenant.key))
        await never.reached()
        assert (await tenant.chat(max_tokens=1500)).status == 429
    await tenant.openai.hang_ups.reaches(1)
    await tenant.ledger(1)  # settled
    assert (await tenant.chat(max_tokens=1500)).status == 200


async def test_no_limit_is_no_limit(tenant: Tenant) -> None:
    tenant.openai.answers(openai_reply())
    answers = await asyncio.gather(*(tenant.chat(max_tokens=1_000_000) for _ in range(100)))
    assert {answer.status for answer in answers} == {200}
    assert answers[0].header("x-ratelimit-limit-requests") is None


async def test_answers_count_down(tenant: Tenant) -> None:
    tenant.openai.answers(openai_reply(bill=Bill(10, 10)))
    await tenant.limit(requests=5, tokens=10_000)
    answers = [await tenant.chat() for _ in range(3)]
    assert [answer.header("x-ratelimit-limit-requests") for answer in answers] == ["5"] * 3
    assert [answer.header("x-ratelimit-remaining-requests") for answer in answers] == ["4", "3", "2"]
    assert answers[0].header("x-ratelimit-limit-tokens") == "10000"
    remaining = [int(answer.header("x-ratelimit-remaining-tokens") or "") for answer in answers]
    assert remaining[0] > remaining[1] > remaining[2]
    for answer in answers:
        assert (answer.header("x-ratelimit-reset-requests") or "")[-1] == "s"
        assert (answer.header("x-ratelimit-reset-tokens") or "")[-1] == "s"


async def test_a_providers_own_limits_are_not_shown_as_ours(tenant: Tenant) -> None:
    tenant.openai.answers(
        lambda request: reply(
            200,
            b"".join(part for part in openai_reply()(request) if isinstance(part, bytes)).partition(b"\r\n\r\n")[2],
            {"x-ratelimit-limit-requests": "10000", "x-ratelimit-remaining-requests": "9999"},
        )(request)
    )
    await tenant.limit(requests=5, tokens=None)
    answer = await tenant.chat()
    assert answer.header("x-ratelimit-limit-requests") == "5"
    assert answer.header("x-ratelimit-remaining-requests") == "4"


async def test_keys_do_not_share_their_limits(tenant: Tenant) -> None:
    tenant.openai.answers(openai_reply())
    await tenant.limit(requests=1)
    other, _ = await tenant.gateway.new_key()
    await tenant.gateway.save_keys(other, openaiKey=tenant.openai.secret)
    assert (await tenant.chat()).status == 200
    assert (await tenant.chat()).status == 429
    assert (await tenant.client.chat(other, tenant.model)).status == 200


async def test_a_raised_limit_counts_what_was_used_before(tenant: Tenant) -> None:
    tenant.openai.answers(openai_reply())
    await tenant.limit(requests=2)
    assert [(await tenant.chat()).status for _ in range(3)] == [200, 200, 429]
    await tenant.limit(requests=3)
    assert [(await tenant.chat()).status for _ in range(2)] == [200, 429]
