"""What the way of a request may use, built once per worker by ``worker.py`` and handed down."""

import asyncio
import itertools
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tollway.admission.allowances import AllowanceStore
from tollway.admission.authenticate import KeyHasher
from tollway.admission.slots import CallSlots
from tollway.dataplane.books import Books
from tollway.dataplane.calls import Call, Clock
from tollway.dataplane.delivery import Delivery
from tollway.dataplane.offload import Offload
from tollway.dataplane.upstreams import Upstreams
from tollway.http1.client import Client
from tollway.http1.origin import Origin
from tollway.http1.server import Server
from tollway.observe.log import LogWriter
from tollway.observe.metrics import Metrics
from tollway.observe.refusals import RefusalLog
from tollway.routing.health import Health
from tollway.routing.retry import RetryBudget
from tollway.settings import Settings
from tollway.store.configuration import Configuration

if TYPE_CHECKING:
    from tollway.dataplane.relay import Relay


class CallIds:
    """Names for calls: unique across processes and restarts, and in order within one."""

    __slots__ = ("_count", "_prefix")

    def __init__(self) -> None:
        self._prefix = f"req_{int(time.time()):08x}{os.urandom(5).hex()}"
        self._count = itertools.count(1)

    def next(self) -> str:
        """A fresh call id, also the answer's ``x-request-id``."""
        return f"{self._prefix}{next(self._count):08x}"


@dataclass(slots=True)
class World:
    """The parts of one worker. A request reads them; only ``worker.py`` puts them there."""

    number: int
    """Which of the workers this is, from 0."""
    settings: Settings
    configuration: Configuration
    hasher: KeyHasher
    allowances: AllowanceStore
    slots: CallSlots
    offload: Offload
    retry_budget: RetryBudget
    health: Health
    upstreams: Upstreams
    client: Client
    control: Origin
    """Where the control plane listens."""
    metrics: Metrics
    books: Books
    delivery: Delivery
    refusals: RefusalLog
    log_writer: LogWriter
    now: Clock
    server: Server = field(init=False)
    """Set as soon as it exists: it needs the routes, and they need the world."""
    call_ids: CallIds = field(default_factory=CallIds)
    calls: dict[Call, asyncio.Task[None]] = field(default_factory=dict)
    """Admitted calls that have not ended, and their tasks: those that the gateway itself may have to cut."""
    relays: set["Relay"] = field(default_factory=set)
    """Streams whose first event has gone out."""
    draining: bool = False
    loop_lag_s: float = 0.0
    """How late the last timer ran."""

    @property
    def cannot_account(self) -> bool:
        """Whether no call should start, because what it costs could not be noted, or nobody would find the note."""
        return self.books.unfindable or self.delivery.failing
