"""How long code takes of the processor, for tests that depend neither on the machine nor on what else runs.

What is measured is compared with something else that is measured right beside it, never with a number of seconds.
"""

import gc
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Input = TypeVar("Input")

QUADRATIC = 9.0
"""Four times the input takes 4 times as long in linear time and 16 times as long in quadratic: this lies between."""

_RUNS = 3
_MOST_RUNS = 6
_TOO_LITTLE_S = 0.0002
"""Less than this tells nothing and counts as this: what is quadratic takes far more for some ten thousand letters."""

_SAMPLE = b"[" + b'{"a":"b"},' * 10_000 + b"1]"


def cpu_seconds(run: Callable[[], object], runs: int = _RUNS) -> float:
    """The best of several runs, by the clock of this thread, which stands while others have the processor."""
    with no_collection():
        return min(_once(run) for _ in range(runs))


def growth(run: Callable[[Input], object], quarter: Input, whole: Input) -> float:
    """How many times as long the whole takes as a quarter of it: it is linear if that is less than ``QUADRATIC``.

    The two take turns, and what seems to be too much is measured a few times more, for a processor may be slow for a
    while. It is never measured less than three times: the very first quarter also fills the caches.
    """
    short = long = math.inf
    with no_collection():
        for number in range(1, _MOST_RUNS + 1):
            short = min(short, _once(lambda: run(quarter)))
            long = min(long, _once(lambda: run(whole)))
            if number >= _RUNS and long < QUADRATIC * max(short, _TOO_LITTLE_S):
                break
    return long / max(short, _TOO_LITTLE_S)


def decoding_seconds(size: int) -> float:
    """What the standard library takes to decode so many bytes of small objects: how fast this machine is."""
    return cpu_seconds(lambda: json.loads(_SAMPLE)) * size / len(_SAMPLE)


@contextmanager
def no_collection() -> Iterator[None]:
    """Amid thousands of tests a full collection takes half a second, and it comes when it likes."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _once(run: Callable[[], object]) -> float:
    began = time.thread_time()
    run()
    return time.thread_time() - began
