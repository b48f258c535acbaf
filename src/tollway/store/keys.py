"""Virtual keys in the database: made, listed, rotated, revoked, limited, and given provider keys of their own.

What changes a key returns the revision of the change (see ``Configuration.reached``), or None where there is no such
key. The secret of a key exists only in what :func:`create` and :func:`rotate` return.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

import asyncpg
import msgspec
from msgspec import UNSET, UnsetType

from tollway.domain.keys import KeyHash, KeyId, Secret, masked, new_key_id, new_virtual_key
from tollway.store.postgres import query
from tollway.store.vault import Vault, provider_key_binding

DEFAULT_REQUESTS_PER_MINUTE = 60
DEFAULT_TOKENS_PER_MINUTE = 100_000

Hasher = Callable[[bytes], KeyHash]
"""The keyed hash of a presented secret: ``admission.authenticate.KeyHasher`` over ``Vault.pepper``."""


class VirtualKey(NamedTuple):
    """What may be shown of a key."""

    id: KeyId
    name: str | None
    hint: str
    """The first and last characters of the secret."""
    requests_per_minute: int | None
    tokens_per_minute: int | None
    allowed_models: Sequence[str] | None
    """None: all."""
    providers: Sequence[str]
    """For which it brings a provider key of its own."""
    expires_at: datetime | None
    previous_valid_until: datetime | None
    """Until when the secret before the last rotation still works, if it does."""
    revoked_at: datetime | None
    created_at: datetime
    updated_at: datetime
    total_cost: Decimal
    """US dollars."""
    requests: int
    input_tokens: int
    output_tokens: int


class NewSecret(NamedTuple):
    """A secret that was just made, and will not be seen again."""

    id: KeyId
    secret: Secret
    revision: int


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """What to change of a key; None is a value, for limits it means none."""

    name: str | UnsetType | None = UNSET
    requests_per_minute: int | UnsetType | None = UNSET
    tokens_per_minute: int | UnsetType | None = UNSET
    allowed_models: Sequence[str] | UnsetType | None = UNSET
    expires_at: datetime | UnsetType | None = UNSET


async def create(
    connection: asyncpg.Connection,
    hasher: Hasher,
    *,
    name: str | None = None,
    requests_per_minute: int | None = DEFAULT_REQUESTS_PER_MINUTE,
    tokens_per_minute: int | None = DEFAULT_TOKENS_PER_MINUTE,
    allowed_models: Sequence[str] | None = None,
    expires_at: datetime | None = None,
) -> NewSecret:
    """Make a key."""
    key_id, secret = new_key_id(), new_virtual_key()
    limits = (requests_per_minute, tokens_per_minute, allowed_models, expires_at)
    row = (key_id, hasher(secret.encode()), masked(secret), name, *limits)
    revision: int = await connection.fetchval(query("keys_create"), *row)
    return NewSecret(key_id, Secret(secret), revision)


async def list_all(connection: asyncpg.Connection) -> list[VirtualKey]:
    """All keys in the order of their making, revoked ones too, deleted ones not."""
    return [VirtualKey._make(row) for row in await connection.fetch(query("keys_list"), None)]


async def show(connection: asyncpg.Connection, key_id: str) -> VirtualKey | None:
    """One key."""
    row = await connection.fetchrow(query("keys_list"), key_id)
    return None if row is None else VirtualKey._make(row)


async def find(connection: asyncpg.Connection, hasher: Hasher, secret: str) -> KeyId | None:
    """The key that this secret opens now: none if it is revoked or expired."""
    key_id: KeyId | None = await connection.fetchval(query("keys_find"), hasher(secret.encode("utf-8", "replace")))
    return key_id


async def was_used(connection: asyncpg.Connection, key_id: str) -> bool:
    """Whether there is such a key, or was one that has used something."""
    there: bool = await connection.fetchval(
        """SELECT EXISTS (SELECT FROM tollway.virtual_keys WHERE id = $1)
            OR EXISTS (SELECT FROM tollway.key_totals WHERE key_id = $1)""",
        key_id,
    )
    return there


async def rotate(
    connection: asyncpg.Connection, hasher: Hasher, key_id: str, overlap: timedelta = timedelta(0)
) -> NewSecret | None:
    """A new secret for a key; the one so far stays valid for the overlap. None also for a revoked key."""
    secret = new_virtual_key()
    revision: int | None = await connection.fetchval(
        query("keys_rotate"), key_id, hasher(secret.encode()), masked(secret), overlap
    )
    return None if revision is None else NewSecret(KeyId(key_id), Secret(secret), revision)


async def revoke(connection: asyncpg.Connection, key_id: str) -> int | None:
    """End a key for good."""
    revision: int | None = await connection.fetchval(query("keys_revoke"), key_id)
    return revision


async def change(connection: asyncpg.Connection, key_id: str, changes: Changes) -> int | None:
    """Change limits, allowed models, expiry or name. Raises asyncpg.CheckViolationError for a value that cannot be."""
    values = (
        changes.requests_per_minute,
        changes.tokens_per_minute,
        changes.allowed_models,
        changes.expires_at,
        changes.name,
    )
    arguments = (part for value in values for part in ((False, None) if value is UNSET else (True, value)))
    revision: int | None = await connection.fetchval(query("keys_change"), key_id, *arguments)
    return revision


async def save_provider_keys(
    connection: asyncpg.Connection, vault: Vault, key_id: str, provider_keys: Mapping[str, str]
) -> int | None:
    """Store provider keys by provider, encrypted; an empty text removes one."""
    async with connection.transaction():
        revision: int | None = await connection.fetchval(query("keys_lock"), key_id)
        if revision is None:
            return None
        for provider, text in provider_keys.items():
            sealed = vault.encrypt(Secret(text), provider_key_binding(key_id, provider)) if text else ""
            await connection.execute(query("keys_save_provider_key"), key_id, provider, sealed)
    return revision
