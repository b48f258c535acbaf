"""Hostile bytes from clients: one meaning or none. Of any of these connections one request at most reaches a provider.

Names begin with the rows of docs/faults.md.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from fakes.client import BrokenAnswerError, Reply, Stream, Wire, chat_body, request_bytes
from fakes.fixtures import StartGateway
from fakes.gateway import Gateway, Tenant, new_tenant
from fakes.upstream import HANG, Gate, openai_reply, openai_stream, reply

MARK = "smuggled"
REFUSED = {400, 405, 413, 414, 417, 431, 501, 505}


def body_for(tenant: Tenant, content: str = "honest") -> bytes:
    return json.dumps(chat_body(tenant.model, content)).encode()


def head_lines(tenant: Tenant, *lines: bytes, first: bytes = b"POST /v1/chat/completions HTTP/1.1") -> bytes:
    own = [b"Host: gateway.test", b"Content-Type: application/json", b"Authorization: Bearer " + tenant.key.encode()]
    return b"\r\n".join([first, *own, *lines]) + b"\r\n\r\n"


def hidden_request(tenant: Tenant) -> bytes:
    """What an attacker would like somebody to take for a request of its own."""
    return request_bytes("POST", "/v1/chat/completions", body_for(tenant, MARK), tenant.key)


async def answers_until_closed(wire: Wire) -> list[Reply]:
    """All answers on this connection; it must be closed by the server."""
    found: list[Reply] = []
    while True:
        try:
            found.append(await wire.reply())
        except BrokenAnswerError:
            return found
        if (found[-1].header("connection") or "").lower() == "close":
            assert await wire.is_closed()
            return found


async def assert_refused_and_closed(tenant: Tenant, request: bytes, statuses: set[int] = REFUSED) -> None:
    """One refusal, then the connection is closed, and the bytes behind the request are nobody's request."""
    tenant.openai.answers(openai_reply())
    async with tenant.client.connect() as wire:
        await wire.send(request + hidden_request(tenant))
        answers = await answers_until_closed(wire)
    assert [answer.status for answer in answers][-1:] and len(answers) == 1
    assert answers[0].status in statuses, answers[0]
    assert answers[0].error["message"]
    assert tenant.openai.requests == []


CHUNKED = b"Transfer-Encoding: chunked"

FRAMINGS = {
    "length and chunked": [b"Content-Length: 5", CHUNKED],
    "chunked and length": [CHUNKED, b"Content-Length: 5"],
    "chunked twice": [CHUNKED, CHUNKED],
    "chunked, chunked": [b"Transfer-Encoding: chunked, chunked"],
    "gzip, chunked": [b"Transfer-Encoding: gzip, chunked"],
    "chunked, identity": [b"Transfer-Encoding: chunked, identity"],
    "identity": [b"Transfer-Encoding: identity"],
    "unknown coding": [b"Transfer-Encoding: xchunked"],
    "quoted coding": [b'Transfer-Encoding: "chunked"'],
    "vertical tab": [b"Transfer-Encoding: \x0bchunked"],
    "space before the colon": [b"Transfer-Encoding : chunked"],
    "space before the colon of a length": [b"Content-Length : 5"],
    "coding on a folded line": [b"Transfer-Encoding:\r\n chunked"],
    "empty coding": [b"Transfer-Encoding:"],
    "two lengths": [b"Content-Length: 5", b"Content-Length: 6"],
    "the same length twice": [b"Content-Length: 5", b"Content-Length: 5"],
    "a list of lengths": [b"Content-Length: 5, 5"],
    "length with plus": [b"Content-Length: +5"],
    "negative length": [b"Content-Length: -1"],
    "hexadecimal length": [b"Content-Length: 0x10"],
    "length with spaces inside": [b"Content-Length: 1 0"],
    "empty length": [b"Content-Length:"],
    "length beyond 64 bits": [b"Content-Length: 99999999999999999999"],
    "length in other digits": ["Content-Length: \u0665".encode()],
    "length with an underscore": [b"Content-Length: 1_0"],
}


