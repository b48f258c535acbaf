"""Server-sent events: whatever the cut, whatever the line ends, the same events."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollway.wire.sse import (
    EVENT_ENDS,
    MAX_EVENT_BYTES,
    MAX_EVENTS,
    MAX_LINES,
    SHORT_BYTES,
    Event,
    SseDecoder,
    WholeEvents,
)


def decode(pieces: list[bytes], max_event: int = 1000) -> tuple[list[Event], bool]:
    decoder = SseDecoder(max_event)
    events: list[Event] = []
    for piece in pieces:
        single = decoder.single(piece)
        events += decoder.feed(piece) if single is None else [Event(b"", single)]
    return events + decoder.close(), decoder.too_long


def data(*texts: str) -> list[Event]:
    return [Event(b"", text.encode()) for text in texts]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_lines_end_in_three_ways(end: bytes) -> None:
    assert decode([end.join([b"data: a", b"", b"data:b", b"", b""])]) == (data("a", "b"), False)


def test_several_data_lines_are_one_text() -> None:
    assert decode([b"data: a\ndata:  b\ndata\ndata: c\n\n"])[0] == data("a\n b\n\nc")


def test_what_is_no_data_is_dropped() -> None:
    assert decode([b": comment\n\nid: 1\n\nretry: 5\nevent: x\n\ndata:\n\ndata: \n\nunknown: y\ndata: z\n\n\n\n\n"])[
        0
    ] == data("z")


def test_an_event_keeps_its_name() -> None:
    assert decode([b"event: error\ndata: {}\n\ndata: {}\n\n"])[0] == [Event(b"error", b"{}"), Event(b"", b"{}")]


def test_unicode_line_separators_are_data() -> None:
    text = '{"a":"\u2028\u2029\x85\v\f"}'
    assert decode([f"data: {text}\n\n".encode()])[0] == data(text)


def test_a_byte_order_mark_counts_only_at_the_start() -> None:
    bom = b"\xef\xbb\xbf"
    assert decode([bom + b"data: a\n\n" + bom + b"data: b\n\n"])[0] == data("a")
    assert decode([bom[:1], bom[1:]])[0] == []


def test_bytes_that_are_no_utf8_are_replaced() -> None:
    assert decode([b"data: \xff\xc3\n\n"])[0] == data("\ufffd\ufffd")
    assert decode([b"data: x\n\n", b'data: {"\xff"}\n\n'])[0] == data("x", '{"\ufffd"}')


def test_an_event_without_its_blank_line_counts_at_the_end() -> None:
    assert decode([b"data: a\n\ndata: b"])[0] == data("a", "b")
    assert decode([b"data: a\n\ndata: b\n"])[0] == data("a", "b")


@pytest.mark.parametrize("size", [1, 7, 300])
def test_an_endless_event_is_refused_wherever_it_is_cut(size: int) -> None:
    for length, refused in [(100, False), (101, True)]:
        stream = b"data: ok\n\n" + b"data: ".ljust(length, b"x") + b"\n\ndata: after\n\n"
        events, too_long = decode([stream[i : i + size] for i in range(0, len(stream), size)], max_event=100)
        assert (events[0], too_long, len(events)) == (Event(b"", b"ok"), refused, 1 if refused else 3)


def test_an_event_of_too_many_lines_is_refused() -> None:
    assert decode([b":\n" * (MAX_LINES + 2) + b"\n"], max_event=10**6) == ([], True)
    assert decode([b":\n" * (MAX_LINES + 2)], max_event=10**6) == ([], False)


def test_a_held_event_costs_no_more_when_it_comes_in_many_pieces() -> None:
    decoder = SseDecoder()
    decoder.feed(b"data: ")
    for _ in range(200_000):
        decoder.feed(b"x")
    assert [len(event.data) for event in decoder.feed(b"\n\n")] == [200_000]


WORDS = [b"data: ", b"data", b":", b"\n", b"\r", b"{", b"\xef\xbb\xbf", b"\xc3", b"\xa9", b"event: e", b" "]


@given(st.lists(st.sampled_from(WORDS)), st.data())
def test_the_events_do_not_depend_on_where_the_bytes_are_cut(words: list[bytes], draw: st.DataObject) -> None:
    stream = b"".join(words)
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(stream)))))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert decode(pieces, 20) == decode([stream], 20)


@given(st.lists(st.binary()))
def test_junk_raises_nothing(pieces: list[bytes]) -> None:
    decode(pieces)


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
def test_only_whole_events_pass(end: bytes) -> None:
    whole = WholeEvents()
    assert whole.feed(b"data: a" + end) == b"data: a" + end
    assert whole.feed(b"data: b") == b""
    assert whole.feed(end[:-1]) == b""
    assert whole.feed(end[-1:] + b"data: c" + end + b"data: d") == b"data: b" + end + b"data: c" + end
    assert (whole.rest(), whole.rest()) == (b"data: d", b"")


def test_an_event_that_is_too_long_is_not_held() -> None:
    whole = WholeEvents()
    piece = b"x" * (MAX_EVENT_BYTES // 2)
    assert [len(whole.feed(piece)) for _ in range(4)] == [0, 0, 3 * len(piece), 0]


@given(st.lists(st.sampled_from(WORDS)), st.data())
def test_events_pass_without_a_change_wherever_they_are_cut(words: list[bytes], draw: st.DataObject) -> None:
    stream = b"".join(words)
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(stream)))))
    whole = WholeEvents()
    passed = [whole.feed(stream[a:b]) for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert all(piece.endswith(EVENT_ENDS) for piece in passed if piece)
    rest = whole.rest()
    assert b"".join(passed) + rest == stream
    assert not any(end in rest for end in EVENT_ENDS)


@pytest.mark.parametrize("event", [b"\n\n", b":\n\n", b"data: 1\n\n", b"data:\n\n", b"x\n\n"])
def test_more_events_at_once_than_a_server_has_to_say_are_refused_unread(event: bytes) -> None:
    for events, too_long in ((MAX_EVENTS, False), (MAX_EVENTS + 1, True)):
        decoder = SseDecoder()
        found = decoder.feed(b"data: 0\n\n")
        found += decoder.feed(event * events)
        assert decoder.too_long is too_long
        assert len(found) == (1 + events if event == b"data: 1\n\n" and not too_long else 1)


def test_a_long_event_goes_the_long_way() -> None:
    decoder = SseDecoder()
    decoder.feed(b"data: {}\n\n")
    for size, goes_short in ((SHORT_BYTES, True), (SHORT_BYTES + 1, False)):
        piece = b"data: {" + b" " * (size - 10) + b"}\n\n"
        assert len(piece) == size
        assert (decoder.single(piece) is not None) is goes_short
        (event,) = decoder.feed(piece)
        assert event.data == piece[6:-2]


def test_a_stream_may_be_read_thoroughly() -> None:
    decoder = SseDecoder()
    piece = b"data: {}\n\n"
    decoder.feed(piece)
    assert decoder.single(piece) == b"{}"
    decoder.be_thorough()
    for _ in range(3):
        assert decoder.single(piece) is None
        assert [event.data for event in decoder.feed(piece)] == [b"{}"]


def test_an_event_in_tiny_pieces_takes_no_more_than_its_size() -> None:
    decoder = SseDecoder()
    pieces = [bytes([number % 7 + 65, number % 11 + 65, 10 if number % 50 == 0 else 65]) for number in range(100_000)]
    decoder.feed(b": a\n\n")
    tracemalloc.start()
    try:
        for piece in pieces:
            decoder.feed(piece)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 2 * sum(map(len, pieces))


def test_an_event_that_is_too_long_is_not_kept() -> None:
    decoder = SseDecoder(max_event=1000)
    tracemalloc.start()
    try:
        for _ in range(100):
            assert decoder.feed(b"x" * 900) == []
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert decoder.too_long
    assert held < 1000
    assert decoder.close() == []
