"""The predecessor's two calls: make a virtual key, store provider keys with it."""

import re
from datetime import UTC, datetime
from typing import Annotated

import asyncpg
import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tollway.admission.authenticate import KeyHasher
from tollway.controlplane.access import Access, presents
from tollway.controlplane.change_log import ChangeLog
from tollway.controlplane.errors import ApiError
from tollway.controlplane.requests import read
from tollway.domain.keys import Secret
from tollway.store import keys
from tollway.store.vault import Vault
from tollway.wire.json import UNSET, Unset, encode

_Limit = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]  # the column's type
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]


class NewKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """The optional body of ``/api/generate-virtual-key``. A limit that is null is none, a missing one the default."""

    name: _Name | None = None
    requests_per_minute: _Limit | None = keys.DEFAULT_REQUESTS_PER_MINUTE
    tokens_per_minute: _Limit | None = keys.DEFAULT_TOKENS_PER_MINUTE
    models: Annotated[list[_Name], msgspec.Meta(max_length=1000)] | None = None
    """Names of models; null for all."""
    expires_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class ProviderKeys(msgspec.Struct, frozen=True, rename="camel"):
    """The body of ``/api/save-keys``: an empty text clears a key, a missing member leaves it."""

    virtual_key: str
    openai_key: str | Unset = UNSET
    mistral_key: str | Unset = UNSET
    provider_keys: dict[_Name, str] = {}
    """By the name of any provider, for those that were added by a row."""

    def by_provider(self) -> dict[str, str]:
        """What changes. Raises ApiError for a key that no provider can have given out."""
        given = {**self.provider_keys, "openai": self.openai_key, "mistral": self.mistral_key}
        changes = {provider: key for provider, key in given.items() if isinstance(key, str)}
        for provider, key in changes.items():
            if not re.fullmatch(r"[!-~]{0,8192}", key):
                text = "A provider key is printable ASCII without spaces, at most 8192 characters."
                param = f"providerKeys.{provider}" if provider in self.provider_keys else f"{provider}Key"
                raise ApiError(400, text, "invalid_provider_key", param)
        return changes


class Setup:
    """Serves the two calls."""

    def __init__(self, pool: asyncpg.Pool, access: Access, vault: Vault, changes: ChangeLog) -> None:
        self._pool = pool
        self._access = access
        self._vault = vault
        self._hasher = KeyHasher(vault.pepper)
        self._changes = changes

    async def generate_virtual_key(self, request: Request) -> Response:
        """Make a virtual key; the answer is the only place where it ever stands in clear."""
        self._access.require_admin(request)
        wanted = await read(request, NewKey)
        if wanted.expires_at is not None and wanted.expires_at <= datetime.now(UTC):
            raise ApiError(400, "expiresAt must be in the future.", "invalid_request", "expiresAt")
        async with self._pool.acquire() as connection:
            made = await keys.create(
                connection,
                self._hasher,
                name=wanted.name,
                requests_per_minute=wanted.requests_per_minute,
                tokens_per_minute=wanted.tokens_per_minute,
                allowed_models=wanted.models,
                expires_at=wanted.expires_at,
            )
        self._changes.key_made(request, made.id)
        return _written({"virtualKey": made.secret.reveal(), "id": made.id}, made.revision)

    async def save_keys(self, request: Request) -> Response:
        """Store, replace or clear the provider keys of one virtual key."""
        self._access.require_some_credential(request)
        try:
            wanted = await read(request, ProviderKeys)
        except ApiError:
            self._access.require_admin(request)  # a body that names no key proves no owner: who asks is judged first
            raise
        self._access.require_owner(request, Secret(wanted.virtual_key))
        changes = wanted.by_provider()
        async with self._pool.acquire() as connection:
            key_id = await keys.find(connection, self._hasher, wanted.virtual_key)
            revision = None
            if key_id is not None:
                revision = await keys.save_provider_keys(connection, self._vault, key_id, changes)
        if key_id is None or revision is None:
            raise ApiError(404, "The virtual key is not known.", "virtual_key_not_found", "virtualKey")
        by_key = presents(request, Secret(wanted.virtual_key))
        self._changes.provider_keys_saved(request, key_id, changes, by_key)
        return _written({"message": "API keys saved successfully."}, revision)


def _written(body: dict[str, str], revision: int) -> Response:
    """The answer to a write. The worker holds it until the revision is in force in its own configuration."""
    headers = {"cache-control": "no-store", "x-tollway-config-revision": str(revision)}
    return Response(encode(body), headers=headers, media_type="application/json")
