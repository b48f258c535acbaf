"""What a journal holds. Fields are stored by place: new ones go to the end with a default, none is ever removed.

An attempt is noted twice or more: that it is sent, from time to time what of a long stream has come, and what it came
to. Only the last is an entry of the ledger; the others are for the case that it never comes.
"""

from typing import TypeAlias

import msgspec

from tollway.domain.usage import NO_OTHERS, Usage


class Settlement(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="ended"):
    """What one attempt at a provider came to; one row of the ledger."""

    call_id: str
    attempt: int
    """1, 2, … within the call. With the call's id and the start it makes it harmless to post a record twice."""
    key_id: str
    model: str
    """As the client asked for it."""
    provider: str
    upstream_model: str
    operation: str
    """What was asked for: the path of OpenAI's API below ``/v1/``."""
    stream: bool
    started_unix: float
    duration_ms: float
    first_byte_ms: float | None
    status: int
    """The provider's HTTP status, 0 when there was none."""
    outcome: str
    """``ok``, the kind of failure, ``client_gone`` …"""
    state: str
    """How sure the tokens are: ``exact``, ``partial``, ``estimated``, ``none``."""
    input: int
    """The counts by buckets that do not overlap, as in :class:`~tollway.domain.usage.Usage`."""
    cache_read: int
    output: int
    reasoning: int
    cost: int
    """In units of ``10**-scale`` US dollars."""
    scale: int
    priced: bool
    """False: no price was known, the cost is not zero but unknown."""
    charged: bool
    """Whether the key pays: what it got reached its client. The other attempts are on the house."""
    price_id: int
    """The :class:`PriceCard` that it was billed by; 0 for none."""
    revision: int
    """Of the configuration that the call was judged by."""
    cause: str = ""
    """Who ended it and in which phase, where it did not end well."""
    provider_request_id: str = ""
    """The provider's own name of the request, where it failed; it stands in ``cause``, too."""
    others: dict[str, int] | None = None
    """Counts of the rare buckets, where there are any."""
    service_tier: str = ""
    """As the answer named it; empty for the usual one."""
    doubt: str = ""
    """Why the cost is not certain, if it is not: names of rules, with commas between them."""

    @property
    def usage(self) -> Usage:
        """The counts as one value."""
        return Usage(
            self.input, self.output, self.cache_read, self.reasoning, self.others or NO_OTHERS, self.service_tier
        )


class Intent(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="sent"):
    """An attempt is about to be sent. If nothing ever says what it came to, it is entered by estimate."""

    call_id: str
    attempt: int
    key_id: str
    model: str
    provider: str
    upstream_model: str
    operation: str
    stream: bool
    started_unix: float
    revision: int
    price_id: int
    prompt_tokens: int
    """As estimated at admission; 0 where tokens are not what is billed."""
    priced: bool = True
    """False: what it costs cannot be estimated."""
    doubt: str = ""
    """Why its price is not certain, if it is not."""


class Checkpoint(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="so far"):
    """What of a long stream has come. Of several the last counts."""

    call_id: str
    attempt: int
    at_unix: float
    status: int
    first_byte_ms: float | None
    output_tokens: int
    """By estimate, of what has come; 0 where tokens are not what is billed."""
    told: tuple[int, int, int, int] | None = None
    """Input, cache read, output, reasoning, where the provider has told them before its end."""
    others: dict[str, int] | None = None
    service_tier: str = ""
    doubt: str = ""

    @property
    def usage(self) -> Usage | None:
        """What the provider has told, if it has."""
        if self.told is None:
            return None
        input_tokens, cache_read, output, reasoning = self.told
        others = self.others or NO_OTHERS
        return Usage(input_tokens, output, cache_read, reasoning, others, self.service_tier, doubt=self.doubt)


class PriceCard(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="price"):
    """The rates by which records of this file name a price; it stands before the first of them."""

    price_id: int
    rates: str
    """As ``prices.rates_json`` writes them."""


class Finished(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="finished"):
    """The last record of a file that its writer left in order. A file without one had a writer that died."""

    following: str = ""
    """The file in which what was under way is noted again; empty where nothing was."""


class OldSettlement(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="settled"):
    """A settlement as versions before wrote it: input contains what was cached, output the reasoning."""

    attempt_id: str
    call_id: str
    attempt: int
    key_id: str
    model: str
    provider: str
    upstream_model: str
    started_unix: float
    duration_ms: float
    first_byte_ms: float | None
    status: int
    outcome: str
    stream: bool
    state: str
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cost: int
    scale: int
    priced: bool
    charged: bool
    price_input: int
    price_cached: int
    price_output: int
    revision: int
    cause: str = ""
    operation: str = ""
    provider_request_id: str = ""

    def as_settlement(self) -> Settlement:
        """The same as it would be written today; its price is gone, its cost stands."""
        return Settlement(
            call_id=self.call_id,
            attempt=self.attempt,
            key_id=self.key_id,
            model=self.model,
            provider=self.provider,
            upstream_model=self.upstream_model,
            operation=self.operation,
            stream=self.stream,
            started_unix=self.started_unix,
            duration_ms=self.duration_ms,
            first_byte_ms=self.first_byte_ms,
            status=self.status,
            outcome=self.outcome,
            state=self.state,
            input=self.input_tokens - self.cached_input_tokens,
            cache_read=self.cached_input_tokens,
            output=self.output_tokens - self.reasoning_tokens,
            reasoning=self.reasoning_tokens,
            cost=self.cost,
            scale=self.scale,
            priced=self.priced,
            charged=self.charged,
            price_id=0,
            revision=self.revision,
            cause=self.cause,
            provider_request_id=self.provider_request_id,
        )


Record: TypeAlias = Settlement | Intent | Checkpoint | PriceCard | Finished
"""Whatever a frame of a journal says."""
