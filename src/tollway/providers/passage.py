"""Answers that pass as they are: what the gateway reads off them, and what a refusal among them means. Pure."""

from collections.abc import Mapping

from msgspec.structs import replace

from tollway.domain.failures import FailureKind, UpstreamFailure
from tollway.domain.usage import Usage
from tollway.providers import classify
from tollway.providers.relayed_usage import read_any_usage
from tollway.wire.sse import WholeEvents
from tollway.wire.usage_watch import watch

DIALECT = "openai"
"""The only one in which clients' requests can pass as they are."""

_OURS = frozenset({401, 402, 407})
"""About the gateway's credential, whatever the path."""


def judge(
    status: int, headers: Mapping[bytes, bytes], body: bytes, *, own_key: bool, names_object: bool
) -> UpstreamFailure:
    """Why an answer failed that is no success. What is about the client's own objects or mistakes keeps its status.

    ``own_key``: the provider key is the client's. ``names_object``: its path names something that may not be there,
    or it names no model, so that its body must have.
    """
    failure = classify.classify(status, headers, body)
    theirs = (
        (400 <= status < 500 and status not in {*_OURS, 403, 404, 408, 409, 429})
        or (status == 403 and own_key)
        or (status in (404, 409) and names_object)
    )
    if not theirs or failure.kind in (FailureKind.QUOTA, FailureKind.REQUEST, FailureKind.CONTEXT, FailureKind.CONTENT):
        return failure
    problem = classify.read_problem(body)
    return replace(
        failure,
        kind=FailureKind.REQUEST,
        message=problem.message or "The provider refused the request.",
        code=problem.code or None,
        param=problem.param,
    )


class PassageStream:
    """Looks on while an answer passes. A :class:`~tollway.providers.base.StreamDecoder` that changes nothing.

    An error among the events is the provider's own word for the client and passes like all others. Only while
    ``started`` is not yet true may another provider be asked instead.
    """

    __slots__ = (
        "_metered",
        "_watch",
        "_whole",
        "content_bytes",
        "done",
        "failure",
        "finished",
        "is_events",
        "is_json",
        "settled",
        "started",
        "usage",
        "warnings",
    )

    def __init__(self, content_type: bytes, *, metered: bool = True) -> None:
        """``metered``: what the answer says was used, was used for it; one that is fetched again costs nothing."""
        self._metered = metered
        self._watch = watch(content_type)
        self._whole = WholeEvents()
        self.is_events = content_type.startswith(b"text/event-stream")
        self.is_json = content_type.startswith(b"application/json")
        self.started = False
        self.failure: UpstreamFailure | None = None
        self.usage: Usage | None = None
        self.warnings: tuple[str, ...] = ()
        self.finished = self.done = False
        self.content_bytes = 0
        self.settled = False
        """What it cost is known, as far as it ever will be: before the piece goes out that said so."""

    def feed(self, chunk: bytes) -> bytes:
        self._watch.feed(chunk)
        self._look()
        return self._whole.feed(chunk) if self.is_events else chunk

    def close(self) -> bytes:
        self._watch.close()
        self._look()
        self.settled = self.finished = True
        return self._whole.rest()

    def _look(self) -> None:
        seen = self._watch
        self.started = seen.begun
        self.content_bytes = seen.text_bytes
        if seen.usage is not None and self._metered:
            self.usage = read_any_usage(seen.usage) or self.usage
        if seen.error is not None and self.is_events and self.failure is None:
            self.failure = classify.failure(200, classify.read_problem(seen.error))
        self.settled = seen.terminal
        self.done = self.is_events and seen.terminal and self.failure is None
