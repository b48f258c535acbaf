"""Who is calling: a virtual key, found by the keyed hash of the whole secret."""

import hashlib
from collections.abc import Mapping

from tollway.domain.keys import KeyHash
from tollway.domain.refusals import BadKey, ExpiredKey, KeysUnavailable, RevokedKey
from tollway.routing.snapshot import KeyGrant, Snapshot

MAX_KEY_BYTES = 256
"""Longer texts are no key of ours (55 characters) or the predecessor's (36) and are not worth hashing."""

_KEY_HEADERS = (b"x-api-key", b"api-key", b"x-goog-api-key")

_BAD_KEY = BadKey()
_EXPIRED_KEY = ExpiredKey()
_REVOKED_KEY = RevokedKey()
_KEYS_UNAVAILABLE = KeysUnavailable()


class KeyHasher:
    """BLAKE2b-256, keyed with a pepper that the database does not know: a stolen table of hashes opens nothing.

    No slow hash is needed, a virtual key has 256 random bits. Raises ValueError for a pepper over 64 bytes.
    """

    __slots__ = ("_keyed",)

    def __init__(self, pepper: bytes) -> None:
        self._keyed = hashlib.blake2b(key=pepper, digest_size=32)

    def __call__(self, presented: bytes) -> KeyHash:
        """The hash under which this secret is stored."""
        state = self._keyed.copy()
        state.update(presented)
        return KeyHash(state.digest())


def presented_key(headers: Mapping[bytes, bytes]) -> bytes | None:
    """The one key that a request presents, in the header that OpenAI's, Anthropic's, Azure's or Google's clients use.

    None where there is none, where ``Authorization`` is not ``Bearer …``, and where two differ: nobody could say which
    of them was meant, and something in front of us may have judged the other.
    """
    if b"x-api-key" in headers or b"api-key" in headers or b"x-goog-api-key" in headers:
        return _agreed_key(headers)
    return bearer(headers.get(b"authorization"))


def bearer(authorization: bytes | None) -> bytes | None:
    """The token of an ``Authorization`` header; None where there is none."""
    if authorization is None:
        return None
    scheme, _, token = authorization.partition(b" ")
    return token.strip(b" ") or None if scheme.lower() == b"bearer" else None


def _agreed_key(headers: Mapping[bytes, bytes]) -> bytes | None:
    """What all headers that hold anything agree on."""
    keys = {key for name in _KEY_HEADERS if (key := headers.get(name, b"").strip(b" "))}
    if authorization := headers.get(b"authorization"):
        keys.add(bearer(authorization) or b"")
    return keys.pop() or None if len(keys) == 1 else None


def authenticate(
    presented: bytes | None, snapshot: Snapshot, hasher: KeyHasher, now_unix: float, *, fresh: bool
) -> KeyGrant | BadKey | ExpiredKey | RevokedKey | KeysUnavailable:
    """The grant of a presented key.

    ``fresh`` says whether the snapshot is known to be current: if not, an unknown key may be a new one.
    """
    if presented is None or len(presented) > MAX_KEY_BYTES:
        return _BAD_KEY
    grant = snapshot.keys.get(hasher(presented))
    if grant is None:
        return _BAD_KEY if fresh else _KEYS_UNAVAILABLE
    if grant.revoked:
        return _REVOKED_KEY
    if grant.expires_at is not None and now_unix >= grant.expires_at:
        return _EXPIRED_KEY
    return grant
