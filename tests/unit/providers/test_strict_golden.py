"""What the golden cases send is what the providers take; the judges are in ``tests/fakes``."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from golden import FOLDER, asked, call, cases

from fakes import strict_mistral, strict_openai
from tollway.providers.base import UpstreamRequest
from tollway.providers.table import adapters

CHAT_FILES = ("requests", "parameters", "tools", "messages")
ENDPOINTS = ("embeddings", "completions", "moderations")

LAX = {"logprobs", "user_after_tool"}
"""Quirks of servers that take more than Mistral itself."""


def sent(dialect: str) -> Iterator[Any]:
    """Every case of a dialect that is sent: the operation, the case, the client's members."""
    for name in CHAT_FILES:
        for case in cases(f"{dialect}/{name}.json") if (FOLDER / dialect / f"{name}.json").exists() else []:
            given = {"messages": case["given"]} if name == "messages" else case["given"]
            if "refused" not in case and LAX.isdisjoint(case.get("quirks", ())):
                yield pytest.param("chat/completions", case, given, id=f"{name}: {case['name']}")
    for name in ENDPOINTS:
        for case in cases(f"{dialect}/{name}.json")["requests"]:
            if "refused" not in case:
                yield pytest.param(name, case, case["given"], id=f"{name}: {case['name']}")


def encoded(dialect: str, operation: str, case: Any, given: dict[str, Any]) -> UpstreamRequest:
    adapter = adapters(dialect, case.get("quirks", ()))[operation]
    parsed = call(given) if operation == "chat/completions" else asked(operation, given)
    request = adapter.encode(parsed, case.get("model", "theirs"))
    assert isinstance(request, UpstreamRequest), request
    return request


@pytest.mark.parametrize(("operation", "case", "given"), list(sent("mistral")))
def test_mistral_takes_what_is_sent(operation: str, case: Any, given: dict[str, Any]) -> None:
    request = encoded("mistral", operation, case, given)
    for body in (request.body, *request.further):
        assert strict_mistral.refusal(request.path.decode(), body) is None


@pytest.mark.parametrize(("operation", "case", "given"), list(sent("openai")))
def test_openai_takes_what_is_sent_or_refuses_what_the_client_wrote(
    operation: str, case: Any, given: dict[str, Any]
) -> None:
    request = encoded("openai", operation, case, given)
    path = request.path.decode()
    if refused := strict_openai.refusal(path, request.body):
        body, error = json.loads(request.body), json.loads(refused[1])["error"]
        assert at(error["param"], body) == at(error["param"], given), error


def at(path: str, document: Any) -> Any:
    """What stands in a document at ``messages[0].content``."""
    for step in re.findall(r"\w+", path):
        document = document[int(step) if step.isdigit() else step]
    return document
