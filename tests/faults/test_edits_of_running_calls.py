"""Edits while calls run: what runs goes on as it began, what comes next goes by the new rows.

Names begin with the rows of docs/faults.md.
"""

import asyncio

import pytest

from fakes.gateway import Tenant
from fakes.upstream import Bill, Gate, Upstream, openai_reply, openai_stream


@pytest.mark.parametrize("with_its_provider", [False, True])
async def test_f2_a_target_that_is_deleted_while_it_streams_finishes_and_gets_no_new_call(
    tenant: Tenant, with_its_provider: bool
) -> None:
    gate = Gate()
    with Upstream() as other:
        provider = await tenant.add_provider(other.url, wants_key=False)
        model = await tenant.add_model(provider)
        account = other.for_anyone(openai_stream(["before ", gate, "after"], Bill(1000, 5)))
        async with tenant.stream(model) as stream:
            assert await stream.next_text() == "before "
            await tenant.gateway.sql("DELETE FROM tollway.models WHERE name = $1", model)
            if with_its_provider:
                await tenant.gateway.sql("DELETE FROM tollway.providers WHERE name = $1", provider)
            await tenant.gateway.configuration_is_live()
            assert (await tenant.chat(model)).refusal == (400, "model_not_found")
            gate.open()
            assert await stream.next_text() == "after"
            assert (await stream.events())[-1] == "[DONE]"
        assert len(account.requests) == 1
    (row,) = await tenant.ledger(1)
    assert (row["outcome"], row["state"], row["input_tokens"], row["output_tokens"]) == ("ok", "exact", 1000, 5)
    await tenant.cost_becomes("0.00101")


async def test_f8_a_provider_key_that_is_replaced_under_load_fails_nothing_and_is_used_no_more(tenant: Tenant) -> None:
    gate = Gate()
    old, new = tenant.openai, tenant.gateway.openai.account()
    old.answers(openai_stream(["before ", gate, "after"]), openai_reply("by the old"))
    new.answers(openai_reply("by the new"))
    enough = asyncio.Event()

    async def keep_asking() -> list[str]:
        texts = []
        while not enough.is_set():
            texts.append((await tenant.chat()).text)
        return texts

    async with tenant.stream() as stream:
        assert await stream.next_text() == "before "
        asking = [asyncio.create_task(keep_asking()) for _ in range(4)]
        await old.seen.reaches(20)
        saved = await tenant.gateway.save_keys(tenant.key, openaiKey=new.secret)
        assert saved.status == 200
        await new.seen.reaches(20)
        enough.set()
        texts = [text for each in await asyncio.gather(*asking) for text in each]
        asked_of_the_old = len(old.requests)
        for _ in range(20):
            assert (await tenant.chat()).text == "by the new"
        gate.open()
        assert await stream.next_text() == "after", "what runs goes on with the old one"
        assert (await stream.events())[-1] == "[DONE]"
    assert set(texts) == {"by the old", "by the new"}
    assert len(old.requests) == asked_of_the_old
    assert tenant.gateway.openai.strangers == []
    rows = await tenant.ledger(len(old.requests) + len(new.requests))
    assert {row["outcome"] for row in rows} == {"ok"}
