"""Failures are sorted by what providers really send."""

import json

import pytest
from golden import asked, call
from hypothesis import given
from hypothesis import strategies as st

from cpu_time import cpu_seconds
from tollway.domain.failures import OWN_WORDS, FailureKind, Said, UpstreamFailure, cause_of
from tollway.providers.classify import GAVE_UP, classify, failure, gave_up, no_answer, read_problem, with_own_key
from tollway.providers.cleaning import clean
from tollway.providers.retry_after import retry_after_s
from tollway.providers.table import adapters

K = FailureKind


def of(status: int, body: object = None, **headers: bytes) -> UpstreamFailure:
    raw = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return classify(status, {name.replace("_", "-").encode(): value for name, value in headers.items()}, raw)


def openai(message: str = "m", type: str | None = None, code: object = None, param: str | None = None) -> object:
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


def mistral(message: object, type: str | None = None, code: object = None) -> object:
    return {"object": "error", "message": message, "type": type, "param": None, "code": code, "raw_status_code": 400}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, K.INVALID),
        (204, K.INVALID),
        (400, K.REQUEST),
        (401, K.CREDENTIAL),
        (402, K.QUOTA),
        (403, K.CREDENTIAL),
        (404, K.MODEL),
        (405, K.MODEL),
        (408, K.TIMEOUT),
        (409, K.SERVER),
        (413, K.REQUEST),
        (418, K.SERVER),
        (422, K.REQUEST),
        (429, K.BUSY),
        (500, K.SERVER),
        (502, K.SERVER),
        (503, K.SERVER),
        (504, K.TIMEOUT),
        (520, K.SERVER),
        (529, K.SERVER),
    ],
)
def test_a_status_alone_decides(status: int, kind: FailureKind) -> None:
    for body in (b"", b"<html>oops</html>", b"{}", b"null", b"[1]", b"\xff"):
        found = of(status, body)
        assert (found.kind, found.status) == (kind, status)
        assert found.message


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (429, openai("You exceeded your current quota", "insufficient_quota", "insufficient_quota"), K.QUOTA),
        (429, openai("no credit", "billing", "credit_balance_exhausted"), K.QUOTA),
        (403, openai("no credit", "insufficient_quota", None), K.QUOTA),
        (400, openai("limit", None, "workspace_spend_limit_reached"), K.QUOTA),
        (429, openai("limit", "tokens", "rate_limit_exceeded"), K.BUSY),
        (429, openai("limit", "requests", "slow_down"), K.BUSY),
        (429, mistral("Service tier capacity exceeded for this model.", "invalid_request_error"), K.BUSY),
        (429, {"message": "Requests rate limit exceeded"}, K.BUSY),
        (400, openai("too long", "invalid_request_error", "context_length_exceeded", "messages"), K.CONTEXT),
        (400, mistral("9 tokens, too large for model with 8 maximum context length", "x", "3051"), K.CONTEXT),
        (413, openai("This model's maximum context length is 8 tokens"), K.CONTEXT),
        (400, openai("filtered", None, "content_filter", "prompt"), K.CONTENT),
        (403, {"error": {"message": "Content blocked by guardrail", "status": 403}, "guardrails": {}}, K.CONTENT),
        (400, openai("violates our content policy", "invalid_request_error", "content_policy_violation"), K.CONTENT),
        (400, mistral("Invalid model: x", "invalid_model", None), K.MODEL),
        (400, mistral("Invalid model: x", "invalid_request_error", "1500"), K.MODEL),
        (400, openai("The model does not exist", "invalid_request_error", "model_not_found"), K.MODEL),
        (401, {"detail": "Unauthorized"}, K.CREDENTIAL),
        (401, {"message": "Unauthorized", "request_id": "1"}, K.CREDENTIAL),
        (400, mistral("Unexpected role", "invalid_request_message_order", "3230"), K.REQUEST),
        (500, openai("it broke", "server_error", "insufficient_quota"), K.SERVER),
        (503, openai("busy", "service_unavailable_error", "server_is_overloaded"), K.SERVER),
    ],
)  # fmt: skip
def test_an_error_object_says_more_than_its_status(status: int, body: object, kind: FailureKind) -> None:
    assert of(status, body).kind is kind


