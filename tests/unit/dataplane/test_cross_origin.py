"""What web pages of other origins are told."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tollway
from tollway.dataplane.cross_origin import MAX_AGE_S, MAX_ASKED_BYTES, CrossOrigin, preflight_lines

LISTED = CrossOrigin(("https://a.example", "http://localhost:5173"))
ANY = CrossOrigin(("*",))


def told(lines: bytes) -> dict[bytes, bytes]:
    """Header lines by name; each name once, each line whole."""
    found: dict[bytes, bytes] = {}
    for line in lines.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b": ")
        assert name and value and name not in found
        found[name] = value
    assert not lines or lines.endswith(b"\r\n")
    return found


def test_an_origin_of_the_list_is_said_back_and_no_other() -> None:
    for origin in (b"https://a.example", b"http://localhost:5173"):
        assert told(LISTED.lines(origin))[b"access-control-allow-origin"] == origin
        assert LISTED.allows(origin)


@pytest.mark.parametrize(
    "origin",
    [
        *(b"http://a.example", b"https://a.example:8443", b"https://a.example.evil.example", b"https://b.a.example"),
        *(b"https://A.example", b"https://a.example/", b"null", b"*", b"", b"https://a.example, https://a.example"),
    ],
)
def test_another_origin_is_told_nothing_but_that_origins_differ(origin: bytes) -> None:
    assert told(LISTED.lines(origin)) == {b"vary": b"Origin"}
    assert not LISTED.allows(origin)


@pytest.mark.parametrize("origin", [b"https://a.example", b"null", b"app://x", b"*"])
def test_where_all_are_allowed_no_origin_is_said_back(origin: bytes) -> None:
    assert told(ANY.lines(origin))[b"access-control-allow-origin"] == b"*"
    assert ANY.allows(origin)


def test_nobody_is_asked_for_cookies() -> None:
    lines = ANY.lines(b"x") + LISTED.lines(b"https://a.example") + preflight_lines([b"GET"], b"a", private_network=True)
    assert b"credentials" not in lines


def test_every_header_of_our_own_may_be_read() -> None:
    exposed = {name.strip() for name in told(ANY.lines(b"x"))[b"access-control-expose-headers"].decode().split(",")}
    said = set()
    for path in Path(tollway.__file__).parent.rglob("*.py"):
        for name in re.findall(r"(?:\\n|%b|\")((?:x-|retry-after)[a-z-]*(?:%b)?): ", path.read_text(encoding="utf-8")):
            said |= {name.replace("%b", of) for of in ("requests", "tokens")}
    said -= {"x-accel-buffering", "x-tollway-key-id"}  # for proxies, and for the control plane
    assert {"x-request-id", "x-tollway-cost", "retry-after-ms", "x-ratelimit-limit-requests", "x-should-retry"} <= said
    assert said <= exposed, "new headers belong into the list"


def test_a_preflight_is_told_what_it_asks_for() -> None:
    asked = b"authorization,content-type,x-stainless-lang , X-Api-Key"
    lines = told(preflight_lines([b"GET", b"HEAD"], asked, private_network=False))
    assert lines == {
        b"access-control-allow-methods": b"GET, HEAD",
        b"access-control-allow-headers": b"authorization, content-type, x-stainless-lang, X-Api-Key",
        b"access-control-max-age": b"%d" % MAX_AGE_S,
    }


def test_what_is_no_name_of_a_header_is_not_said_back() -> None:
    asked = b'a, b c, , x\xff, "q", <script>, (d), e:f, ok'
    assert told(preflight_lines([b"GET"], asked, private_network=False))[b"access-control-allow-headers"] == b"a, ok"
    assert b"access-control-allow-headers" not in told(preflight_lines([b"GET"], b" , ", private_network=False))


def test_only_so_much_is_said_back() -> None:
    lines = preflight_lines([b"GET"], b",".join(b"x-%d" % n for n in range(20_000)), private_network=False)
    assert len(lines) < 2 * MAX_ASKED_BYTES


def test_a_page_of_the_internet_may_call_a_gateway_at_home_if_it_asks() -> None:
    assert (
        told(preflight_lines([b"GET"], b"", private_network=True))[b"access-control-allow-private-network"] == b"true"
    )
    assert b"private" not in preflight_lines([b"GET"], b"", private_network=False)


@given(st.binary(max_size=300))
def test_no_request_can_break_out_of_a_header_line(junk: bytes) -> None:
    for lines in (ANY.lines(junk), LISTED.lines(junk), preflight_lines([b"GET"], junk, private_network=True)):
        assert told(lines)
        assert all(0x20 <= byte < 0x7F or byte in b"\r\n" for byte in lines)


OPEN = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nOrigin: https://a.example\r\n"


@pytest.mark.parametrize(
    ("head", "readable"),
    [
        (OPEN, True),
        (OPEN + b"X: " + b"y" * 70_000, True),
        (b"\r\n" + OPEN, True),
        (OPEN.replace(b"Origin", b"ORIGIN"), True),
        (OPEN.replace(b" /v1", b" http://x/v1"), True),
        (OPEN.replace(b" /v1", b" /api"), False),
        (OPEN.replace(b" /v1", b" /v2"), False),
        (OPEN.replace(b" /v1", b" http://x/api"), False),
        (OPEN.replace(b" /v1", b" http://x/api?http://x/v1"), False),
        (OPEN.replace(b"https://a.example", b"https://b.example"), False),
        (OPEN.replace(b"a.example", b"a.example.b.example"), False),
        (OPEN.replace(b"a.example\r\n", b"a.example b\r\n"), False),
        (OPEN.removesuffix(b".example\r\n"), False),
        (OPEN.replace(b"\r\nOrigin", b"\r\nX-Origin"), False),
        (b"", False),
        (b"GET /v1/mod", False),
    ],
)
def test_also_a_head_that_is_refused_may_be_for_a_page(head: bytes, readable: bool) -> None:
    assert (b"access-control-allow-origin" in told(LISTED.lines_for_refused(head))) is readable
