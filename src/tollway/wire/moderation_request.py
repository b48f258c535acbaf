"""A client's request for a moderation: judged once, and kept as it came for the provider."""

from typing import Annotated

import msgspec

from tollway.domain.refusals import BadRequest
from tollway.wire.estimate import MEDIA_BYTES
from tollway.wire.json import UNSET, Raw, Unset, decoder
from tollway.wire.model_call import ModelCall
from tollway.wire.request_body import read_body


class InputPart(msgspec.Struct, gc=False):
    """One part of a single input of several kinds."""

    type: str
    text: str | Unset = UNSET
    image_url: Raw | Unset = UNSET


class ModerationCall(ModelCall, frozen=True, gc=False, kw_only=True):
    """One request to judge some inputs. ``model`` may be empty: the provider then takes its own choice."""

    input: tuple[str, ...] | tuple[InputPart, ...]
    """Texts, each with a result of its own, or the parts of one input, which have one result together."""


class _Parameters(msgspec.Struct, gc=False):
    input: str | Annotated[list[str | InputPart], msgspec.Meta(min_length=1)]
    model: str | None = None


_decode_parameters = decoder(_Parameters)


def parse_moderation(body: bytes, now_unix: int = 0) -> ModerationCall | BadRequest:
    """The call that these bytes ask for, or what is wrong with them. Never raises."""
    read = read_body(body, _decode_parameters)
    if isinstance(read, BadRequest):
        return read
    known, top = read
    items = [known.input] if isinstance(known.input, str) else known.input
    texts = tuple(item for item in items if isinstance(item, str))
    parts = tuple(item for item in items if isinstance(item, InputPart))
    if texts and parts:
        return BadRequest("Invalid 'input': texts and parts in one list.", "input", "invalid_type")
    return ModerationCall(
        model=known.model or "",
        max_output_tokens=0,
        prompt_bytes=len(top["input"]) - sum(map(_media_discount, parts)),
        input=parts or texts,
        created=now_unix,
        top=top,
    )


def _media_discount(part: InputPart) -> int:
    """How many bytes to take off, so that a picture counts flat (negative: to add)."""
    return 0 if isinstance(part.image_url, Unset) else len(part.image_url) - MEDIA_BYTES
