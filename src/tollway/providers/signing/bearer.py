"""``Authorization: Bearer``: the only place where a provider's credential becomes bytes, and where it is looked for."""

import msgspec

from tollway.domain.failures import Said, UpstreamFailure
from tollway.domain.keys import Secret
from tollway.providers import cleaning

_LINE = b"authorization: Bearer %b\r\n"


def authorization(secret: Secret) -> bytes | None:
    """The header line with its CRLF; None for a secret that no header can carry (empty, blanks, control characters)."""
    text = secret.reveal()
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        return None
    return _LINE % text.encode()


def text_without_secret(text: str, line: bytes) -> str:
    """The text without the credential of this header line, should the provider have repeated it.

    The patterns of ``cleaning.clean`` know the usual shapes of keys; this knows the one that was sent.
    """
    secret = line.removeprefix(_LINE[: _LINE.index(b"%")]).strip().decode()
    return cleaning.without_secret(text, secret) if secret else text


def without_secret(failure: UpstreamFailure, line: bytes) -> UpstreamFailure:
    """The failure without the credential of this header line, wherever it stands."""
    said = failure.said
    words = [text_without_secret(text, line) for text in (said.message, said.code, said.type, said.request_id)]
    message, code, param = (
        text and text_without_secret(text, line) for text in (failure.message, failure.code, failure.param)
    )
    hidden = Said(words[0], words[1], words[2], words[3], said.of_an_account)
    masked = msgspec.structs.replace(failure, message=message, code=code, param=param, said=hidden)
    return failure if masked == failure else masked
