"""Virtual keys as text, and secrets that do not print themselves."""

import binascii
import secrets
from typing import NewType

KeyId = NewType("KeyId", str)
KeyHash = NewType("KeyHash", bytes)

PREFIX = "sk-tw-"
"""Recognisable for people and secret scanners; ``sk-`` because client libraries expect it."""

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_CHARACTERS = 43  # 62**43 > 2**256
_CHECKSUM_CHARACTERS = 6  # 62**6 > 2**32


class Secret:
    """A text that shows itself only to whoever calls :meth:`reveal`."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The secret itself. Call it where the secret leaves, nowhere else."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and secrets.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a secret is not pickled")


def new_virtual_key() -> str:
    """A fresh virtual key: prefix, 256 random bits, checksum, in letters and digits."""
    body = _base62(secrets.randbits(256), _SECRET_CHARACTERS)
    return PREFIX + body + _checksum(body)


def is_well_formed(text: str) -> bool:
    """Whether the text has the shape and the checksum of a key made here; says nothing about its being known."""
    body, checksum = text[len(PREFIX) : -_CHECKSUM_CHARACTERS], text[-_CHECKSUM_CHARACTERS:]
    return text.startswith(PREFIX) and len(body) == _SECRET_CHARACTERS and _checksum(body) == checksum


def new_key_id() -> KeyId:
    """A stable public name for a key: no secret, survives rotation."""
    return KeyId("key_" + _base62(secrets.randbits(95), 16))


def masked(text: str) -> str:
    """The first and last characters, enough to recognise a key and too few to use it."""
    return f"{text[:9]}…{text[-4:]}" if len(text) >= 24 else "…"


def _checksum(body: str) -> str:
    return _base62(binascii.crc32(body.encode()), _CHECKSUM_CHARACTERS)


def _base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
