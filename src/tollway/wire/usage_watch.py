"""Watches an answer that is relayed: what it says was used, and whether it came to its end.

Everything here is known as soon as the piece that says it has been fed, so before that piece is passed on: money is
settled before the client sees the last byte. Never raises, whatever the answer holds.
"""

from collections.abc import Mapping
from typing import Protocol

import msgspec

from tollway.domain.usage import NO_OTHERS
from tollway.wire.json import UNREADABLE, UNSET, Raw, Unset, decoder, encode, is_null, is_text
from tollway.wire.searches import searches_of_event
from tollway.wire.sse import Event, SseDecoder
from tollway.wire.top_members import MAX_MEMBER_BYTES, TopMembers

_DONE = b"[DONE]"

IMAGE_EVENTS = frozenset({"image_generation.completed", "image_edit.completed"})
"""One for each picture, with what that took."""

LAST_EVENTS = frozenset(
    {
        *("response.completed", "response.incomplete", "response.failed"),
        *IMAGE_EVENTS,
        *("transcript.text.done", "speech.audio.done"),
        "error",
    }
)
"""Types of events after which nothing comes that costs, but for further pictures; streams of the chat kind end with
``[DONE]`` instead."""

MAX_IMAGES = 100
"""Whose usages are kept, of one stream; OpenAI makes ten."""


class UsageWatch(Protocol):
    """Sees every piece of one answer, in order."""

    usage: Raw | None
    """The usage object, whole; of several the last."""
    earlier_images: list[Raw]
    """The usage objects of the pictures before the last one."""
    model: Raw | None
    """What the answer says which model it is of."""
    service_tier: Raw | None
    """What it says which service tier it was made in; of several the last."""
    searches: Mapping[str, int]
    """What the provider searched for the response that an event has told last, by bucket."""
    error: Raw | None
    """The error object of an answer that is or ends with one."""
    begun: bool
    """Something has come that is no error: of a stream of events a whole event, of all else a byte."""
    text_bytes: int
    """Bytes of the text that events have brought so far, as JSON writes it."""
    all_said: bool
    """The last event has ended a text or a call that the model made."""
    terminal: bool
    """The answer's own end has been seen. Stays False for formats that have none, such as sound or plain text."""

    def feed(self, piece: bytes) -> None:
        """Take the next piece; look at the attributes afterwards."""

    def close(self) -> None:
        """The answer's bytes are over; what was still open counts."""


def watch(content_type: bytes | None, images: int = 1) -> UsageWatch:
    """A watch for an answer of this content type, with so many pictures where it tells of pictures."""
    essence = (content_type or b"").partition(b";")[0].strip().lower()
    if essence == b"text/event-stream":
        return _WatchEvents(images)
    if essence == b"application/json" or (essence.startswith(b"application/") and essence.endswith(b"+json")):
        return _WatchObject()
    return _WatchNothing()


class _WatchNothing:
    """Neither JSON nor events: only its framing says where it ends, and nothing what it cost."""

    def __init__(self) -> None:
        self.usage: Raw | None = None
        self.earlier_images: list[Raw] = []
        self.model: Raw | None = None
        self.service_tier: Raw | None = None
        self.searches = NO_OTHERS
        self.error: Raw | None = None
        self.begun = False
        self.text_bytes = 0
        self.all_said = False
        self.terminal = False

    def feed(self, piece: bytes) -> None:
        """Nothing to see but that it is there."""
        self.begun = True

    def close(self) -> None:
        """Nothing was open."""


_SEEN = ("usage", "error", "model", "service_tier")


class _WatchObject(_WatchNothing):
    """One JSON object."""

    def __init__(self) -> None:
        super().__init__()
        self._members = TopMembers(_SEEN)

    def feed(self, piece: bytes) -> None:
        super().feed(piece)
        self._members.feed(piece)
        if self._members.ended:
            self.terminal = self._members.whole
            found = self._members.found
            self.usage, self.error, self.model, self.service_tier = (_kept(found.get(name, UNSET)) for name in _SEEN)


class _Inner(msgspec.Struct, gc=False):
    usage: Raw | Unset = UNSET
    error: Raw | Unset = UNSET
    model: Raw | Unset = UNSET
    service_tier: Raw | Unset = UNSET


class _Data(_Inner, gc=False):
    type: str = ""
    delta: Raw | Unset = UNSET
    response: _Inner | None = None  # in events of the Responses API


_decode_data = decoder(_Data)
_NOTHING = _Data()

_END, _THOUGHTS = ".done", "response.reasoning"
"""How the types of events end that end a part of the answer, and how those of a model's thoughts begin."""

_SOUND = "audio.delta"
"""How the types of events end whose text is sound in base64."""


class _WatchEvents(_WatchNothing):
    """A stream of events, of any of OpenAI's kinds."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self._events = SseDecoder()
        self._images = images  # that have not come yet

    def feed(self, piece: bytes) -> None:
        data = self._events.single(piece)
        if data is not None:
            self._see(b"", data)
        else:
            self._see_all(self._events.feed(piece))
            self.begun = self.begun or self._events.too_long  # nothing more will be seen

    def close(self) -> None:
        self._see_all(self._events.close())

    def _see_all(self, events: list[Event]) -> None:
        for event in events:
            self._see(event.name, event.data)

    def _see(self, name: bytes, data: bytes) -> None:
        if data == _DONE:
            self.terminal = self.begun = True
            return
        try:
            said = _decode_data(data)
        except UNREADABLE:
            said = _Data(type="error", error=Raw(encode(data.decode()))) if name == b"error" else _NOTHING
        inner = said.response or said
        usage = _kept(said.usage) or _kept(inner.usage)
        kind = said.type or name.decode("ascii", "replace")
        if kind in LAST_EVENTS:
            self._last(kind, data, responds=said.response is not None)
        if usage is not None or said.response is not None:
            self.usage = usage or self.usage
            self.model = _kept(inner.model) or self.model
            self.service_tier = _kept(inner.service_tier) or self.service_tier
        self.error = _error(said.error) or _error(inner.error) or self.error
        if kind == "error" and self.error is None:  # flat: the event is the error object
            self.error = _error(Raw(data))
        self.all_said = kind.endswith(_END) and not kind.startswith(_THOUGHTS)
        self.terminal = self.terminal or self.error is not None
        self.begun = self.begun or self.error is None
        if not isinstance(said.delta, Unset) and is_text(said.delta) and not kind.endswith(_SOUND):
            self.text_bytes += len(said.delta) - 2  # without the quotes

    def _last(self, kind: str, data: bytes, *, responds: bool) -> None:
        """An event of those after which nothing comes, unless it is a picture's; its own usage is not yet taken."""
        if responds:
            self.searches = searches_of_event(data)
        if kind in IMAGE_EVENTS:
            self._images -= 1
            if self.usage is not None and len(self.earlier_images) < MAX_IMAGES:
                self.earlier_images.append(self.usage)
        self.terminal = self.terminal or kind not in IMAGE_EVENTS or self._images <= 0


def _error(raw: Raw | Unset) -> Raw | None:
    """As :func:`_kept`, but what is too long to be read is an error nevertheless."""
    if isinstance(raw, Unset) or len(raw) <= MAX_MEMBER_BYTES:
        return _kept(raw)
    return Raw(b"{}")


def _kept(raw: Raw | Unset) -> Raw | None:
    """A copy that keeps nothing else alive; None for ``null`` and for what is too long to be meant."""
    return None if isinstance(raw, Unset) or is_null(raw) or len(raw) > MAX_MEMBER_BYTES else raw.copy()
