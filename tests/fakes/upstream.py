"""The scripted provider of the whole suite: HTTP/1.1 by hand, so that it can also do what a provider must not do.

A test opens an :class:`Account` at an :class:`Upstream`, says what the provider answers to it, and afterwards reads
what came in and what was billed::

    with Upstream() as openai:
        account = openai.account()
        account.answers(error(500), openai_reply("Bonjour"))      # in this order; the last one repeats
        ...
        assert [request.json["model"] for request in account.requests] == ["gpt-4o", "gpt-4o"]

An answer is a function from the request to *parts*, played in order: ``bytes`` are sent as they are, a :class:`Gate`
stops until the test opens it, an :class:`Act` resets, closes or falls silent, a :class:`Flood` sends a lot. Streams are
lists of texts between which parts may stand: ``openai_stream(["Hel", gate, "lo", RESET])``.

The server runs on a thread and an event loop of its own, so that ordinary and ``async`` tests use it alike.
"""

import asyncio
import base64
import concurrent.futures
import contextlib
import enum
import json
import secrets
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

PATIENCE_S = 15.0
"""How long a test waits for something that must happen; only a failing test ever waits this long."""


class Counter:
    """A number that only grows and that any thread or event loop can wait for."""

    def __init__(self) -> None:
        self.value = 0
        self._lock = threading.Lock()
        self._waiters: list[tuple[int, concurrent.futures.Future[None]]] = []

    def add(self) -> None:
        with self._lock:
            self.value += 1
            due = [waiter for number, waiter in self._waiters if number <= self.value]
            self._waiters = [waiter for waiter in self._waiters if waiter[0] > self.value]
        for waiter in due:
            waiter.set_result(None)

    async def reaches(self, number: int = 1, within_s: float = PATIENCE_S) -> None:
        """Wait on the running loop; TimeoutError names how far it came."""
        try:
            await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(self._waiter(number))), within_s)
        except TimeoutError:
            raise TimeoutError(f"waited for {number}, came to {self.value}") from None

    def wait(self, number: int = 1, within_s: float = PATIENCE_S) -> None:
        """The same for a test that has no loop."""
        self._waiter(number).result(within_s)

    def _waiter(self, number: int) -> concurrent.futures.Future[None]:
        waiter: concurrent.futures.Future[None] = concurrent.futures.Future()
        with self._lock:
            if self.value < number:
                self._waiters.append((number, waiter))
                return waiter
        waiter.set_result(None)
        return waiter


class Gate:
    """A place in an answer where the provider stands still until the test calls :meth:`open`."""

    def __init__(self) -> None:
        self.arrivals = Counter()
        """How many answers have come to the gate."""
        self._opened: concurrent.futures.Future[None] = concurrent.futures.Future()

    def open(self) -> None:
        """Let everybody through, now and later."""
        self._opened.set_result(None)

    async def reached(self, times: int = 1) -> None:
        """Wait until that many answers stand at the gate (or have passed it)."""
        await self.arrivals.reaches(times)

    async def pass_through(self) -> None:
        """What the provider does at the gate."""
        self.arrivals.add()
        await asyncio.shield(asyncio.wrap_future(self._opened))


class Act(enum.Enum):
    """What a provider does instead of sending bytes; each ends the answer."""

    RESET = "reset"  # RST: the peer's next read fails
    CLOSE = "close"  # FIN: the peer reads an early end
    HANG = "hang"  # neither answers nor closes


RESET, CLOSE, HANG = Act.RESET, Act.CLOSE, Act.HANG


@dataclass(frozen=True, slots=True)
class Flood:
    """One piece sent many times, as fast as the peer takes it and no longer than it stays."""

    piece: bytes
    times: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Real time passes. Only for faults that are about time; everything else waits at a :class:`Gate`."""

    seconds: float


Part = bytes | Gate | Act | Flood | Pause


@dataclass(frozen=True, slots=True)
class Bill:
    """What a provider puts into its own book for one answer: the oracle for every test about money."""

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came in."""

    method: str
    path: str
    head: bytes
    headers: tuple[tuple[str, str], ...]
    body: bytes
    connection: int
    """Which connection it came on, counted from 1."""
    at: float
    """When it was complete (``time.monotonic``)."""
    account: "Account" = field(repr=False)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        """The one value of a header; fails where it came twice."""
        values = [value for known, value in self.headers if known == name.lower()]
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None

    def bill(self, bill: Bill) -> None:
        self.account.book.append(bill)


