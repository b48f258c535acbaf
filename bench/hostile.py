"""Requests and answers made to cost as much as they can: each of some 30 MiB of nearly nothing but structure."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

SIZE = 31 * 1024 * 1024
"""Bytes: just below the gateway's largest body."""

EVENT = 8 * 1000 * 1000
"""Bytes of a single event of a stream."""

_FORM = "multipart/form-data; boundary=edge"
_PART = b'--edge\r\nContent-Disposition: form-data; name="%b"\r\n%b\r\n%b\r\n'


class Request(NamedTuple):
    """What a client sends."""

    path: str
    body: Callable[[], bytes]
    """Made when it is needed: all of them together would not fit into memory."""
    content_type: str = "application/json"
    framing: str = ""
    """Instead of the body's length."""


class Answer(NamedTuple):
    """What a provider sends."""

    dialect: str
    body: Callable[[], bytes]
    streams: bool = False
    path: str = "/v1/chat/completions"
    asks: bytes = b'"messages":[{"role":"user","content":"a"}]'
    """How the client calls for it."""


def _filled(before: bytes, unit: bytes, after: bytes, size: int = SIZE) -> Callable[[], bytes]:
    return lambda: b"".join((before, unit * ((size - len(before) - len(after)) // len(unit)), after))


def _numbered(size: int = SIZE) -> bytes:
    members = b",".join([b'"a%d":0' % number for number in range(size // 12)])
    return b'{"model":"gpt-4o","messages":[],%b}' % members


_CHAT = b'{"model":"gpt-4o","messages":[{"role":"user","content":'

REQUESTS: Mapping[str, Request] = {
    "one long text": Request("/v1/chat/completions", _filled(_CHAT + b'"', b"a word ", b'"}]}')),
    "one long text of escapes": Request("/v1/chat/completions", _filled(_CHAT + b'"', b"\\n\\u00e9", b'"}]}')),
    "one long text of other letters": Request("/v1/chat/completions", _filled(_CHAT + b'"', "語".encode(), b'"}]}')),
    "unknown members": Request("/v1/chat/completions", _numbered),
    "content parts": Request("/v1/chat/completions", _filled(_CHAT + b"[", b'{"type":"a"},', b'{"type":"a"}]}]}')),
    "messages": Request(
        "/v1/chat/completions", _filled(b'{"model":"gpt-4o","messages":[', b'{"role":"user","content":"a"},', b"{}]}")
    ),
    "tools": Request(
        "/v1/chat/completions", _filled(_CHAT + b'"a"}],"tools":[', b'{"type":"function"},', b'{"type":"a"}]}')
    ),
    "deep lists": Request("/v1/chat/completions", _filled(_CHAT, b"[", b"]}]}")),
    "no JSON at all": Request("/v1/chat/completions", _filled(b"", b"\x00", b"")),
    "an empty object for each item of content": Request(
        "/v1/responses", _filled(b'{"model":"gpt-4o","input":[{"role":"user","content":[', b"{},", b"{}]}]}")
    ),
    "an escape before empty lists": Request(
        "/v1/responses", _filled(b'{"model":"gpt-4o","input":["\\u0061",', b"[],", b"[]]}")
    ),
    "names that are nearly those of files": Request(
        "/v1/responses", _filled(b'{"model":"gpt-4o","input":["', b'\\"file_id\\":', b'"]}')
    ),
    "tools of a response": Request(
        "/v1/responses", _filled(b'{"model":"gpt-4o","input":"a","tools":[', b'{"type":"a"},', b"{}]}")
    ),
    "tokens to embed": Request(
        "/v1/embeddings", _filled(b'{"model":"text-embedding-3-small","input":[', b"1,", b"1]}")
    ),
    "lists to embed": Request(
        "/v1/embeddings", _filled(b'{"model":"text-embedding-3-small","input":[', b"[1],", b"[1]]}")
    ),
    "prompts": Request("/v1/completions", _filled(b'{"model":"gpt-3.5-turbo-instruct","prompt":[', b'"",', b'""]}')),
    "inputs to moderate": Request(
        "/v1/moderations", _filled(b'{"model":"omni-moderation-latest","input":[', b'{"type":"text"},', b"{}]}")
    ),
    "a part of escapes": Request("/v1/chat/completions", _filled(_CHAT + b'[{"type":"x","w":"', b'\\"', b'"}]}]}')),
    "a part of escapes in a response": Request(
        "/v1/responses",
        _filled(b'{"model":"gpt-4o","input":[{"role":"user","content":[{"type":"x","w":"', b"\\n", b'"}]}]}'),
    ),
    "thoughts of escapes": Request(
        "/v1/chat/completions",
        _filled(_CHAT + b'"a"},{"role":"assistant","content":"a","reasoning_details":[{"text":"', b'\\"', b'"}]}]}'),
    ),
    "chunks of one byte": Request(
        "/v1/chat/completions",
        lambda: b"1\r\na\r\n" * (SIZE // 12) + b"0\r\n\r\n",
        framing="Transfer-Encoding: chunked",
    ),
    "a content type of blanks": Request(
        "/v1/audio/transcriptions", lambda: b"{}", "multipart/form-data; a=b" + " " * 60_000 + "x"
    ),
    "blanks in the heads of a form": Request(
        "/v1/audio/transcriptions",
        lambda: _PART % (b"a", b"X-A: a" + b" " * 15_000 + b"b\r\n", b"") * 2000 + b"--edge--\r\n",
        _FORM,
    ),
    "a form of many parts": Request(
        "/v1/audio/transcriptions", lambda: _PART % (b"a", b"", b"") * 500_000 + b"--edge--\r\n", _FORM
    ),
}

_EVENT_OF = b'data: {"choices":[%b]}\n\n'


def _event(unit: bytes, before: bytes = b"", after: bytes = b"") -> Callable[[], bytes]:
    return lambda: _EVENT_OF % _filled(before, unit, after, EVENT)()


_SAID = b'data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'


def _new_calls() -> bytes:
    return b"".join(
        b'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":%d,"id":"%d%b","function":{"name":"f"}}]}}]}\n\n'
        % (number, number, b"i" * 1000)
        for number in range(SIZE // 1100)
    )


def _new_choices() -> bytes:
    return b"".join(
        b'data: {"choices":[{"index":%d,"delta":{"role":"assistant","content":"a"}}]}\n\n' % number
        for number in range(SIZE // 80)
    )


def _nameless_calls() -> bytes:
    arguments = b"i" * 63_000
    return b"".join(
        b'data: {"choices":[{"index":%d,"delta":{"tool_calls":[{"index":%d,"function":{"arguments":"%b"}}]}}]}\n\n'
        % (number % 9, number // 9, arguments)
        for number in range(4 * SIZE // len(arguments))
    )


def _vectors() -> bytes:
    vector = b"AACAPwAAgD8" * 4096  # all but whole numbers
    return b'{"data":[%b{}]}' % (b'{"index":0,"embedding":"%b"},' % vector * (SIZE // len(vector)))


_INPUT = b'"input":"a"'

ANSWERS: Mapping[str, Answer] = {
    "no UTF-8": Answer(
        "openai", _filled(b'{"choices":[{"index":0,"message":{"content":"', b"\xff", b'"}}]}', 2 * SIZE)
    ),
    "half a character before escapes": Answer(
        "openai", _filled(b'{"choices":[{"index":0,"message":{"content":"\\ud800', b"\\n", b'"}}]}', 2 * SIZE)
    ),
    "no number before escapes": Answer(
        "mistral", _filled(b'{"a":NaN,"choices":[{"index":0,"message":{"content":"', b"\\n", b'"}}]}', 2 * SIZE)
    ),
    "vectors in the other encoding": Answer(
        "openai", _vectors, path="/v1/embeddings", asks=_INPUT + b',"encoding_format":"float"'
    ),
    "one vector in the other encoding": Answer(
        "openai",
        _filled(b'{"data":[{"index":0,"embedding":"', b"AACAPwAAgD8A", b'"}]}', 2 * SIZE),
        path="/v1/embeddings",
        asks=_INPUT + b',"encoding_format":"float"',
    ),
    "small odd events": Answer("openai", _filled(_SAID, b'data: {"choices":null,"error":{}}\n\n', b""), streams=True),
    "texts elsewhere": Answer("mistral", _filled(_SAID, b'data: {"content":"aaaaaaaaa"}\n\n', b""), streams=True),
    "one letter an event": Answer("openai", _filled(_SAID, _SAID, b""), streams=True),
    "one letter an event that passes": Answer(
        "openai",
        _filled(b"", b'data: {"type":"response.output_text.delta","delta":"a"}\n\n', b""),
        streams=True,
        path="/v1/responses",
        asks=_INPUT,
    ),
    "errors that pass": Answer(
        "openai",
        _filled(
            b'data: {"type":"response.created"}\n\ndata: {"error":{"message":"no"}}\n\ndata: {"error":[',
            b'"a-1:a-1:a-1",',
            b'""]}\n\n',
            SIZE // 2,
        ),
        streams=True,
        path="/v1/responses",
        asks=_INPUT,
    ),
    "calls without a name": Answer("openai", _nameless_calls, streams=True),
    "choices": Answer("openai", _filled(b'{"choices":[', b"{},", b"{}]}")),
    "choices of Mistral's": Answer("mistral", _filled(b'{"choices":[', b'{"message":{}},', b'{"message":{}}]}')),
    "calls of tools": Answer(
        "mistral",
        _filled(b'{"choices":[{"message":{"tool_calls":[', b'{"function":{}},', b'{"function":{}}]}}]}'),
    ),
    "parts": Answer("mistral", _filled(b'{"choices":[{"message":{"content":[', b"{},", b"{}]}}]}")),
    "numbers that nobody reads": Answer("openai", _filled(b'{"choices":[{}],"a":[', b"1,", b"1]}")),
    "brackets": Answer("openai", _filled(b"", b"[", b"")),
    "no JSON": Answer("openai", _filled(b"<html>", b"<script ", b"")),
    "choices in one event": Answer("openai", _event(b"{},", after=b"{}"), streams=True),
    "calls in one event": Answer("openai", _event(b"{},", b'{"delta":{"tool_calls":[', b"{}]}}"), streams=True),
    "calls in one event of Mistral's": Answer(
        "mistral", _event(b'{"function":{}},', b'{"delta":{"tool_calls":[', b'{"function":{}}]}}'), streams=True
    ),
    "a text in one event": Answer("openai", _event(b"\\n", b'{"delta":{"content":"', b'"}}'), streams=True),
    "tiny events": Answer("openai", _filled(_SAID, b"data: {}\n\n", b""), streams=True),
    "comments": Answer("openai", _filled(_SAID, b":\n\n", b""), streams=True),
    "lines": Answer("openai", _filled(_SAID, b"data:\n", b""), streams=True),
    "ever new calls": Answer("openai", _new_calls, streams=True),
    "ever new choices": Answer("openai", _new_choices, streams=True),
    "a whole answer in place of a stream": Answer("openai", _filled(b'{"choices":[', b"{},", b"{}]}"), streams=True),
    "a whole answer of one text": Answer(
        "openai",
        _filled(b'{"choices":[{"index":0,"message":{"role":"assistant","content":"', b"a word ", b'"}}]}'),
        streams=True,
    ),
}
