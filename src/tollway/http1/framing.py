"""Where a body ends: pieces of the connection in, pieces of the body out. Pure; one authority for both sides.

Each decoder has ``feed(data)``, which returns the body bytes that ``data`` brought (``b""`` is possible), and

* ``complete``: the body has ended,
* ``surplus``: what arrived after its end and belongs to the next message.

Where the connection ends, a body that is not complete has been cut, but for :class:`UntilCloseBody`.

Errors are final: after one, nothing that follows on this connection can be trusted.
"""

import re
from functools import lru_cache
from typing import Final

from tollway.http1.errors import BadFraming, BodyTooLarge
from tollway.http1.head import CHUNKED, UNTIL_CLOSE

MAX_SIZE_LINE: Final = 1024
"""Bytes of a chunk's first line, extensions included; nobody is known to use them."""
MAX_TRAILERS: Final = 8192
"""Bytes of all trailers together, with the empty line that ends them; they are dropped."""
MAX_TRAILER_LINES: Final = 64
MIN_MEAN_CHUNK: Final = 16
"""Bytes of a body that each chunk has to bring on average, or as many as its first line if that is longer: reading a
chunk costs a microsecond, whatever it brings."""
SPARE_FRAMING: Final = 128 * 1024
"""Bytes by which a body may fall short of that: small bodies may come in single bytes."""
NO_LIMIT: Final = 2**63

_MAX_USUAL_LINE: Final = 10  # eight digits and CR LF

_size_line: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?\r\n").match
_is_usual_line: Final = re.compile(rb"[0-9A-Fa-f]{1,8}\r\n").fullmatch
_is_trailer: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*").fullmatch


@lru_cache(maxsize=1024)
def _usual_size(line: bytes) -> int:
    """The size that a chunk's first line says; 0 for the last chunk and for whatever deserves a closer look."""
    return int(line, 16) if _is_usual_line(line) else 0


class LengthBody:
    """A body of a known length."""

    __slots__ = ("_left", "complete", "surplus")

    def __init__(self, length: int) -> None:
        self._left = length
        self.complete = length == 0
        self.surplus = b""

    def feed(self, data: bytes) -> bytes:
        over = len(data) - self._left
        if over < 0:
            self._left = -over
            return data
        self.complete = True
        if over == 0:
            self._left = 0
            return data
        body = data[: self._left]
        self._left = 0
        self.surplus += data[-over:]
        return body


class UntilCloseBody:
    """A body that ends with the connection."""

    __slots__ = ("complete", "surplus")

    def __init__(self) -> None:
        self.complete = False
        self.surplus = b""

    def feed(self, data: bytes) -> bytes:
        return data


class ChunkedBody:
    """A chunked body (RFC 9112, section 7.1) with strict line ends; extensions and trailers are dropped.

    A chunk that would pass ``limit`` decoded bytes raises :class:`BodyTooLarge` as soon as it says so. A body that is
    mostly framing is bad framing; chunks that come whole and alone cost their reader nothing extra and do not count.
    """

    __slots__ = (
        "_held",
        "_left",
        "_limit",
        "_spare",
        "_trailer_lines",
        "_trailer_size",
        "_weighed",
        "complete",
        "surplus",
    )

    def __init__(self, limit: int = NO_LIMIT) -> None:
        self._limit = self._weighed = limit  # of body bytes still allowed, now and when the last chunk was weighed
        self._spare = SPARE_FRAMING
        self._left = 0  # bytes of the chunk that has begun, its CR LF included
        self._held = b""  # a line that has begun
        self._trailer_lines = -1  # -1: the last chunk has not come yet
        self._trailer_size = 0
        self.complete = False
        self.surplus = b""

    def feed(self, data: bytes) -> bytes:
        if data.endswith(b"\r\n") and not (self._left or self._held or self._trailer_lines >= 0):
            # The usual event: one whole chunk in one segment.
            start = data.find(b"\n", 0, _MAX_USUAL_LINE) + 1
            size = _usual_size(data[:start])
            if size and start + size + 2 == len(data) and size <= self._limit:
                self._limit -= size
                return data[start:-2]
        if self._held:
            data = self._held + data
            self._held = b""
        if self._trailer_lines >= 0:
            self._feed_trailers(data)
            return b""
        body = b""
        pieces = None
        at = 0
        left = self._left
        end = len(data)
        while at < end:
            if not left:
                line = _size_line(data, at)
                if line is None:
                    self._hold_size_line(data, at)
                    break
                framing = line.end() - at
                if framing > MAX_SIZE_LINE:
                    raise BadFraming("the extensions of a chunk are too long")
                at = line.end()
                size = int(line[1], 16)
                if not size:
                    self._trailer_lines = 0
                    self._feed_trailers(data[at:])
                    break
                self._limit -= size
                if self._limit < 0:
                    raise BodyTooLarge("the body is too large")
                self._weigh(framing)
                left = size + 2
            stop = at + left
            if stop <= end:
                piece = data[at : stop - 2]
                if not data.startswith(b"\r\n", stop - 2):
                    raise BadFraming("a chunk does not end where it said")
                at = stop
                left = 0
            else:
                piece = data[at : stop - 2]
                left -= len(piece)
                self._held = data[at + len(piece) :]  # at most the CR
                at = end
            if not body:
                body = piece
            elif pieces is None:
                pieces = [body, piece]
            else:
                pieces.append(piece)
        self._left = left
        return body if pieces is None else b"".join(pieces)

    def _weigh(self, framing: int) -> None:
        """A chunk has begun, so many bytes long is its first line: does the body outweigh its framing?"""
        brought = self._weighed - self._limit
        self._weighed = self._limit
        spare = self._spare + brought - (framing if framing > MIN_MEAN_CHUNK else MIN_MEAN_CHUNK)
        if spare < 0:
            raise BadFraming("the body comes in too many small chunks")
        self._spare = spare if spare < SPARE_FRAMING else SPARE_FRAMING

    def _hold_size_line(self, data: bytes, at: int) -> None:
        if len(data) - at > MAX_SIZE_LINE or data.find(b"\n", at) >= 0:
            raise BadFraming("the size of a chunk is not valid")
        self._held = data[at:]

    def _feed_trailers(self, data: bytes) -> None:
        if self.complete:
            self.surplus += data
            return
        at = 0
        while (end := data.find(b"\r\n", at)) > at:
            self._trailer_lines += 1
            self._trailer_size += end + 2 - at
            if not _is_trailer(data, at, end):
                raise BadFraming("a trailer is not valid")
            if self._trailer_lines > MAX_TRAILER_LINES or self._trailer_size + 2 > MAX_TRAILERS:
                raise BadFraming("the trailers are too long")
            at = end + 2
        if end == at:
            self.complete = True
            self.surplus = data[at + 2 :]
        elif self._trailer_size + len(data) - at > MAX_TRAILERS:
            raise BadFraming("the trailers are too long")
        else:
            self._held = data[at:]


Body = LengthBody | ChunkedBody | UntilCloseBody


def body_decoder(framing: int, limit: int = NO_LIMIT) -> Body:
    """The decoder for a head's ``framing``. Only chunks are held against ``limit``: a length is known beforehand."""
    if framing == CHUNKED:
        return ChunkedBody(limit)
    if framing == UNTIL_CLOSE:
        return UntilCloseBody()
    return LengthBody(framing)
