"""Halves of characters meet again, wherever a server has cut."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import ValidationError

from tollway.providers.halves import MAX_HALVES, Halves


@given(st.text(st.sampled_from('a\\é😀🙂"'), min_size=1, max_size=12), st.lists(st.integers(0, 24), max_size=5))
def test_a_text_that_was_cut_between_its_units_is_whole_again(text: str, cuts: list[int]) -> None:
    units = text.encode("utf-16-le")
    edges = sorted({0, *(2 * cut for cut in cuts if 2 * cut < len(units)), len(units)})
    pieces = [units[start:end].decode("utf-16-le", "surrogatepass") for start, end in pairwise(edges)]
    halves = Halves()
    read = [json.loads(halves.join(json.dumps({"x": 1, "content": piece}).encode())) for piece in pieces]
    assert "".join(chunk["content"] for chunk in read) == text
    assert not halves.left


def test_each_member_has_its_own_half() -> None:
    halves = Halves()
    assert halves.join(rb'{"content" : "a\ud83d","reasoning":"\ud83d"}') == b'{"content" : "a","reasoning":""}'
    assert halves.left
    assert halves.join(rb'{"reasoning":"\ude00","content":""}') == rb'{"reasoning":"\ud83d\ude00","content":""}'
    assert halves.join(b'{"content":"b"}') == rb'{"content":"\ufffdb"}'
    assert not halves.left
    assert halves.join(rb'{"content":"\\ud83d"}') == rb'{"content":"\\ud83d"}'


def test_a_text_of_nothing_but_halves_is_none() -> None:
    with pytest.raises(ValidationError):
        Halves().join(rb'{"content":"' + rb"\ud83d" * (MAX_HALVES + 1) + b'"}')
