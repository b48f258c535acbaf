"""What a call costs: exact for every price, billed once, and what nobody got is on the house.

The oracle is the scripted provider's own book.
"""

import asyncio
import json
from decimal import Context, Decimal, Inexact, localcontext

import pytest

from fakes.client import chat_body, request_bytes
from fakes.gateway import Tenant, totals
from fakes.upstream import (
    CLOSE,
    RESET,
    Bill,
    Gate,
    error,
    mistral_reply,
    mistral_stream,
    openai_reply,
    openai_stream,
    reply,
)

PER_1K = Decimal(1000)
EXACT = Context(prec=100, traps=[Inexact])


def price_of(bill: Bill, input_cost: str, output_cost: str) -> Decimal:
    with localcontext(EXACT):
        return (bill.input_tokens * Decimal(input_cost) + bill.output_tokens * Decimal(output_cost)) / PER_1K


@pytest.mark.parametrize(
    ("input_cost", "output_cost"),
    [
        ("0.0005", "0.0015"),
        ("0.1", "0.2"),
        ("0", "0"),
        ("123456.789", "987654.321"),
        ("0.00000000000000000001", "0.00000000000000000003"),
        ("0.3333333333333333333333333333333333", "0.1428571428571428571428571428571428571"),
    ],
)
async def test_the_total_is_exact_for_any_price(tenant: Tenant, input_cost: str, output_cost: str) -> None:
    model = await tenant.add_model(input_cost=input_cost, output_cost=output_cost)
    bill = Bill(1237, 411)
    tenant.openai.answers(openai_reply(bill=bill))
    each = price_of(bill, input_cost, output_cost)
    answer = await tenant.chat(model)
    assert Decimal(answer.header("x-tollway-cost") or "") == each
    await asyncio.gather(*(tenant.chat(model) for _ in range(6)))
    with localcontext(EXACT):
        seven = 7 * each
    await tenant.cost_becomes(seven, within_s=2)


async def test_many_small_amounts_add_up_exactly(tenant: Tenant) -> None:
    model = await tenant.add_model(input_cost="0.0001", output_cost="0.0007")
    tenant.openai.answers(openai_reply(bill=Bill(1, 1)))
    await asyncio.gather(*(tenant.chat(model) for _ in range(200)))
    assert tenant.openai.owed() == (200, 200)
    await tenant.cost_becomes("0.00016", within_s=2)


async def test_a_stream_is_billed_by_its_usage_within_two_seconds(tenant: Tenant) -> None:
    tenant.openai.answers(openai_stream(["a", "b"], Bill(1000, 2000)))
    async with tenant.stream() as stream:
        await stream.chunks()
    await tenant.cost_becomes("0.005", within_s=2)
    (row,) = await tenant.ledger(1)
    assert (row["input_tokens"], row["output_tokens"], row["stream"]) == (1000, 2000, True)
    assert row["state"] == "exact"


async def test_a_mistral_stream_is_billed_by_its_usage(tenant: Tenant) -> None:
    tenant.mistral.answers(mistral_stream(["a", "b"], Bill(1000, 2000)))
    async with tenant.stream(tenant.mistral_model) as stream:
        await stream.chunks()
    await tenant.cost_becomes("0.005", within_s=2)


async def test_it_is_on_disk_before_the_client_sees_the_end(tenant: Tenant) -> None:
    """Whoever has read the terminal event finds the call in the total within two seconds, every time."""
    tenant.openai.answers(openai_stream(["a"], Bill(1000, 0)))
    for number in range(1, 6):
        async with tenant.stream() as stream:
            await stream.chunks()
        await tenant.cost_becomes(number * Decimal("0.001"), within_s=2)


async def test_cached_input_costs_its_own_price(tenant: Tenant) -> None:
    model = await tenant.add_model(input_cost="0.01", output_cost="0")
    edit = "UPDATE tollway.models SET cached_input_cost_per_1k = 0.001 WHERE name = $1"
    await tenant.gateway.sql(edit, model)
    await tenant.gateway.configuration_is_live()
    tenant.openai.answers(openai_reply(bill=Bill(1000, 5, cached_input_tokens=400)))
    assert (await tenant.chat(model)).status == 200
    await tenant.cost_becomes("0.0064", within_s=2)


async def test_every_attempt_is_in_the_ledger_and_failed_ones_are_on_the_house(tenant: Tenant) -> None:
    tenant.openai.answers(error(500))
    tenant.mistral.answers(mistral_reply(bill=Bill(1000, 1000)))
    answer = await tenant.chat(tenant.pair)
    failed, good = await tenant.ledger(2)
    assert failed["call_id"] == good["call_id"]
    assert (failed["attempt"], good["attempt"]) == (1, 2)
    assert (failed["provider"], good["provider"]) == ("openai", "mistral")
    assert (failed["charged"], good["charged"]) == (False, True)
    assert failed["outcome"] != "ok" and good["outcome"] == "ok"
    assert Decimal(answer.header("x-tollway-cost") or "") == good["cost"] == Decimal("0.003")
    await tenant.cost_becomes("0.003")


