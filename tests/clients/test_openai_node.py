"""The official library for Node.js, and Vercel's AI SDK where streams are odd: every scenario runs in one process of
node; pytest prescribes and asserts.

The libraries come from the lock file in ``node/`` and is installed once into pytest's cache.
"""

import asyncio
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fakes.gateway import Gateway, Tenant, new_tenant
from fakes.upstream import (
    HANG,
    LAST_CHUNK,
    STREAM_HEAD,
    Answer,
    Bill,
    Pause,
    embeddings_reply,
    error,
    event,
    http_chunk,
    mistral_reply,
    mistral_stream,
    openai_reply,
    openai_stream,
    raw,
    reply,
)

PROJECT = Path(__file__).parent / "node"
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
CALL_OF_MISTRAL = {"id": "abcdefghi", "index": 0, "function": {"name": "weather", "arguments": "{}"}}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
SOUND = bytes(range(256))


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


class Script:
    """What node is to do; each scenario has a customer of its own whose provider is told what to answer."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.tenants: dict[str, Tenant] = {}
        self.scenarios: dict[str, dict[str, Any]] = {}

    async def add(self, name: str, action: str, *answers: Answer, **more: Any) -> Tenant:
        tenant = self.tenants[name] = await new_tenant(self.gateway)
        if answers:
            tenant.openai.answers(*answers)
        self.scenarios[name] = {"action": action, "key": tenant.key, "model": tenant.model, **more}
        return tenant

    async def add_at_mistral(self, name: str, action: str, *answers: Answer, **more: Any) -> Tenant:
        tenant = await self.add(name, action, **more)
        tenant.mistral.answers(*answers)
        self.scenarios[name]["model"] = tenant.mistral_model
        return tenant

    async def add_call(self, name: str, method: str, *answers: Answer, **body: Any) -> Tenant:
        """Any other method; its body names the customer's model."""
        tenant = await self.add(name, "call", *answers, method=method, maxRetries=2)
        self.scenarios[name]["body"] = {"model": tenant.model, **body}
        return tenant


async def chats(script: Script) -> None:
    await script.add("completion", "completion", openai_reply("Bonjour", Bill(9, 3)))
    await script.add("stream", "stream", openai_stream(["Bon", "jour"]))
    usage = {"stream_options": {"include_usage": True}}
    await script.add("stream with usage", "stream", openai_stream(["Bon", "jour"], Bill(9, 3)), body=usage)
    await script.add("stream helper", "streamHelper", openai_stream(["Bon", "jour"]))
    await script.add("hang up", "hangUp", openai_stream(["Hel", HANG]))


async def tools_and_objects(script: Script) -> None:
    pieces = [{"tool_calls": [{"index": 0, **CALL, "function": {"name": "weather", "arguments": ""}}]}]
    pieces += [{"tool_calls": [{"index": 0, "function": {"arguments": text}}]} for text in ("{", "}")]
    await script.add("streamed tools", "streamHelper", openai_stream(pieces, finish="tool_calls"))
    schema = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA, "strict": True}}
    paris = '{"city": "Paris"}'
    await script.add("structured", "completion", openai_reply(paris), body={"response_format": schema})
    await script.add("parsed", "parse", openai_reply(paris))
    await script.add_at_mistral("parsed at mistral", "parse", mistral_reply(paris))
    await script.add("parsed stream", "parseStream", openai_stream([paris[:5], paris[5:]]))
    await script.add_at_mistral("parsed stream at mistral", "parseStream", mistral_stream([paris[:5], paris[5:]]))
    sunny = "It is sunny."
    await script.add("tools", "tools", openai_reply("", tool_calls=[CALL]), openai_reply(sunny))
    await script.add("tools run", "runTools", openai_reply("", tool_calls=[CALL]), openai_reply(sunny))
    calls = mistral_reply("", tool_calls=[CALL_OF_MISTRAL])
    await script.add_at_mistral("tools run at mistral", "runTools", calls, mistral_reply(sunny))


HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_760_000_000, "model": "up"}


def odd_stream(*choices: dict[str, Any] | bytes, end: Any = LAST_CHUNK) -> Answer:
    """A stream of these choices, each in a chunk, and of events that are written out."""
    events = [
        event({**HEAD, "choices": [{"index": 0, **choice}]}) if isinstance(choice, dict) else http_chunk(choice)
        for choice in choices
    ]
    return raw(STREAM_HEAD, *events, event("[DONE]"), end)


def said(reason: Any, **delta: Any) -> dict[str, Any]:
    return {"delta": delta, "finish_reason": reason}


def piece(**members: Any) -> dict[str, Any]:
    return said(None, tool_calls=[{"index": 0, **members}])


