"""``Authorization: Bearer``: the only place where a provider's credential becomes bytes."""

from tollway.domain.keys import Secret


def authorization(secret: Secret) -> bytes | None:
    """The header line with its CRLF; None for a secret that no header can carry (empty, blanks, control characters)."""
    text = secret.reveal()
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        return None
    return b"authorization: Bearer %b\r\n" % text.encode()