async def test_an_attempt_that_the_provider_billed_but_nobody_got_is_visible_and_not_charged(tenant: Tenant) -> None:
    def billed_nonsense(request):
        request.bill(Bill(50, 60))
        usage = {"prompt_tokens": 50, "completion_tokens": 60, "total_tokens": 110}
        return reply(200, {"id": "x", "object": "chat.completion", "choices": "nonsense", "usage": usage})(request)

    tenant.openai.answers(billed_nonsense)
    tenant.mistral.answers(mistral_reply(bill=Bill(1000, 0)))
    await tenant.chat(tenant.pair)
    failed, good = await tenant.ledger(2)
    assert not failed["charged"] and good["charged"]
    await tenant.cost_becomes("0.001")


async def test_refusals_are_not_in_the_ledger(tenant: Tenant) -> None:
    tenant.openai.answers(openai_reply(bill=Bill(1000, 0)))
    await tenant.limit(requests=1)
    await tenant.chat("no-such-model")
    await tenant.post("/v1/chat/completions", b"{")
    assert [(await tenant.chat()).status for _ in range(3)] == [200, 429, 429]
    await tenant.cost_becomes("0.001")
    assert len(await tenant.ledger(1)) == 1


async def test_a_reply_without_usage_passes_unchanged_and_is_billed_by_estimate(tenant: Tenant) -> None:
    document = (
        b'{"id":"x","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,'
        b'"message":{"role":"assistant","content":"a short answer"},"finish_reason":"stop"}],"extra":  1}'
    )
    tenant.openai.answers(reply(200, document))
    answer = await tenant.chat(content="word " * 100)
    assert answer.body == document
    (row,) = await tenant.ledger(1)
    assert row["state"] == "estimated"
    assert row["input_tokens"] >= 100 and row["output_tokens"] >= 3
    assert row["cost"] > 0
    await tenant.cost_becomes(row["cost"])


@pytest.mark.parametrize("ending", [RESET, CLOSE])
async def test_a_stream_that_broke_is_billed_for_what_came(tenant: Tenant, ending: object) -> None:
    gate = Gate()
    tenant.openai.answers(openai_stream(["word "] * 50 + [gate, ending]))
    async with tenant.stream(content="word " * 100) as stream:
        for _ in range(50):
            await stream.next_text()
        gate.open()
        await stream.events()
    (row,) = await tenant.ledger(1)
    assert row["state"] in ("partial", "estimated")
    assert row["outcome"] != "ok"
    assert row["charged"]
    assert row["output_tokens"] >= 50 and row["input_tokens"] >= 100
    assert row["output_tokens"] <= 4 * 50, "an estimate, not a punishment"
    await tenant.cost_becomes(row["cost"])


async def test_a_client_that_hangs_up_is_billed_for_what_was_produced(tenant: Tenant) -> None:
    gate = Gate()
    tenant.openai.answers(openai_stream(["word "] * 50 + [gate]))
    async with tenant.stream(content="word " * 100) as stream:
        await gate.reached()
        for _ in range(50):
            await stream.next_text()
    await tenant.openai.hang_ups.reaches(1)
    (row,) = await tenant.ledger(1)
    assert row["outcome"] == "client_gone"
    assert row["state"] in ("partial", "estimated")
    assert row["output_tokens"] >= 50 and row["input_tokens"] >= 100
    await tenant.cost_becomes(row["cost"])


async def test_a_client_that_hangs_up_before_the_answer_is_in_the_ledger_too(tenant: Tenant) -> None:
    gate = Gate()
    tenant.openai.answers(lambda request: [gate, *openai_reply()(request)])
    async with tenant.client.connect() as wire:
        await wire.send(request_bytes("POST", "/v1/chat/completions", chat_body(tenant.model), tenant.key))
        await gate.reached()
    await tenant.openai.hang_ups.reaches(1)
    (row,) = await tenant.ledger(1)
    assert row["outcome"] == "client_gone"


async def test_a_hundred_clients_that_hang_up_are_all_in_the_books(tenant: Tenant) -> None:
    gate = Gate()
    tenant.openai.answers(openai_stream(["word ", gate]))

    async def visit() -> None:
        async with tenant.stream() as stream:
            await stream.next_text()
            await gate.reached(100)

    await asyncio.gather(*(visit() for _ in range(100)))
    await tenant.openai.hang_ups.reaches(100)
    rows = await tenant.ledger(100)
    assert len({row["call_id"] for row in rows}) == 100
    await tenant.cost_becomes(sum(row["cost"] for row in rows))


