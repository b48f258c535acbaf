"""The messages of a conversation on the way to Mistral: its roles, its content parts, its ideas of order.

1. Only what is named here goes out: Mistral refuses a message with a member that it does not know.
2. A system message may stand only at the start or after a user's; elsewhere it becomes a user message, with a warning.
3. A user may not follow a tool: a short assistant message goes between them.
4. Every call of a tool has its result right behind it, and every result a call before it.
5. A trailing assistant message is one to be continued (``prefix``). Mistral repeats it; the answer comes without it.
"""

from collections.abc import Sequence
from types import UnionType
from typing import TypeAlias

import msgspec

from tollway.domain.refusals import BadRequest
from tollway.providers.mistral.draft import Draft, unsupported, unsupported_value
from tollway.providers.mistral.tools import FUNCTION_NAME, CallIds, bad_name
from tollway.wire.chat_messages import (
    Assistant,
    CalledFunction,
    Content,
    Developer,
    Function,
    Image,
    Message,
    Part,
    System,
    Tool,
    ToolCall,
    User,
)
from tollway.wire.json import UNREADABLE, UNSET, Raw, Unset, decoder, is_text

BRIDGE = "Understood."
"""What the assistant says between a tool and a user. Mistral refuses an empty text."""

IMAGE_DETAILS = {"low": "low", "auto": "auto", "high": "high", "original": "high"}
"""OpenAI's words for the detail of a picture in Mistral's."""


class _TextPart(msgspec.Struct, gc=False, tag_field="type", tag="text"):
    text: str


class _ImageUrl(msgspec.Struct, gc=False, omit_defaults=True):
    url: Raw | str
    detail: str | None = None


class _ImagePart(msgspec.Struct, gc=False, tag_field="type", tag="image_url"):
    image_url: _ImageUrl


class _AudioPart(msgspec.Struct, gc=False, tag_field="type", tag="input_audio"):
    input_audio: str


class _DocumentPart(msgspec.Struct, gc=False, tag_field="type", tag="document_url", omit_defaults=True):
    document_url: str
    document_name: str | None = None


class _ThinkingPart(msgspec.Struct, gc=False, tag_field="type", tag="thinking", omit_defaults=True):
    thinking: Raw
    closed: bool | None = None


_Part: TypeAlias = _TextPart | _ImagePart | _AudioPart | _DocumentPart | _ThinkingPart
_Content: TypeAlias = str | list[_Part]


class _OutCall(msgspec.Struct, gc=False):
    id: str
    function: CalledFunction
    type: str = "function"


class _Out(msgspec.Struct, gc=False, omit_defaults=True):
    """Any message as Mistral takes it."""

    role: str
    content: _Content
    tool_calls: list[_OutCall] | Unset = UNSET
    tool_call_id: str | Unset = UNSET
    name: str | Unset = UNSET
    prefix: bool = False


class _Audio(msgspec.Struct, gc=False):
    data: str


class _File(msgspec.Struct, gc=False):
    file_data: str | None = None
    filename: str | None = None


_as_audio = decoder(_Audio)
_as_file = decoder(_File)


def put_messages(draft: Draft, given: Sequence[Message]) -> BadRequest | None:
    """Put the conversation into the draft."""
    history = _History(draft)
    for index, message in enumerate(given):
        if refusal := history.add(message, f"messages[{index}]"):
            return refusal
    if refusal := history.results_missing():
        return refusal
    messages = history.messages
    if not messages:
        return BadRequest("Invalid 'messages': every message is empty.", "messages", "invalid_value")
    if all(message.role == "assistant" for message in messages):
        return BadRequest("Invalid 'messages': nobody but the assistant speaks.", "messages", "invalid_value")
    last = messages[-1]
    last.prefix = last.role == "assistant" and last.tool_calls is UNSET
    draft.body["messages"] = messages
    return None


