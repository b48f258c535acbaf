"""Long texts, looked at a stretch at a time.

One call into C keeps the interpreter until it returns, and nothing else runs meanwhile, not even the event loop of
which a large text was taken away. So no expression is given more than a stretch at once; between two of them others
have their turn. What is found does not depend on where the text is cut.
"""

import re
from collections.abc import Iterator
from typing import TypeAlias

STRETCH = 256 * 1024
"""Bytes that are looked at in one go, in a few milliseconds whatever they are."""

Text: TypeAlias = bytes | memoryview

_STRING = re.compile(rb'"((?:[^"\\]++|\\.)*+)"?+([ \t\r\n]*+:)?', re.DOTALL)
_UP_TO_QUOTE = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_BLANKS = re.compile(rb"[ \t\r\n]*+")
_QUOTE, _COLON = b'":'
_SHORT = 16  # bytes of what is repeated: of an escape, say


def slices(text: Text, size: int = STRETCH) -> Iterator[bytes]:
    """The text, piece by piece."""
    for start in range(0, len(text), size):
        yield bytes(text[start : start + size])


def matches(expression: re.Pattern[bytes], text: Text, longest: int) -> Iterator[re.Match[bytes]]:
    """Where an expression is found that never matches more than ``longest`` bytes, nor two places that overlap."""
    done = 0
    for start in range(0, len(text), STRETCH):
        for match in expression.finditer(text, max(start, done), start + STRETCH + longest):
            done = match.end()
            yield match


def strings(json: Text) -> Iterator[tuple[int, int, bool]]:
    """The strings of a JSON text: where each begins and ends, without its quotes, and whether it is a name."""
    at = 0
    while at < len(json):
        last = None
        for match in _STRING.finditer(json, at, at + STRETCH):
            if last is not None:
                yield *last.span(1), last[2] is not None
            last = match
        if last is None:
            at += STRETCH
            continue
        start = last.start(1)  # this one may go on beyond the stretch
        end = string_end(json, start)
        at = after_blanks(json, end + 1)
        yield start, end, _is(json, at, _COLON)


def string_end(json: Text, at: int) -> int:
    """Where the string ends within which this place is: at its quote, or with the text."""
    end = reach(_UP_TO_QUOTE, json, at)
    return end if _is(json, end, _QUOTE) else len(json)


def value_after(json: Text, name_end: int) -> int | None:
    """Where the value of the member begins whose name ends here; None where this is no name."""
    colon = after_blanks(json, name_end)
    return after_blanks(json, colon + 1) if _is(json, colon, _COLON) else None


def after_blanks(json: Text, at: int) -> int:
    """The first place from here on where no blank is."""
    return reach(_BLANKS, json, at)


def reach(expression: re.Pattern[bytes], text: Text, at: int = 0) -> int:
    """How far an expression goes from here that repeats something short, be it nought times."""
    while match := expression.match(text, at, at + STRETCH):
        start, at = at, match.end()
        if at - start < STRETCH - _SHORT:
            break
    return at


def _is(text: Text, at: int, byte: int) -> bool:
    return at < len(text) and text[at] == byte
