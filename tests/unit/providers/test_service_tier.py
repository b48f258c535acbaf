"""The service tier that an answer names, wherever it stands."""

import json

import pytest
from golden import CHAT, asked, call
from msgspec.structs import replace

from fakes.usages import told
from tollway.domain.usage import Usage
from tollway.providers.base import ChatResult
from tollway.providers.service_tier import with_tier
from tollway.providers.table import adapters
from tollway.wire.json import UNSET, Raw

USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
PRIORITY = replace(told(5, 7), service_tier="priority")
UNREADABLE = replace(told(5, 7), doubt="unreadable_tier")

TIERS = [
    *((tier, told(5, 7)) for tier in ("default", "auto", "standard", "on_demand", "Default", "", None)),
    ("priority", PRIORITY),
    ("PRIORITY", PRIORITY),
    ("x" * 32, replace(told(5, 7), service_tier="x" * 32)),
    *((tier, UNREADABLE) for tier in ("x" * 33, "a b", "prïority", 3, True, [], {"a": 1})),
]


def chunk(**members: object) -> bytes:
    return b"data: %b\n\n" % json.dumps({"id": "c", "object": "chat.completion.chunk", **members}).encode()


@pytest.mark.parametrize(("tier", "usage"), TIERS)
def test_a_whole_answer_names_its_tier(tier: object, usage: Usage) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "x"}, "text": "x", "finish_reason": "stop"}
    body = json.dumps({"id": "c", "choices": [choice], "service_tier": tier, "usage": USAGE}).encode()
    for operation, said in (("chat/completions", call({})), ("completions", asked("completions", {"prompt": "x"}))):
        result = adapters("openai")[operation].decode(200, {}, body, said)
        assert isinstance(result, ChatResult)
        assert (result.usage, result.body) == (usage, body)


@pytest.mark.parametrize("where", ["everywhere", "with the usage", "first", "beside the only text"])
def test_a_stream_names_its_tier_somewhere(where: str) -> None:
    named = {"service_tier": "priority"}
    decoder = CHAT["openai"].decoder(call({"stream": True}))
    delta = {"index": 0, "delta": {"role": "assistant", "content": "x"}, "finish_reason": None}
    first = {"choices": [delta], **(named if where in ("everywhere", "first") else {})}
    last = {"choices": [], "usage": USAGE, **(named if where in ("everywhere", "with the usage") else {})}
    if where == "beside the only text":
        first = {"choices": [delta], "usage": USAGE, **named}
        last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    for said in (first, last):
        decoder.feed(chunk(**said))
    assert decoder.usage == PRIORITY


def test_a_doubt_is_added_to_those_before() -> None:
    usage = replace(told(5, 7), doubt="total_differs")
    assert with_tier(usage, Raw(b"3")).doubt == "total_differs,unreadable_tier"
    assert with_tier(usage, UNSET) is with_tier(usage, None) is usage
