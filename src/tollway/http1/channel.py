"""What a connection needs of the thing that carries its bytes: a socket's transport, or TLS on top of another one."""

import asyncio
from typing import Protocol, cast


class Channel(Protocol):
    """The part of ``asyncio.Transport`` that this package uses, with its meaning."""

    def write(self, data: bytes) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    def is_closing(self) -> bool: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def get_write_buffer_size(self) -> int: ...
    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None: ...


class Silence(asyncio.Protocol):
    """The protocol of a channel while nobody may speak on it: whatever arrives ends it."""

    __slots__ = ("_channel",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._channel = cast(Channel, transport)  # uvloop's transports are no instances of asyncio's

    def data_received(self, data: bytes) -> None:
        self._channel.abort()
