"""Who may use /api and /metrics: judged before a body is read, and closed to what comes through a proxy.

Names begin with the rows of docs/faults.md.
"""

import pytest

from fakes.client import Reply, Wire, request_bytes
from fakes.fixtures import StartGateway
from fakes.gateway import Gateway, new_tenant

ADMIN = "the-admin-key-of-these-tests"
MAKE, SAVE, METRICS = "/api/generate-virtual-key", "/api/save-keys", "/metrics"
ALL = (("POST", MAKE), ("POST", SAVE), ("GET", METRICS))


def announced(method: str, path: str, key: str | None, size: int = 60_000, **headers: str) -> bytes:
    """A request whose body is announced and has not come."""
    own = {"content-length": str(size), "content-type": "application/json", **headers}
    return request_bytes(method, path, b"", key, own)


async def told(gateway: Gateway, request: bytes) -> Reply:
    """The answer to a request whose body never comes: waiting for it would take until the answer's deadline."""
    async with gateway.client.connect() as wire:
        await wire.send(request)
        return await wire.reply()


async def goes_on(wire: Wire, request: bytes) -> bool:
    """Whether the gateway asks for the body."""
    await wire.send(request)
    return await wire.interim_status() == 100


async def test_s8_without_the_key_no_body_is_read(start_gateway: StartGateway) -> None:
    gateway = start_gateway(ADMIN_KEY=ADMIN)
    gateway.secrets.add(ADMIN)
    for method, path in ALL:
        for key in (None, "", "wrong", ADMIN + "x", "sk-tw-" + "0" * 49):
            for more in ({}, {"expect": "100-continue"}):
                refused = await told(gateway, announced(method, path, key, **more))
                assert refused.refusal == (401, "invalid_api_key"), (method, path, key)
                assert refused.header("www-authenticate") == "Bearer"
        for name in ("x-api-key", "api-key", "x-goog-api-key"):
            refused = await told(gateway, announced(method, path, None, **{name: ADMIN}))
            assert refused.refusal == (401, "invalid_api_key"), "the admin surface takes a bearer only"
        async with gateway.client.connect() as wire:
            assert await goes_on(wire, announced(method, path, ADMIN, expect="100-continue")), (method, path)
        too_large = await told(gateway, announced(method, path, ADMIN, 65_537, expect="100-continue"))
        assert too_large.refusal == (413, "request_too_large")