@pytest.mark.parametrize("name", FRAMINGS)
async def test_s19_a_request_has_exactly_one_framing(tenant: Tenant, name: str) -> None:
    await assert_refused_and_closed(tenant, head_lines(tenant, *FRAMINGS[name]) + b"0\r\n\r\n")


CHUNKS = {
    "0x prefix": b"0x5\r\nhello\r\n0\r\n\r\n",
    "plus": b"+5\r\nhello\r\n0\r\n\r\n",
    "minus": b"-5\r\nhello\r\n0\r\n\r\n",
    "leading space": b" 5\r\nhello\r\n0\r\n\r\n",
    "LF only": b"5\nhello\n0\n\n",
    "no size": b"\r\nhello\r\n0\r\n\r\n",
    "not a number": b"five\r\nhello\r\n0\r\n\r\n",
    "underscore": b"1_0\r\nhello\r\n0\r\n\r\n",
    "larger than any memory": b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "data longer than its size": b"3\r\nhello\r\n0\r\n\r\n",
    "bare CR after the data": b"5\r\nhello\r0\r\n\r\n",
    "bare LF in an extension": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "endless extension": b"5;" + b"a" * 70_000 + b"\r\nhello\r\n0\r\n\r\n",
    "endless trailers": b"0\r\n" + b"x: y\r\n" * 20_000 + b"\r\n",
    "broken trailer": b"0\r\nno colon here\r\n\r\n",
    "folded trailer": b"0\r\nx: y\r\n z\r\n\r\n",
}


@pytest.mark.parametrize("name", CHUNKS)
async def test_s19_chunks_are_read_strictly(tenant: Tenant, name: str) -> None:
    await assert_refused_and_closed(tenant, head_lines(tenant, CHUNKED) + CHUNKS[name])