NAME = {"loc": ["body", "messages", 0, "user", "name"], "msg": "Not permitted", "input": "SECRET"}
STORE = {"loc": ["body", "store"], "msg": "Extra", "input": True}
FUNCTION = {"loc": ["body", "tools", 1, "function"], "msg": "Missing"}


@pytest.mark.parametrize(
    ("body", "message", "param", "code"),
    [
        (openai("Bad n.", "invalid_request_error", "unknown_parameter", "n"), "Bad n.", "n", "unknown_parameter"),
        ({"error": "plain text"}, "plain text", None, None),
        (mistral("Expected last role", "invalid_request_message_order", "3230"), "Expected last role", None, "3230"),
        (mistral("m", "x", 3001), "m", None, "3001"),
        (mistral({"detail": [NAME]}), "messages[0].name: Not permitted", "messages[0].name", None),
        ({"detail": [STORE, FUNCTION]}, "store: Extra; tools[1].function: Missing", "store", None),
        ({"detail": [{"loc": [], "msg": "one"}], "message": [{"msg": "two"}], "code": 3001}, "one", None, "3001"),
        ({"message": [{"loc": ["a"], "msg": "two"}]}, "a: two", "a", None),
        ({"detail": "Not enough"}, "Not enough", None, None),
        (b"just text", "just text", None, None),
        (b"", "The provider refused the request.", None, None),
        (b"<html><head>t</head>\n<h1>400</h1> <p>Bad\nRequest</p></html>", "400 Bad Request", None, None),
        (b"<script>x</script >", "The provider refused the request.", None, None),
        ({"error": {"message": 3, "code": []}}, "The provider refused the request.", None, None),
    ],
)
def test_the_clients_fault_is_told_in_the_providers_words(
    body: object, message: str, param: str | None, code: str | None
) -> None:
    found = of(422, body)
    assert (found.kind, found.message, found.param, found.code) == (K.REQUEST, message, param, code)
    assert found.type == "invalid_request_error"


def test_what_is_too_long_or_filtered_has_openais_code() -> None:
    assert (of(400, openai("prompt is too long")).code, of(400, openai("prompt is too long")).param) == (
        "context_length_exceeded",
        "messages",
    )
    assert of(400, openai("x", None, "content_policy_violation")).code == "content_filter"
    assert of(413, b"").code == "request_too_large"


@pytest.mark.parametrize("status", [401, 402, 404, 429, 500, 503, 302, 418])
def test_what_a_provider_says_of_itself_is_for_the_log_and_not_for_the_client(status: int) -> None:
    found = of(status, openai("Incorrect API key provided: sk-SECRET at 10.0.0.1", "a_type", "a_code", "a_param"))
    assert found.message == OWN_WORDS[found.kind]
    assert (found.code, found.param) == (None, None)
    assert found.said == Said("Incorrect API key provided: *** at ***", "a_code", "a_type", of_an_account=True)


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abc_DEF.123",
        "sk-abc***xyz",
        "Bearer abc.def",
        "bearer\tabc",
        "aB3dE5fG7hI9kL1mN3oP5qR7sT9uV1wX",
        "10.20.30.40:8080",
        "key_with-many_parts-0123456789-and-more",
    ],
)
def test_secrets_and_addresses_are_masked(secret: str) -> None:
    shown = clean(f"The value {secret} is wrong.")
    assert shown == "The value *** is wrong."
    assert secret not in repr(of(400, openai(f"wrong: {secret}", "t", secret, secret)))


def test_words_stay_readable() -> None:
    text = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' (v1.2)."
    assert clean(text) == text
    assert clean("invalid_request_message_order_of_things") == "invalid_request_message_order_of_things"
    assert clean("a\r\n\tb\x00c\u2028d") == "a b c d"
    assert len(clean("ab " * 1000)) == 500


