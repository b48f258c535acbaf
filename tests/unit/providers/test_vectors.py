"""Numbers in base64 and back again are the same."""

import base64
import json
import struct

import pytest
from golden import asked
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from tollway.domain.failures import UpstreamFailure
from tollway.providers.table import adapters
from tollway.providers.vectors import UNENCODABLE, as_asked, in_base64, in_numbers

floats = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=20)


@given(floats)
def test_what_is_encoded_is_decoded_to_the_same_numbers(numbers: list[float]) -> None:
    text = in_base64(numbers)
    assert base64.b64decode(text) == struct.pack(f"<{len(numbers)}f", *numbers)
    again = json.loads(in_numbers(text.decode()))
    assert [struct.unpack("<f", struct.pack("<f", number))[0] for number in again] == numbers
    assert len(in_numbers(text.decode())) <= 4 * len(text)


@given(floats)
def test_other_ways_to_write_base64_are_read(numbers: list[float]) -> None:
    text = in_base64(numbers).decode()
    for written in (text.rstrip("="), text.replace("+", "-").replace("/", "_"), text[:3] + "\n" + text[3:]):
        assert in_numbers(written) == in_numbers(text)


@given(st.binary() | st.text().map(str.encode))
def test_any_text_is_numbers_or_refused(junk: bytes) -> None:
    raw = Raw(json.dumps(junk.decode("utf-8", "replace")).encode())
    try:
        numbers = json.loads(bytes(as_asked(raw, "float")))
    except UNENCODABLE:
        return
    assert all(isinstance(number, float | int) for number in numbers)


@pytest.mark.parametrize("dialect", ["openai", "mistral"])
def test_both_dialects_answer_in_the_encoding_that_was_asked_for(dialect: str) -> None:
    numbers = [0.5, -1.0, 0.25]
    for given_format, sent in (("base64", numbers), ("float", in_base64(numbers).decode())):
        call = asked("embeddings", {"input": "a", "encoding_format": given_format})
        body = json.dumps({"data": [{"index": 0, "embedding": sent}]}).encode()
        result = adapters(dialect)["embeddings"].decode(200, {}, body, call)
        assert not isinstance(result, UpstreamFailure)
        shown = json.loads(result.body)["data"][0]["embedding"]
        assert shown == (in_base64(numbers).decode() if given_format == "base64" else numbers)


@pytest.mark.parametrize("operation", ["embeddings", "moderations"])
def test_an_answer_of_far_too_many_members_is_none(operation: str) -> None:
    body = b'{"data":[{"embedding":[1]}],"results":[{}],"x":{%b}}' % b",".join([b'"a":0'] * 20_000)
    result = adapters("openai")[operation].decode(200, {}, body, asked(operation, {"input": "a"}))
    assert isinstance(result, UpstreamFailure)