HEADS = {
    "bare LF": lambda tenant: head_lines(tenant, b"Content-Length: 0").replace(b"\r\n", b"\n"),
    "one bare LF": lambda tenant: head_lines(tenant, b"X-A: 1\nX-B: 2", b"Content-Length: 0"),
    "bare CR in a value": lambda tenant: head_lines(tenant, b"X-A: 1\rX-B: 2", b"Content-Length: 0"),
    "NUL in a value": lambda tenant: head_lines(tenant, b"X-A: 1\x002", b"Content-Length: 0"),
    "control character in a value": lambda tenant: head_lines(tenant, b"X-A: 1\x012", b"Content-Length: 0"),
    "folded header": lambda tenant: head_lines(tenant, b"X-A: 1\r\n 2", b"Content-Length: 0"),
    "no colon": lambda tenant: head_lines(tenant, b"nonsense", b"Content-Length: 0"),
    "no name": lambda tenant: head_lines(tenant, b": value", b"Content-Length: 0"),
    "space in a name": lambda tenant: head_lines(tenant, b"X A: 1", b"Content-Length: 0"),
    "letters beyond ASCII in a name": lambda tenant: head_lines(tenant, "Ümlaut: 1".encode(), b"Content-Length: 0"),
    "chunked in HTTP/1.0": lambda tenant: (
        head_lines(tenant, CHUNKED, first=b"POST /v1/chat/completions HTTP/1.0") + b"0\r\n\r\n"
    ),
    "HTTP/2 preface": lambda tenant: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": lambda tenant: b"GET /livez\r\n\r\n",
    "another version": lambda tenant: head_lines(tenant, first=b"POST /v1/chat/completions HTTP/3.1"),
    "a long version": lambda tenant: head_lines(tenant, first=b"POST /v1/chat/completions HTTP/1.10"),
    "a small version": lambda tenant: head_lines(tenant, first=b"POST /v1/chat/completions http/1.1"),
    "another protocol": lambda tenant: head_lines(tenant, first=b"OPTIONS rtsp://x RTSP/1.0"),
    "absolute target without a host": lambda tenant: head_lines(tenant, first=b"POST http:///v1/models HTTP/1.1"),
    "absolute target with a user": lambda tenant: head_lines(tenant, first=b"POST http://u@a/v1/models HTTP/1.1"),
    "absolute target of another scheme": lambda tenant: head_lines(tenant, first=b"POST ftp://a/v1/models HTTP/1.1"),
    "absolute target beside no host": lambda tenant: head_lines(
        tenant, b"Content-Length: 0", first=b"POST http://a/v1/chat/completions HTTP/1.1"
    ).replace(b"Host: gateway.test\r\n", b""),
    "everything as target": lambda tenant: head_lines(tenant, first=b"POST * HTTP/1.1"),
    "authority target": lambda tenant: head_lines(tenant, first=b"CONNECT evil:443 HTTP/1.1"),
    "target without a slash": lambda tenant: head_lines(tenant, first=b"POST v1/chat/completions HTTP/1.1"),
    "space in the target": lambda tenant: head_lines(tenant, first=b"POST /v1/chat /completions HTTP/1.1"),
    "tab in the target": lambda tenant: head_lines(tenant, first=b"POST /v1/chat\t/completions HTTP/1.1"),
    "NUL in the target": lambda tenant: head_lines(tenant, first=b"POST /v1/chat\x00 HTTP/1.1"),
    "method of 100,000 letters": lambda tenant: head_lines(tenant, first=b"A" * 100_000 + b" / HTTP/1.1"),
    "no method": lambda tenant: head_lines(tenant, first=b" /v1/chat/completions HTTP/1.1"),
    "a method with brackets": lambda tenant: head_lines(tenant, first=b"P(ST /v1/chat/completions HTTP/1.1"),
    "TLS": lambda tenant: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64 + b"\r\n\r\n",
    "no host": lambda tenant: head_lines(tenant, b"Content-Length: 0").replace(b"Host: gateway.test\r\n", b""),
    "two hosts": lambda tenant: head_lines(tenant, b"Host: other", b"Content-Length: 0"),
    "a path as host": lambda tenant: head_lines(tenant, b"Content-Length: 0").replace(b"gateway.test", b"x/admin?"),
    "a user in the host": lambda tenant: head_lines(tenant, b"Content-Length: 0").replace(b"gateway.test", b"a@b"),
    "one header of 1 MB": lambda tenant: head_lines(tenant, b"X-A: " + b"a" * 1_000_000, b"Content-Length: 0"),
    "100,000 headers": lambda tenant: head_lines(tenant, *[b"X-A: 1"] * 100_000, b"Content-Length: 0"),
    "1,000 small headers": lambda tenant: head_lines(tenant, *[b"X-%d: 1" % n for n in range(1000)]),
}


@pytest.mark.parametrize("name", HEADS)
async def test_s19_s21_a_head_is_well_formed_or_refused(tenant: Tenant, name: str) -> None:
    await assert_refused_and_closed(tenant, HEADS[name](tenant))


async def test_s21_the_largest_head_that_is_allowed_passes(tenant: Tenant) -> None:
    tenant.openai.answers(openai_reply())
    padding = b"X-A: " + b"a" * 60_000
    body = body_for(tenant)
    async with tenant.client.connect() as wire:
        await wire.send(head_lines(tenant, padding, b"Content-Length: %d" % len(body)) + body)
        assert (await wire.reply()).text == "Bonjour"


# S6: one credential


@pytest.mark.parametrize("order", [0, 1])
async def test_s6_two_credentials_are_refused(tenant: Tenant, order: int) -> None:
    both = [b"Authorization: Bearer " + tenant.key.encode(), b"Authorization: Bearer wrong"]
    lines = [b"POST /v1/chat/completions HTTP/1.1", b"Host: x", *(both if order else both[::-1]), b"Content-Length: 0"]
    await assert_refused_and_closed(tenant, b"\r\n".join(lines) + b"\r\n\r\n")


