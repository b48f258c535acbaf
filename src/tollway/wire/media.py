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
from tollway.wire.stretches import matches, reach, slices, strings, value_after

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

_ADDRESS = re.compile(rb"[a-zA-Z][a-zA-Z0-9+.-]{1,15}:(?:\\?/){2}|data:[^,]{0,256};base64,")
_LONGEST_BEGIN = 512
_IN_ADDRESS = re.compile(rb"(?:[^ \\\x80-\xff]++|\\/)*+")
_SAYS_KIND = re.compile(rb'"(?:type|media_type|mime_type)"|\\u00')
_LONGEST_MATCH = 12
_IS_TEXT = b'"text'
_LONGEST_NAME = 128  # bytes of the names above, with every letter written as a number
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
    sizes = list(_media(memoryview(value)))
    return sum(sizes) - MEDIA_BYTES * max(len(sizes), at_least)


def _media(json: memoryview) -> Iterator[int]:
    """The sizes of the media in a value."""
    words = _WORDS | {"data"} if _says_text(json) else _WORDS
    name = ""
    for start, end, is_name in strings(json):
        if is_name:
            name = _name(bytes(json[start:end])) if end - start <= _LONGEST_NAME else ""
        elif name not in words and _is_medium(json[start:end], name):
            yield end - start


def _says_text(json: memoryview) -> bool:
    """Whether it says of itself that it is text, or may do so with letters that are written as numbers."""
    for found in matches(_SAYS_KIND, json, _LONGEST_MATCH):
        at = value_after(json, found.end())
        if found[0] == rb"\u00" or (at is not None and json[at : at + len(_IS_TEXT)] == _IS_TEXT):
            return True
    return False


def _name(raw: bytes) -> str:
    try:
        return _as_text(b'"%b"' % raw) if b"\\" in raw else raw.decode()
    except UNREADABLE:
        return ""


def _is_medium(text: memoryview, name: str) -> bool:
    named = name in _MEDIA
    if (named or len(text) >= MIN_SEALED) and not any(piece.translate(None, _BASE64) for piece in slices(text)):
        # else these are words, one to a line
        return sum(piece.count(b"\\") for piece in slices(text)) <= len(text) // _BYTES_PER_ESCAPE
    if not (named or _ADDRESS.match(text, 0, _LONGEST_BEGIN)):
        return False
    return reach(_IN_ADDRESS, text) == len(text)
