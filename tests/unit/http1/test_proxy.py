"""Proxies: which one, asked how, and what their answers may be."""

import base64
from collections.abc import Mapping

import pytest
from scripted_upstream import POST, Peer, Step, answer, close, read, reset, scripted, send
from test_client import fetch, fresh_client
from test_fuzz_client import Wire

from tollway.http1.errors import ConnectFailed, ConnectTimeout, TlsFailed
from tollway.http1.limits import ClientLimits
from tollway.http1.origin import Origin
from tollway.http1.proxy import Proxies, Proxy, open_tunnel

HTTPS = Origin("https", "api.example.com", 443)
PROXY = Origin("http", "proxy", 3128)


# Which proxy


@pytest.mark.parametrize(
    ("environment", "http", "https"),
    [
        ({}, None, None),
        ({"HTTP_PROXY": "", "HTTPS_PROXY": " "}, None, None),
        ({"HTTPS_PROXY": "http://proxy:3128"}, None, PROXY),
        ({"https_proxy": "http://proxy:3128/", "HTTPS_PROXY": "http://other:1"}, None, PROXY),
        ({"HTTP_PROXY": "proxy:3128"}, PROXY, None),
        ({"HTTPS_PROXY": "https://proxy"}, None, Origin("https", "proxy", 443)),
    ],
)
def test_the_environment_names_the_proxies(
    environment: Mapping[str, str], http: Origin | None, https: Origin | None
) -> None:
    proxies = Proxies.read(environment)
    assert (proxies.http and proxies.http.origin, proxies.https and proxies.https.origin) == (http, https)


def test_user_information_becomes_a_credential_that_is_never_printed() -> None:
    proxy = Proxy.parse("http://us%40er:p%3Ass%0d%0a@proxy:3128")
    encoded = base64.b64encode(b"us@er:p:ss\r\n")
    assert proxy.credential == b"Proxy-Authorization: Basic " + encoded + b"\r\n"
    assert encoded.decode() not in repr(proxy)


@pytest.mark.parametrize("value", ["socks5://proxy:1", "http://proxy/path", "http://u:secret@", "http://secret@a b"])
def test_a_proxy_that_cannot_be_used_names_the_variable_and_no_secret(value: str) -> None:
    with pytest.raises(ValueError, match=r"^HTTPS_PROXY: ") as raised:
        Proxies.read({"HTTPS_PROXY": value})
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("no_proxy", "host", "direct"),
    [
        ("", "api.example.com", False),
        ("*", "api.example.com", True),
        ("example.com", "api.example.com", True),
        (".example.com", "api.example.com", True),
        ("*.example.com", "api.example.com", True),
        ("example.com", "example.com", True),
        (".example.com", "example.com", True),
        ("example.com", "badexample.com", False),
        ("example.com", "example.com.evil", False),
        (" a.test , API.Example.com ", "api.example.com", True),
        ("api.example.com:443", "api.example.com", True),
        ("api.example.com:444", "api.example.com", False),
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.10", False),
        ("::1", "::1", True),
        ("[::1]:443", "::1", True),
        ("[::1]:444", "::1", False),
        (",,", "api.example.com", False),
    ],
)
def test_some_hosts_are_reached_without_a_proxy(no_proxy: str, host: str, direct: bool) -> None:
    proxies = Proxies.read({"HTTPS_PROXY": "proxy:3128", "NO_PROXY": no_proxy})
    assert (proxies.choose(Origin("https", host, 443)) is None) == direct


def test_each_scheme_has_its_own_proxy_and_unix_sockets_have_none() -> None:
    proxies = Proxies.read({"HTTP_PROXY": "a:1", "HTTPS_PROXY": "b:2"})
    chosen = [proxies.choose(origin) for origin in (Origin("http", "h", 1), Origin("https", "h", 1), Origin.unix("/s"))]
    assert [proxy and proxy.origin.host for proxy in chosen] == ["a", "b", None]


# Asked how


