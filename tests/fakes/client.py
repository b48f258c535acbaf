"""A client that sees bytes: a connection for each call, answers parsed by h11, an independent and strict authority.

An answer that is framed wrongly, or cut in the middle, raises :class:`BrokenAnswerError`; so every ordinary call is
also a test of the server's framing.
"""

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import h11

from fakes.upstream import PATIENCE_S


class BrokenAnswerError(Exception):
    """The answer ended early or breaks the rules of HTTP."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One complete answer."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """The one value of a header; fails where it came twice."""
        values = [value for known, value in self.headers if known == name]
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """OpenAI's error object, checked to be whole: all four members, a text for people, our content type."""
        assert self.status >= 400, (self.status, self.body)
        assert (self.header("content-type") or "").startswith("application/json")
        document = self.json
        assert set(document) == {"error"}, document
        found = document["error"]
        assert set(found) == {"message", "type", "param", "code"}, found
        assert isinstance(found["message"], str) and found["message"]
        assert isinstance(found["type"], str)
        return found

    @property
    def refusal(self) -> tuple[int, str | None]:
        """Status and code, the pair that programs decide on."""
        return self.status, self.error["code"]

    @property
    def text(self) -> str:
        """What the model said."""
        assert self.status == 200, (self.status, self.body)
        return self.json["choices"][0]["message"]["content"]


class Wire:
    """One connection: bytes out, answers in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http: h11.Connection | None = None
        self.interim: list[int] = []
        """Status codes 1xx that came before the last answer."""

    async def send(self, data: bytes) -> None:
        """Send bytes as they are. A peer that has already closed is no error here: the answer tells."""
        with suppress(ConnectionError):
            self._writer.write(data)
            await self._writer.drain()

    async def reply(self, method: str = "POST") -> Reply:
        """The next complete answer."""
        start = await self.head(method)
        return Reply(start.status, start.headers, b"".join([piece async for piece in self.pieces()]))

    async def head(self, method: str = "POST") -> Reply:
        """The next answer's head; :meth:`pieces` gives its body."""
        http = self._next_cycle(method)
        while not isinstance(event := await self._event(http), h11.Response):
            assert isinstance(event, h11.InformationalResponse), event
            self.interim.append(event.status_code)
        headers = tuple((name.decode(), value.decode("latin-1")) for name, value in event.headers)
        return Reply(event.status_code, headers)

    async def interim_status(self, method: str = "POST") -> int:
        """The next 1xx answer; the real one is still to come and is read with :meth:`reply` or :meth:`head`."""
        event = await self._event(self._next_cycle(method))
        assert isinstance(event, h11.InformationalResponse), event
        return event.status_code

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body of the answer whose head was read, as it arrives, to its proper end."""
        assert self._http is not None
        while isinstance(event := await self._event(self._http), h11.Data):
            yield bytes(event.data)
        assert isinstance(event, h11.EndOfMessage), event

    async def is_closed(self) -> bool:
        """Wait until the server closes; False when it sends something instead."""
        if self._http is not None and self._http.trailing_data[0]:
            return False
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self._reader.read(1) == b""
        except ConnectionError:
            return True

    def finish_sending(self) -> None:
        """Close only our half (FIN)."""
        self._writer.write_eof()

    def reset(self) -> None:
        """Go away without a word (RST)."""
        plain = self._writer.get_extra_info("socket")
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def close(self) -> None:
        self._writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await self._writer.wait_closed()

    def _next_cycle(self, method: str) -> h11.Connection:
        # h11 wants to have sent the request itself; what it would have sent is dropped.
        left = self._http.trailing_data[0] if self._http is not None else b""
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
        self._http.send(h11.Request(method=method, target="/", headers=[("host", "x"), ("content-length", "0")]))
        self._http.send(h11.EndOfMessage())
        if left:
            self._http.receive_data(left)
        return self._http

    async def _event(self, http: h11.Connection) -> Any:
        try:
            async with asyncio.timeout(PATIENCE_S):
                while (event := http.next_event()) is h11.NEED_DATA:
                    http.receive_data(await self._reader.read(1 << 16))
        except (h11.RemoteProtocolError, ConnectionError) as problem:
            raise BrokenAnswerError(str(problem)) from problem
        if isinstance(event, h11.ConnectionClosed):
            raise BrokenAnswerError("closed without an answer")
        return event


class Stream:
    """A streamed answer: its head, then its events one by one."""

    def __init__(self, wire: Wire, head: Reply) -> None:
        self.wire = wire
        self.status = head.status
        self.headers = head.headers
        self.header = head.header
        self._pieces = wire.pieces()
        self._held = b""

    async def event(self) -> str | None:
        """The next event's data; None at the proper end of the answer."""
        while b"\n\n" not in self._held:
            piece = await anext(self._pieces, None)
            if piece is None:
                assert not self._held, f"the last event is not whole: {self._held!r}"
                return None
            self._held += piece
        frame, _, self._held = self._held.partition(b"\n\n")
        assert frame.startswith(b"data: ") and b"\n" not in frame, f"not one data line: {frame!r}"
        return frame.removeprefix(b"data: ").decode()

    async def events(self) -> list[str]:
        """All events that are left."""
        found = []
        while (data := await self.event()) is not None:
            found.append(data)
        return found

    async def chunks(self) -> list[dict[str, Any]]:
        """All chunks that are left; the stream must end as OpenAI's do."""
        events = await self.events()
        assert events[-1] == "[DONE]", events[-1]
        return [json.loads(data) for data in events[:-1]]

    async def next_text(self) -> str:
        """The text of the next chunk that has any."""
        while (data := await self.event()) is not None:
            if text := text_of([json.loads(data)]):
                return text
        raise AssertionError("the stream ended without more text")

    async def body(self) -> bytes:
        """All that is left, as bytes."""
        return self._held + b"".join([piece async for piece in self._pieces])


