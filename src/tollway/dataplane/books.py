"""Writing down what every attempt used and cost, before the client sees the last byte of it.

1. Every attempt is noted before it is sent, and gets exactly one entry, whatever way it ends; where this process dies
   before that, the control plane enters it by estimate.
2. The entry is in the journal before the answer's last byte is handed to the client's connection.
3. A key pays for what reached its client, and for what was produced until its client hung up, or was read on for it
   then; the rest is entered uncharged.
4. What the provider did not count is estimated, and the entry says so: its state is ``estimated`` only where we
   counted. What a provider told and contradicted stays ``exact``, by rule and in doubt (``domain/doubts.py``).
"""

import asyncio
import logging
from collections.abc import Sequence

import msgspec

from tollway.accounting.journal import Journal, JournalFull
from tollway.accounting.records import Checkpoint, Intent, Settlement
from tollway.dataplane.calls import Attempt, Call, Clock, Cut
from tollway.domain import endings
from tollway.domain.asked import NoUsage
from tollway.domain.doubts import SEARCH_UNTOLD, joined
from tollway.domain.failures import OF_THE_REQUEST, FailureKind, UpstreamFailure, cause_of
from tollway.domain.money import PICODOLLARS
from tollway.domain.prices import UNPRICED_BUCKET, Price
from tollway.domain.unpriced import FALLBACK_PRICE
from tollway.domain.usage import Bucket, Usage
from tollway.observe.metrics import Metrics
from tollway.observe.unpriced import UnpricedAlarm
from tollway.providers.base import is_good
from tollway.wire.estimate import output_tokens_estimate, with_estimates

_log = logging.getLogger("tollway.books")

OK = "ok"
CLIENT_GONE = "client_gone"
CLIENT_FAILED = "client_failed"
"""The client did not send its request as it should."""
INTERNAL_ERROR = "internal_error"

OUTCOMES = frozenset(
    {OK, CLIENT_GONE, CLIENT_FAILED, INTERNAL_ERROR, *(kind.value for kind in FailureKind), *(cut.value for cut in Cut)}
)
"""Of attempts: a closed set."""

_ENDED_BY = {
    CLIENT_GONE: "The client hung up",
    CLIENT_FAILED: "The client did not send its request to the end",
    INTERNAL_ERROR: "A fault of the gateway ended it",
    Cut.REVOKED.value: "The gateway ended it, as the API key was revoked,",
    Cut.EXPIRED.value: "The gateway ended it, as the API key has expired,",
    Cut.DRAINED.value: "The gateway ended it, as it was told to stop,",
}
"""Who ended an attempt that no provider ended; in which phase follows."""

_ENDINGS = {
    OK: endings.OK,
    CLIENT_GONE: endings.CLIENT_GONE,
    CLIENT_FAILED: endings.CLIENT_ERROR,
    INTERNAL_ERROR: endings.GATEWAY_FAILED,
    **{cut.value: endings.CUT for cut in Cut},
    **{kind.value: endings.CLIENT_ERROR if kind in OF_THE_REQUEST else endings.PROVIDER_FAILED for kind in FailureKind},
    FailureKind.OVERLOADED.value: endings.GATEWAY_FAILED,
}
"""What a charged attempt's outcome makes of its call."""

_CLIENT_CLOSED = 499  # nginx's status for a client that did not wait

_LOST = "new calls are refused, as the journal is gone or was cut, and there can be no other one in"
_NOT_SAVED = "what was in a journal that is gone or was cut cannot be saved yet in"

_NOTHING = Usage(input=0, output=0)


class _Bill(msgspec.Struct, frozen=True, gc=False):
    """What an attempt used and costs."""

    usage: Usage
    state: str
    """As the ledger has it."""
    priced: bool
    cost: int
    """In units of ``10**-scale`` US dollars."""
    price: Price | None
    """By which it was reckoned."""
    doubt: str

    @property
    def scale(self) -> int:
        return PICODOLLARS if self.price is None else self.price.scale


_ON_THE_HOUSE = _Bill(_NOTHING, "none", priced=True, cost=0, price=None, doubt="")
_UNPRICED = _Bill(_NOTHING, "none", priced=False, cost=0, price=None, doubt="")


