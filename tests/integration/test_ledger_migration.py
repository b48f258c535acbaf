"""The ledger of the release before moves into the new one: every entry, and every total as it was."""

from decimal import Decimal

import asyncpg
import pytest

from fakes.connections import connected
from tollway.store import migrate as module
from tollway.store.migrate import migrate

BEFORE = """
INSERT INTO tollway.virtual_keys (id, hash, hint) VALUES ('key_1', decode(repeat('00', 32), 'hex'), 'sk-…');
INSERT INTO tollway.ledger (
    attempt_id, call_id, attempt, key_id, model, provider, upstream_model, started_at, duration_ms, first_byte_ms,
    status, outcome, stream, state, input_tokens, cached_input_tokens, output_tokens, reasoning_tokens,
    cost, priced, charged, price_input, price_cached_input, price_output, revision, cause, operation)
VALUES
    ('req_1-1', 'req_1', 1, 'key_1', 'm', 'openai', 'm', now() - interval '1 day', 5, NULL, 503,
        'server_error', false, 'none', 0, 0, 0, 0, 0, true, false, 1, 1, 1, 7, 'busy', 'chat/completions'),
    ('req_1-2', 'req_1', 2, 'key_1', 'm', 'mistral', 'large', now() - interval '1 day', 5, 3, 200,
        'ok', true, 'exact', 10, 4, 6, 2, 0.5, true, true, 1, 1, 1, 7, '', 'chat/completions'),
    ('mine', NULL, NULL, 'key_1', NULL, NULL, NULL, '2019-05-05', NULL, NULL, NULL,
        'ok', NULL, 'estimated', 1, 0, 1, 0, 0.25, true, true, NULL, NULL, NULL, NULL, NULL, NULL),
    ('late', 'req_2', 1, 'key_1', 'm', 'openai', 'm', now() - interval '40 days', 3000000000, 3, 70000,
        'ok', true, 'exact', 10, 4, 6, 2, 0, false, true, NULL, NULL, NULL, 7, '', 'chat/completions');
INSERT INTO tollway.key_totals (key_id, total_cost, requests, input_tokens, output_tokens)
    VALUES ('key_1', 99, 3, 21, 13), ('key_2', 1, 1, 1, 1);
"""


async def upgraded(connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, more: str = "") -> None:
    """A database of the release before with entries in it, brought to this one."""
    whole = module._script
    with monkeypatch.context() as patch:
        patch.setattr(module, "_script", lambda version: whole(version).partition("-- Running upgrade 0004 -> 0005")[0])
        patch.setattr(module, "head", lambda: "0004")
        await migrate(connection)
    await connection.execute(BEFORE + more)
    await migrate(connection)


async def test_entries_move_and_totals_stay(empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with connected(empty_postgres_url) as connection:
        await upgraded(connection, monkeypatch)
        rows = await connection.fetch("""
            SELECT call_id, attempt, upstream_model, cost, cause, price_id,
                tableoid::regclass::text ~ '_[0-9]{4}_[0-9]{2}$'
            FROM tollway.ledger ORDER BY call_id, attempt
        """)
        assert [tuple(row) for row in rows] == [
            ("late", 1, None, Decimal(0), None, None, True),
            ("mine", 1, None, Decimal("0.25"), None, None, False),
            ("req_1", 1, None, Decimal(0), "busy", None, True),
            ("req_1", 2, "large", Decimal("0.5"), None, None, True),
        ]
        totals = await connection.fetch("SELECT * FROM tollway.key_totals ORDER BY key_id")
        assert [tuple(row)[:5] for row in totals] == [("key_1", 99, 3, 21, 13), ("key_2", 1, 1, 1, 1)]


async def test_grants_and_views_of_people_stay(empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = """
        CREATE ROLE "a reader";
        GRANT SELECT ON tollway.ledger TO "a reader" WITH GRANT OPTION;
        GRANT INSERT ON tollway.ledger TO PUBLIC;
        GRANT UPDATE (cost, price_input) ON tollway.ledger TO "a reader";
        CREATE VIEW public.spent AS SELECT sum(cost) AS cost FROM tollway.ledger;
    """
    async with connected(empty_postgres_url) as connection:
        try:
            await upgraded(connection, monkeypatch, mine)
            may = "SELECT has_{}_privilege('a reader', 'tollway.ledger', {})"
            assert await connection.fetchval(may.format("table", "'SELECT WITH GRANT OPTION, INSERT'"))
            assert await connection.fetchval(may.format("column", "'cost', 'UPDATE'"))
            assert not await connection.fetchval(may.format("column", "'state', 'UPDATE'"))
            assert await connection.fetchval("SELECT cost FROM public.spent") == Decimal("0.75")
            assert await connection.fetchval("SELECT sum(cost) FROM tollway.ledger") == Decimal("0.75")
        finally:
            await connection.execute('DROP OWNED BY "a reader"; DROP ROLE "a reader"')


async def test_roll_ups_are_filled(empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with connected(empty_postgres_url) as connection:
        await upgraded(connection, monkeypatch)
        for grain in ("usage_hours", "usage_key_days", "usage_model_days"):
            row = await connection.fetchrow(f"""
                SELECT sum(requests), sum(answered), sum(attempts), sum(unpriced), sum(estimated), sum(cost),
                    sum(input_tokens), sum(cached_input_tokens), sum(output_tokens), sum(reasoning_tokens)
                FROM tollway.{grain}
            """)
            assert tuple(row) == (3, 3, 4, 1, 1, Decimal("0.75"), 21, 8, 13, 4)


async def test_what_is_inserted_afterwards_is_added_up(
    empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connected(empty_postgres_url) as connection:
        await upgraded(connection, monkeypatch)
        await connection.execute("""UPDATE "Users" SET "totalCost" = 100""")
        assert await connection.fetchval("SELECT total_cost FROM tollway.key_totals WHERE key_id = 'key_1'") == 100
        assert await connection.fetchval("SELECT sum(cost) FROM tollway.usage_model_days WHERE model = ''") == Decimal(
            "1.25"
        )
