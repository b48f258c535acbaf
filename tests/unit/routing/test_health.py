import pytest

from tollway.domain.failures import FailureKind, UpstreamFailure
from tollway.domain.keys import KeyId
from tollway.routing.health import (
    ACCOUNT_REST_S,
    FORGET_S,
    MAX_FAILURES_IN_A_ROW,
    MAX_REST_S,
    MAX_RETRY_AFTER_S,
    MIN_RESULTS,
    PROBE_S,
    REST_S,
    WINDOW_S,
    Health,
    State,
)
from tollway.routing.retry import MIN_RETRIES, RetryBudget
from tollway.routing.snapshot import NOTHING, KeyGrant, Provider, Target

OPENAI = Provider("openai", "openai", "https://openai.example/v1")
MISTRAL = Provider("mistral", "mistral", "https://mistral.example/v1")
A = Target("a", "a", OPENAI, None)
OTHER_A = Target("a2", "a2", OPENAI, None)
B = Target("b", "b", MISTRAL, None)
ALICE = KeyGrant(KeyId("key_alice"), None, None, None, None, False, NOTHING)
BOB = KeyGrant(KeyId("key_bob"), None, None, None, None, False, {"openai": "v1.bobs.secret"})

DOWN = UpstreamFailure(FailureKind.SERVER, "500")


def failure(kind: FailureKind, retry_after_s: float | None = None, status: int = 0) -> UpstreamFailure:
    return UpstreamFailure(kind, "it failed", status, retry_after_s=retry_after_s)


@pytest.fixture
def health() -> Health:
    return Health(RetryBudget())


def order(health: Health, now: float, grant: KeyGrant = ALICE, *targets: Target) -> list[Target]:
    return list(health.order(targets or (A, B), grant, now))


def take_down(health: Health, target: Target, now: float, grant: KeyGrant = ALICE, why: UpstreamFailure = DOWN) -> None:
    for _ in range(MAX_FAILURES_IN_A_ROW):
        health.failed(target, grant, why, now)


def test_targets_are_tried_in_their_own_order_while_all_are_well(health: Health) -> None:
    assert health.order((A, B), ALICE, 0.0) == (A, B)


def test_a_target_that_keeps_failing_is_tried_last(health: Health) -> None:
    take_down(health, A, 10.0)
    assert order(health, 10.1) == [B, A]


def test_a_few_failures_between_successes_change_nothing(health: Health) -> None:
    for tick in range(100):
        health.failed(A, ALICE, DOWN, tick / 10)
        health.succeeded(A, ALICE, tick / 10)
        health.succeeded(A, ALICE, tick / 10)
    assert order(health, 10.0) == [A, B]


