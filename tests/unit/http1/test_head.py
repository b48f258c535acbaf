"""Heads: what is accepted, what is understood, what is refused and why."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from tollway.http1.errors import (
    BadFraming,
    BadHead,
    BadResponse,
    ExpectationFailed,
    HeadTooLarge,
    MessageError,
    TargetTooLong,
    UpstreamError,
)
from tollway.http1.head import (
    CHUNKED,
    MAX_HEADERS,
    MAX_TARGET,
    UNTIL_CLOSE,
    RequestHead,
    RequestHeads,
    ResponseHead,
    parse_request_head,
    parse_response_head,
)


def request(
    *lines: bytes, line: bytes = b"POST /v1/chat HTTP/1.1", host: bytes = b"Host: a.example\r\n"
) -> RequestHead:
    return parse_request_head(line + b"\r\n" + host + b"".join(extra + b"\r\n" for extra in lines) + b"\r\n")


def response(*lines: bytes, line: bytes = b"HTTP/1.1 200 OK", method: bytes = b"POST") -> ResponseHead:
    return parse_response_head(line + b"\r\n" + b"".join(extra + b"\r\n" for extra in lines) + b"\r\n", method)


def test_a_request_head_is_understood() -> None:
    head = request(b"Content-Length: 12", b"X-Odd:  \t some value \t", b"Empty:", line=b"POST /a/b%2f?c=d?e HTTP/1.1")
    assert head.method == b"POST"
    assert head.target == b"/a/b%2f?c=d?e"
    assert head.path == b"/a/b%2f"
    assert head.query == b"c=d?e"
    assert head.headers == {
        b"host": b"a.example",
        b"x-odd": b"some value",
        b"empty": b"",
    }
    assert head.framing == 12
    assert head.minor == 1
    assert head.keep_alive
    assert not head.expect_continue


def test_repeated_headers_become_one_list_in_their_order() -> None:
    assert request(b"Accept: a", b"X: 1", b"ACCEPT: b", b"accept: c").headers[b"accept"] == b"a, b, c"


def test_one_empty_line_before_a_request_is_forgiven() -> None:
    assert request(line=b"\r\nGET / HTTP/1.1").path == b"/"
    with pytest.raises(BadHead):
        request(line=b"\r\n\r\nGET / HTTP/1.1")


@pytest.mark.parametrize(
    ("version", "lines", "kept"),
    [
        (b"1.1", [], True),
        (b"1.1", [b"Connection: close"], False),
        (b"1.1", [b"Connection: keep-alive"], True),
        (b"1.1", [b"Connection: x-thing , CLOSE"], False),
        (b"1.1", [b"Connection: x-thing", b"Connection: close"], False),
        (b"1.0", [], False),
        (b"1.0", [b"Connection: Keep-Alive"], True),
        (b"1.0", [b"Connection: keep-alive, close"], False),
    ],
)
def test_whether_the_connection_is_kept(version: bytes, lines: list[bytes], kept: bool) -> None:
    assert request(*lines, line=b"GET / HTTP/" + version).keep_alive is kept
    assert response(*lines, b"Content-Length: 0", line=b"HTTP/" + version + b" 200 OK").keep_alive is kept


def test_an_upgrade_is_an_offer_that_is_not_taken_up() -> None:
    head = request(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"Content-Length: 3")
    assert head.framing == 3
    assert head.headers[b"upgrade"] == b"h2c"


def test_expect_continue_is_known_and_nothing_else() -> None:
    assert request(b"Expect: 100-Continue").expect_continue
    assert not request(b"Expect: 100-continue", line=b"POST / HTTP/1.0").expect_continue
    with pytest.raises(ExpectationFailed):
        request(b"Expect: a-miracle")


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"PUT", b"PATCH", b"DELETE"])
def test_usual_methods_pass(method: bytes) -> None:
    assert request(line=method + b" /x HTTP/1.1").method == method


def test_options_may_ask_about_everything() -> None:
    assert request(line=b"OPTIONS * HTTP/1.1").path == b"*"
    assert request(line=b"OPTIONS http://a.example HTTP/1.1").path == b"*"


@pytest.mark.parametrize(
    ("target", "host", "path", "query"),
    [
        (b"http://b.example/a/b%2f?c=d?e", b"b.example", b"/a/b%2f", b"c=d?e"),
        (b"HTTPS://b.example:8443/a", b"b.example:8443", b"/a", b""),
        (b"http://[::1]:3000/a", b"[::1]:3000", b"/a", b""),
        (b"http://b.example", b"b.example", b"/", b""),
        (b"http://b.example?c", b"b.example", b"/", b"c"),
        (b"http://b.example//c.example/a", b"b.example", b"//c.example/a", b""),
        (b"http://b.example/http://c.example/", b"b.example", b"/http://c.example/", b""),
    ],
)
def test_a_whole_url_is_its_path_and_its_host_takes_the_place_of_the_header(
    target: bytes, host: bytes, path: bytes, query: bytes
) -> None:
    head = request(b"Content-Length: 3", line=b"POST " + target + b" HTTP/1.1")
    assert (head.headers[b"host"], head.path, head.query) == (host, path, query)
    assert head.target == path + (b"?" + query if query else b"")
    assert head.framing == 3


def test_a_whole_url_stands_for_no_header_that_must_be_there() -> None:
    line = b"GET http://b.example/ HTTP/1.1"
    for host in (b"", b"Host: a b\r\n", b"Host: a\r\nHost: b.example\r\n"):
        with pytest.raises(BadHead):
            request(line=line, host=host)
    assert request(line=b"GET http://b.example/ HTTP/1.0", host=b"").headers == {b"host": b"b.example"}


def test_exactly_the_limit_of_a_whole_url_passes() -> None:
    start = b"GET http://b.example/"
    room = MAX_TARGET - len(start) + len(b"GET ")
    assert request(line=start + b"a" * room + b" HTTP/1.1")
    with pytest.raises(TargetTooLong):
        request(line=start + b"a" * (room + 1) + b" HTTP/1.1")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"GET",
        b"GET /",
        b"GET / HTTP/1.1 ",
        b"GET  / HTTP/1.1",
        b" GET / HTTP/1.1",
        b"\rGET / HTTP/1.1",
        b"\nGET / HTTP/1.1",
        b"\r\n\rGET / HTTP/1.1",
        b"GET\t/\tHTTP/1.1",
        b"GET / HTTP/0.9",
        b"GET / HTTP/1.2",
        b"GET / HTTP/2.0",
        b"GET / http/1.1",
        b"GET / HTTP/1.1\r",
        b"OPTIONS / RTSP/1.0",
        b"SOURCE / ICE/1.0",
        b"PRI * HTTP/2.0",
        b"get / HTTP/1.1",
        b"G\x00T / HTTP/1.1",
        b"BREW / HTTP/1.1",
        b"X" * 100_000 + b" / HTTP/1.1",
        b"GET * HTTP/1.1",
        b"POST * HTTP/1.1",
        b"GET ftp://a.example/a HTTP/1.1",
        b"GET http:/a HTTP/1.1",
        b"GET http:a HTTP/1.1",
        b"GET http:///a HTTP/1.1",
        b"GET http://?a HTTP/1.1",
        b"GET http://u@a.example/ HTTP/1.1",
        b"GET http://u:p@a.example/ HTTP/1.1",
        b"GET http://a.example:x/ HTTP/1.1",
        b"GET http://a.example:123456/ HTTP/1.1",
        b"GET http://[::1/ HTTP/1.1",
        b"GET http://a,b/ HTTP/1.1",
        b"GET http://a.example/a#b HTTP/1.1",
        b"GET http://a.example\\b HTTP/1.1",
        b"CONNECT http://a.example/ HTTP/1.1",
        b"GET //evil.example:80\\@b HTTP/1.1",
        b"GET a HTTP/1.1",
        b"GET ?a HTTP/1.1",
        b"GET /a#b HTTP/1.1",
        b"GET /a\x01 HTTP/1.1",
        b"GET /a\x7f HTTP/1.1",
        b"GET /\xc3\xa4 HTTP/1.1",
        b'GET /" HTTP/1.1',
        b"GET /<> HTTP/1.1",
        b"CONNECT a.example:443 HTTP/1.1",
        b"CONNECT /a HTTP/1.1",
    ],
)
def test_a_bad_request_line_is_refused(line: bytes) -> None:
    with pytest.raises(BadHead):
        request(line=line)


@pytest.mark.parametrize(
    "header",
    [
        b"X: a\rb",
        b"X: a\nY: b",
        b"X: a\n",
        b"X: a\x00b",
        b"X: a\x01b",
        b"X: a\x7fb",
        b"X: a\r\n folded",
        b"X: a\r\n\tfolded",
        b" X: a",
        b"X : a",
        b"X\t: a",
        b"X Y: a",
        b"X\x00: a",
        b"X\xff: a",
        b": a",
        b"X",
        b"(X): a",
    ],
)
def test_a_bad_header_line_is_refused(header: bytes) -> None:
    with pytest.raises(BadHead):
        request(header)
    with pytest.raises(BadHead):
        request(header, b"Last: line")
    with pytest.raises(BadResponse):
        response(header)


@pytest.mark.parametrize(
    "name",
    [
        *(b"Host", b"Authorization", b"X-Api-Key", b"Api-Key", b"X-Goog-Api-Key", b"Origin", b"Cookie"),
        *(b"Content-Type", b"Content-Encoding", b"Expect"),
    ],
)
def test_a_header_that_must_be_single_is_refused_twice_even_if_equal(name: bytes) -> None:
    with pytest.raises(BadHead):
        request(name + b": 100-continue", name.lower() + b": 100-continue", host=b"Host: a\r\n")


@pytest.mark.parametrize("host", [b"a", b"a.example:8080", b"127.0.0.1:3000", b"[::1]:80", b"[fd00::1.2.3.4]"])
def test_a_host_with_or_without_a_port_passes(host: bytes) -> None:
    assert request(host=b"Host: " + host + b"\r\n").headers[b"host"] == host


@pytest.mark.parametrize(
    "host",
    [
        b"",
        b"x/admin?",
        b"a b",
        b"a,b",
        b"u@a",
        b"a:",
        b"a:x",
        b"a:80:80",
        b"a:123456",
        b"[::1",
        b"[g::]",
        b"\xc3\xa4",
        b"a#",
    ],
)
def test_a_host_that_is_none_is_refused(host: bytes) -> None:
    with pytest.raises(BadHead):
        request(host=b"Host: " + host + b"\r\n")


def test_only_http_1_0_may_leave_the_host_out() -> None:
    assert request(host=b"", line=b"GET / HTTP/1.0").minor == 0
    with pytest.raises(BadHead):
        request(host=b"")


def test_a_length_or_chunks_say_where_a_request_ends() -> None:
    assert request().framing == 0
    assert request(b"Content-Length: 0").framing == 0
    assert request(b"Content-Length: 0012").framing == 12
    assert request(b"Transfer-Encoding: Chunked").framing == CHUNKED


SMUGGLING = [
    [b"Content-Length: 5", b"Transfer-Encoding: chunked"],
    [b"Transfer-Encoding: chunked", b"Content-Length: 5"],
    [b"Content-Length: 5", b"Content-Length: 5"],
    [b"Content-Length: 5", b"Content-Length: 6"],
    [b"Content-Length: 5, 5"],
    [b"Content-Length: +5"],
    [b"Content-Length: -5"],
    [b"Content-Length: 0x5"],
    [b"Content-Length: 5_0"],
    [b"Content-Length: 5 0"],
    [b"Content-Length: \xb2"],
    [b"Content-Length:"],
    [b"Content-Length: " + b"9" * 19],
    [b"Content-Length: " + b"9" * 5000],
    [b"Transfer-Encoding: gzip"],
    [b"Transfer-Encoding: gzip, chunked"],
    [b"Transfer-Encoding: chunked, identity"],
    [b"Transfer-Encoding: chunked, chunked"],
    [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
    [b"Transfer-Encoding: xchunked"],
    [b"Transfer-Encoding: chunked;q=1"],
    [b'Transfer-Encoding: "chunked"'],
    [b"Transfer-Encoding: \x0bchunked"],
    [b"Transfer-Encoding:"],
    [b"Transfer-Encoding : chunked"],
    [b"Content-Length : 5"],
    [b"X: y\nContent-Length: 5"],
    [b"X: y\rTransfer-Encoding: chunked"],
]


@pytest.mark.parametrize("lines", SMUGGLING)
def test_framing_that_two_readers_could_read_in_two_ways_is_refused(lines: list[bytes]) -> None:
    with pytest.raises((BadHead, BadFraming)):
        request(*lines)
    with pytest.raises(BadResponse):
        response(*lines)


def test_http_1_0_knows_no_chunks() -> None:
    with pytest.raises(BadFraming):
        request(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0")
    with pytest.raises(BadResponse):
        response(b"Transfer-Encoding: chunked", line=b"HTTP/1.0 200 OK")


@pytest.mark.parametrize("line", [b"a:", b"x-%d: " + b"y" * 60])
@pytest.mark.parametrize("distinct", [True, False])
def test_exactly_the_limit_of_headers_passes(line: bytes, distinct: bool) -> None:
    def lines(count: int) -> list[bytes]:
        return [b"x-%d: " % (n if distinct else 0) + line for n in range(count - 1)]  # and the host

    assert request(*lines(MAX_HEADERS))
    with pytest.raises(HeadTooLarge):
        request(*lines(MAX_HEADERS + 1))


def test_exactly_the_limit_of_the_target_passes() -> None:
    assert request(line=b"GET /" + b"a" * (MAX_TARGET - 1) + b" HTTP/1.1")
    with pytest.raises(TargetTooLong):
        request(line=b"GET /" + b"a" * MAX_TARGET + b" HTTP/1.1")


def test_a_response_head_is_understood() -> None:
    head = response(b"Content-Type: text/plain", b"Content-Length: 7", b"Set-Cookie: a", b"Set-Cookie: b")
    assert head.status == 200
    assert head.headers == {b"content-type": b"text/plain", b"content-length": b"7", b"set-cookie": b"a, b"}
    assert head.framing == 7
    assert head.keep_alive


@pytest.mark.parametrize("line", [b"HTTP/1.1 200", b"HTTP/1.1 200 ", b"HTTP/1.1 200 Sehr gut \xe4"])
def test_a_reason_may_be_anything(line: bytes) -> None:
    assert response(line=line).status == 200


def test_where_a_response_ends() -> None:
    assert response(b"Transfer-Encoding: chunked").framing == CHUNKED
    assert response().framing == UNTIL_CLOSE
    assert not response().keep_alive
    assert not response(b"Connection: keep-alive", line=b"HTTP/1.0 200 OK").keep_alive
    assert response(b"Content-Length: 9", method=b"HEAD").framing == 0
    assert response(method=b"CONNECT").framing == 0
    assert response(b"Content-Length: 9", method=b"CONNECT", line=b"HTTP/1.1 407 No").framing == 9
    for line in (b"HTTP/1.1 100 Continue", b"HTTP/1.1 204 No Content", b"HTTP/1.1 304 Not Modified"):
        assert response(b"Content-Length: 9", line=line).framing == 0


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"HTTP/1.1",
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1 099 No",
        b"HTTP/1.1 600 No",
        b"HTTP/1.1  200 OK",
        b"HTTP/1.1 200 O\rK",
        b"HTTP/1.2 200 OK",
        b"HTTP/2 200 OK",
        b"ICY 200 OK",
        b"HTTP/1.1 101 Switching Protocols",
    ],
)
def test_a_bad_status_line_is_refused(line: bytes) -> None:
    with pytest.raises(BadResponse) as caught:
        response(line=line)
    assert not caught.value.nothing_received


def test_a_response_with_too_many_headers_is_refused() -> None:
    with pytest.raises(BadResponse):
        response(*(b"x-%d: %d" % (n, n) for n in range(MAX_HEADERS + 1)))


PARTS = st.sampled_from(
    b"GET|POST| |/|*| HTTP/1.1|HTTP/1.1 200 OK|\r\n|\r|\n|\t|:|\x00|Host: a|Content-Length: 5"
    b"|Transfer-Encoding: chunked|Connection: upgrade|Upgrade: x|Expect: y".split(b"|")
)


@given(st.lists(PARTS | st.binary(max_size=8)).map(b"".join))
def test_any_bytes_are_a_head_or_a_named_error(junk: bytes) -> None:
    junk = junk.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    for head in (junk, b"GET / HTTP/1.1\r\nHost: a\r\n" + junk):
        try:
            assert parse_request_head(head).framing >= CHUNKED
        except MessageError as error:
            assert error.status in (400, 414, 417, 431)
            assert str(error) == error.reason
    for head in (junk, b"HTTP/1.1 200 OK\r\n" + junk):
        try:
            assert parse_response_head(head).framing >= UNTIL_CLOSE
        except UpstreamError as error:
            assert error.reason


def differing(length: bytes, *lines: bytes) -> bytes:
    """A head whose other lines come before and after its length."""
    first, *last = (line + b"\r\n" for line in lines or (b"Host: a", b"X-Odd: 1"))
    return b"POST /v1/chat HTTP/1.1\r\n" + first + b"Content-Length: " + length + b"\r\n" + b"".join(last) + b"\r\n"


def test_a_head_that_is_known_but_for_its_length_is_not_read_again() -> None:
    heads = RequestHeads()
    first, framing = heads.read(differing(b"5"))
    assert framing == first.framing == 5
    for name in (b"Content-Length", b"content-length"):
        again, framing = heads.read(differing(b"1234").replace(b"Content-Length", name))
        assert again is first
        assert framing == 1234
    assert heads.read(differing(b"0")) == (first, 0)


@pytest.mark.parametrize(
    "other",
    [
        differing(b"5", b"Host: a", b"X-Odd: 2"),
        differing(b"5", b"Host: b", b"X-Odd: 1"),
        differing(b"5", b"X-Odd: 1", b"Host: a"),
        differing(b"5").replace(b"POST", b"PUT"),
        differing(b"5").replace(b"Content-Length: 5\r\n", b""),
    ],
)
def test_a_head_that_differs_in_more_than_its_length_is_read(other: bytes) -> None:
    heads = RequestHeads()
    known, _ = heads.read(differing(b"5"))
    head, framing = heads.read(other)
    expected = parse_request_head(other)
    assert head is not known
    assert (head.headers, head.method, framing) == (expected.headers, expected.method, expected.framing)


@pytest.mark.parametrize(
    "length",
    [
        b"",
        b" ",
        b"+5",
        b"-5",
        b"5 ",
        b"5, 5",
        b"0x5",
        b"\xb2",
        b"9" * 19,
        b"5\r\nContent-Length: 5",
        b"5\r\ncontent-length: 5",
        b"5\nX: y",
        b"5\rX: y",
        b"5\r\n folded",
        b"5\r\nTransfer-Encoding: chunked",
    ],
)
def test_a_known_head_lends_its_good_name_to_no_other(length: bytes) -> None:
    heads = RequestHeads()
    heads.read(differing(b"5"))
    try:
        expected = parse_request_head(differing(length))
    except MessageError as error:
        with pytest.raises(type(error)):
            heads.read(differing(length))
    else:  # white space around a number is none of the number
        assert heads.read(differing(length))[1] == expected.framing


@given(st.lists(PARTS | st.binary(max_size=8)).map(b"".join), st.sampled_from([b"0", b"7", b"9" * 19, b"x", b""]))
def test_a_head_is_read_alike_whether_it_is_known_or_not(junk: bytes, length: bytes) -> None:
    junk = junk.partition(b"\r\n\r\n")[0]
    heads = RequestHeads()
    for digits in (b"5", length):
        head = differing(digits, b"Host: a", *([junk] if junk else []))
        try:
            parsed, framing = heads.read(head)
        except MessageError as error:
            with pytest.raises(type(error)):
                parse_request_head(head)
        else:
            expected = parse_request_head(head)
            assert framing == expected.framing
            assert all(
                getattr(parsed, name) == getattr(expected, name)
                for name in ("method", "target", "minor", "keep_alive", "expect_continue")
            )
            assert parsed.headers.keys() == expected.headers.keys()


def test_only_so_many_heads_are_known() -> None:
    heads = RequestHeads()
    first, _ = heads.read(differing(b"5"))
    large = differing(b"5", b"Host: a", b"X: " + b"y" * 5000)
    assert heads.read(large)[0] is not heads.read(large)[0]
    for n in range(300):
        heads.read(differing(b"5", b"Host: a", b"X: %d" % n))
    assert len(heads._known) < 300
    assert heads.read(differing(b"5"))[0] is not first
