"""Searches that a provider ran for a response."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollway.wire.searches import may_hold_searches, searches_of_event, searches_of_response

SEARCH = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "x"}}
OUTPUT = [
    *([SEARCH] * 3),
    {**SEARCH, "action": {"type": "open_page", "url": "x"}},
    {**SEARCH, "action": {"type": "find_in_page"}},
    {"type": "web_search_call", "action": None},
    {"type": "file_search_call", "queries": ["x"]},
    {"type": "image_generation_call", "action": "generate"},
    {"type": "message", "content": [{"type": "output_text", "text": json.dumps(SEARCH)}]},
]
RESPONSE = {"output": OUTPUT, "metadata": {"type": "open_page"}, "tools": [{"default": SEARCH}]}
COUNTED = {"web_searches": 4, "storage_searches": 1}


def test_each_search_counts_once_and_what_only_looks_like_one_does_not() -> None:
    body = json.dumps(RESPONSE).encode()
    assert may_hold_searches(body) and searches_of_response(body) == COUNTED
    assert searches_of_event(json.dumps({"type": "response.completed", "response": RESPONSE}).encode()) == COUNTED


@pytest.mark.parametrize("said", [{}, [], {"output": [1]}, {"output": "_search_call"}, {"response": {"output": []}}])
def test_what_is_none_has_none(said: object) -> None:
    body = json.dumps(said).encode()
    assert searches_of_response(body) == searches_of_event(body) == {}


@given(st.binary())
def test_junk_raises_nothing(body: bytes) -> None:
    assert searches_of_response(body) == searches_of_event(body) == {}
