"""Clients that hang up once the provider's answer has begun: what is still read, for how long, and who pays for what.

A worker in the test's own process and a scripted provider, with real sockets between them. How long the usage is
awaited is set by the tests: either so long that nothing but an event ends it, or so short that nobody waits.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fakes.client import Wire, chat_body, request_bytes
from fakes.fixtures import StartGateway
from fakes.gateway import Tenant, new_tenant
from fakes.upstream import (
    HANG,
    LAST_CHUNK,
    PATIENCE_S,
    RESET,
    STREAM_HEAD,
    Account,
    Act,
    Answer,
    Bill,
    Flood,
    Gate,
    Part,
    Received,
    Upstream,
    error,
    event,
    head,
    http_chunk,
    openai_reply,
    openai_stream,
    openai_usage,
    raw,
)
from fakes.worker import MODEL, Worker, running_worker, until
from tollway.accounting.records import Settlement
from tollway.dataplane import attempts, passage, relay, serve
from tollway.dataplane.reporting import cut_revoked
from tollway.domain.money import format_dollars
from tollway.providers.passage import PassageStream

PRICES = {"input_cost": Decimal("0.00015"), "output_cost": Decimal("0.0006")}
"""In US dollars per 1,000 tokens: gpt-4o-mini's."""
DRAIN = {**PRICES, "on_disconnect": "drain"}
LARGE = Bill(1000, 5000)
LARGE_COSTS = "0.00315"
JSON = {"content-type": "application/json"}


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time ends no waiting for usage, unless a test says so."""
    monkeypatch.setattr(relay, "USAGE_S", 10 * PATIENCE_S)


class Scene:
    """A worker, its provider, and a client that leaves."""

    def __init__(self, worker: Worker, provider: Account) -> None:
        self.worker = worker
        self.provider = provider

    @asynccontextmanager
    async def asked(self, path: str = "/v1/chat/completions", **more: Any) -> AsyncIterator[Wire]:
        """A client that has asked; it hangs up at the end of the block, and the worker has noticed."""
        body = {**chat_body(MODEL, stream=True), **more}
        async with self.worker.client.connect() as wire:
            await wire.send(request_bytes("POST", path, body, self.worker.key))
            yield wire
            calls = list(self.worker.world.calls)
            assert calls, "the call had ended before"
            wire.reset()
            await until(lambda: all(call.request.closed for call in calls))

    async def all_was_said(self) -> None:
        """The worker has read that nothing of the answer is missing."""
        await until(lambda: any(each._all_said for each in self.worker.world.relays))

    async def is_relayed(self) -> None:
        """The worker has read the first event."""
        await until(lambda: bool(self.worker.world.relays))

    async def has_begun(self) -> None:
        """The worker has read the head of the provider's answer."""
        pool = self.worker.world.client._pool
        await until(lambda: any(line.answer is not None and line.answer.status for line in pool._open))

    async def is_held_up(self) -> None:
        """The client does not read, so the provider is not read either."""
        await until(lambda: any(each._response.paused for each in self.worker.world.relays))

    async def settled(self) -> Settlement:
        """The one entry; nothing is left of its call."""
        (entry,) = await self.worker.settlements(1)
        world = self.worker.world
        await until(lambda: not (world.calls or world.relays or world.server.connections))
        assert world.slots.enter("key_1"), "its place is free again"
        world.slots.leave("key_1")
        return entry


@asynccontextmanager
async def scene(folder: Path, answer: Answer, row: dict[str, Any] = PRICES, **settings: str) -> AsyncIterator[Scene]:
    with Upstream() as upstream:
        provider = upstream.account("sk-openai").answers(answer)
        async with running_worker(folder, upstream.url, row, **settings) as worker:
            yield Scene(worker, provider)


def cost(entry: Settlement) -> str:
    return format_dollars(entry.cost, entry.scale)


def chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return event({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": [choice]})


TEXT = chunk({"role": "assistant", "content": "Bonj"})
END = chunk({}, "stop")
USAGE = event({"id": "c", "object": "chat.completion.chunk", "choices": [], "usage": openai_usage(LARGE)})
DONE = event("[DONE]") + LAST_CHUNK


def said(kind: str, **more: Any) -> bytes:
    return event({"type": f"response.{kind}", **more})


CREATED = said("created", response={"id": "resp_1", "usage": None})
THOUGHT = said("reasoning_summary_text.done", text="Hm")
DELTA = said("output_text.delta", delta="Bonj")
SAID = said("output_text.done", text="Bonj")
COMPLETED = said("completed", response={"usage": {"input_tokens": 1000, "output_tokens": 5000}})


# Nothing is missing but the usage


async def test_who_leaves_when_all_was_said_pays_what_the_provider_counts(tmp_path: Path) -> None:
    gate = Gate()
    async with scene(tmp_path, raw(STREAM_HEAD, TEXT, END, gate, USAGE, DONE)) as on:
        async with on.asked():
            await on.all_was_said()
        world = on.worker.world
        assert len(world.calls) == len(world.relays) == world.server.connections == 1, "it is still counted"
        assert world.slots._running == {"key_1": 1}
        gate.open()
        entry = await on.settled()
        assert (entry.outcome, entry.state, entry.charged) == ("client_gone", "exact", True)
        assert (entry.usage.input_tokens, entry.usage.output_tokens, cost(entry)) == (1000, 5000, LARGE_COSTS)
        assert on.provider.hang_ups.value == 0
        await until(lambda: world.client.idle_connections == 1)


@pytest.mark.parametrize("end", [HANG, RESET, DONE], ids=["silence", "a reset", "the end"])
async def test_usage_that_never_comes_is_estimated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: Act | bytes
) -> None:
    if end is HANG:
        monkeypatch.setattr(relay, "USAGE_S", 0.01)
    gate = Gate()
    async with scene(tmp_path, raw(STREAM_HEAD, TEXT, END, gate, end)) as on:
        async with on.asked():
            await on.all_was_said()
        gate.open()
        entry = await on.settled()
        assert (entry.outcome, entry.state, entry.usage.output_tokens) == ("client_gone", "partial", 1)
        assert cost(entry) == "0.00000255", "13 and 1"
        await on.provider.hang_ups.reaches(1 if end is HANG else 0)


async def test_a_model_that_says_more_after_all_is_not_listened_to(tmp_path: Path) -> None:
    """Some servers give a reason to end with every chunk."""
    gate = Gate()
    answer = raw(STREAM_HEAD, TEXT, chunk({"content": "our"}, "stop"), gate, chunk({"content": "!"}, "stop"), HANG)
    async with scene(tmp_path, answer) as on:
        async with on.asked():
            await on.all_was_said()
        gate.open()
        await on.provider.hang_ups.reaches(1)
        entry = await on.settled()
        assert (entry.outcome, entry.state, entry.usage.output_tokens) == ("client_gone", "partial", 2)


async def test_a_provider_that_does_not_stop_talking_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "USAGE_BYTES", 100_000)
    gate = Gate()
    async with scene(
        tmp_path, raw(STREAM_HEAD, TEXT, END, gate, Flood(http_chunk(b": %b\n\n" % (b"x" * 20_000)), 10**6))
    ) as on:
        async with on.asked():
            await on.all_was_said()
            (running,) = on.worker.world.relays
        gate.open()
        await on.provider.hang_ups.reaches(1)
        entry = await on.settled()
        assert (entry.outcome, entry.state) == ("client_gone", "partial")
        assert running._response.received < 2**20


async def test_who_leaves_before_all_was_said_cuts_the_provider(tmp_path: Path) -> None:
    gate = Gate()
    async with scene(tmp_path, raw(STREAM_HEAD, TEXT, gate, END, USAGE, DONE)) as on:
        async with on.asked():
            await on.is_relayed()
        await on.provider.hang_ups.reaches(1)
        entry = await on.settled()
        assert (entry.outcome, entry.state, entry.usage.output_tokens) == ("client_gone", "partial", 1)


async def test_a_key_that_is_revoked_while_its_usage_is_awaited_waits_no_longer(tmp_path: Path) -> None:
    async with scene(tmp_path, raw(STREAM_HEAD, TEXT, END, HANG)) as on:
        async with on.asked():
            await on.all_was_said()
        configuration: Any = on.worker.world.configuration
        configuration.snapshot = msgspec.structs.replace(configuration.snapshot, keys={})
        cut_revoked(on.worker.world)
        await on.provider.hang_ups.reaches(1)
        entry = await on.settled()
        assert (entry.outcome, entry.state, entry.usage.output_tokens) == ("revoked", "partial", 1)


async def test_a_drain_waits_for_the_usage(tmp_path: Path) -> None:
    gate = Gate()
    async with scene(tmp_path, raw(STREAM_HEAD, TEXT, END, gate, USAGE, DONE)) as on:
        async with on.asked():
            await on.all_was_said()
        draining = asyncio.create_task(on.worker.world.server.drain(PATIENCE_S))
        _, waiting = await asyncio.wait({draining}, timeout=0.05)
        assert waiting
        gate.open()
        await draining
        assert cost(await on.settled()) == LARGE_COSTS


