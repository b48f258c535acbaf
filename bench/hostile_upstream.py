"""A mock provider that answers as ``bench.hostile`` says: ``python -m bench.hostile_upstream PORT``.

The model's name says which answer: ``hostile-3`` is the fourth.
"""

import asyncio
import re
import sys

import uvloop

from bench.hostile import ANSWERS

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_NUMBER = re.compile(rb'"model":"hostile-(\d+)"')
_PLAIN = b'{"id":"c","choices":[{"index":0,"message":{"role":"assistant","content":"a"},"finish_reason":"stop"}]}'


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One request on a connection of its own."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = _LENGTH.search(head)
    body = await reader.readexactly(int(length[1])) if length else b""
    number = _NUMBER.search(body)
    found = list(ANSWERS.values())[int(number[1])] if number else None
    content = found.body() if found else _PLAIN
    kind = b"text/event-stream" if found and found.streams and content.startswith(b"data:") else b"application/json"
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n" % (kind, len(content)))
    try:
        writer.write(content)
        await writer.drain()
        await reader.read(1)
    except ConnectionError:
        pass  # the gateway had enough
    writer.close()


async def serve(port: int) -> None:
    """Listen until killed."""
    server = await asyncio.start_server(answer, "127.0.0.1", port, limit=64 * 1024 * 1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
