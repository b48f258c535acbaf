"""The parts of a message's content on the way to Mistral: text, pictures, sound, documents, thoughts."""

from types import UnionType
from typing import TypeAlias

import msgspec

from tollway.domain.refusals import BadRequest
from tollway.providers.mistral.draft import unsupported, unsupported_value
from tollway.wire.chat_messages import Content, Image, Part
from tollway.wire.json import UNREADABLE, UNSET, Raw, Unset, decoder, is_text

IMAGE_DETAILS = {"low": "low", "auto": "auto", "high": "high", "original": "high"}
"""OpenAI's words for the detail of a picture in Mistral's."""


class _TextPart(msgspec.Struct, gc=False, tag_field="type", tag="text"):
    text: str


class _ImageUrl(msgspec.Struct, gc=False, omit_defaults=True):
    url: Raw | str
    detail: str | None = None


class _ImagePart(msgspec.Struct, gc=False, tag_field="type", tag="image_url"):
    image_url: _ImageUrl


class _AudioPart(msgspec.Struct, gc=False, tag_field="type", tag="input_audio"):
    input_audio: str


class _DocumentPart(msgspec.Struct, gc=False, tag_field="type", tag="document_url", omit_defaults=True):
    document_url: str
    document_name: str | None = None


class _ThinkingPart(msgspec.Struct, gc=False, tag_field="type", tag="thinking", omit_defaults=True):
    thinking: Raw
    closed: bool | None = None


_Part: TypeAlias = _TextPart | _ImagePart | _AudioPart | _DocumentPart | _ThinkingPart
OutContent: TypeAlias = str | list[_Part]
"""The content of a message as Mistral takes it."""


class _Audio(msgspec.Struct, gc=False):
    data: str


class _File(msgspec.Struct, gc=False):
    file_data: str | None = None
    filename: str | None = None


_as_audio = decoder(_Audio)
_as_file = decoder(_File)


def text_of(content: Content, path: str) -> str | BadRequest:
    """The content as one text."""
    texts = texts_of(content, path, _TextPart)
    return "".join(part.text for part in texts if isinstance(part, _TextPart)) if isinstance(texts, list) else texts


def texts_of(
    content: Content, path: str, kinds: type[_Part] | UnionType = _TextPart | _ThinkingPart
) -> OutContent | BadRequest:
    """The content as a text or a list of texts and thoughts: what everybody but a user may say."""
    parts = parts_of(content, path)
    if isinstance(parts, list):
        for index, part in enumerate(parts):
            if not isinstance(part, kinds):
                kind = content[index].type if isinstance(content, list) else ""
                return unsupported_value(f"{path}.content[{index}].type", kind)
    return parts


def parts_of(content: Content, path: str) -> OutContent | BadRequest:
    """The content with everything that a user may show."""
    if isinstance(content, str):
        return content
    parts: list[_Part] = []
    for index, part in enumerate(content):
        where = f"{path}.content[{index}]"
        try:
            mapped = _part(part, where)
        except UNREADABLE:
            return BadRequest(f"Invalid '{where}'.", where, "invalid_value")
        if isinstance(mapped, BadRequest):
            return mapped
        parts.append(mapped)
    return parts


def _part(part: Part, where: str) -> _Part | BadRequest:
    match part.type:
        case "text" if part.text is not UNSET:
            return _TextPart(part.text)
        case "refusal" if part.refusal is not UNSET:
            return _TextPart(part.refusal)
        case "image_url" if part.image_url is not UNSET:
            return _ImagePart(_image(part.image_url))
        case "input_audio" if part.input_audio is not UNSET:
            return _AudioPart(_as_audio(part.input_audio).data)
        case "file" if part.file is not UNSET:
            file = _as_file(part.file)
            if file.file_data is None:
                return unsupported(f"{where}.file.file_id")
            return _DocumentPart(file.file_data, file.filename)
        case "thinking" if part.thinking is not UNSET:
            return _ThinkingPart(part.thinking, part.closed)
        case "text" | "refusal" | "image_url" | "input_audio" | "file" | "thinking":
            missing = f"{where}.{part.type}"
            return BadRequest(f"Missing required parameter: '{missing}'.", missing, "missing_required_parameter")
        case _:
            return unsupported_value(f"{where}.type", part.type)


def _image(image: Image | str) -> _ImageUrl:
    if isinstance(image, str):
        return _ImageUrl(image)
    if isinstance(image.url, Unset) or not is_text(image.url):
        raise msgspec.ValidationError("the address of a picture is a text")
    detail = None if image.detail is None else IMAGE_DETAILS.get(image.detail)
    return _ImageUrl(image.url, detail)
