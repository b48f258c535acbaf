"""What ``/metrics`` says of calls: each once, by how it ended, and nothing that a provider or a stranger has said."""

import asyncio
import json

from prometheus_client.parser import text_string_to_metric_families

from fakes.client import chat_body, request_bytes
from fakes.fixtures import StartGateway
from fakes.gateway import Gateway, new_tenant
from fakes.upstream import HANG, Gate, error, event, openai_reply, openai_stream, raw, reply
from tollway.observe.metrics import REFUSALS

Samples = dict[str, dict[tuple[tuple[str, str], ...], float]]


async def samples(gateway: Gateway) -> Samples:
    body = (await gateway.client.get("/metrics")).body.decode()
    found: Samples = {}
    for family in text_string_to_metric_families(body):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def by(found: Samples, family: str, label: str) -> dict[str, float]:
    """The samples of a family above zero, by one label."""
    sums: dict[str, float] = {}
    for labels, value in found[family].items():
        if value:
            sums[dict(labels)[label]] = sums.get(dict(labels)[label], 0) + value
    return sums


async def test_one_family_counts_each_call_once_by_how_it_ended(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    tenant = await new_tenant(gateway)
    other = await new_tenant(gateway)
    gate = Gate()
    failing = event({"error": {"message": "no", "type": "server_error"}})
    tenant.openai.answers(
        *(openai_reply(), openai_reply(), error(400, "bad"), error(500), error(500), error(429)),
        *(openai_stream(["a", gate, failing], finish=None), openai_stream(["a", HANG])),
    )
    assert [(await tenant.chat()).status for _ in range(2)] == [200, 200]
    assert (await tenant.client.get("/v1/models", tenant.key)).status == 200
    assert (await tenant.chat()).status == 400
    assert (await tenant.chat("no-such-model")).status == 400
    assert (await tenant.client.chat("sk-wrong", tenant.model)).status == 401
    assert (await tenant.chat()).status == 502
    assert (await tenant.chat()).refusal == (429, "rate_limit_exceeded")
    async with tenant.stream() as stream:
        await stream.next_text()
        gate.open()
        await stream.events()
    async with tenant.stream() as stream:
        await stream.next_text()
    await tenant.openai.hang_ups.reaches(1)
    other.openai.answers(openai_stream(["a", HANG]))
    async with other.stream() as stream:
        await stream.next_text()
        await gateway.sql("UPDATE tollway.virtual_keys SET revoked_at = now() WHERE id = $1", other.key_id)
        await stream.events()
    await tenant.limit(requests=0)
    assert (await tenant.chat()).refusal == (429, "rate_limit_exceeded")
    await other.ledger(1)
    found = await samples(gateway)
    assert by(found, "tollway_calls_total", "outcome") == {
        "ok": 3,
        "client_error": 2,
        "refused": 2,
        "provider_failed": 3,
        "client_gone": 1,
        "cut": 1,
    }
    assert by(found, "tollway_refusals_total", "code") == {
        "request_refused": 1,
        "model_not_found": 1,
        "invalid_api_key": 1,
        "upstream_error": 1,
        "upstream_rate_limit_exceeded": 1,
        "rate_limit_exceeded": 1,
    }
    assert by(found, "tollway_upstream_attempts_total", "outcome")["rate_limited"] == 1
    ((build, _),) = found["tollway_build_info"].items()
    assert set(dict(build)) == {"version", "python", "schema"}
    assert dict(build)["schema"] == await gateway.value("SELECT version_num FROM tollway.alembic_version")


async def test_a_request_that_cannot_be_read_is_counted_too(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    async with gateway.client.connect() as wire:
        await wire.send(b"NONSENSE\r\n\r\n")
        assert (await wire.reply()).status == 400
    found = await samples(gateway)
    assert by(found, "tollway_calls_total", "outcome") == {"client_error": 1}
    assert by(found, "tollway_refusals_total", "code") == {"invalid_http_request": 1}


async def test_no_word_of_a_provider_and_no_word_of_a_stranger_becomes_a_label(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    tenant = await new_tenant(gateway)
    acme = iter(range(1000))

    def odd(request: object) -> object:
        number = next(acme)
        status = (400, 402, 403, 404, 429, 500, 599)[number % 7]
        body = {"error": {"message": f"acme{number}", "type": f"type_{number}_acme", "code": f"code_{number}_acme"}}
        return reply(status, body)(request)  # type: ignore[arg-type]

    tenant.openai.answers(odd)  # type: ignore[arg-type]
    await asyncio.gather(*(tenant.chat() for _ in range(60)))
    tenant.openai.answers(raw(b"HTTP/1.1 299 Acme\r\ncontent-length: 2\r\n\r\n{}"))
    assert (await tenant.client.get("/v1/files", tenant.key)).status == 299
    async with gateway.client.connect() as wire:
        await wire.send(request_bytes("ACME", "/v1/acme", chat_body("acme"), tenant.key))
        await wire.reply()
    text = json.dumps([[*labels] for family in (await samples(gateway)).values() for labels in family])
    assert "acme" not in text.casefold()
    assert "299" not in text
    found = await samples(gateway)
    assert set(by(found, "tollway_refusals_total", "code")) <= REFUSALS
