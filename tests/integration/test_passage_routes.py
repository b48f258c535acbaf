"""One admission for everything: every path that is served asks for a key, counts and is entered in the ledger.

The walk is over the tables themselves, so a new path is judged here without anybody thinking of it. What needs no key
stands in EXEMPT, and nowhere else.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pytest

from fakes.client import Reply
from fakes.gateway import Tenant
from fakes.upstream import Part, Received, embeddings_reply, openai_reply, reply
from tollway.dataplane.routes import ROUTES
from tollway.wire.paths import RULES, ModelIn

EXEMPT = {
    "/health/liveness",
    "/health/readiness",
    "/livez",
    "/readyz",
    "/metrics",  # these three have an admission of their own (test_control_plane.py)
    "/api/generate-virtual-key",
    "/api/save-keys",
}

_PARAMETER = re.compile(r"\{\w+\}")
_BOUNDARY = "edge"


class Served(NamedTuple):
    """One method of one path."""

    method: str
    path: str
    operation: str
    """As the ledger names it; empty for what the gateway itself answers."""
    names_model: bool
    form: bool = False
    own_key: bool = False

    def body(self, model: str | None) -> tuple[object, dict[str, str]]:
        """A body that is good for this path, and its header."""
        if self.method != "POST":
            return b"", {}
        if self.form:
            named = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="model"\r\n\r\n{model}\r\n' if model else ""
            form = named + f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="n"\r\n\r\n1\r\n--{_BOUNDARY}--\r\n'
            return form.encode(), {"content-type": f"multipart/form-data; boundary={_BOUNDARY}"}
        body = {"messages": [{"role": "user", "content": "1"}], "input": "1", "prompt": "1"}
        return body | ({"model": model} if model and self.names_model else {}), {}


def served() -> Iterator[Served]:
    for name, methods in ROUTES.items():
        path = name.decode()
        if path in EXEMPT:
            continue
        for method in methods:
            operation = path.removeprefix("/v1").removeprefix("/") if method == b"POST" else ""
            yield Served(method.decode(), path, operation, method == b"POST")
    for method, rule in RULES:
        for prefix in ("/v1", ""):
            yield Served(
                method.decode(),
                prefix + _PARAMETER.sub("some-id", rule.template),
                rule.template.removeprefix("/"),
                rule.model in (ModelIn.JSON, ModelIn.FORM),
                rule.model is ModelIn.FORM,
                rule.needs_own_key,
            )


ALL = list(served())
NAMING = [one for one in ALL if one.names_model]


async def call(tenant: Tenant, one: Served, model: str | None, key: str | None) -> Reply:
    body, headers = one.body(model)
    return await tenant.client.call(one.method, one.path, body, key, headers)


async def others_than(
    expected: tuple[int, str | None, str | None], tenant: Tenant, calls: Iterable[Served], model: str | None = None
) -> dict[str, tuple[int, str | None, str | None]]:
    """Which of these were refused in another way than by this status, code and ``param``, and how."""
    found = {}
    for one in calls:
        answer = await call(tenant, one, model, tenant.key)
        told = (answer.status, answer.error["code"], answer.error["param"])
        assert answer.header("x-request-id")
        if told != expected:
            found[f"{one.method} {one.path}"] = told
    return found


@pytest.fixture(autouse=True)
def _nothing_gets_through(request: pytest.FixtureRequest, tenant: Tenant) -> Iterator[None]:
    """Of a call that is refused no provider hears, but for the one test of calls that are not."""
    strangers = len(tenant.gateway.openai.strangers) + len(tenant.gateway.mistral.strangers)
    yield
    if "admitted" not in request.node.name:
        assert not tenant.openai.requests and not tenant.mistral.requests
    assert len(tenant.gateway.openai.strangers) + len(tenant.gateway.mistral.strangers) == strangers


def test_the_walk_is_long() -> None:
    assert {path.decode() for path in ROUTES} >= EXEMPT
    assert len(ALL) > 400 and len(NAMING) > 40


@pytest.mark.parametrize("key", [None, "sk-unknown"])
async def test_nothing_is_served_without_a_key(tenant: Tenant, key: str | None) -> None:
    open_to_all = {}
    for one in ALL:
        answer = await call(tenant, one, tenant.model, key)
        if answer.refusal != (401, "invalid_api_key"):
            open_to_all[f"{one.method} {one.path}"] = answer.refusal
    assert not open_to_all


async def test_a_key_that_may_send_no_request_may_send_none_anywhere(tenant: Tenant) -> None:
    await tenant.limit(requests=0)
    for one in ALL:
        answer = await call(tenant, one, tenant.model, tenant.key)
        assert answer.refusal == (429, "rate_limit_exceeded"), one
        assert (answer.header("x-should-retry"), answer.header("retry-after")) == ("false", None), one


async def test_a_model_that_is_not_on_the_list_is_refused_wherever_it_is_named(tenant: Tenant) -> None:
    await allow_only(tenant, tenant.model)
    assert not await others_than((403, "model_not_allowed", "model"), tenant, NAMING, tenant.pair)
    answer = await tenant.client.get(f"/v1/models/{tenant.pair}", tenant.key)
    assert answer.refusal == (403, "model_not_allowed")


async def test_a_key_with_a_list_has_to_name_a_model_wherever_one_runs(tenant: Tenant) -> None:
    await allow_only(tenant, tenant.model)
    assert not await others_than((400, "missing_required_parameter", "model"), tenant, NAMING)


async def test_what_is_stored_at_a_provider_is_only_for_a_provider_key_of_ones_own(tenant: Tenant) -> None:
    await tenant.gateway.save_keys(tenant.key, openaiKey="")
    await tenant.gateway.configuration_is_live()
    stored = [one for one in ALL if one.own_key]
    assert not await others_than((403, "provider_key_required", None), tenant, stored, tenant.model)


async def allow_only(tenant: Tenant, *models: str) -> None:
    sql = "UPDATE tollway.virtual_keys SET allowed_models = $2 WHERE id = $1"
    await tenant.gateway.sql(sql, tenant.key_id, list(models))
    await tenant.gateway.configuration_is_live()


def answer_to_any(request: Received) -> Iterable[Part]:
    """What the adapters can read, and for all that passes as it is an object."""
    completion = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "choices": []}
    choice = {"index": 0, "text": "2", "logprobs": None, "finish_reason": "stop"}
    adapted = {
        "/v1/chat/completions": openai_reply(),
        "/v1/embeddings": embeddings_reply(),
        "/v1/completions": reply(200, {**completion, "choices": [choice]}),
        "/v1/moderations": reply(200, {"id": "modr-1", "model": "m", "results": [{"flagged": False}]}),
    }
    answer = adapted.get(request.path) if request.method == "POST" else None
    return (answer or reply(200, {"object": "thing"}))(request)


async def test_what_is_admitted_is_counted_once_and_entered_once(tenant: Tenant) -> None:
    tenant.openai.answers(answer_to_any)
    await tenant.limit(requests=100_000, tokens=None)
    ids = set()
    for number, one in enumerate(ALL, 1):
        answer = await call(tenant, one, tenant.model, tenant.key)
        assert answer.status == 200, (one, answer)
        assert answer.header("x-ratelimit-remaining-requests") == str(100_000 - number), one
        ids.add(answer.header("x-request-id"))
    assert len(ids - {None}) == len(ALL)
    entered = [one for one in ALL if one.operation]
    rows = await tenant.ledger(len(entered))
    assert Counter(row["operation"] for row in rows) == Counter(one.operation for one in entered)
    assert {(row["outcome"], row["attempt"]) for row in rows} == {("ok", 1)}
    assert {row["call_id"] for row in rows} < ids
    assert len(tenant.openai.requests) == len(entered)
