"""Mistral's streams in OpenAI's format: text and reason to end apart, calls numbered, usage only where asked for."""

import msgspec

from tollway.providers import classify
from tollway.providers.mistral.reply import (
    FAILED,
    Content,
    ReceivedCall,
    arguments_of,
    finish_reason,
    given_id,
    text_of,
    whole,
)
from tollway.providers.mistral.tools import short_id
from tollway.providers.stream import ChatStream
from tollway.providers.usage import read_usage
from tollway.wire.chat_answer import (
    ID_PREFIX,
    CalledFunction,
    Chunk,
    ChunkChoice,
    Delta,
    TokenCounts,
    ToolCall,
    token_counts,
)
from tollway.wire.chat_chunks import frame
from tollway.wire.chat_request import ChatCall
from tollway.wire.json import UNSET, Raw, Unset, decoder


class _Delta(msgspec.Struct, gc=False):
    content: Content = None
    tool_calls: list[ReceivedCall] | None = None


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None


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

    __slots__ = ("_choices", "_created", "_id", "_model")

    def __init__(self, call: ChatCall) -> None:
        super().__init__(call, whole)
        self._choices: dict[int, _ChoiceState] = {}
        self._id = ""
        self._created = call.created
        self._model = call.model

    def _frame(self, data: bytes, name: bytes) -> bytes:
        chunk = _decode(data)
        marked = name == b"error" or chunk.object == "error" or classify.is_problem(chunk.error)
        if (marked or not chunk.choices) and self._fails(data, marked=marked, alone=chunk.usage is UNSET):
            return b""
        if not self._id and chunk.choices:
            self._id = ID_PREFIX + chunk.id
            self._created = chunk.created or self._created
            self._model = chunk.model or self._model
        if chunk.usage is not UNSET:
            self.usage = read_usage(chunk.usage) or self.usage
        frames = []
        for choice in chunk.choices:
            frames += self._choice(choice)
            if self.failure is not None:
                break
        return b"".join(frames)

    def _last_frames(self) -> bytes:
        if not self._call.include_usage or self.usage is None:
            return b""
        return self._write([], token_counts(self.usage))

    def _choice(self, received: _Choice) -> list[bytes]:
        index, reason = received.index, received.finish_reason
        state = self._choices.get(index)
        delta = Delta()
        if state is None:
            state = self._choices[index] = _ChoiceState(self._call.prefill)
            delta.role, delta.content = "assistant", ""
        if state.ended:
            return []
        if received.delta is not None:
            self._say(delta, state, text_of(received.delta.content))
            if received.delta.tool_calls:
                self.started = True
                delta.tool_calls = self._calls(state, received.delta.tool_calls)
        if reason == "error":
            self.failure = FAILED
            return []
        if reason is not None:
            self._say(delta, state, state.give_back())
        frames = [] if delta == _NOTHING else [self._write([ChunkChoice(index, delta)])]
        if reason is not None:
            self.started = state.ended = True
            self._end_choice(index)
            frames.append(self._write([ChunkChoice(index, Delta(), finish_reason=finish_reason(reason))]))
        return frames

    def _say(self, delta: Delta, state: "_ChoiceState", text: str) -> None:
        text = state.without_prefill(text)
        if text:
            self.started = True
            self.content_bytes += len(text.encode())
            delta.content = text if delta.content is UNSET else delta.content + text

    def _calls(self, state: "_ChoiceState", received: list[ReceivedCall]) -> list[ToolCall]:
        calls = []
        state.begin_delta()
        for piece in received:
            number, is_first = state.number(piece)
            arguments = arguments_of(piece.function)
            self.content_bytes += len(arguments)
            if is_first:
                call_id = given_id(piece) or short_id(f"{self._id}:{number}")
                function = CalledFunction(piece.function.name or "", arguments)
                calls.append(ToolCall(index=number, id=call_id, type="function", function=function))
            else:
                calls.append(ToolCall(index=number, function=CalledFunction(arguments=arguments)))
        return calls

    def _write(self, choices: list[ChunkChoice], usage: TokenCounts | None = None) -> bytes:
        shown = usage if self._call.include_usage else UNSET
        return frame(Chunk(id=self._id, created=self._created, model=self._model, choices=choices, usage=shown))


_NOTHING = Delta()


class _ChoiceState:
    """What has to be remembered of one of ``n`` answers."""

    __slots__ = ("_by_id", "_by_index", "_count", "_in_delta", "_prefill", "_swallowed", "ended")

    def __init__(self, prefill: str) -> None:
        self._by_id: dict[str, int] = {}
        self._by_index: dict[int, int] = {}
        self._in_delta: set[int] = set()
        self._count = 0
        self._prefill = prefill  # what the answer repeats and the client has already
        self._swallowed = 0  # characters of it that came so far
        self.ended = False

    def begin_delta(self) -> None:
        self._in_delta.clear()

    def number(self, piece: ReceivedCall) -> tuple[int, bool]:
        """Which call a piece belongs to, counted from 0, and whether it is the call's first piece.

        A new id is a new call, whatever the index says: some servers leave the index out or always say 0. Without an
        id, an index that is known from an earlier event continues that call, and a name begins another one.
        """
        call_id, index, known = given_id(piece), piece.index, None
        if call_id is not None:
            known = self._by_id.get(call_id)
        elif index in self._by_index and not (index in self._in_delta and piece.function.name):
            known = self._by_index[index]
        elif not piece.function.name and self._count:
            known = self._count - 1
        number = self._count if known is None else known
        if known is None:
            self._count += 1
            if call_id is not None:
                self._by_id[call_id] = number
        if index is not None:
            self._by_index[index] = number
            self._in_delta.add(index)
        return number, known is None

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
