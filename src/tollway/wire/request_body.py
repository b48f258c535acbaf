"""What holds for every body that names a model: JSON in UTF-8, an object, a name fit to be written down."""

import re
from collections.abc import Callable
from typing import Protocol, TypeVar

import msgspec

from tollway.domain.refusals import BadRequest
from tollway.wire.json import UNREADABLE, Raw, is_utf8, members
from tollway.wire.structure import OF_REQUESTS, fits

MAX_MODEL_CHARACTERS = 256
"""Longer than any model's name; names go into headers, log lines and metrics."""


class _Named(Protocol):
    @property
    def model(self) -> str | None: ...


T = TypeVar("T", bound=_Named)


def read_body(body: bytes, decode: Callable[[bytes | Raw], T]) -> tuple[T, dict[str, Raw]] | BadRequest:
    """What a typed decoder makes of the body, and every member as it came; or what is wrong with it. Never raises."""
    if not fits(body, OF_REQUESTS):
        return TOO_MUCH
    try:
        known, top = decode(body), members(body)
    except msgspec.ValidationError as error:
        return wrong_value(str(error))
    except UNREADABLE:
        return NO_JSON
    if not is_utf8(body):
        return NO_JSON
    return (known, top) if known.model is None or is_model_name(known.model) else NO_MODEL_NAME


def read_beyond(
    body: bytes, refused: BadRequest, decode: Callable[[bytes | Raw], T]
) -> tuple[T, dict[str, Raw]] | BadRequest:
    """What a decoder with wider ranges makes of a body that one with OpenAI's has refused so, if that may help."""
    return refused if refused.param is None else read_body(body, decode)


def is_model_name(name: str) -> bool:
    """Whether this can be the name of a model."""
    return name.isprintable() and 0 < len(name) <= MAX_MODEL_CHARACTERS


NO_JSON = BadRequest("The body of the request is not valid JSON in UTF-8.", None, "invalid_json")
TOO_MUCH = BadRequest(
    "The body of the request holds more objects, lists or members than a request may.", None, "request_too_complex"
)
NO_MODEL_NAME = BadRequest("Invalid 'model': not the name of a model.", "model", "invalid_value")

_MAX_SAID = 300  # of the decoder's text, which may quote a value of the client's

_AT = re.compile(r" - at `\$\.?([^`]*)`$")
_MISSING = re.compile(r"^Object missing required field `(\w+)`$")
_CODES = (
    ("length >= 1", "empty_array"),
    ("of length", "invalid_value"),
    (", got ", "invalid_type"),
)


def wrong_value(said: str) -> BadRequest:
    """What a typed decoder said, in the words of OpenAI's errors, with the path of the member as ``param``."""
    at = _AT.search(said)
    path = at[1] if at else ""
    if at:
        said = said[: at.start()]
    if missing := _MISSING.match(said):
        path = f"{path}.{missing[1]}" if path else missing[1]
        return BadRequest(f"Missing required parameter: '{path}'.", path, "missing_required_parameter")
    code = next((code for words, code in _CODES if words in said), "invalid_value")
    said = said.replace("`", "")[:_MAX_SAID]
    if not path:
        return BadRequest(f"The body of the request is not what this path takes: {said}.", None, code)
    return BadRequest(f"Invalid '{path}': {said}.", path, code)
