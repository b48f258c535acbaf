"""The answers of the models endpoint: what a key may use, in OpenAI's format."""

from collections.abc import Iterable
from typing import Literal

import msgspec

from tollway.wire.json import encode


class Model(msgspec.Struct, gc=False, kw_only=True):
    """One model as clients see it."""

    id: str
    object: Literal["model"] = "model"
    created: int
    """Unix seconds."""
    owned_by: str


class _List(msgspec.Struct, gc=False, kw_only=True):
    object: Literal["list"] = "list"
    data: list[Model]


def model_list(models: Iterable[Model]) -> bytes:
    """All of them, in the order given."""
    return encode(_List(data=list(models)))


def model_object(model: Model) -> bytes:
    """A single one."""
    return encode(model)
