"""Server-sent events: bytes in, cut anywhere; whole events out.

1. Lines end with LF, CR or CR LF and with nothing else. A model may well emit U+2028.
2. Everything is done on bytes; no character is ever cut. What is not UTF-8 is replaced, as the standard says.
3. Comments, ``id:``, ``retry:``, unknown fields and events without data are dropped: clients stumble over them.
"""

import msgspec

_BOM = b"\xef\xbb\xbf"
_LF, _CR = b"\n\r"  # as numbers: CPython finds those in bytes five times faster than bytes of length one

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""One event may carry a whole picture in base64; more than this is an attack on memory."""

SHORT_BYTES = 64 * 1024
"""Longer events do not go the short way: what judges them may then ask first what taking them apart would cost."""

MAX_LINES = 10_000
"""In one event. A list of lines takes more memory than the lines; pretty-printed JSON has some hundreds."""

MAX_EVENTS = 8_192
"""In one piece, which has some 256 KiB: an event that says something is longer than 32 bytes."""

EVENT_ENDS = (b"\n\n", b"\n\r\n", b"\r\r")
"""How the last bytes of a whole event look; the second one is also the end of CR LF CR LF."""


class Event(msgspec.Struct, frozen=True, gc=False):
    """One event: its name, empty where it has none, and its data in UTF-8."""

    name: bytes
    data: bytes


class SseDecoder:
    """Takes the pieces of one stream in order. The result does not depend on where they are cut."""

    __slots__ = ("_after_cr", "_begun", "_hasty", "_held", "_max_event", "_ready", "_short", "too_long")

    def __init__(self, max_event: int = MAX_EVENT_BYTES) -> None:
        self._max_event = max_event
        self._short = min(max_event, SHORT_BYTES)
        self._held = bytearray()  # of the block that has begun, line ends already made LF
        self._begun = False  # past the place where a byte order mark may stand
        self._after_cr = False  # the next LF belongs to the last CR
        self._ready = False  # between two events, nothing pending: what the short way asks for
        self._hasty = True
        self.too_long = False
        """An event passed a limit, or too many came at once; nothing more comes out."""

    def single(self, chunk: bytes) -> bytes | None:
        """The data of a piece that is exactly one plain event holding a JSON object; None for any other piece.

        The short way for nearly every piece of nearly every stream. After None give the same piece to :meth:`feed`."""
        if (
            self._ready
            and chunk.startswith(b"data: {")
            and chunk.find(b"\n") == len(chunk) - 2
            and chunk[-1] == _LF
            and _CR not in chunk
            and len(chunk) <= self._short
        ):
            return _utf8(chunk[6:-2])
        return None

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that this piece completes."""
        if not chunk or self.too_long:
            return []
        if not self._begun:
            chunk = bytes(self._held) + chunk
            self._held.clear()
            if len(chunk) < len(_BOM) and _BOM.startswith(chunk):
                self._held += chunk
                return []
            self._begun = True
            chunk = chunk.removeprefix(_BOM)
        text = self._with_lf(chunk)
        if self._held and not (b"\n\n" in text or (text.startswith(b"\n") and self._held.endswith(b"\n"))):
            self._hold(text)
            return []
        *blocks, rest = (b"".join((self._held, text)) if self._held else text).split(b"\n\n")
        self._held.clear()
        events: list[Event] = []
        if len(blocks) > MAX_EVENTS:
            self.too_long, self._ready = True, False
            return events
        for block in blocks:
            if len(block) > self._max_event or block.count(b"\n") > MAX_LINES:
                self.too_long, self._ready = True, False
                return events
            if block and (event := _event(block)):
                events.append(event)
        self._hold(rest)
        return events

    def be_thorough(self) -> None:
        """From now on no piece goes the short way."""
        self._hasty = self._ready = False

    def close(self) -> list[Event]:
        """The stream ended: an event that lacks its blank line counts nevertheless."""
        block = bytes(self._held)
        self._held.clear()
        event = None if self.too_long or block.count(b"\n") > MAX_LINES else _event(block)
        return [] if event is None else [event]

    def _with_lf(self, chunk: bytes) -> bytes:
        if self._after_cr:
            chunk = chunk.removeprefix(b"\n")
            self._after_cr = False
        if _CR in chunk:
            self._after_cr = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return chunk

    def _hold(self, text: bytes) -> None:
        if text:
            self._held += text
            self.too_long = len(self._held) > self._max_event + 1  # the first LF of the blank line may be here already
            if self.too_long:
                self._held.clear()
        self._ready = not (self._held or self._after_cr) and self._hasty


class WholeEvents:
    """Passes a stream on without a change, but only up to the end of its last whole event: what is cut off within one
    could be neither ended nor followed by anything that a client would understand."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, piece: bytes) -> bytes:
        """What may go out now that this piece has come. Events beyond the limit go as they come."""
        held = self._held
        if not held and piece.endswith(EVENT_ENDS):
            return piece
        searched = max(0, len(held) - 2)
        held += piece
        end = max([at + len(mark) for mark in EVENT_ENDS if (at := held.rfind(mark, searched)) >= 0], default=0)
        if not end:
            return self.rest() if len(held) > MAX_EVENT_BYTES else b""
        whole = bytes(held[:end])
        del held[:end]
        return whole

    def rest(self) -> bytes:
        """All that was held back; at the end of the stream it may go out."""
        rest = bytes(self._held)
        self._held.clear()
        return rest


def _event(block: bytes) -> Event | None:
    name = b""
    data = []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ")
    text = b"\n".join(data)
    return Event(name, _utf8(text)) if text and not text.isspace() else None


def _utf8(data: bytes) -> bytes:
    if data.isascii():
        return data
    try:
        data.decode()
    except UnicodeDecodeError:
        return data.decode("utf-8", "replace").encode()
    return data
