"""The official library for Node.js: every scenario runs in one process of node; pytest prescribes and asserts.

The library comes from the lock file in ``node/`` and is installed once into pytest's cache.
"""

import asyncio
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fakes.gateway import Gateway, Tenant, new_tenant
from fakes.upstream import HANG, Bill, Pause, error, event, openai_reply, openai_stream, raw

PROJECT = Path(__file__).parent / "node"
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.fixture(scope="module")
def node(request: pytest.FixtureRequest) -> tuple[str, Path]:
    """The interpreter, and the folder in which the library is installed."""
    program, npm = shutil.which("node"), shutil.which("npm")
    if program is None or npm is None:
        pytest.skip("node and npm are not installed on this machine: the official library for Node.js is not tested")
    folder = Path(request.config.cache.mkdir("openai-node"))
    lock = (PROJECT / "package-lock.json").read_text()
    marker = folder / "installed"
    if not marker.exists() or marker.read_text() != lock:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(PROJECT / name, folder)
        command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)
        if done.returncode != 0:
            pytest.skip(f"npm could not install the official library for Node.js: {done.stderr[-300:]}")
        marker.write_text(lock)
    shutil.copy(PROJECT / "scenarios.mjs", folder)
    return program, folder


async def scenarios(gateway: Gateway) -> tuple[dict[str, dict[str, Any]], dict[str, Tenant]]:
    """What to do and, for each, a customer of its own whose provider is told what to answer."""
    tenants: dict[str, Tenant] = {}
    found: dict[str, dict[str, Any]] = {}

    async def add(name: str, action: str, *answers: Any, **more: Any) -> Tenant:
        tenant = tenants[name] = await new_tenant(gateway)
        if answers:
            tenant.openai.answers(*answers)
        found[name] = {"action": action, "key": tenant.key, "model": tenant.model, **more}
        return tenant

    await add("completion", "completion", openai_reply("Bonjour", Bill(9, 3)))
    await add("stream", "stream", openai_stream(["Bon", "jour"]))
    usage = {"stream_options": {"include_usage": True}}
    await add("stream with usage", "stream", openai_stream(["Bon", "jour"], Bill(9, 3)), body=usage)
    await add("stream helper", "streamHelper", openai_stream(["Bon", "jour"]))
    pieces = [{"tool_calls": [{"index": 0, **CALL, "function": {"name": "weather", "arguments": ""}}]}]
    pieces += [{"tool_calls": [{"index": 0, "function": {"arguments": text}}]} for text in ("{", "}")]
    await add("streamed tools", "streamHelper", openai_stream(pieces, finish="tool_calls"))
    await add("tools", "tools", openai_reply("", tool_calls=[CALL]), openai_reply("It is sunny."))
    schema = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA, "strict": True}}
    await add("structured", "completion", openai_reply('{"city": "Paris"}'), body={"response_format": schema})
    await add("hang up", "hangUp", openai_stream(["Hel", HANG]))

    await add("401", "completion", key="wrong", maxRetries=2)
    await add("400", "completion", body={"temperature": "hot"}, maxRetries=2)
    await add("400 model", "completion", maxRetries=2)
    found["400 model"]["model"] = "no-such-model"
    forbidden = await add("403", "completion", maxRetries=2)
    edit = "UPDATE tollway.virtual_keys SET allowed_models = ARRAY['another'] WHERE id = $1"
    await gateway.sql(edit, forbidden.key_id)
    await add("404", "retrieveModel", maxRetries=2)
    await add("429 too large", "completion", body={"max_tokens": 5000}, maxRetries=2)
    await tenants["429 too large"].limit(tokens=1000)
    await add("429", "completion")
    await tenants["429"].limit(requests=0)
    await add("429 then well", "completion", error(429, headers={"retry-after": "1"}), openai_reply(), maxRetries=2)
    await add("502", "completion", error(500), maxRetries=2)
    await add("timeout", "completion", raw(HANG), timeout=300)
    failure = event({"error": {"message": "overloaded", "type": "server_error", "code": None, "param": None}})
    await add("error in a stream", "stream", openai_stream(["Hel", Pause(0.3), failure], finish=None))
    await gateway.configuration_is_live()
    return found, tenants


