"""Pages of other origins that call the gateway: the bytes that a browser sends, and what it must be told.

A browser lets a page have an answer only if its head says so: refusals too, or the page cannot know why it failed.
"""

import asyncio
from collections.abc import Callable, Iterator

import pytest

from fakes.client import Reply, Stream, chat_body, request_bytes
from fakes.fixtures import StartGateway
from fakes.gateway import Gateway, StartFailedError, Tenant, new_tenant
from fakes.upstream import error, openai_reply, openai_stream, raw, reply

PAGE = "https://app.example"
OTHER = "https://evil.example"
CHAT = "/v1/chat/completions"
SDK = "authorization,content-type,x-stainless-arch,x-stainless-lang,x-stainless-os,x-stainless-retry-count"


@pytest.fixture(scope="module")
def open_gateway(gateway_factory: Callable[[dict[str, str]], Gateway]) -> Iterator[Gateway]:
    """A gateway that the pages of two origins may call."""
    settings = {"CORS_ALLOW_ORIGINS": f"{PAGE}, http://localhost:5173", "MAX_BODY_BYTES": "65536"}
    running = gateway_factory(settings)
    try:
        running.start()
        yield running
        running.stop()
    finally:
        running.end()


@pytest.fixture
def caller(open_gateway: Gateway) -> Tenant:
    """A customer of that gateway."""
    return asyncio.run(new_tenant(open_gateway))


def preflight(
    gateway: Gateway, path: str, origin: str | None = PAGE, method: str = "POST", asked: str = SDK, **more: str
):
    """What a browser sends before a call that no form could have made."""
    headers = {"access-control-request-method": method, "access-control-request-headers": asked, **more}
    return gateway.client.call("OPTIONS", path, headers={**headers, **({"origin": origin} if origin else {})})


def readable(answer: Reply | Stream, origin: str | None = PAGE) -> bool:
    """Whether a browser lets a page of this origin have the answer."""
    return answer.header("access-control-allow-origin") in (origin, "*")


def access_lines(answer: Reply) -> set[str]:
    return {name for name, _ in answer.headers if name.startswith("access-control")}


def exposed(answer: Reply | Stream) -> set[str]:
    return {name.strip() for name in (answer.header("access-control-expose-headers") or "").split(",")}


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        (CHAT, "GET, HEAD, POST"),
        ("/v1/embeddings", "POST"),
        ("/v1/models", "GET, HEAD"),
        ("/v1/models/org/model:8b", "GET, HEAD"),
        ("/v1/models/gpt-4o", "DELETE, GET, HEAD"),
        ("/v1/responses", "POST"),
        ("/v1/files/file-1", "DELETE, GET, HEAD"),
    ],
)
async def test_a_preflight_needs_no_key_and_allows_what_the_path_takes(
    open_gateway: Gateway, path: str, methods: str
) -> None:
    for origin in (PAGE, "http://localhost:5173"):
        answer = await preflight(open_gateway, path, origin)
        assert (answer.status, answer.body) == (204, b"")
        assert answer.header("access-control-allow-origin") == origin
        assert answer.header("access-control-allow-methods") == methods
        assert answer.header("access-control-allow-headers") == SDK.replace(",", ", ")
        assert int(answer.header("access-control-max-age") or 0) > 0
        assert answer.header("vary") == "Origin"
        assert answer.header("access-control-allow-credentials") is None
        assert answer.header("access-control-allow-private-network") is None
        assert answer.header("x-request-id")


async def test_a_page_of_the_internet_may_ask_for_a_gateway_at_home(open_gateway: Gateway) -> None:
    asked = {"access-control-request-private-network": "true"}
    answer = await preflight(open_gateway, CHAT, **asked)
    assert answer.header("access-control-allow-private-network") == "true"
    assert not access_lines(await preflight(open_gateway, CHAT, OTHER, **asked))


@pytest.mark.parametrize(
    "origin", [OTHER, "null", "http://app.example", "https://app.example.evil.example", PAGE + ":1"]
)
async def test_pages_of_other_origins_are_told_nothing(caller: Tenant, origin: str) -> None:
    refused = await preflight(caller.gateway, CHAT, origin)
    assert refused.refusal == (403, "origin_not_allowed")
    assert not access_lines(refused)
    caller.openai.answers(openai_reply())
    answer = await caller.post(CHAT, chat_body(caller.model), {"origin": origin})
    assert answer.status == 200, "whom a browser hides it from is the browser's affair"
    assert not access_lines(answer)
    assert answer.header("vary") == "Origin"


@pytest.mark.parametrize(
    "path", ["/api/generate-virtual-key", "/api/save-keys", "/metrics", "/livez", "/chat/completions"]
)
async def test_only_paths_below_v1_are_for_pages(open_gateway: Gateway, path: str) -> None:
    refused = await preflight(open_gateway, path)
    assert refused.status == 405
    for method in ("GET", "POST"):
        answer = await open_gateway.client.call(method, path, headers={"origin": PAGE})
        assert not access_lines(answer), (method, path)
        assert answer.status in (200, 401, 403, 405)
    assert not access_lines(refused)


async def test_an_unknown_path_has_no_preflight_but_says_so(open_gateway: Gateway) -> None:
    answer = await preflight(open_gateway, "/v1/nowhere")
    assert answer.refusal == (404, "unknown_url")
    assert readable(answer)


async def test_options_without_an_origin_is_no_preflight(open_gateway: Gateway) -> None:
    answer = await preflight(open_gateway, CHAT, None)
    assert (answer.status, answer.header("allow")) == (405, "GET, HEAD, POST")
    assert not access_lines(answer)


