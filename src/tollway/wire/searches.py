"""Searches that a provider ran for a response, and bills by their number: an item of the output is one of them."""

from collections.abc import Mapping

import msgspec

from tollway.domain.usage import NO_OTHERS, Bucket
from tollway.wire.json import UNREADABLE, UNSET, Raw, Unset, decoder

_MARK = b"_search_call"
"""Nearly no answer has it anywhere, which costs little to know."""

_READING = frozenset({"open_page", "find_in_page"})
"""What a call may do in place of searching, free of charge."""


class _Item(msgspec.Struct, gc=False):
    type: str = ""
    action: Raw | Unset = UNSET


class _Action(msgspec.Struct, gc=False):
    type: str = ""


class _Response(msgspec.Struct, gc=False):
    output: list[_Item]


class _Event(msgspec.Struct, gc=False):
    response: _Response


_decode_response = decoder(_Response)
_decode_event = decoder(_Event)
_decode_action = decoder(_Action)


def may_hold_searches(text: bytes) -> bool:
    """Whether it is worth while to look."""
    return _MARK in text


def searches_of_response(body: bytes) -> Mapping[str, int]:
    """Those of a whole response, by bucket; none where there are none. Never raises."""
    try:
        return _counted(_decode_response(body))
    except UNREADABLE:
        return NO_OTHERS


def searches_of_event(data: bytes) -> Mapping[str, int]:
    """The same for the response within an event."""
    try:
        return _counted(_decode_event(data).response) if may_hold_searches(data) else NO_OTHERS
    except UNREADABLE:
        return NO_OTHERS


def _counted(response: _Response) -> Mapping[str, int]:
    web = sum(item.type == "web_search_call" and not _reads(item.action) for item in response.output)
    files = sum(item.type == "file_search_call" for item in response.output)
    counts = {Bucket.WEB_SEARCHES: web, Bucket.STORAGE_SEARCHES: files}
    return {bucket: count for bucket, count in counts.items() if count}


def _reads(action: Raw | Unset) -> bool:
    try:
        return not isinstance(action, Unset) and _decode_action(action).type in _READING
    except UNREADABLE:
        return False
