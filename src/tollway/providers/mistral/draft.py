"""A request to Mistral while it is being made."""

import re

from tollway.domain.refusals import BadRequest
from tollway.providers.quirks import USUAL, Quirks
from tollway.wire.model_call import ModelCall

MAX_WARNINGS = 16
"""They go into one header line; a client that sends more unknown members than this has read enough."""

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.\[\]-]{1,64}")


class Draft:
    """The body so far and what could not be carried over into it."""

    __slots__ = ("body", "call", "model", "quirks", "warnings")

    def __init__(self, call: ModelCall, model: str, quirks: Quirks = USUAL) -> None:
        self.call = call
        self.model = model
        self.quirks = quirks
        self.body: dict[str, object] = {"model": model}
        self.warnings: list[str] = []

    def warn(self, verb: str, name: str) -> None:
        """Note a loss once. A client's own name for a member is told only if it is fit for a header."""
        warning = f"{verb}={name if _PLAIN_NAME.fullmatch(name) else 'unknown'}"
        if warning not in self.warnings and len(self.warnings) < MAX_WARNINGS:
            self.warnings.append(warning)

    @property
    def refusal(self) -> BadRequest | None:
        """The first loss, where the call is one that puts up with none."""
        if not (self.call.strict and self.warnings):
            return None
        verb, _, name = self.warnings[0].partition("=")
        code = "unsupported_parameter" if verb == "dropped" else "unsupported_value"
        return BadRequest(f"'{name}' cannot be passed on as it is to this model's provider.", name, code)


def unsupported(param: str, what: str = "is not supported") -> BadRequest:
    """A parameter that means something and cannot be carried over, so that leaving it out would be a lie."""
    return BadRequest(f"'{param}' {what} by this model's provider.", param, "unsupported_parameter")


def unsupported_value(param: str, value: str) -> BadRequest:
    """A value of a parameter that cannot be carried over."""
    return BadRequest(
        f"'{param}' with the value '{value}' is not supported by this model's provider.", param, "unsupported_value"
    )
