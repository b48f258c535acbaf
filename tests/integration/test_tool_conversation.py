"""A tool conversation that begins at OpenAI, goes on at Mistral and comes back: neither minds what the other wrote."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from fakes import strict_mistral, strict_openai
from fakes.gateway import Tenant
from fakes.upstream import Answer, error, mistral_reply, mistral_stream, openai_reply, openai_stream, reply

TOOLS = [{"type": "function", "function": {"name": "weather", "description": "In a city."}}]
ARGUMENTS = '{"city":"Paris"}'

Judge = Callable[[str, bytes], tuple[int, bytes] | None]


def judged(judge: Judge, answer: Answer) -> Answer:
    """The answer of a provider that looks at the request first."""

    def strictly(request: Any) -> Any:
        refused = judge(request.path.removeprefix("/v1"), request.body)
        return (reply(*refused) if refused else answer)(request)

    return strictly


def openai_says(text: str, stream: bool) -> Answer:
    return judged(strict_openai.refusal, openai_stream([text]) if stream else openai_reply(text))


def openai_calls(call_id: str, stream: bool) -> Answer:
    made = {"id": call_id, "type": "function", "function": {"name": "weather", "arguments": ARGUMENTS}}
    delta = {"tool_calls": [{"index": 0, **made}]}
    whole = openai_reply(None, tool_calls=[made])  # type: ignore[arg-type]  # as OpenAI writes it
    return judged(strict_openai.refusal, openai_stream([delta], finish="tool_calls") if stream else whole)


def mistral_says(text: str, stream: bool) -> Answer:
    return judged(strict_mistral.refusal, mistral_stream([text]) if stream else mistral_reply(text))


def mistral_calls(call_id: str, stream: bool) -> Answer:
    made = {"id": call_id, "index": 0, "function": {"name": "weather", "arguments": ARGUMENTS}}
    delta = {"content": "", "tool_calls": [made]}
    whole = mistral_reply("", tool_calls=[made])
    return judged(strict_mistral.refusal, mistral_stream([delta], finish="tool_calls") if stream else whole)


class Conversation:
    """A client as most are written: what came back is put into the history as it is."""

    def __init__(self, tenant: Tenant, stream: bool) -> None:
        self._tenant = tenant
        self._stream = stream
        self.messages: list[dict[str, Any]] = [{"role": "system", "content": "Be brief."}]

    async def ask(self, text: str) -> str:
        """Put a question; returns who answered it."""
        self.messages.append({"role": "user", "content": text})
        return await self._turn()

    async def tell(self, result: str) -> str:
        """Give the result to every call of the last answer; returns who answered that."""
        for call in self.messages[-1]["tool_calls"]:
            self.messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})
        return await self._turn()

    async def _turn(self) -> str:
        body = {"messages": self.messages, "tools": TOOLS}
        if self._stream:
            async with self._tenant.stream(self._tenant.pair, **body) as stream:
                assert stream.status == 200
                self.messages.append(joined(await stream.chunks()))
            return str(stream.header("x-tollway-provider"))
        answer = await self._tenant.chat(self._tenant.pair, **body)
        assert answer.status == 200, answer
        self.messages.append(answer.json["choices"][0]["message"])
        return str(answer.header("x-tollway-provider"))


def joined(chunks: list[Any]) -> dict[str, Any]:
    """The message that the deltas of a stream make up."""
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    text = "".join(delta.get("content") or "" for delta in deltas)
    calls: list[dict[str, Any]] = []
    for piece in (piece for delta in deltas for piece in delta.get("tool_calls") or []):
        if piece.pop("index") == len(calls):
            calls.append(piece)
        else:
            calls[-1]["function"]["arguments"] += piece["function"]["arguments"]
    return {"role": "assistant", "content": text or None, **({"tool_calls": calls} if calls else {})}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_conversation_goes_from_provider_to_provider_and_back(tenant: Tenant, stream: bool) -> None:
    talk = Conversation(tenant, stream)

    tenant.openai.answers(openai_calls("call_Zx81aBcDeFgHiJkLmNoPqRsT", stream))
    assert await talk.ask("Is it raining in Paris?") == "openai"
    tenant.openai.answers(openai_says("It rains.", stream))
    assert await talk.tell("rain") == "openai"

    tenant.openai.answers(error(500))
    tenant.mistral.answers(mistral_calls("D681PevKs", stream))
    assert await talk.ask("And now?") == "mistral"
    tenant.mistral.answers(mistral_says("No longer.", stream))
    assert await talk.tell("sun") == "mistral"

    tenant.openai.answers(openai_calls("call_2", stream))
    assert await talk.ask("Look again.") == "openai"
    tenant.openai.answers(error(500))
    assert await talk.tell("snow") == "mistral"

    tenant.openai.answers(openai_says("You are welcome.", stream))
    assert await talk.ask("Thanks.") == "openai"
    assert json.loads(tenant.openai.requests[-1].body)["messages"] == talk.messages[:-1], "OpenAI sees all of it"
