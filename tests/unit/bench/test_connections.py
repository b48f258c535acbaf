"""The streaming client counts every event once, however the bytes are cut."""

from bench import exchange
from bench.connections import Connection

EVENTS = [exchange.event({"content": "x"}, usage_asked=False) for _ in range(3)] + [exchange.DONE]
STREAM = b"HTTP/1.1 200 OK\r\n\r\n" + b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in EVENTS) + b"0\r\n\r\n"


async def test_events_are_counted_once_wherever_the_bytes_are_cut() -> None:
    for cut in range(1, len(STREAM)):
        connection = Connection(b"")
        connection.data_received(STREAM[:cut])
        assert connection.begun.done()
        connection.data_received(STREAM[cut:])
        assert connection.events == len(EVENTS)
        assert connection.ended.done()


async def test_a_lost_connection_ends_the_wait() -> None:
    connection = Connection(b"")
    connection.connection_lost(None)
    assert connection.lost
    assert connection.begun.done()
    assert connection.ended.done()
