"""What calls cost by the built-in list and by prices that were set, and what is done where nobody knows."""

import asyncio
import json
import secrets
from collections.abc import Callable
from decimal import Decimal

import pytest

from fakes.client import form as form_of
from fakes.fixtures import StartGateway
from fakes.gateway import Gateway, Tenant, new_tenant
from fakes.upstream import Bill, Upstream, openai_reply, openai_stream, reply

ISSUED = "INSERT INTO tollway.prices (model, rates) VALUES ($1, $2)"


def dollars(header: str | None) -> Decimal:
    assert header is not None
    return Decimal(header)


@pytest.mark.parametrize(
    ("model", "bill", "cost"),
    [
        ("gpt-5.6-sol", Bill(272_000, 1000), "1.108"),
        ("gpt-5.6-sol", Bill(300_000, 1000), "2.43"),
        ("gpt-5.5", Bill(300_000, 1000), "3.045"),
        ("gpt-5.5", Bill(300_000, 1000, 290_000), "0.435"),
    ],
)
async def test_a_long_prompt_is_billed_at_the_rates_of_its_size(
    tenant: Tenant, model: str, bill: Bill, cost: str
) -> None:
    tenant.openai.answers(openai_reply(bill=bill), openai_stream(["a"], bill))
    assert dollars((await tenant.chat(model)).header("x-tollway-cost")) == Decimal(cost)
    async with tenant.stream(model) as stream:
        await stream.chunks()
    rows = await tenant.ledger(2)
    assert [row["cost"] for row in rows] == [Decimal(cost)] * 2
    assert {row["doubt"] for row in rows} == {None}


