"""A call that is judged by its body and carried over into a provider's dialect."""

from typing import Annotated, TypeAlias

import msgspec

from tollway.domain.asked import Asked
from tollway.wire.json import Raw

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Penalty: TypeAlias = Annotated[float, msgspec.Meta(ge=-2, le=2)]
Temperature: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=2)]
TopP: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1)]
Stop: TypeAlias = str | Annotated[list[str], msgspec.Meta(max_length=4)]
Seed: TypeAlias = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""Parameters that several operations have, with the ranges that hold for all providers."""


class StreamOptions(msgspec.Struct, gc=False):
    """What is looked at of a stream's options."""

    include_usage: bool | None = None


class ModelCall(Asked, frozen=True, gc=False, kw_only=True):
    """One request. Every operation has its own kind."""

    include_usage: bool = False
    """The client asked for a usage chunk at the end of its stream."""
    created: int = 0
    """When the request came, Unix seconds: for answers that do not say when they were made."""
    top: dict[str, Raw]
    """Every member of the body, unknown ones too."""
