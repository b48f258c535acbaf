"""A provider's words without what is nobody's business: whatever its shape, and in linear time."""

import base64
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from linear import assert_linear

from cpu_time import cpu_seconds
from tollway.domain import credentials
from tollway.observe.redact import Redactor
from tollway.providers import cleaning
from tollway.providers.cleaning import as_said, clean, clean_id, clean_word, without_secret, without_shared


@pytest.mark.parametrize(
    "hidden",
    [
        # keys
        "sk-proj-abc_DEF.123",
        "sk-abc***xyz",
        "Bearer abc.def",
        "bearer\tabc",
        "Basic dXNlcjpwYXNz",
        "aB3dE5fG7hI9kL1mN3oP5qR7sT9uV1wX",
        "key_with-many_parts-0123456789-and-more",
        "AKIAIOSFODNN7EXAMPLE",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln",
        "api_key=hunter2",
        "password: hunter2",
        'authorization": "x-y-z',
        "Authorization: Bearer hf_abcdefGHIJKLmnopqrSTUV",
        "Authorization: Basic dXNlcjpwYXNz",
        "Authorization: Token x",
        "api_key: Bearer x",
        "api key: hunter2",
        "access_token=hunter2",
        "x-api-key: hunter2",
        "secret_key=hunter2",
        "Set-Cookie: session=hunter2",
        "hf_abcdefGHIJKLmnopqrSTUVwxyzabcdef",
        "gsk_abcdefGHIJKLmnopqrSTUVwxyz",
        "xai-abcdefGHIJKLmnopqrSTUVwxyz",
        "AIzaAbcdefGHIJKLmnopqrSTUVwxyz",
        "sk-abcdefGHIJKLmnopqrSTUVwxyz",
        "hunt****er22",
        "****er22",
        # addresses
        "10.20.30.40:8080",
        "10.20.30.40",
        "[2001:db8::ff00:42:8329]:8080",
        "2001:db8:0:0:1:0:0:1",
        "fe80::1%eth0",
        "::1",
        "::ffff:10.0.0.7",
        "https://user:pass@internal.example.com:8443/v1?key=abc#x",
        "http://vllm-0.vllm.ml.svc.cluster.local:8000/v1/chat/completions",
        "grpc://10.0.0.1",
        "ops.team@example.com",
        # hosts
        "vllm-worker-3.ml.svc.cluster.local",
        "ip-10-0-0-5.ec2.internal",
        "gpu7.corp:9000",
        "consumer.staging:8080",
        "vllm-0:8000",
        "node7:443",
        "ec2-1-2-3-4.compute-1.amazonaws.com",
        "vllm-a.example.com",
        "llm.staging.acme.io",
        "host=vllm-a",
        "hostname: vllm",
        "ENOTFOUND vllm-service",
        "ECONNREFUSED redis",
        "lookup vllm-service",
        "Connecting to gpu7",
        "localhost:11434",
        "localhost",
        # places
        "/home/ubuntu/vllm/engine.py",
        "/opt/app/server.py",
        "/models/llama-3/config.json",
        "unix:/run/x.sock",
        "C:\\models\\server.py",
        # accounts
        "org-abcDEF123456",
        "org_01hxyzabcdef",
        "proj_abc123def456",
        "team-16f2151a40f4",
        "user_a1b2c3d4",
        "16f2151a-40f4-4a80-8ad0-cae00c27e8dd",
        "arn:aws:bedrock:us-east-1::foundation-model/x",
        "123456789012",
        "projects/my-project-1",
        "subscriptions/abc/resourceGroups/rg/providers/x",
    ],
)
def test_what_is_nobodys_business_is_masked(hidden: str) -> None:
    assert clean(f"The value {hidden} is wrong.") == "The value *** is wrong."
    assert clean(f"('{hidden}')") in ("('***')", "(***')", "('***", "(***")


@pytest.mark.parametrize(
    "text",
    [
        "OPENAI_API_KEY=hunterTwo",
        "AWS_SECRET_ACCESS_KEY=hunterTwo is not valid",
        "client_secret: hunterTwo",
        'got {"refresh_token":"hunterTwo","x":1}',
        '{"Authorization": "Bearer hunterTwo"}',
        '{"Authorization": "Custom-Scheme hunterTwo"}',
        "{'authorization': ['Bearer hunterTwo']}",
        r"{\"api_key\": \"hunterTwo\"}",
        "headers: apiKey => hunterTwo",
        "openaiApiKey=hunterTwo",
        "PGPASSWORD=hunterTwo psql",
        "password='my own hunterTwo'",
        "Ocp-Apim-Subscription-Key: hunterTwo",
        "Authorization: Bearer token hunterTwo",
        "https://x.example/v1?access_token=hunterTwo&x=1",
    ],
)
def test_what_a_name_announces_is_masked_and_what_stands_beside_it_stays(text: str) -> None:
    assert "hunterTwo" not in clean(text)
    assert "***" in clean(text)
    assert "hunterTwo" not in Redactor().clean(text, 200)


