"""Clients of all kinds at once, and what must be in the books afterwards.

Each call carries a number. The scripted provider reads it and bills it as so many input tokens, so that an entry of the
ledger says which call it is about, whatever has died on the way.
"""

import asyncio
import itertools
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal

import asyncpg

from fakes.client import BrokenAnswerError
from fakes.gateway import Tenant
from fakes.upstream import CLOSE, Bill, Part, Pause, Received, error, openai_reply, openai_stream

_FIRST = 1_000_000
"""No estimate of a small prompt is so large: an entry with as many input tokens was counted by the provider."""

_GONE = (BrokenAnswerError, ConnectionError, OSError, TimeoutError, AssertionError)
"""What a client sees of a gateway that dies under it."""


class MixedLoad:
    """Whole answers, streams, clients that hang up, providers that fail; so many clients at the same time."""

    def __init__(self, tenant: Tenant, seed: int, clients: int = 12, pace_s: float = 0.0) -> None:
        self._tenant = tenant
        self._random = random.Random(seed)
        self._clients = clients
        self._pace_s = pace_s
        self._numbers = itertools.count(_FIRST)
        self.seen: Counter[int] = Counter()
        """How often the provider was asked, by the number of the call."""
        self.whole: set[int] = set()
        """Calls whose answer a client received to its end."""
        self.statuses: Counter[int] = Counter()
        self.broken = 0
        tenant.openai.answers(self._answer)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The load runs while the block does; its last calls come to their end."""
        stopping = asyncio.Event()
        clients = [asyncio.create_task(self._client(stopping)) for _ in range(self._clients)]
        try:
            yield
        finally:
            stopping.set()
            await asyncio.gather(*clients)

    def _answer(self, request: Received) -> Iterator[Part]:
        request.account.requests.clear()
        content = request.json["messages"][0]["content"]
        number, kind = int(content.split()[0]), content.split()[1]
        self.seen[number] += 1
        bill = Bill(number, number % 97)
        if kind == "fails":
            yield from error(500)(request)
        elif kind == "breaks":
            yield from openai_stream(["one ", "two ", Pause(0.01), CLOSE], bill)(request)
        elif kind == "slow":
            yield Pause(0.05)
            yield from openai_reply("slow", bill)(request)
        elif request.json.get("stream"):
            words: list[str | dict[str, object] | Part] = []
            for word in range(8):
                words += [f"word {word} ", Pause(0.01)]
            yield from openai_stream(words, bill)(request)
        else:
            yield from openai_reply("whole", bill)(request)

    async def _client(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            number = next(self._numbers)
            kind = self._random.choice(["whole", "whole", "slow", "stream", "stream", "leaves", "fails", "breaks"])
            try:
                async with asyncio.timeout(20):
                    await self._call(number, kind)
            except _GONE:
                self.broken += 1
                await asyncio.sleep(0.02)
            if self._pace_s:
                await asyncio.sleep(self._pace_s)

    async def _call(self, number: int, kind: str) -> None:
        tenant, content = self._tenant, f"{number} {kind}"
        if kind in ("stream", "leaves", "breaks"):
            options = {"include_usage": True}
            async with tenant.stream(content=content, stream_options=options) as stream:
                self.statuses[stream.status] += 1
                if kind == "leaves" and stream.status == 200:
                    await stream.event()
                    await stream.event()
                elif (await stream.events())[-1] == "[DONE]":
                    self.whole.add(number)
        else:
            reply = await tenant.chat(content=content)
            self.statuses[reply.status] += 1
            if reply.status == 200:
                assert json.loads(reply.body)["usage"]["prompt_tokens"] == number
                self.whole.add(number)

    async def assert_booked(self, within_s: float = 10.0) -> Counter[str]:
        """Every call that was answered is in the ledger once, nothing else is but what is marked; outcomes, counted.

        ``within_s`` is how long what died with its process may take to be entered.
        """
        gateway, key_id = self._tenant.gateway, self._tenant.key_id
        enough = f"SELECT count(*) >= {self.seen.total()} FROM tollway.ledger WHERE key_id = $1"
        await gateway.becomes(True, enough, key_id, within_s=within_s)
        rows = await gateway.sql("SELECT * FROM tollway.ledger WHERE key_id = $1", key_id)
        counted = Counter(_number(row) for row in rows if row["state"] != "none" and _number(row) >= _FIRST)
        assert not {number for number, times in counted.items() if times > 1}, "entered twice"
        assert not counted.keys() - self.seen.keys(), "the provider was never asked"
        assert not self.whole - counted.keys(), "answered and not entered"
        told = {_number(row): row["state"] for row in rows}
        assert {told[number] for number in self.whole} <= {"exact"}
        assert {row["state"] for row in rows if row["outcome"] == "lost"} <= {"estimated"}
        total = await gateway.value("SELECT total_cost FROM tollway.key_totals WHERE key_id = $1", key_id)
        assert total == sum((row["cost"] for row in rows if row["charged"]), Decimal(0))
        verified = await asyncio.to_thread(gateway.command, "ledger", "verify")
        assert verified.returncode == 0, verified.stdout
        return Counter(row["outcome"] for row in rows)


def _number(row: asyncpg.Record) -> int:
    number: int = row["input_tokens"]
    return number
