"""What is mended in a request on its way to a server that speaks OpenAI's dialect; everything else is spliced."""

from tollway.providers.quirks import Quirks
from tollway.wire.json import Raw, decoder, is_null, is_text

REASONING_MODELS = ("o1", "o3", "o4", "gpt-5", "gpt-6")
"""How the names of OpenAI's models begin that refuse ``max_tokens``, by whatever server they are served."""

_OLD, _NEW = "max_tokens", "max_completion_tokens"
_LIST = ord("[")


def put_cap(top: dict[str, object], model: str, quirks: Quirks) -> dict[str, object]:
    """The members with the cap on the output under the name that the server and the model take; the newer one wins."""
    if not quirks.max_completion_tokens:
        return _renamed(top, _NEW, _OLD) if _NEW in top else top
    if _OLD in top and model.startswith(REASONING_MODELS):
        return top if is_null(top[_OLD]) else _renamed(top, _OLD, _NEW)  # type: ignore[arg-type]  # a member is Raw
    return top


def _renamed(top: dict[str, object], name: str, other: str) -> dict[str, object]:
    cap = top[_NEW] if _NEW in top else top[_OLD]
    kept = {key: value for key, value in top.items() if key != other}
    return {other if key == name else key: cap if key == name else value for key, value in kept.items()}


_as_objects = decoder(list[dict[str, Raw]])


def with_image_objects(messages: Raw) -> object:
    """The messages with every picture's bare address as the object that OpenAI wants."""
    return [
        {**message, "content": [_part(part) for part in _as_objects(content)]}
        if (content := message.get("content")) is not None and memoryview(content)[0] == _LIST
        else message
        for message in _as_objects(messages)
    ]


def _part(part: dict[str, Raw]) -> object:
    address = part.get("image_url")
    return {**part, "image_url": {"url": address}} if address is not None and is_text(address) else part
