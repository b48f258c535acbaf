"""Where a provider may be: what can be called is what can be written, and metadata services hide in no spelling."""

import ipaddress
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tollway.http1.origin import Origin
from tollway.routing.addresses import base_url_problem, is_forbidden_address


@pytest.mark.parametrize(
    "url",
    [
        "https://api.openai.com/v1",
        "HTTP://127.0.0.1:9000/v1",
        "http://10.0.0.1",
        "http://[::1]:8080/v1/",
        "http://localhost",
        "http://a_b.internal/x",
        "builtin:demo",
    ],
)
def test_an_address_for_a_provider_is_accepted(url: str) -> None:
    assert base_url_problem(url) is None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.openai.com",
        "ftp://x",
        "https://",
        "https:///v1",
        "https://user:password@x/v1",
        "https://x/v1?key=1",
        "https://x/v1#f",
        "https://x y/",
        "https://x\r\nHost: y/",
        "https://x:99999",
        "https://[::1",
        "https://ex\u00e4mple",
        "http://169.254.169.254/latest",
        "http://[fe80::1]/",
        "http://[fe80::1%25eth0]/",
        "http://[::ffff:169.254.169.254]/",
        "http://[64:ff9b::a9fe:a9fe]/",
        "http://[2002:a9fe:a9fe::]/",
        "http://[fd00:ec2::254]/",
        "http://METADATA.google.internal./",
        "http://2852039166/",
        "http://0xa9fea9fe/",
        "http://0251.0376.0251.0376/",
        "http://169.254.43518/",
        "http://100.100.100.200",
    ],
)
def test_an_address_where_no_provider_may_be_is_refused(url: str) -> None:
    assert base_url_problem(url)


def is_origin(url: str) -> bool:
    try:
        Origin.parse(url)
    except (ValueError, LookupError):
        return False
    return True


@pytest.mark.parametrize(
    "url",
    [
        "https://host.example/openai/{deployment}",
        "https://h/a b",
        "https://h/a|b",
        "https://h/\\",
        'https://h/"',
        "https://h/a%20b/@x;y=(1)!",
        "https://h//a//",
        "https://h:0",
        "https://h:65536",
        "https://h:65535",
        "https://h:",
        "https://h:000080/",
        "https://h:00080/",
        "https://" + "a" * 253,
        "https://" + "a" * 254,
        "https://[::1]",
        "https://[1.2.3.4]",
        "https://[::1.2.3.4]",
        "https://[00001::]",
        "https://[::1]x",
        "https://[v1.a]",
        "https://h\n",
        "https://h\u0660",
        "https://h:\u0661",
        "http\u017f://h",
        "https://.",
        "https://h!",
        "https://*",
        "https://%41",
        "https://@h",
        "https://h\\@evil",
        "https:/h",
        "unix:/tmp/s",
    ],
)
def test_what_may_be_written_is_exactly_what_can_be_called(url: str) -> None:
    assert (base_url_problem(url) is None) == is_origin(url)


PIECES = [
    "http",
    "https",
    "HTTPS",
    ":",
    "/",
    "//",
    "://",
    "h",
    "a.b",
    "_",
    "[",
    "]",
    "[::1]",
    "::",
    "1",
    "443",
    "%2F",
    "@",
]


@given(
    st.one_of(st.text(), st.lists(st.sampled_from([*PIECES, *string.printable])).map("".join)).map("https://h".__add__)
)
@example("https://h/{x}")
def test_no_text_can_be_written_that_cannot_be_called(url: str) -> None:
    assert (base_url_problem(url) is None) == is_origin(url)


@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
def test_no_row_of_pieces_can_be_written_that_cannot_be_called(url: str) -> None:
    problem = base_url_problem(url)
    assert is_origin(url) if problem is None else not is_origin(url) or "IPv4" in problem


@pytest.mark.parametrize(
    "url", ["builtin:", "builtin:Demo", "builtin:demo/..", "builtin:../internal", "builtin:demo\n"]
)
def test_only_a_name_stands_behind_builtin(url: str) -> None:
    assert base_url_problem(url)


def test_loopback_and_private_addresses_are_not_forbidden() -> None:
    allowed = ["127.0.0.1", "10.1.2.3", "192.168.0.1", "::1", "fd00::1", "8.8.8.8", "::ffff:10.0.0.1"]
    assert not [text for text in allowed if is_forbidden_address(ipaddress.ip_address(text))]
