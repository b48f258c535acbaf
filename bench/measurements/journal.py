"""What it costs a request that the journal has it, and how long it may have to wait while the disk is forced."""

import threading
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.report import TOLLWAY, Measure
from bench.run import Run
from tollway.accounting.journal import Journal
from tollway.accounting.records import Checkpoint, Intent, Settlement
from tollway.domain.prices import Price, Rate, price_of
from tollway.domain.usage import Bucket

_CALLS = 20_000
_REPEATS = 5
_SECONDS = 5.0
_PACE_S = 0.0005
"""Between two calls, while the disk is forced once a second: two thousand a second."""

_CPU_US, _WAIT_MS = 5, 100
"""The targets."""


def notes(run: Run) -> list[Measure]:
    """CPU of an intent and a settlement, and of a checkpoint; the longest wait of one beside the forced disk."""
    price = price_of([Rate(Bucket.INPUT, Decimal(1)), Rate(Bucket.OUTPUT, Decimal(2))])
    with TemporaryDirectory(dir=run.home, prefix="journal-") as folder:
        journal = Journal(Path(folder), time.time())
        try:
            checkpoint = Checkpoint("req_00000000000000000000000001", 1, time.time(), 200, 250.0, 500)
            calls = [_cpu_us(lambda: _call(journal, price), _CALLS) for _ in range(_REPEATS)]
            checkpoints = [_cpu_us(lambda: journal.note([checkpoint] * 100), 200) / 100 for _ in range(_REPEATS)]
            waits = _waits_ms(journal, price)
        finally:
            journal.close()
    return [
        Measure("an intent and a settlement", "µs CPU", {TOLLWAY: calls}, at_most=_CPU_US),
        Measure("a checkpoint, of a hundred at once", "µs CPU", {TOLLWAY: checkpoints}),
        Measure("both while the disk is forced: the longest", "ms", {TOLLWAY: waits[-1:]}, at_most=_WAIT_MS),
        Measure("… 99.9 % of them: at most", "ms", {TOLLWAY: [waits[int(len(waits) * 0.999)]]}),
    ]


def _call(journal: Journal, price: Price) -> None:
    """As ``dataplane/books.py`` notes a call."""
    call, key, model = "req_00000000000000000000000001", "key_0123456789abcdef", "gpt-4.1-mini"
    name, kind, now = "openai", "chat/completions", 1_800_000_000.123
    journal.intend(Intent(call, 1, key, model, name, model, kind, False, now, 7, price.id, 100), price)
    tokens = 80, 20, 40, 10
    settlement = Settlement(
        *(call, 1, key, model, name, model, kind, False, now, 812.4, None, 200, "ok", "exact", *tokens),
        *(114_000_000, price.scale, True, True, price.id, 7, "", "", None, "", ""),
    )
    journal.append(settlement, price)


def _cpu_us(once: Callable[[], None], times: int) -> float:
    began = time.process_time()
    for _ in range(times):
        once()
    return (time.process_time() - began) / times * 1e6


def _waits_ms(journal: Journal, price: Price) -> list[float]:
    """How long calls took to note, in order, while another thread has the disk take it all once a second."""
    ended = threading.Event()

    def force() -> None:
        while not ended.wait(1):
            journal.sync()

    forcing = threading.Thread(target=force)
    forcing.start()
    waits = []
    until = time.monotonic() + _SECONDS
    while time.monotonic() < until:
        began = time.perf_counter()
        _call(journal, price)
        waits.append((time.perf_counter() - began) * 1000)
        time.sleep(_PACE_S)
    ended.set()
    forcing.join()
    return sorted(waits)
