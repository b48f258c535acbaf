"""Legacy completions in OpenAI's own dialect: bytes pass as they are, the gateway only looks on."""

from collections.abc import Mapping
from typing import Annotated

import msgspec

from tollway.domain.failures import UpstreamFailure
from tollway.domain.refusals import BadRequest
from tollway.providers import classify
from tollway.providers.base import ChatResult, UpstreamRequest
from tollway.providers.openai import (
    UsageAtTheEnd,
    put_stream_options,
    with_null_usage,
    without_line_ends,
    without_usage,
)
from tollway.providers.quirks import Quirks
from tollway.providers.usage import read_usage
from tollway.wire.completion_answer import frames_of_text
from tollway.wire.completion_request import CompletionCall
from tollway.wire.json import UNREADABLE, UNSET, Raw, Unset, decoder, encode, is_null, is_text, is_utf8

_PATH = b"/completions"


class _Choice(msgspec.Struct, gc=False):
    text: Raw | Unset = UNSET
    index: int = 0
    finish_reason: str | None = None


class _Reply(msgspec.Struct, gc=False):
    choices: Annotated[list[_Choice], msgspec.Meta(min_length=1)]
    usage: Raw | Unset = UNSET


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] = []
    usage: Raw | Unset = UNSET
    error: Raw | Unset = UNSET
    object: str = ""


_decode_reply = decoder(_Reply)
_decode_chunk = decoder(_Chunk)


class OpenAICompletions:
    """An :class:`~tollway.providers.base.Adapter` for providers that speak OpenAI's dialect."""

    def __init__(self, quirks: Quirks) -> None:
        self._quirks = quirks

    def encode(self, call: CompletionCall, model: str) -> UpstreamRequest | BadRequest:
        """The client's body with the provider's name of the model; a stream is asked for its usage."""
        top: dict[str, object] = {**call.top, "model": model}
        put_stream_options(top, call, self._quirks)
        return UpstreamRequest(_PATH, encode(top))

    def decode(
        self, status: int, headers: Mapping[bytes, bytes], body: bytes, call: CompletionCall
    ) -> ChatResult | UpstreamFailure:
        """The body as it came, if it is a completion at all."""
        return _whole(body, call) if status == 200 else classify.classify(status, headers, body)

    def classify(self, status: int, headers: Mapping[bytes, bytes], body: bytes) -> UpstreamFailure:
        """Why an answer with another status than 200 failed."""
        return classify.classify(status, headers, body)

    def decoder(self, call: CompletionCall) -> "CompletionStream":
        """A decoder for one stream."""
        return CompletionStream(call)


def _whole(body: bytes, _: CompletionCall) -> ChatResult | UpstreamFailure:
    try:
        reply = _decode_reply(body)
    except UNREADABLE:
        return classify.no_answer(body)
    if not is_utf8(body):
        return classify.NO_ANSWER
    usage = None if reply.usage is UNSET else read_usage(reply.usage)
    return ChatResult(body, usage, 0 if usage else sum(map(_said_bytes, reply.choices)))


class CompletionStream(UsageAtTheEnd[CompletionCall]):
    """Usage is read from the frames, and hidden where it was not asked for."""

    __slots__ = ()

    def __init__(self, call: CompletionCall) -> None:
        super().__init__(call, _whole)

    def _frame(self, data: bytes, name: bytes) -> bytes:
        chunk = _decode_chunk(data)
        usage = None if chunk.usage is UNSET or is_null(chunk.usage) else chunk.usage
        if usage is not None:
            self.usage = read_usage(usage) or self.usage
        marked = name == b"error" or chunk.object == "error" or classify.is_problem(chunk.error)
        if (marked or not chunk.choices) and self._fails(data, marked=marked, alone=chunk.usage is UNSET):
            return b""
        for choice in chunk.choices:
            said = _said_bytes(choice)
            self.content_bytes += said
            self.started = self.started or said > 0 or choice.finish_reason is not None
            if choice.finish_reason is not None:
                self._end_choice(choice.index)
        if not chunk.choices:  # usage, or a remark without an answer in it
            self._totals = self._totals if usage is None else data
            return b""
        if chunk.usage is not UNSET and not self._call.include_usage:
            data = without_usage(data)
        elif usage is not None:
            data = self._with_usage_apart(data)
        elif chunk.usage is UNSET and self._call.include_usage:
            data = with_null_usage(data)
        return b"data: %b\n\n" % without_line_ends(data)

    def _frames_of_reply(self, body: bytes) -> bytes:
        return frames_of_text(body, self._call)


def _said_bytes(choice: _Choice) -> int:
    text = choice.text
    return len(text) - 2 if isinstance(text, Raw) and is_text(text) else 0  # without the quotes
