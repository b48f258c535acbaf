"""What was taken in the last sixty seconds, counted so that no true window of sixty seconds is ever over a limit.

Amounts are booked in the whole second in which they were taken. The second that is only partly inside the window
counts whole, so the count covers 61 seconds at the most: it may refuse one second too long, never admit too much.
Waits are true to the last bit: where ``moment`` is a whole second, ``now + (moment - now)`` is never less than it.
"""

WINDOW_S = 60
"""The window that people mean by "per minute"."""

_COUNTED_S = WINDOW_S + 1  # a second's amount is free again when the second's end is a whole window ago


class SlidingWindow:
    """One counter. Seconds must not decrease from call to call; memory is one number per second that was used."""

    __slots__ = ("_amounts", "_second", "total")

    def __init__(self) -> None:
        self._amounts: dict[int, int] = {}
        self._second = 0
        self.total = 0
        """What counts in the second that was last looked at."""

    def used(self, second: int) -> int:
        """What counts in this second."""
        if second > self._second:
            self._second = second
            amounts = self._amounts
            while amounts and (oldest := next(iter(amounts))) < second - WINDOW_S:
                self.total -= amounts.pop(oldest)
        return self.total

    def take(self, second: int, amount: int) -> None:
        """Book the amount, whatever is used already: the caller has compared."""
        self._amounts[second] = self._amounts.get(second, 0) + amount
        self.total += amount

    def settle(self, taken_at: int, difference: int) -> None:
        """Correct what was taken in that second; without effect once the second no longer counts."""
        if taken_at in self._amounts:
            self._amounts[taken_at] += difference
            self.total += difference

    def wait_s(self, now: float, amount: int, limit: int) -> float | None:
        """How long until the amount fits under the limit if nothing else is taken; None: never."""
        if amount > limit:
            return None
        excess = self.used(int(now)) + amount - limit
        if excess <= 0:
            return 0.0
        for second, taken in self._amounts.items():
            excess -= taken
            if excess <= 0:
                return second + _COUNTED_S - now
        raise AssertionError("the sum of the seconds is the total")

    def reset_s(self, now: float) -> float:
        """How long until nothing counts any more if nothing else is taken."""
        self.used(int(now))
        for second in reversed(self._amounts):
            if self._amounts[second]:
                return second + _COUNTED_S - now
        return 0.0