def text_of(chunks: list[dict[str, Any]]) -> str:
    """The text that a client puts together."""
    deltas = [choice["delta"] for chunk in chunks for choice in chunk.get("choices", ())]
    return "".join(delta.get("content") or "" for delta in deltas)


def chat_body(model: str, content: Any = "Hello", **more: Any) -> dict[str, Any]:
    """A small chat request."""
    return {"model": model, "messages": [{"role": "user", "content": content}], **more}


class Client:
    """Calls to one server."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.port = port
        self._tls = tls

    @asynccontextmanager
    async def connect(self, receive_buffer: int | None = None) -> AsyncIterator[Wire]:
        """A connection to use byte by byte. A small ``receive_buffer`` makes a client that cannot take much."""
        plain = socket.socket()
        plain.setblocking(False)
        if receive_buffer is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        name = "127.0.0.1" if self._tls else None
        limit = receive_buffer or 1 << 16
        try:
            await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", self.port))
            wire = Wire(*await asyncio.open_connection(sock=plain, ssl=self._tls, server_hostname=name, limit=limit))
        except OSError:
            plain.close()
            raise
        try:
            yield wire
        finally:
            await wire.close()

    async def call(
        self,
        method: str,
        path: str,
        body: Any = b"",
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One request, one answer. A body that is not bytes is sent as JSON."""
        async with self.connect() as wire:
            await wire.send(request_bytes(method, path, body, key, headers))
            return await wire.reply(method)

    async def get(self, path: str, key: str | None = None) -> Reply:
        return await self.call("GET", path, key=key)

    async def post(
        self, path: str, body: Any = b"", key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        return await self.call("POST", path, body, key, headers)

    async def chat(self, key: str, model: str, content: Any = "Hello", **more: Any) -> Reply:
        """A completion in one piece."""
        return await self.post("/v1/chat/completions", chat_body(model, content, **more), key)

    @asynccontextmanager
    async def stream(self, key: str, model: str, content: Any = "Hello", **more: Any) -> AsyncIterator[Stream]:
        """A streamed completion; leaving the block early hangs up."""
        async with self.connect() as wire:
            body = chat_body(model, content, stream=True, **more)
            await wire.send(request_bytes("POST", "/v1/chat/completions", body, key))
            yield Stream(wire, await wire.head())


def form(*parts: tuple[str, str, bytes], boundary: str = "edge") -> tuple[bytes, dict[str, str]]:
    """A body of ``multipart/form-data`` from names, file names and contents, and its header."""
    body = b""
    for name, file, content in parts:
        names = f'form-data; name="{name}"' + (f'; filename="{file}"' if file else "")
        body += f"--{boundary}\r\nContent-Disposition: {names}\r\n\r\n".encode() + content + b"\r\n"
    return body + f"--{boundary}--\r\n".encode(), {"content-type": f"multipart/form-data; boundary={boundary}"}


def request_bytes(
    method: str, path: str, body: Any = b"", key: str | None = None, headers: Mapping[str, str] | None = None
) -> bytes:
    """A well-formed request. ``headers`` override what it would have sent by itself; None leaves a header out."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields: dict[str, str | None] = {"host": "localhost"}
    if content or method == "POST":
        fields |= {"content-type": "application/json", "content-length": str(len(content))}
    if key is not None:
        fields["authorization"] = f"Bearer {key}"
    fields |= headers or {}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value is not None)
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + content
