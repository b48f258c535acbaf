"""What decoding a stream has in common in all dialects: holding back, ending, and answers that are no stream."""

from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from tollway.domain.failures import FailureKind, UpstreamFailure
from tollway.domain.usage import Usage
from tollway.providers import classify
from tollway.providers.base import ChatResult
from tollway.wire.chat_chunks import chunks_of_reply
from tollway.wire.json import UNREADABLE, one_line
from tollway.wire.model_call import ModelCall
from tollway.wire.openai_errors import DONE
from tollway.wire.sse import Event, SseDecoder

MAX_HELD_BYTES = 64 * 1024
"""A provider that sends more than this without saying anything has started, whatever it sends."""

MAX_REPLY_BYTES = 32 * 1024 * 1024
"""A whole answer in place of a stream: as large as any body that a client may send."""

UNREADABLE_EVENT = UpstreamFailure(FailureKind.INVALID, "The provider sent an event that is no chat chunk.")
_TOO_LONG = UpstreamFailure(FailureKind.INVALID, "The provider sent more than fits into one event.")
_EMPTY = UpstreamFailure(FailureKind.INVALID, "The provider's stream ended before it said anything.", once_more=False)
_CUT = UpstreamFailure(FailureKind.BROKEN, "The provider's stream ended before the answer was complete.")

C = TypeVar("C", bound=ModelCall)


class ChatStream(Generic[C]):
    """A :class:`~tollway.providers.base.StreamDecoder`; a dialect says what one event means (:meth:`_frame`)."""

    __slots__ = (
        "_call",
        "_ended",
        "_events",
        "_held",
        "_reply",
        "_undecided",
        "_whole",
        "content_bytes",
        "done",
        "failure",
        "finished",
        "started",
        "usage",
        "warnings",
    )

    def __init__(self, call: C, whole: Callable[[bytes, C], ChatResult | UpstreamFailure]) -> None:
        self._call = call
        self._whole = whole  # the dialect's decoder for a complete answer
        self._events = SseDecoder()
        self._undecided = True  # nothing but blanks has come
        self._reply: bytearray | None = None  # collects an answer that is no stream
        self._held: list[bytes] = []  # frames before the first one that says something
        self._ended: set[int] = set()  # choices that gave their reason to end
        self.done = False
        self.started = False
        self.failure: UpstreamFailure | None = None
        self.usage: Usage | None = None
        self.warnings: tuple[str, ...] = ()
        self.finished = False
        self.content_bytes = 0

    def feed(self, chunk: bytes) -> bytes:
        if not self.started:
            if self._is_reply(chunk):
                return b""
        elif self.failure is None and not self.done and (data := self._events.single(chunk)) is not None:
            return self._translate(data, b"")  # nearly every piece of nearly every stream
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
        if self.failure is UNREADABLE_EVENT:
            self.failure = _CUT  # half an event is no wrong event
        if not self._over:
            if self.finished:
                out += self._finish()
            else:
                self.failure = _CUT if self.started or self._held else _EMPTY
        return out

    @property
    def _over(self) -> bool:
        return self.done or self.failure is not None

    def _take(self, event: Event) -> bytes:
        if self._over:
            return b""
        if event.data.startswith(b"[") and event.data.strip() == b"[DONE]":
            return self._finish()
        was_started = self.started
        out = self._translate(event.data, event.name)
        if was_started or self.failure is not None:
            return out
        if out:
            self._held.append(out)
        return self._release() if self.started or sum(map(len, self._held)) > MAX_HELD_BYTES else b""

    def _translate(self, data: bytes, name: bytes) -> bytes:
        try:
            return self._frame(data, name)
        except UNREADABLE:
            self.failure = classify.in_a_list(data) or UNREADABLE_EVENT
            return b""

    def _frame(self, data: bytes, name: bytes) -> bytes:
        """The client's frames for the data of one event. Notes ``failure``, ``usage``, ``started``, ``finished``.

        May raise UNREADABLE."""
        raise NotImplementedError

    def _last_frames(self) -> bytes:
        """What the dialect still owes the client before ``[DONE]``."""
        return b""

    def _frames_of_reply(self, body: bytes) -> bytes:
        """The frames for a whole answer, on one line, that came in place of a stream. May raise UNREADABLE."""
        return chunks_of_reply(body, self._call)

    def _fails(self, data: bytes, *, marked: bool, alone: bool) -> bool:
        """Note the failure that an event is about: one marked so, or one with a message and nothing of an answer."""
        problem = classify.read_problem(data)
        if marked or (alone and problem.message):
            self.failure = msgspec.structs.replace(classify.failure(200, problem), once_more=False)
        return self.failure is not None

    def _end_choice(self, index: int) -> None:
        self._ended.add(index)
        self.finished = len(self._ended) >= self._call.n

    def _release(self) -> bytes:
        self.started = True
        out = b"".join(self._held)
        self._held.clear()
        return out

    def _finish(self) -> bytes:
        if not self.started and not self._held:
            self.failure = _EMPTY
            return b""
        self.done = self.finished = True
        return self._release() + self._last_frames() + DONE

    def _is_reply(self, chunk: bytes) -> bool:
        """Whether the answer is one JSON object instead of a stream, which can never begin with a brace."""
        if self._undecided and (text := chunk.lstrip()):
            self._undecided = False
            if text.startswith((b"{", b"[", b"<")):
                self._reply = bytearray()
        if self._reply is None:
            return False
        if self.failure is None:
            self._reply += chunk
            if len(self._reply) > MAX_REPLY_BYTES:
                self.failure = _TOO_LONG
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
        self.usage, self.warnings = result.usage, result.warnings
        self.content_bytes = result.content_bytes
        self.started = self.finished = self.done = True
        return frames + DONE
