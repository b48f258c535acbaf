"""So many lines of a kind in a second: what has none is counted, and told in one line when the second is over."""

import time
from collections.abc import Callable


class Ration:
    """Counts lines. ``label`` is of a closed set. Belongs to one thread."""

    def __init__(
        self, most: int, tell: Callable[[str, int], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``tell`` is given each label of which lines were left out in a second, and how many."""
        self._most = most
        self._tell = tell
        self._clock = clock
        self._second = 0
        self._printed: dict[str, int] = {}
        self._left_out: dict[str, int] = {}

    def room(self, label: str = "", most: int | None = None) -> int:
        """How many lines this second still takes."""
        self.turn()
        return (self._most if most is None else most) - self._printed.get(label, 0)

    def takes(self, label: str = "", most: int | None = None) -> bool:
        """Whether one more line may be printed; it is counted either way."""
        fits = self.room(label, most) > 0
        (self.print if fits else self.leave_out)(1, label)
        return fits

    def print(self, count: int, label: str = "") -> None:
        """Note lines that are printed; there must be room for them."""
        self._printed[label] = self._printed.get(label, 0) + count

    def leave_out(self, count: int, label: str = "") -> None:
        """Note lines that are not."""
        self._left_out[label] = self._left_out.get(label, 0) + count

    def turn(self) -> None:
        """Once a second is over, tell what it had no line for. Call it once a second: nothing else may ever come."""
        second = int(self._clock())
        if second == self._second:
            return
        self._second = second
        left_out, self._left_out, self._printed = self._left_out, {}, {}
        for label, count in left_out.items():
            self._tell(label, count)
