"""Numbers in base64 and back again are the same."""

import base64
import json
import struct
import tracemalloc
from typing import Any

import msgspec
import pytest
from golden import asked
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from tollway.domain.failures import UpstreamFailure
from tollway.providers import vectors
from tollway.providers.base import ChatResult
from tollway.providers.table import adapters
from tollway.providers.vectors import MAX_NUMBERS, UNENCODABLE, as_asked, in_base64, in_numbers

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


def embeddings(dialect: str, body: bytes, inputs: int = 2) -> Any:
    """The answer as a strict reader has it; None where there is none."""
    call = asked("embeddings", {"input": ["a"] * inputs})
    result = adapters(dialect)["embeddings"].decode(200, {}, body, call)
    return None if isinstance(result, UpstreamFailure) else msgspec.json.decode(result.body)


@pytest.mark.parametrize("dialect", ["openai", "mistral"])
@pytest.mark.parametrize(
    ("indices", "order"),
    [
        (['"0"', '"1"'], [0, 1]),
        (['"1"', '"0"'], [1, 0]),
        (["0.0", "1.0"], [0, 1]),
        (["false", "true"], [0, 1]),
        (["[0]", "[1]"], [0, 1]),
        (["{}", "null"], [0, 1]),
        (['"0"', '"0"'], [0, 1]),
        (['"7"', "1"], [0, 1]),
        (['"nan"', "1e999"], [0, 1]),
        (['"' + "9" * 400 + '"', '"a"'], [0, 1]),
    ],
)
def test_an_index_of_another_type_is_read_or_counted(dialect: str, indices: list[str], order: list[int]) -> None:
    data = ",".join(f'{{"index":{index},"embedding":[{place}.5]}}' for place, index in enumerate(indices))
    answer = embeddings(dialect, f'{{"object":"list","data":[{data}],"model":"m"}}'.encode())
    assert {item["index"]: item["embedding"] for item in answer["data"]} == {
        index: [place + 0.5] for place, index in enumerate(order)
    }


@pytest.mark.parametrize("dialect", ["openai", "mistral"])
@pytest.mark.parametrize(
    "body",
    [
        b'{"data":[{"index":0,"embedding":[0.5]}],"model":"m","took":NaN}',
        b'{"data":[{"index":0,"embedding":[0.5],"score":-Infinity}],"model":"m"}',
        b'\xef\xbb\xbf{"data":[{"index":0,"embedding":[0.5]}],"model":"m"}',
        b'{"data":[{"index":0,"embedding":[0.5]}],"model":"m\\ud83d"}',
        b'{"data":[{"index":0,"embedding":[0.5]}],"model":null}',
        b'{"data":[{"index":0,"embedding":[0.5]}],"model":7,"object":null}',
    ],
)
def test_what_is_odd_around_embeddings_is_made_valid(dialect: str, body: bytes) -> None:
    answer = embeddings(dialect, body, inputs=1)
    assert [item["embedding"] for item in answer["data"]] == [[0.5]]
    assert isinstance(answer["model"], str)


@pytest.mark.parametrize("dialect", ["openai", "mistral"])
@pytest.mark.parametrize(
    "body",
    [
        b'{"data":[{"index":0,"embedding":[0.5,NaN]}],"model":"m"}',
        b'{"data":[{"index":"0","embedding":[0.5,null]}],"model":"m"}',
        b'{"data":[{"index":"0"}],"model":"m"}',
        b'{"data":{"index":"0"},"model":"m"}',
        b'{"data":[NaN],"model":"m"}',
        b"[NaN]",
        b"NaN",
        b"",
    ],
)
def test_numbers_that_are_none_make_no_embedding(dialect: str, body: bytes) -> None:
    assert embeddings(dialect, body, inputs=1) is None


