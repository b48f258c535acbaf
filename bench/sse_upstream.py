"""A mock provider that streams: ``python -m bench.sse_upstream PORT EVENTS INTERVAL_S``.

A request for a stream is answered by EVENTS frames of content, the first at once and then one each INTERVAL_S seconds,
and the frames that end a stream; any other request by one plain answer.
"""

import asyncio
import re
import sys
from typing import cast

import uvloop

from bench import exchange

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_STREAM = re.compile(rb'"stream" *: *true')
_USAGE_ASKED = re.compile(rb'"include_usage" *: *true')


def _chunk(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)


_HEADERS = "".join(f"{name}: {value}\r\n" for name, value in exchange.ANSWER_HEADERS.items())
_HEAD = (
    f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n{_HEADERS}\r\n"
).encode()
_PLAIN = (
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    f"Content-Length: {len(exchange.ANSWER)}\r\n{_HEADERS}\r\n{exchange.ANSWER}"
).encode()
_CONTENT = [_chunk(exchange.event({"content": " assist"}, usage_asked=asked)) for asked in (False, True)]
_FINISH = [exchange.event({}, "stop", usage_asked=asked) for asked in (False, True)]


class Stream(asyncio.Protocol):
    """One connection; requests on it come one after the other."""

    __slots__ = ("_content", "_events", "_interval_s", "_last", "_left", "_loop", "_received", "_transport")

    def __init__(self, loop: asyncio.AbstractEventLoop, events: int, interval_s: float) -> None:
        self._loop = loop
        self._events = events
        self._interval_s = interval_s
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, blank, body = self._received.partition(b"\r\n\r\n")
        if blank and (length := _LENGTH.search(head)) and len(body) >= int(length[1]):
            self._received = b""
            if _STREAM.search(body):
                self._begin(usage_asked=_USAGE_ASKED.search(body) is not None)
            else:
                self._transport.write(_PLAIN)

    def _begin(self, *, usage_asked: bool) -> None:
        self._content = _CONTENT[usage_asked]
        usage = exchange.usage_event(self._events) if usage_asked else b""
        self._last = _chunk(_FINISH[usage_asked]) + _chunk(usage + exchange.DONE) + b"0\r\n\r\n"
        self._left = self._events
        self._transport.write(_HEAD)
        self._tick()

    def _tick(self) -> None:
        if self._transport.is_closing():
            return
        if self._left == 0:
            self._transport.write(self._last)
            return
        self._left -= 1
        self._transport.write(self._content)
        self._loop.call_later(self._interval_s, self._tick)


async def serve(port: int, events: int, interval_s: float) -> None:
    """Listen until killed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Stream(loop, events, interval_s), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