@pytest.mark.parametrize(
    "text", ["a-" * 50_000, "bearer " * 20_000, "bearer" + " " * 100_000, "1." * 50_000, "sk-" * 40_000]
)
def test_cleaning_takes_no_longer_for_the_worst_text(text: str) -> None:
    """Than for any other, within a small factor: the worst of these takes twice as long."""
    plain = "words of a provider " * (len(text) // 20)
    assert cpu_seconds(lambda: clean(text)) < 10 * cpu_seconds(lambda: clean(plain))


DATE = b"Mon, 23 Nov 2026 12:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({b"retry-after": b"7"}, 7.0),
        ({b"retry-after": b" 0.5 "}, 0.5),
        ({b"retry-after": b"-3"}, 1.0),
        ({b"retry-after": b"0"}, 1.0),
        ({b"retry-after": b"0.0"}, 1.0),
        ({b"retry-after-ms": b"0"}, 1.0),
        ({b"retry-after": b"1e3"}, None),
        ({b"retry-after": b"nan"}, None),
        ({b"retry-after": b"soon"}, None),
        ({b"retry-after": b"\xff"}, None),
        ({b"retry-after": b"9" * 15}, 86_400.0),
        ({b"retry-after": b"9" * 400}, None),
        ({b"retry-after-ms": b"174", b"retry-after": b"1"}, 0.174),
        ({b"retry-after": b"Mon, 23 Nov 2026 12:00:30 GMT", b"date": DATE}, 30.0),
        ({b"retry-after": b"Mon, 23 Nov 2026 11:00:00 GMT", b"date": DATE}, 1.0),
        ({b"retry-after": b"Mon, 23 Nov 2026 12:00:30 GMT"}, None),
        ({b"retry-after": b"Mon, 23 Nov 2026 12:00:30 GMT", b"date": b"x"}, None),
        ({b"retry-after": b"Mon, 99 Nov 2026 12:00:30 GMT", b"date": DATE}, None),
        ({b"retry-after": b"Mon, 23 Nov 2026 12:00:30 -0000", b"date": DATE}, None),
    ],
)
def test_waiting_times_are_read_in_all_forms(headers: dict[bytes, bytes], expected: float | None) -> None:
    assert retry_after_s(headers) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Please try again in 174ms. Visit", 0.174),
        ("Please try again in 6.596s.", 6.596),
        ("Please try again in 1m30s.", 90.0),
        ("Please try again in 2h.", 7200.0),
        ("Please retry in 37.8s", 37.8),
        ("Please try again in a while", None),
        ("try again in " + "9" * 300 + "s", None),
        ("Please retry after 26 seconds.", 26.0),
        ("Try again in 2 minutes", 120.0),
        ("retry again in 1 hour 5 min", 3900.0),
        ("try again in 0s", 1.0),
    ],
)
def test_waiting_times_are_read_from_the_text(text: str, expected: float | None) -> None:
    found = of(429, openai(text))
    assert found.retry_after_s == (pytest.approx(expected) if expected else None)


def test_waiting_brings_no_money_back() -> None:
    assert of(429, openai("x", "insufficient_quota"), retry_after=b"5").retry_after_s is None


