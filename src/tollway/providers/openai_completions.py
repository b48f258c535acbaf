"""Legacy completions in OpenAI's own dialect: bytes pass as they are, the gateway only looks on."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

import msgspec

from tollway.domain.failures import UpstreamFailure
from tollway.domain.refusals import BadRequest
from tollway.providers import classify, tidy
from tollway.providers.base import ChatResult, UpstreamRequest, is_good
from tollway.providers.bounds import (
    EXTRA_CHOICES,
    MAX_REPLY_PARTS,
    MAX_SAID_BYTES,
    Index,
    is_cheap,
    may_be_tidied,
    readable,
)
from tollway.providers.chunk_repairs import size_of
from tollway.providers.openai import put_stream_options
from tollway.providers.openai_stream import Event, PassingStream
from tollway.providers.quirks import Quirks
from tollway.providers.reasons import Ending, real_reason
from tollway.providers.service_tier import with_tier
from tollway.providers.usage import read_usage
from tollway.wire.completion_answer import FINISH_REASONS, frames_of_text
from tollway.wire.completion_request import CompletionCall
from tollway.wire.json import UNREADABLE, UNSET, Raw, Unset, decoder, encode, members
from tollway.wire.stretches import slices

_PATH = b"/completions"


class _Choice(msgspec.Struct, gc=False):
    text: str
    index: Index
    finish_reason: str | None = None


class _Reply(msgspec.Struct, gc=False):
    choices: Annotated[list[_Choice], msgspec.Meta(min_length=1)]
    usage: Raw | Unset = UNSET
    service_tier: Raw | Unset = UNSET
    object: str = ""
    id: str = ""
    created: int = 0
    model: str = ""


class _Glance(Event, gc=False):
    choices: list[_Choice] = msgspec.field(default_factory=list)


class _Chunk(_Glance, gc=False):
    object: str = ""
    id: str = ""
    created: int = 0
    model: str = ""


class _RawChoice(msgspec.Struct, gc=False):
    text: Raw
    finish_reason: Raw | None = None


class _Texts(msgspec.Struct, gc=False):
    """Where an answer has the texts that are taken apart."""

    choices: list[_RawChoice]
    object: Raw | None = None
    id: Raw | None = None
    model: Raw | None = None


_decode_texts = decoder(_Texts)
_decode_reply = decoder(_Reply)
_as_objects = decoder(list[dict[str, Raw]])

_KEY = b'"text"'
_OTHER_KEYS = 100_000  # a token of the answer may look so


class OpenAICompletions:
    """An :class:`~tollway.providers.base.Adapter` for providers that speak OpenAI's dialect."""

    def __init__(self, quirks: Quirks) -> None:
        self._quirks = quirks

    def encode(self, call: CompletionCall, model: str) -> UpstreamRequest | BadRequest:
        """The client's body with the provider's name of the model; a stream is asked for its usage."""
        if call.beyond is not None and self._quirks.openai_ranges:
            return call.beyond
        top: dict[str, object] = {**call.top, "model": model}
        put_stream_options(top, call, self._quirks)
        return UpstreamRequest(_PATH, encode(top))

    def decode(
        self, status: int, headers: Mapping[bytes, bytes], body: bytes, call: CompletionCall
    ) -> ChatResult | UpstreamFailure:
        """The body as it came, if it is a completion as clients take it; else mended, if it can be."""
        return _whole(body, call) if is_good(status) else classify.classify(status, headers, body)

    def classify(self, status: int, headers: Mapping[bytes, bytes], body: bytes) -> UpstreamFailure:
        """Why an answer whose status says so failed."""
        return classify.classify(status, headers, body)

    def decoder(self, call: CompletionCall) -> "CompletionStream":
        """A decoder for one stream."""
        return CompletionStream(call)


def _whole(body: bytes, call: CompletionCall) -> ChatResult | UpstreamFailure:
    if sum(piece.count(_KEY) for piece in slices(body)) > call.n + _OTHER_KEYS:
        return classify.NO_ANSWER
    if len(body) > MAX_SAID_BYTES and _says_too_much(body):
        return classify.NO_ANSWER
    try:
        body = readable(body)
        try:
            reply = _decode_reply(body)
        except UNREADABLE:
            if not may_be_tidied(body):
                raise
            body = tidy.text_reply(body, tidy.missing(call, body))
            reply = _decode_reply(body)
        if len(reply.choices) > call.n + EXTRA_CHOICES:
            return classify.NO_ANSWER
        if any(choice.finish_reason == "error" for choice in reply.choices):
            return classify.gave_up(body)
        if not all(map(_has_reason, reply.choices)):
            body = _with_reasons(body, reply.choices)
    except UNREADABLE:
        return classify.no_answer(body)
    usage = None if reply.usage is UNSET else read_usage(reply.usage)
    if usage is not None:
        usage = with_tier(usage, reply.service_tier)
    said = 0 if usage is not None and usage.output_tokens else sum(size_of(choice.text) for choice in reply.choices)
    return ChatResult(body, usage, said)


def _says_too_much(body: bytes) -> bool:
    """Whether the texts are longer than any answer's, or cannot even be told apart."""
    try:
        texts = _decode_texts(body)
    except UNREADABLE:
        return True
    size = len(texts.object or b"") + len(texts.id or b"") + len(texts.model or b"")
    return size + sum(len(choice.text) + len(choice.finish_reason or b"") for choice in texts.choices) > MAX_SAID_BYTES


def _has_reason(choice: _Choice) -> bool:
    return choice.finish_reason in FINISH_REASONS or real_reason(choice.finish_reason) is not None


def _with_reasons(body: bytes, choices: list[_Choice]) -> bytes:
    if not is_cheap(body, MAX_REPLY_PARTS):
        raise msgspec.ValidationError("too much to mend")
    top = members(body)
    completed = [
        raw if _has_reason(choice) else {**raw, "finish_reason": "stop"}
        for raw, choice in zip(_as_objects(top["choices"]), choices, strict=True)
    ]
    return encode({**top, "choices": completed})


class CompletionStream(PassingStream[CompletionCall, Ending]):
    """Usage is read from the frames, and hidden where it was not asked for."""

    __slots__ = ()

    _decode = staticmethod(decoder(_Chunk))
    _glance = staticmethod(decoder(_Glance))
    _ending = Ending
    _member = "text"
    _silence: ClassVar[object] = ""

    def __init__(self, call: CompletionCall) -> None:
        super().__init__(call, _whole)

    def _tidied(self, data: bytes) -> bytes | None:
        return tidy.text_chunk(data, self._missing(data))

    def _frame(self, chunk: _Glance, data: bytes, name: bytes, frame: bytes) -> bytes:
        choices, usage = chunk.choices, chunk.usage
        if usage:
            self._count(usage, data)
        if not choices or chunk.error is not UNSET or name:
            out = self._special(chunk, data, name, has_choices=bool(choices))
            if out is not None:
                return out
        told = False
        for choice in choices:
            ending = self._endings.get(choice.index) or self._shows_itself(choice.index, data)
            says = size_of(choice.text)
            if says:
                self.content_bytes += says
                self.started = True
            if choice.finish_reason is not None:
                told = True
            elif says and ending.watched:
                ending.said(None)
                self._told()
        return self._shown(data, frame, usage, choices if told else ())

    def _says(self, choice: Mapping[str, Raw]) -> bool:
        return bytes(choice["text"]) != b'""'

    def _left(self) -> list[bytes]:
        return [self._added(0, "\ufffd", None)] if self._halves is not None and self._halves.left else []

    def _frames_of_reply(self, body: bytes) -> bytes:
        return frames_of_text(body, self._call)
