"""What providers say that they used, through the whole gateway: the entry's tokens, its cost, and how sure it is."""

import json
from decimal import Decimal
from typing import Any

import pytest

from fakes.client import Reply
from fakes.gateway import Tenant
from fakes.upstream import CLOSE, LAST_CHUNK, STREAM_HEAD, Answer, Part, http_chunk, raw, reply

TEXT = "one two three"
CHOICE = {"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}


def answer(usage: Any, **more: Any) -> Answer:
    document = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1760000000, "model": "up"}
    return reply(200, {**document, "choices": [CHOICE], "usage": usage, **more})


def stream(*chunks: Any, end: Part = LAST_CHUNK) -> Answer:
    """Chunks with these members; the last sign is ``[DONE]`` unless it ends otherwise."""
    document = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1760000000, "model": "up"}
    frames = [http_chunk(b"data: %b\n\n" % json.dumps({**document, **chunk}).encode()) for chunk in chunks]
    done = [http_chunk(b"data: [DONE]\n\n")] if end == LAST_CHUNK else []
    return raw(STREAM_HEAD, *frames, *done, end)


def says(reason: str | None = None, usage: Any = None, **delta: Any) -> dict[str, Any]:
    told = {} if usage is None else {"usage": usage}
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}], **told}


async def cached_model(tenant: Tenant) -> str:
    """A model at 0.001 and 0.002 US dollars per 1,000 tokens, 0.0001 for what was cached."""
    model = await tenant.add_model()
    edit = "UPDATE tollway.models SET cached_input_cost_per_1k = 0.0001 WHERE name = $1"
    await tenant.gateway.sql(edit, model)
    await tenant.gateway.configuration_is_live()
    return model


def usage_of(prompt: int, completion: int, total: int, reasoning: int = 0, cached: int = 0) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": total,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


