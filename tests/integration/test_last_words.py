"""What a client is told when its one provider gives no answer, and how often that provider is asked."""

import time
from email.utils import formatdate

import pytest

from fakes.fixtures import StartGateway
from fakes.gateway import Tenant, new_tenant
from fakes.upstream import (
    LAST_CHUNK,
    STREAM_HEAD,
    Answer,
    error,
    event,
    mistral_reply,
    openai_reply,
    openai_stream,
    raw,
    reply,
)


async def test_a_short_limit_is_waited_out_once(start_gateway: StartGateway) -> None:
    """On a gateway of its own: a target is asked again only within the budget of the whole process."""
    tenant = await new_tenant(start_gateway())
    short = error(429, headers={"retry-after-ms": "400"})
    tenant.openai.answers(short, openai_reply("again"), short, openai_stream(["again"]), short)
    for stream in (False, True):
        began = time.monotonic()
        answer = await tenant.chat(stream=stream)
        assert (answer.status, answer.header("x-tollway-attempts")) == (200, "2")
        assert time.monotonic() - began >= 0.4
    answer = await tenant.chat()
    assert answer.refusal == (429, "rate_limit_exceeded")
    assert (answer.header("retry-after"), answer.header("retry-after-ms")) == ("1", "400")
    assert answer.header("x-should-retry") is None, "a limit that lasts is the client's to wait for"
    assert len(tenant.openai.requests) == 6


async def test_a_long_limit_is_told_at_once(tenant: Tenant) -> None:
    tenant.openai.answers(error(429, headers={"retry-after": "20"}))
    answer = await tenant.chat()
    assert answer.refusal == (429, "rate_limit_exceeded")
    assert (answer.header("retry-after"), answer.header("retry-after-ms")) == ("20", "20000")
    assert len(tenant.openai.requests) == 1


async def test_a_date_to_come_back_at_is_understood_without_the_providers_own_date(tenant: Tenant) -> None:
    tenant.openai.answers(error(429, headers={"retry-after": formatdate(time.time() + 30, usegmt=True)}))
    answer = await tenant.chat()
    assert answer.status == 429
    assert 25 <= int(answer.header("retry-after") or "") <= 31


FIRST_EVENT_IS_AN_ERROR = raw(STREAM_HEAD, event({"error": {"message": "no", "code": "x"}}), LAST_CHUNK)


@pytest.mark.parametrize("answers", [FIRST_EVENT_IS_AN_ERROR, raw(STREAM_HEAD, LAST_CHUNK)], ids=["error", "empty"])
async def test_a_stream_that_begins_badly_is_not_asked_for_twice(tenant: Tenant, answers: Answer) -> None:
    tenant.openai.answers(answers)
    answer = await tenant.chat(stream=True)
    assert answer.status == 502
    assert answer.header("x-should-retry") == "false"
    assert len(tenant.openai.requests) == 1


@pytest.mark.parametrize(
    ("answers", "refusal"),
    [
        (error(409), (409, "upstream_error")),
        (error(500), (502, "upstream_error")),
        (error(503), (503, "upstream_error")),
        (error(520), (502, "upstream_error")),
        (reply(200, "<html>"), (502, "upstream_invalid_response")),
        (error(401), (502, "upstream_auth_error")),
        (error(402), (429, "insufficient_quota")),
        (error(404), (502, "upstream_model_not_found")),
        (error(408), (504, "upstream_timeout")),
        (reply(504, ""), (504, "upstream_timeout")),
        (error(429, code="insufficient_quota"), (429, "insufficient_quota")),
        (error(429, code="credit_balance_exhausted"), (429, "credit_balance_exhausted")),
    ],
)
async def test_after_our_own_attempts_the_sdk_is_to_make_none(
    tenant: Tenant, answers: Answer, refusal: tuple[int, str]
) -> None:
    tenant.openai.answers(answers)
    answer = await tenant.chat()
    assert answer.refusal == refusal
    assert answer.header("x-should-retry") == "false"
    assert answer.header("retry-after") is None


PICTURE = [{"type": "text", "text": "See: "}, {"type": "image_url", "image_url": "https://x.test/a.png"}]


async def test_what_of_an_answer_could_not_be_shown_is_told(tenant: Tenant) -> None:
    tenant.mistral.answers(mistral_reply(content=PICTURE))
    answer = await tenant.chat(tenant.mistral_model, user="somebody")
    assert answer.text == "See: "
    assert answer.header("x-tollway-warnings") == "dropped=user, dropped=image_url"


async def test_what_could_not_be_shown_at_the_start_of_a_stream_is_told(tenant: Tenant) -> None:
    chunk = {"id": "5f", "choices": [{"index": 0, "delta": {"content": PICTURE}, "finish_reason": "stop"}]}
    tenant.mistral.answers(raw(STREAM_HEAD, event(chunk), event("[DONE]"), LAST_CHUNK))
    async with tenant.stream(tenant.mistral_model) as stream:
        await stream.events()
    assert stream.header("x-tollway-warnings") == "dropped=image_url"
