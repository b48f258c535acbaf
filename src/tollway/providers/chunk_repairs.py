"""What servers that copy OpenAI's dialect get wrong in a stream, and what client libraries cannot take.

1. A role in every delta, or in none: libraries join texts, and "assistantassistant" is no role; others fail without.
2. Tool calls without an index, all of index 0, with their id or name in every piece, or without an id or a type; and
   empty ones where there is nothing to say. ``tool_numbers.py`` knows which call a piece belongs to.
3. The name of a function in every piece, in the form from before there were tools.

A chunk that is right is not touched.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, NamedTuple

import msgspec

from tollway.providers.bounds import Index
from tollway.providers.reasons import Ending
from tollway.providers.tool_numbers import MAX_CALLS, Call, CallNumbers, Place, real
from tollway.wire.json import UNSET, Raw, Unset, decoder, encode, is_null, members


class CalledFunction(msgspec.Struct, gc=False):
    """Name and arguments of a call, or pieces of them."""

    name: str | Unset | None = UNSET
    arguments: str | Unset | None = UNSET


class ToolCall(msgspec.Struct, gc=False):
    """A tool call or a piece of one."""

    index: int | None = None
    id: str | Unset | None = UNSET
    type: str | Unset | None = UNSET
    function: CalledFunction | None = None
    custom: Raw | Unset = UNSET
    extra_content: Raw | Unset = UNSET
    # where servers forget the function around them; what is here is read a second time (``tidy.py``)
    name: Unset | None = UNSET
    arguments: Unset | None = UNSET

    @property
    def kind(self) -> str:
        """Its type, where it is left out the one that its members show."""
        return real(self.type) or (_CUSTOM if isinstance(self.custom, Raw) else _FUNCTION)


class Said(msgspec.Struct, gc=False):
    """What is looked at of a message or of a delta. What is of another type is read a second time (``tidy.py``)."""

    content: str | None = None
    role: Literal["assistant"] | Unset | None = UNSET
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: Annotated[list[ToolCall], msgspec.Meta(max_length=MAX_CALLS)] | None = None
    function_call: CalledFunction | None = None


class Choice(msgspec.Struct, gc=False):
    """What is looked at of a choice in a chunk."""

    index: Index
    delta: Said
    finish_reason: str | None = None


class Progress(Ending):
    """What one choice has told so far, and what shows that a later chunk of it is wrong."""

    __slots__ = ("function", "numbers", "role_told")

    def __init__(self) -> None:
        super().__init__()
        self.role_told = False
        self.numbers: CallNumbers | None = None
        self.function = Call()
        """In the form from before there were tools."""


def said_bytes(said: Said) -> int:
    """Bytes of text, thoughts, names and arguments. Servers that have two names for thoughts tell them twice."""
    size = size_of(said.content) + size_of(said.refusal)
    size += max(size_of(said.reasoning_content), size_of(said.reasoning))
    if (function := said.function_call) is not None:
        size += size_of(function.name) + size_of(function.arguments)
    for call in said.tool_calls or ():
        if (function := call.function) is not None:
            size += size_of(function.name) + size_of(function.arguments)
    return size


def argued_bytes(delta: Said, numbers: CallNumbers | None) -> int:
    """Bytes of arguments in a delta that is right and has nothing but these; 0 for any other.

    The short way for nearly every piece of nearly every call."""
    pieces = delta.tool_calls
    if numbers is None or pieces is None or len(pieces) != 1 or delta.role is not UNSET or delta.content is not None:
        return 0
    piece = pieces[0]
    function = piece.function
    if (
        function is not None
        and piece.id is UNSET
        and piece.type is UNSET
        and function.name is UNSET
        and delta.function_call is None
        and delta.reasoning_content is None
        and delta.reasoning is None
        and delta.refusal is None
        and isinstance(arguments := function.arguments, str)
        and numbers.continues(piece.index)
    ):
        return len(arguments) if arguments.isascii() else len(arguments.encode())
    return 0


def size_of(text: str | Unset | None) -> int:
    """Bytes of a text in UTF-8."""
    return 0 if not isinstance(text, str) else len(text) if text.isascii() else len(text.encode())


class _Edit(NamedTuple):
    role: bool | None
    """Whether it is to be told although it is not there; None where it stays as it is, False where it goes."""
    calls: Sequence[Place | None]
    """Where the calls belong, if one of them says otherwise."""
    function: str | None
    """The name of a function as it is to be told, empty where it goes; None where it stays as it is."""


_as_objects = decoder(list[dict[str, Raw]])

_FUNCTION, _CUSTOM = "function", "custom"


def mended(data: bytes, choices: Sequence[Choice], known: Mapping[int, Progress]) -> bytes:
    """The chunk as it should be: the very same bytes if it is. May raise UNREADABLE."""
    edits = [_edit(choice.delta, known[choice.index]) for choice in choices]
    if not any(edits):
        return data
    top = members(data)
    where = answer_id(top)
    rewritten = [
        _rewritten(raw, edit, f"{where}:{choice.index}") if edit else raw
        for raw, edit, choice in zip(_as_objects(top["choices"]), edits, choices, strict=True)
    ]
    return encode({**top, "choices": rewritten})


def answer_id(top: Mapping[str, Raw]) -> str:
    """The id of an answer, as it was written; ids of calls that have none follow from it."""
    return bytes(top.get("id", b"")).decode()


def made_up_id(where: str, number: int) -> str:
    """The id of a call whose server gave it none."""
    return "call_" + hashlib.sha256(f"{where}:{number}".encode()).hexdigest()[:24]


def whole_call(place: Place, where: str) -> dict[str, object]:
    """A call that never got a name, as the one piece of it that is told."""
    call_id = place.call_id or made_up_id(where, place.number)
    function = {"name": "", "arguments": place.before}
    return {"index": place.number, "id": call_id, "type": _FUNCTION, "function": function, **_extra(place)}


def _extra(place: Place) -> dict[str, Raw]:
    return {"extra_content": Raw(place.extra)} if place.extra else {}


def _edit(delta: Said, known: Progress) -> _Edit | None:
    role = None
    if not known.role_told:
        role = None if isinstance(delta.role, str) else True
        known.role_told = True
    elif isinstance(delta.role, str):
        role = False
    places = _places(delta.tool_calls, known) if delta.tool_calls else ()
    named = None if delta.function_call is None else _named(delta.function_call, known)
    return _Edit(role, places, named) if places or named is not None or role is not None else None


def _places(calls: Sequence[ToolCall], known: Progress) -> Sequence[Place | None]:
    numbers = known.numbers
    if numbers is None:
        numbers = known.numbers = CallNumbers()
    known.usual = "tool_calls"
    numbers.begin_delta()
    places = []
    wrong = False
    for piece in calls:
        function = piece.function
        name, arguments = (None, None) if function is None else (function.name, function.arguments)
        place = numbers.place(
            piece.id if isinstance(piece.id, str) else None,
            piece.index,
            name if isinstance(name, str) else None,
            arguments if isinstance(arguments, str) else "",
            needs_name=piece.kind == _FUNCTION,
        )
        if place is None and isinstance(piece.extra_content, Raw):
            numbers.keep(piece.index, bytes(piece.extra_content))
        wrong = wrong or place is None or not _is_right(piece, place)
        places.append(place)
    return places if wrong else ()


def _is_right(piece: ToolCall, place: Place) -> bool:
    if piece.index != place.number or place.before or place.extra:
        return False
    function = piece.function
    if place.is_first:
        told = piece.id == place.call_id and place.call_id is not None and real(piece.type) is not None
        return told and (function is None or isinstance(function.arguments, str))
    named = function is None or function.name is UNSET or function.name == place.name
    return named and piece.id is UNSET and piece.type is UNSET


def _named(function: CalledFunction, known: Progress) -> str | None:
    known.usual = "function_call"
    given, call = function.name, known.function
    told = call.adds(real(given))
    call.has_arguments = call.has_arguments or bool(function.arguments)
    return None if given is UNSET or given == told else told or ""


def _rewritten(choice: Mapping[str, Raw], edit: _Edit, where: str) -> dict[str, object]:
    given = members(choice["delta"])
    delta: dict[str, object] = {**given}
    if edit.role:
        delta = {"role": "assistant", **_without(delta, "role")}
    elif edit.role is False:
        del delta["role"]
    if edit.calls:
        pieces = zip(_as_objects(given["tool_calls"]), edit.calls, strict=True)
        written = [_moved(raw, place, where) for raw, place in pieces if place is not None]
        if written:
            delta["tool_calls"] = written
        else:
            del delta["tool_calls"]
    if edit.function is not None:
        function = members(given["function_call"])
        delta["function_call"] = {**function, "name": edit.function} if edit.function else _without(function, "name")
    return {**choice, "delta": delta}


def _moved(raw: Mapping[str, Raw], place: Place, where: str) -> dict[str, object]:
    piece: dict[str, object] = {"index": place.number, **_extra(place), **raw}
    piece["index"] = place.number
    if place.is_first:
        piece["id"] = place.call_id or made_up_id(where, place.number)
        if "type" not in raw or bytes(raw["type"]) in _NO_TYPES:
            piece["type"] = _CUSTOM if "custom" in raw else _FUNCTION
    else:
        piece = _without(piece, "id", "type")
    if "function" in raw and not is_null(raw["function"]):
        piece["function"] = _moved_function(members(raw["function"]), place)
    return piece


def _moved_function(raw: Mapping[str, Raw], place: Place) -> dict[str, object]:
    function: dict[str, object] = {**raw}
    if place.name is None:
        function.pop("name", None)
    else:
        function["name"] = place.name
    arguments = raw.get("arguments")
    if place.is_first:
        function = {"name": "", **function, "arguments": place.before + raw_text(arguments)}
    elif arguments is not None and is_null(arguments):
        del function["arguments"]
    return function


_NO_TYPES = frozenset({b"null", b'""', b'"null"'})

_as_text = decoder(str)


def raw_text(raw: Raw | None) -> str:
    """The text that a member is."""
    return "" if raw is None or is_null(raw) else _as_text(raw)


def _without(given: Mapping[str, object], *names: str) -> dict[str, object]:
    return {name: value for name, value in given.items() if name not in names}
