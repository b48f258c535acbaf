"""Edits in psql are in force within a second, in every running process, and nonsense never is.

These tests poll from outside, as a user would notice it; a second is the documented promise.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from decimal import Decimal

import asyncpg
import pytest

from fakes.fixtures import StartGateway
from fakes.gateway import Gateway, Tenant, new_tenant
from fakes.upstream import Gate, Upstream, mistral_reply, openai_reply, openai_stream

PROMISE_S = 1.0


async def within_a_second(holds: Callable[[], Awaitable[bool]]) -> None:
    """Ask until it is so; the promise is a second from now."""
    began = time.monotonic()
    while not await holds():
        assert time.monotonic() - began < PROMISE_S, "not in force within a second"
        await asyncio.sleep(0.01)


async def test_a_key_revoked_by_sql_is_refused_within_a_second(tenant: Tenant) -> None:
    tenant.openai.answers(openai_reply())
    assert (await tenant.chat()).status == 200
    await tenant.gateway.sql("UPDATE tollway.virtual_keys SET revoked_at = now() WHERE id = $1", tenant.key_id)

    async def refused() -> bool:
        return (await tenant.chat()).status == 401

    await within_a_second(refused)


async def test_a_user_deleted_in_psql_is_refused_within_a_second(tenant: Tenant) -> None:
    tenant.openai.answers(openai_reply())
    await tenant.gateway.sql('DELETE FROM "Users" WHERE id = $1', tenant.key_id)

    async def refused() -> bool:
        return (await tenant.chat()).status == 401

    await within_a_second(refused)
    kept = await tenant.gateway.value("SELECT count(*) FROM tollway.virtual_keys WHERE id = $1", tenant.key_id)
    assert kept == 1, "a key that has costs is never forgotten"


async def test_a_limit_lowered_in_psql_holds_within_a_second(tenant: Tenant) -> None:
    tenant.openai.answers(openai_reply())
    await tenant.gateway.sql('UPDATE "Users" SET "requestsPerMinute" = 0 WHERE id = $1', tenant.key_id)

    async def refused() -> bool:
        return (await tenant.chat()).status == 429

    await within_a_second(refused)


async def test_a_model_inserted_in_psql_is_served_within_a_second(tenant: Tenant) -> None:
    tenant.openai.answers(openai_reply())
    name = f"{tenant.model}-new"
    await tenant.gateway.sql('INSERT INTO "LLMModels" (name, provider) VALUES ($1, $2)', name, "openai")

    async def served() -> bool:
        return (await tenant.chat(name)).status == 200

    await within_a_second(served)


async def test_a_model_deleted_in_psql_is_gone_within_a_second(tenant: Tenant) -> None:
    tenant.openai.answers(openai_reply())
    await tenant.gateway.sql('DELETE FROM "LLMModels" WHERE name = $1', tenant.model)

    async def gone() -> bool:
        return (await tenant.chat()).status == 400

    await within_a_second(gone)


@pytest.mark.parametrize("form", ["{}", '["{}"]', ' [ "{}" ] '])
async def test_a_fallback_may_be_a_bare_name_or_a_json_array(tenant: Tenant, form: str) -> None:
    tenant.mistral.answers(mistral_reply("from Mistral"))
    await tenant.gateway.sql(
        'UPDATE "LLMModels" SET fallback = $2 WHERE name = $1', tenant.model, form.format(tenant.mistral_model)
    )

    async def falls_back() -> bool:
        return (await tenant.chat()).status == 200

    await within_a_second(falls_back)


async def test_a_price_edited_in_psql_counts_within_a_second(tenant: Tenant) -> None:
    tenant.openai.answers(openai_reply())
    await tenant.gateway.sql(
        'UPDATE "LLMModels" SET "inputCostPer1k" = 0, "outputCostPer1k" = 0 WHERE name = $1', tenant.model
    )

    async def is_free() -> bool:
        return (await tenant.chat()).header("x-tollway-cost") == "0"

    await within_a_second(is_free)


async def test_an_address_edited_in_psql_counts_within_a_second(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    tenant = await new_tenant(gateway)
    tenant.openai.answers(openai_reply("old"))
    assert (await tenant.chat()).text == "old"
    with Upstream() as elsewhere:
        elsewhere.account(tenant.openai.secret).answers(openai_reply("new"))
        await gateway.sql('UPDATE "Providers" SET "apiBase" = $1 WHERE name = $2', elsewhere.url, "openai")

        async def moved() -> bool:
            return (await tenant.chat()).text == "new"

        await within_a_second(moved)
        gateway.stop()
        gateway.start()
        assert (await tenant.chat()).text == "old", "OPENAI_BASE_URL is written at every start"


async def test_a_key_made_by_the_api_works_at_once(gateway: Gateway, tenant: Tenant) -> None:
    tenant.openai.answers(openai_reply())
    for _ in range(10):
        key, _ = await gateway.new_key()
        await gateway.save_keys(key, openaiKey=tenant.openai.secret)
        assert (await gateway.client.chat(key, tenant.model)).status == 200


async def test_an_edit_during_a_call_does_not_touch_the_call(tenant: Tenant) -> None:
    gate = Gate()
    tenant.openai.answers(openai_stream(["a", gate, "b"]))
    async with tenant.stream() as stream:
        await stream.next_text()
        await tenant.gateway.sql('DELETE FROM "LLMModels" WHERE name = $1', tenant.model)
        await tenant.gateway.configuration_is_live()
        assert (await tenant.chat()).status == 400
        gate.open()
        assert [chunk["choices"] for chunk in await stream.chunks()]


async def test_a_burst_of_edits_ends_with_the_last_one(tenant: Tenant) -> None:
    tenant.openai.answers(openai_reply())
    async with tenant.gateway.database() as connection:
        for number in range(200):
            await connection.execute(
                'UPDATE "LLMModels" SET "inputCostPer1k" = $2 WHERE name = $1', tenant.model, Decimal(number)
            )
    await tenant.gateway.configuration_is_live()
    answer = await tenant.chat()
    assert Decimal(answer.header("x-tollway-cost") or "") == 9 * Decimal("0.199") + 3 * Decimal("0.000002")


async def test_an_edit_of_one_long_transaction_is_seen_although_others_committed_before(tenant: Tenant) -> None:
    """Revisions are drawn before the commit, so a reader that only asks for higher ones would miss this edit."""
    tenant.openai.answers(openai_reply())
    async with tenant.gateway.database() as slow:
        transaction = slow.transaction()
        await transaction.start()
        await slow.execute('UPDATE "Users" SET "requestsPerMinute" = 0 WHERE id = $1', tenant.key_id)
        for _ in range(3):
            await tenant.gateway.new_key()  # later revisions, committed and in force earlier
        assert (await tenant.chat()).status == 200
        await transaction.commit()

    async def refused() -> bool:
        return (await tenant.chat()).status == 429

    await within_a_second(refused)


@pytest.mark.parametrize(
    "statement",
    [
        """UPDATE "Users" SET "requestsPerMinute" = -1 WHERE id = $1""",
        """UPDATE "Users" SET "tokensPerMinute" = -1 WHERE id = $1""",
        """UPDATE "Users" SET "virtualKey" = 'mine' WHERE id = $1""",
        """INSERT INTO "Users" ("virtualKey") VALUES ($1)""",
        """UPDATE "LLMModels" SET provider = 'nobody' WHERE name = $1""",
        """UPDATE "LLMModels" SET "inputCostPer1k" = -1 WHERE name = $1""",
        """UPDATE "LLMModels" SET "inputCostPer1k" = 'NaN' WHERE name = $1""",
        """UPDATE "LLMModels" SET "outputCostPer1k" = 'Infinity' WHERE name = $1""",
        """UPDATE "LLMModels" SET name = '' WHERE name = $1""",
        """UPDATE "Providers" SET "apiBase" = 'ftp://x' WHERE name = 'openai' AND $1 <> ''""",
        """UPDATE "Providers" SET "apiBase" = 'http://u:p@x/v1' WHERE name = 'openai' AND $1 <> ''""",
        """UPDATE "Providers" SET "apiBase" = 'http://169.254.169.254/' WHERE name = 'openai' AND $1 <> ''""",
        """UPDATE "Providers" SET "apiBase" = 'http://[fe80::1]/v1' WHERE name = 'openai' AND $1 <> ''""",
        """UPDATE "Providers" SET "apiBase" = 'http://metadata.google.internal/' WHERE name = 'openai' AND $1 <> ''""",
        """DELETE FROM tollway.virtual_keys WHERE id = $1""",
    ],
)
async def test_what_cannot_be_used_is_refused_by_the_database(tenant: Tenant, statement: str) -> None:
    tenant.openai.answers(openai_reply())
    subject = tenant.model if "LLMModels" in statement else tenant.key_id
    with pytest.raises(asyncpg.PostgresError):
        await tenant.gateway.sql(statement, subject)
    await tenant.gateway.configuration_is_live()
    assert (await tenant.chat()).status == 200


async def test_nonsense_that_the_database_cannot_see_leaves_the_last_good_configuration(tenant: Tenant) -> None:
    """A fallback to a model that is not there may be an edit in two steps; whatever happens, service goes on."""
    tenant.openai.answers(openai_reply())
    statement = """UPDATE "LLMModels" SET fallback = '["not there"]' WHERE name = $1"""
    try:
        await tenant.gateway.sql(statement, tenant.model)
    except asyncpg.PostgresError:
        return  # refused by the database: as good
    await tenant.gateway.configuration_is_live()
    assert (await tenant.chat()).status == 200
    other = await tenant.add_model()
    assert (await tenant.chat(other)).status == 200
