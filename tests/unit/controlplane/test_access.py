"""Who may use the admin surface."""

import pytest
from starlette.requests import Request

from tollway.controlplane.access import Access
from tollway.controlplane.errors import ApiError
from tollway.domain.keys import Secret
from tollway.settings import Settings, read

OWN = Secret("sk-tw-own")


def access(**environ: str) -> Access:
    settings = read(environ)
    assert isinstance(settings, Settings)
    return Access(settings)


def request(**headers: str) -> Request:
    lines = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": lines})


def refusal(judge: Access, asked: Request) -> tuple[int, str | None] | None:
    try:
        judge.require_admin(asked)
    except ApiError as error:
        return error.status, error.code
    return None


@pytest.mark.parametrize("host", ["localhost:3000", "127.0.0.1:3000", "LOCALHOST", "[::1]:3000", "127.0.0.1"])
def test_without_an_admin_key_this_machine_may_do_everything(host: str) -> None:
    assert refusal(access(), request(host=host)) is None


def test_the_configured_host_is_ours() -> None:
    assert refusal(access(HOST="127.0.0.9"), request(host="127.0.0.9:3000")) is None


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:3000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "[::2]:1",
        "[",
        "10.0.0.1",
    ],
)
def test_without_an_admin_key_a_strangers_host_is_refused(host: str) -> None:
    assert refusal(access(), request(host=host)) == (403, "host_not_allowed")


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:3000", ""])
def test_without_an_admin_key_web_pages_are_refused(origin: str) -> None:
    assert refusal(access(), request(host="localhost:3000", origin=origin)) == (403, "origin_not_allowed")


ADMIN = "admin-key-of-this-test"


@pytest.mark.parametrize("authorization", [f"Bearer {ADMIN}", f"bearer {ADMIN}", f"Bearer  {ADMIN} "])
def test_with_an_admin_key_its_bearer_may_do_everything_from_anywhere(authorization: str) -> None:
    asked = request(host="gateway.example", origin="http://console.example", authorization=authorization)
    assert refusal(access(ADMIN_KEY=ADMIN), asked) is None


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer ", ADMIN, f"Basic {ADMIN}", f"Bearer {ADMIN}x", f"Bearer {ADMIN[:-1]}", "Bearer \xff"],
)
def test_with_an_admin_key_nobody_else_may_do_anything(authorization: str) -> None:
    asked = request(host="localhost", authorization=authorization)
    assert refusal(access(ADMIN_KEY=ADMIN), asked) == (401, "invalid_api_key")


def test_a_virtual_key_may_change_itself_and_no_other() -> None:
    judge = access(ADMIN_KEY=ADMIN)
    judge.require_owner(request(authorization=f"Bearer {OWN.reveal()}"), OWN)
    judge.require_owner(request(authorization=f"Bearer {ADMIN}"), OWN)
    with pytest.raises(ApiError):
        judge.require_owner(request(authorization="Bearer sk-tw-other"), OWN)
    with pytest.raises(ApiError):
        judge.require_owner(request(), OWN)


def test_without_any_credential_a_request_is_refused_before_its_body_is_read() -> None:
    with pytest.raises(ApiError):
        access(ADMIN_KEY=ADMIN).require_some_credential(request(host="localhost"))
    with pytest.raises(ApiError):
        access().require_some_credential(request(host="evil.example"))
    access(ADMIN_KEY=ADMIN).require_some_credential(request(authorization="Bearer anything"))