@pytest.mark.parametrize(
    ("type", "code", "told"),
    [
        ("insufficient_quota", "insufficient_quota", "insufficient_quota"),
        ("billing", "credit_balance_exhausted", "credit_balance_exhausted"),
        ("insufficient_quota", "SECRET", None),
    ],
)
def test_how_the_money_ran_out_is_told_in_known_words_only(type: str, code: str, told: str | None) -> None:
    assert of(429, openai("x", type, code)).code == told


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (openai("x", "server_error"), K.SERVER, 0),
        (openai("x", "rate_limit_error"), K.BUSY, 0),
        (mistral("x", "rate_limited", "1300"), K.BUSY, 400),
        (mistral("x", "invalid_request_message_order", "3230"), K.REQUEST, 400),
        (mistral("x", "unheard_of", "1"), K.REQUEST, 400),
        ({"object": "error", "message": "x", "type": "invalid_request_error", "raw_status_code": 429}, K.BUSY, 429),
        ({"object": "error", "message": "x", "raw_status_code": "many"}, K.SERVER, 0),
        ({"error": {"message": "Content blocked by guardrail", "status": 403}}, K.CONTENT, 403),
        (openai("x", "invalid_request_error", "invalid_value"), K.REQUEST, 0),
        (openai("maximum context length"), K.CONTEXT, 0),
        (openai("x", None, 429), K.BUSY, 429),
        (openai("x", None, 503), K.SERVER, 503),
        (openai("x", "authentication_error"), K.CREDENTIAL, 0),
        ({"error": "boom"}, K.SERVER, 0),
    ],
)
def test_an_error_inside_a_good_answer_is_sorted_by_its_words(body: object, kind: FailureKind, status: int) -> None:
    found = failure(200, read_problem(json.dumps(body).encode()))
    assert (found.kind, found.status) == (kind, status)


# A prompt that does not fit

LLAMA = "request (4267 tokens) exceeds the available context size (4096 tokens), try increasing it"
LLAMA_ERROR = {
    "error": {
        "code": 400,
        "message": LLAMA,
        "type": "exceed_context_size_error",
        "n_prompt_tokens": 4267,
        "n_ctx": 4096,
    }
}
MIDWAY = {"error": {"code": 500, "message": "Context size has been exceeded.", "type": "server_error"}}


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, LLAMA_ERROR),
        (500, LLAMA_ERROR),
        (400, MIDWAY),
        (500, MIDWAY),
        (503, {"detail": "Request length 71599 + 2048 is greater than max_seq_len 65536"}),
        (422, {"error": "Input validation error: `inputs` must have less than 1024 tokens. Given: 1500"}),
        (400, {"code": "x", "error": "This model's maximum prompt length is 10 but the request contains 20"}),
        (400, [openai("The input token count (12) exceeds the maximum number of tokens allowed (10).", None, 400)]),
        (400, {"error": {"message": "Provider returned error", "metadata": {"raw": json.dumps(LLAMA_ERROR)}}}),
        (413, {"error": {"code": "tokens_limit_reached", "message": "Request body too large for gpt-4o model."}}),
        (500, {"error": {"message": "no words at all", "type": "exceed_context_size_error"}}),
    ],
)  # fmt: skip
def test_a_prompt_that_does_not_fit_is_the_clients_whatever_its_server_makes_of_it(status: int, body: object) -> None:
    found = of(status, body)
    assert (found.kind, found.code, found.param) == (K.CONTEXT, "context_length_exceeded", "messages")
    assert found.message == found.said.message


def test_within_a_stream_it_is_the_same() -> None:
    for body in (LLAMA_ERROR, MIDWAY):
        found = failure(200, read_problem(json.dumps(body).encode()))
        assert (found.kind, found.code, found.param) == (K.CONTEXT, "context_length_exceeded", "messages")


@pytest.mark.parametrize("status", [401, 402, 403, 404, 408, 429, 504])
def test_with_a_status_that_means_something_else_it_does_not_mean_that(status: int) -> None:
    assert of(status, openai("the prompt is too long for you")).kind is not K.CONTEXT


def test_a_limit_per_minute_that_is_told_with_413_is_one() -> None:
    text = "Request too large for model `x` on tokens per minute (TPM): Limit 6000, Requested 7000"
    assert of(413, openai(text, "tokens", "rate_limit_exceeded")).kind is K.BUSY


