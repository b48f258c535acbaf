"""One client request from its admission to its settlement, and its attempts at providers."""

import contextlib
import enum
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tollway.admission.allowances import Hold
from tollway.dataplane.upstreams import Upstream
from tollway.domain.asked import Asked, NoUsage
from tollway.domain.failures import UpstreamFailure
from tollway.domain.prices import Price
from tollway.domain.refusals import Refusal
from tollway.http1.answer import Answer
from tollway.http1.exchange import Request
from tollway.providers.base import Adapter
from tollway.routing.snapshot import KeyGrant, Snapshot, Target

if TYPE_CHECKING:
    from tollway.dataplane.world import World

Clock = Callable[[], float]
"""Monotonic seconds: the event loop's ``time``."""


class Cut(enum.Enum):
    """Why the gateway itself ends a call that runs."""

    REVOKED = "revoked"
    EXPIRED = "expired"
    DRAINED = "drained"


class Way(NamedTuple):
    """How an answer is got from a provider."""

    prepare: "Callable[[World, Call, Target], Prepared | UpstreamFailure]"
    reply: "Callable[[World, Attempt], Awaitable[UpstreamFailure | None]]"
    """One attempt at a whole answer: None once it has answered the client."""
    stream: "Callable[[World, Attempt], Awaitable[UpstreamFailure | None]]"
    """One attempt at a stream."""


class Operation(NamedTuple):
    """One thing that clients may ask for."""

    name: str
    """The path of OpenAI's API below ``/v1/``, its parameters in braces."""
    way: Way | None
    """None: the gateway itself knows the answer."""
    no_usage: NoUsage = NoUsage.ESTIMATE
    runs_model: bool = True
    """Whether a call runs a model even if it names none."""
    as_is: bool = False
    """Whether what a provider says of the client's own mistakes keeps its status."""
    demands: "Callable[[Call, Any], Refusal | None] | None" = None
    """What it asks of a key beyond what every call does."""


class Call:
    """A call of a known key. It pins the snapshot that it began with; the rest is set when it is admitted.

    Its hold is settled exactly once, by ``books.py``.
    """

    __slots__ = (
        "asked",
        "attempts",
        "cut",
        "expires_at",
        "grant",
        "hold",
        "id",
        "large",
        "open",
        "operation",
        "output_tokens",
        "prompt_tokens",
        "request",
        "sent",
        "snapshot",
        "spent",
        "started",
        "started_unix",
        "targets",
    )

    operation: Operation
    asked: Asked
    targets: tuple[Target, ...]
    """Where it may go, in order."""
    hold: Hold
    """What it has taken from its key's limits."""
    prompt_tokens: int
    """As estimated at admission."""
    output_tokens: int
    """As reserved at admission: what all choices may have, or are assumed to have."""

    def __init__(
        self,
        call_id: str,
        request: Request,
        snapshot: Snapshot,
        grant: KeyGrant,
        started: float,
        started_unix: float,
    ) -> None:
        self.id = call_id
        self.request = request
        self.snapshot = snapshot
        self.grant = grant
        self.started = started
        self.started_unix = started_unix
        self.expires_at = grant.expires_at
        """Unix seconds; what the key's row says now, where the call is long."""
        self.large = False
        """Its body is worked on away from the event loop."""
        self.attempts = 0
        self.sent = 0
        """Those of them that were noted to be sent; a stored key that cannot be read is none."""
        self.open: Attempt | None = None
        """The one that was sent and is not entered yet."""
        self.spent = False
        """What has been sent cannot be sent again: there is no other attempt."""
        self.cut: Cut | None = None
        """Why the gateway itself ends the call; set before its task is cancelled."""


class Prepared(NamedTuple):
    """A request that is ready to be sent."""

    upstream: Upstream
    adapter: Adapter | None
    """None where the call passes as it is."""
    credential: bytes
    """The header line within ``message``, to be kept out of everything that a client reads."""
    message: bytes
    further: Sequence[bytes] = ()
    """More requests, where the provider takes less at once than the client may ask for."""
    warnings: tuple[str, ...] = ()


class Attempt:
    """One try at one provider."""

    __slots__ = (
        "adapter",
        "answer",
        "answered_by",
        "call",
        "credential",
        "deadline",
        "entered",
        "first_byte_at",
        "further",
        "message",
        "number",
        "price",
        "started",
        "started_unix",
        "status",
        "upstream",
        "warnings",
    )

    def __init__(self, call: Call, prepared: Prepared, deadline: float, now: float, price: Price | None) -> None:
        self.call = call
        self.upstream, self.adapter, self.credential, self.message, self.further, self.warnings = prepared
        self.number = 0
        """1, 2, … of those of the call that are sent; 0 before."""
        self.price = price
        """By which it is billed; None: nobody knows it."""
        self.started = now
        self.started_unix = call.started_unix + now - call.started
        self.deadline = deadline
        """Loop time at which the whole call, with all its attempts, is over."""
        self.answer: Answer | None = None
        """What comes back, from the moment at which the request has left for the provider."""
        self.answered_by: Target | None = None
        """What the answer of a call that named no model says which one it was, as far as it is known here."""
        self.entered = False
        """Whether the books have it."""
        self.first_byte_at = 0.0
        self.status = 0
        """The provider's HTTP status, 0 while there is none."""

    def note_sent(self, answer: Answer) -> None:
        """The request has been handed to a connection."""
        self.answer = answer
        if self.upstream.target.drain:
            self.call.request.on_gone = _read_on


@contextlib.contextmanager
def reading_on(request: Request) -> Iterator[None]:
    """Within, a client that hangs up ends nothing: what it is billed by is here, and is being read."""
    on_gone, request.on_gone = request.on_gone, _read_on
    try:
        yield
    finally:
        request.on_gone = on_gone


def _read_on() -> None:
    """The client has gone, and the answer is read all the same."""
