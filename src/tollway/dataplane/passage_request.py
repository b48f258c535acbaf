"""What a call that passes asks for: read off its body, as much of it as that takes."""

import functools
from collections.abc import AsyncIterator

from tollway.dataplane.calls import Call
from tollway.dataplane.offload import AT_ONCE_BYTES
from tollway.dataplane.world import World
from tollway.domain.asked import Asked
from tollway.domain.refusals import BadRequest
from tollway.http1.errors import MessageError
from tollway.http1.exchange import Request
from tollway.wire.json import UNREADABLE, decoder
from tollway.wire.multipart import MultipartFields, boundary_of
from tollway.wire.paths import ModelIn, PathRule
from tollway.wire.relayed_call import RelayedCall, characters, parse_relayed
from tollway.wire.usage_watch import MAX_IMAGES

_FORWARDED = (b"accept", b"openai-beta", b"range")
"""The client's headers that mean something to a provider, besides the type of the body."""

_IDEMPOTENCY_KEY = b"idempotency-key"
_MODEL, _STREAM, _N = b"model", b"stream", b"n"
_FORM = b"multipart/form-data"
_OPAQUE = frozenset({b"application/octet-stream", b"application/sdp"})

_SPEECH = "/audio/speech"

_UNJUDGED = {ModelIn.JSON: _OPAQUE | {_FORM}, ModelIn.FORM: _OPAQUE}
"""Types of bodies that could hide their model where a call has to name one."""


_decode_count = decoder(int)


class Passage(Asked, frozen=True, kw_only=True):
    """A request as it goes on, but for the provider's address, its credential and its name of the model."""

    rule: PathRule
    method: bytes
    """As the provider is asked."""
    target: bytes
    """Path without ``/v1``, and query."""
    lines: bytes
    """The client's headers that go along as they are."""
    idempotency_key: bytes | None = None
    """What the client calls this request, so that the provider does not do it twice."""
    start: bytes
    """What has come of the body: all of it where it is JSON."""
    document: RelayedCall | None = None
    """What a body in JSON says."""
    form: MultipartFields | None = None
    """What was found in a form."""
    rest: AsyncIterator[bytes] | None = None
    """What has not come yet, as it goes on."""
    length: int | None = None
    """Bytes of the whole body; None where the client does not say."""
    refers_to_stored: str | None = None
    """The member that names an object that the provider stores."""

    @property
    def on_stored(self) -> bool:
        """Whether it works on what the provider stores."""
        return self.rule.needs_own_key or self.refers_to_stored is not None

    @property
    def images(self) -> int:
        """How many pictures are asked for, where it is pictures; of a form as far as it has been read."""
        if self.form is not None:
            told = self.form.values.get(_N, b"")
        else:
            told = b"" if self.document is None else bytes(self.document.top.get("n", b""))
        try:
            return min(max(1, _decode_count(told)), MAX_IMAGES)
        except UNREADABLE:
            return 1

    def framed(self, model: str) -> bytes:
        """The end of the head and what is there of the body, with the provider's name of the model."""
        start = self.start
        if self.document is not None:
            start = self.document.body(model if self.model else None)
        elif self.form is not None and self.model != model:
            start = self.form.with_value(start, _MODEL, model.encode())
        if self.length is None:
            return b"Transfer-Encoding: chunked\r\n\r\n%b" % _chunk(start)
        if self.method != b"POST" and not start:
            return b"\r\n"
        return b"Content-Length: %d\r\n\r\n%b" % (self.length + len(start) - len(self.start), start)


class BadForm(MessageError):  # noqa: N818 - a fault of the client's
    """A form turned out to be ambiguous after its model had been read."""


