"""Members of an object that passes in pieces: what a decoder would find, wherever the pieces are cut."""

import json
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpu_time import cpu_seconds, decoding_seconds
from tollway.wire.json import UNREADABLE, members
from tollway.wire.top_members import MAX_MEMBER_BYTES, MAX_STEPS, TopMembers

NAMES = {"usage", "error"}


def read(pieces: Iterable[bytes]) -> TopMembers:
    scanner = TopMembers(NAMES)
    for piece in pieces:
        scanner.feed(piece)
    return scanner


def found(text: bytes) -> dict[str, bytes]:
    """What is found, the same whether it comes at once or byte by byte."""
    at_once, bytewise = read([text]), read(text[i : i + 1] for i in range(len(text)))
    assert (at_once.found, at_once.whole) == (bytewise.found, bytewise.whole)
    return {name: bytes(raw) for name, raw in at_once.found.items()}


def test_chosen_members_are_found_as_they_stood() -> None:
    assert found(b' {"id":"x", "usage" : {"a":[1, {"b":"}"}]} ,"error":null,"z":[{}]}\n') == {
        "usage": b'{"a":[1, {"b":"}"}]}',
        "error": b"null",
    }


def test_only_the_outermost_object_counts() -> None:
    assert found(b'{"a":{"usage":1},"b":[{"usage":2}],"c":"\\"usage\\":3","usage":4}') == {"usage": b"4"}


def test_of_two_members_of_one_name_the_last_counts() -> None:
    assert found(b'{"usage":1,"us\\u0061ge":2}') == {"usage": b"2"}


@pytest.mark.parametrize("text", ['"', "\\", '\\"', '"\\\\"', "\\\\", "{[", "]}", ":,", "é\u2028", "\\u0022"])
def test_strings_end_where_they_end(text: str) -> None:
    document = {text: text, "a": [text, {"b": text}], "usage": text}
    assert found(json.dumps(document).encode()) == {"usage": json.dumps(text).encode()}
    raw = json.dumps(document, ensure_ascii=False).encode()
    assert found(raw) == {"usage": json.dumps(text, ensure_ascii=False).encode()}


@pytest.mark.parametrize(
    ("text", "whole"), [(b"{}", True), (b' {"a":1} \r\n', True), (b'{"a":{}', False), (b"", False)]
)
def test_an_object_is_whole_at_its_last_bracket(text: bytes, whole: bool) -> None:
    assert (read([text]).whole, read([text]).ended) == (whole, whole)


@pytest.mark.parametrize("junk", [b"x", b"[]", b"{} x", b"{}{}", b'{"a"}', b'{"a",}', b"{x:1}", b'{"usage":x}', b"{,}"])
def test_what_is_no_object_is_not_whole(junk: bytes) -> None:
    found(junk)
    assert not read([junk]).whole


def test_a_member_that_is_too_long_is_given_up_and_the_rest_is_not() -> None:
    longest = json.dumps("x" * (MAX_MEMBER_BYTES - 2)).encode()
    assert found(b'{"usage":%b,"error":1}' % longest) == {"usage": longest, "error": b"1"}
    assert found(b'{"usage":1,"usage":[%b],"error":1}' % longest) == {"error": b"1"}
    assert found(b'{"%b":1,"error":1}' % (b"usage" * 1000)) == {"error": b"1"}


def test_a_picture_costs_next_to_nothing() -> None:
    picture = b'{"data":[{"b64_json":"%b"}],"usage":{"a":1}}' % (b"A" * 10_000_000)
    pieces = [picture[i : i + 65536] for i in range(0, len(picture), 65536)]
    assert bytes(read(pieces).found["usage"]) == b'{"a":1}'
    assert cpu_seconds(lambda: read(pieces)) < decoding_seconds(len(picture)) / 10


KEYS = st.sampled_from(["usage", "error", "a", "", '"', "\\", "us\\"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | KEYS | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
)


@given(st.lists(st.tuples(KEYS, VALUES), max_size=5), st.booleans(), st.sampled_from([None, 1]), st.data())
def test_what_is_found_is_what_a_decoder_finds(
    pairs: list[tuple[str, object]], ascii_only: bool, indent: int | None, draw: st.DataObject
) -> None:
    texts = [json.dumps({name: value}, ensure_ascii=ascii_only, indent=indent)[1:-1] for name, value in pairs]
    text = b"{" + ",".join(texts).encode("utf-8", "replace") + b"}"
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(text)))))
    scanner = read(text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True))
    assert scanner.found == {name: raw for name, raw in members(text).items() if name in NAMES}
    assert scanner.whole


WORDS = [b"{", b"}", b"[", b"]", b'"', b":", b",", b"\\", b'"usage"', b" ", b"1", b"\xff", b"null", b'{"usage":']


@given(st.lists(st.sampled_from(WORDS)).map(b"".join) | st.binary())
def test_junk_raises_nothing_and_looks_the_same_in_any_cut(text: bytes) -> None:
    found(text)


@given(st.lists(st.sampled_from(WORDS)).map(b"".join))
def test_what_a_decoder_takes_is_whole(text: bytes) -> None:
    try:
        decoded = members(text)
    except UNREADABLE:
        return
    assert read([text]).whole
    assert found(text) == {name: bytes(raw) for name, raw in decoded.items() if name in NAMES}


@pytest.mark.parametrize(
    "unit", [b"[", b"{", b"[[]],", b'"a":0,', b'"usage":0,', b'[{"a":', b"]", b"[[[1]]],"], ids=lambda unit: repr(unit)
)
def test_a_piece_of_nothing_but_structure_costs_a_bounded_number_of_steps(unit: bytes) -> None:
    steps = 0

    class Counting(TopMembers):
        def _separates(self, byte: int) -> bool:
            nonlocal steps
            steps += 1
            return super()._separates(byte)

    scanner = Counting(NAMES)
    opening = b"{" if unit.startswith(b'"') else b'{"a":['
    for piece in (opening, *[unit * (256 * 1024 // len(unit))] * 4, b']],"usage":1}'):
        scanner.feed(piece)
    assert steps <= MAX_STEPS + 10
    assert not scanner.found or unit == b'"usage":0,'
