"""How much one answer of a provider may hold, whatever it is made of."""

from typing import Annotated, Any

import msgspec

from tollway.wire.json import in_utf8, is_utf8
from tollway.wire.stretches import slices
from tollway.wire.structure import UNCOUNTED_BYTES, outside_strings

MAX_CHAT_EVENT_BYTES = 8 * 1024 * 1024
"""One event of a chat. Text comes in hundreds of bytes; a picture that a model has made, as an address that holds it,
takes some megabytes."""

EXTRA_CHOICES = 8
"""More choices than were asked for that are put up with: some servers count from 1, or answer with several at once."""

MAX_CHOICES = 128 + EXTRA_CHOICES
"""In one answer: as many as a client may ask for, and those."""

MAX_PARTS = 50_000
"""Objects, lists, members, items and texts of an event: what it takes at worst to take so many apart, some twenty
milliseconds, nobody notices. An event with a text of some hundred kilobytes has fewer."""

MAX_REPLY_PARTS = 1_000_000
"""The same of a whole answer that has to be made anew; large ones are read beside the event loop."""

MAX_ODD_BYTES = 8 * 1024 * 1024
"""Of a whole answer that has to be read a second time: that is not in UTF-8, is no strict JSON or has other types than
the dialect's. Real ones are small; a large picture comes from servers that can write JSON."""

MAX_SAID_BYTES = 10 * 1024 * 1024
"""Of all texts in a whole answer, pictures beside them not counted. A million tokens have four megabytes, and a text
that is taken apart may need five times its size."""

ALWAYS_CHEAP = UNCOUNTED_BYTES
"""Bytes that can be taken apart whatever they are made of."""

_LETTERS = b'",:{['


Index = Annotated[int, msgspec.Meta(ge=0)]
"""The place of a choice. A negative one is none."""


def is_cheap(json: bytes, most: int = MAX_PARTS) -> bool:
    """Whether this can be taken apart at once. Each of its parts needs one of these letters, some need more.

    What stands inside strings is no part: a long text may hold as many of them as it likes.
    """
    if len(json) <= ALWAYS_CHEAP or sum(map(_letters, slices(json))) <= most:
        return True
    return sum(map(_letters, outside_strings(json))) <= most


def may_be_tidied(reply: bytes) -> bool:
    """Whether a whole answer that strict types have refused is read a second time."""
    return len(reply) <= MAX_ODD_BYTES and is_cheap(reply, MAX_REPLY_PARTS)


def readable(reply: bytes) -> bytes:
    """A whole answer in UTF-8, with what is not replaced. Raises UNREADABLE for a long one that would need it."""
    if is_utf8(reply):
        return reply
    if len(reply) > MAX_ODD_BYTES or len(text := in_utf8(reply)) > MAX_ODD_BYTES:  # it may grow to three times its size
        raise msgspec.DecodeError("a long answer that is not in UTF-8")
    return text


def _letters(json: bytes) -> int:
    return len(json) - len(json.translate(None, _LETTERS))


def at_most(kind: Any, number: int) -> Any:
    """The type of a list of so many items that a decoder gives up at the first one too many.

    The length of a plain list is checked when all of it has been built. Whether a list is too long is all that this
    type is for: what it makes is no list.
    """
    fields = [(f"item{place}", kind | msgspec.UnsetType, msgspec.UNSET) for place in range(number)]
    return msgspec.defstruct(f"AtMost{number}", fields, array_like=True, forbid_unknown_fields=True, gc=False)