HEL, LO = said(None, role="assistant", content="Hel"), said(None, content="lo")
ODD: dict[str, tuple[list[dict[str, Any] | bytes], str, list[Any], str]] = {
    "empty reasons": (
        [said("", role="assistant", content="Hel"), said("", content="lo"), said("stop")],
        *("Hello", [], "stop"),
    ),
    "reasons everywhere": (
        [said("stop", role="assistant", content="Hel"), said("stop", content="lo")],
        *("Hello", [], "stop"),
    ),
    "no reason": ([HEL, said("", content="lo")], "Hello", [], "stop"),
    "no role": ([said(None, content="Hello"), said("length")], "Hello", [], "length"),
    "keep-alives": (
        [b"data: null\n\n", HEL, b'data: {"choices":null}\n\ndata: ping\n\n', LO, {"finish_reason": "stop"}],
        *("Hello", [], "stop"),
    ),
    "ids that change": (
        [
            piece(id="A", type="function", function={"name": "f", "arguments": ""}),
            piece(id="B", function={"arguments": '{"a"'}),
            piece(id="", type="", function={"name": "", "arguments": ":1}"}),
            said("tool_calls"),
        ],
        *("", [["A", "f", '{"a":1}']], "tool_calls"),
    ),
    "a late name": (
        [piece(id="A"), piece(function={"name": "f", "arguments": {"a": 1}}), said("tool_calls")],
        *("", [["A", "f", '{"a":1}']], "tool_calls"),
    ),
    "parts and numbers": (
        [said(None, role="assistant", content=[{"type": "text", "text": "Hel"}]), said(None, content=5), said("stop")],
        *("Hel5", [], "stop"),
    ),
}
"""Streams of servers that copy OpenAI's dialect: what they say, by text, calls and reason to end."""

VECTOR = [0.5, -1.0, 0.25, 0.125, 2.0, -0.5, 4.0, 8.0]


