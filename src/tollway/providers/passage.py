"""Answers that pass as they are: what the gateway reads off them, and what a refusal among them means. Pure."""

from collections.abc import Callable, Mapping

import msgspec
from msgspec.structs import replace

from tollway.domain.failures import OWN_WORDS, FailureKind, UpstreamFailure
from tollway.domain.usage import Usage
from tollway.providers import classify
from tollway.providers.cleaning import clean
from tollway.providers.problem import MAX_BODY, MAX_COMMAS
from tollway.providers.service_tier import with_tier
from tollway.providers.usage import read_image_usage, read_relayed_usage
from tollway.wire.estimate import with_later_text
from tollway.wire.json import UNREADABLE, UNSET, Raw, Unset, decoder, encode, is_null, members
from tollway.wire.request_body import is_model_name
from tollway.wire.sse import SseDecoder, WholeEvents
from tollway.wire.usage_watch import watch

Hide = Callable[[str], str]
"""Takes out of a text what is not the client's business."""

MAX_CLEANED = 64 * 1024
"""Bytes of all errors in one stream that are cleaned; a stream that says more ends there."""

MAX_TEXTS = 64
"""Texts in them: an error has some four, and a stream one or two errors."""

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
    """Looks on while an answer passes. A :class:`~tollway.providers.base.StreamDecoder` that changes only errors.

    An error among the events is the provider's own word for the client and passes, cleaned, like all others. Only while
    ``started`` is not yet true may another provider be asked instead.
    """

    __slots__ = (
        "_cleaner",
        "_counted",
        "_counted_at",
        "_hiding",
        "_images",
        "_metered",
        "_read",
        "_watch",
        "_whole",
        "all_said",
        "content_bytes",
        "done",
        "failure",
        "finished",
        "is_events",
        "is_json",
        "settled",
        "started",
        "warnings",
    )

    def __init__(
        self,
        content_type: bytes,
        *,
        metered: bool = True,
        images: int = 0,
        hiding: Callable[[UpstreamFailure], Hide] = lambda failure: str,
    ) -> None:
        """``metered``: what the answer says was used, was used for it; one that is fetched again costs nothing.

        ``images``: how many pictures were asked for, if that is what it makes.

        ``hiding``: what only the caller knows to hide from the texts of an error among the events.
        """
        self._metered = metered
        self._hiding = hiding
        self._cleaner: ErrorCleaner | None = None
        self._images = images
        self._watch = watch(content_type, images or 1)
        self._whole = WholeEvents()
        self._read: Raw | None = None  # the usage object that has been read
        self.is_events = content_type.startswith(b"text/event-stream")
        self.is_json = content_type.startswith(b"application/json")
        self.started = False
        self.failure: UpstreamFailure | None = None
        self._counted: Usage | None = None
        self._counted_at = 0  # bytes of the text that had come with it
        self.warnings: tuple[str, ...] = ()
        self.finished = self.done = False
        self.content_bytes = 0
        self.all_said = False
        """The last event has ended what the model said: as far as anybody can tell, only the usage is missing."""
        self.settled = False
        """What it cost is known, as far as it ever will be: before the piece goes out that said so."""

    def feed(self, chunk: bytes) -> bytes:
        self._watch.feed(chunk)
        self._look()
        if not self.is_events:
            return chunk
        events = self._whole.feed(chunk)
        return events if self.failure is None else self._clean(events, self.failure)

    def close(self) -> bytes:
        self._watch.close()
        self._look()
        self.settled = self.finished = True
        rest = self._whole.rest()
        return rest if self.failure is None else self._clean(rest, self.failure)

    @property
    def usage(self) -> Usage | None:
        """The last that was told."""
        return self._counted and with_later_text(self._counted, self._counted_at, self.content_bytes)

    @property
    def cut(self) -> bool:
        """Whether the events hold more errors than are cleaned: nothing more comes out."""
        return self._cleaner is not None and self._cleaner.spent

    @property
    def answered_model(self) -> str:
        """The model that the answer names; empty where it names none that is fit to be written down."""
        named = self._watch.model
        try:
            name = "" if named is None else _as_text(named)
        except UNREADABLE:
            return ""
        return name if is_model_name(name) else ""

    def add(self, counts: Mapping[str, int]) -> None:
        """What was used beside what the usage tells; what that tells of the same buckets holds."""
        if counts and self._metered:
            usage = self._counted or Usage(0, 0)
            self._counted = replace(usage, others={**counts, **usage.others})

    def _clean(self, events: bytes, failure: UpstreamFailure) -> bytes:
        if self._cleaner is None:
            self._cleaner = ErrorCleaner(self._hiding(failure))
        return self._cleaner.clean(events) if events and not self._cleaner.spent else b""

    def _look(self) -> None:
        seen = self._watch
        self.started = seen.begun
        self.all_said = seen.all_said
        self.content_bytes = seen.text_bytes
        if seen.usage is not None and seen.usage is not self._read and self._metered:
            self._read = seen.usage
            if self._images:
                usage = read_image_usage([*seen.earlier_images, seen.usage])
            else:
                usage = read_relayed_usage(seen.usage)
            if usage is not None:
                self._counted, self._counted_at = with_tier(usage, seen.service_tier), seen.text_bytes
        if seen.error is not None and self.is_events and self.failure is None:
            self.failure = classify.failure(200, classify.read_problem(seen.error))
        if seen.terminal and not self.settled:
            self.add(seen.searches)
        self.settled = seen.terminal
        self.done = self.is_events and seen.terminal and self.failure is None


