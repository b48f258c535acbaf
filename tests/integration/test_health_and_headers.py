"""Health, metrics, and the heads of answers: what is there, and what of a provider's head is not passed on."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fakes.client import chat_body, request_bytes
from fakes.fixtures import StartGateway
from fakes.gateway import Gateway, Tenant
from fakes.upstream import error, head, mistral_reply, openai_reply, raw


@pytest.mark.parametrize("path", ["/health/liveness", "/health/readiness", "/livez", "/readyz"])
async def test_health_needs_no_key(gateway: Gateway, path: str) -> None:
    answer = await gateway.client.get(path)
    assert answer.status == 200
    assert answer.json["status"] == "ok"
    bodiless = await gateway.client.call("HEAD", path)
    assert (bodiless.status, bodiless.body) == (200, b"")


async def metrics(gateway: Gateway) -> dict[str, float]:
    """Every sample by its name and labels, read by Prometheus' own parser."""
    answer = await gateway.client.get("/metrics")
    assert answer.status == 200
    assert (answer.header("content-type") or "").startswith("text/plain")
    return {
        sample.name + repr(sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


def total(samples: dict[str, float], name: str, **labels: str) -> float:
    wanted = [repr(item)[1:-1] for item in labels.items()]
    return sum(
        value
        for sample, value in samples.items()
        if sample.startswith(name + "[") and all(label in sample for label in wanted)
    )


async def test_metrics_count_what_happened(tenant: Tenant) -> None:
    before = await metrics(tenant.gateway)
    tenant.openai.answers(error(500))
    tenant.mistral.answers(mistral_reply())
    for _ in range(3):
        assert (await tenant.chat(tenant.pair)).status == 200
    assert (await tenant.chat("no-such-model")).status == 400
    after = await metrics(tenant.gateway)

    def grown(name: str, **labels: str) -> float:
        return total(after, name, **labels) - total(before, name, **labels)

    assert grown("tollway_requests_total", provider="mistral", status="200") == 3
    assert grown("tollway_upstream_attempts_total", provider="mistral", outcome="ok") == 3
    assert grown("tollway_upstream_attempts_total", provider="openai") == 3
    assert grown("tollway_refusals_total", code="model_not_found") == 1
    assert grown("tollway_tokens_total") == 3 * 12
    assert grown("tollway_cost_usd_total") == pytest.approx(3 * 0.000015, abs=1e-6)
    assert total(after, "tollway_config_revision") > 0


async def test_invented_names_make_no_new_series(tenant: Tenant) -> None:
    await tenant.chat("invented-model-0")
    before = await metrics(tenant.gateway)
    for number in range(20):
        await tenant.chat(f"invented-model-{number}")
        await tenant.client.chat(f"invented-key-{number}", tenant.model)
        await tenant.client.get(f"/invented/{number}")
    after = await metrics(tenant.gateway)
    assert not [name for name in after if "invented" in name]
    assert len(after) - len(before) <= 10, "what is refused has its few series"


async def test_a_providers_head_is_not_passed_on(tenant: Tenant) -> None:
    """Cookies, routing, organisation, other sites' permissions: the client gets our head, and theirs stays out."""

    def answer(request):
        whole = b"".join(openai_reply()(request))
        body = whole.partition(b"\r\n\r\n")[2]
        foreign = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            "set-cookie": "canary=1",
            "access-control-allow-origin": "*",
            "openai-organization": "org-canary",
            "server": "canary",
            "alt-svc": 'h3=":443"',
            "location": "http://canary/",
            "strict-transport-security": "max-age=1",
            "x-tollway-cost": "12345",
            "x-request-id": "req_canary",
            "keep-alive": "timeout=1",
            "connection": "x-canary",
            "x-canary": "1",
        }
        return [head(200, foreign) + body]

    tenant.openai.answers(answer)
    got = await tenant.chat()
    assert got.text == "Bonjour"
    names = {name for name, _ in got.headers}
    assert not names & {
        "set-cookie",
        "access-control-allow-origin",
        "openai-organization",
        "alt-svc",
        "location",
        "strict-transport-security",
        "x-canary",
    }
    assert "canary" not in repr(got.headers)
    assert got.header("x-tollway-cost") == "0.000015"


async def test_the_clients_head_is_not_passed_on_to_the_provider(tenant: Tenant) -> None:
    tenant.openai.answers(openai_reply())
    headers = {
        "cookie": "canary=1",
        "x-api-key": tenant.key,
        "x-forwarded-for": "1.2.3.4",
        "openai-organization": "org-canary",
        "accept-encoding": "gzip, br, zstd",
        "connection": "x-canary",
        "x-canary": "1",
        "te": "trailers",
        "user-agent": "canary",
    }
    await tenant.post("/v1/chat/completions", chat_body(tenant.model), headers)
    (sent,) = tenant.openai.requests
    assert {name for name, _ in sent.headers} <= {
        "host",
        "content-type",
        "content-length",
        "authorization",
        "accept",
        "accept-encoding",
        "user-agent",
        "connection",
    }
    assert sent.header("accept-encoding") in (None, "identity")
    assert "canary" not in sent.head.decode()
    assert tenant.key not in sent.head.decode()


async def test_a_gzipped_answer_nobody_asked_for_is_not_passed_on_as_text(tenant: Tenant) -> None:
    coded = {"content-encoding": "gzip", "content-type": "application/json", "content-length": "4"}
    tenant.openai.answers(raw(head(200, coded), b"\x1f\x8b\x08\x00"))
    assert (await tenant.chat()).status == 502


async def test_a_gzipped_error_keeps_its_status_and_its_wait(tenant: Tenant) -> None:
    coded = {"content-encoding": "gzip", "content-type": "application/json", "content-length": "4", "retry-after": "7"}
    tenant.openai.answers(raw(head(429, coded), b"\x1f\x8b\x08\x00"))
    refused = await tenant.chat()
    assert (refused.status, refused.header("retry-after")) == (429, "7")
    for status, told in ((400, 400), (401, 502)):
        tenant.openai.answers(raw(head(status, coded), b"\x1f\x8b\x08\x00"))
        assert (await tenant.chat()).status == told


async def test_expect_continue_is_answered_before_the_body_comes(tenant: Tenant) -> None:
    tenant.openai.answers(openai_reply("after 100"))
    body = chat_body(tenant.model)
    whole = request_bytes("POST", "/v1/chat/completions", body, tenant.key, {"expect": "100-continue"})
    start, _, content = whole.partition(b"\r\n\r\n")
    async with tenant.client.connect() as wire:
        await wire.send(start + b"\r\n\r\n")
        assert await wire.interim_status() == 100
        await wire.send(content)
        assert (await wire.reply()).text == "after 100"


async def test_expect_continue_is_not_answered_when_the_request_is_refused_by_its_head(tenant: Tenant) -> None:
    whole = request_bytes("POST", "/v1/chat/completions", b"x" * 10, "wrong", {"expect": "100-continue"})
    async with tenant.client.connect() as wire:
        await wire.send(whole[:-10])
        assert (await wire.reply()).status == 401
        assert wire.interim == []


async def test_how_long_a_connection_may_be_idle_is_a_setting(start_gateway: StartGateway) -> None:
    gateway = start_gateway(KEEP_ALIVE_S="1")
    async with gateway.client.connect() as wire:
        await wire.send(request_bytes("GET", "/livez"))
        assert (await wire.reply("GET")).status == 200
        assert await wire.is_closed()


async def test_pipelined_requests_are_answered_in_order(tenant: Tenant) -> None:
    tenant.openai.answers(lambda request: openai_reply(request.json["messages"][0]["content"])(request))
    texts = [f"number {number}" for number in range(20)]
    batch = b"".join(
        request_bytes(
            "POST",
            "/v1/chat/completions",
            chat_body(tenant.model, text),
            tenant.key,
        )
        for text in texts
    )
    async with tenant.client.connect() as wire:
        await wire.send(batch)
        assert [(await wire.reply()).text for _ in texts] == texts


async def test_a_chunked_request_is_as_good_as_one_with_a_length(tenant: Tenant) -> None:
    tenant.openai.answers(openai_reply())
    whole = request_bytes(
        "POST",
        "/v1/chat/completions",
        chat_body(tenant.model),
        tenant.key,
        {"content-length": None, "transfer-encoding": "chunked"},
    )
    start, _, content = whole.partition(b"\r\n\r\n")
    pieces = [content[at : at + 7] for at in range(0, len(content), 7)]
    async with tenant.client.connect() as wire:
        await wire.send(start + b"\r\n\r\n")
        for piece in pieces:
            await wire.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        await wire.send(b"0\r\n\r\n")
        assert (await wire.reply()).text == "Bonjour"
    assert tenant.openai.requests[0].header("transfer-encoding") is None, "the provider gets a length"


async def test_unknown_paths_are_refused_cleanly(gateway: Gateway) -> None:
    for path in ("/", "/v1", "/v1/", "/admin", "/v1/chat/completions/", "/v2/chat/completions", "/internal/metrics/0"):
        answer = await gateway.client.get(path)
        assert (answer.refusal, answer.header("allow")) == ((404, "unknown_url"), None)
