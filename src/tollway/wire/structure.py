"""How much structure a JSON text has, counted before anything of it is built.

Bytes alone bound neither time nor memory: three bytes of text, ``{},``, become a hundred bytes of objects and some
microseconds of looking at them. So a large text is counted first, in C and a slice at a time, and one that holds more
than anybody needs is refused unread. What stands inside strings is text and does not count.
"""

from collections.abc import Iterable, Iterator

import msgspec

from tollway.wire.stretches import slices

UNCOUNTED_BYTES = 64 * 1024
"""A text up to this size is not counted: whatever it holds, reading it takes some milliseconds."""

_SLICE = 64 * 1024  # bytes counted at a stretch, in a fraction of a millisecond


class Bounds(msgspec.Struct, frozen=True):
    """What a text may hold at most."""

    containers: int
    """Objects and lists."""
    members: int
    """Of all objects together."""
    commas: int
    """Between members and between items: with the containers they bound the number of values."""


OF_REQUESTS = Bounds(containers=50_000, members=100_000, commas=400_000)
"""The longest conversations have some thousand messages; a call for embeddings may hold 300,000 tokens."""

OF_ANSWERS = Bounds(containers=1_000_000, members=3_000_000, commas=6_000_000)
"""An answer may tell twenty alternatives for each of its tokens, with their bytes; little of that is ever built."""


def fits(text: bytes, bounds: Bounds) -> bool:
    """Whether a text is within the bounds; exact for JSON, and for anything else an answer all the same."""
    if len(text) <= UNCOUNTED_BYTES:
        return True
    # First with what stands inside strings, which is quick and nearly always enough.
    return _within(slices(text, _SLICE), bounds) or _within(outside_strings(text), bounds)


def _within(pieces: Iterable[bytes], bounds: Bounds) -> bool:
    containers = members = commas = 0
    for piece in pieces:
        containers += piece.count(b"{") + piece.count(b"[")
        members += piece.count(b":")
        commas += piece.count(b",")
        if containers > bounds.containers or members > bounds.members or commas > bounds.commas:
            return False
    return True


def outside_strings(text: bytes) -> Iterator[bytes]:
    """The text without its strings, piece by piece."""
    inside, held = 0, b""
    for piece in slices(text, _SLICE):
        piece = held + piece
        held = b""
        if (len(piece) - len(piece.rstrip(b"\\"))) % 2:
            piece, held = piece[:-1], b"\\"  # it escapes what comes next
        parts = piece.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        yield b"".join(parts[inside::2])
        inside = (inside + len(parts) - 1) % 2
