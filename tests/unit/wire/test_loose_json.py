"""JSON with the faults of common writers becomes strict, and nothing else changes."""

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpu_time import QUADRATIC, growth
from tollway.wire.loose_json import MAX_MENDS, strict


@pytest.mark.parametrize(
    ("loose", "mended"),
    [
        (b"[NaN,-NaN,Infinity,-Infinity]", b"[null,null,null,null]"),
        (b'{"logprob":NaN,"x":{"logprob" :\n -Infinity}}', b'{"logprob":-9999.0,"x":{"logprob" :\n -9999.0}}'),
        (b'{"logprob":"NaN","NaN":"-Infinity \\" NaN","a":-1}', None),
        (b'{"a":"\\"logprob\\":","b":NaN}', b'{"a":"\\"logprob\\":","b":null}'),
        (rb'"\ud83d"', rb'"\ufffd"'),
        (rb'"\uDE00x"', rb'"\ufffdx"'),
        (rb'"\ud83d\ud83d\ude00\ude00"', rb'"\ufffd\ud83d\ude00\ufffd"'),
        (rb'"\ud83d\u0041"', rb'"\ufffd\u0041"'),
        (rb'"\\ud83d \\\ud83d \u00e9"', rb'"\\ud83d \\\ufffd \u00e9"'),
        (b'{"a":[1.50, 1e2]}', None),
        (b"{'a':NaN", b"{'a':null"),
        (b'"NaN', None),
        (b"\xff NaN", b"\xff null"),
        (b"", None),
    ],
)
def test_faults_are_mended_and_nothing_else(loose: bytes, mended: bytes | None) -> None:
    assert strict(loose) == (loose if mended is None else mended)


values = st.recursive(
    st.none() | st.integers() | st.floats() | st.text(st.characters(codec="utf-8") | st.sampled_from("\ud83d\ude00")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "logprob", "NaN"]), inner),
    max_leaves=12,
)


def whole(value: Any, name: str = "") -> Any:
    """The value as it should be read."""
    if isinstance(value, float) and not math.isfinite(value):
        return -9999.0 if name == "logprob" else None
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [whole(item) for item in value]
    return {key: whole(item, key) for key, item in value.items()} if isinstance(value, dict) else value


@given(values)
def test_whatever_python_writes_is_read(value: Any) -> None:
    text = json.dumps(value).encode()
    assert msgspec.json.decode(strict(text)) == whole(value)


@given(st.binary())
def test_junk_raises_nothing(junk: bytes) -> None:
    assert isinstance(strict(junk), bytes)


def test_more_faults_than_anybody_makes_are_left() -> None:
    assert strict(b"NaN," * MAX_MENDS + b"NaN") == b"null," * MAX_MENDS + b"NaN"
    assert strict(b"NaN," * MAX_MENDS + b"NaN", MAX_MENDS + 1) == b"null," * MAX_MENDS + b"null"


@pytest.mark.parametrize(
    "letters",
    [
        b'"',
        b"\\",
        b"-",
        b"N",
        b"I",
        b" ",
        b'"\\"',
        b"\\ud83d",
        b"\\u",
        b'"logprob":',
        b"-Infin",
        b"NaN",
        b'"a\\',
        b"\xff",
    ],
)
def test_no_letters_take_long(letters: bytes) -> None:
    def mend(text: bytes) -> None:
        for worst in (text, b'"' + text, text + b"NaN", b'"logprob"' + text + b"NaN\\ud83d"):
            strict(worst, 10**6)

    quarter, whole = (letters * (size // len(letters)) for size in (25_000, 100_000))
    assert growth(mend, quarter, whole) < QUADRATIC
