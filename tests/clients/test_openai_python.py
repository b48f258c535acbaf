"""The official library for Python, its ordinary and its asynchronous client: the same behaviour of both."""

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from fakes.gateway import Tenant
from fakes.upstream import (
    HANG,
    Bill,
    Pause,
    error,
    event,
    mistral_reply,
    mistral_stream,
    openai_reply,
    openai_stream,
    raw,
)

MESSAGES = [{"role": "user", "content": "Hello"}]
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}


class Sdk:
    """One of the two clients behind one asynchronous face, counting the requests that leave it."""

    def __init__(self, asynchronous: bool, base_url: str) -> None:
        self._asynchronous = asynchronous
        self._base_url = base_url
        self.requests = 0

    async def call(self, key: str, action: str, *, retries: int = 0, timeout: float = 30, **arguments: Any) -> Any:
        """``action`` is the path of a method, such as ``chat.completions.create``."""
        settings = {"base_url": self._base_url, "api_key": key, "max_retries": retries, "timeout": timeout}
        if self._asynchronous:
            hooks = {"request": [self._count_async]}
            async with openai.AsyncOpenAI(
                **settings, http_client=openai.DefaultAsyncHttpxClient(event_hooks=hooks)
            ) as client:
                result = await method(client, action)(**arguments)
                return [chunk async for chunk in result] if arguments.get("stream") else result
        return await asyncio.to_thread(self._call_sync, settings, action, arguments)

    def _call_sync(self, settings: dict[str, Any], action: str, arguments: dict[str, Any]) -> Any:
        hooks = {"request": [self._count]}
        with openai.OpenAI(**settings, http_client=openai.DefaultHttpxClient(event_hooks=hooks)) as client:
            result = method(client, action)(**arguments)
            return list(result) if arguments.get("stream") else result

    async def create(self, tenant: Tenant, **arguments: Any) -> Any:
        """A chat completion with the tenant's key and model unless said otherwise."""
        given = {"key": tenant.key, "model": tenant.model, "messages": MESSAGES, **arguments}
        return await self.call(action="chat.completions.create", **given)

    def _count(self, request: object) -> None:
        self.requests += 1

    async def _count_async(self, request: object) -> None:
        self.requests += 1


def method(client: object, path: str) -> Any:
    for name in path.split("."):
        client = getattr(client, name)
    return client


@pytest.fixture(params=["sync", "async"])
def sdk(request: pytest.FixtureRequest, tenant: Tenant) -> Iterator[Sdk]:
    yield Sdk(request.param == "async", tenant.gateway.url + "/v1")