@pytest.mark.parametrize(
    "text",
    [
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' (v1.2).",
        "This model's maximum context length is 131072 tokens. However, you requested 1,354,787 tokens.",
        "Rate limit reached for gpt-4o-mini-2024-07-18 on tokens per min (TPM): Limit 30000, Used 29000.",
        "qwen2.5:14b and meta-llama/Llama-3.3-70B at 12:30:45, std::vector, a ** b, basic plan, Basic authentication",
        "messages[0].content: Input should be a valid string; tools[1].function: Missing",
        "max_tokens: 100, max_token: 5, eos_token=</s>, token limit exceeded, completion tokens=5, secret of success",
        "us.anthropic.claude-3-5-sonnet-v2:0, gpt-4.1-mini, org.apache.http, java.net.SocketException, torch.cuda",
        "See platform.openai.com/docs, docs.mistral.ai or console.groq.com. Could not resolve it; connect to it.",
        "messages.0.content, tools.1.function.name, /v1/models/gpt-4o, and/or, hf_hub, gh_actions, fw_size, xai-grok",
        "Overloaded (529), error 1300, 0.25 s, 3/4, 50 %, v1.10.2",
        "Grüße, 東京 🚀",
        "invalid_request_message_order_of_things",
    ],
)
def test_words_stay_readable(text: str) -> None:
    assert clean(text) == text


def test_the_host_of_a_failed_call_is_masked() -> None:
    text = "HTTPConnectionPool(host='vllm-a.example.com', port=8000): Read timed out. (read timeout=60)"
    assert clean(text) == "HTTPConnectionPool(***', port=8000): Read timed out. (read timeout=60)"
    assert clean("Cannot connect to host vllm:8000 ssl:default [None]") == "Cannot connect *** ssl:default [None]"
    assert clean("Could not resolve host: vllm") == "Could not ***"
    assert clean("Failed to resolve 'vllm-a' ([Errno -2])") == "Failed to ***' ([Errno -2])"
    assert clean("getaddrinfo ENOTFOUND vllm-service") == "getaddrinfo ***"
    assert clean("dial tcp: lookup vllm-service on 10.0.0.1:53: no such host") == "dial tcp: *** on ***: no such host"


def test_a_text_becomes_one_line_of_bounded_length() -> None:
    assert clean("a\r\n\tb\x00c\u2028d") == "a b c d"
    assert len(clean("ab " * 1000)) == 500
    assert clean("ab " * 1000).endswith("…")


@pytest.mark.parametrize(
    "text",
    [
        "[{'type': 'missing', 'loc': ('body', 'x'), 'msg': 'Field required', 'input': {'messages': 'CANARY'}}]",
        '[{"type": "missing", "msg": "Field required", "input" : "CANARY"}]',
        "Field required [type=missing, input_value={'messages': 'CANARY'}, input_type=dict]",
        "Field required, input_value = CANARY",
    ],
)
def test_what_a_validator_repeats_of_its_input_is_left_out(text: str) -> None:
    assert "CANARY" not in clean(text)
    assert "Field required" in clean(text)


@pytest.mark.parametrize(
    ("word", "kept"),
    [
        ("rate_limit_exceeded", "rate_limit_exceeded"),
        ("exceed_context_size_error", "exceed_context_size_error"),
        ("InternalError.Algo", "InternalError.Algo"),
        ("400", "400"),
        ("a" * 101, ""),
        ("<b>", ""),
        ("sk-abc123", ""),
        ("line\nend", "line end"),
        ("", ""),
    ],
)
def test_a_code_is_a_word(word: str, kept: str) -> None:
    assert clean_word(word) == kept


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("req_0123456789abcdef0123456789abcdef", True),
        ("0199a2b3-c4d5-7e6f-8a9b-0c1d2e3f4a5b", True),
        ("9a1b2c3d4e5f6a7b-FRA", True),
        ("021717000000000abc", True),
        ("abc", False),
        ("sk-abcdefgh", False),
        ("10.0.0.7", False),
        ("gpu-7.ml.svc.cluster.local", False),
        ("vllm-0:8000", False),
        ("org-abcdef123456", False),
        ("two words", False),
        ("a" * 129, False),
        ("<script>", False),
        ("", False),
    ],
)
def test_an_id_is_kept_as_it_is_or_not_at_all(text: str, kept: bool) -> None:
    assert clean_id(f" {text} ") == (text if kept else "")


