"""One admission for all: every route of the gateway is walked, and none lets a call through that it must not."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import pytest

from fakes.client import Reply
from fakes.gateway import Gateway, Tenant
from fakes.upstream import Answer, Part, Received, openai_reply, reply
from tollway.dataplane.routes import ROUTES
from tollway.wire.paths import RULES, ModelIn

EXEMPT = {
    *("/health/liveness", "/health/readiness", "/livez", "/readyz"),
    *("/metrics", "/api/generate-virtual-key", "/api/save-keys", "*"),
}
"""Who asks here is no customer: probes and administrators."""


class Route(NamedTuple):
    method: str
    path: str
    """With ``{}`` for a model's name where the path has one."""
    operation: str
    names_model: bool = False
    runs_unnamed: bool = False
    needs_own_key: bool = False
    asks_provider: bool = True


def _own_routes() -> Iterator[Route]:
    for path, methods in ROUTES.items():
        operation = path.decode().removeprefix("/v1").removeprefix("/")
        if path.decode() not in EXEMPT:
            for method in methods:
                names = operation != "models"
                yield Route(method.decode(), path.decode(), operation, names_model=names, asks_provider=names)
    for prefix in ("/v1", ""):
        for method in ("GET", "HEAD"):
            yield Route(method, prefix + "/models/{}", "models", names_model=True, asks_provider=False)


def _relayed_routes() -> Iterator[Route]:
    for method, rule in RULES:
        path = "/v1" + rule.template.replace("{", "a_").replace("}", "")
        elsewhere = rule.model is ModelIn.ELSEWHERE
        operation = rule.template.removeprefix("/")
        for asked in (method, b"HEAD") if method == b"GET" else (method,):
            yield Route(asked.decode(), path, operation, rule.names_model, elsewhere, rule.needs_own_key)


WALK = (*_own_routes(), *_relayed_routes())


def body_of(route: Route, model: str | None) -> Any:
    """One body that is good for every path."""
    if route.method != "POST":
        return b""
    body = {"messages": [{"role": "user", "content": "Hi"}], "input": "Hi", "prompt": "Hi"}
    return body if model is None else {**body, "model": model}


async def walk(gateway: Gateway, key: str | None, routes: list[Route], model: str | None) -> list[tuple[Route, Reply]]:
    """What each route answers, in order."""
    calls = [(route, route.path.format(model or "none"), body_of(route, model)) for route in routes]
    return [(route, await gateway.client.call(route.method, path, body, key)) for route, path, body in calls]


def wrong(answers: list[tuple[Route, Reply]], *refusal: object) -> list[object]:
    """The routes that did not refuse so; of those that were asked for a head alone, only the status shows it."""
    return [
        (route.method, route.path, reply.status, reply.body)
        for route, reply in answers
        if (reply.status != refusal[0] or reply.body if route.method == "HEAD" else reply.refusal != refusal)
    ]


def test_the_walk_is_long_and_leaves_out_only_what_is_exempt() -> None:
    assert len(WALK) > 200
    assert {path.decode() for path in ROUTES} - {route.path for route in WALK} == EXEMPT


@pytest.mark.parametrize("key", [None, "sk-unknown"])
async def test_without_a_key_nothing_is_served(tenant: Tenant, key: str | None) -> None:
    answers = await walk(tenant.gateway, key, list(WALK), tenant.model)
    assert not wrong(answers, 401, "invalid_api_key")
    assert not tenant.openai.requests


async def test_a_key_that_may_do_nothing_does_nothing(tenant: Tenant) -> None:
    await tenant.limit(requests=0)
    answers = await walk(tenant.gateway, tenant.key, list(WALK), tenant.model)
    assert not wrong(answers, 429, "rate_limit_exceeded")
    assert {reply.header("x-should-retry") for _, reply in answers} == {"false"}
    assert {reply.header("retry-after") for _, reply in answers} == {None}
    assert not tenant.openai.requests


async def test_an_allow_list_holds_on_every_path(tenant: Tenant) -> None:
    other = await tenant.add_model()
    sql = "UPDATE tollway.virtual_keys SET allowed_models = $2 WHERE id = $1"
    await tenant.gateway.sql(sql, tenant.key_id, [other])
    await tenant.gateway.configuration_is_live()
    naming = [route for route in WALK if route.names_model]
    assert not wrong(await walk(tenant.gateway, tenant.key, naming, tenant.model), 403, "model_not_allowed")
    in_bodies = [route for route in naming if "{}" not in route.path]
    answers = await walk(tenant.gateway, tenant.key, in_bodies, None)
    assert not wrong(answers, 400, "missing_required_parameter")
    assert {reply.error["param"] for route, reply in answers if route.method != "HEAD"} == {"model"}
    unnamed = [route for route in WALK if route.runs_unnamed]
    assert len(unnamed) > 10
    assert not wrong(await walk(tenant.gateway, tenant.key, unnamed, other), 403, "model_not_allowed")
    assert not tenant.openai.requests


async def test_stored_objects_need_a_provider_key_of_ones_own(tenant: Tenant) -> None:
    await tenant.gateway.save_keys(tenant.key, openaiKey="", mistralKey="")
    routes = [route for route in WALK if route.needs_own_key]
    for model in (tenant.model, None):
        assert not wrong(await walk(tenant.gateway, tenant.key, routes, model), 403, "provider_key_required")
    body = {"model": tenant.model, "input": "x", "previous_response_id": "resp_1"}
    answer = await tenant.post("/v1/responses", body)
    assert answer.refusal == (403, "provider_key_required")
    assert answer.error["param"] == "previous_response_id"
    assert not tenant.openai.requests


def any_answer() -> Answer:
    """An answer that is good for every path."""

    usage = {"prompt_tokens": 1, "total_tokens": 1}
    vector = {"object": "embedding", "index": 0, "embedding": [0.5]}
    choice = {"index": 0, "text": "Hi", "logprobs": None, "finish_reason": "stop"}
    common = reply(200, {"object": "list", "data": [vector], "choices": [choice], "results": [{}], "usage": usage})

    def answer(request: Received) -> Iterable[Part]:
        chat = request.method == "POST" and request.path == "/v1/chat/completions"
        return (openai_reply() if chat else common)(request)

    return answer


async def test_every_call_is_counted_once_and_entered_once(tenant: Tenant) -> None:
    tenant.openai.answers(any_answer())
    await tenant.limit(requests=10_000, tokens=None)
    answers = await walk(tenant.gateway, tenant.key, list(WALK), tenant.model)
    assert [(route, reply.status, reply.body) for route, reply in answers if reply.status != 200] == []
    left = [reply.header("x-ratelimit-remaining-requests") for _, reply in answers]
    assert left == [str(10_000 - number) for number in range(1, len(WALK) + 1)]
    assert len({reply.header("x-request-id") for _, reply in answers}) == len(WALK)
    asking = [route for route in WALK if route.asks_provider]
    entries = await tenant.ledger(len(asking))
    assert sorted(entry["operation"] for entry in entries) == sorted(route.operation for route in asking)
    assert {entry["outcome"] for entry in entries} == {"ok"}
