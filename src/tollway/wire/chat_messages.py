"""The messages of OpenAI's chat requests, as types: what they must hold, and what is looked at.

Members that are not named here pass to providers of the same dialect untouched and to others not at all.
"""

from typing import Annotated, TypeAlias

import msgspec

from tollway.wire.json import UNSET, Object, Raw, Unset


class Image(msgspec.Struct, gc=False):
    """Where a picture is, or the picture itself as a ``data:`` address."""

    url: Raw | Unset = UNSET
    """As it came: ten megabytes are not decoded for nothing."""
    detail: str | None = None


class Part(msgspec.Struct, gc=False):
    """One part of a content list; which member carries it depends on ``type``."""

    type: str
    text: str | Unset = UNSET
    refusal: str | Unset = UNSET
    image_url: Image | str | Unset = UNSET
    """A bare text in place of the object is a client's mistake that Mistral shares."""
    input_audio: Raw | Unset = UNSET
    file: Raw | Unset = UNSET
    thinking: Raw | Unset = UNSET
    """What a model thought, and whether that was all: Mistral's own, which others refuse."""
    closed: bool | None = None


Content: TypeAlias = str | Annotated[list[Part], msgspec.Meta(min_length=1)]


class CalledFunction(msgspec.Struct, gc=False):
    """A function's name and its arguments, JSON in a string."""

    name: str
    arguments: str


class ToolCall(msgspec.Struct, gc=False):
    """A call that the model asked for. ``function`` is missing where ``type`` is not ``function``."""

    id: str
    type: str = "function"
    function: CalledFunction | Unset = UNSET


class System(msgspec.Struct, tag_field="role", tag="system", gc=False):
    """Instructions."""

    content: Content
    name: str | None = None


class Developer(msgspec.Struct, tag_field="role", tag="developer", gc=False):
    """Instructions, by their newer name."""

    content: Content
    name: str | None = None


class User(msgspec.Struct, tag_field="role", tag="user", gc=False):
    """What a person said or showed."""

    content: Content
    name: str | None = None


class Assistant(msgspec.Struct, tag_field="role", tag="assistant", gc=False):
    """What the model said or wants to be called."""

    content: Content | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: CalledFunction | None = None
    audio: Object | None = None
    images: Raw | Unset = UNSET
    """Pictures that a model has made: OpenRouter's own."""
    reasoning_details: Raw | Unset = UNSET
    """What a model thought, sealed: the same."""
    name: str | None = None


class Tool(msgspec.Struct, tag_field="role", tag="tool", gc=False):
    """The result of a tool call. Programs write null for a tool that says nothing; not every provider takes it."""

    content: Content | None
    tool_call_id: str
    name: str | None = None


class Function(msgspec.Struct, tag_field="role", tag="function", gc=False):
    """The result of a function call, in the form from before there were tools."""

    name: str
    content: str | None


Message: TypeAlias = System | Developer | User | Assistant | Tool | Function
Messages: TypeAlias = Annotated[list[Message], msgspec.Meta(min_length=1)]