@pytest.mark.parametrize("name", ["x-api-key", "api-key", "x-goog-api-key"])
async def test_s6_the_key_may_come_in_the_header_of_another_api(tenant: Tenant, name: str) -> None:
    tenant.openai.answers(openai_reply(), openai_reply(), reply(200, {"data": []}))
    path, body, own = "/v1/chat/completions", chat_body(tenant.model), {name: tenant.key}
    assert (await tenant.client.post(path, body, headers=own)).text == "Bonjour"
    assert (await tenant.client.post(path, body, tenant.key, own)).text == "Bonjour"
    assert (await tenant.client.call("GET", "/v1/files", headers=own)).status == 200
    for credential, headers in ((tenant.key, {name: "other"}), ("other", own), (None, {name: "other"})):
        answer = await tenant.client.post(path, body, credential, headers)
        assert answer.refusal == (401, "invalid_api_key")
        assert answer.header("www-authenticate") == "Bearer"
    basic = {"authorization": "Basic dXNlcjpwYXNz", **own}
    assert (await tenant.client.post(path, body, headers=basic)).refusal == (401, "invalid_api_key")
    for sent in tenant.openai.requests:
        assert sent.header("authorization") == f"Bearer {tenant.openai.secret}", "the provider's credential is ours"
        assert {known for known, _ in sent.headers}.isdisjoint({"x-api-key", "api-key", "x-goog-api-key"})
        assert tenant.key.encode() not in sent.head + sent.body
    assert len(tenant.openai.requests) == 3


async def test_s6_streams_are_watched_by_their_key_whatever_header_it_came_in(tenant: Tenant) -> None:
    gate, other = Gate(), await new_tenant(tenant.gateway)
    tenant.openai.answers(openai_stream(["one", gate, "two", HANG]))
    other.openai.answers(openai_stream(["one", HANG]))

    @asynccontextmanager
    async def stream(of: Tenant) -> AsyncIterator[Stream]:
        async with of.client.connect() as wire:
            body = chat_body(of.model, stream=True)
            await wire.send(request_bytes("POST", "/v1/chat/completions", body, headers={"x-api-key": of.key}))
            yield Stream(wire, await wire.head())

    revoke = 'DELETE FROM "Users" WHERE id = $1'
    async with stream(tenant) as good, stream(other) as revoked:
        assert [await one.next_text() for one in (good, revoked)] == ["one", "one"]
        await tenant.gateway.sql(revoke, other.key_id)
        assert "revoked_api_key" in (await revoked.events())[-1]
        gate.open()
        assert await good.next_text() == "two", "only the revoked one is cut"
        await tenant.gateway.sql(revoke, tenant.key_id)
        assert "revoked_api_key" in (await good.events())[-1]


async def test_s6_no_other_place_holds_a_key(tenant: Tenant) -> None:
    for name in ("x-api-key", "api-key", "x-authorization", "proxy-authorization", "cookie", "x-goog-api-key"):
        answer = await tenant.client.post(
            "/v1/chat/completions", chat_body(tenant.model), headers={name: f"Bearer {tenant.key}"}
        )
        assert answer.refusal == (401, "invalid_api_key")
        answer = await tenant.client.post(
            "/v1/chat/completions", chat_body(tenant.model), "wrong", {name: f"Bearer {tenant.key}"}
        )
        assert answer.refusal == (401, "invalid_api_key")
    for query in ("api_key", "api-key", "key", "access_token", "x-api-key"):
        answer = await tenant.client.post(f"/v1/chat/completions?{query}={tenant.key}", chat_body(tenant.model))
        assert answer.status == 401
    assert tenant.openai.requests == []


