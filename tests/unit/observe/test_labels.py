"""Every value that a label can have is of a closed set: nothing from outside becomes a series."""

import ast
import itertools
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import tollway
from fakes.usages import told
from tollway.dataplane.books import _ENDINGS, OUTCOMES
from tollway.dataplane.calls import Cut
from tollway.domain import endings
from tollway.domain.failures import FailureKind, UpstreamFailure
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
    ProviderKeyRequired,
    Refusal,
    RevokedKey,
    TooFast,
    TooLarge,
    TooManyAtOnce,
)
from tollway.observe.metrics import FAMILIES, MAX_SERIES, REFUSALS, STATUSES, Gauges, Metrics
from tollway.routing.retry import Step, decide
from tollway.wire.openai_errors import to_http

SOURCE = Path(tollway.__file__).parent
USAGE = told(input_tokens=1, output_tokens=1)


def codes_of_bad_requests() -> Iterator[str]:
    """Every code that any part of the code gives a BadRequest or a NotAdministrator, and every table of codes."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            place = {"BadRequest": 2, "NotAdministrator": 1}.get(getattr(getattr(node, "func", None), "id", ""))
            if isinstance(node, ast.Call) and place is not None:
                given = [*node.args[place : place + 1], *(word.value for word in node.keywords if word.arg == "code")]
                yield from (code.value for code in given if isinstance(code, ast.Constant) and code.value)
            if isinstance(node, ast.Assign) and any(getattr(name, "id", "") == "_CODES" for name in node.targets):
                yield from (
                    pair.elts[1].value
                    for pair in ast.walk(node.value)
                    if isinstance(pair, ast.Tuple) and len(pair.elts) == 2 and isinstance(pair.elts[1], ast.Constant)
                )
            if isinstance(node, ast.Assign) and any(getattr(name, "id", "") == "code" for name in node.targets):
                yield from (
                    leaf.value
                    for leaf in ast.walk(node.value)
                    if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str) and leaf.value.islower()
                    and "_" in leaf.value and " " not in leaf.value
                )  # fmt: skip


def failures() -> Iterator[UpstreamFailure]:
    """As a hostile provider may make them: codes, types and statuses of its own. What was not sent is our own word."""
    sent = [kind for kind in FailureKind if kind is not FailureKind.UNSUPPORTED]
    for code in ("unsupported_parameter", "unsupported_value", "unsupported_endpoint"):
        yield UpstreamFailure(FailureKind.UNSUPPORTED, "m", code=code)
    for kind, status in itertools.product(sent, (0, 400, 404, 409, 413, 429, 500, 503, 599)):
        yield UpstreamFailure(kind, "m", status, code="code_of_acme", type="type_of_acme", param="param_of_acme")


def refusals() -> Iterator[Refusal]:
    yield from (
        BadKey(),
        ExpiredKey(),
        RevokedKey(),
        KeysUnavailable(),
        CannotAccount(),
        ControlPlaneAway(),
        Draining(),
        Overloaded(),
    )
    yield from (ModelNotFound("m"), ModelNotAllowed("m"), ProviderKeyRequired("p"), ProviderKeyRequired("p", "file"))
    yield from (TooFast("requests", 1, 1, 1, 1.0), TooLarge("tokens", 1, 2), TooManyAtOnce(1))
    yield from (BadRequest("m"), NoAnswer(()))
    yield from (BadRequest("m", None, code) for code in codes_of_bad_requests())
    for failure in failures():
        returned = decide(failure) is Step.RETURN
        if returned or failure.kind is FailureKind.UNSUPPORTED:
            yield from (ClientFault(failure), ClientFault(failure, True))
        if not returned:
            yield NoAnswer((("m", failure),))


def test_every_refusal_that_there_can_be_is_counted_under_a_word_of_ours() -> None:
    labels = {to_http(refusal).label for refusal in refusals()}
    assert labels <= REFUSALS
    edge = {"invalid_http_request", "request_too_large", "server_error"}  # what the HTTP server itself refuses
    unused = REFUSALS - labels - edge
    assert not unused, "nobody is refused so"


def test_every_way_in_which_a_call_ends_is_an_ending() -> None:
    assert {to_http(refusal).ending for refusal in refusals()} <= endings.ENDINGS
    assert set(_ENDINGS) == OUTCOMES
    assert set(_ENDINGS.values()) <= endings.ENDINGS
    assert {kind.value for kind in FailureKind} | {cut.value for cut in Cut} < OUTCOMES


def test_what_is_of_no_set_counts_as_other() -> None:
    counted = Metrics()
    for number in range(3 * MAX_SERIES):
        counted.refused(f"code_{number}_acme")
        counted.answered("m", "p", number, 1.0, USAGE)
    samples = counted.report(Gauges()).samples
    assert samples["tollway_refusals_total"] == [(("other",), [3 * MAX_SERIES])]
    statuses = {labels[2] for labels, _ in samples["tollway_requests_total"]}
    assert statuses == {"other", *map(str, STATUSES)}


def test_no_family_has_a_label_of_which_nobody_has_thought() -> None:
    """Of the configuration: model, provider, target. Of closed sets: all others; a reason is ``Unready``'s."""
    labels = {label for family in FAMILIES.values() for label in family.labels}
    assert labels == {"model", "provider", "target", "status", "kind", "outcome", "code", "reason"}


@pytest.mark.parametrize("ending", sorted(endings.ENDINGS - {endings.OK}))
def test_each_call_is_counted_once_by_how_it_ended(ending: str) -> None:
    counted = Metrics()
    for _ in range(5):
        counted.answered("m", "p", 200, 1.0, USAGE)
    counted.answered("m", "p", 200, 1.0, USAGE)
    counted.ended(ending, answered=True)
    counted.ended(ending)
    counted.served()
    found = {labels[0]: value for labels, (value,) in counted.report(Gauges()).samples["tollway_calls_total"]}
    assert found == {**dict.fromkeys(endings.ENDINGS, 0), "ok": 6, ending: 2}
    error_rate = sum(count for outcome, count in found.items() if outcome != "ok") / sum(found.values())
    assert error_rate == 0.25


def test_a_code_of_the_providers_reaches_its_client_and_no_label() -> None:
    error = to_http(ClientFault(UpstreamFailure(FailureKind.REQUEST, "m", 400, "code_1_acme")))
    assert msgspec.json.decode(error.body)["error"]["code"] == "code_1_acme"
    assert error.code == "code_1_acme"
    assert error.label == "request_refused"
