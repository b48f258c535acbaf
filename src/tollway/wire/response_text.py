"""How much a whole answer of the Responses API says: to bill it where its provider does not count."""

import msgspec

from tollway.wire.json import UNREADABLE, UNSET, Raw, Unset, decoder, is_text


class _Part(msgspec.Struct, gc=False):
    text: Raw | Unset = UNSET
    refusal: Raw | Unset = UNSET


class _Item(msgspec.Struct, gc=False):
    content: list[_Part] | None = None
    summary: list[_Part] | None = None
    arguments: Raw | Unset = UNSET
    input: Raw | Unset = UNSET  # of a tool that takes plain text


class _Response(msgspec.Struct, gc=False):
    output: list[_Item]


_decode_response = decoder(_Response)


def text_bytes(body: bytes) -> int:
    """Bytes of texts, summaries of thoughts and arguments of tools, as JSON writes them. Never raises."""
    try:
        output = _decode_response(body).output
    except UNREADABLE:
        return 0
    return sum(_size(item.arguments) + _size(item.input) + sum(map(_said, _parts(item))) for item in output)


def _parts(item: _Item) -> list[_Part]:
    return [*(item.content or ()), *(item.summary or ())]


def _said(part: _Part) -> int:
    return _size(part.text) + _size(part.refusal)


def _size(raw: Raw | Unset) -> int:
    return 0 if isinstance(raw, Unset) or not is_text(raw) else len(raw) - 2  # without the quotes
