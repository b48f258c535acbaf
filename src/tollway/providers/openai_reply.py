"""Whole chat answers in OpenAI's own dialect: bytes pass as they are, unless client libraries could not take them."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import msgspec

from tollway.domain.failures import UpstreamFailure
from tollway.providers import classify, tidy
from tollway.providers.base import ChatResult
from tollway.providers.bounds import (
    ALWAYS_CHEAP,
    EXTRA_CHOICES,
    MAX_CHOICES,
    MAX_REPLY_PARTS,
    MAX_SAID_BYTES,
    Index,
    at_most,
    is_cheap,
    may_be_tidied,
    readable,
)
from tollway.providers.chunk_repairs import Said, ToolCall, answer_id, made_up_id, raw_text
from tollway.providers.reasons import real_reason
from tollway.providers.said import said_bytes
from tollway.providers.service_tier import with_tier
from tollway.providers.tool_numbers import MAX_CALLS, real
from tollway.providers.usage import FullCounts, read_usage, usage_of
from tollway.wire.chat_answer import FINISH_REASONS
from tollway.wire.chat_request import ChatCall
from tollway.wire.json import UNREADABLE, UNSET, Raw, Unset, decoder, encode, is_null, members


class _Choice(msgspec.Struct, gc=False):
    index: Index
    message: Said
    finish_reason: str | None = None


class _Reply(msgspec.Struct, gc=False):
    choices: Annotated[list[_Choice], msgspec.Meta(min_length=1, max_length=MAX_CHOICES)]
    object: str = ""
    id: str = ""
    created: int = 0
    model: str = ""


class _Counted(_Reply, gc=False):
    usage: FullCounts | None = None
    service_tier: Literal["default"] | None = None


class _Uncounted(_Reply, gc=False):
    usage: Raw | Unset = UNSET
    service_tier: Raw | Unset = UNSET


class _FewCalls(msgspec.Struct, gc=False):
    tool_calls: at_most(Raw, MAX_CALLS) | None = None  # type: ignore[valid-type]  # made here


class _FewChoice(msgspec.Struct, gc=False):
    message: _FewCalls


class _FewChoices(msgspec.Struct, gc=False):
    choices: at_most(_FewChoice, MAX_CHOICES)  # type: ignore[valid-type]  # made here


class _SaidRaw(msgspec.Struct, gc=False):
    content: Raw | Unset = UNSET
    reasoning_content: Raw | Unset = UNSET
    reasoning: Raw | Unset = UNSET
    refusal: Raw | Unset = UNSET
    tool_calls: Raw | Unset = UNSET
    function_call: Raw | Unset = UNSET


class _RawChoice(msgspec.Struct, gc=False):
    message: _SaidRaw
    finish_reason: Raw | Unset = UNSET


class _Texts(msgspec.Struct, gc=False):
    """Where an answer has the texts that are taken apart."""

    choices: at_most(_RawChoice, MAX_CHOICES)  # type: ignore[valid-type]  # made here
    object: Raw | Unset = UNSET
    id: Raw | Unset = UNSET
    model: Raw | Unset = UNSET


_decode_texts = decoder(_Texts)
_decode_counted = decoder(_Counted)
_decode = decoder(_Uncounted)
_decode_few = decoder(_FewChoices)
_as_objects = decoder(list[dict[str, Raw]])


def whole(body: bytes, call: ChatCall) -> ChatResult | UpstreamFailure:
    """A complete answer."""
    try:
        if len(body) <= ALWAYS_CHEAP and body.isascii():
            counted = _decode_counted(body)  # nearly every answer
            choice = counted.choices[0]
            if (
                choice.finish_reason == "stop"
                and counted.usage is not None
                and counted.usage.completion_tokens
                and len(counted.choices) == 1
                and choice.message.tool_calls is None
                and choice.message.function_call is None
                and (usage := usage_of(counted.usage)) is not None
            ):
                return ChatResult(body, usage)
    except UNREADABLE:
        pass
    return _second_reading(body, call)


def _second_reading(body: bytes, call: ChatCall) -> ChatResult | UpstreamFailure:
    if len(body) > MAX_SAID_BYTES and _says_too_much(body):
        return classify.NO_ANSWER
    try:
        body = readable(body)
        if not is_cheap(body):
            _check(body)
        try:
            reply = _decode(body)
        except UNREADABLE:
            if not may_be_tidied(body):
                raise
            body = tidy.chat_reply(body, tidy.missing(call, body))
            reply = _decode(body)
        if len(reply.choices) > call.n + EXTRA_CHOICES:
            return classify.NO_ANSWER
        for choice in reply.choices:
            if choice.finish_reason == "error":
                return classify.gave_up(body)
        if not all(map(_is_right, reply.choices)):
            body = _mended(body, reply.choices)
    except UNREADABLE:
        return classify.no_answer(body)
    usage = None if reply.usage is UNSET else read_usage(reply.usage)
    if usage is not None:
        usage = with_tier(usage, reply.service_tier)
    return ChatResult(body, usage, 0 if usage is not None and usage.output_tokens else said_bytes(body))


def _says_too_much(body: bytes) -> bool:
    """Whether the texts are longer than any answer's, or cannot even be told apart."""
    try:
        texts = _decode_texts(body)
    except UNREADABLE:
        return True
    size = _size(texts)
    for choice in msgspec.structs.astuple(texts.choices):
        if isinstance(choice, _RawChoice):
            size += _size(choice) + _size(choice.message)
    return size > MAX_SAID_BYTES


