"""What servers that copy OpenAI's dialect get wrong in a stream, and what client libraries cannot take.

1. A role in every delta: libraries join texts, and "assistantassistant" is no role.
2. Tool calls without an index, all of index 0, with their id or name in every piece, or without an id or a type.

A chunk that is right is not touched.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from tollway.providers.tool_numbers import CallNumbers, Place, real_id
from tollway.wire.json import UNSET, Raw, Unset, decoder, encode, is_null, members


class CalledFunction(msgspec.Struct, gc=False):
    """Name and arguments of a call, or pieces of them."""

    name: str | None = None
    arguments: Raw | Unset = UNSET


class ToolCall(msgspec.Struct, gc=False):
    """A piece of a tool call."""

    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: CalledFunction | None = None


class Delta(msgspec.Struct, gc=False):
    """What is looked at of a delta."""

    content: Raw | Unset = UNSET
    role: Raw | Unset = UNSET
    reasoning_content: Raw | Unset = UNSET
    refusal: Raw | Unset = UNSET
    tool_calls: list[ToolCall] | None = None
    function_call: CalledFunction | None = None


class Choice(msgspec.Struct, gc=False):
    """What is looked at of a choice in a chunk."""

    delta: Delta | None = None
    index: int = 0
    finish_reason: str | None = None


class _Edit(NamedTuple):
    role: bool
    """It was told before."""
    calls: list[Place]
    """Where the calls belong, if one of them says otherwise."""


_as_objects = decoder(list[dict[str, Raw]])


class ChunkRepairs:
    """Remembers of one stream what shows that a later chunk is wrong."""

    __slots__ = ("_numbers", "_roles")

    def __init__(self) -> None:
        self._roles: set[int] = set()  # choices that told theirs
        self._numbers: dict[int, CallNumbers] = {}

    def mend(self, data: bytes, choices: Sequence[Choice]) -> bytes:
        """The chunk as it should be: the very same bytes if it is. May raise UNREADABLE."""
        if len(choices) == 1 and self._continues(choices[0]):
            return data  # nearly every piece of nearly every call
        edits = [self._edit(choice) for choice in choices]
        if not any(edits):
            return data
        top = members(data)
        where = bytes(top.get("id", b"")).decode()
        rewritten = [
            _rewritten(raw, edit, f"{where}:{choice.index}") if edit else raw
            for raw, edit, choice in zip(_as_objects(top["choices"]), edits, choices, strict=True)
        ]
        return encode({**top, "choices": rewritten})

    def _continues(self, choice: Choice) -> bool:
        delta, numbers = choice.delta, self._numbers.get(choice.index)
        if delta is None or delta.role is not UNSET or numbers is None or not delta.tool_calls:
            return False
        piece = delta.tool_calls[0]
        function = piece.function
        named = piece.id or function is None or function.name
        return not named and len(delta.tool_calls) == 1 and numbers.has(piece.index)

    def _edit(self, choice: Choice) -> _Edit | None:
        delta, again = choice.delta, False
        if delta is None:
            return None
        if delta.role is not UNSET and not is_null(delta.role):
            again = choice.index in self._roles
            self._roles.add(choice.index)
        places = self._places(choice.index, delta.tool_calls) if delta.tool_calls else []
        return _Edit(again, places) if again or places else None

    def _places(self, index: int, calls: list[ToolCall]) -> list[Place]:
        numbers = self._numbers.get(index)
        if numbers is None:
            numbers = self._numbers[index] = CallNumbers()
        numbers.begin_delta()
        places = []
        wrong = False
        for piece in calls:
            name = piece.function.name if piece.function else None
            place = numbers.place(real_id(piece.id), piece.index, name)
            wrong = wrong or not _is_right(piece, place)
            places.append(place)
        return places if wrong else []


def _is_right(piece: ToolCall, place: Place) -> bool:
    if piece.index != place.number:
        return False
    if place.is_first:
        return real_id(piece.id) is not None and piece.type is not None
    return not piece.id and (place.names or piece.function is None or not piece.function.name)


def _rewritten(choice: dict[str, Raw], edit: _Edit, where: str) -> dict[str, object]:
    delta: dict[str, object] = {**members(choice["delta"])}
    if edit.role:
        del delta["role"]
    if edit.calls:
        pieces = _as_objects(members(choice["delta"])["tool_calls"])
        delta["tool_calls"] = [_moved(raw, place, where) for raw, place in zip(pieces, edit.calls, strict=True)]
    return {**choice, "delta": delta}


def _moved(raw: dict[str, Raw], place: Place, where: str) -> dict[str, object]:
    piece: dict[str, object] = {"index": place.number, **raw}
    piece["index"] = place.number
    if not place.is_first:
        piece.pop("id", None)
    elif "id" not in raw or bytes(raw["id"]) in (b"null", b'""', b'"null"'):
        piece["id"] = "call_" + hashlib.sha256(f"{where}:{place.number}".encode()).hexdigest()[:24]
    if place.is_first and ("type" not in raw or is_null(raw["type"])):
        piece["type"] = "function"
    if not place.names and "function" in raw and not is_null(raw["function"]):
        function = members(raw["function"])
        function.pop("name", None)
        piece["function"] = function
    return piece
