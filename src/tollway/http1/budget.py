"""One budget of bytes for all that a process holds for its peers: bodies, answers, what clients have not read yet.

1. What is large is counted for as long as it is held. Below ``COUNTED`` bytes nothing is: it would cost more than it
   tells.
2. A body that does not fit is refused before it is read, a large head while it comes (:meth:`Budget.fits`). What has
   been begun goes on: an answer that finds no room waits for it. Where those that wait are themselves what takes the
   room, the one that has waited longest goes on beyond the limit; also where nothing else has moved for a moment. So
   there is always one that comes to its end, and what it leaves for its client to read is gone before the next one
   follows. What must be held in any case is counted and never refused.
3. Where somebody was refused or has to wait, whoever moves too slowly for what he holds is given up, the slowest
   first, until there is room: nobody holds much for long by trickling.

Pure: owners say what comes and goes, and the server's sweep tells the time.
"""

import math
from collections import deque
from typing import Final, Protocol

from tollway.http1.framing import NO_LIMIT

COUNTED: Final = 16 * 1024
"""Bytes of one head, body, answer or buffer below which it is not counted."""

WINDOW_S: Final = 2.0
"""How long whoever holds something is watched before he counts as slow."""
SLOW_S: Final = 60.0
"""Who would need longer than this to move again what he holds is slow, where there is no room."""
SLOW_BYTES: Final = COUNTED
"""What holds less than this is never given up. Not more: thousands that hold little hold much."""
FREE_SHARE: Final = 8
"""Whoever is slow is given up until an eighth of the limit is free, so that it does not end in single steps."""
STEP: Final = 256 * 1024
"""What one owner that reads on may bring before it asks again: the loop's largest read."""


class Owner(Protocol):
    """Who holds something and moves it: brings it, or takes it away."""

    def is_held_up(self) -> bool:
        """Whether it is we who let him wait: then he is not slow."""

    def read_on(self) -> None:
        """There is room again."""

    def give_up(self) -> None:
        """He is too slow while others need the room. Releases the hold at once."""


class Hold:
    """What somebody holds. It is given back by :meth:`release`, at the latest when nothing refers to it any more.

    With an owner it is watched for as long as it moves, that is until :meth:`settle`.
    """

    __slots__ = ("_budget", "moved", "owner", "pace", "size")

    def __init__(self, budget: "Budget", size: int, owner: Owner | None) -> None:
        self._budget = budget
        self.size = 0
        self.owner = owner
        self.moved = math.inf  # bytes in this window; the first one is incomplete, so it says nothing
        self.pace = math.inf  # bytes in the last whole window
        self.resize(size)

    def resize(self, size: int) -> None:
        """Hold so many bytes from now on."""
        grown = size - self.size
        self.size = size
        self._budget.count(grown, self)

    def grow(self, size: int) -> bool:
        """Hold so many bytes more that have come; False: the owner shall not read on until he is told to."""
        self.moved += size
        self.resize(self.size + size)
        return self._budget.may_read_on(self)

    def settle(self) -> None:
        """It is complete: nobody watches it any more, and it waits for nothing."""
        if self.owner is not None:
            self.owner = None
            self._budget.leave(self)

    def release(self) -> None:
        """Give everything back. At any time, any number of times."""
        self.settle()
        if self.size:
            self.resize(0)

    def __del__(self) -> None:
        # In any thread, in the middle of anything: it is only noted.
        if self.size:
            self._budget.dropped.append(self.size)