async def test_s6_trailers_never_become_headers(tenant: Tenant) -> None:
    tenant.openai.answers(openai_reply())
    body = body_for(tenant)
    trailer = b"0\r\nAuthorization: Bearer %b\r\nContent-Length: 5\r\nHost: other\r\n\r\n" % tenant.key.encode()
    chunks = b"%x\r\n%b\r\n" % (len(body), body) + trailer
    lines = head_lines(tenant, CHUNKED)
    async with tenant.client.connect() as wire:
        await wire.send(lines.replace(b"Bearer " + tenant.key.encode(), b"Bearer wrong") + chunks)
        assert (await wire.reply()).refusal == (401, "invalid_api_key")
    async with tenant.client.connect() as wire:
        await wire.send(lines + chunks + lines + chunks)
        assert [(await wire.reply()).status for _ in range(2)] == [200, 200]
    for sent in tenant.openai.requests:
        assert sent.header("host") != "other"
        assert sent.header("authorization") == f"Bearer {tenant.openai.secret}"


# S11: where a request goes is decided by its path alone


async def test_s11_nothing_but_the_exact_path_opens_the_admin_surface(start_gateway: StartGateway) -> None:
    gateway: Gateway = start_gateway(ADMIN_KEY="the-admin-key-of-s11")
    before = await gateway.value("SELECT count(*) FROM tollway.virtual_keys")
    paths = [
        "/api/generate-virtual-key",
        "//api/generate-virtual-key",
        "/api//generate-virtual-key",
        "/api/./generate-virtual-key",
        "/x/../api/generate-virtual-key",
        "/v1/..%2fapi/generate-virtual-key",
        "/%61pi/generate-virtual-key",
        "/api/generate-virtual-key/",
        "/api/generate-virtual-key;x",
        "/api%2fgenerate-virtual-key",
        "/api/generate-virtual-key%00",
        "/API/generate-virtual-key",
        "/livez/../api/generate-virtual-key",
        "/api/generate-virtual-key?livez",
        "/api\\generate-virtual-key",
        "/internal/metrics/0",
        "/../../../../etc/passwd",
    ]
    for path in paths:
        answer = await gateway.client.post(path)
        assert answer.status in (400, 401, 404), (path, answer)
    forged = {
        "x-forwarded-for": "127.0.0.1",
        "x-real-ip": "127.0.0.1",
        "forwarded": "for=127.0.0.1",
        "x-original-url": "/livez",
        "x-rewrite-url": "/livez",
        "x-http-method-override": "GET",
        "x-tollway-admin": "true",
        "host": "localhost",
    }
    for name, value in forged.items():
        answer = await gateway.client.post("/api/generate-virtual-key", headers={name: value})
        assert answer.status == 401, name
    for path in ("/metrics", "/metrics/", "//metrics"):
        assert (await gateway.client.get(path)).status in (401, 404)
    assert await gateway.value("SELECT count(*) FROM tollway.virtual_keys") == before


async def test_s8_every_way_into_the_admin_surface_asks_for_the_key(start_gateway: StartGateway) -> None:
    admin = "the-admin-key-of-s8"
    gateway = start_gateway(ADMIN_KEY=admin)
    key = (await gateway.client.post("/api/generate-virtual-key", key=admin)).json["virtualKey"]
    gateway.secrets |= {admin, key}
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        for path in ("/api/generate-virtual-key", "/api/save-keys", "/api/", "/api/keys", "/metrics"):
            for credential in (None, "wrong", key):
                body = {"virtualKey": "x", "openaiKey": "sk-x"} if method == "POST" else b""
                answer = await gateway.client.call(method, path, body, credential)
                assert answer.status in (401, 404, 405), (method, path, answer)


# E19, E20