async def odd_streams(script: Script) -> None:
    for name, (choices, *_) in ODD.items():
        await script.add(f"odd: {name}", "odd", odd_stream(*choices))
    floats = {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": VECTOR}], "model": "e"}
    await script.add("embed", "embed", reply(200, floats))


async def other_paths(script: Script) -> None:
    await script.add_call("embeddings", "embeddings.create", embeddings_reply(), input=["1", "2"])
    at_mistral = await script.add_call("embeddings at mistral", "embeddings.create", input=["1", "2"])
    at_mistral.mistral.answers(embeddings_reply())
    script.scenarios["embeddings at mistral"]["body"]["model"] = at_mistral.mistral_model
    await script.add("models", "call", method="models.list")
    done = {"type": "response.completed", "response": {"usage": {"input_tokens": 9, "output_tokens": 3}}}
    events = [event({"type": "response.output_text.delta", "delta": "Bonjour"}), event(done)]
    answer = raw(STREAM_HEAD, *events, LAST_CHUNK)
    await script.add_call("response", "responses.create", answer, input="Hello", stream=True)
    pages = [{"object": "list", "data": [{"id": f"file-{n}"}], "has_more": n < 2} for n in (1, 2)]
    await script.add("files", "call", *(reply(200, page) for page in pages), method="files.list")
    await script.add("speech", "speech", reply(200, SOUND, {"content-type": "audio/mpeg"}))
    await script.add("transcription", "transcription", reply(200, {"text": "Hello"}))


async def errors(script: Script) -> None:
    await script.add("401", "completion", key="wrong", maxRetries=2)
    await script.add("400", "completion", body={"temperature": "hot"}, maxRetries=2)
    await script.add("400 model", "completion", maxRetries=2)
    script.scenarios["400 model"]["model"] = "no-such-model"
    forbidden = await script.add("403", "completion", maxRetries=2)
    edit = "UPDATE tollway.virtual_keys SET allowed_models = ARRAY['another'] WHERE id = $1"
    await script.gateway.sql(edit, forbidden.key_id)
    await script.add("404", "call", method="models.retrieve", body="no-such-model", maxRetries=2)
    await script.add("429 too large", "completion", body={"max_tokens": 5000}, maxRetries=2)
    await script.tenants["429 too large"].limit(tokens=1000)
    await script.add("429", "completion")
    await script.tenants["429"].limit(requests=0)
    retried = error(429, headers={"retry-after-ms": "1100"}), openai_reply()
    await script.add("429 then well", "completion", *retried, maxRetries=2)
    await script.add("429 without a time, then well", "completion", error(429), openai_reply(), maxRetries=2)
    await script.add("502", "completion", error(500), maxRetries=2)
    await script.add("timeout", "completion", raw(HANG), timeout=300)
    failure = event({"error": {"message": "overloaded", "type": "server_error", "code": None, "param": None}})
    await script.add("error in a stream", "stream", openai_stream(["Hel", Pause(0.3), failure], finish=None))
    too_long = error(400, "Too long", code="context_length_exceeded", param="input")
    await script.add_call("400 embeddings", "embeddings.create", input=[])
    await script.add_call("400 response", "responses.create", too_long, input="Hello")
    missing = error(404, "No such File object: file-1", param="id")
    await script.add("404 file", "call", missing, method="files.retrieve", body="file-1", maxRetries=2)
    without_key = await script.add("403 files", "call", method="files.list", maxRetries=2)
    await script.gateway.save_keys(without_key.key, openaiKey="")


async def write(script: Script) -> None:
    for part in (chats, tools_and_objects, odd_streams, other_paths, errors):
        await part(script)
    await script.gateway.configuration_is_live()


@pytest.fixture(scope="module")
def ran(gateway: Gateway, node: tuple[str, Path]) -> tuple[dict[str, dict[str, Any]], dict[str, Tenant]]:
    """All results, by scenario, and the customers."""
    program, folder = node
    script = Script(gateway)
    asyncio.run(write(script))
    done = subprocess.run(
        [program, "scenarios.mjs"],
        cwd=folder,
        input=json.dumps({"baseURL": gateway.url + "/v1", "scenarios": script.scenarios}),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), script.tenants


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


@pytest.mark.parametrize("name", ["parsed", "parsed at mistral", "parsed stream", "parsed stream at mistral"])
def test_an_object_by_a_schema(results: dict[str, dict[str, Any]], name: str) -> None:
    assert results[name]["parsed"] == {"city": "Paris"}


@pytest.mark.parametrize("name", ["tools run", "tools run at mistral"])
def test_the_helper_that_runs_tools(results: dict[str, dict[str, Any]], name: str) -> None:
    assert results[name]["seen"] == [{}]
    assert results[name]["text"] == "It is sunny."
    assert results[name]["requests"] == 2


@pytest.mark.parametrize("name", ["embeddings", "embeddings at mistral"])
def test_embeddings(results: dict[str, dict[str, Any]], name: str) -> None:
    found = results[name]["value"]
    assert [item["embedding"] for item in found["data"]] == [[1.0, 0.5], [2.0, 0.5]]
    assert found["usage"]["total_tokens"] == 2


def test_models(results: dict[str, dict[str, Any]], tenants: dict[str, Tenant]) -> None:
    assert tenants["models"].model in [model["id"] for model in results["models"]["value"]]


def test_a_response_streams(results: dict[str, dict[str, Any]]) -> None:
    kinds = [event["type"] for event in results["response"]["value"]]
    assert kinds == ["response.output_text.delta", "response.completed"]


def test_pages_are_followed(results: dict[str, dict[str, Any]], tenants: dict[str, Tenant]) -> None:
    assert [file["id"] for file in results["files"]["value"]] == ["file-1", "file-2"]
    assert [request.path for request in tenants["files"].openai.requests] == ["/v1/files", "/v1/files?after=file-1"]


@pytest.mark.parametrize("name", ODD)
def test_odd_streams_are_read_by_both_libraries(results: dict[str, dict[str, Any]], name: str) -> None:
    _, text, calls, finish = ODD[name]
    result = results[f"odd: {name}"]
    assert "error" not in result, result
    assert (result["text"], result["calls"], result["finish"]) == (text, calls, finish)
    assert result["sdk"] == {"text": text, "calls": calls, "finish": finish, "errors": []}


def test_numbers_come_where_the_library_asks_for_base64(
    results: dict[str, dict[str, Any]], tenants: dict[str, Tenant]
) -> None:
    assert results["embed"]["vector"] == VECTOR
    assert tenants["embed"].openai.requests[0].json["encoding_format"] == "base64"


def test_sound_comes_and_goes(results: dict[str, dict[str, Any]], tenants: dict[str, Tenant]) -> None:
    assert bytes(results["speech"]["bytes"]) == SOUND
    assert results["transcription"]["text"] == "Hello"
    (request,) = tenants["transcription"].openai.requests
    assert b"\x00\r\n\xff" in request.body


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
        ("404", "NotFoundError", 404, "model_not_found"),
        ("429", "RateLimitError", 429, "rate_limit_exceeded"),
        ("429 too large", "RateLimitError", 429, "rate_limit_exceeded"),
        ("502", "InternalServerError", 502, "upstream_error"),
        ("400 embeddings", "BadRequestError", 400, None),
        ("400 response", "BadRequestError", 400, "context_length_exceeded"),
        ("403 files", "PermissionDeniedError", 403, "provider_key_required"),
        ("404 file", "NotFoundError", 404, None),
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
    assert result["took_ms"] >= 1_050


def test_a_rate_limit_without_a_time_is_retried_as_it_is_without_a_gateway(results: dict[str, dict[str, Any]]) -> None:
    result = results["429 without a time, then well"]
    assert (result["text"], result["requests"]) == ("Bonjour", 2)
