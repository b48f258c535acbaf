"""What every upstream dialect offers. Adapters are pure: no clock, no socket, no logger, no environment, no credential.

To add a provider that speaks a dialect that is already here: one row in ``table.py``.
To add a dialect: one module with a :class:`ChatAdapter`, and one row in ``table.py``.
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from tollway.domain.failures import UpstreamFailure
from tollway.domain.refusals import BadRequest
from tollway.domain.usage import Usage
from tollway.wire.chat_request import ChatCall


class UpstreamRequest(NamedTuple):
    """What to POST. Method, host, base path, credential and framing are the caller's."""

    path: bytes
    """Appended to the provider's base path."""
    body: bytes
    warnings: tuple[str, ...] = ()
    """What could not be carried over, for ``x-tollway-warnings``: ``dropped=user``, ``mapped=temperature``."""


class ChatResult(NamedTuple):
    """A whole answer in OpenAI's format."""

    body: bytes
    usage: Usage | None
    """None where the provider said nothing that can be believed; then the call is billed by estimate."""
    content_bytes: int = 0
    """Bytes of generated text and tool arguments, as JSON writes them. Counted only where ``usage`` is None."""


class StreamDecoder(Protocol):
    """Turns the pieces of one upstream answer into the client's stream. Never raises, whatever the bytes.

    A provider that answers a call for a stream with one JSON object is understood as well: the object comes out as a
    stream when it is complete. Once ``failure`` is set nothing more comes out.
    """

    started: bool
    """The first event with something in it was good: bytes may go to the client, and there is no way back.

    A bare role announcement is held back until something follows, so that failover stays possible."""
    failure: UpstreamFailure | None
    usage: Usage | None
    finished: bool
    """The answer is whole: ``[DONE]`` came, or every choice gave its reason to end."""
    done: bool
    """``[DONE]`` has come out: nothing more will be said, usage included."""
    content_bytes: int
    """Bytes of generated text and tool arguments so far, as JSON writes them: to bill a stream that is cut."""

    def feed(self, chunk: bytes) -> bytes:
        """The next piece, cut anywhere; returns whole ``data:`` frames for the client, or nothing."""
        ...

    def close(self) -> bytes:
        """The upstream ended cleanly. Returns the rest with the closing ``[DONE]``, or sets ``failure``."""
        ...


class ChatAdapter(Protocol):
    """One upstream dialect of chat completions."""

    def encode(self, call: ChatCall, model: str) -> UpstreamRequest | BadRequest:
        """The request for this model. Repeatable: failover calls it again for another target."""
        ...

    def decode(
        self, status: int, headers: Mapping[bytes, bytes], body: bytes, call: ChatCall
    ) -> ChatResult | UpstreamFailure:
        """A complete answer, whatever its status."""
        ...

    def classify(self, status: int, headers: Mapping[bytes, bytes], body: bytes) -> UpstreamFailure:
        """Why an answer with a status other than 200 failed; for streams, where ``decode`` is not called."""
        ...

    def decoder(self, call: ChatCall) -> StreamDecoder:
        """A fresh decoder for one stream."""
        ...
