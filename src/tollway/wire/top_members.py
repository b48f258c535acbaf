"""Chosen members of a JSON object that passes in pieces, found without keeping the rest.

It is no validator: it looks only at strings, brackets and the separators of the outermost object. What is JSON is read
as a decoder would read it; of anything else it says something and never raises.
"""

import re
from collections.abc import Collection

from tollway.wire.json import UNREADABLE, Raw, decoder

MAX_MEMBER_BYTES = 64 * 1024
"""A usage or error object has some hundred bytes; a longer member is given up, so memory stays bounded."""

MAX_STEPS = 20_000
"""Bytes of structure that are looked at one by one in a piece, in some 10 ms. What people are answered has one in
thirty bytes; of a piece that is nearly nothing but brackets and members no more is read, nor of what follows it."""

_MAX_NAME_BYTES = 256
"""A name that is asked for, even with every character escaped."""

_QUOTE, _BACKSLASH, _COMMA, _COLON = b'"\\,:'
_OPENING, _CLOSING = b"{[", b"}]"
_OUTERMOST = re.compile(rb'["{}\[\],:]')
_IN_STRING = rb'(?:[^"\\]++|\\.)*+'
_FLAT = rb'(?:[^"{}\[\]]++|"%b")*+' % _IN_STRING
_STRING = re.compile(_IN_STRING, re.DOTALL)
_NESTED = re.compile(rb'(?:[^"{}\[\]]++|"%b"|[{\[]%b[}\]])*+["{}\[\]]' % (_IN_STRING, _FLAT), re.DOTALL)
"""The next byte that matters, past all strings, numbers and flat objects and lists that are in the piece whole."""
_SPACE = b" \t\r\n"

_decode_name = decoder(str)
_decode_value = decoder(Raw)


class TopMembers:
    """Takes the pieces of one object in order. The result does not depend on where they are cut (but see MAX_STEPS)."""

    __slots__ = ("_depth", "_escaped", "_held", "_in_string", "_junk", "_name", "_names", "_room", "ended", "found")

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._name: str | None = None  # of the member whose value is being read
        self._depth = 0
        self._in_string = False
        self._escaped = False  # the next byte belongs to a backslash that was cut off from it
        self._held = bytearray()  # the name or value that has begun, if anybody wants it
        self._room = 0  # how much more of it may be held; negative: not wanted
        self._junk = False
        self.ended = False
        """The object's last bracket has been seen."""
        self.found: dict[str, Raw] = {}
        """The members so far; of two with the same name the last."""

    @property
    def whole(self) -> bool:
        """Whether everything so far was one object, from its first bracket to its last."""
        return self.ended and not self._junk

    def feed(self, piece: bytes) -> None:
        """Read on."""
        if self._depth == 0:
            piece = self._outside(piece)
        held_from = position = steps = 0
        while self._depth and not self._junk:
            steps += 1
            if steps > MAX_STEPS:
                self._junk = True
                break
            if self._in_string:
                position = self._end_of_string(piece, position)
                if self._in_string:
                    break
            match = _OUTERMOST.search(piece, position) if self._depth == 1 else _NESTED.match(piece, position)
            if match is None:
                break
            position = match.end()
            if self._separates(piece[position - 1]):
                self._hold(piece, held_from, position - 1)
                self._part_ended(piece[position - 1])
                held_from = position
        if self._depth:
            self._hold(piece, held_from, len(piece))
        elif self.ended and piece[held_from:].strip(_SPACE):
            self._junk = True

    def _outside(self, piece: bytes) -> bytes:
        """What is left of a piece after the object's first bracket, if that is in it."""
        piece = piece.lstrip(_SPACE)
        if not piece or self.ended or self._junk:
            return piece
        if piece[0] == _OPENING[0]:
            self._depth = 1
            self._await_name()
        else:
            self._junk = True
        return piece[1:]

    def _end_of_string(self, piece: bytes, position: int) -> int:
        if self._escaped and position < len(piece):
            position += 1
            self._escaped = False
        quote = piece.find(_QUOTE, position)
        if quote >= 0 and (quote == position or piece[quote - 1] != _BACKSLASH):
            self._in_string = False
            return quote + 1
        if quote < 0 and not piece.endswith(b"\\"):
            return len(piece)
        match = _STRING.match(piece, position)
        end = match.end() if match else position
        self._escaped = end < len(piece) and piece[end] == _BACKSLASH
        self._in_string = end == len(piece) or self._escaped
        return end + 1

    def _separates(self, byte: int) -> bool:
        """Take one byte of structure; true if it ends a name or a value of the outermost object."""
        if byte == _QUOTE:
            self._in_string = True
        elif byte in _OPENING:
            self._depth += 1
        elif byte in _CLOSING:
            self._depth -= 1
            return self._depth == 0
        else:
            return byte == _COMMA or self._name is None
        return False

    def _part_ended(self, byte: int) -> None:
        if byte == _COLON:
            self._name_ended()
        else:
            self._value_ended()
            self._await_name()
            self.ended = self._depth == 0

    def _name_ended(self) -> None:
        try:
            name = _decode_name(bytes(self._held)) if self._room >= 0 else ""
        except UNREADABLE:
            self._junk = True
            return
        self._name = name
        self._held.clear()
        self._room = MAX_MEMBER_BYTES if name in self._names else -1

    def _value_ended(self) -> None:
        name = self._name
        if name is None:
            self._junk = self._depth > 0 or self._room < 0 or bool(self._held.strip(_SPACE))
        elif name in self._names:
            self.found.pop(name, None)
            if self._room >= 0:
                self._keep(name)

    def _keep(self, name: str) -> None:
        try:
            self.found[name] = _decode_value(bytes(self._held))
        except UNREADABLE:
            self._junk = True

    def _await_name(self) -> None:
        self._name = None
        self._held.clear()
        self._room = _MAX_NAME_BYTES

    def _hold(self, piece: bytes, start: int, end: int) -> None:
        if self._room < 0:
            return
        self._room -= end - start
        if self._room >= 0:
            self._held += piece[start:end]
