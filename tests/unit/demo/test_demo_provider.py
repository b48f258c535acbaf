"""The simulated provider says back what it is told, and fails as it is asked to."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollway.demo.provider import MODELS, DemoError, DemoProvider, rehearse


class Exchange:
    """One request to the application, and what came back."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.whole = False
        self.gone = asyncio.Event()

    async def run(self, request: dict[str, Any]) -> "Exchange":
        pending = [{"type": "http.request", "body": json.dumps(request).encode(), "more_body": False}]

        async def receive() -> dict[str, Any]:
            if pending:
                return pending.pop()
            await self.gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                self.body += message["body"]
                self.whole = not message["more_body"]

        scope = {"type": "http", "method": "POST", "path": "/demo/v1/chat/completions", "headers": []}
        async with asyncio.timeout(5):
            await DemoProvider()(scope, receive, send)
        return self

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        frames = self.body.decode().split("\n\n")
        assert frames.pop() == ""
        return [frame if frame == "data: [DONE]" else json.loads(frame.removeprefix("data: ")) for frame in frames]

    @property
    def said(self) -> str:
        choices = [event["choices"] for event in self.events if isinstance(event, dict) and event.get("choices")]
        return "".join(choice[0]["delta"].get("content", "") for choice in choices)


def request(content: Any = "one two three", model: str = "demo/echo", **more: Any) -> dict[str, Any]:
    fast = {"words_per_second": 10_000, "delay_ms": 0, **more.pop("demo", {})}
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": content}]
    return {"model": model, "messages": messages, "demo": fast, **more}


async def test_it_says_back_the_last_user_message() -> None:
    answer = await Exchange().run(request("Hello,  Tollway!"))
    assert answer.status == 200
    (choice,) = answer.json["choices"]
    assert choice["message"] == {"role": "assistant", "content": "Hello, Tollway!", "refusal": None}
    assert choice["finish_reason"] == "stop"
    usage = answer.json["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (4, 2, 6)


async def test_text_parts_are_read_and_images_skipped() -> None:
    parts = [{"type": "text", "text": "look here"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    answer = await Exchange().run(request(parts))
    assert answer.json["choices"][0]["message"]["content"] == "look here"


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_a_cap_cuts_the_answer(name: str) -> None:
    answer = await Exchange().run(request(**{name: 2}))
    (choice,) = answer.json["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("one two", "length")
    assert answer.json["usage"]["completion_tokens"] == 2


async def test_a_stream_says_it_word_by_word() -> None:
    answer = await Exchange().run(request(stream=True))
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.whole
    first, *words, last, done = answer.events
    assert first["choices"][0]["delta"]["role"] == "assistant"
    assert [word["choices"][0]["delta"]["content"] for word in words] == ["one", " two", " three"]
    assert (last["choices"][0]["delta"], last["choices"][0]["finish_reason"]) == ({}, "stop")
    assert done == "data: [DONE]"
    assert all("usage" not in event for event in answer.events[:-1])


async def test_a_stream_tells_its_usage_when_asked() -> None:
    answer = await Exchange().run(request(stream=True, stream_options={"include_usage": True}))
    *chunks, usage, _ = answer.events
    assert {chunk["usage"] for chunk in chunks} == {None}
    assert usage["choices"] == []
    assert usage["usage"]["total_tokens"] == 8


async def test_a_slow_stream_keeps_its_pace() -> None:
    began = asyncio.get_running_loop().time()
    await Exchange().run(request(stream=True, demo={"words_per_second": 50, "delay_ms": 40}))
    assert asyncio.get_running_loop().time() - began >= 0.09  # 0.04 + 3 / 50, less what the clock rounds off


@pytest.mark.parametrize("stream", [False, True])
async def test_it_answers_with_the_status_that_it_is_asked_for(stream: bool) -> None:
    answer = await Exchange().run(request(stream=stream, demo={"status": 429, "retry_after_s": 1.2}))
    assert answer.status == 429
    assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("2", "1200")
    assert set(answer.json["error"]) == {"message", "type", "param", "code"}


async def test_an_unreliable_model_fails() -> None:
    assert (await Exchange().run(request(model="demo/unreliable"))).status == 500


async def test_a_stream_fails_in_the_middle_when_asked() -> None:
    answer = await Exchange().run(request(stream=True, demo={"error_after": 2}))
    assert answer.said == "one two"
    assert "error" in answer.events[-1]
    assert answer.whole


async def test_a_failing_answer_without_a_stream_is_a_500() -> None:
    assert (await Exchange().run(request(demo={"error_after": 2}))).status == 500


@pytest.mark.parametrize("stream", [False, True])
async def test_the_connection_breaks_when_asked(stream: bool) -> None:
    answer = await Exchange().run(request(stream=stream, demo={"cut_after": 2}))
    assert (answer.status, answer.whole) == (200, False)
    if stream:
        assert answer.said == "one two"
    else:
        assert len(answer.body) < int(answer.headers["content-length"])


@pytest.mark.parametrize("stream", [False, True])
async def test_it_falls_silent_until_the_client_goes_away(stream: bool) -> None:
    exchange = Exchange()
    asyncio.get_running_loop().call_later(0.05, exchange.gone.set)
    answer = await exchange.run(request(stream=stream, demo={"stall_after": 2}))
    assert not answer.whole
    assert (answer.said if stream else answer.status) == ("one two" if stream else 0)


async def test_a_client_that_goes_away_ends_a_stream() -> None:
    exchange = Exchange()
    asyncio.get_running_loop().call_later(0.05, exchange.gone.set)
    await exchange.run(request("word " * 10_000, stream=True, demo={"words_per_second": 100}))
    assert not exchange.whole


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b'{"model": "demo/echo"}', 400),
        (b'{"model": "demo/echo", "messages": []}', 400),
        (b'{"model": "demo/echo", "messages": "hi"}', 400),
        (b'{"model": "demo/echo", "messages": [{"role": "user"}], "n": 2}', 400),
        (b'{"model": "demo/echo", "messages": [{"role": "user"}], "max_tokens": 0}', 400),
        (b'{"model": "demo/echo", "messages": [{"role": "user"}], "demo": {"statsu": 500}}', 400),
        (b'{"model": "demo/echo", "messages": [{"role": "user"}], "demo": {"status": 200}}', 400),
        (b'{"model": "demo/none", "messages": [{"role": "user"}]}', 404),
    ],
)
def test_what_a_real_provider_would_refuse_is_refused(body: bytes, status: int) -> None:
    with pytest.raises(DemoError) as refused:
        rehearse(body, 1, 0.0)
    assert refused.value.status == status
    assert json.loads(refused.value.body)["error"]["message"]


@pytest.mark.parametrize("model", MODELS)
def test_a_request_overrides_what_its_model_does_by_itself(model: str) -> None:
    performance = rehearse(json.dumps(request(model=model, demo={"delay_ms": 7})).encode(), 1, 0.0)
    assert performance.script.delay_ms == 7
    assert performance.script.cut_after == MODELS[model].cut_after


@given(st.binary(max_size=200))
def test_any_junk_is_refused_politely(body: bytes) -> None:
    with pytest.raises(DemoError):
        rehearse(body, 1, 0.0)
