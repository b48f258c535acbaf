"""An error keeps its message whatever shape it has, and nothing that it repeats of the request."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from linear import assert_linear

from cpu_time import cpu_seconds, decoding_seconds
from tollway.providers import problem
from tollway.providers.problem import MAX_BODY, MAX_COMMAS, Problem, is_problem, read_problem, request_id_of
from tollway.wire.json import Raw

NESTED = json.dumps({"error": {"message": "deep", "type": "t", "code": "c"}})

SHAPES = {
    "OpenAI": ({"error": {"message": "m", "type": "t", "param": "p", "code": "c"}}, Problem("m", "t", "c", "p")),
    "a code that is a number": ({"error": {"message": "m", "code": 1300}}, Problem("m", "", "1300")),
    "a text": ({"error": "m"}, Problem("m")),
    "a text, and a kind beside it": ({"error": "m", "error_type": "t"}, Problem("m", "t")),
    "a text, and a code beside it": ({"code": "c", "error": "m"}, Problem("m", "", "c")),
    "bare": ({"object": "error", "message": "m", "type": "t", "code": "c"}, Problem("m", "t", "c")),
    "only a message": ({"message": "m"}, Problem("m")),
    "an error within an error": ({"error": {"error": {"message": "m", "code": "c"}}}, Problem("m", "", "c")),
    "three of them": ({"error": {"error": {"error": "m"}}}, Problem("m")),
    "a message that is an object": ({"error": {"message": {"text": 1, "message": "m"}}}, Problem("m")),
    "a message that holds JSON": ({"error": {"message": NESTED}}, Problem("deep", "t", "c")),
    "a message with words before JSON": (
        {"error": {"message": f"Upstream said: {NESTED}"}},
        Problem("Upstream said: deep", "t", "c"),
    ),
    "a list of texts": ({"error": ["one", "two"]}, Problem("one; two")),
    "a list of errors": ({"errors": [{"code": 7003, "message": "m"}, {"message": "x"}]}, Problem("m", "", "7003")),
    "errors that are texts": ({"errors": ["one", "two"]}, Problem("one; two")),
    "Google's list": ([{"error": {"code": 400, "message": "m", "status": "INVALID_ARGUMENT"}}], None),
    "Google": ({"error": {"code": 400, "message": "m", "status": "INVALID_ARGUMENT"}}, None),
    "Anthropic": (
        {"type": "error", "error": {"type": "overloaded_error", "message": "m"}, "request_id": "req_011CZ6yWqVgL3co5"},
        Problem("m", "overloaded_error", request_id="req_011CZ6yWqVgL3co5"),
    ),
    "Mistral's front door": (
        {"message": "m", "request_id": "0123456789abcdef"},
        Problem("m", request_id="0123456789abcdef"),
    ),
    "FastAPI": ({"detail": "m"}, Problem("m")),
    "FastAPI's object": ({"detail": {"message": "m", "code": "c"}}, Problem("m", "", "c")),
    "validation": (
        {"detail": [{"loc": ["body", "a", 0], "msg": "bad", "input": "X"}]},
        Problem("a[0]: bad", param="a[0]"),
    ),
    "AWS": ({"__type": "ValidationException", "message": "m"}, Problem("m", "ValidationException")),
    "AWS, capital": ({"Message": "m"}, Problem("m")),
    "Azure": ({"statusCode": 429, "message": "m"}, Problem("m", status=429)),
    "Baidu": ({"error_code": 336103, "error_msg": "m"}, Problem("m", "", "336103")),
    "MiniMax": ({"base_resp": {"status_code": 2013, "status_msg": "m"}}, Problem("m", "", "2013")),
    "DashScope": (
        {"code": "Arrearage", "message": "m", "request_id": "ab-cd-12"},
        Problem("m", "", "Arrearage", request_id="ab-cd-12"),
    ),
    "Apigee": ({"fault": {"faultstring": "m", "detail": {"errorcode": "x"}}}, Problem("m")),
    "problem+json": ({"type": "about:blank", "title": "m", "status": 503}, Problem("m", "about:blank", status=503)),
    "OAuth": ({"error": "invalid_token", "error_description": "m"}, Problem("m", "", "invalid_token")),
    "NestJS": ({"statusCode": 400, "error": "Bad Request", "message": "m"}, Problem("Bad Request: m", status=400)),
    "NestJS, a list": ({"error": "Bad Request", "message": ["m", "n"]}, Problem("Bad Request: m; n")),
    "Spring": ({"status": 400, "error": "Bad Request", "detail": "m"}, Problem("Bad Request: m", status=400)),
    "a code as a text, and a message": ({"error": "no_such.model", "msg": "m"}, Problem("m", "", "no_such.model")),
    "twice the same": ({"error": "m", "message": "m, and more"}, Problem("m, and more")),
    "capitals": ({"Error": {"Message": "m", "Code": "c"}}, Problem("m", "", "c")),
    "a short name": ({"err": {"message": "m"}}, Problem("m")),
    "a short name, a text": ({"err": "m"}, Problem("m")),
    "details": ({"error": {"code": "c", "details": "m"}}, Problem("m", "", "c")),
    "info": ({"error": {"info": "m"}}, Problem("m")),
    "a cause": ({"error": {"cause": {"message": "m"}}}, Problem("m")),
    "an inner error": ({"error": {"innererror": {"code": "c", "message": "m"}}}, Problem("m", "", "c")),
    "an inner error that says less": (
        {"error": {"message": "m", "code": "c", "innererror": {"code": "d", "message": "n"}}},
        Problem("m", "", "c"),
    ),
    "a text in a message": ({"error": {"message": {"text": "m"}}}, Problem("m")),
    "a head": ({"header": {"code": 10907, "message": "m", "status": 2}}, Problem("m", "", "10907")),
    "in an envelope": ({"data": {"error": {"message": "m"}}}, Problem("m")),
    "in a result": ({"result": {"error": "m"}}, Problem("m")),
    "in a response": ({"response": {"error": {"message": "m", "code": "c"}}}, Problem("m", "", "c")),
    "by member": ({"errors": {"prompt": ["m", "n"]}, "title": "t"}, Problem("prompt: m; n", param="prompt")),
    "OpenRouter": (
        {
            "error": {
                "message": "Provider returned error",
                "code": 400,
                "metadata": {"raw": NESTED, "provider_name": "x"},
            }
        },
        Problem("Provider returned error: deep", "", "400"),
    ),
    "TGI": ({"error": {"message": "m", "http_status_code": 422}}, Problem("m", status=422)),
    "junk": ({"error": {"message": 3, "code": []}}, Problem()),
    "nothing": ({}, Problem()),
}


@pytest.mark.parametrize(("body", "expected"), SHAPES.values(), ids=SHAPES.keys())
def test_an_error_in_any_shape_keeps_its_message(body: object, expected: Problem | None) -> None:
    expected = expected or Problem("m", "INVALID_ARGUMENT", "400")
    assert read_problem(json.dumps(body).encode(), failed=True)._replace(words="") == expected


@pytest.mark.parametrize(
    ("text", "message", "code", "request_id"),
    [
        ("just  text\n", "just text", "", ""),
        (
            "<html><head><title>t</title></head><body><h1>502</h1> Bad &amp; ugly</body></html>",
            "502 Bad & ugly",
            "",
            "",
        ),
        ("<html><head><title>Just a moment</title></head><body></body></html>", "Just a moment", "", ""),
        ("<script>x<script>y</script >z", "z", "", ""),
        ("<style>never ends", "", "", ""),
        (
            '<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>No &lt;entry&gt;</Message>'
            "<RequestId>4442587FB7D0A2F9</RequestId></Error>",
            "No <entry>",
            "AccessDenied",
            "4442587FB7D0A2F9",
        ),
        ("<e:Error xmlns:e='x'><e:message a='b'>m</e:message></e:Error>", "m", "", ""),
        ('{"error": {"message": "cut off', "cut off", "", ""),
        ('{"error": {"message": "a \\"word\\"", "code": "c", "x": "cu', 'a "word"', "c", ""),
        ('{"error": {"message": "m", "code": "c"}} trailing', "m", "c", ""),
        ("{'error': {'message': \"don't\", 'type': 't', 'code': 400}}", "don't", "400", ""),
        ('{"error": "Bad Request", "message": "m", "x": Non', "Bad Request; m", "", ""),
        ('{"detail": [{"msg": "m", "input": {"message": "CANARY"}, Non', "m", "", ""),
        ('{"error": {"message": "half \\ud83d", "code": "c"}}', "half \ufffd", "c", ""),
        ('{"error": {"message": "m", "retry": NaN, "code": "c"}}', "m", "c", ""),
        ('\ufeff{"error": {"message": "m", "code": "c"}}', "m", "c", ""),
        ("\ufeffm n", "m n", "", ""),
        ('["a", ', "", "", ""),
        ("", "", "", ""),
        ("\xff\x00", "ÿ", "", ""),
    ],
)
def test_pages_and_texts_are_read_without_their_tags(text: str, message: str, code: str, request_id: str) -> None:
    found = read_problem(text.encode(), failed=True)
    assert (found.message, found.code, found.request_id) == (message, code, request_id)


@pytest.mark.parametrize(
    "body",
    [
        {"title": "A poem", "description": "of the sea", "reason": "asked"},
        {"choices": [], "base_resp": {"status_code": 0, "status_msg": "success"}},
        {"status": "ok", "msg": "fine"},
        {"code": 0, "msg": "fine"},
        {"header": {"code": 0, "message": "Success"}},
        {"data": {"error": None, "message": "fine"}},
        {"message": {"text": "Hello"}},
    ],
)
def test_an_object_that_shows_no_failure_says_nothing(body: object) -> None:
    """Some servers send such things among their events."""
    assert read_problem(json.dumps(body).encode()).message == ""
    assert read_problem(json.dumps({**body, "code": 500, "title": "It broke"}).encode()).message


def test_what_was_said_is_there_to_be_sorted_by_and_is_not_shown() -> None:
    found = read_problem(json.dumps({"error": {"message": "at 10.0.0.7: " + "long " * 200, "type": "t"}}).encode())
    assert "10.0.0.7" in found.words and "10.0.0.7" not in found.message
    assert len(found.message) == 500 and len(found.words) > 900


def test_only_so_much_is_read() -> None:
    assert read_problem(b'{"message":"' + b"x" * MAX_BODY + b'"}') == Problem()
    assert read_problem(b'{"message":"m","a":[' + b"0," * MAX_COMMAS + b"0]}") == Problem()
    deep = {"message": "m"}
    for _ in range(50):
        deep = {"error": deep}
    assert read_problem(json.dumps(deep).encode()).message == ""


@pytest.mark.parametrize(
    "body",
    [
        b'{"errors":[' + b"{}," * (MAX_COMMAS - 1) + b"{}]}",
        b'{"detail":[' + b'{"msg":"a"},' * (MAX_COMMAS // 2 - 1) + b'{"msg":"a"}]}',
        b'{"error":' * 10_000,
        b'{"message":"' + b'{\\"message\\":' * 10_000 + b'"}',
        b"[" * 500_000,
        b"{" + b'"message":\'' * 40_000,
        b'{"error": {"message": "' + b"\\ud83d" * 100_000,
        b'{"error":"m","message":[' + b'"a",' * (MAX_COMMAS - 2) + b'"a"]}',
        b'{"errors":{' + b'"a":["b"],' * (MAX_COMMAS - 1) + b'"a":["b"]}}',
        b"<" * 500_000,
        b"<head" * 100_000,
    ],
    ids=lambda body: body[:12].decode(),
)
def test_the_worst_body_costs_little(body: bytes) -> None:
    """As against as many bytes of plain JSON, of which none takes three times as long."""
    assert cpu_seconds(lambda: read_problem(body, failed=True)) < 15 * decoding_seconds(len(body))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({b"x-request-id": b"req_1234"}, "req_1234"),
        ({b"request-id": b"req_1234", b"cf-ray": b"9a1b2c3d-FRA"}, "req_1234"),
        ({b"mistral-correlation-id": b"0199a2b3-c4d5"}, "0199a2b3-c4d5"),
        ({b"x-ms-request-id": b"abcd-ef"}, "abcd-ef"),
        ({b"apim-request-id": b"abcd-ef"}, "abcd-ef"),
        ({b"x-amzn-requestid": b"abcd-ef"}, "abcd-ef"),
        ({b"cf-ray": b"9a1b2c3d-FRA"}, "9a1b2c3d-FRA"),
        ({b"x-request-id": b"not an id", b"cf-ray": b"9a1b2c3d-FRA"}, "9a1b2c3d-FRA"),
        ({b"x-request-id": b"sk-abcdef"}, ""),
        ({b"content-type": b"text/html"}, ""),
        ({}, ""),
    ],
)
def test_the_providers_own_id_of_a_request_is_found(headers: dict[bytes, bytes], expected: str) -> None:
    assert request_id_of(headers) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        *(
            (raw, False)
            for raw in (b"{}", b"{ }", b"[]", b"[\n]", b'""', b'" "', b"null", b"false", b"0", b"-0.0", b"0e1")
        ),
        *((raw, True) for raw in (b'{"a":1}', b"[0]", b'"x"', b'"0"', b"true", b"503", b"0.5", b"1e0")),
    ],
)
def test_an_empty_error_is_none(raw: bytes, expected: bool) -> None:
    assert is_problem(Raw(raw)) is expected


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["error", "errors", "message", "detail", "loc", "msg", "type", "code", "metadata", "raw", "fault"]
            ),
            inner,
        )
    ),
    max_leaves=12,
)


@given(json_values | st.binary(), st.booleans())
def test_junk_raises_nothing(body: object, failed: bool) -> None:
    found = read_problem(body if isinstance(body, bytes) else json.dumps(body).encode(), failed=failed)
    assert len(found.message) <= 500


@pytest.mark.parametrize("piece", ["<", "<a", "<message", "<message ", "<message>a", "<code>", "</", "<title>x"])
def test_the_worst_page_takes_linear_time(piece: str) -> None:
    assert_linear(problem, piece)
