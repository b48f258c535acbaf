"""One log line for every attempt at a provider, printed where the ledger is posted: no worker ever formats one."""

import logging
from collections.abc import Sequence

from tollway.accounting.records import Settlement
from tollway.domain.money import format_dollars

_log = logging.getLogger("tollway.requests")


def log_attempts(settlements: Sequence[Settlement]) -> None:
    """Print what the ledger now holds of each; nothing of what was said, and no key."""
    for one in settlements:
        _log.info(
            "attempt at %s ended: %s",
            one.provider,
            one.outcome,
            extra={
                "call_id": one.call_id,
                "attempt": one.attempt,
                "key_id": one.key_id,
                "model": one.model,
                "provider": one.provider,
                "upstream_model": one.upstream_model,
                "status": one.status,
                "outcome": one.outcome,
                "stream": one.stream,
                "duration_ms": round(one.duration_ms),
                "first_byte_ms": None if one.first_byte_ms is None else round(one.first_byte_ms),
                "input_tokens": one.input_tokens,
                "cached_input_tokens": one.cached_input_tokens,
                "output_tokens": one.output_tokens,
                "usage": one.state,
                "cost_usd": format_dollars(one.cost, one.scale) if one.priced else None,
                "charged": one.charged,
                "revision": one.revision,
                "cause": one.cause or None,
            },
        )
