"""Mistral's streams in OpenAI's format: text and reason to end apart, calls numbered, usage only where asked for."""

import msgspec

from tollway.providers import classify
from tollway.providers.mistral.content import Content, said_in
from tollway.providers.mistral.logprobs import logprobs_of
from tollway.providers.mistral.reply import (
    ReceivedCall,
    answer_id,
    arguments_of,
    finish_reason,
    once,
    reason_warnings,
    shown_usage,
    whole,
)
from tollway.providers.mistral.tools import short_id
from tollway.providers.stream import ChatStream
from tollway.providers.tool_numbers import CallNumbers, real_id
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
    tool_calls: list[ReceivedCall] | None = None


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None
    logprobs: Raw | Unset = UNSET


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] = []
    id: str = ""
    object: str = ""
    created: int = 0
    model: str = ""
    usage: Raw | Unset = UNSET
    error: Raw | Unset = UNSET


_decode = decoder(_Chunk)


class MistralStream(ChatStream[ChatCall]):
    """Each event is taken apart and made anew; one may become several frames or none."""

    __slots__ = ("_choices", "_created", "_id", "_legacy", "_model", "_raw_usage")

    def __init__(self, call: ChatCall) -> None:
        super().__init__(call, whole)
        self._choices: dict[int, _ChoiceState] = {}
        self._id = ""
        self._created = call.created
        self._model = call.model
        self._legacy = call.legacy_functions
        self._raw_usage: Raw | Unset = UNSET

    def _frame(self, data: bytes, name: bytes) -> bytes:
        chunk = _decode(data)
        marked = name == b"error" or chunk.object == "error" or classify.is_problem(chunk.error)
        if (marked or not chunk.choices) and self._fails(data, marked=marked, alone=chunk.usage is UNSET):
            return b""
        if not self._id and chunk.choices:
            self._id = answer_id(chunk.id, data)
            self._created = chunk.created or self._created
            self._model = chunk.model or self._model
        if chunk.usage is not UNSET and (usage := read_usage(chunk.usage)) is not None:
            self.usage, self._raw_usage = usage, chunk.usage
        frames = []
        for choice in chunk.choices:
            frames += self._choice(choice)
            if self.failure is not None:
                break
        return b"".join(frames)

    def _last_frames(self) -> bytes:
        frames = []
        for index, state in self._choices.items():
            if not state.ended:  # [DONE] came instead of a reason
                frames += self._choice(_Choice(index, None, "tool_calls" if state.has_calls else "stop"))
        usage = shown_usage(self.usage, self._raw_usage)
        if self._call.include_usage and usage is not UNSET:
            frames.append(self._write([], usage))
        return b"".join(frames)

    def _choice(self, received: _Choice) -> list[bytes]:
        index, reason, said = received.index, received.finish_reason, received.delta
        state = self._choices.get(index)
        delta = Delta()
        if state is None:
            state = self._choices[index] = _ChoiceState(self._call.prefill)
            delta.role, delta.content = "assistant", ""
        if state.ended:
            return []
        if said is not None:
            self._say(delta, state, said)
        if reason == "error":
            self.failure = classify.GAVE_UP
            return []
        if reason is not None:
            self._add_text(delta, state.give_back())
        logprobs = None if received.logprobs is UNSET else logprobs_of(received.logprobs)
        frames = []
        if delta != _NOTHING or logprobs is not None:
            frames.append(self._write([ChunkChoice(index, delta, logprobs)]))
        if reason is not None:
            self.started = state.ended = True
            self.warnings = once(self.warnings + reason_warnings(reason))
            self._end_choice(index)
            ended = ChunkChoice(index, Delta(), finish_reason=finish_reason(reason, self._call))
            frames.append(self._write([ended]))
        return frames

    def _say(self, delta: Delta, state: "_ChoiceState", received: _Delta) -> None:
        content = received.content
        if isinstance(content, list):
            content = self._parts(delta, content)
        if content:
            self._add_text(delta, state.without_prefill(content))
        if received.refusal:
            self.started = True
            self.content_bytes += len(received.refusal.encode())
            delta.refusal = received.refusal
        if received.tool_calls:
            self.started = state.has_calls = True
            calls = self._calls(state, received.tool_calls)
            if not self._legacy:
                delta.tool_calls = calls
            elif calls[0].index == 0:  # there is room for one call only
                delta.function_call = calls[0].function

    def _add_text(self, delta: Delta, text: str) -> None:
        if text:
            self.started = True
            self.content_bytes += len(text.encode())
            delta.content = text if delta.content is UNSET else delta.content + text

    def _parts(self, delta: Delta, content: Content) -> str:
        """The text of a list of chunks; its other chunks are shown or told as far as they can be."""
        said = said_in(content)
        self.warnings = once(self.warnings + said.warnings)
        if said.thinking:
            self.started = True  # a model that thinks has begun to answer, be its thoughts shown or not
            if self._call.show_reasoning:
                self.content_bytes += len(said.thinking.encode())
                delta.reasoning_content = said.thinking
        return said.text

    def _calls(self, state: "_ChoiceState", received: list[ReceivedCall]) -> list[ToolCall]:
        calls = []
        state.numbers.begin_delta()
        for piece in received:
            call_id, name = real_id(piece.id), piece.function.name or ""
            place = state.numbers.place(call_id, piece.index, name)
            arguments = arguments_of(piece.function)
            self.content_bytes += len(arguments)
            function = CalledFunction(name if place.is_first or place.names else UNSET, arguments)
            call = ToolCall(index=place.number, function=function)
            if place.is_first:
                call.id, call.type = call_id or short_id(f"{self._id}:{place.number}"), "function"
            calls.append(call)
        return calls

    def _write(self, choices: list[ChunkChoice], usage: TokenCounts | None = None) -> bytes:
        shown = usage if self._call.include_usage else UNSET
        return frame(Chunk(id=self._id, created=self._created, model=self._model, choices=choices, usage=shown))


_NOTHING = Delta()


class _ChoiceState:
    """What has to be remembered of one of ``n`` answers."""

    __slots__ = ("_prefill", "_swallowed", "ended", "has_calls", "numbers")

    def __init__(self, prefill: str) -> None:
        self._prefill = prefill  # what the answer repeats and the client has already
        self._swallowed = 0  # characters of it that came so far
        self.numbers = CallNumbers()
        self.has_calls = False
        self.ended = False

    def without_prefill(self, text: str) -> str:
        """The text without what it repeats; what was taken for a repetition and is none comes back."""
        left = len(self._prefill) - self._swallowed
        if not left or not text:
            return text
        expected = self._prefill[self._swallowed : self._swallowed + len(text)]
        if text.startswith(expected):
            self._swallowed += len(expected)
            return text[len(expected) :]
        return self.give_back() + text

    def give_back(self) -> str:
        """What was held back as the beginning of a repetition that never became whole."""
        held = self._prefill[: self._swallowed] if self._swallowed < len(self._prefill) else ""
        self._prefill, self._swallowed = "", 0
        return held
