"""LangChain and Pydantic AI, which people build on the official library: their ordinary calls at both providers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import openai
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel
from pydantic_ai import Agent, ModelHTTPError, NativeOutput
from pydantic_ai.embeddings import Embedder
from pydantic_ai.embeddings.openai import OpenAIEmbeddingModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from fakes.gateway import Tenant
from fakes.upstream import (
    Account,
    Answer,
    Bill,
    embeddings_reply,
    error,
    mistral_reply,
    mistral_stream,
    openai_reply,
    openai_stream,
)


@dataclass(frozen=True)
class Provider:
    """One of the two, as a test about both sees it."""

    model: str
    account: Account
    reply: Callable[..., Answer]
    stream: Callable[..., Answer]
    call: dict[str, Any]
    """What every tool call has that this provider sends."""

    def calls(self, name: str, arguments: str) -> Answer:
        """An answer that calls one tool."""
        return self.reply("", tool_calls=[{**self.call, "function": {"name": name, "arguments": arguments}}])

    @property
    def roles(self) -> list[str]:
        """Who speaks in the last request that came in."""
        return [message["role"] for message in self.account.requests[-1].json["messages"]]


@pytest.fixture(params=["openai", "mistral"])
def provider(request: pytest.FixtureRequest, tenant: Tenant) -> Provider:
    if request.param == "openai":
        call = {"id": "call_1", "type": "function"}
        return Provider(tenant.model, tenant.openai, openai_reply, openai_stream, call)
    call = {"id": "abcdefghi", "index": 0}
    return Provider(tenant.mistral_model, tenant.mistral, mistral_reply, mistral_stream, call)


class Place(BaseModel):
    """A place on the map."""

    city: str


# LangChain


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


@pytest.fixture
def chat(tenant: Tenant, provider: Provider) -> ChatOpenAI:
    return ChatOpenAI(base_url=tenant.gateway.url + "/v1", api_key=tenant.key, model=provider.model)


def test_langchain_talks(chat: ChatOpenAI, provider: Provider) -> None:
    provider.account.answers(provider.reply("Bonjour", Bill(9, 3)))
    said = [SystemMessage("Be brief."), HumanMessage("Hi"), AIMessage("Hi."), HumanMessage("In French?")]
    answer = chat.invoke(said)
    assert answer.content == "Bonjour"
    assert answer.usage_metadata["total_tokens"] == 12
    assert answer.response_metadata["finish_reason"] == "stop"
    assert provider.roles == ["system", "user", "assistant", "user"]


def test_langchain_streams(chat: ChatOpenAI, provider: Provider) -> None:
    provider.account.answers(provider.stream(["Bon", "jour"], Bill(9, 3)))
    chunks = list(chat.stream("Hello", stream_usage=True))
    assert "".join(chunk.content for chunk in chunks) == "Bonjour"
    assert [chunk.usage_metadata["total_tokens"] for chunk in chunks if chunk.usage_metadata] == [12]


def test_langchain_calls_tools(chat: ChatOpenAI, provider: Provider) -> None:
    provider.account.answers(provider.calls("weather", '{"city": "Paris"}'), provider.reply("It is sunny."))
    with_tools = chat.bind_tools([weather])
    question = HumanMessage("How is the weather?")
    request = with_tools.invoke([question])
    results = [weather.invoke(call) for call in request.tool_calls]
    assert [(type(result), result.content) for result in results] == [(ToolMessage, "sunny in Paris")]
    assert with_tools.invoke([question, request, *results]).content == "It is sunny."
    assert provider.roles == ["user", "assistant", "tool"]


def test_langchain_puts_streamed_tool_calls_together(chat: ChatOpenAI, provider: Provider) -> None:
    call = {"index": 0, **provider.call, "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
    provider.account.answers(provider.stream([{"content": "", "tool_calls": [call]}], finish="tool_calls"))
    first, *rest = chat.bind_tools([weather]).stream("How is the weather?")
    whole = sum(rest, start=first)
    assert [(made["name"], made["args"]) for made in whole.tool_calls] == [("weather", {"city": "Paris"})]


def test_langchain_gets_an_object_by_a_schema(chat: ChatOpenAI, provider: Provider) -> None:
    provider.account.answers(provider.reply('{"city": "Paris"}'))
    structured = chat.with_structured_output(Place, method="json_schema")
    assert structured.invoke("Where?") == Place(city="Paris")
    (request,) = provider.account.requests
    assert request.json["response_format"]["json_schema"]["schema"]["required"] == ["city"]


def test_langchain_gets_an_object_by_a_tool(chat: ChatOpenAI, provider: Provider) -> None:
    provider.account.answers(provider.calls("Place", '{"city": "Paris"}'))
    structured = chat.with_structured_output(Place, method="function_calling")
    assert structured.invoke("Where?") == Place(city="Paris")


def test_langchain_gets_an_object_in_json_mode(chat: ChatOpenAI, provider: Provider) -> None:
    provider.account.answers(provider.reply('{"city": "Paris"}'))
    structured = chat.with_structured_output(Place, method="json_mode")
    assert structured.invoke("Where? Answer in JSON.") == Place(city="Paris")
    assert provider.account.requests[0].json["response_format"] == {"type": "json_object"}


def test_langchain_embeds(tenant: Tenant, provider: Provider) -> None:
    provider.account.answers(embeddings_reply())
    embeddings = OpenAIEmbeddings(
        base_url=tenant.gateway.url + "/v1",
        api_key=tenant.key,
        model=provider.model,
        check_embedding_ctx_length=False,  # or else it downloads a tokenizer
    )
    assert embeddings.embed_documents(["1", "2"]) == [[1.0, 0.5], [2.0, 0.5]]
    assert embeddings.embed_query("3") == [3.0, 0.5]


def test_langchain_raises_the_errors_of_the_official_library(chat: ChatOpenAI, provider: Provider) -> None:
    provider.account.answers(error(400, "Too long", code="context_length_exceeded", param="messages"))
    with pytest.raises(openai.BadRequestError, match="Too long"):
        chat.invoke("Hello")
    assert len(provider.account.requests) == 1


# Pydantic AI


@pytest.fixture
def connection(tenant: Tenant) -> OpenAIProvider:
    return OpenAIProvider(base_url=tenant.gateway.url + "/v1", api_key=tenant.key)


@pytest.fixture
def agent(connection: OpenAIProvider, provider: Provider) -> Agent:
    """To be entered, so that it closes its connections."""
    agent = Agent(OpenAIChatModel(provider.model, provider=connection), instructions="Be brief.")

    @agent.tool_plain
    def weather(city: str) -> str:
        return f"sunny in {city}"

    return agent


async def test_pydantic_ai_talks(agent: Agent, provider: Provider) -> None:
    provider.account.answers(provider.reply("Bonjour", Bill(9, 3)))
    async with agent:
        result = await agent.run("Hello")
    assert result.output == "Bonjour"
    assert result.usage.total_tokens == 12
    assert provider.roles == ["system", "user"]


async def test_pydantic_ai_streams(agent: Agent, provider: Provider) -> None:
    provider.account.answers(provider.stream(["Bon", "jour"], Bill(9, 3)))
    async with agent, agent.run_stream("Hello") as result:
        assert [text async for text in result.stream_text(delta=True, debounce_by=None)] == ["Bon", "jour"]
        assert result.usage.total_tokens == 12


async def test_pydantic_ai_calls_tools_until_it_has_an_object(agent: Agent, provider: Provider) -> None:
    arguments = '{"city": "Paris"}'
    provider.account.answers(provider.calls("weather", arguments), provider.calls("final_result", arguments))
    async with agent:
        result = await agent.run("Where is it sunny?", output_type=Place)
    assert result.output == Place(city="Paris")
    assert provider.roles == ["system", "user", "assistant", "tool"]


async def test_pydantic_ai_gets_an_object_by_a_schema(agent: Agent, provider: Provider) -> None:
    provider.account.answers(provider.reply('{"city": "Paris"}'))
    async with agent:
        result = await agent.run("Where?", output_type=NativeOutput(Place))
    assert result.output == Place(city="Paris")
    (request,) = provider.account.requests
    assert request.json["response_format"]["json_schema"]["schema"]["required"] == ["city"]


async def test_pydantic_ai_embeds(connection: OpenAIProvider, provider: Provider) -> None:
    provider.account.answers(embeddings_reply())
    embedder = Embedder(OpenAIEmbeddingModel(provider.model, provider=connection))
    async with connection:
        result = await embedder.embed_documents(["1", "2"])
    assert [list(vector) for vector in result.embeddings] == [[1.0, 0.5], [2.0, 0.5]]


async def test_pydantic_ai_raises_with_the_status(agent: Agent, tenant: Tenant, provider: Provider) -> None:
    await tenant.limit(requests=0)
    with pytest.raises(ModelHTTPError) as caught:
        async with agent:
            await agent.run("Hello")
    assert caught.value.status_code == 429
    assert not provider.account.requests
