"""Counting structure: exact whatever stands in strings and wherever the text is cut, and before anything is built."""

import json
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollway.domain.refusals import BadRequest
from tollway.wire import structure
from tollway.wire.chat_request import parse_chat
from tollway.wire.completion_request import parse_completion
from tollway.wire.embeddings_request import parse_embeddings
from tollway.wire.moderation_request import parse_moderation
from tollway.wire.relayed_call import parse_relayed
from tollway.wire.structure import OF_ANSWERS, OF_REQUESTS, UNCOUNTED_BYTES, Bounds, fits

DOCUMENTS = st.recursive(
    st.none() | st.integers() | st.text(alphabet='a"\\{[:,]}é\n', max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('a"\\:,', max_size=3), inner, max_size=4),
    max_leaves=30,
)


def counted(value: object) -> tuple[int, int, int]:
    """Containers, members and commas of a value, the slow way."""
    if not isinstance(value, dict | list):
        return 0, 0, 0
    inner = list(map(counted, value.values() if isinstance(value, dict) else value))
    members = len(value) if isinstance(value, dict) else 0
    return (
        1 + sum(part[0] for part in inner),
        members + sum(part[1] for part in inner),
        max(0, len(value) - 1) + sum(part[2] for part in inner),
    )


@given(value=DOCUMENTS, slice_bytes=st.integers(1, 9), ascii_only=st.booleans())
def test_the_count_is_exact_wherever_the_text_is_cut(value: object, slice_bytes: int, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only).encode()
    containers, members, commas = counted(value)
    with patch.multiple(structure, UNCOUNTED_BYTES=0, _SLICE=slice_bytes):
        assert fits(text, Bounds(containers, members, commas))
        for fewer in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
            bounds = Bounds(containers - fewer[0], members - fewer[1], commas - fewer[2])
            assert not fits(text, bounds) or -1 in (bounds.containers, bounds.members, bounds.commas)


@given(st.binary(max_size=200), st.integers(1, 9))
def test_junk_is_counted_too(text: bytes, slice_bytes: int) -> None:
    with patch.multiple(structure, UNCOUNTED_BYTES=0, _SLICE=slice_bytes):
        assert fits(text, Bounds(200, 200, 200))


def test_text_that_looks_like_structure_does_not_count() -> None:
    code = json.dumps({"text": 'if (a[0]) { b["x"] = {1, 2}; }\n' * 40_000}).encode()
    assert len(code) > UNCOUNTED_BYTES
    assert fits(code, Bounds(1, 1, 0))


HOSTILE = {
    "members": b'{"model":"m",' + b",".join(b'"a%d":0' % number for number in range(200_000)) + b"}",
    "empty objects": b'{"model":"m","input":[' + b"{}," * 100_000 + b"{}]}",
    "empty lists": b'{"model":"m","messages":[' + b"[]," * 100_000 + b"[]]}",
    "deep lists": b'{"model":"m","input":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "numbers": b'{"model":"m","input":[' + b"1," * 1_000_000 + b"1]}",
    "strings": b'{"model":"m","input":[' + b'"",' * 1_000_000 + b'""]}',
    "parts": b'{"model":"m","messages":[{"role":"user","content":[' + b'{"type":"a"},' * 100_000 + b'{"type":"a"}]}]}',
    "an escape before lists": b'{"model":"m","input":["\\u0061",' + b"[]," * 100_000 + b"[]]}",
    "tools": b'{"model":"m","input":"a","tools":[' + b'{"type":"a"},' * 100_000 + b"{}]}",
    "an unclosed string": b'{"model":"m","input":[' + b"{}," * 100_000 + b'"',
    "only braces": b"{" * 200_000,
    "only commas": b"," * 500_000,
}
PARSERS = (parse_chat, parse_completion, parse_embeddings, parse_moderation, parse_relayed)


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("parse", PARSERS, ids=lambda parse: parse.__name__)
def test_a_request_of_nothing_but_structure_is_refused_before_it_is_read(parse, body: bytes) -> None:
    with (
        patch("tollway.wire.request_body.members", side_effect=AssertionError),
        patch("tollway.wire.relayed_call.members", side_effect=AssertionError),
    ):
        refusal = parse(body)
    assert isinstance(refusal, BadRequest)
    assert (refusal.status, refusal.code) == (400, "request_too_complex")


def test_what_people_send_fits() -> None:
    tools = [
        {"type": "function", "function": {"name": f"f{n}", "parameters": {"a": {"type": "string"}}}} for n in range(500)
    ]
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "What is {a: [1, 2]}?" * 20}]} for _ in range(9000)
    ]
    assert fits(json.dumps({"model": "m", "messages": messages, "tools": tools}).encode(), OF_REQUESTS)
    assert fits(json.dumps({"model": "m", "input": [list(range(150)) for _ in range(2000)]}).encode(), OF_REQUESTS)


def test_an_answer_with_alternatives_for_each_token_fits() -> None:
    token = {"token": " word", "logprob": -1.25, "bytes": [32, 119, 111, 114, 100]}
    content = [{**token, "top_logprobs": [token] * 20}] * 4_000
    choice = {"index": 0, "message": {"role": "assistant", "content": "word"}, "logprobs": {"content": content}}
    assert fits(json.dumps({"choices": [choice]}).encode(), OF_ANSWERS)
