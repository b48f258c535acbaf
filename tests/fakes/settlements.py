"""Settlements for tests."""

import itertools

import msgspec

from tollway.accounting.records import Settlement

_numbers = itertools.count(10_000_000)  # all of one length

_TYPICAL = Settlement(
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
    input=80,
    cache_read=20,
    output=40,
    reasoning=10,
    cost=114_000_000,
    scale=12,
    priced=True,
    charged=True,
    price_id=1,
    revision=7,
    operation="chat/completions",
)


def settlement(**changes: object) -> Settlement:
    """A typical settlement of a call of its own, and with these changes."""
    return msgspec.structs.replace(_TYPICAL, **{"call_id": f"req_{next(_numbers)}", **changes})