@pytest.fixture(scope="module")
def ran(gateway: Gateway, node: tuple[str, Path]) -> tuple[dict[str, dict[str, Any]], dict[str, Tenant]]:
    """All results, by scenario, and the customers."""
    program, folder = node
    prescribed, tenants = asyncio.run(scenarios(gateway))
    done = subprocess.run(
        [program, "scenarios.mjs"],
        cwd=folder,
        input=json.dumps({"baseURL": gateway.url + "/v1", "scenarios": prescribed}),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), tenants


@pytest.fixture
def results(ran: tuple[dict[str, dict[str, Any]], dict[str, Tenant]]) -> dict[str, dict[str, Any]]:
    return ran[0]


@pytest.fixture
def tenants(ran: tuple[dict[str, dict[str, Any]], dict[str, Tenant]]) -> dict[str, Tenant]:
    return ran[1]


def test_a_completion(results: dict[str, dict[str, Any]]) -> None:
    result = results["completion"]
    assert result["text"] == "Bonjour"
    assert result["completion"]["usage"]["total_tokens"] == 12
    assert result["id"].startswith("req_")


@pytest.mark.parametrize("name", ["stream", "stream helper"])
def test_a_stream(results: dict[str, dict[str, Any]], name: str) -> None:
    assert results[name]["text"] == "Bonjour"


def test_a_stream_with_usage(results: dict[str, dict[str, Any]]) -> None:
    assert results["stream with usage"]["chunks"][-1]["usage"]["total_tokens"] == 12


def test_tools_there_and_back(results: dict[str, dict[str, Any]], tenants: dict[str, Tenant]) -> None:
    result = results["tools"]
    assert (result["call"], result["finish"], result["text"]) == (CALL, "tool_calls", "It is sunny.")
    assert [message["role"] for message in tenants["tools"].openai.requests[1].json["messages"]] == [
        "user",
        "assistant",
        "tool",
    ]


def test_tools_in_a_stream(results: dict[str, dict[str, Any]]) -> None:
    (call,) = results["streamed tools"]["completion"]["choices"][0]["message"]["tool_calls"]
    assert (call["id"], call["function"]["name"], call["function"]["arguments"]) == ("call_1", "weather", "{}")


def test_structured_outputs(results: dict[str, dict[str, Any]], tenants: dict[str, Tenant]) -> None:
    assert json.loads(results["structured"]["text"]) == {"city": "Paris"}
    sent = tenants["structured"].openai.requests[0].json
    assert sent["response_format"]["json_schema"]["schema"] == SCHEMA


def test_leaving_a_stream_closes_the_upstream(results: dict[str, dict[str, Any]], tenants: dict[str, Tenant]) -> None:
    assert "error" not in results["hang up"]
    tenants["hang up"].openai.hang_ups.wait(1)


@pytest.mark.parametrize(
    ("name", "kind", "status", "code"),
    [
        ("401", "AuthenticationError", 401, "invalid_api_key"),
        ("400", "BadRequestError", 400, "invalid_type"),
        ("400 model", "BadRequestError", 400, "model_not_found"),
        ("403", "PermissionDeniedError", 403, "model_not_allowed"),
        ("404", "NotFoundError", 404, None),
        ("429", "RateLimitError", 429, "rate_limit_exceeded"),
        ("429 too large", "RateLimitError", 429, "rate_limit_exceeded"),
        ("502", "InternalServerError", 502, "upstream_error"),
    ],
)
def test_each_error_is_its_class_and_is_not_retried_in_vain(
    results: dict[str, dict[str, Any]], name: str, kind: str, status: int, code: str | None
) -> None:
    result = results[name]
    assert (result["error"], result["status"]) == (kind, status)
    assert code is None or result["code"] == code
    assert result["requests"] == 1
    assert result["requestID"].startswith("req_")


def test_a_timeout_of_its_own(results: dict[str, dict[str, Any]], tenants: dict[str, Tenant]) -> None:
    assert results["timeout"]["error"] == "APIConnectionTimeoutError"
    tenants["timeout"].openai.hang_ups.wait(1)


def test_an_error_in_a_stream_is_raised(results: dict[str, dict[str, Any]]) -> None:
    # Where the content and the error arrive together, nothing has gone out yet and the error has a status of its own.
    assert results["error in a stream"]["error"] in ("APIError", "InternalServerError")
    assert results["error in a stream"]["type"] == "server_error"


def test_it_retries_when_our_headers_say_so(results: dict[str, dict[str, Any]]) -> None:
    result = results["429 then well"]
    assert result["text"] == "Bonjour"
    assert result["requests"] == 2
    assert result["took_ms"] >= 950
