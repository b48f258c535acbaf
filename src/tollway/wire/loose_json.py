"""JSON with faults that common writers make, made strict. For a second reading, where the first was refused.

1. Python's writer lets ``NaN``, ``Infinity`` and ``-Infinity`` through. They become null; as the log probability of a
   token, which has to be a number, what OpenAI writes there for a token that is most unlikely.
2. Python's and JavaScript's writers escape half a character (a lone surrogate), as programs leave it behind that cut
   texts without looking. It becomes U+FFFD.

3. Some programs begin every text with a byte order mark. It goes.

Everything else stays as it came, byte for byte, be it JSON or not.
"""

import re
from collections.abc import Callable
from typing import TypeAlias

from tollway.wire import stretches
from tollway.wire.stretches import string_end

MAX_MENDS = 1_000
"""Of one text: more faults than this in an event are no oversight. What is left stays, and a strict reader refuses it.
"""

_BOM = b"\xef\xbb\xbf"

_Instead: TypeAlias = Callable[[bytes, int], bytes]

_UNLIKELY = b"-9999.0"
_REPLACED = rb"\ufffd"

_UP_TO_NO_NUMBER = re.compile(rb'(?:[^"NI-]++|"(?:[^"\\]++|\\.)*+"|-(?=[0-9]))*+(-?(?:NaN|Infinity))?+', re.DOTALL)
_LOOK_BACK = 64
_LONGEST_FAULT = 12  # bytes: two halves that may be one character

_HIGH = rb"\\u[dD][89abAB][0-9a-fA-F]{2}"
_LOW = rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_UP_TO_HALF = re.compile(
    rb"(?:[^\\]++|%b%b|(?!%b|%b)\\(?:[^u]|u(?=.{4})))*+(%b|%b)?+" % (_HIGH, _LOW, _HIGH, _LOW, _HIGH, _LOW), re.DOTALL
)


def of_a_body(body: bytes, most: int = MAX_MENDS) -> bytes:
    """A whole body without any of the faults above; :func:`strict` is for what has lost its mark already."""
    return strict(body.removeprefix(_BOM), most)


def strict(json: bytes, most: int = MAX_MENDS) -> bytes:
    """The same text without the first two faults, in a time linear in its length."""
    if b"NaN" in json or b"Infinity" in json:
        json = _mended(json, _UP_TO_NO_NUMBER, _number, most)
    return whole_characters(json, most)


def whole_characters(json: bytes, most: int = MAX_MENDS) -> bytes:
    """The same text, of JSON or of a string in it, with every half of a character replaced."""
    return _mended(json, _UP_TO_HALF, _replaced, most) if b"\\u" in json else json


def _mended(json: bytes, up_to: re.Pattern[bytes], instead: _Instead, most: int) -> bytes:
    """Each match begins where the last one ended, so that nothing is looked at twice; ``sub`` would."""
    parts: list[bytes] = []
    done = at = 0
    while len(parts) < 2 * most and (match := up_to.match(json, at, limit := at + stretches.STRETCH)):
        start, end = match.start(1), match.end()
        if start >= 0 and (end + _LONGEST_FAULT <= limit or limit >= len(json)):
            parts += [json[done:start], instead(json, start)]
            done = at = end
        elif start > at:
            at = start  # what it is can only be told with what follows
        elif end > at:
            at = end
        elif json[at : at + 1] == b'"':
            at = string_end(json, at + 1) + 1
        else:
            break
    return b"".join((*parts, json[done:])) if parts else json


def _number(json: bytes, at: int) -> bytes:
    before = json[max(0, at - _LOOK_BACK) : at].rstrip()
    if before.endswith(b":") and before[:-1].rstrip().endswith(b'"logprob"'):
        return _UNLIKELY
    return b"null"


def _replaced(_: bytes, __: int) -> bytes:
    return _REPLACED
