"""Mistral's answers in OpenAI's format. Foreign members go, lists of chunks become text, thinking stays behind."""

from typing import TypeAlias

import msgspec

from tollway.domain.failures import FailureKind, UpstreamFailure
from tollway.providers import classify
from tollway.providers.base import ChatResult
from tollway.providers.mistral.tools import short_id
from tollway.providers.usage import read_usage, said_bytes
from tollway.wire.chat_answer import (
    FINISH_REASONS,
    ID_PREFIX,
    CalledFunction,
    Choice,
    Completion,
    Message,
    ToolCall,
    token_counts,
)
from tollway.wire.chat_request import ChatCall
from tollway.wire.json import UNREADABLE, UNSET, Raw, Unset, decoder, encode, is_text

FAILED = UpstreamFailure(FailureKind.INVALID, "The provider gave up in the middle of its answer.", 200)

_EMPTY_IDS = frozenset({None, "", "null"})  # "null" is what Mistral's schema fills in
_FINISH = {"model_length": "length"}
_TIERS = {"standard": "default", "priority": "priority"}


class Part(msgspec.Struct, gc=False):
    """A chunk of content. Only ``text`` is for the reader; thinking, references and the like are left out."""

    type: str
    text: str = ""


Content: TypeAlias = str | list[Part] | None


class ReceivedFunction(msgspec.Struct, gc=False):
    """Mistral's own models give the arguments as text, its schema allows an object."""

    name: str | None = None
    arguments: Raw | Unset = UNSET


class ReceivedCall(msgspec.Struct, gc=False):
    """A tool call, or in a stream perhaps a piece of one."""

    function: ReceivedFunction
    id: str | None = None
    index: int | None = None


class _Message(msgspec.Struct, gc=False):
    content: Content = None
    tool_calls: list[ReceivedCall] | None = None
    role: str | None = None


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    message: _Message | None = None
    messages: list[_Message] | None = None
    finish_reason: str | None = None


class _Reply(msgspec.Struct, gc=False):
    choices: list[_Choice]
    id: str = ""
    created: int = 0
    model: str = ""
    usage: Raw | Unset = UNSET


class _Tier(msgspec.Struct, gc=False):
    service_tier: str | None = None


_decode = decoder(_Reply)
_as_tier = decoder(_Tier)


def whole(body: bytes, call: ChatCall) -> ChatResult | UpstreamFailure:
    """A complete answer."""
    try:
        reply = _decode(body)
    except UNREADABLE:
        return classify.no_answer(body)
    if not reply.choices:
        return classify.NO_ANSWER
    choices = []
    for received in reply.choices:
        if received.finish_reason == "error":
            return FAILED
        message = _last_said(received)
        if message is None:
            return classify.NO_ANSWER
        said = _message(message, call, f"{reply.id}:{received.index}")
        choices.append(Choice(received.index, said, finish_reason(received.finish_reason or "stop")))
    usage = None if reply.usage is UNSET else read_usage(reply.usage)
    completion = Completion(
        id=ID_PREFIX + reply.id,
        created=reply.created or call.created,
        model=reply.model or call.model,
        choices=choices,
        usage=UNSET if usage is None else token_counts(usage),
        service_tier=_service_tier(reply.usage, call),
    )
    out = encode(completion)
    return ChatResult(out, usage, 0 if usage else said_bytes(out))


def text_of(content: Content) -> str:
    """What the reader is meant to read."""
    if isinstance(content, list):
        return "".join([part.text for part in content if part.type == "text"])
    return content or ""


def arguments_of(function: ReceivedFunction) -> str | Raw:
    """The arguments as JSON in a string."""
    arguments = function.arguments
    if arguments is UNSET:
        return ""
    return arguments if is_text(arguments) else bytes(arguments).decode("utf-8", "replace")


def given_id(call: ReceivedCall) -> str | None:
    """The provider's id of a call, if it gave a real one."""
    return None if call.id in _EMPTY_IDS else call.id


def finish_reason(received: str) -> str:
    """Mistral's reason in OpenAI's closed list."""
    reason = _FINISH.get(received, received)
    return reason if reason in FINISH_REASONS else "stop"


def _last_said(choice: _Choice) -> _Message | None:
    """The message, or with built-in tools the assistant's last one of a list."""
    if choice.message is not None:
        return choice.message
    said = [message for message in choice.messages or () if message.role in (None, "assistant")]
    return said[-1] if said else None


def _message(received: _Message, call: ChatCall, where: str) -> Message:
    text = text_of(received.content).removeprefix(call.prefill)
    calls = [
        ToolCall(
            id=given_id(tool_call) or short_id(f"{where}:{index}"),
            type="function",
            function=CalledFunction(tool_call.function.name or "", arguments_of(tool_call.function)),
        )
        for index, tool_call in enumerate(received.tool_calls or ())
    ]
    return Message("assistant", text or (None if calls else ""), tool_calls=calls or UNSET)


def _service_tier(usage: Raw | Unset, call: ChatCall) -> str | Unset:
    if "service_tier" not in call.top or isinstance(usage, Unset):
        return UNSET
    try:
        tier = _as_tier(usage).service_tier
    except UNREADABLE:
        return UNSET
    return _TIERS.get(tier or "", UNSET)