# An account without money


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (402, openai("Insufficient Balance", "unknown_error", "invalid_request_error")),
        (402, b""),
        (400, openai("Your credit balance is too low. Please go to Plans & Billing.", "invalid_request_error")),
        (403, {"code": 30001, "message": "Sorry, your account balance is insufficient"}),
        (429, {"error": {"code": "1113", "message": "Insufficient balance, please recharge"}}),
        (429, openai("You exceeded your current quota, please check your plan and billing details.")),
        (429, "Your team has either used all available credits or reached its monthly spending limit."),
        (400, {"code": "Arrearage", "message": "Access denied, please make sure your account is in good standing."}),
        (412, openai("Account x is suspended, possibly due to reaching the monthly spending limit")),
        (429, openai("x", None, "spend_limit_exceeded")),
        (400, openai("x", "billing_error")),
    ],
)  # fmt: skip
def test_an_account_without_money_is_no_matter_of_the_request_and_none_of_the_key(status: int, body: object) -> None:
    found = of(status, body, retry_after=b"20")
    assert (found.kind, found.status, found.code, found.retry_after_s) == (K.QUOTA, status, None, None)
    assert "money" in found.message
    assert found.said.of_an_account or not body


def test_googles_quota_per_minute_is_a_rate_and_its_wait_is_read() -> None:
    text = "You exceeded your current quota, please check your plan and billing details. * Quota exceeded for metric"
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "37s"}]
    found = of(429, {"error": {"code": 429, "message": text, "status": "RESOURCE_EXHAUSTED", "details": details}})
    assert (found.kind, found.retry_after_s) == (K.BUSY, 37.0)


def test_a_bad_key_that_is_told_with_400_is_one() -> None:
    assert of(400, openai("API key not valid. Please pass a valid API key.")).kind is K.CREDENTIAL


# What is told of it


def test_what_a_provider_said_and_its_id_of_the_request_are_kept_for_the_log() -> None:
    found = of(503, openai("It broke", "server_error", "E42"), x_request_id=b"req_4711")
    assert found.said == Said("It broke", "E42", "server_error", "req_4711")
    assert (
        cause_of(found) == "The provider failed. It said: It broke (code E42, type server_error, request id req_4711)"
    )
    within = of(503, {"message": "It broke", "request_id": "abcd-1234"})
    assert within.said.request_id == "abcd-1234"
    assert cause_of(of(503, b"")) == "The provider failed."
    assert cause_of(of(400, openai("Bad n."))) == "The provider refused the request. It said: Bad n."


def test_on_the_keys_own_account_it_is_said_whose_it_is() -> None:
    refused = with_own_key(of(401, openai("no")), "openai")
    assert cause_of(refused) == "The provider refused the API key's own provider key for openai. It said: no"
    assert with_own_key(of(500, b""), "openai").message == "The provider failed."
    assert with_own_key(of(402, b""), "openai").own_key_at == "openai"


def test_a_code_that_repeats_the_status_says_nothing() -> None:
    assert of(400, openai("bad", None, 400)).code is None
    assert of(400, openai("bad", None, 3001)).code == "3001"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ([{"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}], "overloaded"),
        ([{"text": "a poem"}], ""),
        (["engine is overloaded", "try later"], "engine is overloaded; try later"),
        ("engine is overloaded", "engine is overloaded"),
        ("overloaded", ""),
        ({"result": {"error": "engine is overloaded"}}, "engine is overloaded"),
        ({"title": "a poem"}, ""),
        ({"error": {"message": "no"}}, "no"),
    ],
)
def test_what_is_no_answer_is_told_only_where_it_is_an_error(body: object, said: str) -> None:
    assert no_answer(json.dumps(body).encode()).said.message == said


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"Error: engine is overloaded", "Error: engine is overloaded"),
        (b"<html><body>Engine is overloaded</body></html>", "Engine is overloaded"),
        (b"<p>" + b"so " * 800 + b"</p>", "so " * 166 + "s…"),
        (b"so " * 800, ""),
        (b"pong", ""),
        (b'{"choices":[{"message":{"error":"no error', ""),
        (b'["cut of', ""),
        (b"42", ""),
        (b"", ""),
    ],
)
def test_an_error_in_plain_words_with_a_good_status_is_told(body: bytes, said: str) -> None:
    assert no_answer(body).said.message == said


