"""Where bodies end, however the bytes are cut."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from tollway.http1.errors import BadFraming, BodyTooLarge
from tollway.http1.framing import (
    MAX_SIZE_LINE,
    MAX_TRAILER_LINES,
    MAX_TRAILERS,
    MIN_MEAN_CHUNK,
    SPARE_FRAMING,
    Body,
    ChunkedBody,
    LengthBody,
    UntilCloseBody,
    body_decoder,
)
from tollway.http1.head import CHUNKED, UNTIL_CLOSE


def feed_by(decoder: Body, data: bytes, step: int) -> bytes:
    return b"".join(decoder.feed(data[at : at + step]) for at in range(0, len(data), step))


@pytest.mark.parametrize("step", [1, 2, 3, 5, 100])
def test_a_length_ends_where_it_says(step: int) -> None:
    decoder = body_decoder(5)
    assert feed_by(decoder, b"helloGET /", step) == b"hello"
    assert decoder.complete
    assert decoder.surplus == b"GET /"


def test_no_length_is_complete_at_once() -> None:
    decoder = LengthBody(0)
    assert decoder.complete
    assert decoder.feed(b"next") == b""
    assert decoder.surplus == b"next"


def test_a_body_until_the_close_ends_with_the_connection() -> None:
    decoder = body_decoder(UNTIL_CLOSE)
    assert decoder.feed(b"a") + decoder.feed(b"b") == b"ab"
    assert not decoder.complete


@pytest.mark.parametrize("step", range(1, 80))
def test_chunks_do_not_depend_on_where_the_bytes_are_cut(step: int) -> None:
    decoder = body_decoder(CHUNKED)
    chunks = b'5\r\nhello\r\n00A;x="y z" ;q\r\n0123456789\r\n1 ;e\r\n\n\r\n0;last\r\n'
    data = chunks + b"A: b\r\nAuthorization: c\r\n\r\nGET /\r\n\r\n"
    assert feed_by(decoder, data, step) == b"hello0123456789\n"
    assert decoder.complete
    assert decoder.surplus == b"GET /\r\n\r\n"


def test_whole_chunks_in_one_segment_come_at_once() -> None:
    decoder = ChunkedBody()
    assert decoder.feed(b"3\r\nabc\r\n") == b"abc"
    assert decoder.feed(b"3\r\nabc\r\n2\r\nde\r\n1\r\nf\r\n") == b"abcdef"
    assert decoder.feed(b"3\r\nabc\r\n0\r\n\r\n") == b"abc"
    assert decoder.complete


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b"x\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x1\r\n",
        b"1_0\r\n",
        b" 1\r\n",
        b"1 \r\n",
        b"1\n",
        b"1\r\r\n",
        b"1,\r\n",
        b"1\xa0\r\n",
        b"1;a\nb\r\n",
        b"1;a\x00\r\n",
        b"11111111111111111\r\n",
        b"1\r\nab\r\n",
        b"1\r\na\n\n",
        b"1\r\na\rb",
        b"1\r\na\n\r\n",
        b"0\r\n X: y\r\n\r\n",
        b"0\r\nX y\r\n\r\n",
        b"0\r\nX : y\r\n\r\n",
        b"0\r\nX: a\nb\r\n\r\n",
        b"0\r\nX: a\x00\r\n\r\n",
        b"0\r\n: a\r\n\r\n",
    ],
)
@pytest.mark.parametrize("step", [1, 1000])
def test_sloppy_chunks_are_refused(data: bytes, step: int) -> None:
    with pytest.raises(BadFraming):
        feed_by(ChunkedBody(), data, step)


@pytest.mark.parametrize("step", [1, 64, 10_000])
def test_exactly_the_limit_of_a_size_line_passes(step: int) -> None:
    def line(length: int) -> bytes:
        return b"1;" + b"e" * (length - 4) + b"\r\n"

    assert feed_by(ChunkedBody(), line(MAX_SIZE_LINE) + b"a\r\n", step) == b"a"
    with pytest.raises(BadFraming):
        feed_by(ChunkedBody(), line(MAX_SIZE_LINE + 1) + b"a\r\n", step)
    with pytest.raises(BadFraming):
        feed_by(ChunkedBody(), b"1;" + b"e" * MAX_SIZE_LINE, step)


@pytest.mark.parametrize("step", [1, 64, 10_000])
def test_exactly_the_limits_of_the_trailers_pass(step: int) -> None:
    def ended(trailers: bytes) -> bool:
        decoder = ChunkedBody()
        feed_by(decoder, b"0\r\n" + trailers + b"\r\n", step)
        return decoder.complete

    assert ended(b"a:\r\n" * MAX_TRAILER_LINES)
    assert ended(b"a:" + b"x" * (MAX_TRAILERS - 6) + b"\r\n")
    for trailers in (
        b"a:\r\n" * (MAX_TRAILER_LINES + 1),
        b"a:" + b"x" * (MAX_TRAILERS - 5) + b"\r\n",
        b"a:" + b"x" * 9000,
    ):
        with pytest.raises(BadFraming):
            ended(trailers)


def test_a_chunk_too_many_is_refused_when_it_is_announced() -> None:
    decoder = ChunkedBody(limit=10)
    assert decoder.feed(b"a\r\n0123456789\r\n") == b"0123456789"
    with pytest.raises(BodyTooLarge):
        decoder.feed(b"1\r\n")
    with pytest.raises(BodyTooLarge):
        ChunkedBody(limit=10).feed(b"ffffffffffffffff\r\n")


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.binary(max_size=9), st.lists(st.integers(1, 30)))
def test_what_was_chunked_comes_back(pieces: list[bytes], surplus: bytes, cuts: list[int]) -> None:
    data = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n" + surplus
    decoder = ChunkedBody()
    body = b""
    for cut in cuts:
        body += decoder.feed(data[:cut])
        data = data[cut:]
    body += decoder.feed(data)
    assert body == b"".join(pieces)
    assert decoder.complete
    assert decoder.surplus == surplus


PARTS = st.sampled_from(b"0|1|5|ff|\r\n|\r|\n|;x=y|a|hello|X: y".split(b"|"))


@given(st.lists(PARTS | st.binary(max_size=4), max_size=30).map(b"".join), st.integers(1, 7))
def test_any_bytes_decode_alike_however_they_are_cut_or_are_refused(junk: bytes, step: int) -> None:
    results = []
    for cut in (step, len(junk) or 1):
        decoder = ChunkedBody(limit=1000)
        try:
            results.append((feed_by(decoder, junk, cut), decoder.complete, decoder.surplus))
        except (BadFraming, BodyTooLarge) as error:
            results.append(error.status)
    if isinstance(results[0], tuple) and isinstance(results[1], tuple):
        assert results[0] == results[1]


MOST_SINGLE = SPARE_FRAMING // (MIN_MEAN_CHUNK - 1)


@pytest.mark.parametrize("step", [100, 65_536])
def test_a_body_in_single_bytes_is_refused_beyond_a_few_thousand(step: int) -> None:
    decoder = ChunkedBody()
    assert len(feed_by(decoder, b"1\r\nx\r\n" * MOST_SINGLE, step)) == MOST_SINGLE
    with pytest.raises(BadFraming):
        decoder.feed(b"1\r\nx\r\n1\r\nx\r\n")


def test_a_body_is_refused_whose_extensions_outweigh_it() -> None:
    chunk = b"100;%b\r\n%b\r\n" % (b"e" * 1000, b"x" * 256)
    decoder = ChunkedBody()
    with pytest.raises(BadFraming):
        feed_by(decoder, chunk * 1000, 65_536)


@pytest.mark.parametrize("pieces", [[b"data: ", b"y" * 100, b"\n\n"], [b"z" * MIN_MEAN_CHUNK]])
@pytest.mark.parametrize("step", [64, 65_536])
def test_chunks_of_some_bytes_each_may_be_as_many_as_they_like(pieces: list[bytes], step: int) -> None:
    data = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) * 20_000
    assert feed_by(ChunkedBody(), data, step) == b"".join(pieces) * 20_000


def test_a_chunk_that_comes_alone_makes_good_for_small_ones_that_come_together() -> None:
    decoder = ChunkedBody()
    for _ in range(20_000):
        assert decoder.feed(b"64\r\n%b\r\n" % (b"y" * 100)) == b"y" * 100
        assert decoder.feed(b"2\r\n\n\n\r\n6\r\ndata: \r\n") == b"\n\ndata: "


def test_much_that_was_brought_is_no_reserve_for_more_small_chunks() -> None:
    decoder = ChunkedBody()
    decoder.feed(b"%x\r\n%b" % (8 << 20, b"y" * (8 << 20)))
    with pytest.raises(BadFraming):
        decoder.feed(b"\r\n" + b"1\r\nx\r\n" * (MOST_SINGLE + 2))


def test_single_bytes_of_a_chunk_take_linear_time() -> None:
    decoder = ChunkedBody()
    body = b"%x\r\n" % 200_000 + b"y" * 200_000 + b"\r\n0\r\n\r\n"
    assert len(feed_by(decoder, body, 1)) == 200_000
    assert isinstance(decoder, ChunkedBody) and decoder.complete


def test_the_decoder_follows_the_framing() -> None:
    assert isinstance(body_decoder(CHUNKED), ChunkedBody)
    assert isinstance(body_decoder(UNTIL_CLOSE), UntilCloseBody)
    assert isinstance(body_decoder(0), LengthBody)


def test_a_whole_chunk_in_one_segment_is_held_against_the_limit() -> None:
    body = ChunkedBody(8)
    assert body.feed(b"5\r\nhello\r\n") == b"hello"
    assert body.feed(b"3\r\nyou\r\n") == b"you"
    with pytest.raises(BodyTooLarge):
        body.feed(b"1\r\n!\r\n")


def test_what_looks_like_a_chunk_is_none_inside_a_chunk_the_trailers_or_after_the_end() -> None:
    body = ChunkedBody()
    assert body.feed(b"f\r\n") + body.feed(b"5\r\nhello\r\n") == b"5\r\nhello\r\n"
    assert body.feed(b"12345\r\n0\r\n") == b"12345"
    with pytest.raises(BadFraming):
        body.feed(b"5\r\nhello\r\n")
    body = ChunkedBody()
    body.feed(b"0\r\n\r\n")
    assert body.feed(b"5\r\nhello\r\n") == b""
    assert body.surplus == b"5\r\nhello\r\n"


@pytest.mark.parametrize("line", [b"5\n", b" 5\r\n", b"+5\r\n", b"5_\r\n", b"0x5\r\n", b"5\r\r\n", b"\r\n"])
def test_a_size_that_is_not_exactly_hexadecimal_is_refused_in_the_usual_place_too(line: bytes) -> None:
    for data in (line + b"hello\r\n", line + b"hello\n"):
        with pytest.raises(BadFraming):
            ChunkedBody().feed(data)
