"""Embeddings in the encoding that the client asked for, whatever its provider has sent.

1. Asked for base64: numbers are encoded as OpenAI does it, 32 bits each, the lowest byte first; a text passes.
2. Asked for numbers, or for nothing: a text is decoded, with as many digits as make the same 32 bits again; numbers
   pass with their digits.
3. Asked for anything else, a provider's own encoding: what has come passes.
4. Each embedding is judged by itself. One that is neither numbers nor a text, or that cannot be put into the encoding
   that was asked for, makes the answer none: libraries would read numbers from it that nobody meant.
5. An answer that is odd around its embeddings is made tidy: nobody needs its ``index`` to be of the right type, and its
   ``model`` to be a whole text.
"""

import base64
import binascii
import math
import struct
from collections.abc import Iterable, Sequence

import msgspec

from tollway.providers.tidy import MAX_MENDS_OF_A_REPLY, text_of
from tollway.wire.json import UNREADABLE, Raw, decoder, encode, members
from tollway.wire.loose_json import of_a_body

MAX_NUMBERS = 65_536
"""Of one embedding that has to be encoded anew; real ones have some thousands."""

MAX_ENCODED_BYTES = 36 * 1024 * 1024
"""Of all embeddings of an answer that are encoded anew: 2,048 of 3,072 numbers in base64 have 32 MiB."""

_LONGEST_NUMBER = 32  # bytes, with its comma and its blanks
_LONGEST_ENCODED = 8  # bytes of base64 for each number, with line ends and what is written as escapes

_TEXT, _LIST = b'"['
_NULL = Raw(b"null")
_FLOAT_BYTES = 4

_as_numbers = decoder(list[float])
_as_text = decoder(str)
_URL_SAFE = bytes.maketrans(b"-_", b"+/")

UNENCODABLE = (*UNREADABLE, OverflowError)
"""What is raised where rule 4 applies."""


class Vector(msgspec.Struct, gc=False):
    """What is looked at of one embedding in an answer."""

    embedding: Raw
    index: int | None = None


_as_objects = decoder(list[dict[str, Raw]])


def tidy(body: bytes, model: str) -> bytes:
    """An answer that strict types have refused, with what they ask for; ``model`` is for one that names none.

    The indices stay where each place is taken once; else the embeddings are counted. Raises one of UNREADABLE.
    """
    top = members(of_a_body(body, MAX_MENDS_OF_A_REPLY))
    items = _as_objects(top.get("data", _NULL))
    places: Sequence[int | None] = [_place(item.get("index", _NULL)) for item in items]
    if {*places} != {*range(len(items))}:
        places = range(len(items))
    for item in items:
        if _first(item.get("embedding", _NULL)) == _LIST:
            _as_numbers(item["embedding"])  # a number that was none is null by now
    data = [{**item, "index": place} for item, place in zip(items, places, strict=True)]
    return encode({**top, "object": "list", "data": data, "model": text_of(top.get("model", _NULL)) or model})


def _place(raw: Raw) -> int | None:
    """Also in a text or with a decimal point."""
    try:
        number = float(text_of(raw))
    except ValueError:
        return None
    return int(number) if number.is_integer() else None


def is_as_asked(embedding: Raw, encoding_format: str) -> bool:
    """Whether it passes."""
    if encoding_format == "float":
        return _first(embedding) == _LIST
    return encoding_format != "base64" or _first(embedding) == _TEXT


def all_as_asked(embeddings: Iterable[Raw], encoding_format: str) -> list[Raw]:
    """Embeddings of one answer in this encoding. Raises one of UNENCODABLE."""
    shown: list[Raw] = []
    encoded = 0
    for embedding in embeddings:
        shown.append(as_asked(embedding, encoding_format))
        encoded += 0 if shown[-1] is embedding else len(shown[-1])
        if encoded > MAX_ENCODED_BYTES:
            raise msgspec.ValidationError("too much to encode anew")
    return shown


def as_asked(embedding: Raw, encoding_format: str) -> Raw:
    """The embedding in this encoding. Raises one of UNENCODABLE."""
    if is_as_asked(embedding, encoding_format):
        return embedding
    longest = MAX_NUMBERS * (_LONGEST_NUMBER if encoding_format == "base64" else _LONGEST_ENCODED)
    if len(embedding) > longest or bytes(embedding).count(b",") >= MAX_NUMBERS:
        raise msgspec.ValidationError("more numbers than any embedding has")
    if encoding_format == "base64":
        return Raw(b'"%b"' % in_base64(_as_numbers(embedding)))
    return Raw(in_numbers(_as_text(embedding)))


def in_base64(numbers: list[float]) -> bytes:
    """As OpenAI sends them. Raises OverflowError for a number beyond 32 bits."""
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers))


def in_numbers(text: str) -> bytes:
    """A list in JSON. Raises one of UNENCODABLE for a text that is no list of numbers in base64."""
    try:
        encoded = text.encode("ascii").translate(_URL_SAFE, b"\r\n")
        packed = base64.b64decode(encoded + b"=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise msgspec.ValidationError("no base64") from error
    if not packed or len(packed) % _FLOAT_BYTES:
        raise msgspec.ValidationError("no numbers of 32 bits")
    if len(packed) > MAX_NUMBERS * _FLOAT_BYTES:
        raise msgspec.ValidationError("more numbers than any embedding has")
    numbers = struct.unpack(f"<{len(packed) // _FLOAT_BYTES}f", packed)
    if not all(map(math.isfinite, numbers)):
        raise msgspec.ValidationError("numbers that are none")
    return ("[" + ",".join([f"{number:.9g}" for number in numbers]) + "]").encode()


def _first(raw: Raw) -> int:
    return memoryview(raw)[0]
