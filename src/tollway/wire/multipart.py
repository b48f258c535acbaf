"""Small text fields of a ``multipart/form-data`` body that passes in pieces (RFC 2046, RFC 7578).

A field is found so that a call can be judged by it, so two readers must never disagree on it. Whatever another
parser could read differently is a problem, not a guess:

1. Lines end with CR LF; a boundary after a bare LF is a problem.
2. A field that is asked for stands once, is no file, and is not encoded. So go on feeding after it was found.
3. A part says its name in exactly one way.
"""

import re
from collections.abc import Callable, Collection
from itertools import islice
from typing import TypeAlias

MAX_VALUE_BYTES = 4 * 1024
"""Of a field that is asked for: names of models and flags have some tens."""

MAX_HEAD_BYTES = 16 * 1024
"""Of the head of one part: a name, a type and a file's name."""

MAX_BOUNDARY_BYTES = 70
"""RFC 2046, section 5.1.1."""

MAX_PARTS = 256
"""The largest forms have some twenty; each part costs some microseconds."""

MAX_PARAMETERS = 16
"""Of a content type or a disposition: a name, a file's name in two ways, a boundary."""

_LONGEST_SHORT = 256  # bytes, with quotes and what is escaped

# Linear, all of them: nothing that was matched is ever given back.
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_PARAMETER = rb';[ \t]*+(%b)=("(?:[^"\\]++|\\.)*+"|[^\s;"]++)[ \t]*+' % _TOKEN
_PARAMETERS = re.compile(_PARAMETER, re.DOTALL)
_PARAMETRIZED = rb"[ \t]*+%b[ \t]*+(?:%b)*+;?+[ \t]*+"
_FORM_DATA = re.compile(_PARAMETRIZED % (b"form-data", _PARAMETER), re.DOTALL | re.IGNORECASE)
_MULTIPART = re.compile(_PARAMETRIZED % (b"multipart/form-data", _PARAMETER), re.DOTALL | re.IGNORECASE)
_NAME = re.compile(_TOKEN)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_BARE_LF = re.compile(rb"(?<!\r)\n")
_LINE_END = re.compile(rb"[\r\n]")
_PADDING = b" \t"
_CR = 0x0D

_OF_FILES = frozenset({b"filename", b"filename*"})
_ENCODING = b"content-transfer-encoding"
_PLAIN = frozenset({b"7bit", b"8bit", b"binary"})


def boundary_of(content_type: bytes) -> bytes | None:
    """The boundary that a content type gives; None if it is not ``multipart/form-data`` with exactly one."""
    if not _MULTIPART.fullmatch(content_type):
        return None
    boundaries = [value for name, value in _parameters(content_type) if name == b"boundary"]
    if len(boundaries) != 1 or not 0 < len(boundaries[0]) <= MAX_BOUNDARY_BYTES or _LINE_END.search(boundaries[0]):
        return None
    return boundaries[0]


_Step: TypeAlias = Callable[["MultipartFields"], bool]
"""Reads as far as it can; true if it got to its end and the next step may begin."""


