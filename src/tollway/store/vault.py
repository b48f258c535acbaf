"""Everything that hangs on ``ENCRYPTION_KEY``: provider keys at rest, and the pepper of virtual keys' hashes.

A stored provider key reads ``v1.<key id>.<base64url of nonce, ciphertext and tag>``: AES-256-GCM with a fresh nonce,
bound to the virtual key and provider it belongs to, so that ciphertexts cannot be swapped between rows.
"""

import base64
import binascii
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.padding import PKCS7

from tollway.domain.keys import Secret

KEY_BYTES, IV_BYTES = 32, 16

_FORMAT = "v1"
_NONCE_BYTES = 12


def provider_key_binding(key_id: str, provider: str) -> str:
    """What a stored provider key is bound to."""
    return f"{key_id}/{provider}"


class Vault:
    """Seals and opens provider keys. Raises ValueError for a key or IV of the wrong size."""

    __slots__ = ("_aead", "_iv", "_key", "_key_id", "check", "file_key", "pepper")

    pepper: bytes
    """For the keyed hash of virtual keys."""
    check: bytes
    """Tells encryption keys apart and says nothing else about them."""
    file_key: bytes
    """For checksums of files that nobody else can have written."""

    def __init__(self, encryption_key: bytes, iv: bytes | None = None) -> None:
        if len(encryption_key) != KEY_BYTES or (iv is not None and len(iv) != IV_BYTES):
            raise ValueError(f"an encryption key has {KEY_BYTES} bytes, an IV {IV_BYTES}")
        self._key = encryption_key
        self._iv = iv
        self._aead = AESGCM(_derived(encryption_key, b"provider keys", 32))
        self._key_id = _derived(encryption_key, b"key id", 4).hex()
        self.pepper = _derived(encryption_key, b"hash of virtual keys", 32)
        self.check = _derived(encryption_key, b"check", 16)
        self.file_key = _derived(encryption_key, b"checksums of files", 32)

    @classmethod
    def of(cls, encryption_key: Secret, iv: Secret | None) -> "Vault":
        """The vault of a key and an IV as settings write them, in hex digits."""
        return cls(bytes.fromhex(encryption_key.reveal()), None if iv is None else bytes.fromhex(iv.reveal()))

    def encrypt(self, plain: Secret, bound_to: str) -> str:
        """The text to store."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._aead.encrypt(nonce, plain.reveal().encode(), bound_to.encode())
        return f"{_FORMAT}.{self._key_id}.{base64.urlsafe_b64encode(nonce + sealed).decode()}"

    def decrypt(self, text: str, bound_to: str) -> Secret | None:
        """The secret in a stored text; None for whatever was not sealed with this key for this binding.

        With an IV also what the predecessor stored, hex digits of AES-256-CBC, which is bound to nothing.
        """
        head, _, body = text.rpartition(".")
        if not head:
            return self._decrypt_predecessors(text)
        if head != f"{_FORMAT}.{self._key_id}":
            return None
        try:
            sealed = base64.b64decode(body, altchars=b"-_", validate=True)
            if base64.urlsafe_b64encode(sealed).decode() != body:
                return None  # other letters for the same bytes: not what was stored
            plain = self._aead.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], bound_to.encode())
        except (binascii.Error, ValueError, InvalidTag):
            return None
        return Secret(plain.decode())

    def _decrypt_predecessors(self, text: str) -> Secret | None:
        if self._iv is None:
            return None
        try:
            decryptor = Cipher(algorithms.AES256(self._key), modes.CBC(self._iv)).decryptor()
            padded = decryptor.update(bytes.fromhex(text)) + decryptor.finalize()
            unpadder = PKCS7(128).unpadder()
            plain = (unpadder.update(padded) + unpadder.finalize()).decode("ascii")
        except ValueError:
            return None
        # Nothing proves that it was the right key; a provider key is printable, and junk hardly ever is.
        return Secret(plain) if plain and plain.isprintable() else None


def _derived(key: bytes, purpose: bytes, size: int) -> bytes:
    return HKDF(SHA256(), size, salt=None, info=b"tollway " + purpose).derive(key)
