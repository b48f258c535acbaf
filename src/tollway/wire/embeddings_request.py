"""A client's request for embeddings: judged once, and kept as it came for the provider."""

from typing import Annotated

import msgspec

from tollway.domain.refusals import BadRequest
from tollway.wire.json import decoder
from tollway.wire.model_call import ModelCall
from tollway.wire.request_body import read_body
from tollway.wire.tokens import Texts, count, is_tokens, mixed, size

OPENAI_INPUTS = 2_048
"""OpenAI's own limit for one request."""

MAX_INPUTS = 16_384
"""Of one request to anybody: what the gateway holds of an answer is some objects for each."""


class EmbeddingsCall(ModelCall, frozen=True, gc=False, kw_only=True):
    """One request for the embeddings of some inputs."""

    inputs: int
    """How many embeddings are asked for."""
    tokens: bool
    """The inputs are tokens of one model's, not text."""
    encoding_format: str
    """How the client wants its numbers: ``float``, ``base64``, or what else its provider may know."""


class _Parameters(msgspec.Struct, gc=False):
    model: str
    input: Texts
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] | None = None
    encoding_format: str | None = None
    user: str | None = None


_decode_parameters = decoder(_Parameters)


def parse_embeddings(body: bytes, now_unix: int = 0) -> EmbeddingsCall | BadRequest:
    """The call that these bytes ask for, or what is wrong with them. Never raises."""
    read = read_body(body, _decode_parameters)
    if isinstance(read, BadRequest):
        return read
    known, top = read
    texts = known.input
    if not texts:
        return BadRequest("Invalid 'input': it is empty.", "input", "invalid_value")
    if refusal := mixed(texts, "input"):
        return refusal
    inputs = count(texts)
    if inputs > MAX_INPUTS:
        return _too_many(inputs, MAX_INPUTS)
    beyond = _too_many(inputs, OPENAI_INPUTS) if inputs > OPENAI_INPUTS else None
    return EmbeddingsCall(
        model=known.model,
        max_output_tokens=0,
        prompt_bytes=size(texts, top["input"]),
        inputs=inputs,
        tokens=is_tokens(texts),
        encoding_format=known.encoding_format or "float",
        created=now_unix,
        beyond=beyond,
        top=top,
    )


def _too_many(inputs: int, most: int) -> BadRequest:
    return BadRequest(f"Invalid 'input': {inputs} inputs, at most {most}.", "input", "array_above_max_length")