def test_half_of_many_results_failing_rests_a_target_that_never_fails_often_in_a_row(health: Health) -> None:
    for tick in range(MIN_RESULTS // 2):
        assert order(health, 1.0)[0] is A
        health.failed(A, ALICE, DOWN, tick / 10)
        health.succeeded(A, ALICE, tick / 10)
    health.failed(A, ALICE, DOWN, 1.1)
    assert order(health, 1.2) == [B, A]


def test_failures_far_apart_are_not_added_up(health: Health) -> None:
    for number in range(MIN_RESULTS * 2):
        health.failed(A, ALICE, DOWN, number * WINDOW_S)
        health.succeeded(A, ALICE, number * WINDOW_S + 1)
    assert order(health, MIN_RESULTS * 2 * WINDOW_S) == [A, B]


def test_the_only_target_is_tried_even_while_it_rests(health: Health) -> None:
    take_down(health, A, 10.0)
    for _ in range(50):
        assert order(health, 10.1, ALICE, A) == [A]


def test_when_all_rest_the_one_that_is_back_first_is_tried_first(health: Health) -> None:
    take_down(health, B, 9.0)
    take_down(health, A, 10.0)
    assert order(health, 10.1) == [B, A]


def test_resting_targets_are_second_attempts_only_within_the_retry_budget(health: Health) -> None:
    take_down(health, A, 10.0)
    take_down(health, B, 10.0)
    attempts = [len(order(health, 10.1)) for _ in range(MIN_RETRIES + 2)]
    assert attempts == [2] * MIN_RETRIES + [1, 1]


def test_healthy_fallbacks_need_no_budget(health: Health) -> None:
    take_down(health, A, 10.0)
    assert all(order(health, 10.1)[0] is B for _ in range(50))


def test_after_its_rest_one_call_at_a_time_probes_a_target(health: Health) -> None:
    take_down(health, A, 10.0)
    then = 10.0 + REST_S
    first = iter(health.order((A, B), ALICE, then))
    assert next(first) is A
    assert order(health, then)[0] is B
    health.succeeded(A, ALICE, then + 1)
    assert health.order((A, B), ALICE, then + 1) == (A, B)


def test_a_call_that_never_reaches_a_target_does_not_use_up_its_probe(health: Health) -> None:
    take_down(health, A, 10.0)
    then = 10.0 + REST_S
    assert next(iter(health.order((B, A), ALICE, then))) is B
    assert order(health, then)[0] is A


def test_a_probe_that_is_never_heard_of_again_lets_another_one_start(health: Health) -> None:
    take_down(health, A, 10.0)
    then = 10.0 + REST_S
    assert order(health, then)[0] is A
    assert order(health, then + PROBE_S - 1)[0] is B
    assert order(health, then + PROBE_S)[0] is A


def test_every_failed_probe_doubles_the_rest_up_to_a_limit(health: Health) -> None:
    take_down(health, A, 0.0)
    now, rests = 0.0, []
    for _ in range(20):
        start = now
        while order(health, now)[0] is not A:
            now += 0.5
        rests.append(now - start)
        health.failed(A, ALICE, DOWN, now)
    assert rests[:5] == [5, 10, 20, 40, 60]
    assert set(rests[5:]) == {MAX_REST_S}


def test_answers_to_calls_that_began_before_the_rest_do_not_end_it(health: Health) -> None:
    take_down(health, A, 10.0)
    health.succeeded(A, ALICE, 10.5)
    assert order(health, 11.0)[0] is B


def test_failures_of_calls_that_began_before_the_rest_do_not_prolong_it(health: Health) -> None:
    for _ in range(50):
        health.failed(A, ALICE, DOWN, 10.0)
    assert order(health, 10.0 + REST_S)[0] is A


@pytest.mark.parametrize(
    ("asked_s", "rest_s"),
    [(20.0, 20.0), (0.0, 1.0), (-1.0, 1.0), (1e9, MAX_RETRY_AFTER_S), (float("nan"), 1.0), (float("inf"), 60.0)],
)
def test_a_provider_gets_the_rest_it_asks_for_within_reason(health: Health, asked_s: float, rest_s: float) -> None:
    health.failed(A, ALICE, failure(FailureKind.BUSY, asked_s), 10.0)
    assert order(health, 10.0 + rest_s - 0.1)[0] is B
    assert order(health, 10.0 + rest_s)[0] is A


def test_a_server_error_that_names_a_time_rests_the_target_at_once(health: Health) -> None:
    health.failed(A, ALICE, failure(FailureKind.SERVER, 30.0), 10.0)
    assert order(health, 39.9)[0] is B


@pytest.mark.parametrize("kind", [FailureKind.BUSY, FailureKind.QUOTA, FailureKind.CREDENTIAL, FailureKind.MODEL])
def test_what_one_keys_provider_account_did_wrong_does_not_rest_the_target_for_others(
    health: Health, kind: FailureKind
) -> None:
    health.failed(A, BOB, failure(kind, 30.0), 10.0)
    assert order(health, 10.5, BOB)[0] is B
    assert order(health, 10.5, ALICE)[0] is A


def test_one_refusal_of_a_credential_hides_nothing(health: Health) -> None:
    health.failed(A, BOB, failure(FailureKind.CREDENTIAL, status=401), 10.0)
    assert order(health, 10.5, BOB) == [A, B]


def test_an_account_without_money_rests_at_once_with_all_its_models(health: Health) -> None:
    health.failed(A, BOB, failure(FailureKind.QUOTA, status=402), 10.0)
    assert order(health, 10.5, BOB, OTHER_A, B)[0] is B
    assert order(health, 10.5, ALICE)[0] is A
    assert order(health, 10.5, BOB, A) == [A], "what is all that there is is tried nevertheless"
    assert order(health, 10.0 + ACCOUNT_REST_S, BOB)[0] is A


def test_keys_that_use_the_platforms_credential_share_its_fate(health: Health) -> None:
    other = KeyGrant(KeyId("key_carol"), None, None, None, None, False, {"mistral": "v1.carols.secret"})
    take_down(health, A, 10.0, ALICE, failure(FailureKind.CREDENTIAL, status=401))
    assert order(health, 10.5, other)[0] is B
    assert order(health, 10.5, BOB)[0] is A


def test_a_refused_credential_parks_all_models_of_that_provider(health: Health) -> None:
    take_down(health, A, 10.0, BOB, failure(FailureKind.CREDENTIAL, status=401))
    assert order(health, 10.5, BOB, OTHER_A, B)[0] is B
    assert order(health, 10.0 + ACCOUNT_REST_S, BOB, OTHER_A, B)[0] is OTHER_A


def test_a_forbidden_model_parks_only_itself(health: Health) -> None:
    take_down(health, A, 10.0, BOB, failure(FailureKind.CREDENTIAL, status=403))
    assert order(health, 10.5, BOB)[0] is B
    assert order(health, 10.5, BOB, OTHER_A, B)[0] is OTHER_A


def test_a_corrected_credential_address_or_model_is_tried_at_once(health: Health) -> None:
    take_down(health, A, 10.0, BOB, failure(FailureKind.CREDENTIAL, status=401))
    corrected = KeyGrant(BOB.id, None, None, None, None, False, {"openai": "v1.bobs.new.secret"})
    assert order(health, 10.5, corrected)[0] is A
    take_down(health, A, 20.0)
    elsewhere = Target("a", "a", Provider("openai", "openai", "https://moved.example/v1"), None)
    assert order(health, 20.5, ALICE, elsewhere, B)[0] is elsewhere
    renamed = Target("a", "a-2", OPENAI, None)
    assert order(health, 20.5, ALICE, renamed, B)[0] is renamed


@pytest.mark.parametrize("kind", [FailureKind.REQUEST, FailureKind.CONTEXT, FailureKind.CONTENT])
def test_a_request_that_was_wrong_says_that_the_target_is_well(health: Health, kind: FailureKind) -> None:
    take_down(health, A, 10.0)
    then = 10.0 + REST_S
    order(health, then)
    health.failed(A, ALICE, failure(kind, status=400), then)
    assert health.order((A, B), ALICE, then) == (A, B)


@pytest.mark.parametrize("kind", [FailureKind.NO_CREDENTIAL, FailureKind.UNSUPPORTED, FailureKind.OVERLOADED])
def test_what_was_never_sent_says_nothing_about_the_target(health: Health, kind: FailureKind) -> None:
    for _ in range(100):
        health.failed(A, ALICE, failure(kind), 10.0)
    assert health.order((A, B), ALICE, 10.0) == (A, B)


@pytest.mark.parametrize("kind", FailureKind)
def test_a_target_that_is_well_again_is_tried_again_in_bounded_time(health: Health, kind: FailureKind) -> None:
    for now in range(200):
        health.failed(A, ALICE, failure(kind, 1e9, 401), float(now))
    assert order(health, 200 + FORGET_S)[0] is A


def test_nothing_is_kept_about_what_is_well(health: Health) -> None:
    health.failed(A, ALICE, DOWN, 10.0)
    health.succeeded(A, ALICE, 10.0 + WINDOW_S)
    assert health._circuits == {}


def test_what_is_kept_is_bounded_by_what_failed_lately(health: Health) -> None:
    for number in range(10_000):
        target = Target(f"m{number}", f"m{number}", OPENAI, None)
        health.failed(target, ALICE, DOWN, float(number))
    assert len(health._circuits) < 2_500


def test_the_metrics_are_told_which_targets_are_not_well(health: Health) -> None:
    take_down(health, A, 10.0)
    health.failed(B, ALICE, DOWN, 10.0)
    take_down(health, OTHER_A, 10.0, ALICE, failure(FailureKind.CREDENTIAL, status=401))
    assert dict(health.states(11.0)) == {("openai", "a"): State.OPEN, ("openai", ""): State.OPEN}
    assert dict(health.states(15.0)) == {("openai", "a"): State.HALF_OPEN, ("openai", ""): State.OPEN}


def test_the_metrics_are_not_told_of_every_keys_own_credential(health: Health) -> None:
    take_down(health, A, 10.0, BOB, failure(FailureKind.CREDENTIAL, status=401))
    assert dict(health.states(11.0)) == {}


def test_a_target_is_as_unwell_as_the_worst_that_is_known_of_it(health: Health) -> None:
    take_down(health, A, 10.0)
    health.failed(A, ALICE, failure(FailureKind.BUSY, 30.0), 10.0)
    assert dict(health.states(10.0 + REST_S)) == {("openai", "a"): State.OPEN}