async def test_s8_a_key_may_save_for_itself_and_for_nobody_else(start_gateway: StartGateway) -> None:
    gateway = start_gateway(ADMIN_KEY=ADMIN)
    made = [(await gateway.client.post(MAKE, {}, ADMIN)).json for _ in range(2)]
    (one, other), ids = [key["virtualKey"] for key in made], [key["id"] for key in made]
    gateway.secrets |= {ADMIN, one, other}
    body = {"virtualKey": one, "openaiKey": "sk-of-one"}
    async with gateway.client.connect() as wire:
        assert await goes_on(wire, announced("POST", SAVE, one, expect="100-continue"))
    assert (await gateway.client.post(SAVE, body, one)).status == 200
    assert (await gateway.client.post(SAVE, body, other)).refusal == (401, "invalid_api_key")
    assert (await gateway.client.post(SAVE, body, headers={"x-api-key": one})).refusal == (401, "invalid_api_key")
    assert (await gateway.client.post(SAVE, body, ADMIN)).status == 200
    for method, path in (("POST", MAKE), ("GET", METRICS)):
        assert (await told(gateway, announced(method, path, one))).refusal == (401, "invalid_api_key")
    await gateway.sql("UPDATE tollway.virtual_keys SET expires_at = now() - interval '1 second' WHERE id = $1", ids[0])
    await gateway.sql("UPDATE tollway.virtual_keys SET revoked_at = now() WHERE id = $1", ids[1])
    await gateway.client.post(MAKE, {}, ADMIN)  # whose answer waits until all of this is in force
    assert (await told(gateway, announced("POST", SAVE, one))).refusal == (401, "expired_api_key")
    assert (await told(gateway, announced("POST", SAVE, other))).refusal == (401, "revoked_api_key")


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"host": "evil.example"}, "host_not_allowed"),
        ({"origin": "http://evil.example"}, "origin_not_allowed"),
        ({"origin": "null"}, "origin_not_allowed"),
        ({"x-forwarded-for": "203.0.113.9"}, "admin_key_required"),
        ({"X-Forwarded-For": "127.0.0.1"}, "admin_key_required"),
        ({"x-forwarded-proto": "https"}, "admin_key_required"),
        ({"forwarded": "for=127.0.0.1"}, "admin_key_required"),
        ({"via": "1.1 caddy"}, "admin_key_required"),
        ({"x-real-ip": ""}, "admin_key_required"),
        ({"cf-connecting-ip": "203.0.113.9"}, "admin_key_required"),
        ({"true-client-ip": "203.0.113.9"}, "admin_key_required"),
        ({"x-amzn-trace-id": "Root=1"}, "admin_key_required"),
        ({"host": "gateway.example", "x-forwarded-for": "203.0.113.9"}, "admin_key_required"),
    ],
    ids=repr,
)
async def test_s8_without_an_admin_key_strangers_are_refused_before_their_body(
    gateway: Gateway, headers: dict[str, str], code: str
) -> None:
    before = await gateway.value("SELECT count(*) FROM tollway.virtual_keys")
    for method, path in ALL:
        refused = await told(gateway, announced(method, path, None, **headers))
        assert refused.refusal == (403, code), (method, path)
        assert "ADMIN_KEY" in refused.error["message"]
    assert await gateway.value("SELECT count(*) FROM tollway.virtual_keys") == before


@pytest.mark.parametrize("connection", [b"Connection: close\r\n", b"Connection: keep-alive\r\n", b""])
async def test_s8_what_nginx_sends_by_itself_is_no_local_request(gateway: Gateway, connection: bytes) -> None:
    """``proxy_pass`` alone, before nginx 1.29.7: HTTP/1.0, the Host of the address, and not one header of its own."""
    head = b"POST %b HTTP/1.0\r\nHost: 127.0.0.1:%d\r\n%bContent-Length: 0\r\nUser-Agent: curl/8.5.0\r\n\r\n"
    for path in (MAKE, SAVE):
        refused = await told(gateway, head % (path.encode(), gateway.port, connection))
        assert refused.refusal == (403, "admin_key_required")
    refused = await told(gateway, head.replace(b"POST", b"GET") % (METRICS.encode(), gateway.port, connection))
    assert refused.refusal == (403, "admin_key_required")


async def test_s8_with_an_admin_key_a_proxy_is_welcome(start_gateway: StartGateway) -> None:
    gateway = start_gateway(ADMIN_KEY=ADMIN)
    proxied = {"x-forwarded-for": "203.0.113.9", "host": "gateway.example", "via": "1.1 caddy"}
    made = await gateway.client.post(MAKE, {}, ADMIN, proxied)
    assert made.status == 200
    gateway.secrets |= {ADMIN, made.json["virtualKey"]}
    assert (await gateway.client.call("GET", METRICS, key=ADMIN, headers=proxied)).status == 200


async def test_s8_a_proxy_in_front_of_the_calls_of_models_needs_no_admin_key(gateway: Gateway) -> None:
    tenant = await new_tenant(gateway)
    proxied = {"x-forwarded-for": "203.0.113.9", "host": "gateway.example", "forwarded": "for=1.2.3.4"}
    answer = await gateway.client.call("GET", "/v1/models", key=tenant.key, headers=proxied)
    assert answer.status == 200


async def test_s8_an_open_admin_surface_is_told_in_the_log(gateway: Gateway, start_gateway: StartGateway) -> None:
    assert "set it before anything forwards to this port" in gateway.stderr
    assert "set it before anything forwards to this port" not in start_gateway(ADMIN_KEY=ADMIN).stderr
