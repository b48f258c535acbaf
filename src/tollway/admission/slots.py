"""How many calls of one key may run at the same time, from the head of their request to the end of their answer.

Requests per minute do not bound this: a call may last ten minutes, and each holds a body, a connection and a task.
"""


class CallSlots:
    """The calls that run in this process, by key."""

    __slots__ = ("_running", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._running: dict[str, int] = {}

    def enter(self, key_id: str) -> bool:
        """Take a slot; False where the key has none left. Whoever has one gives it back by :meth:`leave`."""
        running = self._running.get(key_id, 0)
        if running >= self.limit:
            return False
        self._running[key_id] = running + 1
        return True

    def leave(self, key_id: str) -> None:
        """Give a slot back."""
        running = self._running[key_id] - 1
        if running:
            self._running[key_id] = running
        else:
            del self._running[key_id]
