"""A client's chat request: judged once, strictly, and kept as it came for the provider.

The body that goes upstream is made from ``ChatCall.top``: what was judged is what is sent.
"""

from typing import Annotated

import msgspec

from tollway.domain.refusals import BadRequest
from tollway.wire import media
from tollway.wire.chat_messages import Assistant, Image, Message, Messages, Part
from tollway.wire.estimate import MEDIA_BYTES
from tollway.wire.json import UNSET, Object, Raw, Unset, decoder, is_null
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

MAX_TOOLS = 1_000
"""Of one request, functions in the form from before there were tools likewise; OpenAI takes 128."""

_NULL = Raw(b"null")


class ChatCall(ModelCall, frozen=True, gc=False, kw_only=True):
    """One chat request, as far as the gateway needs to know it."""

    prefill: str
    """The text of a trailing assistant message, which the model is to continue; usually empty."""
    messages: list[Message]
    """As they were judged, for dialects that make them anew."""
    bare_images: bool = False
    """A picture is given by its bare address, a client's mistake that Mistral shares and OpenAI does not."""

    @property
    def legacy_functions(self) -> bool:
        """The client speaks of functions in the form from before there were tools, and expects to be answered so."""
        functions, tools = self.top.get("functions", _NULL), self.top.get("tools", _NULL)
        return not is_null(functions) and is_null(tools)


class _FunctionDefinition(msgspec.Struct, gc=False):
    name: str
    description: str | None = None
    parameters: Object | None = None
    strict: bool | None = None


class _ToolDefinition(msgspec.Struct, gc=False):
    type: str
    function: _FunctionDefinition | None = None


class _JsonSchema(msgspec.Struct, gc=False):
    name: str
    schema: Object | None = None


class _ResponseFormat(msgspec.Struct, gc=False):
    type: str
    json_schema: _JsonSchema | None = None


class _Parameters(msgspec.Struct, gc=False):
    """Every parameter of OpenAI's chat request with its type and the range that holds for all providers.

    What differs between providers (names of efforts, kinds of tools, ranges) is theirs to judge.
    """

    model: str
    messages: Messages
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    n: Choices | None = None
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    stop: AnyStop | None = None
    seed: Seed | None = None
    logprobs: bool | None = None
    top_logprobs: Count | None = None
    logit_bias: Object | None = None
    response_format: _ResponseFormat | None = None
    tools: Annotated[list[_ToolDefinition], msgspec.Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: str | Object | None = None
    parallel_tool_calls: bool | None = None
    functions: Annotated[list[_FunctionDefinition], msgspec.Meta(max_length=MAX_TOOLS)] | None = None
    function_call: str | Object | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    prediction: Object | None = None
    metadata: Object | None = None
    store: bool | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: str | None = None
    modalities: list[str] | None = None
    audio: Object | None = None
    web_search_options: Object | None = None


class _WithinOpenAIs(_Parameters, gc=False):
    """The same with the ranges of OpenAI itself."""

    temperature: Temperature | None = None
    top_p: TopP | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    stop: Stop | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    tools: Annotated[list[_ToolDefinition], msgspec.Meta(max_length=128)] | None = None
    functions: Annotated[list[_FunctionDefinition], msgspec.Meta(max_length=128)] | None = None


_decode_within = decoder(_WithinOpenAIs)
_decode_beyond = decoder(_Parameters)

_PROMPT_MEMBERS = ("messages", "tools", "functions", "response_format")
"""What the model reads. A prediction is billed as output; the rest costs no tokens."""


def parse_chat(body: bytes, now_unix: int = 0) -> ChatCall | BadRequest:
    """The call that these bytes ask for, or what is wrong with them. Never raises."""
    read: tuple[_Parameters, dict[str, Raw]] | BadRequest = read_body(body, _decode_within)
    beyond = None
    if isinstance(read, BadRequest):
        beyond, read = read, read_beyond(body, read, _decode_beyond)
        if isinstance(read, BadRequest):
            return read
    known, top = read
    if known.user is not None and "\0" in known.user:
        return BadRequest("Invalid 'user': it holds a NUL character.", "user", "invalid_value")
    options = known.stream_options
    cap = known.max_completion_tokens
    discount, bare_images = _media(known.messages, top["messages"])
    prompt_bytes = len(top["messages"]) - discount
    if len(top) > 2:
        for name in _PROMPT_MEMBERS[1:]:
            if name in top:
                prompt_bytes += len(top[name])
    return ChatCall(
        model=known.model,
        stream=known.stream is True,
        include_usage=options is not None and options.include_usage is True,
        max_output_tokens=known.max_tokens if cap is None else cap,
        n=known.n or 1,
        prompt_bytes=prompt_bytes,
        prefill=_prefill(known.messages[-1]),
        bare_images=bare_images,
        searches=known.web_search_options is not None,
        messages=known.messages,
        created=now_unix,
        beyond=beyond,
        top=top,
    )


def _prefill(last: Message) -> str:
    if type(last) is not Assistant or last.tool_calls:
        return ""
    content = last.content
    if isinstance(content, list):
        return "".join(part.text for part in content if isinstance(part.text, str))
    return content or ""


def _media(messages: list[Message], raw: Raw) -> tuple[int, bool]:
    """How many bytes to take off, so that each medium counts flat (negative: to add); whether a picture is bare."""
    discount, bare, others = 0, False, False
    for message in messages:
        content = message.content
        if type(content) is list:
            for part in content:
                size = _media_bytes(part)
                discount += size
                bare = bare or type(part.image_url) is str
                others = others or not (size or part.type in media.TEXT_KINDS)
        if type(message) is Assistant:
            for other in (message.images, message.reasoning_details):
                discount += 0 if isinstance(other, Unset) else media.discount_of(other)
    return discount + _other_media(raw) if others else discount, bare


def _media_bytes(part: Part) -> int:
    image = part.image_url
    address = image.url if isinstance(image, Image) else image
    for medium in (address, part.input_audio, part.file):
        if not isinstance(medium, Unset):
            return len(medium) - MEDIA_BYTES
    return 0


class _Holder(msgspec.Struct, gc=False):
    content: Raw = _NULL


class _Known(msgspec.Struct, gc=False):
    image_url: Raw | Unset = UNSET
    input_audio: Raw | Unset = UNSET
    file: Raw | Unset = UNSET


_as_holders = decoder(list[_Holder])
_as_raws = decoder(list[Raw])
_as_known = decoder(_Known)
_NONE_KNOWN = _Known()
_LIST = ord("[")


def _other_media(messages: Raw) -> int:
    """The same of parts of other kinds than OpenAI has, which other servers of its dialect take."""
    contents = [holder.content for holder in _as_holders(messages)]
    parts = [part for content in contents if memoryview(content)[0] == _LIST for part in _as_raws(content)]
    return sum(media.discount(part) for part in parts if _as_known(part) == _NONE_KNOWN)
