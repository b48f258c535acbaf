"""Heads of requests and responses: bytes in, values out. Pure.

1. httptools (llhttp, strict) reads the lines: it refuses bare CR and LF, control characters, folded lines, bad names
   and a space before the colon. A fresh parser per head, because it is never shown a body. That it has seen as many
   headers as there are line feeds is checked, so that no leniency of its can make two heads of one.
2. Everything that decides where the message ends is decided here, once, and not taken from the parser.
3. A header whose repetition could be read in two ways is refused; others become one list (RFC 9110, section 5.3).
"""

import re
from functools import lru_cache
from typing import Final, NamedTuple

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser, HttpResponseParser

from tollway.http1.errors import (
    BadFraming,
    BadHead,
    BadResponse,
    ExpectationFailed,
    HeadTooLarge,
    MessageError,
    TargetTooLong,
)

CHUNKED: Final = -1
"""Framing: the body comes in chunks."""
UNTIL_CLOSE: Final = -2
"""Framing: the body ends where the connection ends (responses only)."""

MAX_HEADERS: Final = 128
"""Header lines in one head; browsers and SDKs send 10 to 30."""
MAX_TARGET: Final = 8192
"""Bytes of a request target (RFC 9112, section 3, asks for at least 8000)."""

_LENGTH: Final = b"\r\nContent-Length: "  # as Python and Go spell it
_LOWER_LENGTH: Final = b"\r\ncontent-length: "  # as Node and Rust do
_MAX_KNOWN: Final = 256  # heads of requests that are known again: 1 MiB if they are usual ones, 8 MiB at the worst
_MAX_KNOWN_HEAD: Final = 4096
_OTHER_LINES: Final = 2  # of a head: its first and the blank one
_LENGTH_DIGITS: Final = 18  # a Content-Length that any 64-bit program reads alike
_TARGET_CHARACTERS: Final = (  # RFC 3986 without "#"
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~%!$&'()*+,;=:@/?[]"
)
_is_method: Final = re.compile(rb"[A-Z-]{1,32}").fullmatch
_is_host: Final = re.compile(rb"(?:[A-Za-z0-9._~-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?").fullmatch
_is_absolute: Final = re.compile(rb"(?i:https?)://([^/?]*)(.*)").fullmatch
_SINGLE: Final = frozenset(
    b"host content-length transfer-encoding content-type content-encoding expect cookie"
    b" authorization proxy-authorization api-key x-api-key x-goog-api-key idempotency-key origin".split()
)
"""Headers of which a second line is refused: framing, identity, and what the body is."""


class _Head:
    """What httptools fills: header names in lower case, values without the white space around them."""

    __slots__ = ("ambiguous", "framing", "headers", "keep_alive", "repeated")

    headers: dict[bytes, bytes]
    keep_alive: bool
    framing: int

    def __init__(self) -> None:
        self.headers = {}
        self.repeated = 0
        self.ambiguous = False

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        value = value.rstrip()
        if name in self.headers:
            self.repeated += 1
            self.ambiguous |= name in _SINGLE
            value = self.headers[name] + b", " + value
        self.headers[name] = value


class RequestHead(_Head):
    """A request's head. ``target`` is ``path[?query]``, still escaped, or ``*``; never a whole URL.

    ``framing`` is the length of the body, or ``CHUNKED``; ``minor`` the second digit of the HTTP version. There is no
    ``content-length`` among the headers, because one head serves requests of different lengths (:class:`RequestHeads`).
    """

    __slots__ = ("expect_continue", "method", "minor", "path", "query", "target")

    method: bytes
    target: bytes
    path: bytes
    query: bytes
    minor: int
    expect_continue: bool


class ResponseHead(_Head):
    """A response's head. ``framing`` is the length of the body, ``CHUNKED`` or ``UNTIL_CLOSE``."""

    __slots__ = ("status",)

    status: int


def parse_request_head(head: bytes, max_headers: int = MAX_HEADERS) -> RequestHead:
    """Read a head, from its first byte to the blank line inclusive. Raises :class:`MessageError`."""
    if head[:2] == b"\r\n":
        head = head[2:]  # RFC 9112, section 2.2: one empty line before a request is forgiven
    lines = head.count(b"\n") - _OTHER_LINES
    if lines > max_headers:
        raise HeadTooLarge("the request has too many headers")
    parsed = RequestHead()
    try:
        HttpRequestParser(parsed).feed_data(head)
    except HttpParserUpgrade:
        pass  # an offer that we do not take up (RFC 9110, section 7.8); CONNECT fails below by its target
    except HttpParserError:
        raise BadHead("the request head is not valid HTTP/1.1") from None
    if len(parsed.headers) + parsed.repeated != lines:
        raise BadHead("the request head is not valid HTTP/1.1")
    if parsed.ambiguous:
        raise BadHead("a header that must be single is repeated")

    line = _request_line(head[: head.index(b"\r\n")])
    parsed.method, parsed.target, parsed.path, parsed.query, minor, authority = line
    parsed.minor = minor
    headers = parsed.headers
    host = headers.get(b"host")
    if host is not None:
        _judge_host(host)
    elif minor:
        raise BadHead("the Host header is missing")
    if authority is not None:
        headers[b"host"] = authority
    parsed.expect_continue = b"expect" in headers and _expects_continue(headers[b"expect"], minor)
    parsed.keep_alive = _keep_alive(headers.get(b"connection"), minor)
    parsed.framing = _framing(headers, minor, 0)
    headers.pop(b"content-length", None)
    return parsed


