"""What decoding a stream has in common in all dialects: holding back, ending, reading twice, and answers that are no
stream.

1. An event is read by strict types first. What they refuse is read a second time, tidied (``tidy.py``): it is skipped,
   understood after all, or it ends the answer.
2. Nothing comes out before the first event that says something, so that another provider may be asked until then.
3. Texts go out as they come, reasons to end when nothing can follow them (``reasons.py``).
4. What is remembered is bounded: choices by what was asked for, calls of tools and their ids by number, events by size
   and by what it would cost to take them apart.
"""

import re
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from tollway.domain.failures import FailureKind, UpstreamFailure
from tollway.domain.usage import Usage
from tollway.providers import classify
from tollway.providers.base import ChatResult
from tollway.providers.bounds import EXTRA_CHOICES, MAX_CHAT_EVENT_BYTES, is_cheap
from tollway.providers.halves import Halves
from tollway.providers.reasons import Ending
from tollway.providers.tidy import Missing, is_sign_of_life, missing
from tollway.wire.chat_chunks import chunks_of_reply
from tollway.wire.estimate import with_later_text
from tollway.wire.json import UNREADABLE, one_line
from tollway.wire.model_call import ModelCall
from tollway.wire.openai_errors import DONE
from tollway.wire.sse import Event, SseDecoder

MAX_HELD_BYTES = 64 * 1024
"""A provider that sends more than this without saying anything has started, whatever it sends."""

MAX_REPLY_BYTES = MAX_CHAT_EVENT_BYTES
"""A whole answer in place of a stream: it is one event, if an unusual one."""

UNREADABLE_EVENT = UpstreamFailure(FailureKind.INVALID, "The provider sent an event that is no chat chunk.")
_TOO_LONG = UpstreamFailure(FailureKind.INVALID, "The provider sent more than fits into one event.")
_EMPTY = UpstreamFailure(FailureKind.INVALID, "The provider's stream ended before it said anything.", once_more=False)
_CUT = UpstreamFailure(FailureKind.BROKEN, "The provider's stream ended before the answer was complete.")

_DONE = frozenset({b"[DONE]", b'"[DONE]"'})
_LIKE_DONE = re.compile(rb"\W*+(?:done|end|eos|eof)\W*+", re.IGNORECASE)
"""What servers write in its place. It is believed of an answer that has ended."""

_BOM = b"\xef\xbb\xbf"

C = TypeVar("C", bound=ModelCall)
E = TypeVar("E", bound=Ending)