class Books:
    """Turns the end of an attempt into a ledger entry, the truth for the token limit, and metrics."""

    def __init__(self, journal: Journal, metrics: Metrics, now: Clock, fallback_price: Price | None = None) -> None:
        """``fallback_price`` bills the tokens of models whose price nobody knows."""
        self._journal = journal
        self._metrics = metrics
        self._now = now
        self.fallback_price = fallback_price
        self._alarm = UnpricedAlarm()
        self._failing = False  # what was lost could not be saved the last time
        self._unforced = False  # what was written could not be put on the disk the last time
        self.unfindable = False
        """Whether no call should start, because the journal is gone, and there can be no other one."""
        self.sync_failures = 0
        """How often what was written could not be put on the disk."""

    @property
    def unsaved(self) -> bool:
        """Whether something was noted that nobody finds."""
        return self.unfindable or self._journal.unsaved

    @property
    def journal_bytes(self) -> int:
        """Bytes that this worker has written to its journal."""
        return self._journal.bytes_written

    @property
    def under_way(self) -> int:
        """Attempts that are noted as sent and not yet as ended."""
        return self._journal.under_way

    def intend(self, attempt: Attempt) -> bool:
        """Note an attempt that is about to be sent; False where the disk takes no more."""
        call = attempt.call
        target = attempt.upstream.target
        price = attempt.price
        no_usage = call.operation.no_usage
        attempt.number = call.sent = call.sent + 1
        intent = Intent(  # by place, which costs a sixth of what keywords cost
            call.id,
            attempt.number,
            call.grant.id,
            call.asked.model,
            target.provider.name,
            target.upstream_model,
            call.operation.name,
            call.asked.stream,
            attempt.started_unix,
            call.snapshot.revision,
            0 if price is None else price.id,
            call.prompt_tokens if no_usage is NoUsage.ESTIMATE else 0,
            no_usage is not NoUsage.UNPRICED and (price is None or price.bills_tokens),
            FALLBACK_PRICE
            if price is not None and price is self.fallback_price and no_usage is NoUsage.ESTIMATE
            else "",
        )
        try:
            self._journal.intend(intent, price)
        except JournalFull:
            return False
        return True

    def note(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Note what of streams has come so far."""
        self._journal.note(checkpoints)

    async def sync(self) -> None:
        """Have what was noted put on the disk, beside the event loop."""
        journal = self._journal
        if not journal.unforced:
            return
        try:
            await asyncio.to_thread(journal.sync)
            self._unforced = False
        except OSError as error:
            self.sync_failures += 1
            if not self._unforced:
                _log.error("the disk may not have what the journal in %s says: %s", journal.directory, error)
            self._unforced = True

    async def rescue(self) -> None:
        """Notice a journal that is gone, and save what was in it; called once a second, and at the end."""
        journal = self._journal
        directory = journal.directory
        try:
            if journal.lost:
                self.unfindable = True
                journal.abandon()
            if self.unfindable and not journal.unsaved:
                _log.info("the journal in %s is back", directory)
            self.unfindable = False
            if journal.unsaved:
                size = await asyncio.to_thread(journal.rescue)
                _log.error("the journal in %s was gone or cut: the %d bytes of it go into another one", directory, size)
            self._failing = False
        except OSError as error:
            if not self._failing:
                _log.error("%s %s: %s", _LOST if self.unfindable else _NOT_SAVED, directory, error)
            self._failing = True

    def charge(
        self,
        attempt: Attempt,
        outcome: str,
        usage: Usage | None,
        content_bytes: int,
        *,
        partial: bool = False,
        failure: UpstreamFailure | None = None,
    ) -> int | None:
        """Enter an attempt that the key pays for; the cost in units of its price, None where nobody can tell it.

        ``content_bytes`` of generated text stand in for a missing ``usage`` where that makes sense. ``failure`` is why
        the provider ended it early. What ended well after its client had hung up is entered as that. Only the first
        call counts.
        """
        if attempt.entered:
            return None
        call = attempt.call
        if outcome == OK and call.request.closed:
            outcome, partial = CLIENT_GONE, usage is None
        bill = self._bill(attempt, outcome, usage, content_bytes, partial=partial)
        now = self._now()
        call.hold.settle(bill.usage.total_tokens, now)
        cause = request_id = ""
        if outcome != OK:
            cause, request_id = _cause(attempt, outcome, failure)
            self._metrics.ended(_ENDINGS[outcome], answered=True)
        self._enter(attempt, outcome, bill, cause, request_id, now)
        model, provider = attempt.upstream.target.model, attempt.upstream.target.provider.name
        if not bill.priced:
            self._metrics.unpriced(model, provider)
            self._alarm.note(model, provider, now)
        status, took_s = attempt.status or _CLIENT_CLOSED, now - call.started
        self._metrics.answered(model, provider, status, took_s, bill.usage, bill.cost, bill.scale)
        return bill.cost if bill.priced else None

    def waive(self, attempt: Attempt, outcome: str, failure: UpstreamFailure | None = None) -> None:
        """Enter an attempt that reached nobody: on the house. Without effect on one that is entered already."""
        if not attempt.entered:
            cause, request_id = _cause(attempt, outcome, failure)
            bill = _UNPRICED if attempt.price is None else _ON_THE_HOUSE
            self._enter(attempt, outcome, bill, cause, request_id, self._now(), charged=False)

    def abandon(self, attempt: Attempt) -> None:
        """Enter an attempt that was cancelled before anything of it reached the client.

        A client that hangs up while a provider works for it pays for its prompt, by estimate: it has been sent. Once
        the provider's answer has begun, it also pays for an output (:func:`_output_tokens`).
        """
        cut, answer = attempt.call.cut, attempt.answer
        if answer is not None:
            attempt.status = answer.status
        if cut is None and answer is not None and answer.sent and (not attempt.status or is_good(attempt.status)):
            self.charge(attempt, CLIENT_GONE, None, 0, partial=True)
        else:
            self.waive(attempt, CLIENT_GONE if cut is None else cut.value)
            if cut is None:  # else the call is refused, and counted as that
                self._metrics.ended(endings.CLIENT_GONE)

    def close(self, call: Call) -> None:
        """Give back what the call still holds, if nothing was charged for it; no attempt of it stays open."""
        if call.open is not None:
            self.waive(call.open, INTERNAL_ERROR)
        call.hold.settle(0, self._now())

    def _bill(
        self, attempt: Attempt, outcome: str, usage: Usage | None, content_bytes: int, *, partial: bool
    ) -> "_Bill":
        """What an attempt used, by what its provider told or by estimate, and what that costs."""
        call, price = attempt.call, attempt.price
        no_usage = call.operation.no_usage
        if usage is None:
            characters = call.asked.characters
            if characters and price is not None and price.has_rate_for(Bucket.CHARACTERS):
                usage = Usage(0, 0, others={Bucket.CHARACTERS: characters}, measured=False)
            elif no_usage is not NoUsage.ESTIMATE:
                return _Bill(_NOTHING, "none", no_usage is NoUsage.FREE, 0, price, "")
            else:
                usage = Usage(call.prompt_tokens, _output_tokens(attempt, outcome, content_bytes), measured=False)
        elif no_usage is NoUsage.ESTIMATE and not (usage.input and usage.output):
            usage = with_estimates(usage, call.prompt_tokens, output_tokens_estimate(content_bytes))
        state = "partial" if partial else "exact" if usage.measured else "estimated"
        if price is None:
            return _Bill(usage, state, no_usage is NoUsage.FREE and not usage.total_tokens, 0, None, usage.doubt)
        cost, doubt = price.bill(usage)
        if call.asked.searches and Bucket.WEB_SEARCHES not in usage.others and price.has_rate_for(Bucket.WEB_SEARCHES):
            doubt = joined(doubt, SEARCH_UNTOLD)
        if price is self.fallback_price and usage.total_tokens:
            doubt = joined(doubt, FALLBACK_PRICE)
        priced = not doubt or UNPRICED_BUCKET not in doubt or (cost != 0 and not price.leaves_tokens_free(usage))
        return _Bill(usage, state, priced, cost, price, doubt)

    def _enter(
        self,
        attempt: Attempt,
        outcome: str,
        bill: "_Bill",
        cause: str,
        request_id: str,
        now: float,
        *,
        charged: bool = True,
    ) -> None:
        attempt.entered = True
        call = attempt.call
        call.open = None
        target = attempt.answered_by or attempt.upstream.target
        usage, price = bill.usage, bill.price
        first_byte_at = attempt.first_byte_at
        record = Settlement(  # by place, which costs a sixth of what keywords cost
            call.id,
            attempt.number,
            call.grant.id,
            call.asked.model or target.model,
            target.provider.name,
            target.upstream_model,
            call.operation.name,
            call.asked.stream,
            attempt.started_unix,
            (now - attempt.started) * 1000,
            (first_byte_at - attempt.started) * 1000 if first_byte_at else None,
            attempt.status,
            outcome,
            bill.state,
            usage.input,
            usage.cache_read,
            usage.output,
            usage.reasoning,
            bill.cost,
            bill.scale,
            bill.priced,
            charged,
            0 if price is None else price.id,
            call.snapshot.revision,
            cause,
            request_id,
            dict(usage.others) if usage.others else None,
            usage.service_tier,
            bill.doubt,
        )
        try:  # noqa: SIM105 - a context manager costs each request 0.2 µs
            self._journal.append(record, price)
        except JournalFull:
            pass  # it waits, and delivery.py looks after it
        self._metrics.attempt(target.provider.name, outcome)


def _output_tokens(attempt: Attempt, outcome: str, content_bytes: int) -> int:
    """An estimate of what a provider produced without counting it.

    By the text that came. Where a client hung up on an answer that had begun and had shown nothing, the model may have
    thought unseen for any time: then what the call had reserved.
    """
    if outcome == CLIENT_GONE and not content_bytes and attempt.status:
        return attempt.call.output_tokens
    return output_tokens_estimate(content_bytes)


def _cause(attempt: Attempt, outcome: str, failure: UpstreamFailure | None) -> tuple[str, str]:
    """Who ended an attempt that did not end well, in which phase, what the provider said; its id of the request."""
    if failure is None:
        return f"{_ENDED_BY.get(outcome, outcome)} {_phase(attempt)}.", ""
    text = cause_of(failure)
    text = text[:1].upper() + text[1:]
    in_the_middle = " It was in the middle of the answer." if attempt.first_byte_at else ""
    return text + in_the_middle, failure.said.request_id


def _phase(attempt: Attempt) -> str:
    answer = attempt.answer
    if answer is None:
        return "before the provider was reached"
    if not answer.sent:
        return "while the request was sent"
    if not answer.status:
        return "before the provider's answer began"
    return "in the middle of the answer" if attempt.first_byte_at else "before anything of the answer had gone out"