# Answers that pass as they are


async def test_a_response_whose_text_has_ended_is_read_on_for_its_usage(tmp_path: Path) -> None:
    gate = Gate()
    async with scene(tmp_path, raw(STREAM_HEAD, CREATED, DELTA, SAID, gate, COMPLETED, LAST_CHUNK)) as on:
        async with on.asked("/v1/responses", input="Hello"):
            await on.all_was_said()
        gate.open()
        entry = await on.settled()
        assert (entry.outcome, entry.state, cost(entry)) == ("client_gone", "exact", LARGE_COSTS)


async def test_a_response_that_goes_on_after_a_text_is_not_listened_to(tmp_path: Path) -> None:
    gate = Gate()
    async with scene(tmp_path, raw(STREAM_HEAD, CREATED, DELTA, SAID, gate, said("output_item.added"), HANG)) as on:
        async with on.asked("/v1/responses", input="Hello"):
            await on.all_was_said()
        gate.open()
        await on.provider.hang_ups.reaches(1)
        entry = await on.settled()
        assert (entry.outcome, entry.state, entry.usage.output_tokens) == ("client_gone", "partial", 1)


async def test_a_response_that_tells_no_usage_in_time_is_no_failure_of_its_provider(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "USAGE_S", 0.01)
    async with scene(tmp_path, raw(STREAM_HEAD, CREATED, DELTA, SAID, HANG)) as on:
        async with on.asked("/v1/responses", input="Hello"):
            await on.all_was_said()
        entry = await on.settled()
        assert (entry.outcome, entry.state, entry.usage.output_tokens) == ("client_gone", "partial", 1)
        assert not list(on.worker.world.health.states(on.worker.world.now()))


# What is wholly here is read first


