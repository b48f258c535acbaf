"""JSON from outside: the one place where decoders and encoders for it are made.

Rules that hold for everything decoded here:

1. Strict JSON only: no ``NaN``, no comments, no byte order mark, no lone surrogates, nothing after the value.
2. Of duplicate members the last one counts, and only what counted is ever sent on.
3. Members that nobody looks at are skipped or kept as :class:`Raw`, so junk costs a scan and no memory.
"""

import codecs
from collections.abc import Callable
from typing import TypeVar

import msgspec

from tollway.wire.stretches import slices

Raw = msgspec.Raw
"""A JSON value as it stood in the text; a view that keeps the text alive."""

Unset = msgspec.UnsetType
UNSET = msgspec.UNSET

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What a decoder raises for text that is no JSON, or not of its type. RecursionError: nested too deeply."""

_QUOTE = 0x22
_utf8_decoder = codecs.getincrementaldecoder("utf-8")

T = TypeVar("T")


class Object(msgspec.Struct, gc=False):
    """Any JSON object; its members are skipped."""


def decoder(kind: type[T]) -> Callable[[bytes | Raw], T]:
    """A decoder for values of one type; raises one of :data:`UNREADABLE`. Make it once per module."""
    return msgspec.json.Decoder(kind).decode


encode: Callable[[object], bytes] = msgspec.json.Encoder().encode
"""A value as compact JSON. ``Raw`` members are copied byte for byte."""

members: Callable[[bytes | Raw], dict[str, Raw]] = decoder(dict[str, Raw])
"""The members of an object, each as it stood in the text."""


def one_line(text: bytes) -> bytes:
    """The same text without blanks and line ends between its tokens; may raise one of :data:`UNREADABLE`."""
    return msgspec.json.format(text, indent=-1)


def is_null(raw: Raw) -> bool:
    """Whether a member is ``null``, without a copy of what is not."""
    return len(raw) == len(b"null") and bytes(raw) == b"null"


def is_text(raw: Raw) -> bool:
    """Whether a member is a string, without a copy of it."""
    return memoryview(raw)[0] == _QUOTE


def in_utf8(text: bytes) -> bytes:
    """The same text with everything replaced that is not UTF-8."""
    if is_utf8(text):
        return text
    decode = _utf8_decoder("replace").decode
    return b"".join([*(decode(piece).encode() for piece in slices(text)), decode(b"", final=True).encode()])


def is_utf8(text: bytes) -> bool:
    """Whether the bytes are UTF-8. Decoders check only the strings that they build, not those that they skip."""
    if text.isascii():
        return True
    decode = _utf8_decoder().decode
    try:
        for piece in slices(text):
            decode(piece)
        decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True