class MultipartFields:
    """Takes the pieces of one body in order. The result does not depend on where they are cut. Never raises."""

    def __init__(self, boundary: bytes, names: Collection[bytes]) -> None:
        self._delimiter = b"\n--" + boundary
        self._names = names
        self._text = b"\r\n"  # what is not read yet; the first boundary needs no line end of its own
        self._at = -len(self._text)  # where in the body that stands
        self._part_at = self._at  # where the content of this part begins; what comes before the first is one too
        self._name: bytes | None = None  # of this part, if it is asked for
        self._step: _Step = MultipartFields._read_content
        self._parts = 0
        self.values: dict[bytes, bytes] = {}
        """The fields found so far, by name."""
        self.spans: dict[bytes, tuple[int, int]] = {}
        """Where in the body their values stand."""
        self.ended = False
        """The last boundary has been seen. A body that is over without it was cut off, or is no form at all."""
        self.problem: str | None = None
        """What is wrong with the body; nothing more is read then."""

    def feed(self, piece: bytes) -> None:
        """Read on. Afterwards look for a problem first."""
        if self.problem is None:
            self._text += piece
            while self._step(self) and self.problem is None:
                pass

    def with_value(self, start: bytes, name: bytes, value: bytes) -> bytes:
        """The start of the body, at least as far as a field that was found, with another value in it."""
        begin, end = self.spans[name]
        return b"".join((start[:begin], value, start[end:]))

    def _read_content(self) -> bool:
        """Up to the next boundary."""
        found = self._text.find(self._delimiter)
        if found < 0:
            self._await_boundary()
            return False
        end = self._at + found - 1
        if self._text[found - 1] != _CR:
            self.problem = "a boundary follows a bare line feed"
        elif end < self._part_at:
            self.problem = "a part lacks the empty line after its head"
        elif self.ended:
            self.problem = "a part follows the last boundary"
        elif self._name is not None:
            self._value_ended(self._name, end)
        self._drop(found + len(self._delimiter))
        self._step = MultipartFields._read_head
        return True

    def _await_boundary(self) -> None:
        """Keep what may be the begin of a boundary, its line end included, or a value that is asked for."""
        surplus = len(self._text) - len(self._delimiter)
        if self._name is None:
            self._drop(max(surplus, 0))
        elif self._at + surplus - self._part_at > MAX_VALUE_BYTES:
            self.problem = f"the field {_text(self._name)} is too long"

    def _value_ended(self, name: bytes, end: int) -> None:
        if end - self._part_at > MAX_VALUE_BYTES:
            self.problem = f"the field {_text(name)} is too long"
            return
        self.spans[name] = (self._part_at, end)
        self.values[name] = self._text[self._part_at - self._at : end - self._at]

    def _read_head(self) -> bool:
        if self._text.startswith(b"--"):
            self.ended = True
            self._drop(len(b"--"))
            self._step = MultipartFields._read_rest_of_last_line
            return True
        end = self._text.find(b"\r\n\r\n")
        if _BARE_LF.search(self._text[:end] if end >= 0 else self._text):
            self.problem = "the head of a part is not readable"
        elif end > MAX_HEAD_BYTES or (end < 0 and len(self._text) > MAX_HEAD_BYTES + 3):
            self.problem = "the head of a part is too long"
        if end < 0 or self.problem:
            return False
        self._parts += 1
        if self._parts > MAX_PARTS:
            self.problem = "it has too many parts"
            return False
        self._name = self._judge(self._text[:end])
        self._drop(end + 2)  # the line end before the content may belong to a boundary that must not follow here
        self._part_at = self._at + 2
        self._step = MultipartFields._read_content
        return True

    def _read_rest_of_last_line(self) -> bool:
        self._drop(len(self._text) - len(self._text.lstrip(_PADDING)))
        if not self._text:
            return False
        if self._text[0] != _CR:
            self.problem = "the last boundary is not alone on its line"
        self._name, self._part_at = None, self._at
        self._step = MultipartFields._read_content
        return True

    def _judge(self, head: bytes) -> bytes | None:
        """The name in the head of a part, if it is asked for."""
        first, *lines = head.split(b"\r\n")
        fields: dict[bytes, bytes] = {}
        for line in lines:
            name, colon, value = line.partition(b":")
            name = name.lower()
            if not colon or not _NAME.fullmatch(name) or name in fields:
                self.problem = "the head of a part is not readable"
                return None
            fields[name] = value.strip(_PADDING)
        if first.strip(_PADDING) or head.count(b"\r") > len(lines):
            self.problem = "the head of a part is not readable"
            return None
        return self._asked_for(fields)

    def _asked_for(self, fields: dict[bytes, bytes]) -> bytes | None:
        disposition = fields.get(b"content-disposition", b"")
        given = _parameters(disposition) if _FORM_DATA.fullmatch(disposition) else []
        parameters = {key for key, _ in given}
        names = [value for key, value in given if key == b"name"]
        if len(names) != 1 or b"name*" in parameters:
            self.problem = "a part does not say its name, or not in one way"
            return None
        name = names[0]
        if name not in self._names:
            return None
        if name in self.values:
            self.problem = f"the field {_text(name)} stands there twice"
        elif not _OF_FILES.isdisjoint(parameters) or fields.get(_ENCODING, b"8bit").lower() not in _PLAIN:
            self.problem = f"the field {_text(name)} is not plain text"
        return name

    def _drop(self, length: int) -> None:
        self._text = self._text[length:]
        self._at += length


def _parameters(header: bytes) -> list[tuple[bytes, bytes]]:
    """Names and values; of a header whose form has been judged, for in a broken one each could be sought to the end.

    None of a header that has too many.
    """
    found = list(islice(_PARAMETERS.finditer(header), MAX_PARAMETERS + 1))
    return [(each[1].lower(), _unquoted(each[2])) for each in found] if len(found) <= MAX_PARAMETERS else []


def _unquoted(value: bytes) -> bytes:
    """What a value says; a long one, which is no name that is asked for and no boundary, stays as it came."""
    if len(value) > _LONGEST_SHORT or not value.startswith(b'"'):
        return value
    return _ESCAPED.sub(rb"\1", value[1:-1])


def _text(name: bytes) -> str:
    return repr(name.decode("utf-8", "replace"))
