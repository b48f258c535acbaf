"""The predecessor's chapter "Verifying the API", step by step: the same requests, the same edits in psql."""

import asyncio
import json
import shutil
import subprocess
import time
from decimal import Decimal

import pytest

from fakes.client import chat_body
from fakes.fixtures import StartGateway
from fakes.gateway import READY, Gateway, Tenant
from fakes.upstream import Bill, error, mistral_reply, openai_reply

TRANSLATE = {
    "model": "gpt-3.5-turbo",
    "messages": [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Translate the following English text to French: Hello, world!"},
    ],
}


def test_it_announces_itself_in_one_line_as_the_predecessor_did(gateway: Gateway) -> None:
    assert [READY.match(line.rstrip("\n")) is not None for line in gateway.stdout] == [True]


async def test_step_1_a_virtual_key_is_made_without_any_body(gateway: Gateway) -> None:
    made = await gateway.client.post("/api/generate-virtual-key")
    assert made.status == 200
    assert set(made.json) == {"virtualKey", "id"}
    assert len(made.json["virtualKey"]) >= 43, "256 bits need at least 43 letters and digits"


async def test_step_2_provider_keys_are_saved(gateway: Gateway) -> None:
    key, _ = await gateway.new_key()
    saved = await gateway.save_keys(key, openaiKey="sk-your-test-openai-key", mistralKey="your-test-mistral-key")
    assert saved.status == 200
    assert isinstance(saved.json["message"], str)


@pytest.mark.parametrize("path", ["/chat/completions", "/v1/chat/completions"])
async def test_step_3_a_chat_completion_is_answered_by_openai(tenant: Tenant, path: str) -> None:
    tenant.openai.answers(openai_reply("Bonjour, le monde !"))
    answer = await tenant.post(path, TRANSLATE)
    assert answer.text == "Bonjour, le monde !"
    (sent,) = tenant.openai.requests
    assert (sent.method, sent.path, sent.json) == ("POST", "/v1/chat/completions", TRANSLATE)
    assert sent.header("authorization") == f"Bearer {tenant.openai.secret}"
    assert answer.header("x-tollway-provider") == "openai"


async def test_step_4_mistral_answers_when_the_openai_key_is_broken_in_the_database(tenant: Tenant) -> None:
    tenant.openai.answers(openai_reply("from OpenAI"))
    tenant.mistral.answers(mistral_reply("from Mistral"))
    good = await tenant.gateway.value('SELECT "openaiKey" FROM "Users" WHERE id = $1', tenant.key_id)
    edit = 'UPDATE "Users" SET "openaiKey" = $2 WHERE id = $1'

    await tenant.gateway.sql(edit, tenant.key_id, "sk-this-is-not-valid")
    await tenant.gateway.configuration_is_live()
    answer = await tenant.post("/chat/completions", TRANSLATE)
    assert answer.text == "from Mistral"
    assert answer.header("x-tollway-provider") == "mistral"
    assert answer.header("x-tollway-model") == "mistral-small-latest"
    assert tenant.openai.requests == [], "a key that does not decrypt is not sent anywhere"

    await tenant.gateway.sql(edit, tenant.key_id, good)
    await tenant.gateway.configuration_is_live()
    assert (await tenant.post("/chat/completions", TRANSLATE)).text == "from OpenAI"


async def test_step_4_mistral_answers_when_openai_refuses_the_key(tenant: Tenant) -> None:
    tenant.openai.answers(error(401, "Incorrect API key provided"))
    tenant.mistral.answers(mistral_reply("from Mistral"))
    answer = await tenant.post("/chat/completions", TRANSLATE)
    assert answer.text == "from Mistral"
    assert answer.header("x-tollway-attempts") == "2"


async def test_step_5_the_61st_request_in_a_minute_is_refused(tenant: Tenant) -> None:
    tenant.openai.answers(openai_reply())
    await tenant.limit()  # the defaults
    answers = await asyncio.gather(*(tenant.post("/chat/completions", TRANSLATE) for _ in range(61)))
    assert sorted(answer.status for answer in answers) == [200] * 60 + [429]
    (refused,) = (answer for answer in answers if answer.status == 429)
    assert refused.refusal == (429, "rate_limit_exceeded")
    assert len(tenant.openai.requests) == 60


async def test_step_5_a_very_extensive_prompt_surpasses_the_token_limit(tenant: Tenant) -> None:
    tenant.openai.answers(openai_reply())
    await tenant.limit(tokens=10_000)
    assert (await tenant.chat()).status == 200
    refused = await tenant.chat(content="word " * 100_000)
    assert refused.refusal == (429, "rate_limit_exceeded")
    assert len(tenant.openai.requests) == 1


async def test_step_5_new_keys_have_the_documented_limits(gateway: Gateway) -> None:
    _, key_id = await gateway.new_key()
    (row,) = await gateway.sql('SELECT "requestsPerMinute", "tokensPerMinute" FROM "Users" WHERE id = $1', key_id)
    assert tuple(row) == (60, 100_000)


