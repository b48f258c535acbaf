"""Embeddings and moderations in OpenAI's own dialect: bytes pass as they are, the gateway only looks on.

An answer has as many items as were asked for, and embeddings are in the encoding that was asked for (``vectors.py``).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import msgspec

from tollway.domain.failures import UpstreamFailure
from tollway.domain.refusals import BadRequest
from tollway.domain.usage import Usage
from tollway.providers import classify, vectors
from tollway.providers.base import ChatResult, UpstreamRequest, is_good
from tollway.providers.bounds import ALWAYS_CHEAP, MAX_ODD_BYTES
from tollway.providers.quirks import USUAL, Quirks
from tollway.providers.tidy import MAX_MENDS_OF_A_REPLY
from tollway.providers.unstreamed import Unstreamed
from tollway.providers.usage import read_input_usage
from tollway.providers.vectors import UNENCODABLE, Vector, all_as_asked, is_as_asked
from tollway.wire.embeddings_request import EmbeddingsCall
from tollway.wire.json import UNREADABLE, UNSET, Object, Raw, Unset, decoder, encode, is_utf8, members
from tollway.wire.loose_json import of_a_body
from tollway.wire.moderation_request import InputPart, ModerationCall
from tollway.wire.stretches import slices

T = TypeVar("T")

FREE = Usage(0, 0)
"""OpenAI counts no tokens for a moderation and asks no money for it."""


MAX_MEMBERS_EACH = 64
"""Of one item in an answer, all objects within it counted: OpenAI's have three, its judgements some forty."""


class _Embeddings(msgspec.Struct, gc=False):
    data: list[Vector]
    usage: Raw | Unset = UNSET
    object: str = ""
    model: str = ""


class _Moderations(msgspec.Struct, gc=False):
    results: list[Object]
    usage: Raw | Unset = UNSET


class OpenAIEmbeddings(Unstreamed):
    """A :class:`~tollway.providers.base.SplittingAdapter` for providers that speak OpenAI's dialect."""

    def __init__(self, quirks: Quirks = USUAL) -> None:
        self._quirks = quirks

    def encode(self, call: EmbeddingsCall, model: str) -> UpstreamRequest | BadRequest:
        """The client's body with the provider's name of the model."""
        if call.beyond is not None and self._quirks.openai_ranges:
            return call.beyond
        return UpstreamRequest(b"/embeddings", encode({**call.top, "model": model}))

    def decode(
        self, status: int, headers: Mapping[bytes, bytes], body: bytes, call: EmbeddingsCall
    ) -> ChatResult | UpstreamFailure:
        """The body as it came, or with its embeddings in the encoding that was asked for."""
        if not is_good(status):
            return self.classify(status, headers, body)
        found = _read(body, _decode_embeddings, call.inputs, lambda odd: vectors.tidy(odd, call.model))
        if isinstance(found, UpstreamFailure):
            return found
        body, reply = found
        if len(reply.data) != call.inputs:
            return classify.NO_ANSWER
        for vector in reply.data:
            if not is_as_asked(vector.embedding, call.encoding_format):
                return _in_another_encoding(body, reply, call.encoding_format)
        return ChatResult(body, read_input_usage(reply.usage))

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
        """The body as it came, if every input is judged in it."""
        inputs = 1 if isinstance(call.input[0], InputPart) else len(call.input)
        if not is_good(status):
            return self.classify(status, headers, body)
        found = _read(body, _decode_moderations, inputs, lambda odd: of_a_body(odd, MAX_MENDS_OF_A_REPLY))
        if isinstance(found, UpstreamFailure):
            return found
        body, reply = found
        if len(reply.results) != inputs:
            return classify.NO_ANSWER
        return ChatResult(body, read_input_usage(reply.usage) or FREE)


_decode_embeddings = decoder(_Embeddings)
_decode_moderations = decoder(_Moderations)
_as_objects = decoder(list[dict[str, Raw]])


def _read(
    body: bytes, decode: Callable[[bytes | Raw], T], items: int, tidy: Callable[[bytes], bytes]
) -> tuple[bytes, T] | UpstreamFailure:
    """The answer, if it has not far more members than so many items can have; what strict types refuse, made tidy."""
    if len(body) > ALWAYS_CHEAP and sum(piece.count(b":") for piece in slices(body)) > MAX_MEMBERS_EACH * (items + 1):
        return classify.NO_ANSWER
    try:
        try:
            reply = decode(body)
        except UNREADABLE:
            if len(body) > MAX_ODD_BYTES:
                raise
            body = tidy(body)
            reply = decode(body)
    except UNREADABLE:
        return classify.no_answer(body)
    return (body, reply) if is_utf8(body) else classify.NO_ANSWER


def _in_another_encoding(body: bytes, reply: _Embeddings, encoding_format: str) -> ChatResult | UpstreamFailure:
    try:
        top = members(body)
        items = _as_objects(top["data"])
        shown = all_as_asked([item["embedding"] for item in items], encoding_format)
    except UNENCODABLE:
        return classify.NO_ANSWER
    data = [{**item, "embedding": embedding} for item, embedding in zip(items, shown, strict=True)]
    return ChatResult(encode({**top, "data": data}), read_input_usage(reply.usage))
