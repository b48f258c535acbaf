"""A call that is judged by its body and carried over into a provider's dialect."""

from typing import Annotated, TypeAlias

import msgspec

from tollway.domain.asked import Asked
from tollway.domain.refusals import BadRequest
from tollway.wire.json import Raw

MAX_STOPS = 1_000
"""Stop sequences of one request: no program needs a hundred."""

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Choices: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=128)]
AnyStop: TypeAlias = str | Annotated[list[str], msgspec.Meta(max_length=MAX_STOPS)]
Seed: TypeAlias = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""Parameters that several operations have, with the ranges that hold for all providers: tokens are reserved for each
choice, and what the gateway holds is bounded."""

Penalty: TypeAlias = Annotated[float, msgspec.Meta(ge=-2, le=2)]
Temperature: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=2)]
TopP: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1)]
Stop: TypeAlias = str | Annotated[list[str], msgspec.Meta(max_length=4)]
"""… with the ranges of OpenAI itself, which other servers of its dialect do not share."""


class StreamOptions(msgspec.Struct, gc=False):
    """What is looked at of a stream's options."""

    include_usage: bool | None = None


class ModelCall(Asked, frozen=True, gc=False, kw_only=True):
    """One request. Every operation has its own kind."""

    include_usage: bool = False
    """The client asked for a usage chunk at the end of its stream."""
    created: int = 0
    """When the request came, Unix seconds: for answers that do not say when they were made."""
    beyond: BadRequest | None = None
    """What OpenAI itself would refuse, as it is out of OpenAI's ranges; providers that are not OpenAI may take it."""
    top: dict[str, Raw]
    """Every member of the body, unknown ones too."""
