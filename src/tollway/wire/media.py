"""What pictures, sound, documents and sealed items count for in the estimate of a prompt: flat, whatever their size.

It is told by its shape what a medium is, not by a list of all the names that providers have for it. In a part of a
message that is no text, a medium is every text under a name that is not one for words (``_WORDS``), and that is

1. an address (``https://…``), or holds its own data (``data:…;base64,…``);
2. long, and made of nothing but the letters of base64;
3. of any length, where its name is one that media have (``_MEDIA``); but not the data of a part that says of itself
   that it is text.

Nothing of this holds for what has blanks in it or is not ASCII. So words count by their length wherever they stand, and
nobody's prompt gets past a limit as a picture.
"""

import re
from collections.abc import Iterator

import msgspec

from tollway.wire.estimate import MEDIA_BYTES
from tollway.wire.json import UNREADABLE, Raw, decoder

MIN_SEALED = 512
"""Bytes of base64 that can be nothing else under a name that nobody knows; no word is as long."""

TEXT_KINDS = frozenset({"text", "input_text", "output_text", "summary_text", "reasoning_text", "refusal"})
"""Parts that are only words."""

_WORDS = frozenset(
    {
        *("text", "content", "refusal", "thinking", "reasoning", "reasoning_content", "summary", "transcript"),
        *("arguments", "input", "output", "code", "query", "queries", "patch", "command", "instructions", "prompt"),
        *("name", "title", "context", "description", "caption", "alt", "role", "type", "id", "call_id", "status"),
    }
)
_MEDIA = frozenset(
    {
        *("url", "image_url", "video_url", "audio_url", "file_url", "document_url", "input_audio", "input_image"),
        *("data", "file_data", "file_id", "image", "images", "video", "audio", "result", "encrypted_content", "bytes"),
    }
)
_MEDIA_KINDS = frozenset(
    {
        *("image", "image_url", "input_image", "computer_screenshot", "video", "video_url", "input_video"),
        *("audio", "audio_url", "input_audio", "file", "input_file", "document", "document_url"),
    }
)
"""Parts that count flat even where none of it is found in them."""

_STRING = re.compile(rb'"((?:[^"\\]++|\\.)*+)"?+([ \t\r\n]*+:)?', re.DOTALL)
_ADDRESS = re.compile(rb"[a-zA-Z][a-zA-Z0-9+.-]{1,15}:(?:\\?/){2}|data:[^,]{0,256};base64,")
_SAYS_TEXT = re.compile(rb'"(?:type|media_type|mime_type)"[ \t\r\n]*+:[ \t\r\n]*+"text|\\u00')
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=_-\\"
"""With the backslash that some writers put before a slash, and that a line end within a text needs."""

_BYTES_PER_ESCAPE = 24  # at least: of base64 one letter in 64 is a slash, and its lines have 64 or 76

_as_text = decoder(str)


class Kind(msgspec.Struct, gc=False):
    """What is looked at of a part first."""

    type: str | None = None


_as_kind = decoder(Kind)


def discount(part: Raw) -> int:
    """How many bytes to take off a part, so that each medium in it counts flat (negative: to add)."""
    try:
        kind = _as_kind(part).type
    except UNREADABLE:
        return 0
    return 0 if kind in TEXT_KINDS else discount_of(part, at_least=int(kind in _MEDIA_KINDS))


def discount_of(value: Raw, at_least: int = 0) -> int:
    """The same of any value that is not only words; ``at_least``: how many media it counts for in any case."""
    sizes = list(_media(bytes(value)))
    return sum(sizes) - MEDIA_BYTES * max(len(sizes), at_least)


def _media(json: bytes) -> Iterator[int]:
    """The sizes of the media in a value."""
    words = _WORDS | {"data"} if _SAYS_TEXT.search(json) else _WORDS
    name = ""
    for match in _STRING.finditer(json):
        if match[2] is not None:
            name = _name(match[1])
        elif name not in words and _is_medium(match[1], name):
            yield match.end(1) - match.start(1)


def _name(raw: bytes) -> str:
    try:
        return _as_text(b'"%b"' % raw) if b"\\" in raw else raw.decode()
    except UNREADABLE:
        return ""


def _is_medium(text: bytes, name: str) -> bool:
    named = name in _MEDIA
    if (named or len(text) >= MIN_SEALED) and not text.translate(None, _BASE64):
        return text.count(b"\\") <= len(text) // _BYTES_PER_ESCAPE  # else these are words, one to a line
    if not (named or _ADDRESS.match(text)):
        return False
    return text.isascii() and b" " not in text and b"\\" not in text.replace(b"\\/", b"")