async def test_step_6_the_total_cost_goes_up_within_two_seconds(tenant: Tenant) -> None:
    tenant.openai.answers(openai_reply(bill=Bill(1000, 500)))
    assert (await tenant.chat()).status == 200
    await tenant.cost_becomes("0.002", within_s=2)  # 1,000 tokens in, 500 out
    assert (await tenant.chat()).status == 200
    await tenant.cost_becomes("0.004", within_s=2)


async def test_step_7_an_unknown_key_is_refused_whatever_the_body(gateway: Gateway) -> None:
    body = {"model": "gpt-3.5-turbo", "messages": []}
    answer = await gateway.client.post("/chat/completions", body, key="invalid_key")
    assert answer.refusal == (401, "invalid_api_key")


async def test_step_7_a_key_without_bearer_is_refused(tenant: Tenant) -> None:
    body = {"model": "gpt-3.5-turbo", "messages": []}
    answer = await tenant.client.post("/chat/completions", body, headers={"authorization": tenant.key})
    assert answer.refusal == (401, "invalid_api_key")


async def test_step_7_an_unknown_model_is_a_bad_request(tenant: Tenant) -> None:
    with_text = await tenant.post("/chat/completions", chat_body("invalid-model"))
    assert with_text.refusal == (400, "model_not_found")
    as_written = await tenant.post("/chat/completions", {"model": "invalid-model", "messages": []})
    assert as_written.status == 400


async def test_a_fresh_database_holds_what_the_seeders_made(start_gateway: StartGateway) -> None:
    fresh = start_gateway()
    providers = await fresh.sql('SELECT name, "apiBase" FROM "Providers"')
    assert {name for name, _ in providers} >= {"openai", "mistral"}
    models = {row["name"]: row for row in await fresh.sql('SELECT * FROM "LLMModels"')}
    assert models["gpt-3.5-turbo"]["provider"] == "openai"
    assert "mistral-small-latest" in models["gpt-3.5-turbo"]["fallback"]
    assert models["mistral-small-latest"]["provider"] == "mistral"


async def test_the_tables_have_the_predecessors_columns(gateway: Gateway) -> None:
    columns = await gateway.sql(
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
    )
    found: dict[str, set[str]] = {}
    for table, column in columns:
        found.setdefault(table, set()).add(column)
    assert found["Users"] == {
        "id",
        "virtualKey",
        "openaiKey",
        "mistralKey",
        "requestsPerMinute",
        "tokensPerMinute",
        "totalCost",
        "createdAt",
        "updatedAt",
    }
    assert found["LLMModels"] == {"id", "name", "provider", "fallback", "inputCostPer1k", "outputCostPer1k"}
    assert found["Providers"] == {"id", "name", "apiBase", "apiVersion"}


def test_the_real_psql_and_curl_do_all_of_it(tenant: Tenant) -> None:
    """The same as somebody with a terminal does it."""
    psql, curl = shutil.which("psql"), shutil.which("curl")
    if psql is None or curl is None:
        pytest.skip("psql or curl is not installed on this machine")
    gateway = tenant.gateway
    tenant.openai.answers(openai_reply("from OpenAI", Bill(1000, 0)))
    tenant.mistral.answers(mistral_reply("from Mistral", Bill(1000, 0)))

    def sql(statement: str) -> str:
        command = [psql, "-X", "-At", "-v", "ON_ERROR_STOP=1", gateway.database_url, "-c", statement]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    def complete() -> str:
        body = json.dumps(chat_body(tenant.pair))
        headers = ["-H", "Content-Type: application/json", "-H", f"Authorization: Bearer {tenant.key}"]
        command = [curl, "-sS", "-X", "POST", *headers, "-d", body, f"{gateway.url}/chat/completions"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout

    assert "from OpenAI" in complete()
    good = sql(f"""SELECT "openaiKey" FROM "Users" WHERE id = '{tenant.key_id}'""")
    sql(f"""UPDATE "Users" SET "openaiKey" = 'broken' WHERE id = '{tenant.key_id}'""")
    asyncio.run(gateway.configuration_is_live())
    assert "from Mistral" in complete()
    sql(f"""UPDATE "Users" SET "openaiKey" = '{good}' WHERE id = '{tenant.key_id}'""")
    asyncio.run(gateway.configuration_is_live())
    assert "from OpenAI" in complete()
    asyncio.run(tenant.cost_becomes("0.003", within_s=2))
    assert Decimal(sql(f"""SELECT "totalCost" FROM "Users" WHERE id = '{tenant.key_id}'""")) == Decimal("0.003")
    assert tenant.key not in sql('SELECT * FROM "Users"'), "the database shows a virtual key in clear"


async def test_a_second_start_is_ready_within_five_seconds(start_gateway: StartGateway) -> None:
    again = start_gateway()
    again.stop()
    began = time.monotonic()
    again.start()
    assert time.monotonic() - began <= 5
    assert (await again.client.get("/readyz")).status == 200
