"""The second reading of what a provider sent in OpenAI's dialect or in Mistral's, after strict types have refused it.

What the types of a dialect ask for is what client libraries take. A text that they refuse is one of three:

1. **Nothing in it**: null, a number, true or false, a word that only says that somebody is there (``ping``); an empty
   text, list or object, and lists of these; an object whose choices are null or missing and say nothing elsewhere, or
   choices that have neither a message nor a reason to end. It is skipped. A keep-alive has many forms.
2. **Odd but readable**: an object that can be made what OpenAI promises without a guess about what was said. Members
   that nobody needs go if they are of the wrong type, others are completed; texts are never left out:
   a number where a text belongs is that number's text, a list of parts is the text of its parts, an object of
   arguments is its JSON. Half characters and numbers that are none are made whole (``wire/loose_json.py``).
3. **Unreadable**: all else, as JSON that is cut, a page of HTML, a text in place of an object. It ends the answer.

It costs some ten microseconds and happens only to what was refused. Members keep their digits and their order.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import msgspec

from tollway.providers.reasons import real_reason
from tollway.providers.tool_numbers import MAX_CALLS
from tollway.wire.json import UNREADABLE, Raw, decoder, encode, is_null, members
from tollway.wire.loose_json import strict
from tollway.wire.model_call import ModelCall

Members: TypeAlias = dict[str, object]
"""Of an object that is being made tidy: each as it came, a :class:`Raw`, or made anew."""

_TEXT, _OBJECT, _LIST = b'"{['
_NULL = Raw(b"null")

_SIGN_OF_LIFE = re.compile(
    rb"\W*+(?:ping|pong|(?:keep|still)[ _-]?alive|heart[ _-]?beat|alive|noop|ok|null|none|undefined|true|false"
    rb"|[0-9.eE+-]*+)\W*+",
    re.IGNORECASE,
)
_LONGEST_SIGN = 64
_BOM = b"\xef\xbb\xbf"

_SAID = ("content", "refusal", "reasoning_content", "reasoning")
"""Members of a message or of a delta that are texts."""

_values: Callable[[bytes | Raw], list[Raw]] = decoder(list[Raw])
_as_text = decoder(str)
_as_number = decoder(float)
_as_any = decoder(Raw)

MAX_MENDS_OF_A_REPLY = 100_000
"""A whole answer may have a log probability that is none for each token and for each of its alternatives."""

LONGEST_CREATED = 2**53
"""A larger number is no time."""


class Missing(NamedTuple):
    """What stands in an answer where its server has written null, or nothing of any sense."""

    answer_id: str
    created: int
    model: str


def missing(call: ModelCall, data: bytes) -> Missing:
    """For the answer to a call that begins with these bytes, or is them."""
    return Missing(f"chatcmpl-{hashlib.sha256(data).hexdigest()[:24]}", call.created, call.model)


class Form(NamedTuple):
    """What a chat may look like."""

    name: str
    """Where a choice has what it says: ``delta`` or ``message``."""
    parts: frozenset[str] = frozenset()
    """Types of the objects that content may be a list of; none where it has to be a text."""
    sums_up: Callable[[str, bool], bool] = lambda text, ends: False
    """Whether a text that stands elsewhere than in a delta, perhaps at the end, only repeats what deltas have said."""


def chat_chunk(
    data: bytes, otherwise: Missing, sums_up: Callable[[str, bool], bool], *, parts: frozenset[str] = frozenset()
) -> bytes | None:
    """A chunk of a chat stream; None where there is nothing in it. May raise UNREADABLE."""
    form = Form("delta", parts, sums_up)
    return _chunk(data, otherwise, "chat.completion.chunk", lambda choice, place: _chat(choice, place, form))


def text_chunk(data: bytes, otherwise: Missing) -> bytes | None:
    """The same for a stream of legacy completions."""
    return _chunk(data, otherwise, "text_completion", _text_choice)


def chat_reply(data: bytes, otherwise: Missing, *, parts: frozenset[str] = frozenset()) -> bytes:
    """A whole answer of a chat. May raise UNREADABLE."""
    form = Form("message", parts)
    return _reply(data, otherwise, "chat.completion", lambda choice, place: _chat(choice, place, form))


def text_reply(data: bytes, otherwise: Missing) -> bytes:
    """A whole legacy completion. May raise UNREADABLE."""
    return _reply(data, otherwise, "text_completion", _text_choice)


def is_sign_of_life(data: bytes) -> bool:
    """Whether an event only says that somebody is there."""
    return len(data) <= _LONGEST_SIGN and _SIGN_OF_LIFE.fullmatch(data) is not None


# --- the outermost object ------------------------------------------------------------------------------------

_Choice: TypeAlias = Callable[[dict[str, Raw], int], Members | None]
"""Makes one choice tidy; the number is its place in the list. None where there is nothing in it."""


def may_say_elsewhere(data: bytes) -> bool:
    """Whether an object without choices may have something to say elsewhere."""
    return any(name in data for name in _NAMES_ELSEWHERE)


_Found: TypeAlias = list[tuple[dict[str, Raw], int]]
"""Choices as they came, each with its place."""

_ELSEWHERE = ("delta", "message", "text", "content")
"""Where servers that forget the choices put what they have to say."""

_NAMES_ELSEWHERE = tuple(name.encode() for name in _ELSEWHERE)


def _chunk(data: bytes, otherwise: Missing, kind: str, tidy: _Choice) -> bytes | None:
    top = _top(strict(data))
    if top is None:
        return None
    found = _choices(top)
    choices = [choice for raw, place in found if (choice := tidy(raw, place)) is not None]
    if not choices and not top.keys() - {"choices", *_HEAD}:
        return None
    return _written(top, found, choices, otherwise, kind)


def _reply(data: bytes, otherwise: Missing, kind: str, tidy: _Choice) -> bytes:
    top = _top(strict(data, MAX_MENDS_OF_A_REPLY))
    found = [] if top is None else _choices(top, ("message", "delta"))
    choices = [tidy(raw, place) for raw, place in found]
    if top is None or not any(choices):
        raise msgspec.ValidationError("no choice that says anything")
    filled = [choice or tidy({**raw, **_STOPPED}, place) for choice, (raw, place) in zip(choices, found, strict=True)]
    return _written(top, found, filled, otherwise, kind)


def _written(
    top: Mapping[str, Raw], found: _Found, choices: Sequence[Members | None], otherwise: Missing, kind: str
) -> bytes:
    if found and "choices" not in top:  # what stood elsewhere does not stay there
        top = {name: raw for name, raw in top.items() if name not in found[0][0]}
    written = _with_head(top, otherwise, kind)
    if choices or not is_null(top.get("choices", _NULL)):
        return encode({**written, "choices": choices})
    written.pop("choices", None)  # where there is no place for them, an event may be about something else
    return encode(written)


_STOPPED = {"finish_reason": Raw(b'"stop"')}


def _top(data: bytes, depth: int = 0) -> dict[str, Raw] | None:
    """The members of the object that this is, or that stands alone in a list, or as JSON in a text."""
    text = data.removeprefix(_BOM).strip()
    if not text or is_sign_of_life(text):
        return None
    match text[0]:
        case 0x7B:  # {
            return members(text) or None
        case 0x5B if depth < _WRAPPINGS:  # [
            something = [top for raw in _values(text) if (top := _top(bytes(raw), depth + 1)) is not None]
            if len(something) > 1:
                raise msgspec.ValidationError("several objects in one event")
            return something[0] if something else None
        case 0x22 if depth < _WRAPPINGS:  # "
            return _top(strict(_as_text(text).encode()), depth + 1)
        case 0x5B | 0x22:
            raise msgspec.ValidationError("wrapped too often")
    _as_any(text)  # a number, true or false
    return None


_WRAPPINGS = 2
_MOST_CHOICES = 10_000  # of completions; of chats see bounds.py


def _choices(top: Mapping[str, Raw], elsewhere: Sequence[str] = _ELSEWHERE) -> _Found:
    """The objects among the choices, each with its place; a choice that is alone may stand for the list."""
    raw = top.get("choices")
    items: Sequence[Raw] = ()
    if raw is None or is_null(raw):
        said = _only(top, *elsewhere)
        if "message" in said and _kind(said["message"]) != _OBJECT:
            said = {}  # it says what went wrong
        return [({**said, **_only(top, "finish_reason", "index")}, 0)] if said and "error" not in top else []
    if (first := _kind(raw)) == _LIST:
        items = _values(raw)
    elif first == _OBJECT:
        named = members(raw)
        if not named.keys().isdisjoint((*_ELSEWHERE, "finish_reason")):
            return [(named, 0)]
        items = tuple(named.values())  # a list whose writer numbers its items
    elif first == _TEXT and text_of(raw).strip():
        raise msgspec.ValidationError("a text in place of the choices")
    if len(items) > _MOST_CHOICES:
        raise msgspec.ValidationError("more choices than any answer has")
    return [(members(item), place) for place, item in enumerate(items) if _kind(item) == _OBJECT]


_HEAD = ("id", "object", "created", "model", "system_fingerprint", "service_tier")


def _with_head(top: Mapping[str, Raw], otherwise: Missing, kind: str) -> Members:
    """The members of an answer with those that say which one it is in the right type."""
    head: Members = {**top}
    if "id" in top:
        head["id"] = text_of(top["id"]) or otherwise.answer_id
    if "object" in top and _kind(top["object"]) != _TEXT:
        head["object"] = kind
    if "created" in top:
        head["created"] = _time(top["created"], otherwise.created)
    if "model" in top:
        head["model"] = text_of(top["model"]) or otherwise.model
    if "usage" in top and _kind(top["usage"]) != _OBJECT:
        head["usage"] = None
    if "error" in top and is_null(top["error"]):
        del head["error"]
    return head


def _time(raw: Raw, otherwise: int) -> int:
    number = _number(raw)
    return otherwise if number is None or not 0 <= number < LONGEST_CREATED else int(number)


# --- what is said --------------------------------------------------------------------------------------------


def _chat(choice: dict[str, Raw], place: int, form: Form) -> Members | None:
    """A choice of a chat."""
    said, name = _said(choice, form), form.name
    reason = real_reason(_plain(choice.get("finish_reason")))
    if said is None:
        if reason is None and "messages" not in choice:
            return None
        said = {} if name == "delta" else {"role": "assistant", "content": None}
    rest = {member: raw for member, raw in choice.items() if member not in _ELSEWHERE or member == name}
    index = _index(choice.get("index"))
    return {**rest, "index": place if index is None else index, name: said, "finish_reason": reason, **_fit(choice)}


def _said(choice: Mapping[str, Raw], form: Form) -> Members | None:
    """What stands under the right name, else under a wrong one; an empty list is how some languages write {}."""
    for member in (form.name, *_ELSEWHERE):
        raw = choice.get(member)
        if raw is None or is_null(raw):
            continue
        kind = _kind(raw)
        said = members(raw) if kind == _OBJECT and member != "content" else {"content": raw}
        if kind == _LIST and member in ("delta", "message"):
            if _values(raw):
                raise msgspec.ValidationError("a list in place of a message")
            return {}
        ends = kind == _OBJECT and real_reason(_plain(choice.get("finish_reason"))) is not None
        if member != form.name and form.sums_up(text_of(said.get("content", _NULL)), ends):
            return {}
        return _tidy_message(said, form)
    return None


def _tidy_message(given: dict[str, Raw], form: Form) -> Members:
    said: Members = {**given}
    role = given.get("role")
    if role is not None and not is_null(role) and _plain(role) != "assistant":
        del said["role"]
    if form.name == "message":
        said = {"role": "assistant", **said}
    for member in _SAID:
        raw = given.get(member)
        if raw is None or is_null(raw) or _kind(raw) == _TEXT:
            continue
        if member == "content" and _kind(raw) in (_LIST, _OBJECT):
            said |= _content(raw, form)
        else:
            said[member] = text_of(raw)
    if "tool_calls" in given:
        _put(said, "tool_calls", _tidy_calls(given["tool_calls"]))
    if "function_call" in given:
        raw = given["function_call"]
        _put(said, "function_call", _tidy_function(members(raw)) if _kind(raw) == _OBJECT else None)
    return said


def _put(said: Members, name: str, value: object) -> None:
    if value is None:
        del said[name]
    else:
        said[name] = value


def _content(raw: Raw, form: Form) -> Members:
    """A list of parts: as such where that is what the dialect has, else its texts, and thoughts where OpenAI's
    imitators put them. Where the model refuses is told apart."""
    parts = _values(raw) if _kind(raw) == _LIST else [raw]
    refusal = "".join(text_of(part) for part in parts if _has(part, "refusal"))
    said: Members = {"refusal": refusal} if refusal else {}
    parts = [part for part in parts if not _has(part, "refusal")]
    if form.parts:
        return {**said, "content": [_tidy_part(part, form.parts) for part in parts if not is_null(part)]}
    thoughts = "".join(text_of(part) for part in parts if _has(part, "thinking"))
    said["content"] = "".join(text_of(part) for part in parts if not _has(part, "thinking"))
    return {**said, "reasoning_content": thoughts} if thoughts else said


def _has(part: Raw, name: str) -> bool:
    return _kind(part) == _OBJECT and name in members(part)


def _tidy_part(raw: Raw, types: frozenset[str], depth: int = 0) -> Members:
    if _kind(raw) != _OBJECT or depth > 1:
        return {"type": "text", "text": text_of(raw)}
    part = members(raw)
    tidy: Members = {**part}
    if "type" not in part or _kind(part["type"]) != _TEXT:
        tidy["type"] = "thinking" if "thinking" in part else "text"
    if _plain(part.get("type")) not in types and "thinking" not in part:
        text = text_of(raw)
        return {"type": "text", "text": text} if text else {"type": UNKNOWN_PART}
    if "text" in part and not is_null(part["text"]):
        tidy["text"] = text_of(part["text"])
    if "thinking" in part and not is_null(thinking := part["thinking"]):
        is_list = _kind(thinking) == _LIST
        tidy["thinking"] = (
            [_tidy_part(item, types, depth + 1) for item in _values(thinking)] if is_list else text_of(thinking)
        )
    return tidy


def text_of(raw: Raw, depth: int = 0) -> str:
    """The text that a value is, whatever its type."""
    match _kind(raw):
        case 0x22:  # "
            return _as_text(raw)
        case 0x6E:  # null
            return ""
        case 0x5B if depth < _DEEPEST:  # [
            return "".join(text_of(item, depth + 1) for item in _values(raw))
        case 0x7B if depth < _DEEPEST:  # {
            part = members(raw)
            return next((text for name in _TEXTS if name in part and (text := text_of(part[name], depth + 1))), "")
        case 0x5B | 0x7B:
            return ""
    return bytes(raw).decode()


_TEXTS = ("text", "content", "thinking", "value", "parts", "output_text", "refusal")
"""Where an object that is a text, or a part of one, may have it."""

UNKNOWN_PART = "unknown"

_DEEPEST = 4
"""How deep texts are looked for: a list of parts, each with a list of thoughts, each with its text."""


# --- calls of tools ------------------------------------------------------------------------------------------


def _tidy_calls(raw: Raw) -> list[Members] | None:
    kind = _kind(raw)
    if kind == _OBJECT:
        return [_tidy_call(members(raw))] if members(raw) else None
    if kind != _LIST:
        return None
    calls = _values(raw)
    if len(calls) > MAX_CALLS:
        raise msgspec.ValidationError("more calls than any answer has")
    return [_tidy_call(members(item)) for item in calls if _kind(item) == _OBJECT]


def _tidy_call(given: dict[str, Raw]) -> Members:
    call: Members = {**given}
    for name in ("id", "type"):
        if name in given and _kind(given[name]) != _TEXT:
            _put(call, name, text_of(given[name]) or None if name == "id" else None)
    if "index" in given:
        _put(call, "index", _index(given["index"]))
    flat = _only(given, "name", "arguments")
    call = {name: value for name, value in call.items() if name not in flat}
    function = given.get("function")
    if function is not None:
        call["function"] = _tidy_function({**flat, **members(function)} if _kind(function) == _OBJECT else flat)
    elif _plain(given.get("type")) == "custom":
        call["custom"] = given.get("custom") or _only(given, "name", "input")
    elif "custom" not in given:
        call["function"] = _tidy_function(flat)
    return call


def _tidy_function(given: dict[str, Raw]) -> Members:
    function: Members = {**given}
    if "name" in given and _kind(given["name"]) != _TEXT:
        _put(function, "name", text_of(given["name"]) or None)
    if "arguments" in given and _kind(arguments := given["arguments"]) != _TEXT:
        _put(function, "arguments", None if is_null(arguments) else bytes(arguments).decode())
    return function


# --- legacy completions --------------------------------------------------------------------------------------


def _text_choice(choice: dict[str, Raw], place: int) -> Members | None:
    """A choice of a completion. Its text may stand where a chat has it."""
    reason = real_reason(_plain(choice.get("finish_reason")))
    source = next(
        (choice[name] for name in ("text", *_ELSEWHERE) if name in choice and not is_null(choice[name])), None
    )
    if source is None and reason is None:
        return None
    rest = {name: raw for name, raw in choice.items() if name not in _ELSEWHERE}
    index = _index(choice.get("index"))
    text = "" if source is None else text_of(source)
    return {"text": text, **rest, "index": place if index is None else index, "finish_reason": reason, **_fit(choice)}


# --- values --------------------------------------------------------------------------------------------------


def _fit(choice: Mapping[str, Raw]) -> Members:
    """Log probabilities are an object, or null."""
    raw = choice.get("logprobs")
    return {} if raw is None or is_null(raw) or _kind(raw) == _OBJECT else {"logprobs": None}


def _only(given: Mapping[str, Raw], *names: str) -> dict[str, Raw]:
    return {name: given[name] for name in names if name in given}


def _kind(raw: Raw) -> int:
    """The first byte of a value, which says its type."""
    return memoryview(raw)[0]


def _plain(raw: Raw | None) -> str | None:
    """The text that a value is; None for everything else."""
    return _as_text(raw) if raw is not None and _kind(raw) == _TEXT else None


def _number(raw: Raw) -> float | None:
    """The number that a value is, or that stands in a text."""
    try:
        return _as_number(_as_text(raw).encode() if _kind(raw) == _TEXT else raw)
    except UNREADABLE:
        return None


def _index(raw: Raw | None) -> int | None:
    """A place in a list, also as a text or with a decimal point."""
    number = None if raw is None else _number(raw)
    return None if number is None or number < 0 or number != int(number) else int(number)