async def read_passage(path: bytes, rule: PathRule, world: World, call: Call) -> Passage | BadRequest:
    """As much of the body as it takes to know what is asked; raises MessageError where it is not well framed."""
    request = call.request
    headers = request.headers
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind in _UNJUDGED.get(rule.model, ()):
        text = f"/v1{rule.template} does not take a body of the type {kind.decode()}."
        return BadRequest(text, None, "unsupported_content_type")
    target = b"%b?%b" % (path, request.query) if request.query else path
    lines = b"".join([b"%b: %b\r\n" % (name, headers[name]) for name in _FORWARDED if name in headers])
    if kind == _FORM or kind in _OPAQUE:
        lines += b"content-type: %b\r\n" % headers[b"content-type"]
        return await _read_form(request, target, lines, rule, is_form=kind == _FORM)
    body = await request.read_body()
    parse = functools.partial(parse_relayed, may_be_empty=not rule.names_model)
    if len(body) <= AT_ONCE_BYTES:
        document = parse(body)
    else:
        document = await world.offload.run(call.grant.id, parse, body)
    if isinstance(document, BadRequest):
        return document
    if body:
        lines += b"content-type: application/json\r\n"
    return Passage(
        model=(document.model or "") if rule.names_model else "",
        stream=document.stream,
        prompt_bytes=document.prompt_bytes,
        max_output_tokens=document.max_output_tokens if rule.names_model else 0,
        characters=characters(document) if rule.template == _SPEECH else 0,
        rule=rule,
        method=_asked(request),
        target=target,
        lines=lines,
        idempotency_key=headers.get(_IDEMPOTENCY_KEY),
        start=body,
        document=document if body else None,
        length=len(body),
        refers_to_stored=document.refers_to_stored,
    )


async def _read_form(
    request: Request, target: bytes, lines: bytes, rule: PathRule, *, is_form: bool
) -> Passage | BadRequest:
    """A body that streams. Of a form as much is awaited as it takes to know its model."""
    form = None
    if is_form and rule.names_model:
        boundary = boundary_of(request.headers[b"content-type"])
        if boundary is None:
            return BadRequest("The content type does not give the boundary of the form.", None, "invalid_form")
        form = MultipartFields(boundary, (_MODEL, _STREAM, _N))
    whole, length = request.body is not None, request.content_length
    pieces = request.iter_body()
    start = bytearray()
    while form is not None and form.problem is None and (whole or _MODEL not in form.values):
        piece = await anext(pieces, None)
        if piece is None:
            break
        start += piece
        request.keeps(len(start))
        form.feed(piece)
    if form is not None and (problem := _problem(form)) is not None:
        return BadRequest(f"The form is not valid: {problem}.", None, "invalid_form")
    model = form.values.get(_MODEL, b"").decode("utf-8", "replace") if form is not None else ""
    if whole and form is None:
        start += request.body or b""
    return Passage(
        model=model,
        stream=form is not None and form.values.get(_STREAM) == b"true",
        max_output_tokens=None if model else 0,
        rule=rule,
        method=_asked(request),
        target=target,
        lines=lines,
        idempotency_key=request.headers.get(_IDEMPOTENCY_KEY),
        form=form,
        start=bytes(start),
        rest=None if whole else _rest(pieces, form, chunked=length is None),
        length=length,
    )


def _problem(form: MultipartFields) -> str | None:
    """What is wrong with a form that has been read up to its model or, where it has none, as far as it goes."""
    if form.problem is None and not form.ended and _MODEL not in form.values:
        return "it is over before its last boundary"  # where another reader may see a model
    return form.problem


async def _rest(pieces: AsyncIterator[bytes], form: MultipartFields | None, *, chunked: bool) -> AsyncIterator[bytes]:
    """What still comes. A form is read on, because a second model in it might count at the provider."""
    async for piece in pieces:
        if form is not None:
            form.feed(piece)
            if form.problem is not None:
                raise BadForm(f"the form is not valid: {form.problem}")
        yield _chunk(piece) if chunked else piece
    if chunked:
        yield b"0\r\n\r\n"


def _asked(request: Request) -> bytes:
    """For a head alone the whole is asked for: not every server of OpenAI's dialect knows HEAD."""
    return b"GET" if request.method == b"HEAD" else request.method


def _chunk(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""