class Budget:
    """What a process holds at the moment, and how much it may. Belongs to one event loop."""

    __slots__ = (
        "_favoured",
        "_given_back_before",
        "_stuck",
        "_waiting",
        "_wanted",
        "_watched_at",
        "dropped",
        "full",
        "given_back",
        "given_up",
        "held",
        "limit",
        "moving",
        "peak",
        "refused",
    )

    def __init__(self, limit: int = NO_LIMIT) -> None:
        self.limit = limit
        self.held = 0
        self.full = False
        """Whether no new call should begin."""
        self.peak = 0
        """The most that was ever held."""
        self.refused = 0
        """Heads and bodies that did not fit, since the start."""
        self.given_back = 0
        """Bytes that were held and are not any more, since the start."""
        self.given_up = 0
        """Owners that were too slow while there was no room, since the start."""
        self.dropped: deque[int] = deque()
        """Sizes of holds that nobody released."""
        self.moving: dict[Hold, None] = {}
        self._waiting: dict[Hold, None] = {}  # in the order in which they began to
        self._stuck = 0  # bytes of those
        self._given_back_before = 0  # the last sweep
        self._favoured: Hold | None = None  # goes on although there is no room
        self._wanted = 0  # bytes that did not fit since the last sweep
        self._watched_at = 0.0

    def take(self, size: int) -> Hold:
        """Count what must be held in any case."""
        return Hold(self, size, None)

    def watch(self, size: int, owner: Owner) -> Hold:
        """Count what its owner brings or takes away."""
        hold = Hold(self, size, owner)
        self.moving[hold] = None
        return hold

    def fits(self, size: int) -> bool:
        """Whether there is room for so many bytes; where not, it will be made."""
        if self.held + size <= self.limit:
            return True
        self._collect()
        if self.held + size <= self.limit:
            return True
        self._wanted = max(self._wanted, size)
        self.refused += 1
        return False

    def sweep(self, now: float) -> None:
        """Watch who moves, and make room where it is needed. Called several times a second; ``now`` in seconds."""
        self._collect()
        if self._waiting and self._favoured is None and self.given_back == self._given_back_before:
            self._favour()
        self._given_back_before = self.given_back
        if now >= self._watched_at + WINDOW_S:
            self._watched_at = now
            self._watch()
        if self.full or self._wanted or self._waiting:
            self._make_room(max(self._wanted, self.limit // FREE_SHARE))
            self._wanted = 0

    # What holds call.

    def count(self, grown: int, hold: Hold | None = None) -> None:
        held = self.held = self.held + grown
        self.full = held >= self.limit
        if hold in self._waiting:
            self._stuck += grown
        if held > self.peak:
            self.peak = held
        elif grown < 0:
            self.given_back -= grown
            if self._waiting:
                self._wake()

    def may_read_on(self, hold: Hold) -> bool:
        if not self.full or self._favoured is hold:
            return True
        self._waiting[hold] = None
        self._stuck += hold.size
        if self._may_favour:
            self._favour()
        return self._favoured is hold

    def leave(self, hold: Hold) -> None:
        self.moving.pop(hold, None)
        if hold in self._waiting:
            self._leave_queue(hold)
        if self._favoured is hold:
            self._favoured = None
            if self._waiting:
                self._wake()

    # Inside.

    @property
    def _may_favour(self) -> bool:
        """Whether it is those that wait who take the room."""
        return self._favoured is None and self.held - self._stuck < self.limit

    def _collect(self) -> None:
        while self.dropped:
            self.count(-self.dropped.popleft())

    def _leave_queue(self, hold: Hold) -> None:
        del self._waiting[hold]
        self._stuck -= hold.size

    def _wake(self) -> None:
        """Let go on those that there is room for, in turn; where there is none, one if no other does."""
        room = self.limit - self.held
        while self._waiting and room > 0:
            self._let_go_on()
            room -= STEP
        if self._waiting and self._may_favour:
            self._favour()

    def _favour(self) -> None:
        self._favoured = next(iter(self._waiting))
        self._let_go_on()

    def _let_go_on(self) -> None:
        hold = next(iter(self._waiting))
        self._leave_queue(hold)
        assert hold.owner is not None, "what is settled waits for nothing"
        hold.owner.read_on()

    def _watch(self) -> None:
        """A window has ended: how much has each of them moved?"""
        for hold in self.moving:
            assert hold.owner is not None, "what is settled does not move"
            if hold in self._waiting or hold.owner.is_held_up():
                hold.moved = hold.pace = math.inf
            else:
                hold.pace, hold.moved = hold.moved, 0

    def _make_room(self, size: int) -> None:
        slow = [hold for hold in self.moving if hold.size >= SLOW_BYTES and hold.pace * SLOW_S < hold.size * WINDOW_S]
        for hold in sorted(slow, key=lambda hold: hold.pace / hold.size):
            if self.held + size <= self.limit:
                return
            if hold.owner is not None:
                self.given_up += 1
                hold.owner.give_up()
