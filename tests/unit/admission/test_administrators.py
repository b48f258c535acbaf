"""Who may use the admin surface: the decision that both planes share."""

import pytest

from tollway.admission.administrators import judge
from tollway.domain.keys import Secret

ADMIN = Secret("admin-key-of-this-test")


def verdict(
    headers: dict[str, str], minor: int = 1, admin_key: Secret | None = None, host: str = "127.0.0.1"
) -> tuple[int, str] | None:
    encoded = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
    refusal = judge(encoded, minor, admin_key=admin_key, host=host)
    if refusal is None:
        return None
    assert refusal.status == 401 or "ADMIN_KEY" in refusal.message
    return refusal.status, refusal.code


@pytest.mark.parametrize("host", ["localhost:3000", "127.0.0.1:3000", "LOCALHOST", "[::1]:3000", "127.8.8.8", "[::1]"])
def test_without_an_admin_key_this_machine_may_do_everything(host: str) -> None:
    assert verdict({"host": host}) is None


def test_the_configured_host_is_ours_however_it_is_written() -> None:
    assert verdict({"host": "gateway.internal:3000"}, host="gateway.internal") is None
    assert verdict({"host": "Gateway.Internal"}, host="gateway.internal") is None
    assert verdict({"host": "gateway.internal"}, host="Gateway.Internal") is None


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.", "0.0.0.0", "[::2]", "10.0.0.1"]
)
def test_a_strangers_host_is_refused(host: str) -> None:
    assert verdict({"host": host}) == (403, "host_not_allowed")
    assert verdict({}) == (403, "host_not_allowed")


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:3000", ""])
def test_web_pages_are_refused(origin: str) -> None:
    assert verdict({"host": "localhost", "origin": origin}) == (403, "origin_not_allowed")


SIGNS = """
    forwarded via x-forwarded-for x-forwarded-host x-forwarded-proto x-forwarded-port x-forwarded-server
    x-forwarded-prefix x-forwarded-ssl x-forwarded-scheme x-forwarded-client-cert x-forwarded x-forwardedfor
    x-real-ip x-real-port cf-connecting-ip cf-connecting-ipv6 cf-ray cf-visitor true-client-ip x-client-ip
    x-cluster-client-ip x-original-forwarded-for x-original-url x-original-host x-original-proto fly-client-ip
    fly-forwarded-port fastly-client-ip x-envoy-external-address x-envoy-expected-rq-timeout-ms x-azure-clientip
    x-amzn-trace-id x-amz-cf-id x-cloud-trace-context x-appengine-user-ip x-arr-ssl client-ip proxy-connection
    cdn-loop tailscale-user-login x-vercel-forwarded-for x-rewrite-url front-end-https x-remote-addr
"""


@pytest.mark.parametrize("name", SIGNS.split())
def test_what_came_through_a_proxy_is_not_local_whatever_it_says(name: str) -> None:
    for value in ("127.0.0.1", "", "unknown"):
        assert verdict({"host": "localhost:3000", name: value}) == (403, "admin_key_required"), value
    refusal = judge({b"host": b"localhost", name.encode(): b"x"}, 1, admin_key=None, host="127.0.0.1")
    assert refusal is not None and f"'{name}'" in refusal.message, "an operator sees what gave it away"


def test_http_1_0_is_spoken_by_proxies_only() -> None:
    assert verdict({"host": "localhost:3000"}, minor=0) == (403, "admin_key_required")


LOCAL = """
    user-agent accept accept-encoding content-type connection x-request-id traceparent b3 x-b3-traceid postman-token
    x-prometheus-scrape-timeout-seconds sec-fetch-site sec-ch-ua cache-control pragma te upgrade-insecure-requests
    x-stainless-lang idempotency-key x-requested-with expect cookie referer forward x-forward
"""


@pytest.mark.parametrize("name", LOCAL.split())
def test_what_local_programs_send_is_taken(name: str) -> None:
    assert verdict({"host": "localhost:3000", name: "x"}) is None


@pytest.mark.parametrize("authorization", ["Bearer {}", "bearer {}", "Bearer  {} "])
def test_the_admin_key_opens_everything_from_anywhere(authorization: str) -> None:
    headers = {"host": "gateway.example", "origin": "http://console.example", "x-forwarded-for": "203.0.113.9"}
    headers["authorization"] = authorization.format(ADMIN.reveal())
    assert verdict(headers, admin_key=ADMIN) is None
    assert verdict(headers, minor=0, admin_key=ADMIN) is None


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer ", "{}", "Basic {}", "Bearer {}x", "Bearer x{}", "Bearer \xff", "Bearer {} {}"],
)
def test_with_an_admin_key_nothing_else_opens_anything(authorization: str) -> None:
    key = ADMIN.reveal()
    headers = {"host": "localhost", "authorization": authorization.replace("{}", key)}
    assert verdict(headers, admin_key=ADMIN) == (401, "invalid_api_key")
    for name in ("x-api-key", "api-key", "x-goog-api-key", "proxy-authorization", "cookie"):
        assert verdict({"host": "localhost", name: key}, admin_key=ADMIN) == (401, "invalid_api_key")
