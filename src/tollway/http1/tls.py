"""TLS towards upstreams, as a channel on top of a channel.

OpenSSL works on memory, and this module moves the bytes. The loop's own TLS transport costs 23 µs per request (uvloop
0.23: a fresh buffer of 256 KiB and two exceptions for each read); this one costs 2 to 5 µs, and it stacks: TLS to a
proxy carries TLS to the upstream.

1. Verification is always on: chain, host name, dates; TLS 1.2 at least; no renegotiation. There is no switch.
2. An end of the connection without close_notify is a cut, never the end of an answer.
"""

import asyncio
import ssl
from contextlib import suppress
from typing import Final, Self

import certifi

from tollway.http1.channel import Channel
from tollway.http1.errors import TlsFailed

_RECORD: Final = 16 * 1024
"""Bytes of text in the largest record (RFC 8446, section 5.1); more would be allocated for nothing."""

_SLICE: Final = 256 * 1024
"""Bytes encrypted before they are sent on, so that a large body is not held a third time."""

_VERIFY_REASONS: Final = {
    9: "the certificate is not valid yet",
    10: "the certificate has expired",
    18: "the certificate is self-signed",
    19: "the certificate is signed by an unknown authority",
    20: "the certificate is signed by an unknown authority",
    62: "the certificate is for another name",
    64: "the certificate is for another address",
}
"""X509_V_ERR_* of OpenSSL in our words: its own text may name the host."""


def client_context() -> ssl.SSLContext:
    """Return the one way in which we trust: the system's authorities and certifi's. Costs about 20 ms, so share it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    context.load_default_certs()
    context.load_verify_locations(certifi.where())
    return context


class TlsChannel(asyncio.Protocol):
    """One TLS session: a protocol to the channel below, a channel to the protocol above."""

    __slots__ = ("_above", "_below", "_incoming", "_outgoing", "_shaken", "_tls")

    @classmethod
    async def start(cls, below: Channel, context: ssl.SSLContext, host: str) -> Self:
        """Shake hands on ``below`` and return the encrypted channel; raises TlsFailed.

        The caller keeps the time, and owns ``below`` in every outcome. Sessions are not resumed: CPython copies them
        by way of their serial form, which costs as much CPU as resuming saves (measured: 0.45 ms, twice).
        """
        try:
            channel = cls(below, context, host)
        except ValueError:
            raise TlsFailed("the name cannot be in a certificate") from None
        below.set_protocol(channel)
        if below.is_closing():
            raise TlsFailed("the connection ended before the TLS handshake")
        channel._shake()
        if (reason := await channel._shaken) is not None:
            raise TlsFailed(reason)
        return channel

    def __init__(self, below: Channel, context: ssl.SSLContext, host: str) -> None:
        self._above: asyncio.Protocol | None = None
        self._below = below
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        # Why there is no session, or None. No exception: in a future it would keep the frames that it is raised in.
        self._shaken: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()

    # The protocol of the channel below.

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        if not self._shaken.done():
            self._shake()
        else:
            self._decrypt()

    def eof_received(self) -> None:
        """End the connection: rule 2. What is left is in ``connection_lost``, which follows."""

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._shaken.done():
            self._shaken.set_result("the connection ended during the TLS handshake")
        elif (above := self._above) is not None:
            self._above = None  # each knows the other, and a session is large
            above.connection_lost(exc)

    def pause_writing(self) -> None:
        if self._above is not None:
            self._above.pause_writing()

    def resume_writing(self) -> None:
        if self._above is not None:
            self._above.resume_writing()

    # The channel of the protocol above.

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self._above = protocol

    def write(self, data: bytes) -> None:
        """Encrypt and send. A usual request is one record and one write below."""
        try:
            for start in range(0, len(data), _SLICE):
                self._tls.write(data[start : start + _SLICE])  # all of it: memory is never full
                self._below.write(self._outgoing.read())
        except ssl.SSLError:
            self._below.abort()

    def close(self) -> None:
        if not self._below.is_closing():
            with suppress(ssl.SSLError):  # WantRead: the peer's close_notify is not waited for
                self._tls.unwrap()
            self._flush()
        self._below.close()

    def abort(self) -> None:
        self._below.abort()

    def is_closing(self) -> bool:
        return self._below.is_closing()

    def pause_reading(self) -> None:
        self._below.pause_reading()

    def resume_reading(self) -> None:
        self._below.resume_reading()

    def get_write_buffer_size(self) -> int:
        return self._below.get_write_buffer_size()

    # Inside.

    def _shake(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError as error:
            self._flush()  # the alert
            self._shaken.set_result(_reason(error))
            self._below.abort()
        else:
            self._flush()
            self._shaken.set_result(None)
            if self._incoming.pending:
                self._decrypt()

    def _decrypt(self) -> None:
        """Hand up all that has arrived, as one piece, so that a segment of many records wakes the reader once."""
        incoming, tls = self._incoming, self._tls
        pieces = []
        ended = False
        try:
            # A record's text is never longer than the record; what is left of a longer one is in pending().
            # No read is tried without a reason: each would cost an exception.
            while size := incoming.pending or tls.pending():
                if piece := tls.read(size if size < _RECORD else _RECORD):
                    pieces.append(piece)
                else:
                    ended = True
                    break
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            self._flush()
            self._below.abort()
            return
        if self._outgoing.pending:
            self._flush()
        above = self._above
        if above is None:
            if pieces:  # nobody may speak before the first request
                self._below.abort()
            return
        if pieces:
            above.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if ended:
            above.eof_received()
            self._below.close()

    def _flush(self) -> None:
        if data := self._outgoing.read():
            self._below.write(data)


def _reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return _VERIFY_REASONS.get(error.verify_code, "the certificate is not accepted")
    text = (error.reason or "protocol error").replace("_", " ").lower()
    return f"the TLS handshake failed: {text}"
