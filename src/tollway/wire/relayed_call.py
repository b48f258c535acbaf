"""The JSON body of a call that is relayed: judged as far as the gateway must, and kept as it came for the provider."""

import re

import msgspec

from tollway.domain.refusals import BadRequest
from tollway.wire import media
from tollway.wire.json import UNREADABLE, UNSET, Raw, Unset, decoder, encode, is_null, is_text, is_utf8, members
from tollway.wire.request_body import NO_JSON, NO_MODEL_NAME, TOO_MUCH, is_model_name, wrong_value
from tollway.wire.stretches import after_blanks, matches, value_after
from tollway.wire.structure import OF_REQUESTS, fits


class RelayedCall(msgspec.Struct, frozen=True, gc=False):
    """One call, as far as the gateway needs to know it."""

    model: str | None
    stream: bool
    max_output_tokens: int | None
    """The client's own cap, where it is a count; what else it may be is the provider's to judge."""
    prompt_bytes: int
    """Size of everything that becomes input tokens; pictures and the like count flat (``wire/estimate.py``)."""
    refers_to_stored: str | None
    """The first member that names something kept at the provider, or asks for an answer that is kept there to be
    fetched later: only for a key with a provider key of its own."""
    top: dict[str, Raw]
    """Every member of the body, unknown ones too."""

    def body(self, model: str | None = None) -> bytes:
        """The body, with another model where one is given; every other member as it came, and once."""
        return encode(self.top if model is None else {**self.top, "model": model})


class _Judged(msgspec.Struct, gc=False):
    model: str | None = None
    stream: bool | None = None


_JUDGED = ("model", "stream")

_decode_judged = decoder(_Judged)
_decode_cap = decoder(int)
_decode_text = decoder(str)

_MAX_CAP = 2**31 - 1

_PROMPT_MEMBERS = ("input", "instructions", "tools", "text", "prompt", "questions", "messages", "additional_messages")
"""What a model reads, in any of the calls."""

_NOTHING = Raw(b"null")

_CAPS = ("max_output_tokens", "max_completion_tokens", "max_tokens")


def parse_relayed(body: bytes, *, may_be_empty: bool = False) -> RelayedCall | BadRequest:
    """The call that these bytes make, or what is wrong with them. Never raises."""
    if may_be_empty and not body:
        return RelayedCall(None, False, None, 0, None, {})
    if not fits(body, OF_REQUESTS):
        return TOO_MUCH
    try:
        top = members(body)
        judged = _decode_judged(encode({name: top[name] for name in _JUDGED if name in top}))
    except msgspec.ValidationError as error:
        return wrong_value(str(error))
    except UNREADABLE:
        return NO_JSON
    if not is_utf8(body):
        return NO_JSON
    model = judged.model
    if model is not None and not is_model_name(model):
        return NO_MODEL_NAME
    items = _items(top)
    return RelayedCall(
        model=model,
        stream=judged.stream is True,
        max_output_tokens=_cap(top),
        prompt_bytes=sum(len(top[name]) for name in _PROMPT_MEMBERS if name in top) - _media_discount(top),
        refers_to_stored=_refers_to_stored(top, items),
        top=top,
    )


def characters(call: RelayedCall) -> int:
    """Of the text that is to be spoken; 0 where there is none."""
    try:
        return len(_decode_text(call.top.get("input", _NOTHING)))
    except UNREADABLE:
        return 0


def _cap(top: dict[str, Raw]) -> int | None:
    for name in _CAPS:
        try:
            cap = _decode_cap(top.get(name, _NOTHING))
        except UNREADABLE:
            continue
        if 0 <= cap <= _MAX_CAP:
            return cap
    return None


class _Item(msgspec.Struct, gc=False):
    """One item of the input of a response."""

    type: str | None = None
    role: str | None = None


class _Content(msgspec.Struct, gc=False):
    """What an item of the input holds, if that is a list."""

    content: Raw | Unset = UNSET


_decode_items = decoder(list[_Item])
_decode_content = decoder(_Content)
_decode_raws = decoder(list[Raw])


def _items(top: dict[str, Raw]) -> list[_Item]:
    """The items of the input, where it has some; what looks different is text to us."""
    try:
        return _decode_items(top["input"]) if "input" in top and not is_text(top["input"]) else []
    except UNREADABLE:
        return []


def _media_discount(top: dict[str, Raw]) -> int:
    """How many bytes to take off, so that each medium counts flat (negative: to add)."""
    discount = 0
    for item in _raws(top.get("input", _NOTHING)):
        try:
            content = _decode_content(item).content
        except UNREADABLE:
            continue
        if isinstance(content, Unset):
            discount += media.discount(item)
        elif not is_text(content):
            discount += sum(map(media.discount, _raws(content)))
    return discount


def _raws(raw: Raw) -> list[Raw]:
    try:
        return [] if is_text(raw) or is_null(raw) else _decode_raws(raw)
    except UNREADABLE:
        return []


_REFERRING = ("input", "tools", "images", "mask", "prompt_cache_options", "background_options")
"""Members that may hold a reference, at any depth."""


def _spelled(name: str) -> str:
    """A name in every way in which JSON may spell it: each letter as itself or by its number."""
    return "".join(rf"(?:{letter}|\\u00(?i:{ord(letter):02x}))" for letter in name)


def _any_of(*names: str) -> str:
    return "|".join(map(_spelled, names))


_IDS = _any_of("file_id", "container", "comparison_response_id", "continuation_id")
_LISTS = _any_of("file_ids", "vector_store_ids")
_TYPES = _any_of("item_reference", "container_reference", "skill_reference")

_NAME = re.compile(rf'"(?:(?P<id>{_IDS})|(?P<list>{_LISTS})|(?P<type>{_spelled("type")}))"'.encode())
"""Of a member that may name what is kept. A string cannot look like it, as its quotes are escaped."""

_TYPE = re.compile(rf'"(?:{_TYPES})'.encode())
_LONGEST_NAME = 256  # bytes, with every letter written as a number


def _refers_to_stored(top: dict[str, Raw], items: list[_Item]) -> str | None:
    for name, raw in top.items():
        match name:
            case "previous_response_id" | "conversation":
                refers = not is_null(raw)
            case "prompt" | "voice":  # a text, or the id of a stored one
                refers = not (is_null(raw) or is_text(raw))
            case "background":
                refers = len(raw) == len(b"true") and bytes(raw) == b"true"
            case _:
                refers = name in _REFERRING and _holds_a_reference(raw)
        if refers:
            return name
    bare = any(item.type is None and item.role is None for item in items)  # the type of a reference may be left out
    return "input" if bare else None


def _holds_a_reference(raw: Raw) -> bool:
    text = memoryview(raw)
    return any(_is_reference(text, name) for name in matches(_NAME, text, _LONGEST_NAME))


def _is_reference(text: memoryview, name: re.Match[bytes]) -> bool:
    """Whether a text follows, or a list of them: what follows such a name in a function's schema is an object."""
    at = value_after(text, name.end())
    if at is None:
        return False
    if name["type"]:
        return _TYPE.match(text, at, at + _LONGEST_NAME) is not None
    if name["list"]:
        if bytes(text[at : at + 1]) != b"[":
            return False
        at = after_blanks(text, at + 1)
    return bytes(text[at : at + 1]) == b'"'