_as_text = decoder(str)


class ErrorCleaner:
    """Cleans the texts of the errors among the events of one stream. The work is bounded, whatever they hold."""

    __slots__ = ("_bytes", "_hide", "_texts", "spent")

    def __init__(self, hide: Hide) -> None:
        self._hide = hide
        self._bytes, self._texts = MAX_CLEANED, MAX_TEXTS
        self.spent = False
        """There was more than is cleaned: what came before it has been returned, and nothing that follows may pass."""

    def clean(self, events: bytes) -> bytes:
        """Whole events; to the byte as they came where there is nothing to hide."""
        decoder = SseDecoder()
        whole = [*decoder.feed(events), *decoder.close()]
        self.spent = decoder.too_long
        out, changed = [], self.spent
        for event in whole:
            try:
                data = self._cleaned(event.data, flat=event.name == b"error")
            except (_TooMuchError, RecursionError):
                self.spent = changed = True
                break
            name = b"event: %b\n" % event.name if event.name else b""
            out.append(b"%bdata: %b\n\n" % (name, (data or event.data).replace(b"\n", b"\ndata: ")))
            changed = changed or data is not None
        return b"".join(out) if changed else events

    def _cleaned(self, data: bytes, *, flat: bool) -> bytes | None:
        """The data of an event whose error holds something to hide; None where there is none or nothing in it.

        ``flat``: an object without an ``error`` is the error itself.
        """
        try:
            said = _read_said(data)
        except UNREADABLE:
            text = data.decode("utf-8", "replace")
            shown = self._walk(text) if flat else text
            return None if shown == text else str(shown).encode()
        within = _error_within(said.response)
        outside = type(said.error) is Raw and not is_null(said.error)
        flat = flat or said.type == _ERROR
        if within is None and not outside and not flat:
            return None
        if len(data) > MAX_BODY or data.count(b",") > MAX_COMMAS:
            raise _TooMuchError
        top = members(data)
        changes: dict[str, object] = {}
        if within is not None and (hidden := self._hidden(within)) is not within:
            changes["response"] = {**members(top["response"]), "error": hidden}
        for name in ("error",) if outside else top if flat else ():
            if (hidden := self._hidden(top[name])) is not top[name]:
                changes[name] = hidden
        return encode({**top, **changes}) if changes else None

    def _hidden(self, value: Raw) -> object:
        """An error with its texts cleaned, at any depth; the same where nothing is to be hidden."""
        self._bytes -= len(value)
        if self._bytes < 0:
            raise _TooMuchError
        said = msgspec.json.decode(value)
        shown = self._walk(said)
        return value if shown == said else shown

    def _walk(self, value: object) -> object:
        if isinstance(value, str):
            self._texts -= 1
            if self._texts < 0:
                raise _TooMuchError
            return self._hide(clean(value))
        if isinstance(value, dict):
            return {name: self._walk(inner) for name, inner in value.items()}
        return [self._walk(inner) for inner in value] if isinstance(value, list) else value


class _TooMuchError(Exception):
    """There is more to be cleaned than any error says. Never leaves this module."""


class _Said(msgspec.Struct, gc=False):
    type: Raw | Unset = UNSET
    error: Raw | Unset = UNSET
    response: Raw | Unset = UNSET


_read_said = decoder(_Said)
_ERROR = Raw(b'"error"')


def _error_within(response: Raw | Unset) -> Raw | None:
    """The error of a response in an event; every event that tells of a response has such a member, usually null."""
    try:
        error = _read_said(response).error if type(response) is Raw else UNSET
    except UNREADABLE:
        return None
    return error if type(error) is Raw and not is_null(error) else None
