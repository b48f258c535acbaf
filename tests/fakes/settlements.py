"""Settlements and intents for tests."""

import itertools
from decimal import Decimal

import msgspec

from tollway.accounting.records import Intent, Settlement
from tollway.domain.prices import Rate, price_of
from tollway.domain.usage import Bucket

PRICE = price_of([Rate(Bucket.INPUT, Decimal(1)), Rate(Bucket.OUTPUT, Decimal(2))])
"""One dollar for a million tokens that go in, two for those that come out."""

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


def intent_of(record: Settlement, price_id: int = 0, prompt_tokens: int = 100) -> Intent:
    """What was noted before the attempt was sent that came to this."""
    return Intent(
        record.call_id,
        record.attempt,
        record.key_id,
        record.model,
        record.provider,
        record.upstream_model,
        record.operation,
        record.stream,
        record.started_unix,
        record.revision,
        price_id,
        prompt_tokens,
    )
