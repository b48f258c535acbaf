"""Mistral as a provider of embeddings.

1. Mistral takes fewer inputs at once than OpenAI: a longer call goes in parts, whose answers are joined again.
2. Mistral is always asked for numbers; who wants them in base64 gets them encoded here (``vectors.py``).
3. Numbers that pass keep their digits.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from tollway.domain.failures import UpstreamFailure
from tollway.domain.refusals import BadRequest
from tollway.domain.usage import Usage
from tollway.providers import classify, vectors
from tollway.providers.base import ChatResult, UpstreamRequest, is_good
from tollway.providers.bounds import MAX_ODD_BYTES
from tollway.providers.mistral.draft import Draft, unsupported, unsupported_value
from tollway.providers.mistral.parameters import Rule, Verb, elsewhere, put_parameters
from tollway.providers.unstreamed import Unstreamed
from tollway.providers.usage import read_input_usage
from tollway.providers.vectors import UNENCODABLE, Vector, all_as_asked
from tollway.wire.embeddings_request import EmbeddingsCall
from tollway.wire.estimate import BYTES_PER_TOKEN
from tollway.wire.json import UNREADABLE, UNSET, Raw, Unset, decoder, encode, is_text, is_utf8

MAX_INPUTS = 512
"""Mistral refuses more of them in one request."""

MAX_BYTES = 12_000 * BYTES_PER_TOKEN
"""Of all inputs in one request. Mistral refuses more than 16,384 tokens, and some languages have a third more of them
than we estimate."""

_PATH = b"/embeddings"


class MistralEmbeddings(Unstreamed):
    """A :class:`~tollway.providers.base.SplittingAdapter` for Mistral."""

    def encode(self, call: EmbeddingsCall, model: str) -> UpstreamRequest | BadRequest:
        """The request made anew from what Mistral knows, in as many parts as it has to be."""
        draft = Draft(call, model)
        if call.tokens:
            return unsupported("input", "in tokens instead of text is not supported")
        if refusal := put_parameters(draft, RULES) or draft.refusal:
            return refusal
        draft.body["encoding_format"] = "float"
        is_bare = is_text(call.top["input"])
        first, *further = [encode({**draft.body, "input": part[0] if is_bare else part}) for part in _parts(call)]
        return UpstreamRequest(_PATH, first, tuple(draft.warnings), tuple(further))

    def decode(
        self, status: int, headers: Mapping[bytes, bytes], body: bytes, call: EmbeddingsCall
    ) -> ChatResult | UpstreamFailure:
        """The answer to one part in OpenAI's format, its embeddings counted from 0."""
        return _whole(body, call) if is_good(status) else classify.classify(status, headers, body)

    def join(self, results: Sequence[ChatResult]) -> ChatResult:
        """One answer, the embeddings counted through; its usage is known if that of every part is."""
        if len(results) == 1:
            return results[0]
        parts = [_decode_own(result.body) for result in results]
        data = [item for part in parts for item in part.data]
        for index, item in enumerate(data):
            item.index = index
        known = [result.usage.input_tokens for result in results if result.usage is not None]
        usage = Usage(sum(known), 0) if len(known) == len(results) else None
        return _result(data, parts[0].model, usage)


# --- the request --------------------------------------------------------------------------------------------

_as_text = decoder(str)
_as_raws = decoder(list[Raw])


def _parts(call: EmbeddingsCall) -> list[list[Raw]]:
    """The inputs of each request."""
    raw = call.top["input"]
    parts: list[list[Raw]] = [[]]
    room = MAX_BYTES
    for text in [raw] if is_text(raw) else _as_raws(raw):
        if parts[-1] and (len(parts[-1]) == MAX_INPUTS or len(text) > room):
            parts.append([])
            room = MAX_BYTES
        parts[-1].append(text)
        room -= len(text)
    return parts


def _dimensions(raw: Raw, draft: Draft) -> None:
    draft.body["output_dimension"] = raw


def _encoding_format(raw: Raw, draft: Draft) -> BadRequest | None:
    name = _as_text(raw)
    return None if name in ("float", "base64") else unsupported_value("encoding_format", name)


def _output_dtype(raw: Raw, _: Draft) -> BadRequest | None:
    name = _as_text(raw)
    return None if name == "float" else unsupported_value("output_dtype", name)


RULES: Mapping[str, Rule] = {
    "model": Rule(Verb.MAP, "the provider's name of the model", elsewhere),
    "input": Rule(Verb.MAP, "text only; more than 512 go in parts", elsewhere),
    "dimensions": Rule(Verb.MAP, "output_dimension", _dimensions),
    "encoding_format": Rule(Verb.MAP, "always float; the gateway itself encodes base64", _encoding_format),
    "user": Rule(Verb.DROP),
    # Mistral's own, for clients that know whom they talk to
    "output_dtype": Rule(Verb.REFUSE, "float: dropped; others are not OpenAI's format", _output_dtype),
    "metadata": Rule(Verb.PASS),
}
"""The whole of OpenAI's embeddings request."""


# --- the answer ---------------------------------------------------------------------------------------------


class _Received(msgspec.Struct, gc=False):
    data: list[Vector]
    model: str = ""
    usage: Raw | Unset = UNSET


class _Item(msgspec.Struct, gc=False, kw_only=True):
    object: Literal["embedding"] = "embedding"
    index: int
    embedding: Raw


class _Counts(msgspec.Struct, gc=False):
    prompt_tokens: int
    total_tokens: int


class _Embeddings(msgspec.Struct, gc=False, kw_only=True):
    object: Literal["list"] = "list"
    data: list[_Item]
    model: str
    usage: _Counts | Unset = UNSET


_decode_received = decoder(_Received)
_decode_own = decoder(_Embeddings)


def _whole(body: bytes, call: EmbeddingsCall) -> ChatResult | UpstreamFailure:
    try:
        try:
            received = _decode_received(body)
        except UNREADABLE:
            if len(body) > MAX_ODD_BYTES:
                raise
            body = vectors.tidy(body, call.model)
            received = _decode_received(body)
    except UNREADABLE:
        return classify.no_answer(body)
    found = sorted(received.data, key=lambda vector: vector.index or 0)  # stable: some servers do not count
    if len(found) not in map(len, _parts(call)) or not is_utf8(body):
        return classify.NO_ANSWER
    try:
        shown = all_as_asked([vector.embedding for vector in found], call.encoding_format)
    except UNENCODABLE:
        return classify.NO_ANSWER
    data = [_Item(index=index, embedding=embedding) for index, embedding in enumerate(shown)]
    return _result(data, received.model or call.model, read_input_usage(received.usage))


def _result(data: list[_Item], model: str, usage: Usage | None) -> ChatResult:
    counts = UNSET if usage is None else _Counts(usage.input_tokens, usage.total_tokens)
    return ChatResult(encode(_Embeddings(data=data, model=model, usage=counts)), usage)