class RequestHeads:
    """Reads the heads of a server's requests, and knows the last ones again.

    A client sends one head again and again, with another length. So a head that differs from an accepted one in the
    digits of its Content-Length and in nothing else is accepted with the same meaning, unread: 0.5 µs, not 2 to 5.
    Which digits these are was settled by the reading of the first. What is known lives as long as the process at most,
    credentials included.
    """

    __slots__ = ("_known", "_max_headers")

    def __init__(self, max_headers: int = MAX_HEADERS) -> None:
        self._max_headers = max_headers
        self._known: dict[tuple[bytes, bytes], RequestHead] = {}

    def read(self, head: bytes) -> tuple[RequestHead, int]:
        """A head, and the framing of this request; the head's own may be an earlier one's. Raises MessageError."""
        before, found, rest = head.partition(_LENGTH)
        if not found:
            before, _, rest = head.partition(_LOWER_LENGTH)
        digits, _, after = rest.partition(b"\r")
        key = before, after
        usual = digits.isdigit() and len(digits) <= _LENGTH_DIGITS
        if usual and (known := self._known.get(key)) is not None:
            return known, int(digits)
        parsed = parse_request_head(head, self._max_headers)
        if usual and len(head) <= _MAX_KNOWN_HEAD:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[key] = parsed
        return parsed, parsed.framing


def parse_response_head(head: bytes, request_method: bytes = b"POST") -> ResponseHead:
    """Read a head, from its first byte to the blank line inclusive. Raises :class:`BadResponse`.

    Interim answers (1xx) are returned like others, with no body; 101 is refused because nobody asked for it.
    """
    lines = head.count(b"\n") - _OTHER_LINES
    if lines > MAX_HEADERS:
        raise _bad_response("the answer has too many headers")
    if not head.startswith((b"HTTP/1.1 ", b"HTTP/1.0 ")):
        raise _bad_response("the answer is not HTTP/1.0 or HTTP/1.1")
    parsed = ResponseHead()
    parser = HttpResponseParser(parsed)
    try:
        parser.feed_data(head)
    except (HttpParserError, HttpParserUpgrade):
        raise _bad_response("the head of the answer is not valid HTTP/1.1") from None
    if len(parsed.headers) + parsed.repeated != lines:
        raise _bad_response("the head of the answer is not valid HTTP/1.1")
    status = parsed.status = parser.get_status_code()
    headers = parsed.headers
    minor = head[7] - 0x30
    if not 100 <= status <= 599 or status == 101:
        raise _bad_response("the answer has a status that has no meaning here")
    tunnel = request_method == b"CONNECT" and status < 300
    if tunnel or status < 200 or status in (204, 304) or request_method == b"HEAD":
        parsed.framing = 0
    else:
        try:
            parsed.framing = _framing(headers, minor, UNTIL_CLOSE)
        except MessageError as error:
            raise _bad_response(error.reason) from None
    parsed.keep_alive = parsed.framing != UNTIL_CLOSE and _keep_alive(headers.get(b"connection"), minor)
    return parsed


class _RequestLine(NamedTuple):
    method: bytes
    target: bytes
    path: bytes
    query: bytes
    minor: int
    authority: bytes | None
    """What takes the place of ``Host``; None unless the target was a whole URL."""


@lru_cache(maxsize=128)  # most requests have one of a few lines; at the very worst it holds 3 MiB
def _request_line(line: bytes) -> _RequestLine:
    """Of a whole URL, as clients send it to proxies, only path and authority count (RFC 9112, section 3.2.2)."""
    words = line.split(b" ")
    if len(words) != 3:
        raise BadHead("the request line is not valid")
    method, target, version = words
    if not _is_method(method):  # llhttp knows its methods, but skips stray line ends before them
        raise BadHead("the method is not valid")
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise BadHead("the protocol is not HTTP/1.0 or HTTP/1.1")
    if len(target) > MAX_TARGET:
        raise TargetTooLong("the request target is too long")
    if target.translate(None, _TARGET_CHARACTERS):
        raise BadHead("the request target has characters that must be escaped")
    authority = None
    if absolute := _is_absolute(target):
        authority, target = absolute.groups()
        _judge_host(authority)
        if not target.startswith(b"/"):
            target = b"*" if method == b"OPTIONS" and not target else b"/" + target
    everything = target == b"*" and method == b"OPTIONS"
    if method == b"CONNECT" or not (target.startswith(b"/") or everything):
        raise BadHead("the request target is not a path")
    path, _, query = target.partition(b"?")
    return _RequestLine(method, target, path, query, version[-1] - 0x30, authority)


@lru_cache(maxsize=128)
def _judge_host(host: bytes) -> None:
    if not _is_host(host):
        raise BadHead("the host is neither a name nor an address")


def _expects_continue(expect: bytes, minor: int) -> bool:
    if expect.lower() != b"100-continue":
        raise ExpectationFailed("the expectation is not 100-continue")
    return minor == 1


@lru_cache(maxsize=32)
def _keep_alive(connection: bytes | None, minor: int) -> bool:
    if connection is None:
        return minor == 1
    options = [option.strip() for option in connection.lower().split(b",")]
    return b"close" not in options and (minor == 1 or b"keep-alive" in options)


def _framing(headers: dict[bytes, bytes], minor: int, otherwise: int) -> int:
    """RFC 9112, section 6.3, in its strictest reading: one statement about the length, or none."""
    coding = headers.get(b"transfer-encoding")
    length = headers.get(b"content-length")
    if coding is not None:
        if length is not None:
            raise BadFraming("Content-Length and Transfer-Encoding exclude each other")
        if minor == 0 or coding.lower() != b"chunked":
            raise BadFraming("the Transfer-Encoding is not supported")
        return CHUNKED
    if length is None:
        return otherwise
    if not length.isdigit() or len(length) > _LENGTH_DIGITS:
        raise BadFraming("the Content-Length is not a number")
    return int(length)


def _bad_response(reason: str) -> BadResponse:
    return BadResponse(reason, nothing_received=False)