def told(model: str, usage: dict[str, object], **more: object) -> dict[str, object]:
    """A chat completion with a usage of its own."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "Bonjour"}, "finish_reason": "stop"}
    return {
        **{"id": "x", "object": "chat.completion", "created": 1, "model": model, "choices": [choice]},
        **more,
        "usage": usage,
    }


async def test_what_is_written_to_a_cache_is_billed_as_that(tenant: Tenant) -> None:
    details = {"cached_tokens": 0, "cache_write_tokens": 99_000}
    usage = {"prompt_tokens": 100_000, "completion_tokens": 1000, "total_tokens": 101_000}
    tenant.openai.answers(reply(200, told("gpt-5.6-sol", {**usage, "prompt_tokens_details": details})))
    assert (await tenant.chat("gpt-5.6-sol")).header("x-tollway-cost") == "0.519"
    (row,) = await tenant.ledger(1)
    assert (row["cost"], json.loads(row["others"])) == (Decimal("0.519"), {"cache_write": 99_000})


@pytest.mark.parametrize(
    ("tier", "size", "cost", "doubt"),
    [
        ("default", 1000, "0.024", None),
        ("priority", 1000, "0.048", None),
        ("flex", 1000, "0.012", None),
        ("priority", 300_000, "4.86", None),
        ("scale", 1000, "0.024", "unpriced_tier"),
    ],
)
async def test_the_service_tier_of_the_answer_decides(
    tenant: Tenant, tier: str, size: int, cost: str, doubt: str | None
) -> None:
    usage = {"prompt_tokens": size, "completion_tokens": 1000, "total_tokens": size + 1000}
    tenant.openai.answers(reply(200, told("gpt-5.6-sol", usage, service_tier=tier)))
    asked = await tenant.chat("gpt-5.6-sol", service_tier="flex")  # what was asked for is only a wish
    assert dollars(asked.header("x-tollway-cost")) == Decimal(cost)
    (row,) = await tenant.ledger(1)
    assert (row["cost"], row["doubt"]) == (Decimal(cost), doubt)


@pytest.mark.parametrize("named", ["gpt-5.6-sol", "gpt-5.6-sol-2026-01-31"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_without_a_model_is_billed_by_what_its_answer_names(
    tenant: Tenant, named: str, stream: bool
) -> None:
    response = {
        **{"id": "resp_1", "object": "response", "status": "completed", "model": named, "output": []},
        "usage": {"input_tokens": 1000, "output_tokens": 1000, "total_tokens": 2000},
    }
    done = {"type": "response.completed", "response": response}
    events = b"event: response.completed\ndata: " + json.dumps(done).encode() + b"\n\n"
    kind = {"content-type": "text/event-stream"}
    tenant.openai.answers(reply(200, events, kind) if stream else reply(200, response))
    answer = await tenant.post("/v1/responses", {"prompt": {"id": "pmpt_1"}, "input": "Hi", "stream": stream})
    assert answer.status == 200
    (row,) = await tenant.ledger(1)
    assert (row["cost"], row["priced"], row["state"]) == (Decimal("0.024"), True, "exact")
    assert (row["model"], row["upstream_model"]) == ("gpt-5.6-sol", None), "which reports can tell, too"


@pytest.mark.parametrize("stream", [False, True])
async def test_searches_of_a_response_cost_their_fee(tenant: Tenant, stream: bool) -> None:
    search = {"type": "web_search_call", "id": "ws_1", "action": {"type": "search", "query": "x" * 20_000}}
    usage = {"input_tokens": 1000, "output_tokens": 1000, "total_tokens": 2000}
    response = {"id": "resp_1", "object": "response", "model": "gpt-5.6-sol", "output": [search] * 20, "usage": usage}
    done = b"data: " + json.dumps({"type": "response.completed", "response": response}).encode() + b"\n\n"
    tenant.openai.answers(
        reply(200, done, {"content-type": "text/event-stream"}) if stream else reply(200, response),
    )
    await tenant.post("/v1/responses", {"model": "gpt-5.6-sol", "input": "Hi", "stream": stream})
    (row,) = await tenant.ledger(1)
    assert (row["cost"], json.loads(row["others"])) == (Decimal("0.224"), {"web_searches": 20})
    assert (row["state"], row["doubt"]) == ("exact", None)


@pytest.mark.parametrize(
    ("named", "entry"), [("tts-1", (Decimal("0.06"), True, "estimated")), ("tts-2", (0, False, "none"))]
)
async def test_speech_is_billed_by_the_characters_of_its_text(
    tenant: Tenant, named: str, entry: tuple[object, ...]
) -> None:
    rate = {"bucket": "characters" if named == "tts-1" else "output_audio_ms", "usd": "15"}
    model = await tenant.add_model(input_cost=None, output_cost=None)
    await tenant.gateway.sql(ISSUED, model, json.dumps([rate]))
    await tenant.gateway.configuration_is_live()
    tenant.openai.answers(reply(200, b"sound", {"content-type": "audio/mpeg"}))
    assert (await tenant.post("/v1/audio/speech", {"model": model, "input": "ä" * 4000, "voice": "x"})).status == 200
    (row,) = await tenant.ledger(1)
    assert (row["cost"], row["priced"], row["state"]) == entry


@pytest.mark.parametrize("form", [False, True])
async def test_each_picture_of_a_stream_is_billed_as_one(tenant: Tenant, form: bool) -> None:
    usage = {"input_tokens": 50, "output_tokens": 4150, "total_tokens": 4200}
    event = b"data: " + json.dumps({"type": "image_edit.completed", "b64_json": "AAAA", "usage": usage}).encode()
    tenant.openai.answers(reply(200, b"%b\n\n%b\n\n" % (event, event), {"content-type": "text/event-stream"}))
    asked = {"model": tenant.model, "stream": "true", "n": "2"}
    if form:
        body, headers = form_of(*((name, "", value.encode()) for name, value in asked.items()))
        answer = await tenant.client.post("/v1/images/edits", body, tenant.key, headers)
    else:
        answer = await tenant.post("/v1/images/generations", {**asked, "stream": True, "n": 2, "prompt": "x"})
    assert answer.status == 200
    (row,) = await tenant.ledger(1)
    assert (row["input_tokens"], json.loads(row["others"])) == (100, {"output_image": 8300})


async def test_searches_of_a_chat_that_are_not_told_are_in_doubt(tenant: Tenant) -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 1000, "total_tokens": 2000}
    tenant.openai.answers(reply(200, told("gpt-5.6-sol", usage)))
    await tenant.chat("gpt-5.6-sol", web_search_options={})
    await tenant.chat("gpt-5.6-sol")
    assert [row["doubt"] for row in await tenant.ledger(2)] == ["search_untold", None]


async def test_a_model_that_only_an_answer_knows_has_no_price(tenant: Tenant) -> None:
    usage = {"input_tokens": 1000, "output_tokens": 1000, "total_tokens": 2000}
    tenant.openai.answers(reply(200, {"id": "resp_1", "object": "response", "model": "nobody-knows", "usage": usage}))
    await tenant.post("/v1/responses", {"prompt": {"id": "pmpt_1"}, "input": "Hi"})
    (row,) = await tenant.ledger(1)
    assert (row["cost"], row["priced"], row["model"], row["upstream_model"]) == (0, False, None, "nobody-knows")


async def test_a_price_that_was_set_holds_for_calls_that_start_in_its_time(tenant: Tenant) -> None:
    model = await tenant.add_model(input_cost="0.001", output_cost="0.002")
    tenant.openai.answers(openai_reply(bill=Bill(1000, 1000)))
    rates = [{"bucket": "input", "usd": "10"}, {"bucket": "output", "usd": "20"}]
    add = "INSERT INTO tollway.prices (model, rates, valid_from, valid_until) VALUES ($1, $2, now() + $3 * interval '1 h', now() + $4 * interval '1 h')"  # noqa: E501
    await tenant.gateway.sql(add, model, json.dumps(rates), -2, -1)
    await tenant.gateway.configuration_is_live()
    assert (await tenant.chat(model)).header("x-tollway-cost") == "0.003"
    await tenant.gateway.sql(add, model, json.dumps(rates), -1, 1)
    await tenant.gateway.configuration_is_live()
    assert (await tenant.chat(model)).header("x-tollway-cost") == "0.03"


async def test_a_column_that_is_set_takes_the_rest_from_the_list(tenant: Tenant) -> None:
    name = f"mine-{secrets.token_hex(6)}"
    insert = (
        "INSERT INTO tollway.models (name, provider, upstream_name, input_cost_per_1k) VALUES ($1, 'openai', $2, $3)"
    )
    await tenant.gateway.sql(insert, name, "gpt-5.6-sol", Decimal("0.001"))
    await tenant.gateway.configuration_is_live()
    await tenant.gateway.becomes(
        True, "SELECT periods IS NOT NULL FROM tollway.builtin_prices WHERE model = 'gpt-5.6-sol'"
    )
    tenant.openai.answers(openai_reply(bill=Bill(300_000, 1000, 100_000)))
    # 200,000 of its own price for every size, 100,000 cached and the output at the list's for long prompts
    assert dollars((await tenant.chat(name)).header("x-tollway-cost")) == Decimal("0.2") + Decimal("0.08") + Decimal(
        "0.03"
    )


@pytest.fixture
def shared(start_gateway: StartGateway, openai_provider: Upstream) -> Callable[..., Gateway]:
    """A gateway whose keys share a credential at the provider."""

    def start(**settings: str) -> Gateway:
        account = openai_provider.account()
        account.answers(openai_reply(bill=Bill(1000, 1000)))
        return start_gateway(OPENAI_API_KEY=account.secret, **settings)

    return start


async def keyless(gateway: Gateway) -> Tenant:
    """A customer without a provider key of its own, whose unpriced model falls back to nothing."""
    tenant = await new_tenant(gateway)
    saved = await gateway.save_keys(tenant.key, openaiKey="", mistralKey="")
    assert saved.status == 200
    return tenant


async def test_an_unpriced_call_on_a_shared_key_is_refused_and_says_what_to_do(shared: Callable[..., Gateway]) -> None:
    tenant = await keyless(shared())
    model = await tenant.add_model(input_cost=None, output_cost=None)
    answer = await tenant.chat(model)
    assert (answer.status, answer.json["error"]["code"], answer.json["error"]["param"]) == (
        403,
        "model_not_priced",
        "model",
    )
    assert f"tollway prices set {model}" in answer.json["error"]["message"]
    assert (answer.header("x-should-retry"), answer.header("x-tollway-attempts")) == ("false", "0")
    assert (await tenant.chat()).status == 200, "one with a price is served"
    await tenant.gateway.sql(
        ISSUED, model, json.dumps([{"bucket": "input", "usd": "1"}, {"bucket": "output", "usd": "2"}])
    )
    await tenant.gateway.configuration_is_live()
    assert (await tenant.chat(model)).header("x-tollway-cost") == "0.003"
    metrics = await tenant.gateway.metrics()
    assert any("model_not_priced" in name for name in metrics)


async def test_a_fallback_with_a_price_answers_for_one_without(shared: Callable[..., Gateway]) -> None:
    tenant = await keyless(shared())
    model = await tenant.add_model(fallback=tenant.model, input_cost=None, output_cost=None)
    answer = await tenant.chat(model)
    assert (answer.status, answer.header("x-tollway-model")) == (200, tenant.model)
    assert len(await tenant.ledger(1)) == 1, "what is not sent is no attempt"


async def test_on_a_keys_own_credential_an_unpriced_call_is_served(shared: Callable[..., Gateway]) -> None:
    gateway = shared(UNPRICED="refuse")
    tenant = await new_tenant(gateway)
    tenant.openai.answers(openai_reply(bill=Bill(1000, 1000)))
    model = await tenant.add_model(input_cost=None, output_cost=None)
    assert (await tenant.chat(model)).status == 200
    assert [row["priced"] for row in await tenant.ledger(1)] == [False]


async def test_what_is_not_billed_by_tokens_is_served_with_an_alarm_or_refused(shared: Callable[..., Gateway]) -> None:
    gateway = shared()
    gateway.openai.account_of([("authorization", f"Bearer {gateway.settings['OPENAI_API_KEY']}")]).answers(
        reply(200, b"sound", {"content-type": "audio/mpeg"})
    )
    tenant = await keyless(gateway)
    model = await tenant.add_model(input_cost=None, output_cost=None)
    for _ in range(3):
        assert (await tenant.post("/v1/audio/speech", {"model": model, "input": "Hi", "voice": "alloy"})).status == 200
    assert [row["priced"] for row in await tenant.ledger(3)] == [False] * 3
    line = await gateway.logged(logger="tollway.unpriced")
    assert model in line["message"] and line["level"] == "warning"
    assert len([one for one in gateway.log_lines() if one["logger"] == "tollway.unpriced"]) == 1, (
        "not one for each call"
    )
    metrics = await gateway.metrics()
    assert metrics[f'tollway_unpriced_total{{model="{model}",provider="openai"}}'] == 3


async def test_all_that_is_not_priced_can_be_refused(shared: Callable[..., Gateway]) -> None:
    tenant = await keyless(shared(UNPRICED="refuse"))
    model = await tenant.add_model(input_cost=None, output_cost=None)
    answer = await tenant.post("/v1/audio/speech", {"model": model, "input": "Hi", "voice": "alloy"})
    assert (answer.status, answer.json["error"]["code"]) == (403, "model_not_priced")
    answer = await tenant.post("/v1/responses", {"input": "Hi"})
    assert (answer.status, answer.json["error"]["code"]) == (403, "model_not_priced")
    assert "names no model" in answer.json["error"]["message"]


async def test_all_can_be_allowed(shared: Callable[..., Gateway]) -> None:
    tenant = await keyless(shared(UNPRICED="allow"))
    model = await tenant.add_model(input_cost=None, output_cost=None)
    answer = await tenant.chat(model)
    assert (answer.status, answer.header("x-tollway-cost")) == (200, None)
    assert [(row["priced"], row["cost"]) for row in await tenant.ledger(1)] == [(False, 0)]


async def test_a_fallback_price_bills_the_tokens_and_the_entry_says_so(shared: Callable[..., Gateway]) -> None:
    tenant = await keyless(shared(UNPRICED="0.01/0.03"))
    model = await tenant.add_model(input_cost=None, output_cost=None)
    answer = await tenant.chat(model)
    assert (answer.status, answer.header("x-tollway-cost")) == (200, "0.04")
    rows = await tenant.ledger(1)
    assert [(row["priced"], row["cost"], row["doubt"]) for row in rows] == [(True, Decimal("0.04"), "fallback_price")]
    assert rows[0]["price_id"] is not None


SOUND_ONLY = json.dumps([{"bucket": "input_audio_ms", "usd": "0.003", "per": 60_000}])


@pytest.mark.parametrize(("rule", "status", "cost"), [("auto", 403, None), ("0.01/0.03", 200, "0.04")])
async def test_a_price_that_leaves_tokens_free_is_none_for_a_chat(
    shared: Callable[..., Gateway], rule: str, status: int, cost: str | None
) -> None:
    tenant = await keyless(shared(UNPRICED=rule))
    model = await tenant.add_model(input_cost=None, output_cost=None)
    await tenant.gateway.sql(ISSUED, model, SOUND_ONLY)
    await tenant.gateway.configuration_is_live()
    answer = await tenant.chat(model)
    assert (answer.status, answer.header("x-tollway-cost")) == (status, cost)


async def test_a_fee_does_not_hide_that_the_tokens_were_free(tenant: Tenant) -> None:
    model = await tenant.add_model(input_cost=None, output_cost=None)
    await tenant.gateway.sql(ISSUED, model, SOUND_ONLY)
    await tenant.gateway.configuration_is_live()
    usage = {"prompt_tokens": 30_000, "completion_tokens": 5000, "total_tokens": 36_000, "prompt_audio_seconds": 8}
    tenant.openai.answers(reply(200, told(model, usage)))
    assert (await tenant.chat(model)).header("x-tollway-cost") is None
    (row,) = await tenant.ledger(1)
    assert (row["cost"], row["priced"], row["doubt"]) == (Decimal("0.0004"), False, "unpriced_bucket")


async def test_the_fallback_price_is_for_shared_credentials_and_for_tokens(shared: Callable[..., Gateway]) -> None:
    gateway = shared(UNPRICED="0.01/0.03")
    tenant = await new_tenant(gateway)
    tenant.openai.answers(openai_reply(bill=Bill(1000, 1000)))
    model = await tenant.add_model(input_cost=None, output_cost=None)
    assert (await tenant.chat(model)).header("x-tollway-cost") is None
    assert [(row["priced"], row["doubt"]) for row in await tenant.ledger(1)] == [(False, None)]
    other = await keyless(gateway)
    account = gateway.openai.account_of([("authorization", f"Bearer {gateway.settings['OPENAI_API_KEY']}")])
    account.answers(reply(200, {"id": "m", "model": model, "results": [{"flagged": False}]}))
    assert (await other.post("/v1/moderations", {"model": model, "input": "Hi"})).status == 200
    assert [(row["priced"], row["doubt"], row["cost"]) for row in await other.ledger(1)] == [(True, None, 0)]


async def test_a_provider_without_a_credential_bills_nobody(
    start_gateway: StartGateway, openai_provider: Upstream
) -> None:
    tenant = await keyless(start_gateway())
    openai_provider.for_anyone(openai_reply(bill=Bill(5, 5)))
    try:
        provider = await tenant.add_provider(openai_provider.url, wants_key=False)
        model = await tenant.add_model(provider, input_cost=None, output_cost=None)
        assert (await tenant.chat(model)).status == 200
    finally:
        openai_provider.anyone = None


async def test_a_first_start_has_prices_before_it_is_ready(start_gateway: StartGateway) -> None:
    gateway = await asyncio.to_thread(start_gateway)
    query = "SELECT count(*) FROM tollway.models m WHERE NOT EXISTS (SELECT FROM tollway.builtin_prices b WHERE b.model = m.name)"  # noqa: E501
    assert await gateway.value(query) == 0
