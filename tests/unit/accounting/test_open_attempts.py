import asyncio
import contextlib
import os
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.settlements import PRICE, intent_of, settlement
from tollway.accounting import journal as module
from tollway.accounting.journal import Journal
from tollway.accounting.journal_reader import left_in_order, read_records
from tollway.accounting.open_attempts import LOST, OpenAttempts, lost_attempts
from tollway.accounting.records import Checkpoint, Finished, PriceCard, Record, Settlement
from tollway.domain.prices import Rate, price_of, rates_json
from tollway.domain.usage import Bucket

DEAR = price_of([Rate(Bucket.INPUT, Decimal(1000))])
SENT = intent_of(settlement(call_id="req_a", stream=True), PRICE.id)
CARD = PriceCard(PRICE.id, rates_json(PRICE.rates).decode())

Name = tuple[str, int, float]


def came_to(*records: Record) -> list[Settlement]:
    found = OpenAttempts()
    found.follow(records)
    return found.settlements()


def checkpoint(tokens: int, told: tuple[int, int, int, int] | None = None) -> Checkpoint:
    return Checkpoint("req_a", 1, SENT.started_unix + 3, 200, 120.0, tokens, told)


def test_an_intent_alone_is_billed_by_its_prompt() -> None:
    (lost,) = came_to(CARD, SENT)
    assert (lost.outcome, lost.state, lost.charged, lost.priced) == (LOST, "estimated", True, True)
    assert (lost.input, lost.output, lost.status) == (100, 0, 0)
    assert Decimal(lost.cost).scaleb(-lost.scale) == Decimal("0.0001")
    assert "before the provider's answer began" in lost.cause
    assert (lost.call_id, lost.attempt, lost.started_unix) == ("req_a", 1, SENT.started_unix)


def test_the_last_checkpoint_says_what_had_come() -> None:
    (lost,) = came_to(CARD, SENT, checkpoint(10), checkpoint(40))
    assert (lost.input, lost.output, lost.status, lost.first_byte_ms, lost.duration_ms) == (100, 40, 200, 120.0, 3000)
    assert Decimal(lost.cost).scaleb(-lost.scale) == Decimal("0.00018")
    assert "in the middle of the provider's answer" in lost.cause


def test_what_a_provider_has_told_goes_before_estimates() -> None:
    (lost,) = came_to(CARD, SENT, checkpoint(10, (70, 30, 5, 6)))
    assert (lost.input, lost.cache_read, lost.output, lost.reasoning) == (70, 30, 5, 6)
    assert lost.state == "estimated"


@pytest.mark.parametrize("end", [settlement(call_id="req_a"), Finished("another.journal")])
def test_what_has_ended_or_goes_on_elsewhere_is_not_lost(end: Record) -> None:
    assert came_to(CARD, SENT, checkpoint(10), end) == []


@pytest.mark.parametrize("rates", ["no rates", "[]", '[{"bucket": "of tomorrow", "usd": "1"}]'])
def test_a_price_that_nobody_can_read_is_unknown_and_not_zero(rates: str) -> None:
    (lost,) = came_to(PriceCard(PRICE.id, rates), SENT)
    assert (lost.priced, lost.cost, lost.input) == (False, 0, 100)


def test_what_is_not_billed_by_tokens_is_free_or_unpriced() -> None:
    free, unpriced = (intent_of(settlement(), prompt_tokens=0) for _ in range(2))
    unpriced = type(unpriced)(
        **{name: getattr(unpriced, name) for name in unpriced.__struct_fields__} | {"priced": False}
    )
    assert [(lost.priced, lost.cost) for lost in came_to(free, unpriced)] == [(True, 0), (False, 0)]


@pytest.mark.parametrize(("told", "counts"), [(None, (0, 0, 0)), ((70, 0, 5, 0), (70, 5, 80_000_000))])
def test_what_came_of_pictures_is_billed_by_what_the_provider_told_and_never_by_its_bytes(
    told: tuple[int, int, int, int] | None, counts: tuple[int, int, int]
) -> None:
    intent = msgspec.structs.replace(SENT, operation="images/generations", prompt_tokens=0, priced=False)
    (lost,) = came_to(CARD, intent, checkpoint(2500, told))
    cost = Decimal(lost.cost).scaleb(12 - lost.scale)
    assert (lost.input, lost.output, cost, lost.priced) == (*counts, told is not None)


def test_an_estimate_by_the_fallback_price_says_so() -> None:
    intent = msgspec.structs.replace(SENT, doubt="fallback_price")
    (lost,) = came_to(CARD, intent)
    assert (lost.doubt, lost.priced) == ("fallback_price", True)


