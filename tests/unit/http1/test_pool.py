"""The judgement of times on a clock of the test's own, and what a process that slept forgives."""

import asyncio

import pytest
from test_fuzz_client import ORIGIN, Wire

from tollway.http1.answer import Response, StreamedResponse
from tollway.http1.connection import Connection
from tollway.http1.errors import FirstByteTimeout, IdleTimeout, TotalTimeout
from tollway.http1.limits import ClientLimits
from tollway.http1.pool import Pool

LIMITS = ClientLimits(idle_s=30, max_idle_per_origin=2)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"


def connected(pool: Pool | None = None) -> tuple[Pool, Wire, Connection]:
    pool = pool or Pool(LIMITS)
    wire = Wire()
    connection = Connection(pool, ORIGIN, wire, None, 0.0)
    pool._open.add(connection)
    return pool, wire, connection


def asked(connection: Connection, first_byte_s: float = 10, idle_s: float = 5, deadline: float = 60) -> Response:
    answer = Response(False, first_byte_s, idle_s, deadline, 100)
    answer.first_byte_at = first_byte_s
    answer.connection = connection
    connection.begin(answer, b"GET")
    return answer


def test_silence_counts_from_the_last_byte() -> None:
    _, wire, connection = connected()
    answer = asked(connection)
    connection.data_received(HEAD + b"h")
    connection.check(1.0)
    connection.check(5.9)
    connection.data_received(b"e")
    connection.check(6.2)
    connection.check(11.1)
    assert answer.error is None
    connection.check(11.3)
    assert isinstance(answer.error, IdleTimeout)
    assert wire.closing


def test_the_first_byte_is_the_first_of_the_body() -> None:
    _, _, connection = connected()
    answer = asked(connection)
    connection.data_received(HEAD)
    connection.check(9.9)
    assert answer.error is None
    connection.check(10.0)
    assert isinstance(answer.error, FirstByteTimeout)


def streamed(connection: Connection) -> StreamedResponse:
    answer = StreamedResponse(False, 10, 5, 60, 100)
    answer.first_byte_at = 10
    answer.connection = connection
    connection.begin(answer, b"GET")
    connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n")
    return answer


def test_a_piece_with_nothing_in_it_does_not_break_the_silence() -> None:
    _, _, connection = connected()
    answer = streamed(connection)
    answer.attach(lambda piece: False if piece.startswith(b":") else None)
    connection.data_received(b"data")
    connection.check(1.0)
    connection.data_received(b": ping")
    connection.check(4.0)
    connection.data_received(b"data")
    connection.check(5.0)
    connection.data_received(b": ping")
    connection.check(9.9)
    assert answer.error is None
    connection.data_received(b": ping")
    connection.check(10.0)
    assert isinstance(answer.error, IdleTimeout)


def test_empty_talk_does_not_stop_the_first_byte_clock() -> None:
    _, _, connection = connected()
    answer = streamed(connection)
    answer.first_byte_due = True
    for now in 3.0, 6.0, 9.0:
        connection.data_received(b": ping")
        connection.check(now)
    assert answer.error is None
    connection.data_received(b": ping")
    connection.check(10.0)
    assert isinstance(answer.error, FirstByteTimeout)


def test_the_silence_counts_once_the_first_byte_is_there() -> None:
    _, _, connection = connected()
    answer = streamed(connection)
    answer.first_byte_due = True
    connection.data_received(b": ping")
    connection.check(9.0)
    answer.first_byte_due = False
    connection.check(13.9)
    assert answer.error is None
    connection.check(14.0)
    assert isinstance(answer.error, IdleTimeout)


def test_the_deadline_beats_everything() -> None:
    _, _, connection = connected()
    answer = asked(connection)
    connection.data_received(HEAD + b"h")
    connection.check(60.0)
    assert isinstance(answer.error, TotalTimeout)


def test_a_pause_of_ours_is_no_silence() -> None:
    _, _, connection = connected()
    answer = asked(connection)
    connection.data_received(HEAD + b"h")
    connection.pause()
    connection.check(50.0)
    connection.resume()
    connection.check(51.0)
    connection.check(55.9)
    assert answer.error is None
    connection.check(56.0)
    assert isinstance(answer.error, IdleTimeout)


def test_an_idle_connection_expires_and_a_stuck_one_is_aborted() -> None:
    pool, wire, connection = connected()
    asked(connection)
    connection.data_received(HEAD + b"hello")
    assert pool.idle_connections == 1
    connection.check(1.0)
    connection.check(30.9)
    assert not wire.closing
    connection.check(31.0)
    assert wire.closing
    assert pool.take(ORIGIN) is None
    assert not wire.aborted
    connection.check(31.3)
    assert wire.aborted


def test_the_last_released_is_the_first_taken_and_the_rest_is_bounded() -> None:
    pool = Pool(LIMITS)
    three = [connected(pool)[2] for _ in range(3)]
    for connection in three:
        asked(connection)
        connection.data_received(HEAD + b"hello")
    assert pool.idle_connections == 2
    assert not three[2].usable
    assert pool.take(ORIGIN) is three[1]
    assert pool.take(ORIGIN) is three[0]
    assert pool.take(ORIGIN) is None


def test_a_lost_connection_is_never_handed_out() -> None:
    pool, _, connection = connected()
    asked(connection)
    connection.data_received(HEAD + b"hello")
    connection.connection_lost(None)
    assert (pool.take(ORIGIN), pool.open_connections, pool.idle_connections) == (None, 0, 0)


@pytest.mark.parametrize("late_s", [0.0, 2.0])
async def test_a_process_that_slept_reads_before_it_judges(late_s: float) -> None:
    pool, _, connection = connected(Pool(LIMITS, sweep_s=3600))
    answer = asked(connection, deadline=asyncio.get_running_loop().time() - 1)
    pool._schedule()
    pool._sweep_due -= 3600 + late_s
    pool._sweep()
    assert (answer.error is None) == (late_s > 1)
    pool._sweep_due -= 3600 + late_s
    pool._sweep()
    assert isinstance(answer.error, TotalTimeout)  # twice late is just slow
    pool.close()


async def test_the_sweeper_rests_when_nothing_is_open() -> None:
    pool, _, connection = connected(Pool(LIMITS, sweep_s=0))
    pool.add(connection)
    assert pool._timer is not None
    connection.connection_lost(None)
    while pool._timer is not None:
        await asyncio.sleep(0)