async def test_e19_a_thousand_pipelined_requests_are_answered_in_order(gateway: Gateway) -> None:
    async with gateway.client.connect() as wire:
        await wire.send(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
        ids = [(await wire.reply("GET")).header("x-request-id") for _ in range(1000)]
    assert len(set(ids)) == 1000


async def test_e19_after_a_bad_request_the_rest_of_the_pipeline_is_nobodys(tenant: Tenant) -> None:
    good = request_bytes("GET", "/livez")
    async with tenant.client.connect() as wire:
        await wire.send(good + good + b"BROKEN\r\n\r\n" + hidden_request(tenant))
        answers = await answers_until_closed(wire)
    assert [answer.status for answer in answers] == [200, 200, 400]
    assert tenant.openai.requests == []


@pytest.mark.parametrize("text", ["a\r\nX-Injected: 1", "a\nb", "a\x00b", "a\x1b[31mb", "a\u2028b", "\ud800", "a\x7f"])
async def test_e20_control_characters_in_a_model_are_refused(tenant: Tenant, text: str) -> None:
    refused = await tenant.post("/v1/chat/completions", chat_body(text))
    assert refused.status == 400
    assert refused.error["param"] in ("model", None)
    assert {name for name, _ in refused.headers}.isdisjoint({"x-injected"})


@pytest.mark.parametrize("text", ["a\r\nX-Injected: 1", "a\x1b[31mb", "é\u2028𝄞", "\ufffd" * 100])
async def test_e20_what_a_client_says_of_itself_stays_in_the_body(tenant: Tenant, text: str) -> None:
    tenant.openai.answers(openai_reply())
    answer = await tenant.chat(user=text)
    assert answer.status == 200
    (sent,) = tenant.openai.requests
    assert sent.json["user"] == text
    assert b"Injected" not in sent.head
    (row,) = await tenant.ledger(1)
    assert row["outcome"] == "ok"


# E10, E11, S22, S23: the body


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "deflate", "gzip, gzip", "x-unknown"])
async def test_e10_s22_a_compressed_body_is_refused(tenant: Tenant, coding: str) -> None:
    refused = await tenant.post("/v1/chat/completions", b"\x1f\x8b\x08\x00" * 10, {"content-encoding": coding})
    assert refused.status == 415
    assert refused.error["message"]
    assert tenant.openai.requests == []


MODEL = "@model@"

