"""Mistral's streams in OpenAI's format: text and reason to end apart, calls numbered, usage only where asked for."""

from typing import Annotated

import msgspec

from tollway.providers import classify, tidy
from tollway.providers.bounds import MAX_CHOICES, Index
from tollway.providers.mistral.content import PART_TYPES, Content, said_in
from tollway.providers.mistral.logprobs import logprobs_of
from tollway.providers.mistral.reply import (
    ReceivedCall,
    answer_id,
    counted,
    finish_reason,
    model_name,
    once,
    reason_warnings,
    whole,
)
from tollway.providers.mistral.tools import short_id
from tollway.providers.reasons import Ending, real_reason
from tollway.providers.stream import ChatStream
from tollway.providers.tool_numbers import MAX_CALLS, CallNumbers, Place
from tollway.providers.usage import read_usage
from tollway.wire.chat_answer import (
    CalledFunction,
    Chunk,
    ChunkChoice,
    Delta,
    TokenCounts,
    ToolCall,
)
from tollway.wire.chat_chunks import frame
from tollway.wire.chat_request import ChatCall
from tollway.wire.json import UNSET, Raw, Unset, decoder


class _Delta(msgspec.Struct, gc=False):
    content: Content = None
    refusal: str | None = None
    tool_calls: Annotated[list[ReceivedCall], msgspec.Meta(max_length=MAX_CALLS)] | None = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta
    index: Index = 0
    finish_reason: str | None = None
    logprobs: Raw | Unset = UNSET


class _Chunk(msgspec.Struct, gc=False):
    choices: Annotated[list[_Choice], msgspec.Meta(max_length=MAX_CHOICES)] = []
    id: str = ""
    object: str = ""
    created: int = 0
    model: str = ""
    usage: Raw | Unset = UNSET
    error: Raw | Unset = UNSET


class _Progress(Ending):
    """What has to be remembered of one of ``n`` answers."""

    __slots__ = ("numbers", "prefill", "swallowed")

    def __init__(self) -> None:
        super().__init__()
        self.numbers = CallNumbers()
        self.prefill = ""  # what the answer repeats and the client has already
        self.swallowed = 0  # characters of it that came so far

    def without_prefill(self, text: str) -> str:
        """The text without what it repeats; what was taken for a repetition and is none comes back."""
        left = len(self.prefill) - self.swallowed
        if not left or not text:
            return text
        expected = self.prefill[self.swallowed : self.swallowed + len(text)]
        if text.startswith(expected):
            self.swallowed += len(expected)
            return text[len(expected) :]
        return self.give_back() + text

    def give_back(self) -> str:
        """What was held back as the beginning of a repetition that never became whole."""
        held = self.prefill[: self.swallowed] if self.swallowed < len(self.prefill) else ""
        self.prefill, self.swallowed = "", 0
        return held