async def test_a_journal_that_was_left_in_order_has_lost_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0.0)
    record = settlement()
    journal.intend(intent_of(record))
    journal.append(record)
    journal.close()
    (path,) = tmp_path.iterdir()
    assert left_in_order(path) and await lost_attempts(path) == []


async def test_a_writer_that_ends_while_something_is_under_way_leaves_it_to_be_found(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0.0)
    journal.intend(SENT, PRICE)
    journal.note([checkpoint(7)])
    journal.close()
    (path,) = tmp_path.iterdir()
    assert not left_in_order(path)
    (lost,) = await lost_attempts(path)
    assert (lost.call_id, lost.output, lost.priced) == ("req_a", 7, True)


async def test_a_long_journal_is_read_to_its_end(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0.0)
    journal.intend(SENT, PRICE)
    for _ in range(2000):
        record = settlement()
        journal.intend(intent_of(record, DEAR.id), DEAR)
        journal.append(record, DEAR)
    journal.close()
    (path,) = tmp_path.iterdir()
    assert [lost.call_id for lost in await lost_attempts(path)] == ["req_a"]


class Killed(BaseException):
    """The process is gone."""


class Disk:
    """Takes so many bytes; with the next one its machine loses its power."""

    def __init__(self, room: int) -> None:
        self.room = room

    def write(self, file: int, data: bytes) -> int:
        taken = data[: self.room]
        self.room -= len(taken)
        if taken:
            _write(file, taken)
        if len(taken) < len(data):
            raise Killed
        return len(data)


_write = os.write


class Writer:
    """A worker that does as it is told, and what it has come back from."""

    def __init__(self, directory: Path, number: int) -> None:
        self.journal = Journal(directory, float(number), max_file_bytes=600)
        self.number = number
        self.running: list[Settlement] = []
        self.sent: dict[Name, Settlement] = {}
        self.ended: dict[Name, Settlement] = {}

    def does(self, step: str) -> None:
        if step == "begins":
            record = settlement(cost=7, output=40)
            self.journal.intend(intent_of(record, PRICE.id), PRICE)
            self.running.append(record)
            self.sent[name(record)] = record
        elif self.running and step == "notes":
            record = self.running[0]
            self.journal.note([Checkpoint(record.call_id, record.attempt, 0.0, 200, None, 5)])
        elif self.running:
            record = self.running[0 if step == "ends" else -1]
            self.journal.append(record, PRICE)
            self.running.remove(record)
            self.ended[name(record)] = record

    def dies(self) -> None:
        for file in (self.journal._file, *self.journal._unforced):
            with contextlib.suppress(OSError):
                os.close(file)


def name(record: Settlement) -> Name:
    return record.call_id, record.attempt, record.started_unix


def posted(path: Path) -> Iterator[Settlement]:
    position = 0
    while (chunk := read_records(path, position, abandoned=True)).position > position:
        yield from (record for record in chunk.records if isinstance(record, Settlement))
        position = chunk.position


STEPS = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from(["begins", "begins", "notes", "ends", "the last ends"])), max_size=40
)


@settings(deadline=None)
@given(steps=STEPS, room=st.integers(0, 6000))
def test_wherever_a_journal_is_cut_each_attempt_is_entered_once_and_those_that_ended_as_they_did(
    steps: list[tuple[int, str]], room: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("cut")
    writers = [Writer(directory, number) for number in range(2)]
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr(module.os, "write", Disk(room).write)
        for number, step in steps:
            writers[number].does(step)
    for writer in writers:
        writer.dies()
    settled = [record for path in directory.glob("[!.]*") for record in posted(path)]
    lost = [record for path in directory.glob("[!.]*") for record in asyncio.run(lost_attempts(path))]
    sent = {key: record for writer in writers for key, record in writer.sent.items()}
    ended = {key: record for writer in writers for key, record in writer.ended.items()}
    assert {name(record): record for record in settled}.items() >= ended.items()
    assert len({name(record) for record in settled}) == len(settled), "written twice"
    assert not {name(record) for record in settled} & {name(record) for record in lost}
    assert {name(record) for record in [*settled, *lost]} >= sent.keys(), "forgotten"
    assert all(record.priced and record.cost for record in lost), "each file has the prices that it names"
    at_the_cut = {name(record) for record in [*settled, *lost]} - sent.keys()
    assert len(at_the_cut) <= 1, "only the one whose intent was the last to be written"
