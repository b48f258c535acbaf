"""What goes upstream, case by case; the cases are files for people to read."""

import json
from typing import Any

import pytest
from golden import CHAT, MESSAGES, call, cases

from tollway.domain.refusals import BadRequest
from tollway.providers.base import UpstreamRequest
from tollway.providers.table import adapters


def named(case: Any) -> str:
    return str(case["name"])


def check(dialect: str, case: Any, given: dict[str, object], expected: dict[str, object]) -> None:
    chat, model = call(given), case.get("model", "theirs")
    adapter = adapters(dialect, case.get("quirks", ()))["chat/completions"]
    request = adapter.encode(chat, model)
    assert request == adapter.encode(chat, model), "failover encodes again"
    if refused := case.get("refused"):
        assert isinstance(request, BadRequest), request
        assert f"{request.param} {request.code}" == refused
        assert request.status == 400
    else:
        assert isinstance(request, UpstreamRequest), request
        assert request.path == b"/chat/completions"
        assert json.loads(request.body) == {"model": model, "messages": MESSAGES, **expected}
        assert list(request.warnings) == case.get("warnings", [])


@pytest.mark.parametrize("case", cases("openai/requests.json"), ids=named)
def test_a_request_passes_to_openai(case: Any) -> None:
    check("openai", case, case["given"], case.get("sent", {}))


@pytest.mark.parametrize("case", cases("mistral/parameters.json") + cases("mistral/tools.json"), ids=named)
def test_a_parameter_is_translated_for_mistral(case: Any) -> None:
    check("mistral", case, case["given"], case.get("sent", {}))


@pytest.mark.parametrize("case", cases("mistral/messages.json"), ids=named)
def test_a_conversation_is_translated_for_mistral(case: Any) -> None:
    check("mistral", case, {"messages": case["given"]}, {"messages": case.get("sent", [])})


def test_the_same_dialect_keeps_every_byte_of_a_member() -> None:
    request = CHAT["openai"].encode(call({}), "m")
    assert isinstance(request, UpstreamRequest)
    assert b'[{"role": "user", "content": "u"}]' in request.body
