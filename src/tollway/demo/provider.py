"""A simulated provider in OpenAI's dialect: it says back what it is told, and fails in every way that it is asked to.

How it behaves is the sum of the model's name (``MODELS``) and the request's member ``"demo"`` (:class:`Script`), which
no real provider would take. It listens where only the gateway reaches it.
"""

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

PATH = "/demo/v1/chat/completions"
"""All that is served; whatever else is asked for below ``/demo`` is answered as a provider would."""

_MAX_WORDS = 20_000  # said back at most; the longest real answers have about as many
_LONGEST_S = 3600.0

_Count = Annotated[int, msgspec.Meta(ge=0)]
_Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=_LONGEST_S * 1000)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=_LONGEST_S)]


class Script(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What shall happen; the request's member ``"demo"``."""

    delay_ms: _Milliseconds | None = None
    """Silence before the answer begins."""
    words_per_second: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """The pace of a stream."""
    status: Annotated[int, msgspec.Meta(ge=400, le=599)] | None = None
    """Answer with this error instead."""
    retry_after_s: _Seconds | None = None
    """Sent with the error, as ``retry-after`` and ``retry-after-ms``."""
    error_after: _Count | None = None
    """After so many words: an error event. Without a stream: status 500."""
    stall_after: _Count | None = None
    """After so many words: silence, until the client goes away."""
    cut_after: _Count | None = None
    """After so many words: the connection breaks."""


MODELS = {
    "demo/echo": Script(words_per_second=40),
    "demo/slow": Script(delay_ms=2000, words_per_second=2),
    "demo/busy": Script(status=429, retry_after_s=5),
    "demo/unreliable": Script(status=500),
    "demo/stall": Script(stall_after=3, words_per_second=40),
    "demo/cut": Script(cut_after=3, words_per_second=40),
}
"""What the models do by themselves."""


class _Part(msgspec.Struct):
    type: str = ""
    text: str = ""


class _Turn(msgspec.Struct):
    role: str
    content: str | list[_Part] | None = None

    @property
    def words(self) -> list[str]:
        if isinstance(self.content, str):
            return self.content.split()
        return [word for part in self.content or () for word in part.text.split()]


class _StreamOptions(msgspec.Struct):
    include_usage: bool = False


class _ChatRequest(msgspec.Struct):
    model: str
    messages: Annotated[list[_Turn], msgspec.Meta(min_length=1)]
    stream: bool | None = False
    stream_options: _StreamOptions | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=1)] | None = 1
    demo: Script = Script()


class DemoError(Exception):
    """An answer that says no, in OpenAI's format."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    @property
    def body(self) -> bytes:
        kind = "requests" if self.status == 429 else "server_error" if self.status >= 500 else "invalid_request_error"
        return msgspec.json.encode({"error": {"message": str(self), "type": kind, "param": None, "code": self.code}})


@dataclass(frozen=True, slots=True)
class Performance:
    """A judged request: what will be said, and what will go wrong."""

    id: str
    created: int
    model: str
    words: tuple[str, ...]
    finish_reason: str
    prompt_tokens: int
    stream: bool
    include_usage: bool
    script: Script

    @property
    def _usage(self) -> dict[str, object]:
        said = len(self.words)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": said,
            "total_tokens": self.prompt_tokens + said,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        }

    def completion(self) -> bytes:
        """The whole answer."""
        message = {"role": "assistant", "content": " ".join(self.words), "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self.finish_reason}
        return msgspec.json.encode(self._object("chat.completion", [choice]) | {"usage": self._usage})

    def first(self) -> bytes:
        """The event that opens a stream."""
        return self._chunk({"role": "assistant", "content": "", "refusal": None})

    def word(self, place: int) -> bytes:
        """The event of one word."""
        return self._chunk({"content": self.words[place] if place == 0 else " " + self.words[place]})

    def last(self) -> bytes:
        """The events that close a stream."""
        usage = self._event([], self._usage) if self.include_usage else b""
        return self._chunk({}, self.finish_reason) + usage + b"data: [DONE]\n\n"

    def _chunk(self, delta: dict[str, object], finish_reason: str | None = None) -> bytes:
        return self._event([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}], None)

    def _event(self, choices: list[object], usage: object) -> bytes:
        chunk = self._object("chat.completion.chunk", choices)
        if self.include_usage:
            chunk["usage"] = usage
        return b"data: %b\n\n" % msgspec.json.encode(chunk)

    def _object(self, kind: str, choices: list[object]) -> dict[str, object]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}


class DemoProvider:
    """The ASGI application."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or leave it unanswered where that was asked for."""
        request = Request(scope, receive)
        try:
            if (request.method, request.url.path) != ("POST", PATH):
                raise DemoError(404, f"Unknown request URL: {request.method} {request.url.path}", "unknown_url")
            body = await request.body()
            performance = rehearse(body, next(self._numbers), time.time())
        except ClientDisconnect:
            return
        except DemoError as error:
            await _send_whole(send, error.status, error.body)
            return
        gone = asyncio.create_task(_departure(receive))
        try:
            await _perform(performance, send, gone)
        finally:
            gone.cancel()