class _History:
    """The conversation so far, in Mistral's order."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._ids = CallIds()
        self._awaited: dict[str, str] = {}  # calls without a result so far, and where they stand
        self._functions = 0  # how many calls there were in the form from before there were tools
        self.messages: list[_Out] = []

    def results_missing(self) -> BadRequest | None:
        """What is wrong if no more results follow."""
        if not self._awaited:
            return None
        where = next(iter(self._awaited.values()))
        text = f"Invalid '{where}': a call must be followed by a tool message with its result."
        return BadRequest(text, where, "invalid_value")

    def add(self, message: Message, path: str) -> BadRequest | None:
        if not isinstance(message, Tool | Function) and (refusal := self.results_missing()):
            return refusal
        if not isinstance(message, Tool | Function) and message.name is not None:
            self._draft.warn("dropped", "messages.name")
        match message:
            case System() | Developer():
                return self._add_system(message.content, path)
            case User(content):
                return self._add_user(content, path)
            case Assistant():
                return self._add_assistant(message, path)
            case Tool(content, tool_call_id, name):
                text = _text(content or "", path)
                return text if isinstance(text, BadRequest) else self._add_result(text, tool_call_id, name, path)
            case Function(name, content):
                return self._add_result(content or "", self._function_id, name, path)
        return None

    @property
    def _function_id(self) -> str:
        """Calls in the form from before there were tools have no ids; each is followed by its result."""
        return f"function:{self._functions}"

    def _add_result(self, text: str, call_id: str, name: str | None, path: str) -> BadRequest | None:
        if self._awaited.pop(call_id, None) is None:
            text = f"Invalid '{path}': it is not the result of a call in the message before."
            return BadRequest(text, f"{path}.tool_call_id", "invalid_value")
        kept = name if name is not None and FUNCTION_NAME.fullmatch(name) else UNSET
        self.messages.append(_Out("tool", text, tool_call_id=self._ids[call_id], name=kept))
        return None

    def _add_system(self, content: Content, path: str) -> BadRequest | None:
        text = _texts(content, path)
        if isinstance(text, BadRequest):
            return text
        if self.messages and self.messages[-1].role in ("assistant", "tool"):
            self._draft.warn("moved", path)
            self._say_as_user(text)
        else:
            self.messages.append(_Out("system", text))
        return None

    def _add_user(self, content: Content, path: str) -> BadRequest | None:
        parts = _parts(content, path)
        if isinstance(parts, BadRequest):
            return parts
        self._say_as_user(parts)
        return None

    def _say_as_user(self, content: _Content) -> None:
        if self._draft.quirks.bridge and self.messages and self.messages[-1].role == "tool":
            self.messages.append(_Out("assistant", BRIDGE))
        self.messages.append(_Out("user", content))

    def _add_assistant(self, message: Assistant, path: str) -> BadRequest | None:
        if message.audio is not None:
            return unsupported(f"{path}.audio")
        said = message.content if message.content is not None else message.refusal or ""
        text = _texts(said, path)
        if isinstance(text, BadRequest):
            return text
        out = _Out("assistant", text)
        called: list[_OutCall] = []
        calls = message.tool_calls or []
        if message.function_call is not None and not calls:
            self._functions += 1
            calls = [ToolCall(self._function_id, function=message.function_call)]
        if calls:
            out.tool_calls = called
            if not self._draft.quirks.text_with_tool_calls:
                out.content = ""
        for index, call in enumerate(calls):
            where = f"{path}.tool_calls[{index}]"
            if call.function is UNSET:
                return unsupported_value(f"{where}.type", call.type)
            if not FUNCTION_NAME.fullmatch(call.function.name):
                return bad_name(f"{where}.function.name")
            if call.id in self._awaited:
                return BadRequest(f"Invalid '{where}.id': it stands there twice.", f"{where}.id", "invalid_value")
            arguments = call.function.arguments or "{}"
            called.append(_OutCall(self._ids[call.id], CalledFunction(call.function.name, arguments)))
            self._awaited[call.id] = where
        if text or calls:
            self.messages.append(out)
        return None


def _text(content: Content, path: str) -> str | BadRequest:
    """The content as one text."""
    texts = _texts(content, path, _TextPart)
    return "".join(part.text for part in texts if isinstance(part, _TextPart)) if isinstance(texts, list) else texts


def _texts(
    content: Content, path: str, kinds: type[_Part] | UnionType = _TextPart | _ThinkingPart
) -> _Content | BadRequest:
    """The content as a text or a list of texts and thoughts: what everybody but a user may say."""
    parts = _parts(content, path)
    if isinstance(parts, list):
        for index, part in enumerate(parts):
            if not isinstance(part, kinds):
                kind = content[index].type if isinstance(content, list) else ""
                return unsupported_value(f"{path}.content[{index}].type", kind)
    return parts


def _parts(content: Content, path: str) -> _Content | BadRequest:
    if isinstance(content, str):
        return content
    parts: list[_Part] = []
    for index, part in enumerate(content):
        where = f"{path}.content[{index}]"
        try:
            mapped = _part(part, where)
        except UNREADABLE:
            return BadRequest(f"Invalid '{where}'.", where, "invalid_value")
        if isinstance(mapped, BadRequest):
            return mapped
        parts.append(mapped)
    return parts


def _part(part: Part, where: str) -> _Part | BadRequest:
    match part.type:
        case "text" if part.text is not UNSET:
            return _TextPart(part.text)
        case "refusal" if part.refusal is not UNSET:
            return _TextPart(part.refusal)
        case "image_url" if part.image_url is not UNSET:
            return _ImagePart(_image(part.image_url))
        case "input_audio" if part.input_audio is not UNSET:
            return _AudioPart(_as_audio(part.input_audio).data)
        case "file" if part.file is not UNSET:
            file = _as_file(part.file)
            if file.file_data is None:
                return unsupported(f"{where}.file.file_id")
            return _DocumentPart(file.file_data, file.filename)
        case "thinking" if part.thinking is not UNSET:
            return _ThinkingPart(part.thinking, part.closed)
        case "text" | "refusal" | "image_url" | "input_audio" | "file" | "thinking":
            missing = f"{where}.{part.type}"
            return BadRequest(f"Missing required parameter: '{missing}'.", missing, "missing_required_parameter")
        case _:
            return unsupported_value(f"{where}.type", part.type)


def _image(image: Image | str) -> _ImageUrl:
    if isinstance(image, str):
        return _ImageUrl(image)
    if isinstance(image.url, Unset) or not is_text(image.url):
        raise msgspec.ValidationError("the address of a picture is a text")
    detail = None if image.detail is None else IMAGE_DETAILS.get(image.detail)
    return _ImageUrl(image.url, detail)