Answer = Callable[[Received], Iterable[Part]]


class Account:
    """One customer of the provider: a credential, what it is answered, what it sent and what it owes."""

    def __init__(self, secret: str) -> None:
        self.secret = secret
        self.requests: list[Received] = []
        self.book: list[Bill] = []
        self.seen = Counter()
        """Counts the requests: ``await account.seen.reaches(2)``."""
        self.hang_ups = Counter()
        """Counts the answers whose connection the peer closed before they were over."""
        self.hasty = False
        """Whether it answers as soon as it has a request's head, and reads no body."""
        self._lock = threading.Lock()
        self._answers: list[Answer] = [error(500, "this account was given no answers")]

    def answers(self, *answers: Answer) -> Self:
        """From now on: these, in order, the last one again and again."""
        with self._lock:
            self._answers = list(answers)
        return self

    def next_answer(self) -> Answer:
        with self._lock:
            return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    def owed(self) -> tuple[int, int]:
        """All input and all output tokens in the book."""
        return sum(bill.input_tokens for bill in self.book), sum(bill.output_tokens for bill in self.book)


class Upstream:
    """A provider on a free port of 127.0.0.1, for ``with``.

    A request whose bearer token opens no account is answered 401, as a real provider would; :attr:`anyone` (when a
    test has set answers on it) takes such requests instead.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.connections = Counter()
        self.open_connections = 0
        self.malformed: list[bytes] = []
        """Heads that no honest client would send. Always empty, whatever the gateway's own clients do."""
        self.crashes: list[Exception] = []
        """Mistakes in a test's own script."""
        self.strangers: list[Received] = []
        """Requests that no account paid for."""
        self.anyone: Account | None = None
        self._accounts: dict[str, Account] = {}
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="upstream", daemon=True)
        self._running: set[_Connection] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """The base that an operator would configure."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/v1"

    def account(self, secret: str | None = None) -> Account:
        """A fresh account; its secret is random unless the test needs a certain one."""
        account = Account(secret or "sk-upstream-" + secrets.token_hex(16))
        self._accounts[account.secret] = account
        return account

    def for_anyone(self, *answers: Answer) -> Account:
        """One account for every credential that has none of its own."""
        self.anyone = Account("anyone").answers(*answers)
        return self.anyone

    def account_of(self, request_headers: Sequence[tuple[str, str]]) -> Account | None:
        values = [value for name, value in request_headers if name == "authorization"]
        known = self._accounts.get(values[0].removeprefix("Bearer ")) if len(values) == 1 else None
        return known or self.anyone

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(PATIENCE_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(PATIENCE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()
        if error is None:
            assert not self.crashes, self.crashes
            assert not self.malformed, self.malformed

    def stop_listening(self) -> None:
        """From now on connections are refused; those that are open stay."""
        asyncio.run_coroutine_threadsafe(self._stop_listening(), self._loop).result(PATIENCE_S)

    def listen_again(self) -> None:
        """Take connections again, on the same port."""
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(PATIENCE_S)

    def close_idle_connections(self) -> None:
        """Close every connection that is between two requests, as providers do after a while."""
        asyncio.run_coroutine_threadsafe(self._close_idle(), self._loop).result(PATIENCE_S)

    async def _listen(self) -> None:
        self._server = await self._loop.create_server(
            lambda: _Connection(self, self._running), "127.0.0.1", self.port, ssl=self._tls, backlog=1024
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop_listening(self) -> None:
        assert self._server is not None
        self._server.close()

    async def _close_idle(self) -> None:
        for connection in tuple(self._running):
            connection.close_if_idle()

    async def _close(self) -> None:
        await self._stop_listening()
        tasks = [connection.task for connection in self._running]
        for connection in tuple(self._running):
            connection.transport.abort()
            connection.task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Connection(asyncio.Protocol):
    """Reads requests one after another and plays the answers; knows at once when the peer goes."""

    def __init__(self, upstream: Upstream, running: set["_Connection"]) -> None:
        self._upstream = upstream
        self._running = running
        self._buffer = bytearray()
        self._news = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._answering: Account | None = None
        self._lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._upstream.connections.add()
        self._upstream.open_connections += 1
        self._number = self._upstream.connections.value
        self._running.add(self)
        self.task = asyncio.get_running_loop().create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._news.set()

    def eof_received(self) -> None:
        self._leave()

    def connection_lost(self, error: Exception | None) -> None:
        self._upstream.open_connections -= 1
        self._running.discard(self)
        self._leave()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def close_if_idle(self) -> None:
        if self._answering is None and not self._buffer:
            self.transport.close()

    def _leave(self) -> None:
        if not self._lost:
            self._lost = True
            self.task.cancel()

    async def _serve(self) -> None:
        try:
            while not self.transport.is_closing():
                await self._serve_one()
        except Exception as problem:
            self._upstream.crashes.append(problem)
            self.transport.abort()

    async def _serve_one(self) -> None:
        request = await self._read_request()
        if request is None:
            return self.transport.close()
        account = self._answering = request.account
        account.requests.append(request)
        answer = account.next_answer()
        account.seen.add()
        try:
            await self._play(iter(answer(request)))
        except asyncio.CancelledError:
            account.hang_ups.add()
            raise
        self._answering = None

    async def _play(self, parts: Iterator[Part]) -> None:
        try:
            for part in parts:
                match part:
                    case bytes():
                        await self._send(part)
                    case Gate():
                        await part.pass_through()
                    case Pause(seconds):
                        await asyncio.sleep(seconds)
                    case Flood(piece, times):
                        for _ in range(times):
                            await self._send(piece)
                            await asyncio.sleep(0)  # other connections have their turn
                    case Act.HANG:
                        await asyncio.get_running_loop().create_future()
                    case Act.RESET:
                        return self._reset()
                    case Act.CLOSE:
                        return self.transport.close()
        finally:
            if isinstance(parts, Generator):
                parts.close()  # now, so that the answer's own bookkeeping is done before the test looks

    async def _send(self, data: bytes) -> None:
        await self._writable.wait()
        if self.transport.is_closing():
            await asyncio.get_running_loop().create_future()  # the news of the peer's going is on its way
        self.transport.write(data)

    def _reset(self) -> None:
        linger = struct.pack("ii", 1, 0)  # on, zero seconds: close() sends RST
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.transport.abort()

    async def _read_request(self) -> Received | None:
        head = await self._read_until(b"\r\n\r\n")
        first, *lines = head[:-4].decode("latin-1").split("\r\n")
        words = first.split(" ")
        fields = [line.partition(":") for line in lines]
        headers = tuple((name.lower(), value.strip()) for name, _, value in fields)
        names = [name for name, _ in headers]
        framings = names.count("content-length") + names.count("transfer-encoding")
        if len(words) != 3 or words[2] != "HTTP/1.1" or names.count("host") != 1 or framings > 1:
            self._upstream.malformed.append(head)
            return None
        account = self._upstream.account_of(headers)
        body = b"" if account is not None and account.hasty else await self._read_body(dict(headers))
        request = Received(
            method=words[0],
            path=words[1],
            head=head,
            headers=headers,
            body=body,
            connection=self._number,
            at=time.monotonic(),
            account=account or _stranger(),
        )
        if account is None:
            self._upstream.strangers.append(request)
        return request

    async def _read_body(self, headers: Mapping[str, str]) -> bytes:
        if headers.get("transfer-encoding") == "chunked":
            pieces = []
            while size := int((await self._read_until(b"\r\n")).split(b";")[0], 16):
                pieces.append((await self._read_exactly(size + 2))[:-2])
            await self._read_until(b"\r\n")
            return b"".join(pieces)
        return await self._read_exactly(int(headers.get("content-length", "0")))

    async def _read_until(self, mark: bytes) -> bytes:
        while (end := self._buffer.find(mark)) < 0:
            await self._more()
        return await self._read_exactly(end + len(mark))

    async def _read_exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            await self._more()
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    async def _more(self) -> None:
        self._news.clear()
        await self._news.wait()


def _stranger() -> Account:
    return Account("").answers(error(401, "Incorrect API key provided"))


# Answers: whole ones


def reply(status: int, body: bytes | str | Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Answer:
    """One complete answer with a length; a mapping is sent as JSON."""
    content = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else _json(body)
    fields = {"content-type": "application/json", **(headers or {})}
    return lambda request: [head(status, {**fields, "content-length": str(len(content))}) + content]


def raw(*parts: Part) -> Answer:
    """Exactly these parts, whatever they are."""
    return lambda request: parts


def error(status: int, message: str = "scripted failure", **more: Any) -> Answer:
    """An error as OpenAI writes it. ``headers=`` adds headers, other words override members of the error object."""
    headers = more.pop("headers", None)
    kind = "invalid_request_error" if status < 429 else "rate_limit_error" if status == 429 else "server_error"
    return reply(status, {"error": {"message": message, "type": kind, "param": None, "code": None, **more}}, headers)


def mistral_error(status: int, message: str = "scripted failure", code: str | None = None) -> Answer:
    """An error as Mistral writes it: no ``error`` object around."""
    body = {"object": "error", "message": message, "type": "invalid_request_error", "param": None, "code": code}
    return reply(status, {**body, "raw_status_code": status})


def openai_reply(text: str = "Bonjour", bill: Bill = Bill(9, 3), **message: Any) -> Answer:
    """A chat completion as OpenAI sends it. More words become members of the message (``tool_calls=[…]``)."""

    def answer(request: Received) -> Iterator[Part]:
        request.bill(bill)
        finish = "tool_calls" if message.get("tool_calls") else "stop"
        body = {
            "id": "chatcmpl-" + secrets.token_hex(8),
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": request.json["model"],
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text, "refusal": None, **message},
                    "logprobs": None,
                    "finish_reason": finish,
                }
            ],
            "usage": openai_usage(bill),
        }
        yield from reply(200, body)(request)

    return answer


def mistral_reply(text: str = "Bonjour", bill: Bill = Bill(9, 3), **message: Any) -> Answer:
    """A chat completion as Mistral sends it: no ``refusal``, no ``logprobs``, nulls where OpenAI leaves out."""

    def answer(request: Received) -> Iterator[Part]:
        request.bill(bill)
        finish = "tool_calls" if message.get("tool_calls") else "stop"
        body = {
            "id": secrets.token_hex(16),
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": request.json["model"],
            "usage": mistral_usage(bill),
            "choices": [
                {
                    "index": 0,
                    "finish_reason": finish,
                    "message": {"role": "assistant", "tool_calls": None, "content": text, **message},
                }
            ],
        }
        yield from reply(200, body)(request)

    return answer


def embeddings_reply(dimensions: int = 2) -> Answer:
    """As many vectors as there were inputs, at either provider; the inputs are numbers, and each begins its vector."""

    def answer(request: Received) -> Iterable[Part]:
        inputs = request.json["input"]
        texts = inputs if isinstance(inputs, list) else [inputs]
        vectors = [[float(text), *[0.5] * (dimensions - 1)] for text in texts]
        packed = request.json.get("encoding_format") == "base64"
        data = [
            {"object": "embedding", "index": index, "embedding": _packed(vector) if packed else vector}
            for index, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
        body = {"object": "list", "data": data, "model": request.json["model"], "usage": usage}
        return reply(200, body)(request)

    return answer


def _packed(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def openai_usage(bill: Bill) -> dict[str, Any]:
    return {
        "prompt_tokens": bill.input_tokens,
        "completion_tokens": bill.output_tokens,
        "total_tokens": bill.input_tokens + bill.output_tokens,
        "prompt_tokens_details": {"cached_tokens": bill.cached_input_tokens, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def mistral_usage(bill: Bill) -> dict[str, Any]:
    total = bill.input_tokens + bill.output_tokens
    return {"prompt_tokens": bill.input_tokens, "total_tokens": total, "completion_tokens": bill.output_tokens}


# Answers: streams


def openai_stream(
    texts: Sequence[str | dict[str, Any] | Part],
    bill: Bill | None = None,
    *,
    finish: str | None = "stop",
    done: bool = True,
) -> Answer:
    """A stream as OpenAI sends it: a role chunk, the texts, a finish chunk, usage *if the request asked for it*.

    A mapping among the texts is sent as a delta (tool calls), parts stand where they stand. Without ``bill`` the
    provider bills seven input tokens and one output token per text that it produced; it bills a stream that was cut,
    too. ``finish=None`` and ``done=False`` leave out the ends that a broken provider leaves out.
    """

    def answer(request: Received) -> Iterator[Part]:
        asked = (request.json.get("stream_options") or {}).get("include_usage", False)
        base = {
            "id": "chatcmpl-" + secrets.token_hex(8),
            "object": "chat.completion.chunk",
            "created": 1_700_000_000,
            "model": request.json["model"],
            "system_fingerprint": "fp_scripted",
        }
        nothing_yet = {"usage": None} if asked else {}

        def chunk(delta: Mapping[str, Any], finish_reason: str | None = None) -> bytes:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
            return event({**base, "choices": [choice], **nothing_yet})

        produced = 0
        try:
            yield head(200, {"content-type": "text/event-stream; charset=utf-8", "transfer-encoding": "chunked"})
            yield chunk({"role": "assistant", "content": "", "refusal": None})
            for text in texts:
                if isinstance(text, str | dict):
                    produced += 1
                    yield chunk({"content": text} if isinstance(text, str) else text)
                else:
                    yield text
            if finish is not None:
                yield chunk({}, finish)
            if asked and finish is not None:
                yield event({**base, "choices": [], "usage": openai_usage(bill or Bill(7, produced))})
            yield (event("[DONE]") if done else b"") + LAST_CHUNK
        finally:
            request.bill(bill or Bill(7, produced))

    return answer


def mistral_stream(
    texts: Sequence[str | dict[str, Any] | Part], bill: Bill | None = None, *, finish: str | None = "stop"
) -> Answer:
    """A stream as Mistral sends it: usage always, on the finishing chunk."""

    def answer(request: Received) -> Iterator[Part]:
        base = {
            "id": secrets.token_hex(16),
            "object": "chat.completion.chunk",
            "created": 1_700_000_000,
            "model": request.json["model"],
        }

        def chunk(delta: Mapping[str, Any], finish_reason: str | None = None, **more: Any) -> bytes:
            return event({**base, "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}], **more})

        produced = 0
        try:
            yield head(200, {"content-type": "text/event-stream; charset=utf-8", "transfer-encoding": "chunked"})
            yield chunk({"role": "assistant", "content": ""})
            for text in texts:
                if isinstance(text, str | dict):
                    produced += 1
                    yield chunk({"content": text} if isinstance(text, str) else text)
                else:
                    yield text
            if finish is not None:
                yield chunk({"content": ""}, finish, usage=mistral_usage(bill or Bill(7, produced)))
            yield event("[DONE]") + LAST_CHUNK
        finally:
            request.bill(bill or Bill(7, produced))

    return answer


# Bytes


def head(status: int, headers: Mapping[str, str]) -> bytes:
    """The head of an answer, with nothing added."""
    with contextlib.suppress(ValueError):
        reason = HTTPStatus(status).phrase
        return _lines(f"HTTP/1.1 {status} {reason}", headers)
    return _lines(f"HTTP/1.1 {status} Scripted", headers)


LAST_CHUNK = b"0\r\n\r\n"


def http_chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(data: str | Mapping[str, Any]) -> bytes:
    """One server-sent event as one HTTP chunk."""
    return http_chunk(b"data: " + (data.encode() if isinstance(data, str) else _json(data)) + b"\n\n")


def _lines(first: str, headers: Mapping[str, str]) -> bytes:
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{first}\r\n{fields}\r\n".encode("latin-1")


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


STREAM_HEAD = head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
