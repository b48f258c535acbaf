"""OpenAI as a judge: what its API refuses of a request, in the form in which it says so.

``refusal(path, body)`` is pure. The names of the parameters are the official SDK's.

1. A parameter that is not OpenAI's is unknown; so is a member of a message that is not.
2. Models that reason take ``max_completion_tokens``, and refuse its older name.
3. Every call of a tool has one result, before anybody else speaks.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from openai.types import EmbeddingCreateParams, ModerationCreateParams, chat, completion_create_params

Refusal: TypeAlias = tuple[int, bytes]

REASONS = re.compile(r"(o1|o3|o4|gpt-5|gpt-6)")
"""How the names of models begin that reason."""

Penalty: TypeAlias = Annotated[float, Meta(ge=-2, le=2)]
Name: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
Stop: TypeAlias = str | Annotated[list[str], Meta(max_length=4)]
Object: TypeAlias = dict[str, Any]


class Strict(Struct, forbid_unknown_fields=True):
    """An object whose members are all known."""


class Text(Strict, tag_field="type", tag="text"):
    text: str
    prompt_cache_breakpoint: Any = None


class RefusalPart(Strict, tag_field="type", tag="refusal"):
    refusal: str


class ImageUrl(Strict):
    url: str
    detail: Literal["auto", "low", "high", "original"] = "auto"


class Image(Strict, tag_field="type", tag="image_url"):
    image_url: ImageUrl
    prompt_cache_breakpoint: Any = None


class Sound(Strict):
    data: str
    format: Literal["wav", "mp3"]


class Audio(Strict, tag_field="type", tag="input_audio"):
    input_audio: Sound
    prompt_cache_breakpoint: Any = None


class Upload(Strict):
    file_data: str | UnsetType = UNSET
    file_id: str | UnsetType = UNSET
    filename: str | UnsetType = UNSET


class File(Strict, tag_field="type", tag="file"):
    file: Upload
    prompt_cache_breakpoint: Any = None


class CalledFunction(Strict):
    name: Name
    arguments: str


class CalledCustom(Strict):
    name: str
    input: str


class FunctionCall(Strict, tag_field="type", tag="function"):
    id: str
    function: CalledFunction


class CustomCall(Strict, tag_field="type", tag="custom"):
    id: str
    custom: CalledCustom


class SpokenAnswer(Strict):
    id: str


Texts: TypeAlias = str | Annotated[list[Text], Meta(min_length=1)]


class System(Strict, tag_field="role", tag="system"):
    content: Texts
    name: str | UnsetType = UNSET


class Developer(System, tag_field="role", tag="developer"):
    pass


class User(Strict, tag_field="role", tag="user"):
    content: str | Annotated[list[Text | Image | Audio | File], Meta(min_length=1)]
    name: str | UnsetType = UNSET


class Assistant(Strict, tag_field="role", tag="assistant"):
    content: str | Annotated[list[Text | RefusalPart], Meta(min_length=1)] | None = None
    refusal: str | None = None
    name: str | UnsetType = UNSET
    audio: SpokenAnswer | None = None
    annotations: Any = None
    function_call: CalledFunction | None = None
    tool_calls: Annotated[list[FunctionCall | CustomCall], Meta(min_length=1)] | UnsetType = UNSET


class Tool(Strict, tag_field="role", tag="tool"):
    content: Texts
    tool_call_id: str


class Function(Strict, tag_field="role", tag="function"):
    content: str | None
    name: str


Message: TypeAlias = System | Developer | User | Assistant | Tool | Function


class FunctionDefinition(Strict):
    name: Name
    description: str | UnsetType = UNSET
    parameters: Object | UnsetType = UNSET
    strict: bool | None = None


class FunctionTool(Strict, tag_field="type", tag="function"):
    function: FunctionDefinition


class CustomDefinition(Strict):
    name: Name
    description: str | UnsetType = UNSET
    format: Object | UnsetType = UNSET


class CustomTool(Strict, tag_field="type", tag="custom"):
    custom: CustomDefinition


class Sampling(Struct, kw_only=True):
    """What chat and completions have in common; parameters without a range of their own are only known by name."""

    model: str
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stop: str | Annotated[list[str], Meta(max_length=4)] | None = None
    max_tokens: int | None = None
    stream: bool | None = None
    stream_options: Object | None = None
    user: str | UnsetType = UNSET


class Chat(Sampling, kw_only=True):
    messages: Annotated[list[Message], Meta(min_length=1)]
    max_completion_tokens: int | None = None
    tools: Annotated[list[FunctionTool | CustomTool], Meta(min_length=1, max_length=128)] | UnsetType = UNSET
    tool_choice: str | Object | UnsetType = UNSET
    parallel_tool_calls: bool | UnsetType = UNSET
    metadata: Object | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None


class Completion(Sampling, kw_only=True):
    prompt: str | list[str | int | list[int]] | None


class Embeddings(Struct):
    model: str
    input: str | Annotated[list[str | int | list[int]], Meta(min_length=1, max_length=2048)]
    dimensions: Annotated[int, Meta(ge=1)] | UnsetType = UNSET
    encoding_format: Literal["float", "base64"] | UnsetType = UNSET
    user: str | UnsetType = UNSET


class Moderations(Struct):
    input: str | list[str | Object]
    model: str | None = None


def _names(*params: type) -> frozenset[str]:
    return frozenset(name for kind in params for base in kind.__mro__ for name in getattr(base, "__annotations__", ()))


REQUESTS: Mapping[str, tuple[type[Struct], frozenset[str]]] = {
    "/chat/completions": (
        Chat,
        _names(
            chat.completion_create_params.CompletionCreateParamsNonStreaming,
            chat.completion_create_params.CompletionCreateParamsStreaming,
        ),
    ),
    "/completions": (
        Completion,
        _names(
            completion_create_params.CompletionCreateParamsNonStreaming,
            completion_create_params.CompletionCreateParamsStreaming,
        ),
    ),
    "/embeddings": (Embeddings, _names(EmbeddingCreateParams)),
    "/moderations": (Moderations, _names(ModerationCreateParams)),
}
"""What each path takes: the shape of what is looked at, and every name."""


def refusal(path: str, body: bytes) -> Refusal | None:
    """What OpenAI answers to a request that it refuses, a status and a body; None for one that it takes."""
    if path not in REQUESTS:
        return _refused(404, f"Invalid URL (POST /v1{path})", None, None)
    kind, names = REQUESTS[path]
    try:
        unknown = msgspec.json.decode(body, type=dict[str, msgspec.Raw]).keys() - names
        if unknown:
            name = min(unknown)
            return _bad(f"Unknown parameter: '{name}'.", name, "unknown_parameter")
        request = msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        return _wrong(str(error))
    except msgspec.DecodeError:
        return _bad("We could not parse the JSON body of your request.", None, None)
    if isinstance(request, Sampling) and request.stream_options is not None and not request.stream:
        text = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        return _bad(text, "stream_options", None)
    return _of_caps(request) or _of_calls(request.messages) if isinstance(request, Chat) else None


def _of_caps(request: Chat) -> Refusal | None:
    if request.max_tokens is None:
        return None
    if REASONS.match(request.model):
        text = "Unsupported parameter: 'max_tokens' is not supported with this model. "
        return _bad(text + "Use 'max_completion_tokens' instead.", "max_tokens", "unsupported_parameter")
    if request.max_completion_tokens is not None:
        text = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported."
        return _bad(text, "max_tokens", "invalid_parameter_combination")
    return None


def _of_calls(messages: Sequence[Message]) -> Refusal | None:
    """Every call has one result, before anybody else speaks."""
    waiting: set[str] = set()
    for index, message in enumerate(messages):
        if isinstance(message, Tool):
            if message.tool_call_id not in waiting:
                text = "messages with role 'tool' must be a response to a preceeding message with 'tool_calls'."
                return _bad(f"Invalid parameter: {text}", f"messages.[{index}].role", None)
            waiting.remove(message.tool_call_id)
            continue
        if waiting:
            return _unanswered(waiting)
        if isinstance(message, Assistant):
            if not _says(message):
                return _bad(
                    "Invalid value for 'content': expected a string, got null.", f"messages.[{index}].content", None
                )
            waiting = {call.id for call in message.tool_calls or ()}
    return _unanswered(waiting) if waiting else None


def _says(message: Assistant) -> bool:
    members = (message.content, message.refusal, message.audio, message.function_call)
    return bool(message.tool_calls) or any(member is not None for member in members)


def _unanswered(waiting: set[str]) -> Refusal:
    text = "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'."
    return _bad(f"{text} The following tool_call_ids did not have response messages: {min(waiting)}", "messages", None)


def _wrong(said: str) -> Refusal:
    """A decoder's words, and the place as the parameter."""
    message, _, place = said.partition(" - at `$")
    unknown = re.search(r"unknown field `(\w+)`", message)
    param = f"{place.rstrip('`')}.{unknown[1]}".lstrip(".") if unknown else place.strip("`.")
    return _bad(message, param or None, "unknown_parameter" if unknown else "invalid_value")


def _bad(message: str, param: str | None, code: str | None) -> Refusal:
    return _refused(400, message, param, code)


def _refused(status: int, message: str, param: str | None, code: str | None) -> Refusal:
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return status, msgspec.json.encode({"error": error})
