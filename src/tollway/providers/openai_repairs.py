"""What is mended in a request on its way to a server that speaks OpenAI's dialect; everything else is spliced."""

from tollway.providers.quirks import Quirks
from tollway.wire.json import Raw, decoder, is_null, is_text

REASONING_MODELS = ("o1", "o3", "o4", "gpt-5", "gpt-6")
"""How the names of OpenAI's models begin that refuse ``max_tokens``, by whatever server they are served."""

_OLD, _NEW = "max_tokens", "max_completion_tokens"
_LIST = ord("[")


def put_cap(top: dict[str, object], model: str, quirks: Quirks) -> dict[str, object]:
    """The members with the cap on the output under the name that the server and the model take.

    Of two the newer one wins; one that is null is none.
    """
    if not quirks.max_completion_tokens:
        return _under(_OLD, _NEW, top) if _NEW in top else top
    if _OLD in top and model.startswith(REASONING_MODELS):
        return _under(_NEW, _OLD, top)
    return top


def _under(taken: str, refused: str, top: dict[str, object]) -> dict[str, object]:
    """The cap under the name that is taken, where the other one stood."""
    caps = [cap for name in (_NEW, _OLD) if isinstance(cap := top.get(name), Raw) and not is_null(cap)]
    rest = {taken if name == refused else name: value for name, value in top.items() if name != taken}
    if caps:
        return {**rest, taken: caps[0]}
    del rest[taken]
    return rest


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
