"""Tools on the way to Mistral: definitions, the choice among them, and the ids of their calls."""

import hashlib
import re

import msgspec

from tollway.domain.refusals import BadRequest
from tollway.providers.mistral.draft import Draft, unsupported_value
from tollway.wire.chat_request import ChatCall
from tollway.wire.json import UNREADABLE, UNSET, Raw, Unset, decoder, encode, is_null, is_text

ID_CHARACTERS = 9
"""Mistral takes nine letters or digits as the id of a call, its newer models more; nine are good everywhere."""

CHOICES = {"auto": "auto", "none": "none", "required": "any", "any": "any"}
"""OpenAI's words for ``tool_choice`` in Mistral's; ``required`` is not known to all of its servers."""

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
FUNCTION_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_FITS = re.compile(r"[A-Za-z0-9]{9}")
_NULL = Raw(b"null")
_NO_PARAMETERS = Raw(b'{"type":"object","properties":{}}')


class _Function(msgspec.Struct, gc=False, omit_defaults=True):
    name: str
    description: str | None = None
    strict: bool | None = None
    parameters: Raw | Unset = UNSET


class _Tool(msgspec.Struct, gc=False):
    type: str
    function: _Function | None = None


class _Named(msgspec.Struct, gc=False):
    name: str


class _Chosen(msgspec.Struct, gc=False):
    type: str
    function: _Named | None = None


class _Allowed(msgspec.Struct, gc=False):
    mode: str
    tools: list[_Chosen]


class _Choice(_Chosen, gc=False):
    allowed_tools: _Allowed | None = None


_as_tools = decoder(list[_Tool])
_as_functions = decoder(list[_Function])
_as_text = decoder(str)
_as_choice = decoder(_Choice)


def put_tools(draft: Draft, call: ChatCall) -> BadRequest | None:
    """Put tools, choice and parallelism into the draft; the last two mean nothing without the first."""
    top = call.top
    if call.legacy_functions:
        param, choice_param, choice = "functions", "function_call", _modern(top.get("function_call", _NULL))
        tools = [_Tool("function", function) for function in _as_functions(top["functions"])]
    else:
        param, choice_param, choice = "tools", "tool_choice", top.get("tool_choice", _NULL)
        given = top.get("tools", _NULL)
        tools = [] if is_null(given) else _as_tools(given)
    if not tools:
        return None
    for index, tool in enumerate(tools):
        function = tool.function
        if tool.type != "function" or function is None:
            return unsupported_value(f"{param}[{index}].type", tool.type)
        if not FUNCTION_NAME.fullmatch(function.name):
            where = f"{param}[{index}].name" if call.legacy_functions else f"{param}[{index}].function.name"
            return bad_name(where)
        if function.parameters is UNSET or is_null(function.parameters):
            function.parameters = _NO_PARAMETERS
    draft.body["tools"] = tools
    if not is_null(choice):
        try:
            if refusal := _put_choice(choice, tools, draft, choice_param):
                return refusal
        except UNREADABLE:
            return BadRequest(f"Invalid '{choice_param}'.", choice_param, "invalid_value")
    parallel = top.get("parallel_tool_calls")
    if parallel is not None and not is_null(parallel):
        draft.body["parallel_tool_calls"] = parallel
    return None


def bad_name(where: str) -> BadRequest:
    """A function's name that Mistral would not take."""
    return BadRequest(f"Invalid '{where}': at most 64 letters, digits, '_' and '-'.", where, "invalid_value")


def _modern(choice: Raw) -> Raw:
    """A ``function_call`` as a ``tool_choice``: only a named function is written differently."""
    if is_null(choice) or is_text(choice):
        return choice
    return Raw(encode({"type": "function", "function": choice}))


def _put_choice(raw: Raw, tools: list[_Tool], draft: Draft, param: str) -> BadRequest | None:
    if is_text(raw):
        word = _as_text(raw)
        if word not in CHOICES:
            return unsupported_value(param, word)
        draft.body["tool_choice"] = CHOICES[word]
        return None
    choice = _as_choice(raw)
    if choice.type == "function" and choice.function is not None:
        if not _named(tools, {choice.function.name}):
            return _not_there(param)
        draft.body["tool_choice"] = {"type": "function", "function": choice.function}
        return None
    allowed = choice.allowed_tools
    if choice.type != "allowed_tools" or allowed is None or allowed.mode not in CHOICES:
        return unsupported_value(f"{param}.type", choice.type)
    fewer = _named(tools, {tool.function.name for tool in allowed.tools if tool.function is not None})
    if not fewer:
        return _not_there(param)
    draft.body["tools"], draft.body["tool_choice"] = fewer, CHOICES[allowed.mode]
    return None


def _named(tools: list[_Tool], names: set[str]) -> list[_Tool]:
    return [tool for tool in tools if tool.function is not None and tool.function.name in names]


def _not_there(param: str) -> BadRequest:
    return BadRequest(f"Invalid '{param}': it names no function that is there.", param, "invalid_value")


class CallIds:
    """Maps the ids of tool calls in one request to ids that Mistral takes; the same id always to the same.

    Stateless between requests, so that prompts stay equal from turn to turn and caches at the provider hold.
    """

    __slots__ = ("_given", "_taken")

    def __init__(self) -> None:
        self._given: dict[str, str] = {}
        self._taken: set[str] = set()

    def __getitem__(self, original: str) -> str:
        known = self._given.get(original)
        if known is not None:
            return known
        candidate, attempt = original, 0
        while candidate in self._taken or not _FITS.fullmatch(candidate):
            candidate = short_id(original if attempt == 0 else f"{original}#{attempt}")
            attempt += 1
        self._taken.add(candidate)
        self._given[original] = candidate
        return candidate


def short_id(text: str) -> str:
    """Nine letters and digits that follow from the text and, for all practical purposes, from no other."""
    number = int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest())
    digits = []
    for _ in range(ID_CHARACTERS):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(digits)
