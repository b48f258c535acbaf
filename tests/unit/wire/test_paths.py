"""The table of paths: complete by the official SDK's own sources, and no way out of it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import openai.resources
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpu_time import cpu_seconds
from tollway.wire.paths import RULES, ModelIn, PathRule, find

ELSEWHERE = {
    ("POST", "/chat/completions"): "served by adapters",
    ("POST", "/completions"): "served by adapters",
    ("POST", "/embeddings"): "served by adapters",
    ("POST", "/moderations"): "served by adapters",
    ("GET", "/models"): "answered by the gateway",
    ("GET", "/models/{model}"): "answered by the gateway",
}
"""What the SDK calls and the table does not hold, and why."""

ADMINISTRATION = ("/organization/", "/projects/")
"""Below these an organization is administered, with keys of another kind; never through a gateway."""

CALLS = {"_get", "_post", "_put", "_patch", "_delete", "_get_api_list"}


def sdk_calls() -> set[tuple[str, str, str, bool]]:
    """Method, path, the file it is in, and whether the call takes a model."""
    root = Path(openai.resources.__file__).parent
    return {
        (*call, path.relative_to(root).as_posix(), takes_model(function))
        for path in root.rglob("*.py")
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef)
        for call in calls_in(function)
    }


def takes_model(function: ast.FunctionDef) -> bool:
    return "model" in {argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)}


def calls_in(function: ast.FunctionDef) -> Iterator[tuple[str, str]]:
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CALLS:
            method = node.func.attr.removeprefix("_").replace("get_api_list", "get")
            for keyword in node.keywords:
                if keyword.arg == "method":
                    method = ast.literal_eval(keyword.value)
            place = node.args[0]
            template = place.args[0] if isinstance(place, ast.Call) else place
            yield method.upper(), ast.literal_eval(template).partition("?")[0]


SDK_CALLS = sdk_calls()


def rule(method: str, path: str) -> PathRule:
    known = find(path.encode())
    assert known is not None, path
    return known.rules[method.encode()]


def test_every_path_of_the_sdk_is_in_the_table_and_no_other() -> None:
    called = {(method, path) for method, path, *_ in SDK_CALLS if not path.startswith(ADMINISTRATION)}
    assert len(called) > 200
    assert {(method.decode(), rule.template) for method, rule in RULES} == called - set(ELSEWHERE)
    assert set(ELSEWHERE) <= called


def test_a_call_that_takes_a_model_is_judged_by_it() -> None:
    no_model = {"/audio/voices"}
    takes = {path for method, path, _, model in SDK_CALLS if model and method == "POST"} - no_model
    ours = {rule.template for _, rule in RULES if rule.names_model}
    assert ours == takes - {path for _, path in ELSEWHERE}


@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_a_path_is_found_with_its_version_and_without(prefix: str) -> None:
    known = find(f"{prefix}/files/file-1/content".encode())
    assert known is not None
    assert known.upstream == b"/files/file-1/content"
    assert {method: rule.template for method, rule in known.rules.items()} == {b"GET": "/files/{file_id}/content"}


def test_every_row_is_found_by_its_own_path() -> None:
    for method, row in RULES:
        assert rule(method.decode(), row.template.replace("{", "a-").replace("}", "")) is row


def test_a_word_of_the_table_wins_over_a_parameter() -> None:
    assert rule("POST", "/responses/compact").template == "/responses/compact"
    assert rule("GET", "/agents/sessions").template == "/agents/sessions"
    assert find(b"/responses/compact").rules.keys() == {b"POST"}  # type: ignore[union-attr]


def test_an_object_may_have_a_word_of_the_table_as_its_name() -> None:
    assert rule("POST", "/responses/compact/cancel").template == "/responses/{response_id}/cancel"


def test_a_parameter_keeps_its_percent_encoding() -> None:
    known = find(b"/v1/models/ft%3Agpt%2Fx%20y")
    assert known is not None
    assert known.upstream == b"/models/ft%3Agpt%2Fx%20y"


@pytest.mark.parametrize(
    "path",
    [
        *(
            "",
            "/",
            "/v1",
            "/v1/",
            "/v2/files",
            "/v1files",
            "/v1/v1/files",
            "files",
            "*",
            "//files",
            "/files/",
            "/Files",
        ),
        *("/files//content", "/files/./content", "/files/../content", "/files/%2e%2E/content", "/files/.%2e"),
        *("/files/a%2F..%2f..%2Forganization", "/files/%2e%2e%5corganization", "/files/a%2f/content"),
        *("/organization/users", "/projects/p/roles", "/realtime", "/files/a/b/c", "/files" * 5000),
        *("/models", "/models/m/x", "/chat/completions/a/b", "/embeddings", "/completions", "/moderations"),
    ],
)
def test_what_is_not_in_the_table_is_unknown(path: str) -> None:
    known = find(path.encode())
    assert known is None


def test_what_adapters_serve_is_not_relayed() -> None:
    for method, template in ELSEWHERE:
        known = find(template.encode())
        assert known is None or method.encode() not in known.rules


@pytest.mark.parametrize(
    ("call", "needs_own_key"),
    [
        ("POST /responses", False),
        ("POST /responses/input_tokens", False),
        ("POST /images/edits", False),
        ("POST /audio/transcriptions", False),
        ("GET /responses/r", True),
        ("POST /audio/voices", True),
        ("GET /chat/completions", True),
        ("DELETE /models/m", True),
        ("POST /files", True),
        ("POST /vector_stores/v/search", True),
        ("POST /realtime/client_secrets", True),
        ("POST /fine_tuning/alpha/graders/run", True),
    ],
)
def test_stored_objects_and_credentials_need_a_key_of_ones_own(call: str, needs_own_key: bool) -> None:
    assert rule(*call.split()).needs_own_key is needs_own_key


def test_only_what_keeps_nothing_is_open_to_every_key() -> None:
    assert {rule.template.split("/")[1] for _, rule in RULES if not rule.needs_own_key} == {
        *("audio", "content_provenance_checks", "decisions", "images", "responses", "webhook_event_types")
    }


@pytest.mark.parametrize(
    ("call", "model"),
    [
        ("POST /responses", ModelIn.JSON),
        ("POST /audio/transcriptions", ModelIn.FORM),
        ("GET /assistants", ModelIn.NOWHERE),
        ("POST /assistants", ModelIn.JSON),
        ("POST /files", ModelIn.NOWHERE),
        ("GET /batches", ModelIn.NOWHERE),
        ("POST /batches", ModelIn.ELSEWHERE),
        ("POST /realtime/client_secrets", ModelIn.ELSEWHERE),
    ],
)
def test_a_rule_says_where_the_model_is(call: str, model: ModelIn) -> None:
    assert rule(*call.split()).model is model


SEGMENTS = st.sampled_from([b"v1", b"files", b"responses", b"compact", b"..", b"%2e", b"", b"x", b"content", b"\xff%"])


@given(st.lists(SEGMENTS).map(b"/".join) | st.binary())
def test_any_bytes_are_known_or_not(path: bytes) -> None:
    known = find(path)
    assert known is None or (known.rules and path.endswith(known.upstream))


def test_finding_is_quick() -> None:
    """Nine segments, three of them anything, take six times as long as one."""

    def seconds(path: bytes) -> float:
        return cpu_seconds(lambda: [find(path) for _ in range(1000)])

    assert seconds(b"/v1/agents/sessions/s/subagents/a/turns/t/items") < 30 * seconds(b"/v1/files")
