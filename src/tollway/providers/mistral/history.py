"""The messages of a conversation on the way to Mistral: its roles, its content parts, its ideas of order.

1. Only what is named here goes out: Mistral refuses a message with a member that it does not know.
2. A system message may stand only at the start or after a user's; elsewhere it becomes a user message, with a warning.
3. A user may not follow a tool: a short assistant message goes between them.
4. Every call of a tool has its result right behind it, and every result a call before it.
5. A trailing assistant message is one to be continued (``prefix``). Mistral repeats it; the answer comes without it.
"""

from collections.abc import Sequence

import msgspec

from tollway.domain.refusals import BadRequest
from tollway.providers.mistral.draft import Draft, unsupported, unsupported_value
from tollway.providers.mistral.parts import OutContent, parts_of, text_of, texts_of
from tollway.providers.mistral.tools import FUNCTION_NAME, CallIds, bad_name
from tollway.wire.chat_messages import (
    Assistant,
    CalledFunction,
    Content,
    Developer,
    Function,
    Message,
    System,
    Tool,
    ToolCall,
    User,
)
from tollway.wire.json import UNSET, Unset

BRIDGE = "Understood."
"""What the assistant says between a tool and a user. Mistral refuses an empty text."""


class _OutCall(msgspec.Struct, gc=False):
    id: str
    function: CalledFunction
    type: str = "function"


class _Out(msgspec.Struct, gc=False, omit_defaults=True):
    """Any message as Mistral takes it."""

    role: str
    content: OutContent
    tool_calls: list[_OutCall] | Unset = UNSET
    tool_call_id: str | Unset = UNSET
    name: str | Unset = UNSET
    prefix: bool = False


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
                text = text_of(content or "", path)
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
        text = texts_of(content, path)
        if isinstance(text, BadRequest):
            return text
        if self.messages and self.messages[-1].role in ("assistant", "tool"):
            self._draft.warn("moved", path)
            self._say_as_user(text)
        else:
            self.messages.append(_Out("system", text))
        return None

    def _add_user(self, content: Content, path: str) -> BadRequest | None:
        parts = parts_of(content, path)
        if isinstance(parts, BadRequest):
            return parts
        self._say_as_user(parts)
        return None

    def _say_as_user(self, content: OutContent) -> None:
        if self._draft.quirks.bridge and self.messages and self.messages[-1].role == "tool":
            self.messages.append(_Out("assistant", BRIDGE))
        self.messages.append(_Out("user", content))

    def _add_assistant(self, message: Assistant, path: str) -> BadRequest | None:
        if message.audio is not None:
            return unsupported(f"{path}.audio")
        said = message.content if message.content is not None else message.refusal or ""
        text = texts_of(said, path)
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
