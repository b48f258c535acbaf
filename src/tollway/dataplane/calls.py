"""One client request from its admission to its settlement, and its attempts at providers."""

from collections.abc import Callable
from typing import NamedTuple

from tollway.admission.allowances import Hold
from tollway.dataplane.upstreams import Upstream
from tollway.http1.server import Request
from tollway.routing.snapshot import KeyGrant, Snapshot, Target
from tollway.wire.chat_request import ChatCall

Clock = Callable[[], float]
"""Monotonic seconds: the event loop's ``time``."""


class Call:
    """An admitted call. It pins the snapshot that it began with; ``books.py`` settles its hold, exactly once."""

    __slots__ = (
        "attempts",
        "chat",
        "cut",
        "grant",
        "hold",
        "id",
        "prompt_tokens",
        "request",
        "snapshot",
        "started",
        "started_unix",
        "targets",
    )

    def __init__(
        self,
        call_id: str,
        request: Request,
        snapshot: Snapshot,
        grant: KeyGrant,
        chat: ChatCall,
        targets: tuple[Target, ...],
        hold: Hold,
        prompt_tokens: int,
        started: float,
        started_unix: float,
    ) -> None:
        self.id = call_id
        self.request = request
        self.snapshot = snapshot
        self.grant = grant
        self.chat = chat
        self.targets = targets
        self.hold = hold
        self.prompt_tokens = prompt_tokens
        """As estimated at admission."""
        self.started = started
        self.started_unix = started_unix
        self.attempts = 0
        self.cut: str | None = None
        """Why the gateway itself ended the call, set before it cancels the task: ``revoked`` or ``drained``."""


class Prepared(NamedTuple):
    """A request that is ready to be sent."""

    message: bytes
    warnings: tuple[str, ...]


class Attempt:
    """One try at one provider."""

    __slots__ = (
        "call",
        "deadline",
        "entered",
        "first_byte_at",
        "message",
        "number",
        "started",
        "status",
        "upstream",
        "warnings",
    )

    def __init__(self, call: Call, upstream: Upstream, prepared: Prepared, deadline: float, now: float) -> None:
        call.attempts += 1
        self.call = call
        self.upstream = upstream
        self.message, self.warnings = prepared
        self.number = call.attempts
        self.started = now
        self.deadline = deadline
        """Loop time at which the whole call, with all its attempts, is over."""
        self.entered = False
        """Whether the books have it."""
        self.first_byte_at = 0.0
        self.status = 0
        """The provider's HTTP status, 0 while there is none."""