def text_of(chunks: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


@pytest.mark.parametrize("provider", ["openai", "mistral"])
async def test_a_completion(sdk: Sdk, tenant: Tenant, provider: str) -> None:
    tenant.openai.answers(openai_reply("Bonjour", Bill(9, 3)))
    tenant.mistral.answers(mistral_reply("Bonjour", Bill(9, 3)))
    model = {"openai": tenant.model, "mistral": tenant.mistral_model}[provider]
    completion = await sdk.create(tenant, model=model)
    assert completion.choices[0].message.content == "Bonjour"
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage.total_tokens == 12
    assert completion.object == "chat.completion"
    assert completion.id and completion.created and completion.model
    assert completion._request_id.startswith("req_")


@pytest.mark.parametrize("provider", ["openai", "mistral"])
async def test_a_stream(sdk: Sdk, tenant: Tenant, provider: str) -> None:
    tenant.openai.answers(openai_stream(["Bon", "jour"]))
    tenant.mistral.answers(mistral_stream(["Bon", "jour"]))
    model = {"openai": tenant.model, "mistral": tenant.mistral_model}[provider]
    chunks = await sdk.create(tenant, model=model, stream=True)
    assert text_of(chunks) == "Bonjour"
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "stop"
    assert all(chunk.usage is None for chunk in chunks)


async def test_a_stream_with_usage(sdk: Sdk, tenant: Tenant) -> None:
    tenant.openai.answers(openai_stream(["Bon", "jour"], Bill(9, 3)))
    chunks = await sdk.create(tenant, stream=True, stream_options={"include_usage": True})
    assert chunks[-1].usage.total_tokens == 12


async def test_the_stream_helper_of_the_ordinary_client(tenant: Tenant) -> None:
    tenant.openai.answers(openai_stream(["Bon", "jour"]))

    def run() -> Any:
        with (
            openai.OpenAI(base_url=tenant.gateway.url + "/v1", api_key=tenant.key, max_retries=0) as client,
            client.chat.completions.stream(model=tenant.model, messages=MESSAGES) as stream,
        ):
            deltas = [event.delta for event in stream if event.type == "content.delta" and event.delta]
            return deltas, stream.get_final_completion()

    deltas, completion = await asyncio.to_thread(run)
    assert deltas == ["Bon", "jour"]
    assert completion.choices[0].message.content == "Bonjour"


@pytest.mark.parametrize("provider", ["openai", "mistral"])
async def test_the_stream_helper_of_the_asynchronous_client_puts_tool_calls_together(
    tenant: Tenant, provider: str
) -> None:
    first = {"tool_calls": [{"index": 0, **CALL, "function": {"name": "weather", "arguments": ""}}]}
    rest = [{"tool_calls": [{"index": 0, "function": {"arguments": text}}]} for text in ("{", "}")]
    tenant.openai.answers(openai_stream([first, *rest], finish="tool_calls"))
    complete = {"index": 0, "id": "abcdefghi", "function": {"name": "weather", "arguments": "{}"}}
    tenant.mistral.answers(mistral_stream([{"content": "", "tool_calls": [complete]}], finish="tool_calls"))
    model = {"openai": tenant.model, "mistral": tenant.mistral_model}[provider]
    async with (
        openai.AsyncOpenAI(base_url=tenant.gateway.url + "/v1", api_key=tenant.key, max_retries=0) as client,
        client.chat.completions.stream(model=model, messages=MESSAGES, tools=[TOOL]) as stream,
    ):
        completion = await stream.get_final_completion()
    (call,) = completion.choices[0].message.tool_calls
    assert (call.function.name, call.function.arguments, call.type) == ("weather", "{}", "function")
    assert completion.choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize("provider", ["openai", "mistral"])
async def test_tools_there_and_back(sdk: Sdk, tenant: Tenant, provider: str) -> None:
    of_mistral = {"id": "abcdefghi", "function": {"name": "weather", "arguments": "{}"}, "index": 0}
    tenant.openai.answers(openai_reply("", tool_calls=[CALL]), openai_reply("It is sunny."))
    tenant.mistral.answers(mistral_reply("", tool_calls=[of_mistral]), mistral_reply("It is sunny."))
    model = {"openai": tenant.model, "mistral": tenant.mistral_model}[provider]
    completion = await sdk.create(tenant, model=model, tools=[TOOL], tool_choice="auto")
    message = completion.choices[0].message
    (call,) = message.tool_calls
    assert (call.type, call.function.name, call.function.arguments) == ("function", "weather", "{}")
    answer = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    second = await sdk.create(tenant, model=model, tools=[TOOL], messages=[*MESSAGES, message, answer])
    assert second.choices[0].message.content == "It is sunny."
    account = {"openai": tenant.openai, "mistral": tenant.mistral}[provider]
    assert [said["role"] for said in account.requests[1].json["messages"]] == ["user", "assistant", "tool"]


class Place(BaseModel):
    city: str


async def test_structured_outputs(sdk: Sdk, tenant: Tenant) -> None:
    tenant.openai.answers(openai_reply('{"city": "Paris"}'))
    completion = await sdk.call(
        tenant.key, "chat.completions.parse", model=tenant.model, messages=MESSAGES, response_format=Place
    )
    assert completion.choices[0].message.parsed == Place(city="Paris")
    sent = tenant.openai.requests[0].json["response_format"]
    assert sent["json_schema"]["strict"] is True


# Errors


async def raises(kind: type[openai.APIStatusError], sdk: Sdk, tenant: Tenant, **arguments: Any) -> Any:
    """The error, which must be of exactly this class; the library was free to retry twice."""
    with pytest.raises(kind) as caught:
        await sdk.create(tenant, retries=2, **arguments)
    assert type(caught.value) is kind
    return caught.value


async def test_authentication_error(sdk: Sdk, tenant: Tenant) -> None:
    failure = await raises(openai.AuthenticationError, sdk, tenant, key="wrong")
    assert (failure.code, failure.type, failure.param) == ("invalid_api_key", "invalid_request_error", None)
    assert failure.request_id.startswith("req_")
    assert sdk.requests == 1


async def test_bad_request_error(sdk: Sdk, tenant: Tenant) -> None:
    failure = await raises(openai.BadRequestError, sdk, tenant, temperature="hot")
    assert failure.param == "temperature"
    failure = await raises(openai.BadRequestError, sdk, tenant, model="no-such-model", stream=True)
    assert (failure.code, failure.param) == ("model_not_found", "model")
    assert sdk.requests == 2


async def test_a_bad_request_that_only_the_provider_sees(sdk: Sdk, tenant: Tenant) -> None:
    tenant.openai.answers(error(400, "Too long", code="context_length_exceeded", param="messages"))
    failure = await raises(openai.BadRequestError, sdk, tenant)
    assert (failure.code, failure.param) == ("context_length_exceeded", "messages")
    assert len(tenant.openai.requests) == sdk.requests == 1


async def test_permission_denied_error(sdk: Sdk, tenant: Tenant) -> None:
    edit = "UPDATE tollway.virtual_keys SET allowed_models = ARRAY['another'] WHERE id = $1"
    await tenant.gateway.sql(edit, tenant.key_id)
    await tenant.gateway.configuration_is_live()
    failure = await raises(openai.PermissionDeniedError, sdk, tenant)
    assert failure.code == "model_not_allowed"
    assert sdk.requests == 1


async def test_not_found_error(sdk: Sdk, tenant: Tenant) -> None:
    with pytest.raises(openai.NotFoundError):
        await sdk.call(tenant.key, "models.retrieve", retries=2, model="no-such-model")
    assert sdk.requests == 1


async def test_rate_limit_error(sdk: Sdk, tenant: Tenant) -> None:
    await tenant.limit(tokens=1000)
    failure = await raises(openai.RateLimitError, sdk, tenant, max_tokens=5000)
    assert failure.code == "rate_limit_exceeded"
    assert sdk.requests == 1, "waiting does not help, and the header says so"


async def test_internal_server_error(sdk: Sdk, tenant: Tenant) -> None:
    tenant.openai.answers(error(500))
    failure = await raises(openai.InternalServerError, sdk, tenant)
    assert failure.status_code == 502
    assert sdk.requests == 1, "the gateway has tried everything; the client's retries would only multiply it"
    assert len(tenant.openai.requests) <= 2


async def test_timeout_error(sdk: Sdk, tenant: Tenant) -> None:
    tenant.openai.answers(raw(HANG))
    with pytest.raises(openai.APITimeoutError):
        await sdk.create(tenant, timeout=0.3)
    await tenant.openai.hang_ups.reaches(1)


async def test_an_error_in_a_stream_is_raised(sdk: Sdk, tenant: Tenant) -> None:
    failure = event({"error": {"message": "overloaded", "type": "server_error", "code": None, "param": None}})
    tenant.openai.answers(openai_stream(["Hel", Pause(0.3), failure], finish=None))
    with pytest.raises(openai.APIError) as caught:
        await sdk.create(tenant, stream=True, retries=2)
    assert caught.value.type == "server_error"
    assert sdk.requests == 1


# Retries


async def test_it_retries_after_the_time_that_our_header_says(sdk: Sdk, tenant: Tenant) -> None:
    """A shorter wait than this the gateway waits out itself."""
    tenant.openai.answers(error(429, headers={"retry-after-ms": "1100"}), openai_reply())
    began = time.monotonic()
    completion = await sdk.create(tenant, retries=2)
    assert completion.choices[0].message.content == "Bonjour"
    assert sdk.requests == 2
    assert len(tenant.openai.requests) == 2
    assert time.monotonic() - began >= 1.05


@pytest.mark.parametrize("headers", [{}, {"retry-after": "soon"}])
async def test_a_rate_limit_without_a_time_is_retried_as_it_is_without_a_gateway(
    sdk: Sdk, tenant: Tenant, headers: dict[str, str]
) -> None:
    """Directly, the library waits half a second and succeeds."""
    tenant.openai.answers(error(429, headers=headers), openai_reply())
    completion = await sdk.create(tenant, retries=2)
    assert completion.choices[0].message.content == "Bonjour"
    assert sdk.requests == 2


async def test_a_prompt_that_does_not_fit_has_the_code_that_programs_look_for(sdk: Sdk, tenant: Tenant) -> None:
    text = "request (4267 tokens) exceeds the available context size (4096 tokens), try increasing it"
    tenant.openai.answers(error(500, text, type="exceed_context_size_error", code=500))
    failure = await raises(openai.BadRequestError, sdk, tenant)
    assert (failure.code, failure.param) == ("context_length_exceeded", "messages")
    assert len(tenant.openai.requests) == sdk.requests == 1


async def test_an_error_in_a_stream_has_the_providers_words(sdk: Sdk, tenant: Tenant) -> None:
    failure = event({"error": {"message": "The hamster is tired", "type": "hamster_error", "code": "E42"}})
    tenant.openai.answers(openai_stream(["Hel", Pause(0.3), failure], finish=None))
    with pytest.raises(openai.APIError) as caught:
        await sdk.create(tenant, stream=True, retries=2)
    assert (caught.value.message, caught.value.code, caught.value.type) == (
        "The hamster is tired",
        "E42",
        "hamster_error",
    )


async def test_a_retry_is_another_call_with_another_id(sdk: Sdk, tenant: Tenant) -> None:
    tenant.openai.answers(openai_reply())
    ids = {(await sdk.create(tenant))._request_id for _ in range(3)}
    assert len(ids) == 3


async def test_leaving_a_stream_closes_the_upstream(tenant: Tenant) -> None:
    tenant.openai.answers(openai_stream(["Hel", HANG]))
    async with openai.AsyncOpenAI(base_url=tenant.gateway.url + "/v1", api_key=tenant.key) as client:
        stream = await client.chat.completions.create(model=tenant.model, messages=MESSAGES, stream=True)
        async with stream:
            async for chunk in stream:
                if chunk.choices[0].delta.content:
                    break
    await tenant.openai.hang_ups.reaches(1)


async def test_a_prompt_of_every_script_arrives_unchanged(sdk: Sdk, tenant: Tenant) -> None:
    tenant.openai.answers(lambda request: openai_reply(request.json["messages"][0]["content"])(request))
    text = 'Grüße, мир, 世界, 𝄞, \u2028, "quotes" \\ and\nlines'
    completion = await sdk.create(tenant, messages=[{"role": "user", "content": text}])
    assert completion.choices[0].message.content == text
    assert json.loads(tenant.openai.requests[0].body)["messages"][0]["content"] == text
