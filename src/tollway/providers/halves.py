"""Characters that a server has cut in two, each half in an event of its own.

Servers that count texts in UTF-16, as JavaScript does, cut an emoji as easily as a word. Each half alone is no text;
client libraries for JavaScript join them.
"""

import re

import msgspec

from tollway.wire.loose_json import whole_characters
from tollway.wire.stretches import matches, string_end, value_after

_HIGH = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}")
_LOW = re.compile(rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}")
MAX_HALVES = 20_000
"""In one event, be they in pairs or alone: an event of a hundred kilobytes that are nothing but escaped emojis."""

_HALF_BYTES = len(rb"\ud800")
_REPLACED = rb"\ufffd"

_MEMBER = re.compile(rb'"(content|text|reasoning_content|reasoning|refusal|arguments)"')
_LONGEST_MEMBER = 19  # bytes, with its quotes


class Halves:
    """The halves that wait for their other one, by the member that they end. For a stream with one choice."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[bytes, bytes] = {}

    @staticmethod
    def may_be_in(data: bytes) -> bool:
        """Whether a JSON text may hold some. Raises UNREADABLE where they would be more than any text has."""
        found = data.count(rb"\ud") + data.count(rb"\uD")
        if found > MAX_HALVES:
            raise msgspec.ValidationError("a text of half characters")
        return found > 0

    @property
    def left(self) -> bool:
        """Whether the other half of a text for the reader never came."""
        return not self._waiting.keys().isdisjoint((b"content", b"text"))

    def join(self, data: bytes) -> bytes:
        """The event with its halves joined; those that nothing joins are replaced."""
        return whole_characters(self._with_texts(data)) if self._waiting or self.may_be_in(data) else data

    def _with_texts(self, data: bytes) -> bytes:
        parts: list[bytes] = []
        done = 0
        for found in matches(_MEMBER, data, _LONGEST_MEMBER):
            at = value_after(data, found.end())
            if found.start() < done or at is None or data[at : at + 1] != b'"':
                continue
            end = string_end(data, at + 1)
            parts += [data[done : at + 1], self._joined(found[1], data[at + 1 : end])]
            done = end
        return b"".join((*parts, data[done:]))

    def _joined(self, member: bytes, text: bytes) -> bytes:
        if text and (waiting := self._waiting.pop(member, None)):
            if _LOW.match(text):
                text = waiting + text
            elif member != b"arguments":  # the next ones may be another call's
                text = _REPLACED + text
        if _HIGH.fullmatch(text, max(0, len(text) - _HALF_BYTES)) and not _is_escaped(text[:-_HALF_BYTES]):
            self._waiting[member] = text[-_HALF_BYTES:]
            text = text[:-_HALF_BYTES]
        return text


def _is_escaped(before: bytes) -> bool:
    """Whether a backslash that follows is only the second of a pair."""
    return (len(before) - len(before.rstrip(b"\\"))) % 2 == 1
