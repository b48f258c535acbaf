"""Settlements while the disk takes none: they wait in memory, and the control plane posts them into PostgreSQL.

1. What has been delivered waits no longer; what has not been goes to the disk as soon as there is room again. What was
   delivered although the answer says otherwise is posted twice, and so entered once.
2. A call starts without a note on the disk only while deliveries arrive. Until it has ended it is known to this process
   alone: if that is killed meanwhile, nobody bills the call.
3. One delivery runs at a time, for all who ask for it: one that fails refuses them all, and those after them until one
   arrives. Who asks may leave, and it goes on.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from tollway.accounting.journal import Journal
from tollway.dataplane.calls import Clock

INTERVAL_S = 0.05
"""How long a settlement waits, at most, before it is delivered."""

PROBE_S = 1.0
"""After this a delivery that arrived says nothing any more of the next one; also how often the disk is tried."""

MAX_AT_ONCE = 1000
"""Settlements of one delivery."""

MAX_UNDELIVERED = 2000
"""Waiting settlements above which no call starts, though deliveries arrive: they arrive too slowly."""

FINISH_S = 5.0
"""How long the end of the process waits for deliveries; the supervisor allows it ten seconds for all that it does."""

Send = Callable[[bytes], Awaitable[bool]]
"""Have the control plane post frames of a journal, none or many; whether they are in PostgreSQL now."""

_log = logging.getLogger("tollway.books")


class Delivery:
    """What becomes of settlements that the disk does not take. Without effect while it takes them."""

    def __init__(self, journal: Journal, send: Send, now: Clock) -> None:
        self._journal = journal
        self._send = send
        self._now = now
        self._arrived_at = float("-inf")  # the last delivery
        self._failed = False  # the last delivery
        self._running: asyncio.Task[None] | None = None
        self._told = ""

    @property
    def failing(self) -> bool:
        """Whether no call should start: neither the disk nor the control plane takes what it costs."""
        return self._journal.full and (self._failed or self._journal.waiting > MAX_UNDELIVERED)

    @property
    def waiting(self) -> int:
        """Settlements that are in memory alone."""
        return self._journal.waiting

    async def works(self, deadline: float) -> bool:
        """Whether a call may start though the disk takes nothing: deliveries arrive, and one has just now.

        It waits for one, at most until ``deadline``, in the clock's seconds; where the last one failed, for none.
        """
        if not (self._failed or self._is_fresh):
            await asyncio.wait({self._delivering()}, timeout=max(0.0, deadline - self._now()))
        return self._is_fresh and not self.failing

    async def run(self) -> None:
        """Look after what waits, until cancelled."""
        tried_at = self._now()
        while True:
            await asyncio.sleep(INTERVAL_S)
            journal = self._journal
            if not journal.full and (not journal.waiting or journal.retry()):
                self._failed = False
                self._tell("")
                continue
            now = self._now()
            if now - tried_at >= PROBE_S:
                tried_at = now
                if journal.retry():
                    continue
            if journal.waiting or not self._is_fresh:
                await self.deliver()

    async def finish(self) -> None:
        """Deliver what still waits, if that can be: for the end of the process."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FINISH_S):
                if self._running is not None:
                    await asyncio.wait({self._running})
                while self._journal.waiting and not self._journal.retry():
                    await self.deliver()
                    if self._failed:
                        break
        if self._running is not None and self._running.cancel():
            await asyncio.wait({self._running})  # it gives back what it had taken

    async def deliver(self) -> None:
        """Deliver what waits, or try whether it could be; or wait for the delivery that is under way."""
        await asyncio.wait({self._delivering()})

    def _delivering(self) -> "asyncio.Task[None]":
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._deliver())
        return self._running

    async def _deliver(self) -> None:
        journal = self._journal
        taken = journal.take_waiting(MAX_AT_ONCE)
        arrived = False
        try:
            arrived = await self._send(b"".join([one.frames for one in taken]))
        finally:
            self._failed = not arrived
            if arrived:
                journal.delivered(taken)
                self._arrived_at = self._now()
            else:
                journal.give_back(taken)
            if journal.full:
                self._tell(_DELIVERED if arrived else _REFUSED)

    @property
    def _is_fresh(self) -> bool:
        return not self._failed and self._now() - self._arrived_at < PROBE_S

    def _tell(self, state: str) -> None:
        """Say what has changed."""
        if state != self._told:
            self._told = state
            _log.log(logging.ERROR if state else logging.INFO, state or "the disk takes records again")


_DELIVERED = "the disk takes no more: settlements go to PostgreSQL through the control plane"
_REFUSED = "the disk takes no more, nor does the control plane: settlements wait in memory, and new calls are refused"
