"""PgBouncer's session mode serves as the server does; a pooler of transactions is refused at the start."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.fixtures import StartGateway
from fakes.gateway import StartFailedError, new_tenant
from fakes.pooler import PGBOUNCER, StandIn, real
from fakes.upstream import openai_reply
from tollway.store.postgres import connect, create_pool

KEY = "ab" * 32

INSTALLED = pytest.mark.skipif(PGBOUNCER is None, reason="PgBouncer is not installed")
KINDS = ["stand-in", pytest.param("PgBouncer", marks=INSTALLED)]


@contextlib.contextmanager
def pooled(kind: str, url: str, mode: str, folder: Path) -> Iterator[str]:
    if kind == "stand-in":
        with StandIn(url, mode) as relay:
            yield relay.url()
    else:
        with real(url, mode, folder / "pgbouncer") as through:
            yield through


@pytest.mark.parametrize("kind", KINDS)
async def test_settings_of_a_session_are_made_where_the_pooler_passes_none_on(
    postgres_url: str, tmp_path: Path, kind: str
) -> None:
    with pooled(kind, postgres_url, "session", tmp_path) as url:
        connection = await connect(url, "test")
        assert await connection.fetchval("SHOW search_path") == "pg_catalog"
        await connection.close()
        pool = await create_pool(url, "test", max_size=1)
        for _ in range(3):
            async with pool.acquire() as connection:
                assert await connection.fetchval("SHOW search_path") == "pg_catalog"
                await connection.execute("SET search_path = public")
        await pool.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_gateway_serves_through_a_pooler_of_sessions(
    start_gateway: StartGateway, postgres_url: str, tmp_path: Path, kind: str
) -> None:
    with pooled(kind, postgres_url, "session", tmp_path) as url:
        gateway = start_gateway(DATABASE_URL=url, ENCRYPTION_KEY=KEY)
        tenant = await new_tenant(gateway)
        tenant.openai.answers(openai_reply())
        assert (await tenant.chat()).status == 200
        assert len(await tenant.ledger(1)) == 1
        await gateway.sql("UPDATE tollway.virtual_keys SET revoked_at = now() WHERE id = $1", tenant.key_id)
        await gateway.configuration_is_live()
        assert (await tenant.chat()).status == 401
        assert '"level":"warning"' not in gateway.stderr and '"level":"error"' not in gateway.stderr
        gateway.stop()


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        ("stand-in", "transaction"),
        *(pytest.param("PgBouncer", mode, marks=INSTALLED) for mode in ("transaction", "statement")),
    ],
)
def test_a_pooler_of_transactions_is_refused_with_the_reason(
    start_gateway: StartGateway, postgres_url: str, tmp_path: Path, kind: str, mode: str
) -> None:
    with pooled(kind, postgres_url, mode, tmp_path) as url:
        with pytest.raises(StartFailedError) as failure:
            start_gateway(DATABASE_URL=url, ENCRYPTION_KEY=KEY)
        assert failure.value.code == 2
        (line,) = failure.value.stderr.splitlines()
        assert line.startswith("tollway: DATABASE_URL: leads through a pooler")
        assert "session mode" in line
