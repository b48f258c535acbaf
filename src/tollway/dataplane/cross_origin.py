"""Web pages of other origins that may read answers: CORS, as section 3.3 of the Fetch standard has it.

1. Only paths below ``/v1/``, for nobody needs another spelling of them; the admin surface is never opened to pages.
2. A key comes in a header that a page sets itself. Cookies and the like are never asked for, so
   ``access-control-allow-credentials`` is never said, and any page that knows a key could use it without a browser too.
3. Answers that differ by ``Origin`` say so in ``vary``, also those to requests without one.
"""

import re
from collections.abc import Iterable, Sequence

PREFIX = b"/v1/"

ANY = "*"
"""In place of a list of origins."""

MAX_AGE_S = 7200
"""How long a browser may remember what it was told before a call; Chromium remembers no longer."""

MAX_ASKED_BYTES = 8192
"""Of header names that a page asks to send; SDKs ask for a dozen, and a head has 128 at most."""

_EXPOSED = (
    *("x-request-id", "retry-after", "retry-after-ms", "x-should-retry", "www-authenticate", "allow"),
    *(f"x-ratelimit-{what}-{of}" for of in ("requests", "tokens") for what in ("limit", "remaining", "reset")),
    *("x-tollway-provider", "x-tollway-model", "x-tollway-attempts", "x-tollway-cost", "x-tollway-warnings"),
    *("x-tollway-config-revision", "content-disposition", "content-range", "accept-ranges", "location"),
    "openai-version",
)
"""What a page may read of an answer's head beyond what the standard lets it read anyway. By name, not by ``*``:
browsers of a few years ago take that for a header's name."""

_is_token = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}").fullmatch
_below_prefix = re.compile(rb"(?:\r\n)?[A-Z-]{1,32} (?:(?i:https?)://[^/? \r\n]{1,300})?/v1/").match
_origin = re.compile(rb"\r\n(?i:origin):[ \t]*+([!-~]{1,512}+)[ \t]*+\r\n").search

VARY = b"vary: Origin\r\n"
"""For an answer that would be another one if its request named an origin."""


class CrossOrigin:
    """What answers and preflights say to pages of which origin."""

    def __init__(self, allowed: Sequence[str]) -> None:
        """Origins as browsers write them, or :data:`ANY` alone."""
        exposed = f"access-control-expose-headers: {', '.join(_EXPOSED)}\r\n".encode() + VARY
        self._lines = {one.encode(): f"access-control-allow-origin: {one}\r\n".encode() + exposed for one in allowed}
        self._otherwise = self._lines.get(ANY.encode(), VARY)

    def lines(self, origin: bytes) -> bytes:
        """Header lines of every answer to a request below :data:`PREFIX`; without an origin they are :data:`VARY`."""
        return self._lines.get(origin, self._otherwise)

    def allows(self, origin: bytes) -> bool:
        """Whether pages of this origin may read answers."""
        return self.lines(origin) is not VARY

    def lines_for_refused(self, head: bytes) -> bytes:
        """… of an answer to a head that is not whole, or none that can be read, as far as one sees for whom it is."""
        if not _below_prefix(head):
            return b""
        named = _origin(head)
        return VARY if named is None else self.lines(named[1])


def preflight_lines(methods: Iterable[bytes], asked_headers: bytes, *, private_network: bool) -> bytes:
    """What an allowed preflight is told, besides :meth:`CrossOrigin.lines`: of what is asked, all that is a name."""
    names = [name.strip(b" \t") for name in asked_headers[:MAX_ASKED_BYTES].split(b",")]
    lines = b"access-control-allow-methods: %b\r\n" % b", ".join(methods)
    if allowed := b", ".join([name for name in names if _is_token(name)]):
        lines += b"access-control-allow-headers: %b\r\n" % allowed
    if private_network:  # a page of the internet asks for a gateway on this machine or in this house
        lines += b"access-control-allow-private-network: true\r\n"
    return lines + b"access-control-max-age: %d\r\n" % MAX_AGE_S
