"""Which tool call a piece in a stream belongs to, whatever its server makes of ids, indexes and names.

Client libraries join the pieces of one index and take them literally: two calls of the same index become one, an id or
a name that comes twice is doubled, and a call that begins without a name fails. So:

1. A new id begins a call only together with a name, or with an index that is new: some servers make up an id for each
   piece, others leave the index out or always say 0. Without either it continues the call of its index, or the last.
   A known id begins another call together with a name and another index: some servers' ids are names of functions.
2. Without an id a new index begins a call; so does a name that comes without an index, a second time in one event, or
   where the call of that index has another name and arguments already.
3. A call that has no name yet is kept back until it has one; then it comes with all that was said of it.
4. A name may come in pieces, which libraries join. One that was told already is only repeated and left out; of one that
   begins so, the rest is told; another one is a piece, as long as there are no arguments.
"""

import hashlib
from typing import NamedTuple

import msgspec

MAX_CALLS = 256
"""Of one choice. OpenAI runs at most 128 tools, and no model calls them all at once."""

MAX_INDEX = 65_535
"""A larger index is no place in a list."""

MAX_ID_BYTES = 16 * 1024
"""Some servers hide what a model thought in the id of its call, some kilobytes of it. What is longer is none."""

MAX_NAME_CHARACTERS = 1024
"""Of a function, all pieces together; OpenAI takes 64. They are remembered, each for as long as the answer runs."""

MAX_UNNAMED_BYTES = 64 * 1024
"""Of arguments, and of ids, that one choice keeps back for names. After so many a call goes out without."""

_MOST_PIECES = 16
"""Of the arguments of one call, before they are joined: a letter that is kept alone takes the room of fifty."""

_EMPTY = frozenset({"", "null"})  # the second is what Mistral's schema fills in
_SHORT_ID = 64


def real(given: object) -> str | None:
    """The id, the type or the name of a call, if its server gave a real one."""
    return given if isinstance(given, str) and given not in _EMPTY else None


class Place(NamedTuple):
    """Where a piece belongs, and what of it is to be told."""

    number: int
    """Of the call, counted from 0."""
    is_first: bool
    """The call begins here: id and type are told now, and never again."""
    name: str | None
    """The name, or the piece of it, that is told here."""
    call_id: str | None = None
    """The id of a call that begins, if its server gave it one that no other call has."""
    before: str = ""
    """Arguments that came before its name."""
    extra: bytes = b""
    """The JSON that came so, too, as ``extra_content``: what Google's servers want to get back with the call."""


class Call:
    """What has to be remembered of one call."""

    __slots__ = (
        "call_id",
        "extra",
        "has_arguments",
        "has_index",
        "kept",
        "kept_bytes",
        "kept_id",
        "key",
        "name",
        "number",
    )

    def __init__(self, call_id: str | None = None, key: str | None = None) -> None:
        self.number = -1  # not told yet
        self.call_id = call_id
        self.key = key  # of the id that it began with, which another call may have, too
        self.has_index = False
        self.name = ""
        self.has_arguments = False
        self.extra = b""
        self.kept: list[str] = []
        self.kept_bytes = 0
        self.kept_id = 0  # bytes of its id among them

    def adds(self, name: str | None) -> str | None:
        """What of a name has not been told yet; None where there is nothing new."""
        if name is None or name == self.name:
            return None
        if name.startswith(self.name):
            name = name[len(self.name) :]
        elif self.has_arguments:
            return None
        if len(self.name) + len(name) > MAX_NAME_CHARACTERS:
            raise msgspec.ValidationError("a name that is none")
        self.name += name
        return name