async def test_a_page_reads_answers_and_what_is_said_of_them(caller: Tenant) -> None:
    caller.openai.answers(openai_reply(), openai_stream(["one", "two"]), reply(200, {"data": []}), reply(200, b"sound"))
    await caller.limit(requests=10)
    answer = await caller.post(CHAT, chat_body(caller.model), {"origin": PAGE})
    assert answer.text == "Bonjour"
    assert readable(answer)
    own = {name for name, _ in answer.headers if name.startswith(("x-tollway", "x-ratelimit", "x-request"))}
    assert len(own) > 8
    assert own <= exposed(answer)
    async with caller.client.connect() as wire:
        body = chat_body(caller.model, stream=True)
        await wire.send(request_bytes("POST", CHAT, body, caller.key, {"origin": PAGE}))
        stream = Stream(wire, await wire.head())
        assert readable(stream)
        assert own - {"x-tollway-cost"} <= exposed(stream)
        assert len(await stream.chunks()) >= 2
    for path in ("/v1/models", f"/v1/models/{caller.model}", "/v1/files"):
        for method in ("GET", "HEAD"):
            listed = await caller.client.call(method, path, key=caller.key, headers={"origin": PAGE})
            assert listed.status == 200
            assert readable(listed), (method, path)


async def test_a_page_reads_why_it_failed(caller: Tenant) -> None:
    caller.openai.answers(error(500), error(500), error(400, "Not so."))
    own = {"origin": PAGE}

    async def sent(data: bytes) -> Reply:
        async with caller.client.connect() as wire:
            await wire.send(data)
            return await wire.reply()

    post = caller.client.post
    good = chat_body(caller.model)
    failures = {
        401: await post(CHAT, good, "wrong", own),
        404: await caller.client.call("GET", "/v1/models/none", key=caller.key, headers=own),
        405: await caller.client.call("PATCH", CHAT, key=caller.key, headers=own),
        502: await post(CHAT, good, caller.key, own),
        400: await post(CHAT, good, caller.key, own),
        413: await post(CHAT, b" " * 70_000, caller.key, own),
        415: await post(CHAT, b"\x1f\x8b", caller.key, {**own, "content-encoding": "gzip"}),
        417: await post(CHAT, good, caller.key, {**own, "expect": "a-miracle"}),
        414: await caller.client.call("GET", "/v1/models?" + "a" * 9000, key=caller.key, headers=own),
        431: await sent(request_bytes("POST", CHAT, b"", caller.key, {**own, "x-large": "a" * 70_000})),
    }
    await caller.limit(requests=0)
    failures[429] = await post(CHAT, good, caller.key, own)
    await caller.limit(requests=1, tokens=None)
    caller.openai.answers(openai_reply())
    await post(CHAT, good, caller.key, own)
    late = await post(CHAT, good, caller.key, own)
    assert {status: answer.status for status, answer in failures.items()} == {status: status for status in failures}
    assert [status for status, answer in failures.items() if not readable(answer)] == []
    assert (late.status, readable(late)) == (429, True)
    assert {"retry-after", "retry-after-ms", "x-ratelimit-limit-requests", "x-request-id"} <= exposed(late)
    assert late.header("retry-after")
    for request in (
        request_bytes("POST", CHAT, b"", caller.key, {"origin": OTHER, "x-large": "a" * 70_000}),
        request_bytes("POST", "/api/save-keys", b"", None, {"origin": PAGE, "x-large": "a" * 70_000}),
    ):
        hidden = await sent(request)
        assert (hidden.status, access_lines(hidden)) == (431, set())


async def test_a_star_is_for_all_pages_and_still_not_for_the_admin_surface(start_gateway: StartGateway) -> None:
    gateway = start_gateway(CORS_ALLOW_ORIGINS="*")
    tenant = await new_tenant(gateway)
    tenant.openai.answers(openai_reply())
    for origin in (PAGE, "null", "http://anything.example:81"):
        allowed = await preflight(gateway, CHAT, origin)
        assert (allowed.status, allowed.header("access-control-allow-origin")) == (204, "*")
        answer = await tenant.post(CHAT, chat_body(tenant.model), {"origin": origin})
        assert answer.header("access-control-allow-origin") == "*"
        assert not access_lines(await gateway.client.post("/api/generate-virtual-key", {}, headers={"origin": origin}))
    plain = await tenant.chat()
    assert not access_lines(plain)
    assert plain.header("vary") == "Origin"


async def test_what_a_provider_says_of_origins_is_not_passed_on(caller: Tenant) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nContent-Length: 1\r\n"
    foreign = b"Access-Control-Allow-Origin: https://provider.example\r\nVary: Cookie\r\n\r\nx"
    caller.openai.answers(raw(head + foreign))
    body = {"model": caller.model, "input": "x", "voice": "alloy"}
    answer = await caller.post("/v1/audio/speech", body, {"origin": PAGE})
    assert (answer.header("access-control-allow-origin"), answer.header("vary")) == (PAGE, "Origin")


async def test_origins_that_cannot_be_used_stop_the_start(start_gateway: StartGateway) -> None:
    with pytest.raises(StartFailedError) as failed:
        start_gateway(CORS_ALLOW_ORIGINS="https://app.example/chat")
    assert failed.value.code == 2
    (line,) = [line for line in failed.value.stderr.splitlines() if "CORS_ALLOW_ORIGINS" in line]
    assert "is not an origin" in line