async def test_an_http_origin_is_asked_for_by_its_absolute_url() -> None:
    async with scripted([read, send(answer()), read, send(answer(b"again"))]) as upstream:
        proxy = Proxy.parse(f"http://u:p@127.0.0.1:{upstream.origin.port}")
        async with fresh_client(proxies=Proxies(http=proxy)) as client:
            origin = Origin("http", "api.example.com", 8080)
            assert (await fetch(client, origin)).body == b"hi"
            assert (await fetch(client, origin)).body == b"again"
        expected = b"POST http://api.example.com:8080/v1/chat HTTP/1.1\r\nProxy-Authorization: Basic dTpw\r\n"
        assert upstream.requests == [expected + POST.split(b"\r\n", 1)[1]] * 2
        assert upstream.connections == 1


async def asked_for_a_tunnel(*steps: Step, connect_s: float = 5) -> tuple[list[bytes], ConnectFailed]:
    async with scripted([read, *steps]) as upstream:
        proxy = Proxy.parse(f"u:p@127.0.0.1:{upstream.origin.port}")
        limits = ClientLimits(connect_s=connect_s)
        async with fresh_client(proxies=Proxies(https=proxy), limits=limits) as client:
            with pytest.raises((ConnectFailed, ConnectTimeout, TlsFailed)) as raised:
                await fetch(client, HTTPS)
            assert client.open_connections == 0
        await upstream.gone()
    assert "example" not in raised.value.reason
    return upstream.requests, raised.value


async def test_a_tunnel_is_asked_for_with_the_credential_of_the_proxy_and_nothing_else() -> None:
    requests, _ = await asked_for_a_tunnel(close)
    assert requests == [
        b"CONNECT api.example.com:443 HTTP/1.1\r\nHost: api.example.com:443\r\nProxy-Authorization: Basic dTpw\r\n\r\n"
    ]


@pytest.mark.parametrize(
    ("step", "error", "reason"),
    [
        (close, ConnectFailed, "the proxy closed the connection"),
        (reset, ConnectFailed, "the proxy closed the connection"),
        (send(b"HTTP/1.1 407 Auth\r\nContent-Length: 0\r\n\r\n"), ConnectFailed, "credential"),
        (send(b"HTTP/1.1 403 No\r\nContent-Length: 3\r\n\r\nno!"), ConnectFailed, "status 403"),
        (send(b"HTTP/1.1 302 x\r\nLocation: http://x\r\n\r\n"), ConnectFailed, "status 302"),
        (send(b"SSH-2.0-x\r\n\r\n"), ConnectFailed, "does not speak HTTP"),
        (send(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000), ConnectFailed, "too large"),
        (send(b"HTTP/1.1 200 OK\r\n\r\nsurplus"), ConnectFailed, "more than its answer"),
        (send(b"HTTP/1.1 200 OK\r\n\r\n"), ConnectTimeout, "in time"),
        (send(b"HTTP/1.1 2"), ConnectTimeout, "in time"),
    ],
)
async def test_an_answer_of_the_proxy_that_is_no_tunnel_is_an_error(step: Step, error: type, reason: str) -> None:
    _, raised = await asked_for_a_tunnel(step, connect_s=0.2)
    assert type(raised) is error
    assert reason in raised.reason


async def test_a_proxy_that_is_gone_before_it_is_asked_is_an_error() -> None:
    with pytest.raises(ConnectFailed):
        await open_tunnel(Wire(closing=True), HTTPS, Proxy(PROXY))


async def test_a_tunnel_that_ends_before_tls_is_an_error() -> None:
    async def hello(peer: Peer) -> None:
        await peer.reader.readexactly(5)

    _, raised = await asked_for_a_tunnel(send(b"HTTP/1.1 200 OK\r\n\r\n"), hello, close)
    assert type(raised) is TlsFailed


async def test_an_address_that_is_not_allowed_is_not_reached_through_a_proxy_either() -> None:
    async with scripted() as upstream:
        proxy = Proxy.parse(f"127.0.0.1:{upstream.origin.port}")
        policy = lambda address: not address.is_link_local  # noqa: E731
        async with fresh_client(proxies=Proxies(http=proxy, https=proxy), address_policy=policy) as client:
            for host in ("169.254.169.254", "2852039166", "fe80::1"):
                with pytest.raises(ConnectFailed, match="not allowed"):
                    await fetch(client, Origin("http", host, 80))
        assert upstream.connections == 0