class MistralStream(ChatStream[ChatCall, _Progress]):
    """Each event is taken apart and made anew; one may become several frames or none."""

    __slots__ = ("_created", "_id", "_legacy", "_model", "_raw_usage")

    _decode = _glance = staticmethod(decoder(_Chunk))
    _ending = _Progress

    def __init__(self, call: ChatCall) -> None:
        super().__init__(call, whole)
        self._id = ""
        self._created = call.created
        self._model = call.model
        self._legacy = call.legacy_functions
        self._raw_usage: Raw | Unset = UNSET

    def _tidied(self, data: bytes) -> bytes | None:
        otherwise = self._missing(data)._replace(answer_id="", model="")
        return tidy.chat_chunk(data, otherwise, self._sums_up, parts=PART_TYPES)

    def _frame(self, chunk: _Chunk, data: bytes, name: bytes, _: bytes) -> bytes:
        marked = name == b"error" or chunk.object == "error" or classify.is_problem(chunk.error)
        if (marked or not chunk.choices) and self._fails(data, marked=marked, alone=chunk.usage is UNSET):
            return b""
        if chunk.usage is not UNSET and (usage := read_usage(chunk.usage)) is not None:
            self._tells(usage, data)
            self._raw_usage = chunk.usage.copy()
        if not chunk.choices:
            elsewhere = self._tidied(data) if tidy.may_say_elsewhere(data) else None
            if elsewhere is None or not (chunk := self._decode(elsewhere)).choices:
                return b""
        if not self._id:
            self._id = answer_id(chunk.id, data)
            self._created = chunk.created or self._created
            self._model = model_name(chunk.model, self._call)
        frames = []
        for choice in chunk.choices:
            delta = self._delta(choice)
            if self.failure is not None:
                self.failure = classify.gave_up(data)
                break
            logprobs = None if choice.logprobs is UNSET else logprobs_of(choice.logprobs)
            if delta != _NOTHING or logprobs is not None:
                frames.append(self._write([ChunkChoice(choice.index, delta, logprobs)]))
        return b"".join(frames)

    def _last_frames(self) -> bytes:
        frames = []
        for index, progress in self._endings.items():
            delta = Delta()
            self._add_text(delta, progress.give_back())
            if index == 0 and self._halves is not None and self._halves.left:
                self._add_text(delta, "\ufffd")
            self._add_calls(delta, [self._shown(place, "") for place in progress.numbers.unnamed()])
            if delta != _NOTHING:
                frames.append(self._write([ChunkChoice(index, delta)]))
        for index, progress in self._endings.items():
            reason = finish_reason(progress.reason or progress.usual, self._call)
            frames.append(self._write([ChunkChoice(index, Delta(), finish_reason=reason)]))
        _, usage = counted(self._raw_usage)
        if self._call.include_usage and usage is not UNSET:
            frames.append(self._write([], usage))
        return b"".join(frames)

    def _delta(self, received: _Choice) -> Delta:
        """What one choice in a chunk says. Its reason to end waits, as more may follow."""
        progress = self._endings.get(received.index)
        delta = Delta()
        if progress is None:
            progress = self._begin(received.index)
            progress.prefill = self._call.prefill
            delta.role, delta.content = "assistant", ""
        says = self._say(delta, progress, received.delta)
        if progress.watched or received.finish_reason is not None:
            self._note_end(progress, received, says=says)
        return delta

    def _note_end(self, progress: _Progress, received: _Choice, *, says: bool) -> None:
        reason, content = real_reason(received.finish_reason), received.delta.content
        if reason == "error":
            self.failure = classify.GAVE_UP
            return
        if says:
            progress.said(reason, content if isinstance(content, str) else None)
        if reason is not None:
            self.warnings = once(self.warnings + reason_warnings(reason))
            progress.told(reason, beside_text=says)
        self._told()

    def _say(self, delta: Delta, progress: _Progress, received: _Delta) -> bool:
        """Whether anything is said at all, be it shown or not."""
        content = received.content
        thinks = False
        if isinstance(content, list):
            said = said_in(content)
            self.warnings = once(self.warnings + said.warnings)
            content, thinks = said.text, bool(said.thinking)
            if thinks:
                self._think(delta, said.thinking)
        if content:
            self._add_text(delta, progress.without_prefill(content))
        if received.refusal:
            self.started = True
            self.content_bytes += len(received.refusal.encode())
            delta.refusal = received.refusal
        if received.tool_calls:
            self._add_calls(delta, self._calls(progress, received.tool_calls))
        return bool(content or thinks or received.refusal or received.tool_calls)

    def _think(self, delta: Delta, thoughts: str) -> None:
        self.started = True  # a model that thinks has begun to answer, be its thoughts shown or not
        self.content_bytes += len(thoughts.encode())
        if self._call.show_reasoning:
            delta.reasoning_content = thoughts

    def _add_text(self, delta: Delta, text: str) -> None:
        if text:
            self.started = True
            self.content_bytes += len(text.encode())
            delta.content = text if delta.content is UNSET else delta.content + text

    def _add_calls(self, delta: Delta, calls: list[ToolCall]) -> None:
        if not calls:
            return
        self.started = True
        if not self._legacy:
            delta.tool_calls = calls
        elif calls[0].index == 0:  # there is room for one call only
            delta.function_call = calls[0].function

    def _calls(self, progress: _Progress, received: list[ReceivedCall]) -> list[ToolCall]:
        calls = []
        progress.usual = "tool_calls"
        progress.numbers.begin_delta()
        for piece in received:
            name, arguments = piece.function.name, piece.function.arguments or ""
            self.content_bytes += len(arguments.encode())
            place = progress.numbers.place(piece.id, piece.index, name, arguments)
            if place is not None and (place.is_first or place.name or arguments):
                calls.append(self._shown(place, arguments))
        return calls

    def _shown(self, place: Place, arguments: str) -> ToolCall:
        """One piece of a call."""
        told = place.name or ("" if place.is_first else UNSET)
        call = ToolCall(index=place.number, function=CalledFunction(told, place.before + arguments))
        if place.is_first:
            call.id, call.type = place.call_id or short_id(f"{self._id}:{place.number}"), "function"
        return call

    def _write(self, choices: list[ChunkChoice], usage: TokenCounts | None = None) -> bytes:
        shown = usage if self._call.include_usage else UNSET
        return frame(Chunk(id=self._id, created=self._created, model=self._model, choices=choices, usage=shown))


_NOTHING = Delta()
