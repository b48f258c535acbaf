"""``Authorization: Bearer``: the only place where a provider's credential becomes bytes, and where it is looked for."""

import msgspec

from tollway.domain.failures import UpstreamFailure
from tollway.domain.keys import Secret

_LINE = b"authorization: Bearer %b\r\n"


def authorization(secret: Secret) -> bytes | None:
    """The header line with its CRLF; None for a secret that no header can carry (empty, blanks, control characters)."""
    text = secret.reveal()
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        return None
    return _LINE % text.encode()


def without_secret(failure: UpstreamFailure, line: bytes) -> UpstreamFailure:
    """The failure without the credential of this header line, should the provider have repeated it.

    The patterns of ``classify.clean`` know the usual shapes of keys; this knows the one that was sent.
    """
    secret = line.removeprefix(_LINE[: _LINE.index(b"%")]).strip().decode()
    told = (failure.message, failure.code, failure.param)
    if not secret or not any(text and secret in text for text in told):
        return failure
    message, code, param = (text.replace(secret, "***") if text else text for text in told)
    return msgspec.structs.replace(failure, message=message, code=code, param=param)
