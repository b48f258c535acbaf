"""What is found does not depend on where a long text is cut."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from looks import watch
from tollway.wire import media, relayed_call, stretches
from tollway.wire.chat_request import ChatCall, parse_chat
from tollway.wire.json import in_utf8, is_utf8, members
from tollway.wire.loose_json import strict
from tollway.wire.relayed_call import RelayedCall, parse_relayed
from tollway.wire.stretches import after_blanks, matches, slices, string_end, strings, value_after

SIZE = 5 * stretches.STRETCH
"""Of the long texts here."""

OVERLAP = 1024


@pytest.fixture(params=[24, 25, 31, 64])
def short(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """A stretch so short that every border is met."""
    monkeypatch.setattr(stretches, "STRETCH", request.param)
    return int(request.param)


texts = st.text(st.sampled_from('\\"/n:, {}[]aé😀')) | st.text(st.sampled_from("\\"), max_size=60)
values = st.recursive(
    texts | st.none() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=12
)


def names_and_texts(value: Any) -> list[tuple[str, bool]]:
    """The strings of a value in the order in which they are written."""
    match value:
        case str():
            return [(value, False)]
        case dict():
            return [found for name, inner in value.items() for found in [(name, True), *names_and_texts(inner)]]
        case list():
            return [found for inner in value for found in names_and_texts(inner)]
    return []


@pytest.mark.usefixtures("short")
def test_the_strings_of_any_json_are_found() -> None:
    @given(values, st.sampled_from([(",", ":"), (", ", ": "), ("  ,\n" + " " * 70, " " * 70 + ":\t")]))
    def check(value: Any, separators: tuple[str, str]) -> None:
        text = json.dumps(value, separators=separators).encode()
        found = [(json.loads(b'"%b"' % text[start:end]), is_name) for start, end, is_name in strings(text)]
        assert found == names_and_texts(value)

    check()


@pytest.mark.usefixtures("short")
def test_any_junk_ends() -> None:
    @given(st.text(st.sampled_from('\\":a ')).map(str.encode))
    def check(junk: bytes) -> None:
        assert all(0 <= start <= end <= len(junk) for start, end, _ in strings(junk))
        assert string_end(junk, 0) <= len(junk) >= after_blanks(junk, 0)
        assert b"".join(slices(junk, 3)) == junk

    check()


@pytest.mark.usefixtures("short")
def test_every_match_is_found_once() -> None:
    name = re.compile(rb'"(?:type|longer_type)"')

    @given(st.lists(st.sampled_from([b'"type"', b'"longer_type"', b"type", b'"', b" "])).map(b"".join))
    def check(text: bytes) -> None:
        assert [match.span() for match in matches(name, text, 13)] == [match.span() for match in name.finditer(text)]

    check()


@pytest.mark.parametrize("blanks", [0, 1, 23, 24, 100, 1000])
@pytest.mark.usefixtures("short")
def test_blanks_may_be_many(blanks: int) -> None:
    text = b'{"a"' + b" " * blanks + b":" + b"\n" * blanks + b"1}"
    at = value_after(text, 4)
    assert at is not None
    assert text[at:] == b"1}"
    assert value_after(b'["a"' + b" " * blanks + b"]", 4) is None


# --- bodies --------------------------------------------------------------------------------------------------

FILLED = {
    "quotes": b'"%b"' % (rb"\"" * (SIZE // 2)),
    "line ends": b'"%b"' % (rb"\n" * (SIZE // 2)),
    "an address": b'"https://%b"' % (rb"\/" * (SIZE // 2)),
    "base64": b'"%b"' % (b"A" * SIZE),
    "backslashes": b'"%b"' % (rb"\\" * (SIZE // 2)),
    "blanks": b"[" + b" " * SIZE + b"]",
}


@pytest.mark.parametrize("filled", FILLED)
@pytest.mark.parametrize("place", ["part", "reasoning_details", "images", "input"])
def test_no_expression_sees_much_at_once(place: str, filled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = watch(monkeypatch, media, relayed_call, stretches)
    part = b'{"type":"x","url":%b,"%b":1,"type" %b:"y"}' % (FILLED[filled], b"n" * SIZE, b" " * SIZE)
    match place:
        case "part":
            parsed: object = parse_chat(b'{"model":"m","messages":[{"role":"user","content":[%b]}]}' % part)
        case "input":
            parsed = parse_relayed(b'{"model":"m","input":[{"role":"user","content":[%b]}]}' % part)
        case _:
            message = b'{"role":"assistant","content":"a","%b":[%b]}' % (place.encode(), part)
            parsed = parse_chat(b'{"model":"m","messages":[%b]}' % message)
    assert isinstance(parsed, ChatCall | RelayedCall)
    assert 0 < looks.longest <= stretches.STRETCH + OVERLAP


def test_a_reference_may_stand_far_behind_its_name() -> None:
    for name, value in (
        ("file_id", b'"f"'),
        ("file_ids", b"[%b" % (b" " * SIZE) + b'"f"]'),
        ("type", b'"item_reference"'),
    ):
        member = b'"%b"%b:%b%b' % (name.encode(), b" " * SIZE, b" " * SIZE, value)
        call = parse_relayed(b'{"model":"m","input":[{"role":"user","a":[{%b}]}]}' % member)
        assert isinstance(call, RelayedCall)
        assert call.refers_to_stored == "input"


# --- JSON ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("short")
def test_faults_are_mended_wherever_they_are_cut() -> None:
    pieces = [rb"\ud83d", rb"\ude00", rb"\u0041", rb"\\", rb"\"", b"x" * 20, "é".encode()]
    texts = st.lists(st.sampled_from(pieces))
    numbers = [b"NaN", b"-Infinity", b"Infinity", b"-1", b"1.5", b"null", b" " * 30 + b"NaN"]

    @given(st.lists(st.sampled_from(numbers) | texts.map(lambda found: b'"%b"' % b"".join(found))))
    def check(values: list[bytes]) -> None:
        text = b"[" + b",".join(values) + b"]"
        in_stretches = strict(text)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stretches, "STRETCH", len(text) + 64)
            assert in_stretches == strict(text)
        json.loads(in_stretches, parse_constant=pytest.fail)
        assert members(b'{"a":%b}' % in_stretches)

    check()


@given(st.binary() | st.text().map(str.encode), st.integers(0, 70))
def test_utf8_is_told_wherever_it_is_cut(text: bytes, before: int) -> None:
    text = b"a" * before + text
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slices, "__defaults__", (7,))
        assert in_utf8(text) == text.decode("utf-8", "replace").encode()
        assert is_utf8(text) == (in_utf8(text) == text)
