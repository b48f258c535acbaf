"""Refusals as clients see them: statuses, codes and truthful headers."""

import json

import msgspec
import pytest

from tollway.domain.failures import FailureKind, Said, UpstreamFailure
from tollway.domain.refusals import (
    BadKey,
    BadRequest,
    CannotAccount,
    ClientFault,
    ControlPlaneAway,
    Draining,
    ExpiredKey,
    KeysUnavailable,
    ModelNotAllowed,
    ModelNotFound,
    NoAnswer,
    Overloaded,
    Refusal,
    RevokedKey,
    TooFast,
    TooLarge,
)
from tollway.wire.openai_errors import HttpError, error_event, to_http

K = FailureKind


def seen(refusal: Refusal) -> tuple[int, str, dict[str, str], dict[str, str | None]]:
    answer = to_http(refusal)
    assert answer.headers == b"" or answer.headers.endswith(b"\r\n")
    lines = answer.headers.decode().split("\r\n")[:-1]
    headers = dict(line.split(": ", 1) for line in lines)
    error = json.loads(answer.body)["error"]
    assert list(error) == ["message", "type", "param", "code"]
    return answer.status, error["code"], headers, error


def no_answer(*kinds: FailureKind | UpstreamFailure) -> tuple[int, str, dict[str, str], dict[str, str | None]]:
    failures = [kind if isinstance(kind, UpstreamFailure) else UpstreamFailure(kind, "SECRET") for kind in kinds]
    return seen(NoAnswer(tuple((f"model-{number}", failure) for number, failure in enumerate(failures))))


