"""What a database remembers of the gateway it belongs to."""

import hmac

import asyncpg

from tollway.store.vault import Vault


class WrongEncryptionKeyError(Exception):
    """The database was written with another ENCRYPTION_KEY; nothing in it could be read."""

    def __init__(self) -> None:
        super().__init__("is not the key that this database was written with: no virtual key would be recognised")


async def check_encryption_key(connection: asyncpg.Connection, vault: Vault) -> None:
    """Compare with the key of the first start, which leaves its mark; raises WrongEncryptionKeyError."""
    await connection.execute(
        "UPDATE tollway.installation SET encryption_key_check = $1 WHERE encryption_key_check IS NULL", vault.check
    )
    known: bytes = await connection.fetchval("SELECT encryption_key_check FROM tollway.installation")
    if not hmac.compare_digest(known, vault.check):
        raise WrongEncryptionKeyError
