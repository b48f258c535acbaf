"""Every bound on what a peer may make us hold or wait for. Bytes and seconds."""

from dataclasses import dataclass

from tollway.http1.head import MAX_HEADERS

TURN_BYTES = 128 * 1024
"""After so much in one piece, a connection reads on only in the next turn of the event loop: libuv would read 32 of
its buffers of 256 KiB in one go from a peer that is fast enough, and all others would wait."""


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Bounds on clients."""

    max_head: int = 64 * 1024
    """One request head. Browsers with many cookies send 16 KiB."""
    max_headers: int = MAX_HEADERS
    max_body: int = 32 * 1024 * 1024
    """One request body, decoded. A long prompt is 1 MiB; images are embedded as base64."""
    max_connections: int = 20_000
    """Open connections; each costs about 2 KiB idle and one file descriptor. For those above, idle ones are closed."""
    max_refused: int = 256
    """Connections above the maximum, where none is idle, that may wait for their 503 to be read; those beyond are told
    nothing."""
    head_timeout_s: float = 10.0
    """From a head's first byte (or the connection's beginning) to its last; TLS handshakes have as long."""
    keep_alive_s: float = 75.0
    """Silence between two requests. Above the 60 s of common load balancers, so that they close first."""
    body_window_s: float = 10.0
    """A body must bring ``min_rate`` in each of these windows; a trickle does not move the window."""
    body_total_s: float = 600.0
    """From the first wait for a body to its end: 55 KiB/s for the largest."""
    min_rate: int = 1024
    """Bytes per second below which a client counts as stuck, sending or reading; a bad phone line brings 5,000."""
    write_timeout_s: float = 60.0
    """A client that reads less than ``min_rate`` of what waits for it, over this time, is cut."""
    high_water: int = 64 * 1024
    """Bytes, per direction, above which the faster side is told to wait."""
    linger_s: float = 2.0
    """After a last answer to a client that may still be sending: how long its bytes are read and thrown away,
    because closing at once would make its kernel forget the answer (RFC 9112, section 9.6)."""
    linger_bytes: int = 256 * 1024
    """… and how many of them."""


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """Bounds on upstreams."""

    max_head: int = 64 * 1024
    """One answer's head."""
    max_body: int = 64 * 1024 * 1024
    """One buffered answer; embeddings of a large batch are 30 MiB."""
    max_stream: int = 1024 * 1024 * 1024
    """One streamed answer, of which nothing is kept: four million events of text; the longest have some
    hundred thousand."""
    max_connections: int = 20_000
    """Open connections to all upstreams, those that are being made included: one descriptor each."""
    max_unix_connections: int = 32
    """… and to Unix sockets of this machine, which have a bound of their own: neither starves the other."""
    max_idle_per_origin: int = 256
    """Kept connections per origin; more are closed when their answer is complete."""
    idle_s: float = 30.0
    """How long a kept connection may lie. Providers close after 60 s or more; we go first."""
    connect_s: float = 5.0
    """Resolving, connecting, proxy and TLS handshake together."""
    first_byte_s: float = 120.0
    """From the request's last byte to the answer's first; reasoning models think for minutes."""
    idle_read_s: float = 120.0
    """Silence within an answer."""
    high_water: int = 256 * 1024
    """Bytes of a streamed answer that nobody has taken, above which the upstream is told to wait."""
    max_interim: int = 16
    """Interim answers (1xx) before the real one."""
