"""The supported versions of PostgreSQL other than the embedded one: whatever of them is at hand.

PostgreSQL 16 always is, it lies in the same wheel. To run all tests of the database on another server, name its ``bin``
directory in ``TOLLWAY_TEST_POSTGRES``.
"""

import asyncio
import tempfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import asyncpg
import pytest

from fakes.connections import connected
from fakes.plain_server import older_binaries, running
from tollway.accounting.builtin_prices import resolve_missing
from tollway.domain.keys import KeyHash
from tollway.store import keys
from tollway.store.configuration import Configuration
from tollway.store.migrate import migrate
from tollway.store.seed import seed
from tollway.store.vault import Vault

SUPPORTED = range(15, 19)
AT_HAND = [
    older_binaries(),
    *(Path(f"/usr/lib/postgresql/{version}/bin") for version in SUPPORTED),  # Debian's
]


def hasher(secret: bytes) -> KeyHash:
    return KeyHash(secret[:32].ljust(32))


@pytest.fixture(params=[path for path in AT_HAND if (path / "postgres").exists()], ids=str)
def other_url(request: pytest.FixtureRequest) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="tollway-test-") as folder, running(request.param, Path(folder)) as url:
        yield url


async def test_a_gateways_database_works_there(other_url: str) -> None:
    async with connected(other_url) as psql:
        assert psql.get_server_version().major in SUPPORTED
        assert await migrate(psql)
        await seed(psql)
        assert await resolve_missing(psql)
        configuration = Configuration(other_url)
        await configuration.start()
        try:
            made = await keys.create(psql, hasher, allowed_models=["gpt-4o"])
            await keys.save_provider_keys(psql, Vault(bytes(32)), made.id, {"openai": "sk-o"})
            await psql.execute('UPDATE "Users" SET "requestsPerMinute" = 7, "totalCost" = 1.5')
            await psql.execute("""
                INSERT INTO "LLMModels" (name, provider, fallback) VALUES ('a', 'openai', 'gpt-4o');
                UPDATE "Providers" SET "apiBase" = 'http://[::1]:9000/v1' WHERE name = 'openai';
            """)
            revision = await psql.fetchval("SELECT pg_current_xact_id()::text::bigint")
            assert await configuration.reached(revision, 5)
            grant = configuration.snapshot.keys[hasher(made.secret.reveal().encode())]
            assert (grant.requests_per_minute, grant.models, list(grant.secrets)) == (7, {"gpt-4o"}, ["openai"])
            assert [target.model for target in configuration.snapshot.routes["a"].targets] == ["a", "gpt-4o"]
            assert configuration.snapshot.providers["openai"].base_url == "http://[::1]:9000/v1"
            assert await psql.fetchval('SELECT "totalCost" FROM "Users"') == Decimal("1.5")
            await psql.execute('DELETE FROM "Users"')
            async with asyncio.timeout(5):
                while configuration.snapshot.keys:
                    await asyncio.sleep(0.01)
        finally:
            await configuration.close()
        for nonsense in (
            """UPDATE "Providers" SET "apiBase" = 'http://[::ffff:a9fe:a9fe]/v1'""",
            """UPDATE "LLMModels" SET fallback = '["gone"]'""",
            """UPDATE "LLMModels" SET "inputCostPer1k" = 'NaN'""",
        ):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError):
                await psql.execute(nonsense)
