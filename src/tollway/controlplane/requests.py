"""Bodies of administrative requests: typed, strict, small."""

import re
from typing import TypeVar

import msgspec
from starlette.requests import Request

from tollway.controlplane.errors import ApiError
from tollway.wire.json import UNREADABLE, decoder

MAX_BODY = 64 * 1024
"""Bytes; no administrative request of any sense is larger."""

T = TypeVar("T")

_PATH = re.compile(r" - at `(?:key in )?\$(?:\.([A-Za-z0-9_]+))?")
_MEMBER = re.compile(r"(?:required|unknown) field `([^`]{1,100})`")


async def read(request: Request, kind: type[T]) -> T:
    """The body as a value of this type; an empty body is an empty object. The content type does not matter.

    Raises ApiError, with the member at fault as its ``param``.
    """
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY:
            raise ApiError(413, f"The body is larger than {MAX_BODY} bytes.", "request_too_large")
    try:
        return decoder(kind)(bytes(body) or b"{}")
    except msgspec.ValidationError as error:
        raise ApiError(400, f"{error}.", "invalid_request", _param(str(error))) from None
    except UNREADABLE as error:
        raise ApiError(400, f"The body is not valid JSON: {error}.", "invalid_json") from None


def _param(message: str) -> str | None:
    """The member that a decoder's message is about."""
    if missing := _MEMBER.search(message):
        return missing[1]
    at = _PATH.search(message)
    return at[1] if at else None