@pytest.mark.parametrize(
    ("refusal", "status", "code", "param"),
    [
        (BadKey(), 401, "invalid_api_key", None),
        (ExpiredKey(), 401, "expired_api_key", None),
        (RevokedKey(), 401, "revoked_api_key", None),
        (KeysUnavailable(), 503, "keys_unavailable", None),
        (BadRequest("no", "n", "invalid_value"), 400, "invalid_value", "n"),
        (BadRequest("big", None, "request_too_large", 413), 413, "request_too_large", None),
        (ModelNotFound("m"), 400, "model_not_found", "model"),
        (ModelNotFound("m", 404), 404, "model_not_found", "model"),
        (ModelNotAllowed("m"), 403, "model_not_allowed", "model"),
        (TooFast("requests", 5, 5, 1, 1.5), 429, "rate_limit_exceeded", None),
        (TooLarge("tokens", 5, 6), 429, "rate_limit_exceeded", None),
        (CannotAccount(), 503, "accounting_unavailable", None),
        (ControlPlaneAway(), 503, "control_plane_away", None),
        (Draining(), 503, "draining", None),
        (Overloaded(), 503, "overloaded", None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_refusal_has_its_status_and_code(refusal: Refusal, status: int, code: str, param: str | None) -> None:
    answer = seen(refusal)
    assert (answer[0], answer[1], answer[3]["param"]) == (status, code, param)


def test_a_bad_key_is_challenged() -> None:
    assert seen(BadKey())[2] == {"www-authenticate": "Bearer", "x-should-retry": "false"}


@pytest.mark.parametrize(
    "refusal",
    [BadKey(), ExpiredKey(), RevokedKey(), ModelNotFound("m"), ModelNotFound("m", 404), ModelNotAllowed("m")],
    ids=lambda value: type(value).__name__,
)
def test_a_wrong_key_or_model_is_not_tried_again(refusal: Refusal) -> None:
    assert seen(refusal)[2]["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("wait_s", "seconds", "milliseconds", "text"),
    [(0.0, "1", "1", "1ms"), (0.1735, "1", "174", "174ms"), (1.0, "1", "1000", "1s"), (6.5955, "7", "6596", "6.596s")],
)
def test_waiting_times_are_true_and_rounded_up(wait_s: float, seconds: str, milliseconds: str, text: str) -> None:
    _, _, headers, error = seen(TooFast("tokens", 100, 90, 20, wait_s))
    assert headers == {"retry-after": seconds, "retry-after-ms": milliseconds}
    assert error["type"] == "tokens"
    assert error["message"] == (
        "Rate limit reached for this API key on tokens per min (TPM): Limit 100, Used 90, Requested 20. "
        f"Please try again in {text}."
    )


@pytest.mark.parametrize("refusal", [KeysUnavailable(), CannotAccount(), ControlPlaneAway(), Draining(), Overloaded()])
def test_what_passes_may_be_tried_again(refusal: Refusal) -> None:
    headers = seen(refusal)[2]
    assert int(headers["retry-after"]) * 1000 == int(headers["retry-after-ms"])


def test_what_never_fits_is_not_tried_again() -> None:
    assert seen(TooLarge("tokens", 5, 6))[2] == {"x-should-retry": "false"}


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (UpstreamFailure(K.REQUEST, "bad", 422, "c", param="p"), 400),
        (UpstreamFailure(K.REQUEST, "bad", 413, "c", param="p"), 413),
        (UpstreamFailure(K.REQUEST, "bad", 0, "c", param="p"), 400),
        (UpstreamFailure(K.CONTENT, "bad", 403, "c", param="p"), 400),
    ],
)
def test_a_fault_of_the_client_is_told_as_the_provider_told_it(failure: UpstreamFailure, status: int) -> None:
    answer = seen(ClientFault(failure))
    assert answer[0] == status
    assert answer[2] == {}
    assert answer[3] == {"message": "bad", "type": "invalid_request_error", "param": "p", "code": "c"}


@pytest.mark.parametrize(
    ("kinds", "status", "code"),
    [
        ([K.CONNECT], 502, "upstream_connection_error"),
        ([K.TIMEOUT], 504, "upstream_timeout"),
        ([K.TIMEOUT, K.SERVER], 502, "upstream_error"),
        ([K.SERVER, K.TIMEOUT], 504, "upstream_timeout"),
        ([K.TIMEOUT, K.UNSUPPORTED], 504, "upstream_timeout"),
        ([K.BROKEN], 502, "upstream_connection_error"),
        ([K.INVALID], 502, "upstream_invalid_response"),
        ([K.CREDENTIAL], 502, "upstream_auth_error"),
        ([K.MODEL], 502, "upstream_model_not_found"),
        ([K.BUSY], 429, "rate_limit_exceeded"),
        ([K.BUSY, K.BUSY, K.UNSUPPORTED, K.NO_CREDENTIAL], 429, "rate_limit_exceeded"),
        ([K.BUSY, K.QUOTA], 429, "rate_limit_exceeded"),
        ([K.QUOTA, K.QUOTA], 429, "insufficient_quota"),
        ([K.BUSY, K.SERVER], 502, "upstream_error"),
        ([K.QUOTA, K.SERVER], 502, "upstream_error"),
        ([K.SERVER, K.UNSUPPORTED], 502, "upstream_error"),
        ([K.NO_CREDENTIAL], 503, "no_provider_key"),
        ([K.OVERLOADED], 503, "overloaded"),
        ([K.BUSY, K.OVERLOADED], 503, "overloaded"),
        ([K.SERVER, K.OVERLOADED], 502, "overloaded"),
        ([], 503, "no_provider_key"),
    ],
)
def test_what_failed_decides_the_status(kinds: list[FailureKind], status: int, code: str) -> None:
    answer = no_answer(*kinds)
    assert answer[:2] == (status, code)
    soon = {"retry-after": "1", "retry-after-ms": "1000"}  # no provider has said when: as soon as without a gateway
    assert answer[2] == (soon if code == "rate_limit_exceeded" else {"x-should-retry": "false"})


def test_overload_everywhere_is_overload() -> None:
    overloaded = UpstreamFailure(K.SERVER, "", 503)
    assert no_answer(overloaded, overloaded)[0] == 503
    assert no_answer(overloaded, K.BUSY)[0] == 503
    assert no_answer(overloaded, UpstreamFailure(K.SERVER, "", 500))[0] == 502
    asks = UpstreamFailure(K.SERVER, "", 503, retry_after_s=2.5)
    assert no_answer(overloaded, asks)[2] == {"retry-after": "3", "retry-after-ms": "2500"}


def test_a_conflict_stays_one() -> None:
    conflict = UpstreamFailure(K.SERVER, "", 409)
    assert no_answer(K.CONNECT, conflict)[0] == 409
    assert no_answer(conflict, conflict)[2] == {"x-should-retry": "false"}
    assert no_answer(conflict, K.CONNECT)[0] == 502


def test_the_providers_word_for_no_money_is_kept() -> None:
    spent = UpstreamFailure(K.QUOTA, "", 429, "credit_balance_exhausted", retry_after_s=2.0)
    status, code, headers, error = no_answer(spent, K.UNSUPPORTED)
    assert (status, code, error["type"]) == (429, "credit_balance_exhausted", "insufficient_quota")
    assert headers == {"x-should-retry": "false"}
    assert b"credit_balance_exhausted" in error_event(spent)


def test_the_shortest_true_wait_is_passed_on() -> None:
    def busy(wait_s: float | None) -> UpstreamFailure:
        return UpstreamFailure(K.BUSY, "", 429, retry_after_s=wait_s)

    assert no_answer(busy(7.2), busy(None), busy(3.5))[2] == {"retry-after": "4", "retry-after-ms": "3500"}
    assert no_answer(busy(7.2), K.SERVER)[2] == {"x-should-retry": "false"}
    assert no_answer(UpstreamFailure(K.QUOTA, "", 429, retry_after_s=2.0))[2] == {"x-should-retry": "false"}


def test_all_that_was_tried_is_listed_in_our_own_words() -> None:
    message = no_answer(UpstreamFailure(K.SERVER, "SECRET", 500), K.TIMEOUT)[3]["message"]
    assert message == (
        "No provider could answer (model-0: the provider failed (status 500); model-1: the provider took too long)."
    )


def said(kind: FailureKind, message: str = "Overloaded by cats", **members: object) -> UpstreamFailure:
    """A failure with the provider's words."""
    own_key_at = str(members.pop("own_key_at", ""))
    words = Said(message, **{"code": "E42", "type": "overloaded_error", **members})  # type: ignore[arg-type]
    return UpstreamFailure(kind, "ours", 503, said=words, own_key_at=own_key_at)


def told_midway(failure: UpstreamFailure) -> tuple[str, str, str]:
    error = json.loads(error_event(failure)[6:])["error"]
    return error["message"], error["code"], error["type"]


@pytest.mark.parametrize("kind", [K.SERVER, K.BUSY, K.TIMEOUT, K.INVALID, K.MODEL])
def test_in_mid_stream_a_provider_keeps_its_words(kind: FailureKind) -> None:
    assert told_midway(said(kind)) == ("Overloaded by cats", "E42", "overloaded_error")


def test_in_mid_stream_what_it_did_not_say_is_ours() -> None:
    bare = said(K.SERVER, code="", type="")
    assert told_midway(bare) == ("Overloaded by cats", "upstream_error", "server_error")
    silent = said(K.SERVER, "")
    assert told_midway(silent) == ("The answer ended early: the provider failed.", "upstream_error", "server_error")


@pytest.mark.parametrize(
    ("failure", "ours"),
    [
        (said(K.QUOTA), "the account at the provider has no quota left"),
        (said(K.CREDENTIAL), "the provider refused the gateway's credential"),
        (said(K.BUSY, of_an_account=True), "the provider's rate limit is reached"),
        (said(K.SERVER, of_an_account=True), "the provider failed"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.kind.value,
)
def test_what_a_provider_says_of_an_account_is_for_its_owner(failure: UpstreamFailure, ours: str) -> None:
    message, code, type_ = told_midway(failure)
    assert message == f"The answer ended early: {ours}."
    assert "E42" not in code and "overloaded" not in type_
    own = msgspec.structs.replace(failure, own_key_at="openai")
    assert told_midway(own) == ("Overloaded by cats", "E42", "overloaded_error")


def test_before_an_answer_nothing_of_a_provider_is_told_whoever_owns_the_account() -> None:
    for kind in FailureKind:
        for own_key_at in ("", "openai"):
            assert b"cats" not in to_http(NoAnswer((("m", said(kind, own_key_at=own_key_at)),))).body


def test_the_keys_own_account_is_called_so() -> None:
    def reason(kind: FailureKind) -> str:
        return str(no_answer(UpstreamFailure(kind, "", 400, own_key_at="openai"))[3]["message"])

    assert reason(K.CREDENTIAL) == (
        "No provider could answer (model-0: the provider refused the API key's own provider key for openai)."
    )
    assert "the API key's own account at openai has no quota left" in reason(K.QUOTA)
    assert "the rate limit of the API key's own account at openai is reached" in reason(K.BUSY)
    assert reason(K.SERVER) == "No provider could answer (model-0: the provider failed)."
    assert "gateway's credential" in str(no_answer(K.CREDENTIAL)[3]["message"])


@pytest.mark.parametrize("status", [0, 400, 413, 422, 500, 503])
@pytest.mark.parametrize("as_is", [False, True])
def test_a_prompt_that_is_too_long_is_a_400(status: int, as_is: bool) -> None:
    failure = UpstreamFailure(K.CONTEXT, "long", status, "context_length_exceeded", param="messages")
    assert seen(ClientFault(failure, as_is))[:2] == (400, "context_length_exceeded")


def test_a_failure_of_the_server_that_is_the_clients_fault_is_no_500() -> None:
    assert seen(ClientFault(UpstreamFailure(K.REQUEST, "bad", 500), True))[0] == 400
    assert seen(ClientFault(UpstreamFailure(K.REQUEST, "bad", 409), True))[0] == 409


@pytest.mark.parametrize(
    ("refusal", "label", "ending"),
    [
        (BadKey(), "invalid_api_key", "refused"),
        (BadRequest("no"), "invalid_request_error", "client_error"),
        (BadRequest("no", code="model_not_allowed", status=403), "model_not_allowed", "refused"),
        (ModelNotFound("m", 404), "model_not_found", "client_error"),
        (TooFast("requests", 1, 1, 1, 1.0), "rate_limit_exceeded", "refused"),
        (ClientFault(UpstreamFailure(K.REQUEST, "m", 400, "code_1_acme")), "request_refused", "client_error"),
        (ClientFault(UpstreamFailure(K.CONTEXT, "m", 400, "x")), "context_length_exceeded", "client_error"),
        (
            ClientFault(UpstreamFailure(K.UNSUPPORTED, "m", 0, "unsupported_endpoint")),
            "unsupported_endpoint",
            "client_error",
        ),
        (NoAnswer((("m", UpstreamFailure(K.BUSY, "")),)), "upstream_rate_limit_exceeded", "provider_failed"),
        (
            NoAnswer((("m", UpstreamFailure(K.QUOTA, "", code="credit_balance_exhausted")),)),
            "upstream_insufficient_quota",
            "provider_failed",
        ),
        (NoAnswer((("m", UpstreamFailure(K.SERVER, "")),)), "upstream_error", "provider_failed"),
        (CannotAccount(), "accounting_unavailable", "gateway_failed"),
        (KeysUnavailable(), "keys_unavailable", "gateway_failed"),
        (Draining(), "draining", "refused"),
    ],
)
def test_metrics_count_by_our_own_words_only(refusal: Refusal, label: str, ending: str) -> None:
    error = to_http(refusal)
    assert (error.label, error.ending) == (label, ending)


@pytest.mark.parametrize("kind", FailureKind)
def test_only_words_about_the_request_are_a_providers_own(kind: FailureKind) -> None:
    failure = UpstreamFailure(kind, "SECRET", 500)
    shown = to_http(NoAnswer((("m", failure),)))
    assert b"SECRET" not in shown.body
    assert (b"SECRET" in error_event(failure)) is (kind in (K.REQUEST, K.CONTEXT, K.CONTENT))


def test_the_event_that_ends_a_stream_is_one_frame() -> None:
    event = error_event(UpstreamFailure(K.TIMEOUT, ""))
    assert event.startswith(b"data: {")
    assert event.endswith(b"}\n\n")
    assert event.count(b"\n") == 2
    error = json.loads(event[6:])["error"]
    assert (error["type"], error["code"]) == ("server_error", "upstream_timeout")


def test_a_long_name_is_cut() -> None:
    assert len(to_http(ModelNotFound("x" * 10_000)).body) < 400


def test_the_code_is_there_for_metrics() -> None:
    assert isinstance(to_http(BadKey()), HttpError)
    assert to_http(BadKey()).code == "invalid_api_key"
    assert to_http(BadRequest("no")).code == "invalid_request_error"
