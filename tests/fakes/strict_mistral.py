"""Mistral as a judge: what its API refuses of a request, in the form in which it says so.

``refusal(path, body)`` is pure. It is at least as strict as Mistral: where its servers differ, or differed over time,
the strictest counts, so what passes here passes everywhere.

1. No object may have a member that is not named here, and nothing may be null unless it says so (422).
2. Roles must follow each other as chat templates want it, calls and results must match (400, code 3230).
3. Ids of tool calls are nine letters or digits (400, code 3280).
"""

import itertools
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

Refusal: TypeAlias = tuple[int, bytes]

MAX_EMBEDDINGS = 512

Count: TypeAlias = Annotated[int, Meta(ge=0)]
Penalty: TypeAlias = Annotated[float, Meta(ge=-2, le=2)]
Temperature: TypeAlias = Annotated[float, Meta(ge=0, le=1.5)]
Share: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
Name: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
Object: TypeAlias = dict[str, Any]


class Strict(Struct, forbid_unknown_fields=True):
    """An object whose members are all known."""


class Text(Strict, tag_field="type", tag="text"):
    text: str


class Thinking(Strict, tag_field="type", tag="thinking"):
    thinking: list[Text]
    closed: bool | UnsetType = UNSET


class ImageUrl(Strict):
    url: str
    detail: Literal["low", "auto", "high"] | UnsetType = UNSET


class Image(Strict, tag_field="type", tag="image_url"):
    image_url: str | ImageUrl


class Audio(Strict, tag_field="type", tag="input_audio"):
    input_audio: str


class Document(Strict, tag_field="type", tag="document_url"):
    document_url: str
    document_name: str | UnsetType = UNSET


class File(Strict, tag_field="type", tag="file"):
    file_id: str


class CalledFunction(Strict):
    name: Name
    arguments: str | Object


class ToolCall(Strict):
    id: str
    function: CalledFunction
    type: Literal["function"] = "function"
    index: int | UnsetType = UNSET


class System(Strict, tag_field="role", tag="system"):
    content: str | list[Text | Thinking]


class User(Strict, tag_field="role", tag="user"):
    content: str | list[Text | Image | Audio | Document | File]


class Assistant(Strict, tag_field="role", tag="assistant"):
    content: str | list[Text | Thinking] | None = None
    tool_calls: list[ToolCall] | None = None
    prefix: bool = False


class Tool(Strict, tag_field="role", tag="tool"):
    content: str | list[Text] | None
    tool_call_id: str
    name: Name | UnsetType = UNSET


Message: TypeAlias = System | User | Assistant | Tool


class JsonSchema(Strict):
    name: str
    schema: Object
    description: str | UnsetType = UNSET
    strict: bool | UnsetType = UNSET


class ResponseFormat(Strict):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | UnsetType = UNSET


class Function(Strict):
    name: Name
    parameters: Object
    description: str | UnsetType = UNSET
    strict: bool | UnsetType = UNSET


class ToolDefinition(Strict):
    type: Literal["function"]
    function: Function


class ChosenFunction(Strict):
    name: Name


class Choice(Strict):
    type: Literal["function"]
    function: ChosenFunction


class Prediction(Strict):
    type: Literal["content"]
    content: str


class Sampling(Strict):
    """What chat and fill-in-the-middle have in common."""

    model: str
    temperature: Temperature | UnsetType = UNSET
    top_p: Share | UnsetType = UNSET
    max_tokens: Count | UnsetType = UNSET
    min_tokens: Count | UnsetType = UNSET
    stop: str | list[str] | UnsetType = UNSET
    random_seed: Count | UnsetType = UNSET
    stream: bool | UnsetType = UNSET
    metadata: Object | UnsetType = UNSET
    prompt_cache_key: str | UnsetType = UNSET


class Chat(Sampling, kw_only=True):
    messages: Annotated[list[Message], Meta(min_length=1)]
    n: Annotated[int, Meta(ge=1)] = 1
    frequency_penalty: Penalty | UnsetType = UNSET
    presence_penalty: Penalty | UnsetType = UNSET
    response_format: ResponseFormat | UnsetType = UNSET
    tools: Annotated[list[ToolDefinition], Meta(min_length=1, max_length=128)] | UnsetType = UNSET
    tool_choice: Literal["auto", "none", "any", "required"] | Choice | UnsetType = UNSET
    parallel_tool_calls: bool | UnsetType = UNSET
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | UnsetType = UNSET
    prediction: Prediction | UnsetType = UNSET
    service_tier: Literal["auto", "standard_only"] | UnsetType = UNSET
    safe_prompt: bool | UnsetType = UNSET
    prompt_mode: Literal["reasoning"] | UnsetType = UNSET
    guardrails: list[Object] | UnsetType = UNSET
    top_k: Count | UnsetType = UNSET
    repetition_penalty: float | UnsetType = UNSET
    prompt_logprobs: Count | UnsetType = UNSET


class Fim(Sampling, kw_only=True):
    prompt: str
    suffix: str | UnsetType = UNSET


class Embeddings(Strict):
    model: str
    input: str | Annotated[list[str], Meta(min_length=1)]
    output_dimension: Annotated[int, Meta(gt=0)] | UnsetType = UNSET
    encoding_format: Literal["float", "base64"] | UnsetType = UNSET
    output_dtype: Literal["float", "int8", "uint8", "binary", "ubinary"] | UnsetType = UNSET
    metadata: Object | UnsetType = UNSET


class Moderations(Strict):
    model: str
    input: str | Annotated[list[str], Meta(min_length=1)]
    metadata: Object | UnsetType = UNSET


