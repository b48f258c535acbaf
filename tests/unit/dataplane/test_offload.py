"""What is worked on beside the event loop: in turn, so that nobody's work holds up everybody's."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from fakes.upstream import PATIENCE_S
from tollway.dataplane.offload import Offload


class Gates:
    """Work that ends when it is told to, and notes in which order it began."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self._gates: dict[str, threading.Event] = {}
        self._changed = threading.Condition()

    def work(self, name: str) -> str:
        gate = self._gate(name)
        with self._changed:
            self.begun.append(name)
            self._changed.notify_all()
        gate.wait(PATIENCE_S)
        return name

    def _gate(self, name: str) -> threading.Event:
        return self._gates.setdefault(name, threading.Event())

    def open(self, *names: str) -> None:
        for name in names:
            self._gate(name).set()

    def open_all(self) -> None:
        self.open(*self._gates)

    async def begins(self, *names: str) -> None:
        """Wait until exactly these have begun, in whatever order."""

        def wait() -> None:
            with self._changed:
                self._changed.wait_for(lambda: len(self.begun) >= len(names), PATIENCE_S)

        await asyncio.to_thread(wait)
        assert sorted(self.begun) == sorted(names)
        self.begun.clear()


@pytest.fixture
def gates() -> Iterator[Gates]:
    gates = Gates()
    yield gates
    gates.open_all()


@pytest.fixture
def offload() -> Iterator[Offload]:
    offload = Offload()
    yield offload
    offload.close()


def start(offload: Offload, gates: Gates, *names: str) -> list[asyncio.Task[str]]:
    """Tasks in this order; a name is its key's and a number."""
    return [asyncio.create_task(offload.run(name[0], gates.work, name)) for name in names]


async def test_somebodys_work_does_not_wait_for_anothers(offload: Offload, gates: Gates) -> None:
    tasks = start(offload, gates, "a1", "a2", "a3", "b1")
    await gates.begins("a1", "b1")
    gates.open("b1")
    assert await tasks[3] == "b1", "although three of another key came before it, and none of them has ended"
    gates.open("a1", "a2", "a3")
    assert await asyncio.gather(*tasks[:3]) == ["a1", "a2", "a3"]


async def test_keys_take_turns(offload: Offload, gates: Gates) -> None:
    tasks = start(offload, gates, "a1", "b1", "c1", "c2", "c3", "d1", "e1")
    await gates.begins("a1", "b1")
    for ends, begins in (("a1", "c1"), ("c1", "d1"), ("d1", "e1"), ("e1", "c2"), ("c2", "c3")):
        gates.open(ends)
        await gates.begins(begins)
    gates.open("b1", "c3")
    await asyncio.gather(*tasks)


async def test_who_waits_and_is_cancelled_leaves_the_queue(offload: Offload, gates: Gates) -> None:
    running, waiting, last, other, others_last = start(offload, gates, "a1", "a2", "a3", "b1", "c1")
    await gates.begins("a1", "b1")
    waiting.cancel()
    others_last.cancel()
    await asyncio.wait({waiting, others_last})
    assert waiting.cancelled()
    gates.open("a1", "b1")
    await asyncio.gather(running, other)
    await gates.begins("a3")
    gates.open("a3")
    await last


async def test_work_that_has_begun_counts_until_it_ends(offload: Offload, gates: Gates) -> None:
    """Or a client that hangs up and comes again would have all threads."""
    running, following = start(offload, gates, "a1", "a2")
    await gates.begins("a1")
    running.cancel()
    await asyncio.wait({running})
    (other,) = start(offload, gates, "b1")
    await gates.begins("b1")
    gates.open("b1")
    assert await other == "b1"
    assert not gates.begun
    gates.open("a1")
    await gates.begins("a2")
    gates.open("a2")
    assert await following == "a2"


async def test_what_the_work_raises_comes_back(offload: Offload) -> None:
    with pytest.raises(ZeroDivisionError):
        await offload.run("a", lambda: 1 // 0)
    assert await offload.run("a", divmod, 7, 3) == (2, 1)


async def test_no_key_is_remembered(offload: Offload, gates: Gates) -> None:
    tasks = start(offload, gates, "a1", "a2", "b1", "c1", "c2")
    await gates.begins("a1", "b1")
    for task in tasks[3:]:
        task.cancel()
    gates.open("a1", "a2", "b1")
    await asyncio.wait(tasks)
    await offload.run("z", int)
    assert not offload._waiting
    assert not offload._running


async def test_what_waits_at_the_end_is_cancelled(gates: Gates) -> None:
    offload = Offload()
    running, waiting = start(offload, gates, "a1", "a2")
    await gates.begins("a1")
    offload.close()
    await asyncio.wait({waiting})
    assert waiting.cancelled()
    gates.open("a1")
    assert await running == "a1"
