"""What counts as the URL of an upstream."""

import pytest

from tollway.http1.origin import Origin


@pytest.mark.parametrize(
    ("url", "origin", "path", "authority"),
    [
        ("https://api.openai.com/v1", Origin("https", "api.openai.com", 443), b"/v1", b"api.openai.com"),
        ("HTTP://Example.COM", Origin("http", "example.com", 80), b"", b"example.com"),
        ("http://h:8080/a/b//", Origin("http", "h", 8080), b"/a/b", b"h:8080"),
        ("https://h:80", Origin("https", "h", 80), b"", b"h:80"),
        ("http://[::1]:9/", Origin("http", "::1", 9), b"", b"[::1]:9"),
        ("https://[2001:DB8::1]", Origin("https", "2001:db8::1", 443), b"", b"[2001:db8::1]"),
    ],
)
def test_a_base_url_is_an_origin_and_a_path(url: str, origin: Origin, path: bytes, authority: bytes) -> None:
    assert Origin.parse(url) == (origin, path)
    assert origin.authority == authority


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h",
        "ftp://h",
        "unix:/tmp/s",
        "http://",
        "http:///v1",
        "http://user@h",
        "http://user:pass@h/",
        "http://h?x",
        "http://h/#x",
        "http://h:0",
        "http://h:65536",
        "http://h:",
        "http://h:1x",
        "http://a b",
        "http://h\r\nX: y",
        "http://h/a\r\nb",
        "http://h\n",
        "http://hé",
        "http://[::1",
        "http://[1.2.3.4]",
        "http://[fe80::1%25eth0]",
        "http://h\\@evil",
    ],
)
def test_anything_else_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"not|port"):
        Origin.parse(url)


def test_a_unix_socket_is_spoken_to_as_localhost() -> None:
    assert Origin.unix("/run/x").authority == b"localhost"
