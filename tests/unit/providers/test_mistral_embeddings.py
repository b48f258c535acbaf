"""More inputs than Mistral takes at once go in parts, and come back as one answer."""

import base64
import json
import struct

import pytest
from golden import asked
from hypothesis import given
from hypothesis import strategies as st

from fakes.usages import told
from tollway.domain.failures import UpstreamFailure
from tollway.providers.base import ChatResult, UpstreamRequest
from tollway.providers.mistral.embeddings import MAX_BYTES, MAX_INPUTS, MistralEmbeddings
from tollway.providers.openai_endpoints import OpenAIEmbeddings
from tollway.providers.vectors import in_base64
from tollway.wire.embeddings_request import OPENAI_INPUTS


def bodies(inputs: list[str], **members: object) -> list[bytes]:
    request = MistralEmbeddings().encode(asked("embeddings", {"input": inputs, **members}), "mistral-embed")
    assert isinstance(request, UpstreamRequest)
    return [request.body, *request.further]


def answer(body: bytes) -> bytes:
    """What Mistral would say: the embedding of a text is the number that it is."""
    texts = json.loads(body)["input"]
    data = [{"object": "embedding", "index": index, "embedding": [float(text)]} for index, text in enumerate(texts)]
    return json.dumps({"data": data, "model": "mistral-embed", "usage": {"prompt_tokens": len(texts)}}).encode()


def joined(inputs: list[str], **members: object) -> ChatResult:
    adapter, call = MistralEmbeddings(), asked("embeddings", {"input": inputs, **members})
    results = []
    for body in bodies(inputs, **members):
        result = adapter.decode(200, {}, answer(body), call)
        assert isinstance(result, ChatResult)
        results.append(result)
    return adapter.join(results)


@pytest.mark.parametrize(("count", "sizes"), [(512, [512]), (513, [512, 1]), (2048, [512] * 4)])
def test_no_more_inputs_go_at_once_than_mistral_takes(count: int, sizes: list[int]) -> None:
    assert [len(json.loads(body)["input"]) for body in bodies(["a"] * count)] == sizes


def test_no_more_tokens_go_at_once_than_mistral_takes() -> None:
    third = "a" * (MAX_BYTES // 3 - 2)
    assert [len(json.loads(body)["input"]) for body in bodies([third] * 7)] == [3, 3, 1]


def test_one_text_that_is_too_long_goes_alone() -> None:
    long = "a" * (MAX_BYTES + 1)
    assert [json.loads(body)["input"] for body in bodies(["a", long, "b"])] == [["a"], [long], ["b"]]


def test_every_part_asks_for_the_same() -> None:
    first, second = map(json.loads, bodies(["a"] * (MAX_INPUTS + 1), dimensions=8))
    assert first.keys() == second.keys() == {"model", "encoding_format", "output_dimension", "input"}


@given(st.integers(1, OPENAI_INPUTS))
def test_what_was_split_is_joined_in_order(count: int) -> None:
    result = joined([str(number) for number in range(count)])
    body = json.loads(result.body)
    assert [item["index"] for item in body["data"]] == list(range(count))
    assert [item["embedding"] for item in body["data"]] == [[number] for number in range(count)]
    assert result.usage == told(count, 0)
    assert body["usage"] == {"prompt_tokens": count, "total_tokens": count}


def test_what_was_encoded_stays_so_when_it_is_joined() -> None:
    body = json.loads(joined(["1"] * 600, encoding_format="base64").body)
    assert {item["embedding"] for item in body["data"]} == {base64.b64encode(struct.pack("<f", 1)).decode()}


def test_usage_that_one_part_lacks_is_not_known() -> None:
    adapter = MistralEmbeddings()
    result = joined(["1"])
    both = adapter.join([result, result._replace(usage=None)])
    assert both.usage is None
    assert b"usage" not in both.body


def test_a_part_with_too_few_embeddings_is_no_answer() -> None:
    call = asked("embeddings", {"input": ["1"] * 600})
    assert isinstance(MistralEmbeddings().decode(200, {}, answer(b'{"input": ["1"]}'), call), UpstreamFailure)


def test_numbers_keep_their_digits() -> None:
    body = b'{"data":[{"embedding":[0.10, 1E-7,-0.0],"index":0}],"model":"m"}'
    result = MistralEmbeddings().decode(200, {}, body, asked("embeddings", {"input": "a"}))
    assert isinstance(result, ChatResult)
    assert b'"embedding":[0.10, 1E-7,-0.0]' in result.body


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_numbers_come_back_out_of_base64(numbers: list[float]) -> None:
    assert list(struct.unpack(f"<{len(numbers)}f", base64.b64decode(in_base64(numbers)))) == numbers


def test_openai_is_asked_once() -> None:
    call = asked("embeddings", {"input": ["a"] * OPENAI_INPUTS})
    request = OpenAIEmbeddings().encode(call, "m")
    assert isinstance(request, UpstreamRequest)
    assert request.further == ()
    result = ChatResult(b"{}", None)
    assert OpenAIEmbeddings().join([result]) is result
