"""What becomes of attempts whose worker died before it could say what they came to: entries by estimate.

1. An intent without a settlement was sent, or was about to be. Whoever asked for it pays for its prompt, and for what
   the last checkpoint says of the answer: the provider does not work for nothing.
2. The same attempt is found again in each file that its worker went on in, and perhaps in the ledger, where a
   settlement reached it on another way. Its entry has the same name everywhere, so it is entered once.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tollway.accounting.journal_reader import left_in_order, read_records
from tollway.accounting.records import Checkpoint, Finished, Intent, PriceCard, Record, Settlement
from tollway.domain.money import PICODOLLARS
from tollway.domain.prices import Price, price_of, read_rates
from tollway.domain.usage import Usage

LOST = "lost"
"""The outcome of an attempt whose worker died."""

_AT_ONCE = 500  # records, decoded in about a millisecond


async def lost_attempts(path: Path) -> list[Settlement]:
    """What was under way in an abandoned journal when its writer died; nothing where its writer left it in order.

    It reads the whole file, a piece at a time. Raises OSError.
    """
    if left_in_order(path):
        return []
    found = OpenAttempts()
    position = 0
    while (chunk := read_records(path, position, abandoned=True, most=_AT_ONCE, under_way=True)).position > position:
        found.follow(chunk.records)
        position = chunk.position
        await asyncio.sleep(0)
    return found.settlements()


class OpenAttempts:
    """The attempts that the records of one journal, in their order, leave open."""

    def __init__(self) -> None:
        self._intents: dict[tuple[str, int], Intent] = {}
        self._checkpoints: dict[tuple[str, int], Checkpoint] = {}
        self._cards: dict[int, str] = {}

    def follow(self, records: Sequence[Record]) -> None:
        """Take the next records."""
        for record in records:
            match record:
                case Settlement():
                    self._intents.pop((record.call_id, record.attempt), None)
                    self._checkpoints.pop((record.call_id, record.attempt), None)
                case Intent():
                    self._intents[record.call_id, record.attempt] = record
                case Checkpoint():
                    self._checkpoints[record.call_id, record.attempt] = record
                case PriceCard():
                    self._cards[record.price_id] = record.rates
                case Finished():
                    self._intents.clear()
                    self._checkpoints.clear()

    def settlements(self) -> list[Settlement]:
        """An entry for each attempt that is open."""
        prices = {price_id: _price(rates) for price_id, rates in self._cards.items()} if self._intents else {}
        return [
            _estimated(intent, self._checkpoints.get(key), prices.get(intent.price_id))
            for key, intent in self._intents.items()
        ]


def _price(rates: str) -> Price | None:
    try:
        return price_of(read_rates(rates))
    except (ValueError, msgspec.DecodeError):
        return None  # a version before or after this one made it


def _estimated(intent: Intent, seen: Checkpoint | None, price: Price | None) -> Settlement:
    usage = told = seen.usage if seen is not None else None
    if usage is None:
        has_come = seen.output_tokens if seen is not None and intent.priced else 0
        usage = Usage(intent.prompt_tokens, has_come, measured=False)
    cost, doubt = price.bill(usage) if price is not None else (0, usage.doubt)
    can_be_priced = intent.priced or told is not None
    priced = can_be_priced if price is not None else intent.priced and not usage.total_tokens
    where = "before the provider's answer began" if seen is None else "in the middle of the provider's answer"
    return Settlement(
        call_id=intent.call_id,
        attempt=intent.attempt,
        key_id=intent.key_id,
        model=intent.model,
        provider=intent.provider,
        upstream_model=intent.upstream_model,
        operation=intent.operation,
        stream=intent.stream,
        started_unix=intent.started_unix,
        duration_ms=max(0.0, seen.at_unix - intent.started_unix) * 1000 if seen is not None else 0.0,
        first_byte_ms=seen.first_byte_ms if seen is not None else None,
        status=seen.status if seen is not None else 0,
        outcome=LOST,
        state="estimated",
        input=usage.input,
        cache_read=usage.cache_read,
        output=usage.output,
        reasoning=usage.reasoning,
        cost=cost,
        scale=PICODOLLARS if price is None else price.scale,
        priced=priced,
        charged=True,
        price_id=intent.price_id,
        revision=intent.revision,
        cause=f"The gateway's process died {where}, as far as it had noted.",
        others=dict(usage.others) or None,
        service_tier=usage.service_tier,
        doubt=",".join(filter(None, (doubt, intent.doubt))),
    )
