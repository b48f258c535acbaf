"""The scripted provider and the raw client, each held against a well-known other side."""

import asyncio
import json

import openai
import pytest

from fakes.client import BrokenAnswerError, Client, chat_body, text_of
from fakes.upstream import (
    CLOSE,
    HANG,
    RESET,
    Account,
    Bill,
    Flood,
    Gate,
    Upstream,
    error,
    head,
    mistral_stream,
    openai_reply,
    openai_stream,
    raw,
    reply,
)

MESSAGES = [{"role": "user", "content": "Hello"}]


def sdk(upstream: Upstream, account: Account) -> openai.OpenAI:
    return openai.OpenAI(base_url=upstream.url, api_key=account.secret, max_retries=0)


def test_the_official_client_understands_its_replies() -> None:
    with Upstream() as upstream:
        account = upstream.account().answers(openai_reply("Bonjour", Bill(9, 3)))
        with sdk(upstream, account) as client:
            completion = client.chat.completions.create(model="m", messages=MESSAGES)
        assert completion.choices[0].message.content == "Bonjour"
        assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (9, 3)
        assert account.book == [Bill(9, 3)]
        assert [request.path for request in account.requests] == ["/v1/chat/completions"]


def test_the_official_client_understands_its_streams() -> None:
    with Upstream() as upstream:
        account = upstream.account().answers(openai_stream(["Bon", "jour"]))
        with sdk(upstream, account) as client:
            chunks = list(
                client.chat.completions.create(
                    model="m", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
                )
            )
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Bonjour"
        assert chunks[-1].usage.completion_tokens == 2
        assert account.book == [Bill(7, 2)]


def test_a_stranger_is_refused_and_remembered() -> None:
    with Upstream() as upstream, openai.OpenAI(base_url=upstream.url, api_key="other", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError):
            client.chat.completions.create(model="m", messages=MESSAGES)
        assert len(upstream.strangers) == 1


async def test_answers_come_in_order_and_the_last_one_repeats() -> None:
    with Upstream() as upstream:
        account = upstream.account().answers(error(500), error(429), openai_reply())
        statuses = [(await chat(upstream, account)).status for _ in range(4)]
        assert statuses == [500, 429, 200, 200]


async def test_a_gate_holds_the_answer_until_the_test_opens_it() -> None:
    gate = Gate()
    with Upstream() as upstream:
        account = upstream.account().answers(openai_stream(["Bon", gate, "jour"]))
        async with Client(upstream.port).stream(account.secret, "m") as stream:
            assert await stream.next_text() == "Bon"
            await gate.reached()
            assert account.book == []
            gate.open()
            assert text_of(await stream.chunks()) == "jour"


async def test_a_hang_up_is_noticed_and_what_was_produced_is_billed() -> None:
    with Upstream() as upstream:
        account = upstream.account().answers(mistral_stream(["Bon", HANG]))
        async with Client(upstream.port).stream(account.secret, "m") as stream:
            assert await stream.next_text() == "Bon"
        await account.hang_ups.reaches(1)
        assert account.book == [Bill(7, 1)]


@pytest.mark.parametrize("ending", [RESET, CLOSE])
async def test_a_cut_answer_is_broken_for_the_client(ending: object) -> None:
    with Upstream() as upstream:
        account = upstream.account().answers(raw(head(200, {"content-length": "10"}), b"half", ending))
        with pytest.raises(BrokenAnswerError):
            await chat(upstream, account)
        assert account.hang_ups.value == 0


async def test_more_bytes_than_fit_anywhere_are_sent_under_backpressure() -> None:
    with Upstream() as upstream:
        account = upstream.account()
        account.answers(raw(head(200, {"content-length": str(64 << 20)}), Flood(b"x" * (1 << 20), 64)))
        assert len((await chat(upstream, account)).body) == 64 << 20


async def test_refused_connections_and_a_listener_that_comes_back() -> None:
    with Upstream() as upstream:
        account = upstream.account().answers(openai_reply())
        upstream.stop_listening()
        with pytest.raises(ConnectionRefusedError):
            await chat(upstream, account)
        upstream.listen_again()
        assert (await chat(upstream, account)).status == 200


async def test_one_connection_serves_many_requests_chunked_or_not() -> None:
    with Upstream() as upstream:
        account = upstream.account().answers(reply(200, {"ok": True}))
        body = json.dumps(chat_body("m")).encode()
        first = f"POST /v1/x HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {account.secret}\r\n".encode()
        async with Client(upstream.port).connect() as wire:
            await wire.send(first + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
            assert (await wire.reply()).json == {"ok": True}
            await wire.send(first + b"content-length: %d\r\n\r\n%b" % (len(body), body))
            assert (await wire.reply()).json == {"ok": True}
        assert [request.json for request in account.requests] == [chat_body("m")] * 2
        assert [request.connection for request in account.requests] == [1, 1]


async def test_two_framings_in_one_request_are_reported_as_malformed() -> None:
    upstream = Upstream()
    with pytest.raises(AssertionError), upstream:
        async with Client(upstream.port).connect() as wire:
            await wire.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\ntransfer-encoding: chunked\r\n\r\n")
            assert await wire.is_closed()


async def chat(upstream: Upstream, account: Account):
    return await asyncio.wait_for(Client(upstream.port).chat(account.secret, "m"), 10)
