"""A fresh database begins with providers and models, and nothing that was deleted comes back."""

import pytest

from fakes.connections import connected
from tollway.store.seed import MODELS, add, missing, seed


async def test_a_fresh_database_has_providers_and_models_without_prices_of_their_own(postgres_url: str) -> None:
    async with connected(postgres_url) as connection:
        providers = await connection.fetch('SELECT name, "apiBase" FROM "Providers"')
        assert {tuple(row) for row in providers} == {
            ("openai", "https://api.openai.com/v1"),
            ("mistral", "https://api.mistral.ai/v1"),
            ("demo", "builtin:demo"),
        }
        priced = """SELECT name FROM "LLMModels" WHERE "inputCostPer1k" IS NOT NULL OR "outputCostPer1k" IS NOT NULL"""
        assert {row["name"] for row in await connection.fetch(priced)} == {
            model.name for model in MODELS if model.provider == "demo"
        }
        assert await connection.fetchval('SELECT count(*) FROM "LLMModels"') == len(MODELS)
        row = await connection.fetchrow("""SELECT * FROM "LLMModels" WHERE name = 'gpt-3.5-turbo'""")
        assert row["fallback"] == '["mistral-small-latest"]'


async def test_what_was_deleted_or_changed_stays_so(postgres_url: str) -> None:
    async with connected(postgres_url) as connection:
        await connection.execute("""
            DELETE FROM "LLMModels" WHERE name LIKE 'demo/%';
            DELETE FROM "Providers" WHERE name = 'demo';
            UPDATE "LLMModels" SET "inputCostPer1k" = 7 WHERE name = 'gpt-4o';
        """)
        await seed(connection)
        assert await connection.fetchval("""SELECT count(*) FROM "Providers" WHERE name = 'demo'""") == 0
        assert await connection.fetchval("""SELECT "inputCostPer1k" FROM "LLMModels" WHERE name = 'gpt-4o'""") == 7


async def test_a_given_address_is_written_at_every_start(postgres_url: str) -> None:
    async with connected(postgres_url) as connection:
        for url in ("http://127.0.0.1:9000/v1", "http://127.0.0.1:9001/v1"):
            await seed(connection, {"openai": url, "mistral": "https://m.example"})
            assert await connection.fetchval("""SELECT "apiBase" FROM "Providers" WHERE name = 'openai'""") == url


async def test_an_address_that_already_stands_there_changes_nothing(postgres_url: str) -> None:
    async with connected(postgres_url) as connection:
        before = await connection.fetchval("SELECT max(changed_in::text::bigint) FROM tollway.providers")
        await seed(connection, {"openai": "https://api.openai.com/v1"})
        assert await connection.fetchval("SELECT max(changed_in::text::bigint) FROM tollway.providers") == before


async def test_an_address_that_no_provider_may_have_is_refused(postgres_url: str) -> None:
    async with connected(postgres_url) as connection:
        with pytest.raises(ValueError, match="link-local"):
            await seed(connection, {"openai": "http://169.254.169.254/v1"})


async def test_what_a_database_was_never_given_is_new_and_what_was_deleted_is_told_apart(postgres_url: str) -> None:
    async with connected(postgres_url) as connection:
        assert await missing(connection) == ([], [])
        await connection.execute("""
            DELETE FROM "LLMModels" WHERE name IN ('gpt-4o', 'whisper-1', 'mistral-small-latest', 'gpt-3.5-turbo');
            UPDATE tollway.installation SET seeded_models = array_remove(seeded_models, 'whisper-1');
        """)
        found = await missing(connection)
        assert [model.name for model in found.new] == ["whisper-1"]
        assert {model.name for model in found.removed} == {"gpt-4o", "mistral-small-latest", "gpt-3.5-turbo"}
        await connection.execute("""UPDATE "LLMModels" SET "inputCostPer1k" = 7 WHERE name = 'gpt-4'""")
        await add(connection, [*found.new, *(model for model in MODELS if model.name in ("gpt-4", "gpt-3.5-turbo"))])
        rows = await connection.fetch('SELECT name, fallback, "inputCostPer1k" FROM "LLMModels"')
        by_name = {row["name"]: tuple(row)[1:] for row in rows}
        assert by_name["gpt-4"] == (None, 7), "what is there is left alone"
        assert by_name["gpt-3.5-turbo"] == (None, None), "its fallback is gone, and it comes without"
        assert [model.name for model in (await missing(connection)).new] == []


async def test_models_of_a_provider_that_is_gone_are_not_missed(postgres_url: str) -> None:
    async with connected(postgres_url) as connection:
        await connection.execute("""DELETE FROM "LLMModels" WHERE provider = 'demo'""")
        await connection.execute("""DELETE FROM "Providers" WHERE name = 'demo'""")
        assert await missing(connection) == ([], [])
