"""Answers that pass as they are: what the gateway reads off them, and what a refusal among them means. Pure."""

from collections.abc import Callable, Mapping

import msgspec
from msgspec.structs import replace

from tollway.domain.failures import OWN_WORDS, FailureKind, UpstreamFailure
from tollway.domain.usage import Usage
from tollway.providers import classify
from tollway.providers.cleaning import clean
from tollway.providers.relayed_usage import read_any_usage
from tollway.wire.json import UNREADABLE, Raw, encode, members
from tollway.wire.sse import SseDecoder, WholeEvents
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
    problem = classify.read_problem(body, failed=True)
    return replace(
        failure,
        kind=FailureKind.REQUEST,
        message=problem.message or OWN_WORDS[FailureKind.REQUEST],
        code=problem.code if problem.code not in ("", str(status)) else None,
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


def clean_errors(events: bytes, hide: Callable[[str], str]) -> bytes:
    """Whole events, the texts of their errors cleaned; to the byte as they came where there is nothing to hide.

    ``hide`` takes out of a text what only the caller knows not to be the client's business.
    """
    decoder = SseDecoder()
    out, changed = [], False
    for event in (*decoder.feed(events), *decoder.close()):
        data = _cleaned(event.data, hide, flat=event.name == b"error")
        name = b"event: %b\n" % event.name if event.name else b""
        out.append(b"%bdata: %b\n\n" % (name, (data or event.data).replace(b"\n", b"\ndata: ")))
        changed = changed or data is not None
    return b"".join(out) if changed else events


def _cleaned(data: bytes, hide: Callable[[str], str], *, flat: bool) -> bytes | None:
    """The data of an event whose error holds something to hide; None where there is none or nothing in it."""
    try:
        top = members(data)
    except UNREADABLE:
        text = data.decode("utf-8", "replace")
        shown = hide(clean(text)) if flat else text
        return None if shown == text else shown.encode()
    hidden: dict[str, object] = {**top}
    response = _members(top.get("response"))
    if "error" in response:
        hidden["response"] = {**response, "error": _hidden(response["error"], hide)}
    if "error" in top:
        hidden["error"] = _hidden(top["error"], hide)
    elif flat or top.get("type") == _ERROR:
        hidden |= {name: _hidden(value, hide) for name, value in top.items()}
    fresh = encode(hidden)
    return None if msgspec.json.decode(fresh) == msgspec.json.decode(data) else fresh


_ERROR = Raw(b'"error"')


def _hidden(value: Raw, hide: Callable[[str], str]) -> object:
    """An error's texts cleaned, at any depth."""
    return _walk(msgspec.json.decode(value), hide)


def _walk(value: object, hide: Callable[[str], str]) -> object:
    if isinstance(value, str):
        return hide(clean(value))
    if isinstance(value, dict):
        return {name: _walk(inner, hide) for name, inner in value.items()}
    return [_walk(inner, hide) for inner in value] if isinstance(value, list) else value


def _members(raw: Raw | None) -> dict[str, Raw]:
    try:
        return {} if raw is None else members(raw)
    except UNREADABLE:
        return {}
