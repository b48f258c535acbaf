"""What every upstream dialect offers. Adapters are pure: no clock, no socket, no logger, no environment, no credential.

A provider that speaks a dialect that is already here is a row of the database.
To add a dialect: a module with its :class:`Adapter` objects, and one row in ``table.py``.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from tollway.domain.failures import UpstreamFailure
from tollway.domain.refusals import BadRequest
from tollway.domain.usage import Usage


def is_good(status: int) -> bool:
    """Whether an HTTP status says that the body is an answer, and no error."""
    return 200 <= status < 300


class UpstreamRequest(NamedTuple):
    """What to POST. Method, host, base path, credential and framing are the caller's."""

    path: bytes
    """Appended to the provider's base path."""
    body: bytes
    warnings: tuple[str, ...] = ()
    """What could not be carried over, for ``x-tollway-warnings``: ``dropped=user``, ``mapped=temperature``."""
    further: tuple[bytes, ...] = ()
    """Bodies of further requests to the same path, in order, where the provider takes less at once than was asked."""


class ChatResult(NamedTuple):
    """A whole answer in OpenAI's format."""

    body: bytes
    usage: Usage | None
    """None where the provider said nothing that can be believed; then the call is billed by estimate."""
    content_bytes: int = 0
    """Bytes of generated text and tool arguments, as JSON writes them. Counted only where ``usage`` names no output."""
    warnings: tuple[str, ...] = ()
    """What of the answer could not be shown, for ``x-tollway-warnings``: ``dropped=image_url``."""


class StreamDecoder(Protocol):
    """Turns the pieces of one upstream answer into the client's stream. Never raises, whatever the bytes.

    A provider that answers a call for a stream with one JSON object is understood as well: the object comes out as a
    stream when it is complete. Once ``failure`` is set nothing more comes out.
    """

    started: bool
    """The first event with something in it was good: bytes may go to the client, and there is no way back.

    A bare role announcement is held back until something follows, so that failover stays possible."""
    failure: UpstreamFailure | None
    finished: bool
    """The answer is whole even if it breaks off here: ``[DONE]`` came, or every choice gave a reason to end that can be
    believed. Some servers give one with each chunk."""
    done: bool
    """``[DONE]`` has come out: nothing more will be said, usage included."""
    warnings: tuple[str, ...]
    """As in :class:`ChatResult`. What is known when the stream has started gets into its head."""
    content_bytes: int
    """Bytes of generated text and tool arguments so far, in UTF-8, and of thoughts, shown or not: to bill a stream that
    is cut."""

    @property
    def usage(self) -> Usage | None:
        """What the provider has told so far."""
        ...

    def feed(self, chunk: bytes) -> bytes:
        """The next piece, cut anywhere; returns whole ``data:`` frames for the client, or nothing."""
        ...

    def close(self) -> bytes:
        """The upstream ended cleanly. Returns the rest with the closing ``[DONE]``, or sets ``failure``."""
        ...


class Adapter(Protocol):
    """One operation in one upstream dialect. A ``call`` is of the type that the operation's parser makes."""

    def encode(self, call: Any, model: str) -> UpstreamRequest | BadRequest:
        """The request for this model. Repeatable: failover calls it again for another target."""
        ...

    def decode(
        self, status: int, headers: Mapping[bytes, bytes], body: bytes, call: Any
    ) -> ChatResult | UpstreamFailure:
        """A complete answer, whatever its status."""
        ...

    def classify(self, status: int, headers: Mapping[bytes, bytes], body: bytes) -> UpstreamFailure:
        """Why an answer with a status other than 200 failed; for streams, where ``decode`` is not called."""
        ...

    def decoder(self, call: Any) -> StreamDecoder:
        """A fresh decoder for one stream."""
        ...


class SplittingAdapter(Adapter, Protocol):
    """An adapter whose requests may have ``further`` ones."""

    def join(self, results: Sequence[ChatResult]) -> ChatResult:
        """One answer out of the answers to all of them, in their order."""
        ...
