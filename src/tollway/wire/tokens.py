"""Inputs that may come as text or as tokens: OpenAI's embeddings and legacy completions take both."""

from typing import Annotated, TypeAlias

import msgspec

from tollway.domain.refusals import BadRequest
from tollway.wire.estimate import BYTES_PER_TOKEN
from tollway.wire.json import Raw

_Token: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]

Tokens: TypeAlias = list[_Token]

Texts: TypeAlias = str | Annotated[list[str | _Token | Tokens], msgspec.Meta(min_length=1)]
"""A text, texts, tokens, or lists of tokens. Whether a list is of one kind only says :func:`mixed`."""


def mixed(texts: Texts, param: str) -> BadRequest | None:
    """Refuses a list whose items are not all of the kind of the first."""
    if isinstance(texts, list):
        kind = type(texts[0])
        for index, item in enumerate(texts):
            if type(item) is not kind:
                path = f"{param}[{index}]"
                return BadRequest(f"Invalid '{path}': not of the same kind as '{param}[0]'.", path, "invalid_type")
    return None


def is_tokens(texts: Texts) -> bool:
    """Whether these are tokens, which mean something to one model only."""
    return isinstance(texts, list) and not isinstance(texts[0], str)


def count(texts: Texts) -> int:
    """How many inputs these are; bare tokens are one."""
    return len(texts) if isinstance(texts, list) and not isinstance(texts[0], int) else 1


def size(texts: Texts, raw: Raw) -> int:
    """The bytes that become input tokens: of texts as they stood in the body, of tokens what as many would take."""
    if not is_tokens(texts):
        return len(raw)
    return BYTES_PER_TOKEN * sum(len(item) if isinstance(item, list) else 1 for item in texts)