SECRET = "My-Own_Server.Key/42=="


@pytest.mark.parametrize(
    "spelling",
    [
        SECRET,
        SECRET.upper(),
        SECRET.lower(),
        quote(SECRET, safe=""),
        base64.b64encode(SECRET.encode()).decode(),
        base64.urlsafe_b64encode(SECRET.encode()).decode(),
        base64.b64encode(f"Bearer {SECRET}".encode()).decode(),
        base64.b64encode(f":{SECRET}".encode()).decode(),
        SECRET[:12] + "…",
        "…" + SECRET[-9:],
    ],
)
def test_a_known_secret_is_masked_in_every_spelling_and_in_part(spelling: str) -> None:
    shown = without_secret(f"The key {spelling} is wrong.", SECRET)
    assert "***" in shown
    assert shown.startswith("The key ") and shown.endswith(" is wrong.")
    assert not [part for start in range(len(spelling) - 7) if (part := spelling[start : start + 8]) in shown]


def test_a_short_secret_is_masked_whole_and_nothing_else() -> None:
    assert without_secret("say hush, not hus or ush", "hush") == "say ***, not hus or ush"
    assert without_secret("nothing", "") == "nothing"


PROMPT = (
    b'{"model":"m","messages":[{"role":"user",'
    b'"content":"Tell nobody that \\"the moon\\"\\nis made of gr\\u00fcn cheese"}]}'
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('Could not parse: Tell nobody that "the moon" is made of grün cheese!', "Could not parse: ***!"),
        ('got {"model":"m","messages":[{"role":"user"', "got ***"),
        ("Tell nobody", "Tell nobody"),
        ("the model said no to what the user had put into its messages", None),
    ],
)
def test_what_is_repeated_of_a_prompt_is_masked(text: str, shown: str | None) -> None:
    assert without_shared(text, as_said(PROMPT), 24) == (shown or text)


@given(st.text("abc ", max_size=60), st.text("abc ", max_size=60), st.integers(3, 12))
def test_no_run_that_is_long_enough_is_missed(text: str, source: str, least: int) -> None:
    shown = without_shared(text, source, least)
    for start in range(len(shown) - least + 1):
        run = shown[start : start + least]
        assert "*" in run or run not in source or run.strip() != run


@given(st.text(max_size=40), st.text(max_size=20))
def test_nothing_raises(text: str, secret: str) -> None:
    assert isinstance(without_secret(clean(text), secret), str)
    as_said(text.encode("utf-8", "replace"))


PIECES = (
    *(
        "a",
        "-",
        "a-",
        "a.",
        "a:",
        "1.",
        "1:",
        "f:",
        ":",
        "::",
        "/",
        "/usr/",
        "sk-",
        "bearer ",
        "bearer" + " " * 50,
        "a@",
    ),
    *(
        "org-",
        "org-a",
        "*",
        "a*",
        "ab:12",
        "[",
        "eyJa.",
        "api_key",
        "token=" + " " * 4,
        'token="',
        "token=bearer ",
        "hf_",
        "host=",
        "connect to a",
        "a.b.com",
        "subscriptions/a/",
        "input_value ",
        '"input" ',
        "ip-1",
    ),
    *(
        "https://",
        "_1",
        "é",
        "basic a",
        "0123456789ab",
        "a\\",
        "\\u00",
        "12.",
        "-1",
        "localhost",
        "projects/",
        "%",
        "=",
        "arn:",
    ),
)


@pytest.mark.parametrize("piece", PIECES)
def test_the_worst_text_takes_linear_time(piece: str) -> None:
    assert_linear(cleaning, piece)
    assert_linear(credentials, piece)


def test_the_worst_echo_of_a_large_request_is_looked_for_in_a_bounded_number_of_steps() -> None:
    source = "ab" * 65_536
    text = ("a" * 11 + "c") * 41
    searches_s = cpu_seconds(lambda: [("a" * 11 + str(number)) in source for number in range(41)])
    assert cpu_seconds(lambda: without_shared(text, source, 24)) < 5 * searches_s
