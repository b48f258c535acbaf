"""Mistral's log probabilities in OpenAI's format: no token ids, and a list wherever OpenAI has one."""

import msgspec

from tollway.wire.chat_answer import Alternative, Logprobs, TokenLogprob
from tollway.wire.json import UNREADABLE, UNSET, Raw, Unset, decoder, is_null

MAX_BYTES = 32 * 1024 * 1024
"""Of what one choice says about its tokens; a long answer with twenty alternatives for each has some megabytes."""


class _Token(Alternative, gc=False):
    top_logprobs: list[Alternative] | None = None


class _Logprobs(msgspec.Struct, gc=False):
    content: list[_Token]


_decode = decoder(_Logprobs)


def logprobs_of(raw: Raw | Unset) -> Logprobs | None:
    """None where the provider gave none, or none that can be understood."""
    if raw is UNSET or is_null(raw) or len(raw) > MAX_BYTES:
        return None
    try:
        content = _decode(raw).content
    except UNREADABLE:
        return None
    return Logprobs([TokenLogprob(it.token, it.logprob, it.bytes, it.top_logprobs or []) for it in content])
