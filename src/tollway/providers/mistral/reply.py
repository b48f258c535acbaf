"""Mistral's answers in OpenAI's format. Foreign members go, lists of chunks become text, thinking stays behind."""

from collections.abc import Iterable

import msgspec

from tollway.domain.failures import UpstreamFailure
from tollway.domain.usage import Usage
from tollway.providers import classify
from tollway.providers.base import ChatResult
from tollway.providers.mistral.content import Content, said_in
from tollway.providers.mistral.logprobs import logprobs_of
from tollway.providers.mistral.tools import short_id
from tollway.providers.tool_numbers import real_id
from tollway.providers.usage import read_usage, said_bytes, tells_cached
from tollway.wire.chat_answer import (
    FINISH_REASONS,
    ID_PREFIX,
    CalledFunction,
    Choice,
    Completion,
    Message,
    TokenCounts,
    ToolCall,
    token_counts,
)
from tollway.wire.chat_request import ChatCall
from tollway.wire.json import UNREADABLE, UNSET, Raw, Unset, decoder, encode, is_null, is_text

_FINISH = {"model_length": "length"}
_TIERS = {"standard": "default", "priority": "priority"}


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
    refusal: str | None = None
    role: str | None = None


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    message: _Message | None = None
    messages: list[_Message] | None = None
    finish_reason: str | None = None
    logprobs: Raw | Unset = UNSET


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
    choices: list[Choice] = []
    warnings: list[str] = []
    for received in reply.choices:
        if received.finish_reason == "error":
            return classify.GAVE_UP
        message = _last_said(received)
        if message is None:
            return classify.NO_ANSWER
        said = _message(message, call, f"{reply.id}:{received.index}", warnings)
        reason = finish_reason(received.finish_reason or "stop", call)
        warnings += reason_warnings(received.finish_reason)
        choices.append(Choice(received.index, said, logprobs_of(received.logprobs), reason))
    usage = None if reply.usage is UNSET else read_usage(reply.usage)
    completion = Completion(
        id=answer_id(reply.id, body),
        created=reply.created or call.created,
        model=reply.model or call.model,
        choices=choices,
        usage=shown_usage(usage, reply.usage),
        service_tier=_service_tier(reply.usage, call),
    )
    out = encode(completion)
    return ChatResult(out, usage, 0 if usage else said_bytes(out), once(warnings))


def shown_usage(usage: Usage | None, raw: Raw | Unset) -> TokenCounts | Unset:
    """The usage object for the client; missing where the provider's could not be believed."""
    if usage is None or isinstance(raw, Unset):
        return UNSET
    return token_counts(usage, cached_told=tells_cached(raw))


def arguments_of(function: ReceivedFunction) -> str | Raw:
    """The arguments as JSON in a string."""
    arguments = function.arguments
    if arguments is UNSET or is_null(arguments):
        return ""
    return arguments if is_text(arguments) else bytes(arguments).decode("utf-8", "replace")


def finish_reason(received: str, call: ChatCall) -> str:
    """Mistral's reason in OpenAI's closed list."""
    if received == "tool_calls" and call.legacy_functions:
        return "function_call"
    reason = _FINISH.get(received, received)
    return reason if reason in FINISH_REASONS else "stop"


def reason_warnings(received: str | None) -> tuple[str, ...]:
    """An unheard-of reason to end is told: what it means is not known."""
    known = received is None or received in _FINISH or received in FINISH_REASONS
    return () if known else ("mapped=finish_reason",)


def once(warnings: Iterable[str]) -> tuple[str, ...]:
    """Each warning once, in order."""
    return tuple(dict.fromkeys(warnings))


def _last_said(choice: _Choice) -> _Message | None:
    """The message, or with built-in tools the assistant's last one of a list."""
    if choice.message is not None:
        return choice.message
    said = [message for message in choice.messages or () if message.role in (None, "assistant")]
    return said[-1] if said else None


def _message(received: _Message, call: ChatCall, where: str, warnings: list[str]) -> Message:
    said = said_in(received.content)
    warnings += said.warnings
    calls = [
        ToolCall(
            id=real_id(tool_call.id) or short_id(f"{where}:{index}"),
            type="function",
            function=CalledFunction(tool_call.function.name or "", arguments_of(tool_call.function)),
        )
        for index, tool_call in enumerate(received.tool_calls or ())
    ]
    text = said.text.removeprefix(call.prefill)
    message = Message("assistant", text or (None if calls or received.refusal else ""), received.refusal)
    if said.thinking and call.show_reasoning:
        message.reasoning_content = said.thinking
    if not calls:
        return message
    if call.legacy_functions:
        message.function_call = calls[0].function
        if len(calls) > 1:
            warnings.append("dropped=tool_calls")
    else:
        message.tool_calls = calls
    return message


def _service_tier(usage: Raw | Unset, call: ChatCall) -> str | Unset:
    asked = call.top.get("service_tier")
    if asked is None or is_null(asked) or isinstance(usage, Unset):
        return UNSET
    try:
        tier = _as_tier(usage).service_tier
    except UNREADABLE:
        return UNSET
    return _TIERS.get(tier or "", UNSET)


def answer_id(given: str, data: bytes) -> str:
    """The provider's id in OpenAI's form; where there is none, one that follows from what was said."""
    return ID_PREFIX + (given or short_id(data.decode("utf-8", "replace")))
