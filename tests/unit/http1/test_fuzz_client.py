"""Any bytes, cut anywhere: an answer or a named error, and always the same one."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from tollway.http1.answer import Answer, Response, StreamedResponse
from tollway.http1.connection import Connection
from tollway.http1.errors import UpstreamError
from tollway.http1.limits import ClientLimits
from tollway.http1.origin import Origin

LIMITS = ClientLimits(max_head=300, max_interim=3)
ORIGIN = Origin("http", "upstream", 80)
MAX_BODY = 60


@dataclass
class Wire:
    """A channel that leads nowhere."""

    closing: bool = False
    aborted: bool = False
    sent: list[bytes] = field(default_factory=list)

    def write(self, data: bytes) -> None:
        self.sent.append(data)

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True

    def is_closing(self) -> bool:
        return self.closing

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading

    def set_protocol(self, protocol: object) -> None:
        pass


class Keeper:
    limits = LIMITS
    released = 0

    def release(self, connection: Connection) -> None:
        self.released += 1

    def forget(self, connection: Connection) -> None:
        pass


def outcome(answer: Answer, pieces: list[bytes], eof: bool, is_head: bool = False) -> tuple[object, ...]:
    """What a caller would see of these pieces, then of the end of the connection."""
    keeper, wire = Keeper(), Wire()
    connection = Connection(keeper, ORIGIN, wire, None, 0.0)
    answer.connection = connection
    connection.begin(answer, b"GET / HTTP/1.1\r\n\r\n")
    for piece in pieces:
        if not wire.closing:
            connection.data_received(piece)
    if eof and not wire.closing:
        connection.eof_received()
    connection.connection_lost(None)
    assert answer.complete != (answer.error is not None)
    assert keeper.released <= 1
    error = answer.error
    assert error is None or isinstance(error, UpstreamError)
    return (type(error), getattr(error, "nothing_received", None), answer.status, answer.received <= MAX_BODY)


def whole(pieces: list[bytes], eof: bool, is_head: bool) -> tuple[object, ...]:
    answer = Response(is_head, 1, 1, 1, MAX_BODY)
    seen = outcome(answer, pieces, eof)
    return (*seen, answer.headers, answer.body) if answer.complete else seen


def streamed(pieces: list[bytes], eof: bool, is_head: bool) -> tuple[object, ...]:
    answer = StreamedResponse(is_head, 1, 1, 1, MAX_BODY, high_water=1000)
    seen = outcome(answer, pieces, eof)
    return (*seen, answer.headers, b"".join(answer.pieces)) if answer.complete else seen


lines = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.0 200 OK\r\n",
        b"HTTP/1.1 204 x\r\n",
        b"HTTP/1.1 103 x\r\n\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: 61\r\n",
        b"Content-Encoding: gzip\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"A:" + b"b" * 250 + b"\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b"5\r\n",
        b"5;x=y\r\n",
        b"hello",
        b"hello\r\n",
        b"40\r\n",
        b"0\r\n\r\n",
        b"0\r\nT: x\r\n\r\n",
        b"\x00\xff",
    ]
)
good_starts = st.sampled_from(
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nhello",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ]
)
messages = st.builds(
    lambda start, rest: start + b"".join(rest), good_starts, st.lists(st.one_of(lines, st.binary(max_size=8)))
)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted(place % (len(data) + 1) for place in places)
    return [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True) if start < end]


@given(messages, st.lists(st.integers(min_value=0)), st.booleans(), st.booleans())
def test_any_bytes_cut_anywhere_come_to_the_same_end(data: bytes, places: list[int], eof: bool, is_head: bool) -> None:
    for ask in (whole, streamed):
        expected = ask([data] if data else [], eof, is_head)
        assert ask(cut(data, places), eof, is_head) == expected
        assert ask([data[at : at + 1] for at in range(len(data))], eof, is_head) == expected
    assert whole([data], eof, is_head)[0] == streamed([data], eof, is_head)[0]


@given(messages, st.binary(min_size=1, max_size=50))
def test_what_follows_a_complete_answer_is_never_part_of_it_and_ends_the_connection(data: bytes, more: bytes) -> None:
    keeper, wire = Keeper(), Wire()
    connection = Connection(keeper, ORIGIN, wire, None, 0.0)
    first = Response(False, 1, 1, 1, MAX_BODY)
    first.connection = connection
    connection.begin(first, b"")
    connection.data_received(data)
    if first.complete:
        body = first.body
        connection.data_received(more)
        assert wire.closing
        assert first.body == body
