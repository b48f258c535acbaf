"""How much a whole answer in OpenAI's format says: to bill it where its provider does not count."""

import msgspec

from tollway.wire.json import UNREADABLE, UNSET, Raw, Unset, decoder, is_null


class _Said(msgspec.Struct, gc=False):
    content: Raw | Unset = UNSET
    reasoning_content: Raw | Unset = UNSET
    reasoning: Raw | Unset = UNSET
    refusal: Raw | Unset = UNSET
    tool_calls: Raw | Unset = UNSET
    function_call: Raw | Unset = UNSET


class _SayingChoice(msgspec.Struct, gc=False):
    message: _Said | None = None


class _SayingReply(msgspec.Struct, gc=False):
    choices: list[_SayingChoice]


_decode_said = decoder(_SayingReply)


def said_bytes(body: bytes) -> int:
    """How many bytes of a whole answer in OpenAI's format are what the model said: to bill it without its usage."""
    try:
        choices = _decode_said(body).choices
    except UNREADABLE:
        return 0
    return sum(_size(choice.message) for choice in choices if choice.message is not None)


def _size(said: _Said) -> int:
    texts = (said.content, said.refusal, said.tool_calls, said.function_call)
    return sum(map(_bytes, texts)) + max(_bytes(said.reasoning_content), _bytes(said.reasoning))  # some send both


def _bytes(raw: Raw | Unset) -> int:
    return 0 if isinstance(raw, Unset) or is_null(raw) else len(raw) - 2  # without the quotes or brackets