class Held:
    """A thread's work that stands still until the test goes on."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.goes_on = threading.Event()

    def around(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def held(*arguments: Any) -> Any:
            result = work(*arguments)
            if threading.current_thread() is not threading.main_thread():
                self.begun.set()
                assert self.goes_on.wait(PATIENCE_S)
            return result

        return held


async def test_a_large_answer_that_is_here_is_billed_by_what_it_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held()
    monkeypatch.setattr(attempts, "_decode_large", held.around(attempts._decode_large))
    async with scene(tmp_path, openai_reply("x" * 200_000, LARGE)) as on:
        async with on.asked(stream=False):
            await until(held.begun.is_set)
        held.goes_on.set()
        entry = await on.settled()
        assert (entry.outcome, entry.state, cost(entry)) == ("client_gone", "exact", LARGE_COSTS)


async def test_a_large_response_that_nobody_counted_is_billed_by_its_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held()
    monkeypatch.setattr(passage, "text_bytes", held.around(passage.text_bytes))
    body = msgspec.json.encode({"id": "resp_1", "output": [{"content": [{"text": "y" * 100_000}]}]})
    async with scene(tmp_path, raw(head(200, {**JSON, "content-length": str(len(body))}) + body)) as on:
        async with on.asked("/v1/responses", input="Hello", stream=False):
            await until(held.begun.is_set)
        held.goes_on.set()
        entry = await on.settled()
        assert (entry.outcome, entry.usage.output_tokens) == ("client_gone", 25_000)


@pytest.mark.parametrize("relayed", [True, False])
async def test_a_large_last_event_that_is_here_is_billed_by_what_it_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, relayed: bool
) -> None:
    held, gate = Held(), Gate()
    monkeypatch.setattr(PassageStream, "feed", held.around(PassageStream.feed))
    usage = {"input_tokens": 1000, "output_tokens": 5000}
    last = said("completed", response={"output": ["y" * 100_000], "usage": usage})
    begun = [CREATED, DELTA, gate] if relayed else [CREATED, DELTA]
    async with scene(tmp_path, raw(STREAM_HEAD, *begun, last, LAST_CHUNK)) as on:
        async with on.asked("/v1/responses", input="Hello"):
            if relayed:
                await on.is_relayed()
                gate.open()
            await until(held.begun.is_set)
            await until(lambda: on.worker.world.client.idle_connections == 1)  # all of it is here
        held.goes_on.set()
        entry = await on.settled()
        assert (entry.outcome, entry.state, cost(entry)) == ("client_gone", "exact", LARGE_COSTS)


async def test_a_large_event_in_the_middle_does_not_keep_a_provider_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held()
    monkeypatch.setattr(PassageStream, "feed", held.around(PassageStream.feed))
    large = said("output_text.delta", delta="y" * 100_000)
    async with scene(tmp_path, raw(STREAM_HEAD, CREATED, DELTA, large, HANG)) as on:
        async with on.asked("/v1/responses", input="Hello"):
            await until(held.begun.is_set)
        held.goes_on.set()
        await on.provider.hang_ups.reaches(1)
        entry = await on.settled()
        assert (entry.outcome, entry.state) == ("client_gone", "partial")


# Nothing was to be seen


@pytest.mark.parametrize(
    ("wishes", "tokens"), [({}, 1024), ({"max_tokens": 700}, 700), ({"max_completion_tokens": 700, "n": 2}, 1400)]
)
@pytest.mark.parametrize("begun", [[], [chunk({"role": "assistant", "content": "", "hidden": "thoughts"})]])
async def test_what_was_thought_unseen_is_billed_as_reserved(
    tmp_path: Path, begun: list[Part], wishes: dict[str, int], tokens: int
) -> None:
    async with scene(tmp_path, raw(STREAM_HEAD, *begun, HANG)) as on:
        async with on.asked(**wishes):
            await (on.is_relayed() if begun else on.has_begun())
        entry = await on.settled()
        assert (entry.outcome, entry.state, entry.usage.output_tokens) == ("client_gone", "partial", tokens)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_response_that_thinks_unseen_is_billed_as_reserved(tmp_path: Path, stream: bool) -> None:
    start = [STREAM_HEAD, CREATED, THOUGHT] if stream else [head(200, {**JSON, "content-length": "100"})]
    async with scene(tmp_path, raw(*start, HANG)) as on:
        async with on.asked("/v1/responses", input="Hello", max_output_tokens=700, stream=stream):
            await (on.is_relayed() if stream else on.has_begun())
        await on.provider.hang_ups.reaches(1)
        entry = await on.settled()
        assert (entry.outcome, entry.state, entry.usage.output_tokens) == ("client_gone", "partial", 700)


async def test_what_has_no_output_has_none_when_its_client_leaves(tmp_path: Path) -> None:
    async with scene(tmp_path, raw(head(200, {**JSON, "content-length": "100"}), HANG)) as on:
        async with on.asked("/v1/embeddings", input="Hello", stream=False):
            await on.has_begun()
        entry = await on.settled()
        assert (entry.outcome, entry.usage.output_tokens) == ("client_gone", 0)
        assert entry.usage.input_tokens > 0


# Models whose row says that answers are read to their end


def whole_response(request: Received) -> Iterator[Part]:
    body = {"id": "resp_1", "output": [], "usage": {"input_tokens": 1000, "output_tokens": 5000}}
    encoded = msgspec.json.encode(body)
    yield head(200, {**JSON, "content-length": str(len(encoded))}) + encoded


DRAINED = {
    "a whole answer": ("/v1/chat/completions", False, [], openai_reply("x" * 100, LARGE)),
    "a stream that has not begun": ("/v1/chat/completions", True, [], openai_stream(["a", "b"], LARGE)),
    "a stream": ("/v1/chat/completions", True, [STREAM_HEAD, TEXT], raw(TEXT, END, USAGE, DONE)),
    "a large stream": (
        "/v1/chat/completions",
        True,
        [STREAM_HEAD, TEXT],
        raw(*[chunk({"content": "x" * 200_000})] * 20, END, USAGE, DONE),
    ),
    "a whole response": ("/v1/responses", False, [], whole_response),
    "a streamed response": (
        "/v1/responses",
        True,
        [STREAM_HEAD, CREATED, DELTA],
        raw(DELTA, SAID, said("output_item.added"), DELTA, COMPLETED, LAST_CHUNK),
    ),
}


@pytest.mark.parametrize("story", DRAINED)
async def test_a_model_that_drains_is_read_to_the_end_and_billed_exactly(tmp_path: Path, story: str) -> None:
    path, stream, before, after = DRAINED[story]
    gate = Gate()

    def answer(request: Received) -> Iterator[Part]:
        yield from before
        yield gate
        yield from after(request)

    async with scene(tmp_path, answer, DRAIN) as on:
        async with on.asked(path, input="Hello", stream=stream):
            await gate.reached()
            if before:
                await on.is_relayed()
        gate.open()
        entry = await on.settled()
        assert (entry.outcome, entry.state, entry.charged) == ("client_gone", "exact", True)
        assert (entry.usage.input_tokens, entry.usage.output_tokens, cost(entry)) == (1000, 5000, LARGE_COSTS)
        assert on.provider.hang_ups.value == 0


async def test_nothing_is_kept_of_what_is_drained_for_a_client_that_did_not_read(tmp_path: Path) -> None:
    much = Flood(chunk({"content": "x" * 60_000}), 500)
    async with scene(tmp_path, raw(STREAM_HEAD, TEXT, much, END, USAGE, DONE), DRAIN) as on:
        held = 0
        async with on.worker.client.connect(receive_buffer=4096) as wire:
            body = chat_body(MODEL, stream=True)
            await wire.send(request_bytes("POST", "/v1/chat/completions", body, on.worker.key))
            await on.is_held_up()
            wire.reset()
        while on.worker.world.calls:
            held = max(held, on.worker.world.server.budget.held)
            await asyncio.sleep(0)
        entry = await on.settled()
        assert (entry.outcome, entry.state, cost(entry)) == ("client_gone", "exact", LARGE_COSTS)
        assert held < 2**20, "of 30 MB"


async def test_for_a_client_that_has_gone_nobody_else_is_asked(tmp_path: Path) -> None:
    gate = Gate()

    def answer(request: Received) -> Iterator[Part]:
        yield gate
        yield from error(503)(request)

    async with scene(tmp_path, answer, DRAIN) as on:
        async with on.asked(stream=False):
            await gate.reached()
        gate.open()
        entry = await on.settled()
        assert (entry.outcome, entry.charged, len(on.provider.requests)) == ("server_error", False, 1)


async def test_a_client_that_leaves_between_two_attempts_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "repeat_pause_s", lambda failure: 10 * PATIENCE_S)
    async with scene(tmp_path, error(503), DRAIN) as on:
        async with on.asked(stream=False):
            await on.worker.settlements(1)
        entry = await on.settled()
        assert (entry.outcome, entry.charged, len(on.provider.requests)) == ("server_error", False, 1)


async def test_the_deadline_ends_a_drain_too(tmp_path: Path) -> None:
    async with scene(tmp_path, raw(STREAM_HEAD, TEXT, HANG), DRAIN, REQUEST_TIMEOUT_S="1") as on:
        async with on.asked():
            await on.is_relayed()
        await on.provider.hang_ups.reaches(1)
        entry = await on.settled()
        assert (entry.outcome, entry.state, entry.charged) == ("timeout", "partial", True)


# The whole gateway


async def test_a_row_says_what_becomes_of_its_answers_and_a_stop_waits_for_them(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    tenant = await new_tenant(gateway)
    await gateway.sql("UPDATE tollway.models SET on_disconnect = 'drain' WHERE name = $1", tenant.model)
    await gateway.configuration_is_live()
    gate = Gate()
    tenant.openai.answers(openai_stream(["word ", gate, "word "], Bill(1000, 0)))
    await leaves_in_mid_stream(tenant)
    gateway.terminate()
    gate.open()
    assert await asyncio.to_thread(gateway.wait) == 0
    gateway.start()
    (row,) = await tenant.ledger(1)
    assert (row["outcome"], row["state"], row["charged"]) == ("client_gone", "exact", True)
    await tenant.cost_becomes("0.001")


async def leaves_in_mid_stream(tenant: Tenant) -> None:
    async with tenant.stream() as stream:
        await stream.next_text()
        stream.wire.reset()
    await everything_arrived_is_handled(tenant)


async def everything_arrived_is_handled(tenant: Tenant) -> None:
    """What has reached the gateway before this has been acted on: its one loop has answered two later requests."""
    for _ in range(2):
        assert (await tenant.client.get("/livez")).status == 200


async def test_the_usage_that_follows_an_end_at_once_is_billed(tenant: Tenant) -> None:
    """As a real client leaves: whatever comes first, the end of its connection or the usage, it pays the same."""
    model = await tenant.add_model(input_cost="0.00015", output_cost="0.0006")
    gate = Gate()
    tenant.openai.answers(raw(STREAM_HEAD, TEXT, END, gate, USAGE, DONE))
    async with tenant.stream(model) as stream:
        await stream.next_text()
        await gate.reached()
        await everything_arrived_is_handled(tenant)
        stream.wire.reset()
        gate.open()
    (row,) = await tenant.ledger(1)
    assert (row["state"], row["cost"]) == ("exact", Decimal(LARGE_COSTS))