@pytest.mark.parametrize("dialect", ["openai", "mistral"])
def test_a_score_that_is_no_number_is_no_reason_to_refuse_a_moderation(dialect: str) -> None:
    result = (
        b'{"flagged":true,"categories":{"sexual":true},"category_scores":{"sexual":NaN,"violence_and_threats":0.5}}'
    )
    body = b'\xef\xbb\xbf{"id":"i","model":"m","results":[%b]}' % result
    reply = adapters(dialect)["moderations"].decode(200, {}, body, asked("moderations", {"input": "a"}))
    assert not isinstance(reply, UpstreamFailure)
    (judged,) = msgspec.json.decode(reply.body)["results"]
    assert judged["flagged"] is True


@pytest.mark.parametrize("operation", ["embeddings", "moderations"])
def test_an_answer_of_far_too_many_members_is_none(operation: str) -> None:
    body = b'{"data":[{"embedding":[1]}],"results":[{}],"x":{%b}}' % b",".join([b'"a":0'] * 20_000)
    result = adapters("openai")[operation].decode(200, {}, body, asked(operation, {"input": "a"}))
    assert isinstance(result, UpstreamFailure)


# --- what one answer may make of itself ----------------------------------------------------------------------


def answer(dialect: str, encoding_format: str, embedding: bytes, number: int = 1) -> ChatResult | UpstreamFailure:
    call = asked("embeddings", {"input": ["a"] * number, "encoding_format": encoding_format})
    items = b",".join(b'{"index":%d,"embedding":%b}' % (index, embedding) for index in range(number))
    return adapters(dialect)["embeddings"].decode(200, {}, b'{"data":[%b]}' % items, call)


@pytest.mark.parametrize("dialect", ["openai", "mistral"])
@pytest.mark.parametrize("encoding_format", ["float", "base64"])
def test_an_embedding_of_more_numbers_than_any_has_is_not_encoded_anew(dialect: str, encoding_format: str) -> None:
    for most, expected in ((MAX_NUMBERS, ChatResult), (MAX_NUMBERS + 1, UpstreamFailure)):
        numbers = b"[" + b",".join([b"1"] * most) + b"]"
        encoded = b'"%b"' % in_base64([1.0] * most)
        given, other = (numbers, encoded) if encoding_format == "base64" else (encoded, numbers)
        assert isinstance(answer(dialect, encoding_format, given), expected)
        assert isinstance(answer(dialect, encoding_format, other), ChatResult), "it passes as it came"


@pytest.mark.parametrize("dialect", ["openai", "mistral"])
def test_all_embeddings_of_an_answer_have_a_bound_where_they_are_encoded_anew(
    dialect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = b"[" + b",".join([b"1"] * 300) + b"]"
    each = len(in_base64([1.0] * 300)) + 2
    monkeypatch.setattr(vectors, "MAX_ENCODED_BYTES", 3 * each)
    assert isinstance(answer(dialect, "base64", numbers, 3), ChatResult)
    assert isinstance(answer(dialect, "base64", numbers, 4), UpstreamFailure)
    assert isinstance(answer(dialect, "float", numbers, 4), ChatResult)


@pytest.mark.parametrize("dialect", ["openai", "mistral"])
@pytest.mark.parametrize(("each", "number"), [(MAX_NUMBERS, 4), (1_000_000, 1)])
@pytest.mark.parametrize("encoding_format", ["float", "base64"])
def test_embeddings_that_are_encoded_anew_take_little_memory(
    dialect: str, each: int, number: int, encoding_format: str
) -> None:
    text = b"-1.17549435e-38"
    embedding = b"[" + b",".join([text] * each) + b"]"
    if encoding_format == "float":
        embedding = b'"%b"' % in_base64([float(text)] * each)
    call = asked("embeddings", {"input": ["a"] * number, "encoding_format": encoding_format})
    items = b",".join([b'{"index":0,"embedding":%b}' % embedding] * number)
    body = b'{"data":[%b]}' % items
    tracemalloc.start()
    try:
        adapters(dialect)["embeddings"].decode(200, {}, body, call)
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert held < 3 * len(body) + 8 * 1024 * 1024
