"""Embeddings and moderations in OpenAI's own dialect: bytes pass as they are, the gateway only looks on."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import msgspec

from tollway.domain.failures import UpstreamFailure
from tollway.domain.refusals import BadRequest
from tollway.domain.usage import Usage
from tollway.providers import classify
from tollway.providers.base import ChatResult, UpstreamRequest
from tollway.providers.unstreamed import Unstreamed
from tollway.providers.usage import read_input_usage
from tollway.wire.embeddings_request import EmbeddingsCall
from tollway.wire.json import UNREADABLE, UNSET, Object, Raw, Unset, decoder, encode, is_utf8
from tollway.wire.moderation_request import ModerationCall

T = TypeVar("T")

FREE = Usage(0, 0)
"""OpenAI counts no tokens for a moderation and asks no money for it."""


class _Embeddings(msgspec.Struct, gc=False):
    data: list[Object]
    usage: Raw | Unset = UNSET


class _Moderations(msgspec.Struct, gc=False):
    results: list[Object]
    usage: Raw | Unset = UNSET


class OpenAIEmbeddings(Unstreamed):
    """A :class:`~tollway.providers.base.SplittingAdapter` for providers that speak OpenAI's dialect."""

    def encode(self, call: EmbeddingsCall, model: str) -> UpstreamRequest | BadRequest:
        """The client's body with the provider's name of the model."""
        return UpstreamRequest(b"/embeddings", encode({**call.top, "model": model}))

    def decode(
        self, status: int, headers: Mapping[bytes, bytes], body: bytes, call: EmbeddingsCall
    ) -> ChatResult | UpstreamFailure:
        """The body as it came, if there are embeddings in it."""
        reply = _read(status, headers, body, _decode_embeddings)
        return reply if isinstance(reply, UpstreamFailure) else ChatResult(body, read_input_usage(reply.usage))

    def join(self, results: Sequence[ChatResult]) -> ChatResult:
        """The only one: OpenAI takes as many inputs at once as a client may send."""
        (result,) = results
        return result


class OpenAIModerations(Unstreamed):
    """An :class:`~tollway.providers.base.Adapter` for providers that speak OpenAI's dialect."""

    def encode(self, call: ModerationCall, model: str) -> UpstreamRequest | BadRequest:
        """The client's body with the provider's name of the model, where the client named one at all."""
        return UpstreamRequest(b"/moderations", encode({**call.top, "model": model} if call.model else call.top))

    def decode(
        self, status: int, headers: Mapping[bytes, bytes], body: bytes, call: ModerationCall
    ) -> ChatResult | UpstreamFailure:
        """The body as it came, if there are judgements in it."""
        reply = _read(status, headers, body, _decode_moderations)
        return reply if isinstance(reply, UpstreamFailure) else ChatResult(body, read_input_usage(reply.usage) or FREE)


_decode_embeddings = decoder(_Embeddings)
_decode_moderations = decoder(_Moderations)


def _read(
    status: int, headers: Mapping[bytes, bytes], body: bytes, decode: Callable[[bytes | Raw], T]
) -> T | UpstreamFailure:
    if status != 200:
        return classify.classify(status, headers, body)
    try:
        reply = decode(body)
    except UNREADABLE:
        return classify.no_answer(body)
    return reply if is_utf8(body) else classify.NO_ANSWER