class CallNumbers:
    """Numbers the calls of one choice in the order in which they are told."""

    __slots__ = ("_by_id", "_by_index", "_calls", "_in_delta", "_kept_bytes", "_told")

    def __init__(self) -> None:
        self._by_id: dict[str, Call] = {}
        self._by_index: dict[int, Call] = {}
        self._in_delta: set[int] = set()  # indexes
        self._calls: list[Call] = []
        self._kept_bytes = 0  # of all calls that are not told yet
        self._told = 0

    def continues(self, index: int | None) -> bool:
        """Whether a piece of arguments with nothing but this index needs no change: it is the call's number, too."""
        call = None if index is None else self._by_index.get(index)
        if call is None or call.number != index:
            return False
        call.has_arguments = True
        return True

    def begin_delta(self) -> None:
        """The pieces that follow came together: two of them with names are two calls."""
        self._in_delta.clear()

    def place(
        self, given_id: str | None, index: int | None, name: str | None, arguments: str, *, needs_name: bool = True
    ) -> Place | None:
        """The next piece; None where nothing of it is to be told, or not yet.

        Raises UNREADABLE for more than any answer has: calls, indexes, bytes of an id.
        """
        call_id, name = real(given_id), real(name)
        index = None if index is not None and index < 0 else index
        if (index or 0) > MAX_INDEX or len(given_id or "") > MAX_ID_BYTES:
            raise msgspec.ValidationError("an index or an id that is none")
        key = None if call_id is None else _key(call_id)
        call = self._find(key, index, name) or self._begin(key, call_id)
        if index is not None:
            self._by_index[index] = call
            call.has_index = True
            self._in_delta.add(index)
            if len(self._by_index) > 2 * MAX_CALLS:
                raise msgspec.ValidationError("more indexes than calls")
        if call.number < 0:
            return self._first(call, call_id, name, arguments, needs_name=needs_name)
        told = call.adds(name)
        call.has_arguments = call.has_arguments or arguments != ""
        return Place(call.number, is_first=False, name=told)

    def keep(self, index: int | None, extra: bytes) -> None:
        """The piece that was placed last and is not told yet said this of its call."""
        call = self._last if index is None else self._by_index.get(index)
        if call is not None and call.number < 0 and self._kept_bytes + len(extra) <= MAX_UNNAMED_BYTES:
            call.extra = extra
            call.kept_bytes += len(extra)
            self._kept_bytes += len(extra)

    def unnamed(self) -> list[Place]:
        """The calls that never got a name, with all that was said of them. After this there are none."""
        unnamed = [call for call in self._calls if call.number < 0 and (call.kept_bytes or call.call_id is not None)]
        return [self._tell(call, None) for call in unnamed]

    def _find(self, key: str | None, index: int | None, name: str | None) -> Call | None:
        of_index = None if index is None else self._by_index.get(index)
        of_id = None if key is None else self._by_id.get(key)
        if of_id is not None:
            if of_index is not None and of_index.key == key:
                of_id = of_index
            elsewhere = of_id is not of_index and of_id.has_index and index is not None
            if name and (elsewhere or (_is_another(of_id, name) and of_id.has_arguments)):
                return None
            return of_id
        if key is not None:
            if name and not (of_index is not None and of_index.call_id is None and of_index.name in ("", name)):
                return None
            return of_index if index is not None else self._last
        if index is None:
            return None if name else self._last
        if of_index is not None and name:
            again = index in self._in_delta and of_index.name != ""
            if again or (_is_another(of_index, name) and of_index.has_arguments):
                return None
        return of_index

    @property
    def _last(self) -> Call | None:
        return self._calls[-1] if self._calls else None

    def _begin(self, key: str | None, call_id: str | None) -> Call:
        if len(self._calls) == MAX_CALLS:
            raise msgspec.ValidationError("more calls than any answer has")
        call = Call(call_id if key is not None and key not in self._by_id else None, key)
        if key is not None:
            self._by_id[key] = call
        self._calls.append(call)
        return call

    def _first(
        self, call: Call, call_id: str | None, name: str | None, arguments: str, *, needs_name: bool
    ) -> Place | None:
        if call.call_id is None and call_id is not None and _key(call_id) not in self._by_id:
            call.call_id = call_id
            call.key = _key(call_id)
            self._by_id[call.key] = call
        of_id = len(call.call_id or "")
        size = len(arguments) + of_id - call.kept_id
        if name is None and needs_name and self._kept_bytes + size <= MAX_UNNAMED_BYTES:
            if arguments:
                call.kept.append(arguments)
                if len(call.kept) == _MOST_PIECES:
                    call.kept = ["".join(call.kept)]
            call.kept_id = of_id
            call.kept_bytes += size
            self._kept_bytes += size
            return None
        place = self._tell(call, call.adds(name))
        call.has_arguments = place.before != "" or arguments != ""
        return place

    def _tell(self, call: Call, name: str | None) -> Place:
        call.number = self._told
        self._told += 1
        self._kept_bytes -= call.kept_bytes
        call.kept_bytes = 0
        place = Place(call.number, True, name, call.call_id, "".join(call.kept), call.extra)
        call.kept.clear()
        call.extra = b""
        if call.call_id is not None and len(call.call_id) > _SHORT_ID:
            call.call_id = call.call_id[:_SHORT_ID]  # from now on it only matters that there is one
        return place


def _is_another(call: Call, name: str) -> bool:
    return call.name not in ("", name)


def _key(call_id: str) -> str:
    """What an id is remembered by: itself, or its hash where it is long."""
    return call_id if len(call_id) <= _SHORT_ID else hashlib.sha256(call_id.encode()).hexdigest()