@pytest.mark.parametrize(
    ("usage", "tokens", "cost", "doubt"),
    [
        (usage_of(20, 151, 553, reasoning=382), (20, 533, 382), "0.001086", None),
        (usage_of(10120, 1499, 14428, reasoning=2809, cached=128), (10120, 4308, 2809), "0.0186208", None),
        (usage_of(21, 0, 81, reasoning=60), (21, 60, 60), "0.000141", None),
        (
            {"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": 623},
            (20, 603, 0),
            "0.001226",
            "total_differs",
        ),
        ({"prompt_tokens": 35, "total_tokens": 67}, (35, 32, 0), "0.000099", None),
        (usage_of(5, 7, 12, cached=9), (5, 7, 0), "0.0000145", "parts_exceed_whole"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_the_total_decides(
    tenant: Tenant, usage: Any, tokens: tuple[int, int, int], cost: str, doubt: str | None, streamed: bool
) -> None:
    model = await cached_model(tenant)
    if streamed:
        tenant.openai.answers(stream(says(content=TEXT), says("stop"), {"choices": [], "usage": usage}))
        async with tenant.stream(model) as events:
            await events.chunks()
    else:
        tenant.openai.answers(answer(usage))
        got = await tenant.chat(model)
        assert Decimal(got.header("x-tollway-cost") or "") == Decimal(cost)
    (row,) = await tenant.ledger(1)
    assert (row["input_tokens"], row["output_tokens"], row["reasoning_tokens"]) == tokens
    assert (row["cost"], row["state"], row["doubt"]) == (Decimal(cost), "exact", doubt)


@pytest.mark.parametrize(
    "spelling",
    [
        {"prompt_cache_hit_tokens": 90_000, "prompt_cache_miss_tokens": 10_000},
        {"cached_tokens": 90_000},
        {"prompt_tokens_details": {"cached_tokens": 90_000}},
    ],
)
async def test_what_was_cached_costs_its_price_in_every_spelling(tenant: Tenant, spelling: dict[str, Any]) -> None:
    """The completion of 0 tokens beside a text is what was told, and in doubt."""
    model = await cached_model(tenant)
    tenant.openai.answers(answer({**usage_of(100_000, 0, 100_000), "prompt_tokens_details": None, **spelling}))
    got = await tenant.chat(model)
    assert got.header("x-tollway-cost") == "0.019"
    (row,) = await tenant.ledger(1)
    assert (row["input_tokens"], row["cached_input_tokens"], row["output_tokens"]) == (100_000, 90_000, 0)
    assert (row["cost"], row["state"], row["doubt"]) == (Decimal("0.019"), "exact", "output_untold")


ZEROS = usage_of(0, 0, 0)


@pytest.mark.parametrize("streamed", [False, True])
async def test_zeros_beside_a_text_are_no_count(tenant: Tenant, streamed: bool) -> None:
    if streamed:
        pieces = [says(role="assistant", usage=ZEROS), says(content="one two three four", usage=ZEROS)]
        tenant.openai.answers(stream(*pieces, says("stop", ZEROS, content=" five")))
        async with tenant.stream(content="word " * 100) as events:
            await events.chunks()
    else:
        tenant.openai.answers(answer(ZEROS))
        got: Reply = await tenant.chat(content="word " * 100)
        assert Decimal(got.header("x-tollway-cost") or "") > 0
    (row,) = await tenant.ledger(1)
    assert row["state"] == "estimated"
    assert row["input_tokens"] >= 100 and row["output_tokens"] >= 3 and row["cost"] > 0


@pytest.mark.parametrize("ends", [True, False])
async def test_a_usage_before_the_text_is_interim(tenant: Tenant, ends: bool) -> None:
    early = says(role="assistant", content="", usage=usage_of(1000, 1, 1001))
    pieces = [early, *[says(content="word " * 80)] * 10]
    tenant.openai.answers(stream(*pieces, says("stop")) if ends else stream(*pieces, end=CLOSE))
    async with tenant.stream() as events:
        await events.events()
    (row,) = await tenant.ledger(1)
    assert (row["input_tokens"], row["output_tokens"], row["doubt"]) == (1000, 1000, "interim_usage")
    assert row["state"] == ("estimated" if ends else "partial")


@pytest.mark.parametrize("where", ["choice", "x_groq"])
async def test_a_usage_beside_the_reason_to_end_is_read(tenant: Tenant, where: str) -> None:
    usage = {"usage": usage_of(1000, 200, 1200)}
    last = says("stop")
    if where == "choice":
        last["choices"][0] |= usage
    else:
        last["x_groq"] = {"id": "req_1", **usage}
    tenant.openai.answers(stream(says(content="word "), last))
    async with tenant.stream() as events:
        await events.events()
    (row,) = await tenant.ledger(1)
    assert (row["input_tokens"], row["output_tokens"], row["state"], row["doubt"]) == (1000, 200, "exact", None)


@pytest.mark.parametrize(
    ("usage", "output", "doubt"),
    [({"total_tokens": 5000}, None, "split_untold"), ({"prompt_tokens": 4900}, 4, "output_untold")],
)
async def test_one_count_alone_is_kept(tenant: Tenant, usage: Any, output: int | None, doubt: str) -> None:
    tenant.openai.answers(answer(usage))
    await tenant.chat()
    (row,) = await tenant.ledger(1)
    assert row["input_tokens"] + row["output_tokens"] == (5000 if output is None else 4900 + output)
    assert (row["state"], row["doubt"]) == ("estimated", doubt)


async def test_a_usage_beside_the_text_has_counted_it(tenant: Tenant) -> None:
    pieces = [says(content="word " * 80, usage=usage_of(1000, 100 * number, 1000 + 100 * number)) for number in (1, 2)]
    tenant.openai.answers(stream(*pieces, says("stop")))
    async with tenant.stream() as events:
        await events.events()
    (row,) = await tenant.ledger(1)
    assert (row["output_tokens"], row["state"], row["doubt"]) == (200, "exact", None)


async def test_a_prompt_of_nothing_is_estimated_and_the_output_is_what_was_told(tenant: Tenant) -> None:
    tenant.openai.answers(answer(usage_of(0, 40, 40)))
    await tenant.chat(content="word " * 100)
    (row,) = await tenant.ledger(1)
    assert row["input_tokens"] >= 100
    assert (row["output_tokens"], row["state"], row["doubt"]) == (40, "estimated", "prompt_untold")


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
async def test_thoughts_of_a_stream_that_is_cut_are_billed_under_either_name(tenant: Tenant, name: str) -> None:
    thoughts = "think " * 200
    pieces = [says(role="assistant", **{name: thoughts}), says(**{name: thoughts})]
    tenant.openai.answers(stream(*pieces, end=CLOSE))
    async with tenant.stream() as events:
        await events.events()
    (row,) = await tenant.ledger(1)
    assert (row["output_tokens"], row["state"]) == (600, "partial")


async def test_rare_buckets_are_in_the_entry(tenant: Tenant) -> None:
    details = {"cached_tokens": 0, "cache_write_tokens": 99_000}
    tenant.openai.answers(answer({**usage_of(100_000, 1000, 101_000), "prompt_tokens_details": details}))
    await tenant.chat()
    (row,) = await tenant.ledger(1)
    assert (row["input_tokens"], row["cached_input_tokens"], row["output_tokens"]) == (100_000, 0, 1000)
    assert (json.loads(row["others"]), row["cost"]) == ({"cache_write": 99_000}, Decimal("0.102"))


@pytest.mark.parametrize(("tier", "kept"), [("priority", "priority"), ("default", None), (None, None)])
@pytest.mark.parametrize("way", ["whole", "stream", "response"])
async def test_the_tier_that_the_answer_names_is_in_the_entry(
    tenant: Tenant, tier: str | None, kept: str | None, way: str
) -> None:
    usage = usage_of(100, 10, 110)
    if way == "whole":
        tenant.openai.answers(answer(usage, service_tier=tier))
        await tenant.chat(service_tier="auto")
    elif way == "stream":
        last = {"choices": [], "usage": usage, "service_tier": tier}
        tenant.openai.answers(stream(says(content=TEXT), says("stop"), last))
        async with tenant.stream() as events:
            await events.chunks()
    else:
        told = {"input_tokens": 100, "output_tokens": 10, "total_tokens": 110}
        tenant.openai.answers(reply(200, {"output": [], "usage": told, "service_tier": tier}))
        await tenant.post("/v1/responses", {"model": tenant.model, "input": "Hi"})
    (row,) = await tenant.ledger(1)
    assert (row["input_tokens"], row["output_tokens"], row["state"]) == (100, 10, "exact")
    assert row["service_tier"] == kept
    assert (row["doubt"] is not None) is (kept is not None), "the model has no price for it"


async def test_a_transcript_is_counted_by_its_length_and_is_not_free(tenant: Tenant) -> None:
    """Its model has no rate for seconds."""
    tenant.openai.answers(reply(200, {"text": "hi", "usage": {"type": "duration", "seconds": 12.5}}))
    form = b'--x\r\ncontent-disposition: form-data; name="model"\r\n\r\n%b\r\n--x--\r\n' % tenant.model.encode()
    headers = {"content-type": "multipart/form-data; boundary=x"}
    got = await tenant.client.call("POST", "/v1/audio/transcriptions", form, tenant.key, headers)
    assert (got.status, got.header("x-tollway-cost")) == (200, None)
    (row,) = await tenant.ledger(1)
    assert json.loads(row["others"]) == {"input_audio_ms": 12_500}
    assert (row["priced"], row["cost"], row["doubt"]) == (False, 0, "unpriced_bucket")