async def test_the_ledger_equals_the_providers_books(tenant: Tenant) -> None:
    tenant.openai.answers(*(openai_reply(bill=Bill(10 + number, 2 * number)) for number in range(30)))
    await asyncio.gather(*(tenant.chat() for _ in range(30)))
    assert totals(await tenant.ledger(30)) == tenant.openai.owed()
    await tenant.cost_becomes(
        sum(price_of(bill, "0.001", "0.002") for bill in tenant.openai.book),
    )


async def test_a_price_change_does_not_touch_calls_that_run(tenant: Tenant) -> None:
    gate = Gate()
    tenant.openai.answers(openai_stream(["a", gate, "b"], Bill(1000, 0)), openai_reply(bill=Bill(1000, 0)))
    async with tenant.stream() as stream:
        await stream.next_text()
        edit = 'UPDATE "LLMModels" SET "inputCostPer1k" = 100 WHERE name = $1'
        await tenant.gateway.sql(edit, tenant.model)
        await tenant.gateway.configuration_is_live()
        gate.open()
        await stream.chunks()
    await tenant.cost_becomes("0.001")
    assert (await tenant.chat()).header("x-tollway-cost") == "100"
    await tenant.cost_becomes("100.001")


async def test_an_unknown_price_is_visible_and_not_silently_zero(tenant: Tenant) -> None:
    model = await tenant.add_model(input_cost=None, output_cost=None)
    tenant.openai.answers(openai_reply(bill=Bill(1000, 1000)))
    answer = await tenant.chat(model)
    assert answer.status == 200
    assert answer.header("x-tollway-cost") is None
    (row,) = await tenant.ledger(1)
    assert row["priced"] is False
    assert (row["input_tokens"], row["output_tokens"]) == (1000, 1000)


async def test_a_model_of_the_builtin_list_has_its_price(tenant: Tenant) -> None:
    tenant.openai.answers(openai_reply(bill=Bill(1000, 0)))
    answer = await tenant.chat("gpt-4o-mini")
    assert answer.status == 200
    assert Decimal(answer.header("x-tollway-cost") or "0") > 0


LIES = {
    "negative": {"prompt_tokens": -5, "completion_tokens": -7, "total_tokens": -12},
    "huge": {"prompt_tokens": 10**18, "completion_tokens": 10**18, "total_tokens": 2 * 10**18},
    "float": {"prompt_tokens": 1.5, "completion_tokens": 2.5, "total_tokens": 4.0},
    "text": {"prompt_tokens": "9", "completion_tokens": "3", "total_tokens": "12"},
    "null": {"prompt_tokens": None, "completion_tokens": None, "total_tokens": None},
    "list": [1, 2, 3],
    "empty": {},
    "more cached than sent": {
        "prompt_tokens": 5,
        "completion_tokens": 1,
        "total_tokens": 6,
        "prompt_tokens_details": {"cached_tokens": 500},
    },
}


@pytest.mark.parametrize("lie", list(LIES))
async def test_usage_that_cannot_be_true_never_gives_money_away(tenant: Tenant, lie: str) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "Bonjour"}, "finish_reason": "stop"}
    document = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    tenant.openai.answers(reply(200, {**document, "usage": LIES[lie]}))
    assert (await tenant.chat(content="word " * 20)).text == "Bonjour"
    (row,) = await tenant.ledger(1)
    assert row["cost"] >= 0
    assert row["input_tokens"] >= 0 and row["output_tokens"] >= 0
    assert row["input_tokens"] + row["output_tokens"] <= 10**9, "no honest call is that large"
    if lie not in ("more cached than sent",):
        assert row["state"] == "estimated"
    await tenant.cost_becomes(row["cost"])


async def test_an_adjustment_in_psql_moves_the_total_and_is_in_the_ledger(tenant: Tenant) -> None:
    tenant.openai.answers(openai_reply(bill=Bill(1000, 0)))
    await tenant.chat()
    await tenant.cost_becomes("0.001")
    await tenant.gateway.sql('UPDATE "Users" SET "totalCost" = 0 WHERE id = $1', tenant.key_id)
    await tenant.cost_becomes("0")
    rows = await tenant.ledger(2)
    assert sum(row["cost"] for row in rows) == 0
    await tenant.chat()
    await tenant.cost_becomes("0.001")


async def test_usage_reports_it_on_the_command_line(tenant: Tenant) -> None:
    tenant.openai.answers(openai_reply(bill=Bill(1000, 500)))
    await tenant.chat()
    await tenant.cost_becomes("0.002")
    done = await asyncio.to_thread(tenant.gateway.command, "usage", "--json")
    assert done.returncode == 0, done
    assert tenant.key_id in json.dumps(json.loads(done.stdout))