async def _perform(performance: Performance, send: Send, gone: "asyncio.Task[None]") -> None:
    script = performance.script
    if await _leaves_within(gone, (script.delay_ms or 0) / 1000):
        return
    if script.status is not None:
        error = DemoError(script.status, f"The demo provider was asked to answer {script.status}.")
        await _send_whole(send, error.status, error.body, _retry_after(script))
    elif performance.stream:
        await _stream(performance, send, gone)
    elif script.error_after is not None:
        await _send_whole(send, 500, DemoError(500, "The demo provider was asked to fail.").body)
    elif script.stall_after is not None:
        await gone
    else:
        await _send_whole(send, 200, performance.completion(), cut=script.cut_after is not None)


async def _stream(performance: Performance, send: Send, gone: "asyncio.Task[None]") -> None:
    script = performance.script
    pause_s = 1 / script.words_per_second if script.words_per_second else 0.0
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    await _send_piece(send, performance.first())
    for place in range(len(performance.words) + 1):
        if place == script.cut_after:
            return  # without the last chunk: the server closes the connection
        if place == script.stall_after:
            await gone
        if place == script.error_after:
            error = DemoError(500, "The demo provider was asked to fail in mid-stream.")
            await _send_piece(send, b"data: %b\n\n" % error.body, last=True)
            return
        if gone.done() or (place < len(performance.words) and await _leaves_within(gone, pause_s)):
            return
        if place < len(performance.words):
            await _send_piece(send, performance.word(place))
    await _send_piece(send, performance.last(), last=True)


async def _departure(receive: Receive) -> None:
    """Return when the client has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _leaves_within(gone: "asyncio.Task[None]", seconds: float) -> bool:
    if seconds > 0:
        await asyncio.wait({gone}, timeout=seconds)
    return gone.done()


async def _send_whole(
    send: Send, status: int, body: bytes, headers: Sequence[tuple[bytes, bytes]] = (), cut: bool = False
) -> None:
    head = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await _send_piece(send, body[: len(body) // 2] if cut else body, last=not cut)


async def _send_piece(send: Send, piece: bytes, last: bool = False) -> None:
    await send({"type": "http.response.body", "body": piece, "more_body": not last})


def _retry_after(script: Script) -> list[tuple[bytes, bytes]]:
    if script.retry_after_s is None:
        return []
    milliseconds = round(script.retry_after_s * 1000)
    return [(b"retry-after", b"%d" % -(-milliseconds // 1000)), (b"retry-after-ms", b"%d" % milliseconds)]


def rehearse(body: bytes, number: int, now_unix: float) -> Performance:
    """Judge a request. Raises DemoError for what a real provider would refuse."""
    try:
        request = msgspec.json.decode(body, type=_ChatRequest)
    except msgspec.DecodeError as error:
        raise DemoError(400, str(error)) from None
    if request.model not in MODELS:
        raise DemoError(404, f"The model `{request.model}` does not exist", "model_not_found")
    script = _combined(MODELS[request.model], request.demo)
    words = next((turn.words for turn in reversed(request.messages) if turn.role == "user"), [])
    most = min(request.max_completion_tokens or request.max_tokens or _MAX_WORDS, _MAX_WORDS)
    return Performance(
        id=f"chatcmpl-demo-{number}",
        created=int(now_unix),
        model=request.model,
        words=tuple(words[:most]),
        finish_reason="length" if len(words) > most else "stop",
        prompt_tokens=sum(len(turn.words) for turn in request.messages),
        stream=bool(request.stream),
        include_usage=request.stream_options is not None and request.stream_options.include_usage,
        script=script,
    )


def _combined(model: Script, asked: Script) -> Script:
    return msgspec.structs.replace(model, **{k: v for k, v in msgspec.structs.asdict(asked).items() if v is not None})