@pytest.mark.parametrize("dialect", ["openai", "mistral"])
@pytest.mark.parametrize(
    "event",
    ["Error: engine is overloaded", '"Error: engine is overloaded"', '["Error: engine is overloaded"]'],
)
def test_an_error_in_plain_words_in_a_stream_is_told(dialect: str, event: str) -> None:
    decoder = adapters(dialect)["chat/completions"].decoder(call({"stream": True}))
    decoder.feed(b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"Hel"}}]}\n\n')
    decoder.feed(f"data: {event}\n\n".encode())
    assert decoder.failure is not None
    assert decoder.failure.said.message == "Error: engine is overloaded"


GIVEN_UP = {"index": 0, "finish_reason": "error", "error": {"code": 502, "message": "The hamster is down"}}


@pytest.mark.parametrize("dialect", ["openai", "mistral"])
@pytest.mark.parametrize("operation", ["chat/completions", "completions"])
def test_the_error_of_a_choice_is_told(dialect: str, operation: str) -> None:
    asks = call({}) if operation == "chat/completions" else asked(operation, {"prompt": "a"})
    adapter = adapters(dialect)[operation]
    whole = {**GIVEN_UP, "text": "", "message": {"role": "assistant", "content": ""}}
    failures = [adapter.decode(200, {}, json.dumps({"choices": [whole]}).encode(), asks)]
    decoder = adapter.decoder(asks)
    chunk = {"choices": [{**GIVEN_UP, "text": "", "delta": {"content": ""}}]}
    decoder.feed(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    for failed in (*failures, decoder.failure):
        assert isinstance(failed, UpstreamFailure)
        assert (failed.kind, failed.status, failed.said.message) == (K.SERVER, 502, "The hamster is down")


@pytest.mark.parametrize("choice", [{}, {"error": None}, {"error": {}}, {"error": {"code": "c"}}])
def test_a_choice_that_only_ends_with_an_error_has_our_words(choice: object) -> None:
    assert gave_up(json.dumps({"choices": [choice]}).encode()) is GAVE_UP
    assert gave_up(b"junk") is GAVE_UP


WORDS = "The maximum context length is 4096 tokens, but 9000 tokens were requested"


@pytest.mark.parametrize(
    "body",
    [
        {"statusCode": 400, "error": "Bad Request", "message": WORDS},
        {"timestamp": "2025-01-01", "status": 400, "error": "Bad Request", "message": WORDS, "path": "/v1"},
        {"error": "invalid_request", "error_description": WORDS},
        {"error": "Bad Request", "detail": WORDS},
        {"error": "Bad Request", "msg": WORDS},
        f"{{'error': {{'message': '{WORDS}'}}}}",
        f'{{"error": {{"message": "{WORDS}',
        f'{{"error": {{"message": "{WORDS}"}}}} trailing',
        f'{{"error": {{"message": "{WORDS} \\ud83d"}}}}',
        f'{{"error": {{"message": "{WORDS}", "retry": NaN}}}}',
        {"data": {"error": {"message": WORDS}}},
        {"errors": {"prompt": [WORDS]}},
    ],
    ids=lambda body: str(body)[:40],
)
def test_the_verdict_comes_from_the_words_wherever_they_stand(body: object) -> None:
    failed = of(400, body)
    assert (failed.kind, failed.code) == (K.CONTEXT, "context_length_exceeded")
    assert WORDS in failed.message


def test_money_and_waits_are_read_beside_the_name_of_a_status() -> None:
    assert of(403, {"statusCode": 403, "error": "Forbidden", "message": "Insufficient balance"}).kind is K.QUOTA
    busy = of(429, {"error": "Too Many Requests", "message": "retry in 30 seconds"})
    assert (busy.kind, busy.retry_after_s) == (K.BUSY, 30)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["error", "message", "detail", "loc", "msg", "type", "code", "param"]), inner)
    ),
    max_leaves=10,
)


@given(st.integers(100, 599), json_values | st.binary())
def test_junk_raises_nothing(status: int, body: object) -> None:
    found = of(status, body)
    assert found.kind is not K.CONNECT
    assert len(found.message) <= 500


def test_a_huge_body_is_not_read() -> None:
    assert of(400, b'{"message":"' + b"x" * 2_000_000 + b'"}').message == "The provider refused the request."
