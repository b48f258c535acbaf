"""The configuration in force in this process, kept equal to the database's.

Rules: (1) ``NOTIFY`` is a hint to read now, the truth is what a read sees, at the latest every few seconds; (2) after
the first read only what changed is read: the rows whose transaction the read before did not see; (3) a read is one
transaction and takes effect by one assignment, or not at all; (4) a model or provider that cannot be used holds up
nothing but itself; (5) when the database goes away, everything stays as it is, and who starts meanwhile begins with
what was last written down (``last_good.py``), as one who does not know what is new.
"""

import asyncio
import contextlib
import logging
import math
import random
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import asyncpg
import msgspec

from tollway.domain.keys import KeyHash
from tollway.routing.snapshot import (
    EMPTY,
    NO_ROWS,
    NOTHING,
    KeyRow,
    KeyTable,
    ModelRow,
    Problem,
    ProviderRow,
    Rows,
    Snapshot,
    compile_snapshot,
    grants,
)
from tollway.store.last_good import LastGoodFile, UnusableError
from tollway.store.neighbours import LOOK_S, Neighbours
from tollway.store.outage import Outage
from tollway.store.postgres import connect, query

_log = logging.getLogger("tollway.configuration")

CHANNEL = "tollway_config"
POLL_S = 2.0
ANSWER_S = 3.0
"""For one statement. With the poll it makes five: the longest that a revocation takes, even where notifications are
lost or the connection leads into nowhere."""
FRESH_S = 15.0
"""Several polls: after that, nobody knows whether an unknown key is new or wrong."""

_READ_TIMEOUT_S = 120.0  # a first read of a million keys takes 20 s
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 3.0
_SHARE = 0.05  # of its time that a process spends on reading changes, if they come without end
_LONGEST_REST_S = 0.3
_CHUNK = 500  # rows that are decoded and compiled at a stretch, in some 3 ms
_PATIENCE_S = 2.0  # with a database that does not answer, before a start goes without it
_CONFIRM_S = 30.0  # how often it is noted that what was written down is still so
_WRITING_REST_S, _WRITING_SHARE = 1.0, 0.05  # of a thread's time; a large configuration is written less often


class _Seen(NamedTuple):
    """A ``pg_snapshot``: which transactions a read has seen."""

    text: str
    xmin: int
    xmax: int
    running: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> "_Seen":
        xmin, xmax, running = text.split(":")
        return cls(text, int(xmin), int(xmax), frozenset(map(int, filter(None, running.split(",")))))

    def shows(self, transaction: int) -> bool:
        return transaction < self.xmin or (transaction < self.xmax and transaction not in self.running)


_NOTHING_SEEN = _Seen.parse("1:1:")
_fallback = msgspec.json.Decoder(tuple[str, ...])


