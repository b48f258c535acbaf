"""Paths in the log are of a closed set."""

from types import SimpleNamespace

import pytest

from tollway.dataplane.routes import ROUTES
from tollway.dataplane.templates import SERVED, UNKNOWN, template_of


@pytest.mark.parametrize(
    ("method", "path", "template"),
    [
        ("POST", "/v1/chat/completions", "/v1/chat/completions"),
        ("POST", "/chat/completions", "/v1/chat/completions"),
        ("PATCH", "/v1/embeddings", "/v1/embeddings"),
        ("GET", "/v1/models/my-secret-model", "/v1/models/{model}"),
        ("GET", "/models/a/b", "/v1/models/{model}"),
        ("GET", "/v1/files/file-abc", "/v1/files/{file_id}"),
        ("PUT", "/files/file-abc", "/v1/files/{file_id}"),
        ("POST", "/api/save-keys", "/api/save-keys"),
        ("GET", "/metrics", "/metrics"),
        ("GET", "/livez", "/livez"),
        ("GET", "/v1/sk-secret", UNKNOWN),
        ("GET", "/", UNKNOWN),
        ("GET", "", UNKNOWN),
        ("OPTIONS", "*", UNKNOWN),
    ],
)
def test_a_request_is_named_by_its_template(method: str, path: str, template: str) -> None:
    request = SimpleNamespace(method=method.encode(), path=path.encode())
    assert template_of(request) == template  # type: ignore[arg-type]  # all that is looked at


def test_everything_that_is_routed_has_a_name() -> None:
    assert {path.removeprefix(b"/v1") for path in ROUTES} - {b"*"} == SERVED  # the server itself has no path
