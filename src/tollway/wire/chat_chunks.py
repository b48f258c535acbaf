"""Frames of a chat stream in OpenAI's format, made from a whole answer: for a provider that was asked for a stream
and gave one object."""

import msgspec

from tollway.wire.json import UNSET, Raw, Unset, decoder, encode
from tollway.wire.model_call import ModelCall

_NULL = Raw(b"null")
_NOT_IN_A_CHUNK = ("choices", "usage", "object")
IN_EACH_CHUNK = ("id", "object", "created", "model", "service_tier", "system_fingerprint")
"""Members that say which answer a chunk belongs to."""

MAX_REPEATED_BYTES = 1024
"""Of one member of an answer that stands in each of its chunks."""


class _Choice(msgspec.Struct, gc=False):
    message: dict[str, Raw]
    index: int = 0
    finish_reason: Raw = _NULL
    logprobs: Raw = _NULL


class _Reply(msgspec.Struct, gc=False):
    choices: list[_Choice]
    usage: Raw | Unset = UNSET


_decode = decoder(_Reply)
_members = decoder(dict[str, Raw])
_tool_calls = decoder(list[dict[str, Raw]] | None)  # type: ignore[arg-type]  # a union is no class


def chunks_of_reply(body: bytes, call: ModelCall) -> bytes:
    """The whole answer, on one line, as frames without ``[DONE]``. Raises UNREADABLE if it is no chat answer."""
    reply = _decode(body)
    head: dict[str, object] = {name: raw for name, raw in _members(body).items() if name not in _NOT_IN_A_CHUNK}
    deltas = [_delta(choice.message) for choice in reply.choices]
    head["object"] = "chat.completion.chunk"
    short = {name: raw for name, raw in head.items() if name in IN_EACH_CHUNK and is_short(raw)}
    no_usage: dict[str, object] = {"usage": None} if call.include_usage else {}
    frames = []
    for choice, delta in zip(reply.choices, deltas, strict=True):
        said = {"index": choice.index, "delta": delta, "logprobs": choice.logprobs, "finish_reason": None}
        ended = {"index": choice.index, "delta": {}, "logprobs": None, "finish_reason": choice.finish_reason}
        frames += [
            frame({**head, "choices": [said], **no_usage}),
            frame({**short, "choices": [ended], **no_usage}),
        ]
        head = short  # all else is told once
    if call.include_usage and reply.usage is not UNSET:
        frames.append(frame({**short, "choices": [], "usage": reply.usage}))
    return b"".join(frames)


def is_short(member: object) -> bool:
    """Whether a member may stand in every chunk."""
    return not isinstance(member, Raw) or len(member) <= MAX_REPEATED_BYTES


def frame(chunk: object) -> bytes:
    """One ``data:`` frame. ``Raw`` in it must be on one line."""
    return b"data: %b\n\n" % encode(chunk)


def _delta(message: dict[str, Raw]) -> dict[str, object]:
    delta: dict[str, object] = {"role": "assistant", **message}
    delta["role"] = "assistant"  # which may be null in a message
    if "tool_calls" in message:
        calls = _tool_calls(message["tool_calls"]) or []
        delta["tool_calls"] = [{"index": index} | {**call, "index": index} for index, call in enumerate(calls)]
    return delta