DOCUMENTS = {
    "deep nesting": b'{"model":"@model@","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep nesting in an unknown member": b'{"model":"@model@","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "many empty lists": b"[" + b"[]," * 1_000_000 + b"[]]",
    "NaN": b'{"model":"@model@","messages":[{"role":"user","content":"a"}],"temperature":NaN}',
    "a byte order mark": b'\xef\xbb\xbf{"model":"@model@","messages":[{"role":"user","content":"a"}]}',
    "UTF-16": '{"model":"@model@","messages":[{"role":"user","content":"a"}]}'.encode("utf-16"),
    "broken UTF-8": b'{"model":"@model@","messages":[{"role":"user","content":"\xff\xfe"}]}',
    "an overlong letter": b'{"model":"@model@","messages":[{"role":"user","content":"\xc0\xaf"}]}',
    "a number of 5,000 digits": b'{"model":"@model@","messages":[{"role":"user","content":"a"}],"seed":'
    + b"9" * 5000
    + b"}",
    "a comment": b'{"model":"@model@",/* */"messages":[{"role":"user","content":"a"}]}',
    "single quotes": b"{'model':'@model@','messages':[{'role':'user','content':'a'}]}",
    "trailing comma": b'{"model":"@model@","messages":[{"role":"user","content":"a"}],}',
    "two documents": b'{"model":"@model@","messages":[{"role":"user","content":"a"}]}{"model":"@model@"}',
    "a raw control character": b'{"model":"@model@","messages":[{"role":"user","content":"a\x01"}]}',
}


@pytest.mark.parametrize("name", DOCUMENTS)
async def test_e11_s23_a_body_is_strict_json_or_refused(tenant: Tenant, name: str) -> None:
    refused = await tenant.post("/v1/chat/completions", DOCUMENTS[name].replace(b"@model@", tenant.model.encode()))
    assert refused.status == 400
    assert refused.error["type"] == "invalid_request_error"
    assert tenant.openai.requests == []
    assert (await tenant.client.get("/livez")).status == 200


async def test_s23_of_two_members_with_one_name_the_one_that_was_judged_is_sent(tenant: Tenant) -> None:
    tenant.openai.answers(openai_reply())
    edit = "UPDATE tollway.virtual_keys SET allowed_models = ARRAY[$2] WHERE id = $1"
    await tenant.gateway.sql(edit, tenant.key_id, tenant.model)
    await tenant.gateway.configuration_is_live()
    document = '{"model":"%s","messages":[{"role":"user","content":"a"}],"model":"%s"}'
    forbidden = tenant.pair
    for first, second in ((tenant.model, forbidden), (forbidden, tenant.model)):
        await tenant.post("/v1/chat/completions", (document % (first, second)).encode())
    for sent in tenant.openai.requests:
        assert forbidden.encode() not in sent.body
        assert sent.body.count(b'"model"') == 1


@pytest.mark.parametrize("text", ['"\\u0000"', '"\\ud800"', '"\\udc00\\ud800"'])
async def test_b16_text_that_postgresql_refuses_cannot_spoil_the_books(tenant: Tenant, text: str) -> None:
    tenant.openai.answers(openai_reply())
    body = '{"model":"%s","messages":[{"role":"user","content":%s}],"user":%s,"metadata":{"a":%s}}'
    poisoned = await tenant.post("/v1/chat/completions", (body % (tenant.model, text, text, text)).encode())
    assert poisoned.status in (200, 400)
    assert (await tenant.chat()).status == 200
    await tenant.ledger(1 + (poisoned.status == 200))


# E9: bodies that are too large


async def test_e9_a_chunked_body_without_an_end_is_refused_at_the_limit(start_gateway: StartGateway) -> None:
    gateway = start_gateway(MAX_BODY_BYTES="65536")
    key, _ = await gateway.new_key()
    start = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n" % key.encode()
    piece = b"1000\r\n" + b" " * 4096 + b"\r\n"
    async with gateway.client.connect() as wire:
        await wire.send(start + b"Transfer-Encoding: chunked\r\n\r\n")

        async def pour() -> None:
            for _ in range(60):  # four times the limit, and less than the server reads after its answer
                await wire.send(piece)

        pouring = asyncio.create_task(pour())
        assert (await wire.reply()).refusal == (413, "request_too_large")
        pouring.cancel()
        await asyncio.gather(pouring, return_exceptions=True)

    exactly = json.dumps(chat_body("no-such-model")).encode().ljust(65_536)
    assert (await gateway.client.post("/v1/chat/completions", exactly, key)).refusal == (400, "model_not_found")
    assert (await gateway.client.post("/v1/chat/completions", exactly + b" ", key)).status == 413


# E5, E6, S20: slow clients. One test, because each of them takes as long as its deadline.


async def test_e5_e6_s20_slow_clients_are_closed_and_nobody_else_notices(tenant: Tenant) -> None:
    tenant.openai.answers(openai_reply())
    whole = hidden_request(tenant)

    async def until_closed(start: bytes, drip: bytes, every_s: float) -> int:
        """The status it was told, 0 for none."""
        async with tenant.client.connect() as wire:
            await wire.send(start)

            async def go_on() -> None:
                for byte in drip:
                    await asyncio.sleep(every_s)
                    await wire.send(bytes([byte]))

            dripping = asyncio.create_task(go_on())
            try:
                return (await wire.reply()).status
            except BrokenAnswerError:
                return 0
            finally:
                dripping.cancel()
                await asyncio.gather(dripping, return_exceptions=True)

    head_end = whole.index(b"\r\n\r\n") + 4
    slow = asyncio.gather(
        until_closed(b"", b"", 1),
        until_closed(whole[:30], b"", 1),
        until_closed(whole[:30], whole[30:], 0.5),
        until_closed(whole[: head_end + 3], b"", 1),
        until_closed(whole[:head_end], whole[head_end:], 0.5),
        *(until_closed(whole[:30], b"", 1) for _ in range(200)),
    )
    for _ in range(20):
        assert (await tenant.chat()).status == 200
    assert set(await slow) <= {408, 0}
    assert len(tenant.openai.requests) == 20, "none of them became a request"
