"""Who is calling: a virtual key, found by the keyed hash of the whole secret."""

import hashlib

from tollway.domain.keys import KeyHash
from tollway.domain.refusals import BadKey, ExpiredKey, KeysUnavailable, RevokedKey
from tollway.routing.snapshot import KeyGrant, Snapshot

MAX_KEY_BYTES = 256
"""Longer texts are no key of ours (55 characters) or the predecessor's (36) and are not worth hashing."""

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


def authenticate(
    authorization: bytes | None, snapshot: Snapshot, hasher: KeyHasher, now_unix: float, *, fresh: bool
) -> KeyGrant | BadKey | ExpiredKey | RevokedKey | KeysUnavailable:
    """The grant of the key in an ``Authorization`` header.

    ``fresh`` says whether the snapshot is known to be current: if not, an unknown key may be a new one.
    """
    if authorization is None:
        return _BAD_KEY
    scheme, _, presented = authorization.partition(b" ")
    presented = presented.strip(b" ")
    if scheme.lower() != b"bearer" or not 0 < len(presented) <= MAX_KEY_BYTES:
        return _BAD_KEY
    grant = snapshot.keys.get(hasher(presented))
    if grant is None:
        return _BAD_KEY if fresh else _KEYS_UNAVAILABLE
    if grant.revoked:
        return _REVOKED_KEY
    if grant.expires_at is not None and now_unix >= grant.expires_at:
        return _EXPIRED_KEY
    return grant
