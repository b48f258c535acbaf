"""A newcomer's first minute: the built-in provider answers, streams and fails without any provider key."""

import json

from fakes.client import text_of
from fakes.gateway import Gateway


async def test_a_completion_without_any_provider_key(gateway: Gateway) -> None:
    key, _ = await gateway.new_key()
    answer = await gateway.client.chat(key, "demo/echo", "Hello there")
    assert answer.text == "Hello there"
    assert answer.header("x-tollway-provider") == "demo"
    assert float(answer.header("x-tollway-cost") or "0") > 0


async def test_a_stream(gateway: Gateway) -> None:
    key, _ = await gateway.new_key()
    async with gateway.client.stream(key, "demo/echo", "Hello there") as stream:
        assert text_of(await stream.chunks()) == "Hello there"


async def test_a_failover(gateway: Gateway) -> None:
    key, _ = await gateway.new_key()
    answer = await gateway.client.chat(key, "demo/unreliable", "Hello there")
    assert answer.text == "Hello there"
    assert answer.header("x-tollway-model") == "demo/echo"
    assert answer.header("x-tollway-attempts") == "2"


async def test_a_429_of_ones_own_limit(gateway: Gateway) -> None:
    key, key_id = await gateway.new_key()
    await gateway.sql('UPDATE "Users" SET "requestsPerMinute" = 1 WHERE id = $1', key_id)
    await gateway.configuration_is_live()
    assert (await gateway.client.chat(key, "demo/echo")).status == 200
    assert (await gateway.client.chat(key, "demo/echo")).refusal == (429, "rate_limit_exceeded")


async def test_a_stream_that_is_cut(gateway: Gateway) -> None:
    key, _ = await gateway.new_key()
    async with gateway.client.stream(key, "demo/cut", "one two three four five") as stream:
        events = await stream.events()
    assert "error" in json.loads(events[-1]) and "[DONE]" not in events


async def test_a_request_says_how_it_wants_to_fail(gateway: Gateway) -> None:
    key, _ = await gateway.new_key()
    refused = await gateway.client.chat(key, "demo/echo", demo={"status": 503})
    assert refused.status == 503
    async with gateway.client.stream(key, "demo/echo", "one two three", demo={"error_after": 2}) as stream:
        events = await stream.events()
    assert "error" in json.loads(events[-1])
