"""Which tool call a piece in a stream belongs to, whatever its server makes of ids, indexes and names.

Client libraries join the pieces of one index and take them literally: two calls of the same index become one, an id or
a name that comes twice is doubled.
"""

from typing import NamedTuple

_EMPTY_IDS = frozenset({None, "", "null"})  # "null" is what Mistral's schema fills in


def real_id(given: str | None) -> str | None:
    """The id of a call, if its server gave a real one."""
    return None if given in _EMPTY_IDS else given


class Place(NamedTuple):
    """Where a piece belongs."""

    number: int
    """Of the call, counted from 0."""
    is_first: bool
    """The call begins here: id and type are told now, and never again."""
    names: bool
    """The name is told here, and nowhere else."""


class CallNumbers:
    """Numbers the calls of one choice in the order in which they begin."""

    __slots__ = ("_by_id", "_by_index", "_count", "_in_delta", "_named")

    def __init__(self) -> None:
        self._by_id: dict[str, int] = {}
        self._by_index: dict[int, int] = {}
        self._in_delta: set[int] = set()  # indexes
        self._named: set[int] = set()
        self._count = 0

    def has(self, index: int | None) -> bool:
        """Whether an index is that of a call and the call's number."""
        return index is not None and self._by_index.get(index) == index

    def begin_delta(self) -> None:
        """The pieces that follow came together: two of them with names are two calls."""
        self._in_delta.clear()

    def place(self, call_id: str | None, index: int | None, name: str | None) -> Place:
        """The next piece.

        A new id is a new call, whatever the index says: some servers leave the index out or always say 0. Without an
        id, an index that is known from an earlier event continues that call, and a name begins another one.
        """
        known = None
        if call_id is not None:
            known = self._by_id.get(call_id)
        elif index in self._by_index and not (index in self._in_delta and name):
            known = self._by_index[index]
        elif not name and self._count:
            known = self._count - 1
        number = self._count if known is None else known
        if known is None:
            self._count += 1
            if call_id is not None:
                self._by_id[call_id] = number
        if index is not None:
            self._by_index[index] = number
            self._in_delta.add(index)
        names = bool(name) and number not in self._named
        if names:
            self._named.add(number)
        return Place(number, known is None, names)
