"""The last good configuration in a file of the home, for processes that start while PostgreSQL is away.

It holds what the database holds: hashes of virtual keys and encrypted provider keys, no secret in clear. It is bound to
the encryption key and to the place of the database by a keyed checksum; whatever does not fit is as good as no file.
A file is made whole beside the old one and takes its place.
"""

import hashlib
import hmac
import itertools
import os
import struct
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from tollway.domain.keys import KeyHash, KeyId, Secret
from tollway.routing.snapshot import NOTHING, KeyGrant, KeyTable, Rows, shared_names
from tollway.store.uri import read
from tollway.store.vault import Vault

FILE_NAME = "last-configuration"
MAX_FILE_BYTES = 512 * 1024 * 1024
MAX_AGE_S = 24 * 3600.0
"""Since it was known to be current. Nobody's outage lasts longer; what is older may come from a backup, and would bring
back keys that were revoked long ago."""

_MAGIC = b"tollway configuration "
_VERSION = b"2\n"
_CHUNK = 200  # keys that are encoded at a stretch, in some 0.3 ms
_PAUSE_S = 0.002  # between chunks, for the event loop of the same process
_CHECKSUM_BYTES = 32
_LENGTH = struct.Struct(">I")


class LastGood(NamedTuple):
    """A configuration as it was read."""

    revision: int
    keys: KeyTable
    rows: Rows
    current_at: float
    """Unix time at which it was last known to be the database's."""

    @property
    def moment(self) -> str:
        """``current_at`` for people."""
        return datetime.fromtimestamp(self.current_at, UTC).isoformat(timespec="seconds")


class UnusableError(Exception):
    """There is a file, and it cannot be used; the text is one line for people."""


class _Head(NamedTuple):
    place: bytes
    revision: int


class _Key(NamedTuple):
    hash: bytes
    id: str
    requests_per_minute: int | None
    tokens_per_minute: int | None
    models: list[str] | None
    expires_at: float | None
    revoked: bool
    secrets: dict[str, str]


_encode = msgspec.msgpack.Encoder().encode
_head = msgspec.msgpack.Decoder(_Head).decode
_rows = msgspec.msgpack.Decoder(Rows).decode
_keys = msgspec.msgpack.Decoder(list[_Key]).decode


class LastGoodFile:
    """The file of one home. Everything here may take seconds: call it in a thread."""

    def __init__(self, home: Path, vault: Vault, database_url: Secret | None) -> None:
        """``database_url``: where the database is, if it is not the home's own."""
        self._path = home / FILE_NAME
        self._vault = vault
        given = None if database_url is None else read(database_url.reveal())
        place = given and (sorted(given.hosts), given.user, given.database)
        self._place = hashlib.blake2b(repr(place).encode(), digest_size=16).digest()
        self._stopping = False

    def save(self, revision: int, keys: KeyTable, rows: Rows) -> bool:
        """Write the configuration; False where it is too large. Raises OSError, also when :meth:`stop` was called."""
        draft = self._path.with_suffix(".new")
        checksum = hashlib.blake2b(key=self._vault.file_key, digest_size=_CHECKSUM_BYTES)
        draft.unlink(missing_ok=True)
        try:
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                size = 0
                for piece in self._pieces(revision, keys, rows):
                    if self._stopping:
                        raise InterruptedError
                    size += len(piece)
                    if size > MAX_FILE_BYTES:
                        return False
                    checksum.update(piece)
                    file.write(piece)
                    time.sleep(_PAUSE_S)
                file.write(checksum.digest())
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)
        finally:
            draft.unlink(missing_ok=True)
        return True

    def stop(self) -> None:
        """End a :meth:`save` that is under way in another thread; the file before stays."""
        self._stopping = True

    def confirm(self) -> None:
        """What the file says is still what the database says. Raises OSError."""
        os.utime(self._path)

    def load(self) -> LastGood | None:
        """What the file says; None where there is none. Raises UnusableError."""
        found = self._read()
        if found is None:
            return None
        content, current_at = found
        try:
            head, rows, *chunks = _framed(content)
            read_head = _head(head)
            if read_head.place != self._place:
                raise UnusableError(f"{self._path} belongs to another database")
            return LastGood(read_head.revision, _table(chunks), _rows(rows), current_at)
        except (ValueError, msgspec.MsgspecError, struct.error) as error:  # written whole, by something else
            raise UnusableError(f"{self._path} cannot be read: {error}") from None

    def _read(self) -> tuple[memoryview, float] | None:
        """The framed pieces, and when they were current."""
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_size > MAX_FILE_BYTES + _CHECKSUM_BYTES:
                    raise UnusableError(f"{self._path} is too large")
                content = file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UnusableError(f"{self._path} cannot be read: {error.strerror}") from None
        body, checksum = memoryview(content)[:-_CHECKSUM_BYTES], content[-_CHECKSUM_BYTES:]
        start = len(_MAGIC) + len(_VERSION)
        if content[: len(_MAGIC)] != _MAGIC:
            raise UnusableError(f"{self._path} is damaged")
        if content[len(_MAGIC) : start] != _VERSION:
            raise UnusableError(f"{self._path} was written by another version")
        expected = hashlib.blake2b(body, key=self._vault.file_key, digest_size=_CHECKSUM_BYTES).digest()
        if not hmac.compare_digest(expected, checksum):
            raise UnusableError(f"{self._path} is damaged, or belongs to another ENCRYPTION_KEY")
        if time.time() - status.st_mtime > MAX_AGE_S:
            raise UnusableError(f"{self._path} is too old")
        return body[start:], status.st_mtime

    def _pieces(self, revision: int, keys: KeyTable, rows: Rows) -> Iterator[bytes]:
        yield _MAGIC + _VERSION
        yield _frame(_Head(self._place, revision))
        yield _frame(rows)
        entries = iter(keys.items())
        while chunk := [_key(*entry) for entry in itertools.islice(entries, _CHUNK)]:
            yield _frame(chunk)


def _frame(value: object) -> bytes:
    encoded = _encode(value)
    return _LENGTH.pack(len(encoded)) + encoded


def _framed(content: memoryview) -> Iterator[memoryview]:
    position = 0
    while position < len(content):
        (length,) = _LENGTH.unpack_from(content, position)
        position += _LENGTH.size
        if position + length > len(content):
            raise ValueError("a piece is cut off")
        yield content[position : position + length]
        position += length


def _key(digest: KeyHash, grant: KeyGrant) -> _Key:
    return _Key(
        digest,
        grant.id,
        grant.requests_per_minute,
        grant.tokens_per_minute,
        None if grant.models is None else sorted(grant.models),
        grant.expires_at,
        grant.revoked,
        dict(grant.secrets),
    )


def _table(chunks: Iterable[memoryview]) -> KeyTable:
    draft = KeyTable().draft()
    for chunk in chunks:
        for key in _keys(chunk):
            secrets = {sys.intern(provider): secret for provider, secret in key.secrets.items()} or NOTHING
            models = None if key.models is None else shared_names(tuple(key.models))
            draft.put(
                KeyHash(key.hash),
                KeyGrant(
                    KeyId(key.id),
                    key.requests_per_minute,
                    key.tokens_per_minute,
                    models,
                    key.expires_at,
                    key.revoked,
                    secrets,
                ),
            )
    return draft.done()