class ChatStream(Generic[C, E]):
    """A :class:`~tollway.providers.base.StreamDecoder`; a dialect says what one event means (:meth:`_frame`)."""

    __slots__ = (
        "_call",
        "_counted",
        "_counted_at",
        "_endings",
        "_events",
        "_halves",
        "_held",
        "_held_bytes",
        "_in_messages",
        "_lead",
        "_otherwise",
        "_reply",
        "_undecided",
        "_whole",
        "content_bytes",
        "done",
        "failure",
        "finished",
        "started",
        "warnings",
    )

    _decode: Callable[[bytes], Any]
    """The strict types of an event in this dialect. May raise UNREADABLE."""

    _glance: Callable[[bytes], Any]
    """The same without the members that are the same in every event: whether they are right the first ones have shown.
    """

    _ending: type[E]
    """What is remembered of one choice."""

    def __init__(self, call: C, whole: Callable[[bytes, C], ChatResult | UpstreamFailure]) -> None:
        self._call = call
        self._whole = whole  # the dialect's decoder for a complete answer
        self._events = SseDecoder(MAX_CHAT_EVENT_BYTES)
        self._undecided = True  # nothing but blanks has come
        self._lead = b""  # what may be the beginning of a byte order mark
        self._reply: bytearray | None = None  # collects an answer that is no stream
        self._held: list[bytes] = []  # frames before the first one that says something
        self._held_bytes = 0
        self._endings: dict[int, E] = {}  # of the choices that have shown themselves
        self._halves: Halves | None = None
        self._otherwise: Missing | None = None
        self._in_messages = False  # something was said elsewhere than in deltas
        self.done = False
        self.started = False
        self.failure: UpstreamFailure | None = None
        self._counted: Usage | None = None
        self._counted_at = 0  # how much of the text had come by then, at most
        self.warnings: tuple[str, ...] = ()
        self.finished = False
        self.content_bytes = 0

    def feed(self, chunk: bytes) -> bytes:
        if not self.started:
            if self._is_reply(chunk):
                return b""
        elif self.failure is None and not self.done and (data := self._events.single(chunk)) is not None:
            try:
                said = self._glance(data)
            except UNREADABLE:
                return self._translate_odd(data, b"")
            try:
                return self._frame(said, data, b"", chunk)  # nearly every piece of nearly every stream
            except UNREADABLE:
                return self._cannot_read(data)
        out = b"".join([self._take(event) for event in self._events.feed(chunk)])
        if self._events.too_long and not self._over:
            self.failure = _TOO_LONG
        return out

    def close(self) -> bytes:
        if self._over:
            return b""
        if self._reply is not None:
            return self._take_reply(bytes(self._reply))
        out = b"".join([self._take(event) for event in self._events.close()])
        if self.failure is UNREADABLE_EVENT:  # half an event is no wrong event
            self.failure = None if self.finished else _CUT
        if not self._over:
            if self._all_ended:
                out += self._finish()
            else:
                self.failure = _CUT if self.started or self._held or self._endings else _EMPTY
        return out

    @property
    def usage(self) -> Usage | None:
        """The last that was told."""
        return self._counted and with_later_text(self._counted, self._counted_at, self.content_bytes)

    @property
    def _over(self) -> bool:
        return self.done or self.failure is not None

    @property
    def _all_ended(self) -> bool:
        """Whether the answer is whole if the provider has ended the stream in order."""
        endings = self._endings.values()
        return self.finished or (len(endings) >= self._call.n and all(ending.ended for ending in endings))

    def _take(self, event: Event) -> bytes:
        if self._over:
            return b""
        data = event.data
        if not data.startswith(b"{") or data == b"{}":
            if data.strip() in _DONE or (self._all_ended and _LIKE_DONE.fullmatch(data)):
                return self._finish()
            if event.name != b"error" and (data == b"{}" or is_sign_of_life(data)):
                return b""
        if not is_cheap(data):
            self.failure = _TOO_LONG
            return b""
        if self._halves is not None:
            data = self._halves.join(data)
        was_started = self.started
        out = self._translate(data, event.name)
        if was_started or self.failure is not None:
            return out
        if out:
            self._held.append(out)
            self._held_bytes += len(out)
        return self._release() if self.started or self._held_bytes > MAX_HELD_BYTES else b""

    def _translate(self, data: bytes, name: bytes) -> bytes:
        try:
            chunk = self._decode(data)
        except UNREADABLE:
            return self._translate_odd(data, name)
        return self._frame_of(chunk, data, name)

    def _translate_odd(self, data: bytes, name: bytes) -> bytes:
        """The second reading."""
        if name == b"error":
            self._fails(data, marked=True, alone=False)
            return b""
        if not self.started:
            self._events.be_thorough()
        try:
            if self._halves is None and self._call.n == 1 and Halves.may_be_in(data):
                self._halves = Halves()
                self._events.be_thorough()
                data = self._halves.join(data)
            tidy = self._tidied(data)
            return b"" if tidy is None else self._frame(self._decode(tidy), tidy, name, b"")
        except UNREADABLE:
            return self._cannot_read(data)

    def _frame_of(self, chunk: Any, data: bytes, name: bytes) -> bytes:
        try:
            return self._frame(chunk, data, name, b"")
        except UNREADABLE:
            return self._cannot_read(data)

    def _cannot_read(self, data: bytes) -> bytes:
        """An event that is none. After the end of the answer it is no failure, unless it is an error in a list."""
        if not self.finished:
            self.failure = classify.in_words(data) or UNREADABLE_EVENT
        elif data.startswith(b"["):
            self.failure = classify.in_words(data)
        return b""

    def _missing(self, data: bytes) -> Missing:
        """What stands for a head that is none: the same in all chunks."""
        if self._otherwise is None:
            self._otherwise = missing(self._call, data)
        return self._otherwise

    def _sums_up(self, text: str, ends: bool) -> bool:
        """Whether a text that came in a message, perhaps at the end, is all that deltas have said so far."""
        begins = self._endings[0].begins if ends and not self._in_messages and 0 in self._endings else ""
        if begins and text.startswith(begins) and len(text.encode()) == self.content_bytes:
            return True
        self._in_messages = self._in_messages or text != ""
        return False

    def _tidied(self, data: bytes) -> bytes | None:
        """The event in a form that the strict types take; None where there is nothing in it. May raise UNREADABLE."""
        raise NotImplementedError

    def _frame(self, chunk: Any, data: bytes, name: bytes, frame: bytes) -> bytes:
        """The client's frames for one event. Notes ``failure``, ``usage``, ``started``, ``finished``.

        ``frame`` is the provider's own for the same data, where there is one on one line; else it is empty.
        May raise UNREADABLE."""
        raise NotImplementedError

    def _last_frames(self) -> bytes:
        """What the dialect still owes the client before ``[DONE]``: reasons to end and usage."""
        return b""

    def _frames_of_reply(self, body: bytes) -> bytes:
        """The frames for a whole answer, on one line, that came in place of a stream. May raise UNREADABLE."""
        return chunks_of_reply(body, self._call)

    def _fails(self, data: bytes, *, marked: bool, alone: bool) -> bool:
        """Note the failure that an event is about: one marked so, or one with a message and nothing of an answer."""
        problem = None
        if marked:
            problem = classify.read_problem(data, failed=True)
        elif alone:
            problem = classify.told_alone(data, expected=self._all_ended)
        if problem is not None:
            self.failure = msgspec.structs.replace(classify.failure(200, problem), once_more=False)
        return self.failure is not None

    def _begin(self, index: int) -> E:
        """A choice shows itself. Raises UNREADABLE for one that nobody asked for."""
        if not 0 <= index < self._call.n + EXTRA_CHOICES:
            raise msgspec.ValidationError("a choice that nobody asked for")
        ending = self._endings[index] = self._ending()
        return ending

    def _tells(self, usage: Usage, data: bytes) -> None:
        """The usage in an event, which has counted what that says beside it."""
        self._counted, self._counted_at = usage, self.content_bytes + len(data)

    def _told(self) -> None:
        """A choice gave a reason to end, or said something after it had."""
        endings = self._endings.values()
        self.finished = len(endings) >= self._call.n and all(ending.believed for ending in endings)

    def _release(self) -> bytes:
        self.started = True
        out = b"".join(self._held)
        self._held.clear()
        return out

    def _finish(self) -> bytes:
        if not self.started and not self._held and not self._endings:
            self.failure = _EMPTY
            return b""
        out = self._release() + self._last_frames()
        if self.failure is not None:
            return b""
        self.done = self.finished = True
        return out + DONE

    def _is_reply(self, chunk: bytes) -> bool:
        """Whether the answer is one JSON object instead of a stream, which can never begin with a brace."""
        if self._undecided and (text := (self._lead + chunk).lstrip()):
            self._lead = text if len(text) < len(_BOM) and _BOM.startswith(text) else b""
            if not self._lead and (text := text.removeprefix(_BOM).lstrip()):
                self._undecided = False
                if text.startswith((b"{", b"[", b"<")):
                    self._reply, chunk = bytearray(), text
        if self._reply is None:
            return False
        if self.failure is None:
            self._reply += chunk
            if len(self._reply) > MAX_REPLY_BYTES:
                self.failure = _TOO_LONG
                self._reply.clear()
        return True

    def _take_reply(self, body: bytes) -> bytes:
        result = self._whole(body, self._call)
        if isinstance(result, UpstreamFailure):
            self.failure = result
            return b""
        try:
            frames = self._frames_of_reply(one_line(result.body))
        except UNREADABLE:
            self.failure = UNREADABLE_EVENT
            return b""
        self._counted, self.warnings = result.usage, result.warnings
        self.content_bytes = self._counted_at = result.content_bytes
        self.started = self.finished = self.done = True
        return frames + DONE
