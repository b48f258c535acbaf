"""Virtual keys as the control plane and the command line keep them."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import asyncpg
import pytest

from fakes.connections import connected
from tollway.admission.authenticate import KeyHasher
from tollway.domain.keys import Secret, is_well_formed
from tollway.store import keys
from tollway.store.keys import Changes
from tollway.store.vault import Vault, provider_key_binding

vault = Vault(bytes(32))
hasher = KeyHasher(vault.pepper)


async def test_a_made_key_is_found_by_its_secret_which_is_stored_nowhere(postgres_url: str) -> None:
    async with connected(postgres_url) as connection:
        made = await keys.create(connection, hasher, name="laptop")
        secret = made.secret.reveal()
        assert is_well_formed(secret)
        assert await keys.find(connection, hasher, secret) == made.id
        row = await connection.fetchval("SELECT virtual_keys::text FROM tollway.virtual_keys")
        assert secret not in row
        assert secret[9:-4] not in row


async def test_a_secret_is_recognised_whole(postgres_url: str) -> None:
    async with connected(postgres_url) as connection:
        secret = (await keys.create(connection, hasher)).secret.reveal()
        for other in (secret[:-1], secret + "x", secret[:40] + "A" * 15, "", "'\"; --\x00%_", "\ud800"):
            assert await keys.find(connection, hasher, other) is None


async def test_another_pepper_recognises_nothing(postgres_url: str) -> None:
    async with connected(postgres_url) as connection:
        secret = (await keys.create(connection, hasher)).secret.reveal()
        assert await keys.find(connection, KeyHasher(b"other"), secret) is None


async def test_a_key_is_shown_with_its_limits_and_what_it_spent(postgres_url: str) -> None:
    ends = datetime(2031, 1, 1, tzinfo=UTC)
    async with connected(postgres_url) as connection:
        made = await keys.create(
            connection,
            hasher,
            name="n",
            requests_per_minute=None,
            tokens_per_minute=0,
            allowed_models=["gpt-4o"],
            expires_at=ends,
        )
        await connection.execute(
            "INSERT INTO tollway.key_totals (key_id, total_cost, requests, input_tokens, output_tokens)"
            " VALUES ($1, 0.000135000, 1, 2, 3)",
            made.id,
        )
        shown = await keys.show(connection, made.id)
        assert shown is not None
        assert [shown] == await keys.list_all(connection)
        assert (shown.id, shown.name, shown.expires_at) == (made.id, "n", ends)
        assert (shown.requests_per_minute, shown.tokens_per_minute, shown.allowed_models) == (None, 0, ["gpt-4o"])
        assert (shown.total_cost, shown.requests) == (Decimal("0.000135"), 1)
        assert (shown.input_tokens, shown.output_tokens) == (2, 3)
        assert made.secret.reveal().startswith(shown.hint.partition("…")[0])
        assert await keys.show(connection, "key_unknown") is None


async def test_after_a_rotation_both_secrets_work_for_the_overlap(postgres_url: str) -> None:
    async with connected(postgres_url) as connection:
        first = await keys.create(connection, hasher)
        second = await keys.rotate(connection, hasher, first.id, timedelta(hours=1))
        assert second is not None
        assert second.id == first.id
        assert second.revision > first.revision
        for made in (first, second):
            assert await keys.find(connection, hasher, made.secret.reveal()) == first.id
        third = await keys.rotate(connection, hasher, first.id)
        assert third is not None
        assert await keys.find(connection, hasher, first.secret.reveal()) is None
        assert await keys.find(connection, hasher, second.secret.reveal()) is None
        assert await keys.find(connection, hasher, third.secret.reveal()) == first.id


async def test_a_revoked_key_stays_revoked(postgres_url: str) -> None:
    async with connected(postgres_url) as connection:
        made = await keys.create(connection, hasher)
        assert await keys.revoke(connection, made.id)
        first = await keys.show(connection, made.id)
        assert await keys.revoke(connection, made.id)
        assert first is not None
        assert (await keys.show(connection, made.id)).revoked_at == first.revoked_at
        assert await keys.find(connection, hasher, made.secret.reveal()) is None
        assert await keys.rotate(connection, hasher, made.id) is None


async def test_an_expired_key_is_not_found(postgres_url: str) -> None:
    async with connected(postgres_url) as connection:
        made = await keys.create(connection, hasher, expires_at=datetime.now(UTC) - timedelta(seconds=1))
        assert await keys.find(connection, hasher, made.secret.reveal()) is None


async def test_a_change_touches_what_it_names_and_nothing_else(postgres_url: str) -> None:
    async with connected(postgres_url) as connection:
        made = await keys.create(connection, hasher, name="n")
        assert await keys.change(connection, made.id, Changes(requests_per_minute=None, allowed_models=["o1"]))
        shown = await keys.show(connection, made.id)
        assert (shown.name, shown.requests_per_minute, shown.tokens_per_minute) == ("n", None, 100_000)
        assert shown.allowed_models == ["o1"]
        ends = datetime(2031, 1, 1, tzinfo=UTC)
        await keys.change(connection, made.id, Changes(name="m", tokens_per_minute=5, expires_at=ends))
        await keys.change(connection, made.id, Changes(allowed_models=None))
        shown = await keys.show(connection, made.id)
        assert (shown.name, shown.tokens_per_minute, shown.expires_at) == ("m", 5, ends)
        assert shown.allowed_models is None
        with pytest.raises(asyncpg.CheckViolationError):
            await keys.change(connection, made.id, Changes(requests_per_minute=-1))


async def test_an_unknown_key_is_not_changed(postgres_url: str) -> None:
    async with connected(postgres_url) as connection:
        assert await keys.change(connection, "key_x", Changes(name="n")) is None
        assert await keys.revoke(connection, "key_x") is None
        assert await keys.rotate(connection, hasher, "key_x") is None
        assert await keys.save_provider_keys(connection, vault, "key_x", {"openai": "sk"}) is None


async def test_provider_keys_are_stored_encrypted_and_for_their_row(postgres_url: str) -> None:
    async with connected(postgres_url) as connection:
        made = await keys.create(connection, hasher)
        revision = await keys.save_provider_keys(connection, vault, made.id, {"openai": "sk-o", "mistral": "sk-m"})
        assert revision is not None
        assert revision > made.revision
        assert (await keys.show(connection, made.id)).providers == ["mistral", "openai"]
        stored = await connection.fetchval('SELECT "openaiKey" FROM "Users"')
        assert "sk-o" not in stored
        assert vault.decrypt(stored, provider_key_binding(made.id, "openai")) == Secret("sk-o")
        await keys.save_provider_keys(connection, vault, made.id, {"openai": ""})
        assert (await keys.show(connection, made.id)).providers == ["mistral"]


async def test_a_deleted_key_is_unknown(postgres_url: str) -> None:
    async with connected(postgres_url) as connection:
        made = await keys.create(connection, hasher)
        await connection.execute('DELETE FROM "Users"')
        assert await keys.show(connection, made.id) is None
        assert await keys.list_all(connection) == []
        assert await keys.find(connection, hasher, made.secret.reveal()) is None
        assert await keys.save_provider_keys(connection, vault, made.id, {"openai": "sk"}) is None
        assert await keys.change(connection, made.id, Changes(name="n")) is None