def _size(texts: msgspec.Struct) -> int:
    return sum(len(text) for text in msgspec.structs.astuple(texts) if isinstance(text, Raw))


def _check(body: bytes) -> None:
    """Raises UNREADABLE for an answer that would take long to take apart."""
    try:
        _decode_few(body)
    except UNREADABLE:
        if not is_cheap(body, MAX_REPLY_PARTS):
            raise


def _is_right(choice: _Choice) -> bool:
    said = choice.message
    reason = choice.finish_reason
    if reason not in FINISH_REASONS and (reason == "error" or real_reason(reason) is None):
        return False
    if said.function_call is not None and not isinstance(said.function_call.arguments, str):
        return False
    if said.tool_calls is None:
        return True
    return len(said.tool_calls) <= MAX_CALLS and all(map(_is_right_call, said.tool_calls))


def _is_right_call(call: ToolCall) -> bool:
    kind = real(call.type)
    if real(call.id) is None or kind is None:
        return False
    function = call.function
    if kind != "function":
        return True
    return function is not None and isinstance(function.name, str) and isinstance(function.arguments, str)


def _mended(body: bytes, choices: Sequence[_Choice]) -> bytes:
    """The answer with reasons to end, ids, types and arguments where they are missing. May raise UNREADABLE."""
    if not is_cheap(body, MAX_REPLY_PARTS):
        raise msgspec.ValidationError("too much to mend")
    top = members(body)
    where = answer_id(top)
    mended = [
        raw if _is_right(choice) else _mended_choice(raw, choice, f"{where}:{choice.index}")
        for raw, choice in zip(_as_objects(top["choices"]), choices, strict=True)
    ]
    return encode({**top, "choices": mended})


def _mended_choice(raw: Mapping[str, Raw], choice: _Choice, where: str) -> dict[str, object]:
    given = members(raw["message"])
    message: dict[str, object] = {**given}
    usual = "stop"
    if choice.message.tool_calls:
        usual = "tool_calls"
        if len(choice.message.tool_calls) > MAX_CALLS:
            raise msgspec.ValidationError("more calls than any answer has")
        calls = enumerate(_as_objects(given["tool_calls"]))
        message["tool_calls"] = [_mended_call(piece, f"{where}", number) for number, piece in calls]
    elif choice.message.function_call is not None:
        usual = "function_call"
        message["function_call"] = _mended_function(members(given["function_call"]))
    return {**raw, "message": message, "finish_reason": real_reason(choice.finish_reason) or usual}


def _mended_call(given: Mapping[str, Raw], where: str, number: int) -> dict[str, object]:
    call: dict[str, object] = {**given}
    if "id" not in given or real(raw_text(given["id"])) is None:
        call["id"] = made_up_id(where, number)
    if "type" not in given or real(raw_text(given["type"])) is None:
        call["type"] = "function" if "custom" not in given else "custom"
    if call["type"] == "function" or "function" in given:
        raw = given.get("function")
        call["function"] = _mended_function({} if raw is None or is_null(raw) else members(raw))
    return call


def _mended_function(given: Mapping[str, Raw]) -> dict[str, object]:
    """A call with a name and with arguments, as texts."""
    missing = {name: "" for name in ("name", "arguments") if name not in given or is_null(given[name])}
    return {**given, **missing}
