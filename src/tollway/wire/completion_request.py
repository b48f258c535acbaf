"""A client's request to the legacy completions: judged once, and kept as it came for the provider."""

from typing import Annotated

import msgspec

from tollway.domain.refusals import BadRequest
from tollway.wire.json import Object, Raw, decoder
from tollway.wire.model_call import (
    AnyStop,
    Choices,
    Count,
    ModelCall,
    Penalty,
    Seed,
    Stop,
    StreamOptions,
    Temperature,
    TopP,
)
from tollway.wire.request_body import read_beyond, read_body
from tollway.wire.tokens import Texts, count, mixed, size

MAX_PROMPTS = 2_048
"""Each is an answer of its own, or several."""


class CompletionCall(ModelCall, frozen=True, gc=False, kw_only=True):
    """One request to continue a text. ``n`` counts for all prompts together, and what ``best_of`` throws away too."""


class _Parameters(msgspec.Struct, gc=False):
    """Every parameter of OpenAI's completions request with its type and the range that holds for all providers."""

    model: str
    prompt: Texts | None
    suffix: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    n: Choices | None = None
    best_of: Annotated[int, msgspec.Meta(ge=0, le=128)] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, msgspec.Meta(ge=0)] | None = None
    logit_bias: Object | None = None
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    stop: AnyStop | None = None
    seed: Seed | None = None
    user: str | None = None


class _WithinOpenAIs(_Parameters, gc=False):
    """The same with the ranges of OpenAI itself."""

    best_of: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    stop: Stop | None = None


_decode_within = decoder(_WithinOpenAIs)
_decode_beyond = decoder(_Parameters)


def parse_completion(body: bytes, now_unix: int = 0) -> CompletionCall | BadRequest:
    """The call that these bytes ask for, or what is wrong with them. Never raises."""
    read: tuple[_Parameters, dict[str, Raw]] | BadRequest = read_body(body, _decode_within)
    beyond = None
    if isinstance(read, BadRequest):
        beyond, read = read, read_beyond(body, read, _decode_beyond)
        if isinstance(read, BadRequest):
            return read
    known, top = read
    prompt = known.prompt
    if prompt is not None and (refusal := mixed(prompt, "prompt")):
        return refusal
    prompts = 1 if prompt is None else count(prompt)
    if prompts > MAX_PROMPTS:
        text = f"Invalid 'prompt': {prompts} prompts, at most {MAX_PROMPTS}."
        return BadRequest(text, "prompt", "array_above_max_length")
    prompt_bytes = 0 if prompt is None else size(prompt, top["prompt"])
    options = known.stream_options
    return CompletionCall(
        model=known.model,
        stream=known.stream is True,
        include_usage=options is not None and options.include_usage is True,
        max_output_tokens=known.max_tokens,
        n=prompts * max(known.n or 1, known.best_of or 1),
        prompt_bytes=prompt_bytes + (0 if known.suffix is None else len(top["suffix"])),
        created=now_unix,
        beyond=beyond,
        top=top,
    )