REQUESTS: dict[str, type[Strict]] = {
    "/chat/completions": Chat,
    "/fim/completions": Fim,
    "/embeddings": Embeddings,
    "/moderations": Moderations,
}

FOLLOWERS: dict[type[Struct], tuple[type[Struct], ...]] = {
    System: (System, User, Assistant),
    User: (System, User, Assistant),
    Assistant: (User, Assistant, Tool),
    Tool: (Assistant, Tool),
}
"""Who may speak after whom."""

EFFORTS: dict[str, tuple[str, ...]] = {
    "mistral-small-": ("none", "high"),
    "mistral-medium-": ("none", "high"),
    "mistral-large-4": ("low", "medium", "high"),
    "magistral-": ("none", "high"),
    "zai-glm-": ("low", "high", "max"),
}
"""How the names of models begin that reason, and the efforts that each takes. Others take none."""

CALL_ID = re.compile(r"[A-Za-z0-9]{9}")


def refusal(path: str, body: bytes) -> Refusal | None:
    """What Mistral answers to a request that it refuses, a status and a body; None for one that it takes."""
    kind = REQUESTS.get(path)
    if kind is None:
        return 404, b'{"message":"no Route matched with those values"}'
    try:
        request = msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        return _unprocessable(str(error))
    except msgspec.DecodeError as error:
        return _unprocessable(f"JSON decode error: {error}")
    match request:
        case Chat():
            return _of_messages(request.messages) or _of_parameters(request)
        case Embeddings(input=list(inputs)) if len(inputs) > MAX_EMBEDDINGS:
            return _bad("Too many inputs in request, split into more batches.", "invalid_request_error", "3210")
    return _of_greed(request) if isinstance(request, Sampling) else None


def _of_messages(messages: Sequence[Message]) -> Refusal | None:
    """Who may speak, and in what order."""
    if len(messages) == 1 and not isinstance(messages[0], User | System):
        return _order("Conversation must start with a user message or system message")
    for before, after in itertools.pairwise(messages):
        if not isinstance(after, FOLLOWERS[type(before)]):
            return _order(f"Unexpected role '{_role(after)}' after role '{_role(before)}'")
    last = messages[-1]
    if isinstance(last, Assistant) and not last.prefix:
        return _order("Expected last role User or Tool (or Assistant with prefix True) for serving but got assistant")
    for message in messages:
        if isinstance(message, Assistant):
            if not message.content and not message.tool_calls:
                text = "Assistant message must have either content or tool_calls, but not none."
                return _bad(text, "invalid_request_error", None)
            if message.prefix and message is not last:
                return _order("Assistant message with prefix True must be last message")
    return _of_calls(messages)


def _of_calls(messages: Sequence[Message]) -> Refusal | None:
    """Every call has an id that fits and one result, before anybody else speaks."""
    waiting: set[str] = set()
    for message in messages:
        if isinstance(message, Tool):
            if not CALL_ID.fullmatch(message.tool_call_id):
                return _call_id(message.tool_call_id)
            if message.tool_call_id not in waiting:
                return _order("Not the same number of function calls and responses")
            waiting.remove(message.tool_call_id)
            continue
        if waiting:
            return _order("Not the same number of function calls and responses")
        for call in (message.tool_calls or []) if isinstance(message, Assistant) else []:
            if not CALL_ID.fullmatch(call.id):
                return _call_id(call.id)
            if call.id in waiting:
                return _bad("Duplicate tool call id in assistant message", "invalid_function_call", "3280")
            waiting.add(call.id)
    return _order("Not the same number of function calls and responses") if waiting else None


def _of_parameters(chat: Chat) -> Refusal | None:
    form = chat.response_format
    if form is not UNSET and (form.type == "json_schema") != (form.json_schema is not UNSET):
        return _unprocessable("json_schema goes with the type json_schema - at `$.response_format`")
    if chat.n > 1 and chat.prediction is not UNSET:
        return _invalid("n must be 1 when using prediction")
    efforts = next((taken for name, taken in EFFORTS.items() if chat.model.startswith(name)), ())
    if chat.reasoning_effort is not UNSET and chat.reasoning_effort not in efforts:
        return _invalid(f"reasoning_effort must be one of {list(efforts)}")
    return _of_greed(chat)


def _of_greed(request: Sampling) -> Refusal | None:
    if request.temperature == 0 and request.top_p not in (UNSET, 1):
        return _invalid("top_p must be 1 when using greedy sampling")
    return None


def _role(message: Message) -> str:
    return type(message).__name__.lower()


def _order(message: str) -> Refusal:
    return _bad(message, "invalid_request_message_order", "3230")


def _call_id(call_id: str) -> Refusal:
    message = f"Tool call id was {call_id} but must be a-z, A-Z, 0-9, with a length of 9."
    return _bad(message, "invalid_function_call", "3280")


def _invalid(message: str) -> Refusal:
    return _bad(message, "invalid_request_invalid_args", "3051")


def _bad(message: str, kind: str, code: str | None) -> Refusal:
    error = {"object": "error", "message": message, "type": kind, "param": None, "code": code, "raw_status_code": 400}
    return 400, msgspec.json.encode(error)


def _unprocessable(said: str) -> Refusal:
    """A decoder's words as one item of a list: what, and where in the body."""
    message, _, place = said.partition(" - at `$")
    loc = ["body", *(int(step) if step.isdigit() else step for step in re.findall(r"\w+", place))]
    kind = "extra_forbidden" if "unknown field" in message else "value_error"
    detail = [{"type": kind, "loc": loc, "msg": message, "input": None}]
    error = {"object": "error", "message": {"detail": detail}, "type": "invalid_request_error"}
    return 422, msgspec.json.encode({**error, "param": None, "code": None})
