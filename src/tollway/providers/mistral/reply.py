"""Mistral's answers in OpenAI's format. Foreign members go, lists of chunks become text, thinking stays behind."""

from collections.abc import Iterable, Iterator
from typing import Annotated

import msgspec

from tollway.domain.failures import UpstreamFailure
from tollway.domain.usage import Usage
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
from tollway.providers.mistral.content import PART_TYPES, Content, said_in
from tollway.providers.mistral.logprobs import logprobs_of
from tollway.providers.mistral.tools import short_id
from tollway.providers.reasons import real_reason
from tollway.providers.said import said_bytes
from tollway.providers.tool_numbers import MAX_CALLS, real
from tollway.providers.usage import read_usage, tells_cached
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
from tollway.wire.json import UNREADABLE, UNSET, Raw, Unset, decoder, encode, is_null

_FINISH = {"model_length": "length"}
_TIERS = {"standard": "default", "priority": "priority"}


LONGEST_NAME = 256
"""Characters of an answer's id or of a model's name; they stand in every chunk of a stream."""


_SAID_FIRST = 64 * 1024
"""Bytes of an answer that its id follows from where it has none."""


class ReceivedFunction(msgspec.Struct, gc=False):
    """Mistral's own models give the arguments as text. The object that its schema allows, too, is tidied into one."""

    name: str | None = None
    arguments: str | None = None


class ReceivedCall(msgspec.Struct, gc=False):
    """A tool call, or in a stream perhaps a piece of one."""

    function: ReceivedFunction
    id: str | None = None
    index: int | None = None
    # where servers forget the function around them; what is here is read a second time (``tidy.py``)
    name: Unset | None = UNSET
    arguments: Unset | None = UNSET


class _Message(msgspec.Struct, gc=False):
    content: Content = None
    tool_calls: Annotated[list[ReceivedCall], msgspec.Meta(max_length=MAX_CALLS)] | None = None
    refusal: str | None = None
    role: str | None = None


class _Choice(msgspec.Struct, gc=False):
    index: Index = 0
    message: _Message | None = None
    messages: list[_Message] | None = None
    finish_reason: str | None = None
    logprobs: Raw | Unset = UNSET


class _Reply(msgspec.Struct, gc=False):
    choices: Annotated[list[_Choice], msgspec.Meta(min_length=1, max_length=MAX_CHOICES)]
    id: str = ""
    created: int = 0
    model: str = ""
    usage: Raw | Unset = UNSET


class _Tier(msgspec.Struct, gc=False):
    service_tier: str | None = None


class _FewSaid(msgspec.Struct, gc=False):
    content: Raw | Unset = UNSET
    tool_calls: at_most(Raw, MAX_CALLS) | None = None  # type: ignore[valid-type]  # made here


class _FewChoice(msgspec.Struct, gc=False):
    message: _FewSaid | None = None
    messages: Raw | Unset = UNSET


class _FewChoices(msgspec.Struct, gc=False):
    choices: at_most(_FewChoice, MAX_CHOICES)  # type: ignore[valid-type]  # made here


class _Logs(msgspec.Struct, gc=False):
    logprobs: Raw | Unset = UNSET


class _LogsOfChoices(msgspec.Struct, gc=False):
    choices: at_most(_Logs, MAX_CHOICES)  # type: ignore[valid-type]  # made here


_decode_logs = decoder(_LogsOfChoices)
_decode = decoder(_Reply)
_decode_few = decoder(_FewChoices)
_as_tier = decoder(_Tier)


def whole(body: bytes, call: ChatCall) -> ChatResult | UpstreamFailure:
    """A complete answer."""
    try:
        try:
            reply = _decode(body) if len(body) <= ALWAYS_CHEAP else _decode_large(body)
        except UNREADABLE:
            reply = _second_reading(body, call)
    except UNREADABLE:
        return classify.no_answer(body)
    if len(reply.choices) > call.n + EXTRA_CHOICES:
        return classify.NO_ANSWER
    choices: list[Choice] = []
    warnings: list[str] = []
    for received in reply.choices:
        if received.finish_reason == "error":
            return classify.gave_up(body)
        message = _last_said(received)
        if message is None:
            return classify.NO_ANSWER
        said = _message(message, call, f"{reply.id}:{received.index}", warnings)
        told = received.finish_reason
        if told != "stop":
            told = real_reason(told) or ("tool_calls" if message.tool_calls else "stop")
            warnings += reason_warnings(told)
        reason = finish_reason(told, call)
        choices.append(Choice(received.index, said, logprobs_of(received.logprobs), reason))
    usage, shown = counted(reply.usage)
    completion = Completion(
        id=answer_id(reply.id, body),
        created=reply.created or call.created,
        model=model_name(reply.model, call),
        choices=choices,
        usage=shown,
        service_tier=_service_tier(reply.usage, call),
    )
    out = encode(completion)
    size = 0 if usage is not None and usage.output_tokens else said_bytes(out)
    return ChatResult(out, usage, size, once(warnings))


def _decode_large(body: bytes) -> _Reply:
    """Raises UNREADABLE for an answer that would take long to take apart, log probabilities not counted."""
    if len(body) > MAX_SAID_BYTES:
        logs = sum(len(raw) for raw in map(_logprobs, msgspec.structs.astuple(_decode_logs(body).choices)) if raw)
        if len(body) - logs > MAX_SAID_BYTES:
            raise msgspec.ValidationError("more than any answer says")
    if not is_cheap(body, MAX_REPLY_PARTS):
        for choice in msgspec.structs.astuple(_decode_few(body).choices):
            if choice is not UNSET and not all(map(_is_cheap, _contents(choice))):
                raise msgspec.ValidationError("too much to take apart")
    return _decode(body)


def _logprobs(choice: _Logs | Unset) -> Raw | Unset:
    return UNSET if isinstance(choice, Unset) else choice.logprobs


def _contents(choice: _FewChoice) -> Iterator[Raw | Unset]:
    yield choice.messages
    if choice.message is not None:
        yield choice.message.content


def _is_cheap(raw: Raw | Unset) -> bool:
    return isinstance(raw, Unset) or is_cheap(bytes(raw), MAX_REPLY_PARTS)


def _second_reading(body: bytes, call: ChatCall) -> _Reply:
    """May raise UNREADABLE."""
    if not may_be_tidied(body):
        raise msgspec.ValidationError("too much to take apart")
    body = readable(body)
    otherwise = tidy.missing(call, body)._replace(answer_id="", model="")
    return _decode(tidy.chat_reply(body, otherwise, parts=PART_TYPES))


def counted(raw: Raw | Unset) -> tuple[Usage | None, TokenCounts | Unset]:
    """The usage, and the usage object for the client: neither where the provider's cannot be believed."""
    if isinstance(raw, Unset):
        return None, UNSET
    usage = read_usage(raw)
    if usage is None:
        return None, UNSET
    return usage, token_counts(usage, cached_told=tells_cached(raw)) if usage.measured else UNSET


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
            id=real(tool_call.id) or short_id(f"{where}:{index}"),
            type="function",
            function=CalledFunction(tool_call.function.name or "", tool_call.function.arguments or ""),
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
    """The provider's id in OpenAI's form; where there is none of any sense, one that follows from what was said."""
    fits = given and len(given) <= LONGEST_NAME
    return ID_PREFIX + (given if fits else short_id(given or data[:_SAID_FIRST].decode("utf-8", "replace")))


def model_name(given: str, call: ChatCall) -> str:
    """The provider's name for its model; where there is none of any sense, the client's."""
    return given if given and len(given) <= LONGEST_NAME else call.model
