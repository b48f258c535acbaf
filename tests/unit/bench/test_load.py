"""wrk: what it is told to send, and what it reports."""

import pytest

from bench import exchange, load
from bench.processes import BenchError

REPORT = 'bench-report {"requests": 1000, "duration_us": 2000000, "failures": %d, "p50_us": 90, "p99_us": 450}\n'


def test_a_report_is_found_among_what_wrk_says_to_people() -> None:
    output = "Running 2s test @ http://127.0.0.1:1\n  Latency  90us\n" + REPORT % 0
    assert load.parse(output) == load.Load(requests=1000, seconds=2.0, p50_us=90, p99_us=450)


def test_a_load_with_failures_measures_nothing() -> None:
    with pytest.raises(BenchError, match="3 requests failed"):
        load.parse(REPORT % 3)


def test_no_report_is_an_error_that_shows_what_wrk_said() -> None:
    with pytest.raises(BenchError, match="unable to connect"):
        load.parse("unable to connect to 127.0.0.1:1 Connection refused\n")


def test_wrk_sends_the_request_of_a_real_client_with_the_key() -> None:
    lua = load.script("sk-key")
    assert "wrk.headers['Authorization'] = 'Bearer sk-key'" in lua
    assert f"wrk.body = [==[{exchange.CHAT}]==]" in lua