class Configuration:
    """Follows the database from :meth:`start` to :meth:`close`; reads of ``snapshot`` cost nothing."""

    def __init__(
        self,
        url: str,
        on_problem: Callable[[Sequence[Problem]], None] | None = None,
        last_good: LastGoodFile | None = None,
        *,
        writes: bool = True,
        neighbours: Neighbours | None = None,
    ) -> None:
        """``last_good`` is where a start finds what it goes by while the database is away; one process writes it."""
        self.snapshot: Snapshot = EMPTY
        self.problems: tuple[Problem, ...] = ()
        """Why some of the newest models and providers are not in force; empty when all are."""
        self._url = url
        self._on_problem = on_problem
        self._seen = _NOTHING_SEEN
        self._read_at: float | None = None
        self._connected = False
        self._keys = KeyTable()
        self._hashes: dict[str, tuple[KeyHash, ...]] = {}  # which entries of the table belong to a key, by its id
        self._rows: Rows | None = None
        self._in_force = NO_ROWS  # in place of rows that cannot be used: their last good versions
        self._due = asyncio.Event()
        self._wanted = asyncio.Event()
        self._read = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._last_good = last_good
        self._writes = writes and last_good is not None
        self._neighbours = neighbours
        self._changed = asyncio.Event()
        self._reading = False
        self._beginning = last_good is not None
        """What stands in for the database is not known yet: until then nothing is said of its being away."""
        self._trouble: Exception = TimeoutError("PostgreSQL does not answer")
        self._outage = Outage(
            _log, "the configuration cannot be read, the last one stays in force", "the configuration is read again"
        )

    async def start(self) -> None:
        """Begin to follow; returns with the first usable snapshot, however long the database is away."""
        loop = asyncio.get_running_loop()
        self._tasks.append(loop.create_task(self._run(), name="configuration"))
        if self._last_good is not None and self._writes:
            self._tasks.append(loop.create_task(self._write_down(self._last_good), name="last good configuration"))
        while self._rows is None:
            await _wait(self._read, _PATIENCE_S)
            if self._rows is None and not self._reading and self._beginning and self._last_good is not None:
                await self._begin_with(self._last_good)
        self._beginning = False

    async def close(self) -> None:
        """Stop following; the last snapshot stays."""
        if self._last_good is not None:
            self._last_good.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def age_s(self) -> float:
        """Seconds since the database was last read; infinite before the first time."""
        return float("inf") if self._read_at is None else time.monotonic() - self._read_at

    @property
    def fresh(self) -> bool:
        """Whether what the database does not have, does not exist."""
        return self._connected and self.age_s < FRESH_S

    async def reached(self, revision: int, timeout_s: float) -> bool:
        """Wait until the change that was made as ``revision`` is in force; whether it is.

        What a lost connection has seen says nothing: a server that has crashed may give numbers of transactions anew.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not self._shows(revision):
                    self._due.set()
                    self._wanted.set()
                    await self._read.wait()
        return self._shows(revision)

    def _shows(self, revision: int) -> bool:
        return self._connected and self._seen.shows(revision)

    async def _run(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            began = time.monotonic()
            try:
                await self._follow()
            except Exception as error:  # whatever it is, the last good one stays
                self._trouble = error
                if not self._beginning:
                    self._outage.note(error)
            self._connected = self._reading = False
            lasted = time.monotonic() - began > _LONGEST_PAUSE_S
            pause_s = _FIRST_PAUSE_S if lasted else min(2 * pause_s, _LONGEST_PAUSE_S)
            await asyncio.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311  # not all processes at the same moment

    async def _follow(self) -> None:
        connection = await connect(self._url, "configuration", command_timeout_s=ANSWER_S)
        self._reading = True
        try:
            connection.add_termination_listener(self._lost)
            # A standby has no notifications: then the poll must do.
            with contextlib.suppress(asyncpg.ReadOnlySQLTransactionError):
                await connection.add_listener(CHANNEL, lambda *_: self._due.set())
            # The whole: it may be another database than before, or one that was set back.
            await self._load(connection, _NOTHING_SEEN)
            if self._neighbours is not None:
                await self._neighbours.announce(connection)
            looked = -math.inf
            while True:
                if self._neighbours is not None and time.monotonic() - looked > LOOK_S:
                    looked = time.monotonic()
                    await self._neighbours.look(connection)
                await _wait(self._due, POLL_S)
                before, began = self.snapshot, time.monotonic()
                await self._load(connection, self._seen)
                if self.snapshot is not before:
                    # Many small edits are read together; whoever waits for one of them is not kept waiting.
                    await _wait(self._wanted, min((time.monotonic() - began) / _SHARE, _LONGEST_REST_S))
        finally:
            connection.terminate()

    def _lost(self, _: asyncpg.Connection) -> None:
        self._connected = False
        self._due.set()
        self._wanted.set()

    async def _load(self, connection: asyncpg.Connection, since: _Seen) -> None:
        self._due.clear()
        self._wanted.clear()
        async with (
            asyncio.timeout(_READ_TIMEOUT_S),
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            seen, revision = await connection.fetchrow(query("config_state"))
            rows, newest = await _read_rows(connection)
            keys, newest_key = await self._read_keys(connection, since)
            before = 0 if since is _NOTHING_SEEN else self.snapshot.revision
        self._take(max(before, revision, newest, newest_key), keys, rows)
        self._seen, self._read_at, self._connected = _Seen.parse(seen), time.monotonic(), True
        self._outage.end()
        self._read.set()
        self._read = asyncio.Event()

    async def _begin_with(self, file: LastGoodFile) -> None:
        """Go by what was last written down, until the database answers."""
        try:
            last = await asyncio.to_thread(file.load)
        except UnusableError as error:
            _log.warning("the last good configuration is not used: %s", error)
            last = None
        if self._rows is not None:
            return
        self._beginning = False
        if last is None:
            self._outage.note(self._trouble, "the configuration cannot be read, the start waits for it")
            return
        self._take(last.revision, last.keys, last.rows)
        self._read_at = time.monotonic() - (time.time() - last.current_at)
        begins = f"the configuration cannot be read, calls are served by the configuration of {last.moment}"
        self._outage.note(self._trouble, begins, revision=last.revision, keys=len(last.keys))

    async def _write_down(self, file: LastGoodFile) -> None:
        """Keep the file equal to what is in force, in a thread, and not all the time."""
        trouble = Outage(_log, "the last good configuration cannot be written down", "it is written down again")
        written: Snapshot | None = None
        while True:
            await _wait(self._changed, _CONFIRM_S)
            self._changed.clear()
            snapshot, began = self.snapshot, time.monotonic()
            if not self.fresh:
                continue
            try:
                if snapshot is written:
                    await asyncio.to_thread(file.confirm)
                elif await asyncio.to_thread(file.save, snapshot.revision, self._keys, self._in_force):
                    written = snapshot
                else:
                    _log.warning("the configuration is too large to be written down for starts without PostgreSQL")
                    return
                trouble.end()
            except OSError as error:
                trouble.note(error)
            await asyncio.sleep(max(_WRITING_REST_S, (time.monotonic() - began) / _WRITING_SHARE))

    async def _read_keys(self, connection: asyncpg.Connection, since: _Seen) -> tuple[KeyTable, int]:
        """All keys as they are now, and the newest transaction among the changes; the same object if there are none.

        ``_hashes`` is changed on the way: a read that fails is followed by one of the whole.
        """
        before = self._keys
        if since is _NOTHING_SEEN:
            before, self._hashes = KeyTable(), {}
        draft, newest = before.draft(), 0
        # A few rows at a time, so that other work of the event loop gets its turn in between.
        cursor = await connection.cursor(query("config_keys"), since.text)
        while rows := await cursor.fetch(_CHUNK):
            secrets = await _read_secrets(connection, [row[0] for row in rows])
            for row in rows:
                *values, deleted, changed_in = row
                newest = max(newest, changed_in)
                key = KeyRow._make(values)
                for outdated in self._hashes.pop(key.id, ()):
                    draft.drop(outdated)
                if not deleted:
                    entries = grants(key, secrets.get(key.id, NOTHING))
                    for entry in entries:
                        draft.put(*entry)
                    self._hashes[key.id] = tuple(entry[0] for entry in entries)
        return draft.done() if newest else before, newest

    def _take(self, revision: int, keys: KeyTable, rows: Rows) -> None:
        before, self._keys = self.snapshot, keys
        if rows != self._rows:
            self.snapshot, problems, self._in_force = compile_snapshot(revision, keys, rows, self._in_force)
            self._rows = rows
            self._report(problems)
            self._changed.set()
        elif keys is not before.keys or revision != before.revision:
            self.snapshot = msgspec.structs.replace(before, revision=revision, keys=keys)
            self._changed.set()

    def _report(self, problems: tuple[Problem, ...]) -> None:
        if problems == self.problems:
            return
        for problem in problems:
            if problem not in self.problems:
                _log.error("%s: %s", problem.consequence, problem)
        if not problems:
            _log.info("all models and providers are in force again")
        self.problems = problems
        if self._on_problem is not None:
            self._on_problem(problems)


async def _read_rows(connection: asyncpg.Connection) -> tuple[Rows, int]:
    providers = await connection.fetch(query("config_providers"))
    models = await connection.fetch(query("config_models"))
    newest = max((row[-1] for row in (*providers, *models)), default=0)
    return Rows(tuple(ProviderRow._make(row[:-1]) for row in providers), tuple(map(_model, models))), newest


async def read_models(connection: asyncpg.Connection) -> list[ModelRow]:
    """The rows of all models, by name."""
    return list(map(_model, await connection.fetch(query("config_models"))))


def _model(row: asyncpg.Record) -> ModelRow:
    model = ModelRow._make(row[:-1])
    try:
        return model._replace(fallback=_fallback.decode(row["fallback"] or "[]"))
    except msgspec.DecodeError:  # written past the triggers, which keep the text of an array there
        return model._replace(fallback=None)


async def _read_secrets(connection: asyncpg.Connection, ids: list[str]) -> dict[str, dict[str, str]]:
    secrets: dict[str, dict[str, str]] = {}
    for key_id, provider, secret in await connection.fetch(query("config_provider_keys"), ids):
        secrets.setdefault(key_id, {})[sys.intern(provider)] = secret
    return secrets


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
