"""Settlements for tests."""

import itertools

import msgspec

from tollway.accounting.records import Settlement

_numbers = itertools.count(10_000_000)  # all of one length

_TYPICAL = Settlement(
    attempt_id="",
    call_id="req_1",
    attempt=1,
    key_id="key_1",
    model="gpt-4.1-mini",
    provider="openai",
    upstream_model="gpt-4.1-mini",
    started_unix=1_700_000_000.5,
    duration_ms=812.4,
    first_byte_ms=None,
    status=200,
    outcome="ok",
    stream=False,
    state="exact",
    input_tokens=100,
    cached_input_tokens=20,
    output_tokens=50,
    reasoning_tokens=10,
    cost=114_000_000,
    scale=12,
    priced=True,
    charged=True,
    price_input=400_000,
    price_cached=100_000,
    price_output=1_600_000,
    revision=7,
    operation="chat/completions",
)


def settlement(**changes: object) -> Settlement:
    """A typical settlement with an attempt id of its own, and with these changes."""
    return msgspec.structs.replace(_TYPICAL, **{"attempt_id": f"attempt_{next(_numbers)}", **changes})
