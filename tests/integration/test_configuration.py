"""What is written to the database is in force here within a moment, and a database that is away changes nothing."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cpu_time import no_collection
from fakes.connections import connected, database_url
from fakes.relay import Relay
from tollway.admission.authenticate import KeyHasher
from tollway.domain.keys import KeyHash
from tollway.routing.snapshot import NO_ROWS, KeyGrant, KeyTable
from tollway.store import configuration as module
from tollway.store import keys
from tollway.store.configuration import Configuration
from tollway.store.keys import NewSecret
from tollway.store.last_good import FILE_NAME, LastGoodFile
from tollway.store.vault import Vault

vault = Vault(bytes(32))
hasher = KeyHasher(vault.pepper)


@asynccontextmanager
async def following(url: str) -> AsyncIterator[Configuration]:
    configuration = Configuration(url)
    await configuration.start()
    try:
        yield configuration
    finally:
        await configuration.close()


async def until(condition: Callable[[], bool], within_s: float = 1.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.002)


def grant(configuration: Configuration, made: NewSecret) -> KeyGrant | None:
    return configuration.snapshot.keys.get(hasher(made.secret.reveal().encode()))


async def end_connections(url: str) -> None:
    async with connected(url) as connection:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )


async def test_the_first_snapshot_is_whole(postgres_url: str) -> None:
    async with connected(postgres_url) as connection:
        made = await keys.create(connection, hasher, allowed_models=["gpt-4o"])
        await keys.save_provider_keys(connection, vault, made.id, {"openai": "sk-o"})
    async with following(postgres_url) as configuration:
        snapshot = configuration.snapshot
        assert configuration.fresh
        assert [target.model for target in snapshot.routes["gpt-3.5-turbo"].targets] == [
            "gpt-3.5-turbo",
            "mistral-small-latest",
        ]
        found = grant(configuration, made)
        assert found is not None
        assert (found.id, found.requests_per_minute, found.tokens_per_minute) == (made.id, 60, 100_000)
        assert found.models == {"gpt-4o"}
        assert list(found.secrets) == ["openai"]
        assert snapshot.revision >= made.revision


async def test_what_psql_writes_is_in_force_within_a_second(postgres_url: str) -> None:
    async with connected(postgres_url) as psql, following(postgres_url) as configuration:
        made = await keys.create(psql, hasher)
        await until(lambda: grant(configuration, made) is not None)
        await psql.execute('UPDATE "Users" SET "requestsPerMinute" = 7')
        await until(lambda: grant(configuration, made).requests_per_minute == 7)
        await psql.execute("""UPDATE "Users" SET "openaiKey" = 'broken'""")
        await until(lambda: grant(configuration, made).secrets == {"openai": "broken"})
        await psql.execute("""UPDATE "Users" SET "openaiKey" = ''""")
        await until(lambda: grant(configuration, made).secrets == {})
        await psql.execute("""UPDATE "Providers" SET "apiBase" = 'http://127.0.0.1:9000/v1' WHERE name = 'openai'""")
        await until(lambda: configuration.snapshot.providers["openai"].base_url == "http://127.0.0.1:9000/v1")
        await psql.execute("""INSERT INTO "LLMModels" (name, provider) VALUES ('new', 'openai')""")
        await until(lambda: "new" in configuration.snapshot.routes)
        await psql.execute("""DELETE FROM "LLMModels" WHERE name = 'new'""")
        await until(lambda: "new" not in configuration.snapshot.routes)
        await psql.execute("UPDATE tollway.virtual_keys SET revoked_at = now()")
        await until(lambda: grant(configuration, made).revoked)
        await psql.execute('DELETE FROM "Users"')
        await until(lambda: grant(configuration, made) is None)


async def test_the_list_price_of_an_unpriced_model_comes_into_force(postgres_url: str) -> None:
    async with connected(postgres_url) as psql, following(postgres_url) as configuration:
        await psql.execute("""INSERT INTO "LLMModels" (name, provider) VALUES ('new', 'openai')""")
        await until(lambda: "new" in configuration.snapshot.routes)
        assert configuration.snapshot.routes["new"].targets[0].tariff is None
        await psql.execute(
            "INSERT INTO tollway.builtin_prices (provider, model, periods) "
            """VALUES ('openai', 'new', '[{"rates": [{"bucket": "input", "usd": "2"}]}]')"""
        )
        await until(lambda: configuration.snapshot.routes["new"].targets[0].tariff is not None)


async def test_every_change_moves_the_revision_forward(postgres_url: str) -> None:
    async with connected(postgres_url) as psql, following(postgres_url) as configuration:
        await psql.execute("""INSERT INTO "LLMModels" (name, provider) VALUES ('new', 'openai')""")
        for statement in (
            """UPDATE "LLMModels" SET "inputCostPer1k" = 1 WHERE name = 'new'""",
            """DELETE FROM "LLMModels" WHERE name = 'new'""",
            """UPDATE "Providers" SET "apiVersion" = '1'""",
        ):
            await asyncio.sleep(0)
            before = configuration.snapshot.revision
            await psql.execute(statement)
            await until(lambda before=before: configuration.snapshot.revision > before)


async def test_without_a_change_the_snapshot_stays_the_same_object(postgres_url: str) -> None:
    async with connected(postgres_url) as psql, following(postgres_url) as configuration:
        before = configuration.snapshot
        assert await configuration.reached(await psql.fetchval("SELECT pg_current_xact_id()::text::bigint"), 1)
        assert configuration.snapshot is before


async def test_a_change_is_in_force_when_its_revision_is_reached(postgres_url: str) -> None:
    async with connected(postgres_url) as psql, following(postgres_url) as configuration:
        for _ in range(20):
            made = await keys.create(psql, hasher)
            assert await configuration.reached(made.revision, 1)
            assert grant(configuration, made) is not None


async def test_a_revision_that_is_not_committed_is_not_reached(postgres_url: str) -> None:
    """Also where a later transaction was committed already: revisions are not committed in their order."""
    async with (
        connected(postgres_url) as slow,
        connected(postgres_url) as quick,
        following(postgres_url) as configuration,
    ):
        async with slow.transaction():
            first = await keys.create(slow, hasher)
            second = await keys.create(quick, hasher)
            assert await configuration.reached(second.revision, 1)
            assert configuration.snapshot.revision >= second.revision > first.revision
            assert not await configuration.reached(first.revision, 0.05)
        assert await configuration.reached(first.revision, 1)
        assert grant(configuration, first) is not None


async def test_a_rotated_secret_ends_with_the_overlap(postgres_url: str) -> None:
    async with connected(postgres_url) as psql, following(postgres_url) as configuration:
        first = await keys.create(psql, hasher)
        second = await keys.rotate(psql, hasher, first.id, timedelta(hours=1))
        assert second is not None
        assert await configuration.reached(second.revision, 1)
        assert grant(configuration, first).expires_at == pytest.approx(time.time() + 3600, abs=60)
        assert grant(configuration, second).expires_at is None
        third = await keys.rotate(psql, hasher, first.id)
        assert await configuration.reached(third.revision, 1)
        assert grant(configuration, first) is None
        assert grant(configuration, second).expires_at <= time.time()


async def test_a_lost_notification_costs_no_more_than_the_poll(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.05)
    monkeypatch.setattr(module, "CHANNEL", "nobody_calls_here")
    async with connected(postgres_url) as psql, following(postgres_url) as configuration:
        made = await keys.create(psql, hasher)
        await until(lambda: grant(configuration, made) is not None)


async def test_a_start_leaves_out_what_cannot_be_compiled_and_says_so(
    postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(postgres_url) as psql:
        # Past all triggers and constraints, as a restored dump or a superuser could.
        await psql.execute("SET session_replication_role = replica")
        await psql.execute("UPDATE tollway.providers SET api_base = 'ftp://x' WHERE name = 'openai'")
    configuration = Configuration(postgres_url)
    await configuration.start()
    try:
        assert "mistral-small-latest" in configuration.snapshot.routes
        assert "gpt-4o" not in configuration.snapshot.routes
        assert "left out until it is mended: provider 'openai'" in caplog.text
    finally:
        await configuration.close()


async def test_a_row_that_cannot_be_used_holds_up_no_other_edit_and_is_said_once(
    postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    reported = []
    configuration = Configuration(postgres_url, reported.append)
    async with connected(postgres_url) as psql:
        await configuration.start()
        try:
            made = await keys.create(psql, hasher)
            assert await configuration.reached(made.revision, 1)
            # Past all triggers and constraints, as a restored dump or a superuser could.
            await psql.execute("""
                SET session_replication_role = replica;
                UPDATE tollway.providers SET api_base = 'ftp://x', changed_in = pg_current_xact_id()
                WHERE name = 'openai';
                UPDATE tollway.models SET fallback = 'no array', changed_in = pg_current_xact_id()
                WHERE name = 'gpt-3.5-turbo';
                UPDATE tollway.models SET fallback = '["gone"]', changed_in = pg_current_xact_id()
                WHERE name = 'gpt-4o';
                INSERT INTO tollway.virtual_keys (id, hash, hint, previous_hash, previous_valid_until, changed_in)
                VALUES ('key_odd', sha256('odd'), '…', '', 'infinity', pg_current_xact_id());
                SET session_replication_role = origin;
                NOTIFY tollway_config;
            """)
            await until(lambda: bool(configuration.problems))
            routes = configuration.snapshot.routes
            assert routes["gpt-4o"].targets[0].provider.base_url == "https://api.openai.com/v1"
            assert [target.model for target in routes["gpt-3.5-turbo"].targets][1:] == ["mistral-small-latest"]
            assert len(routes["gpt-4o"].targets) == 1
            for number in range(3):
                await psql.execute(
                    """UPDATE "Providers" SET "apiBase" = $1 WHERE name = 'mistral'""", f"https://m{number}.example"
                )
                await until(
                    lambda number=number: (
                        configuration.snapshot.providers["mistral"].base_url == f"https://m{number}.example"
                    )
                )
            await psql.execute("""INSERT INTO "LLMModels" (name, provider) VALUES ('new', 'openai')""")
            await until(lambda: "new" in configuration.snapshot.routes)
            await keys.revoke(psql, made.id)
            await until(lambda: grant(configuration, made).revoked)
            assert caplog.text.count("stays in force: provider 'openai'") == 1
            assert caplog.text.count("stays in force: model 'gpt-3.5-turbo'") == 1
            assert caplog.text.count("without that fallback: model 'gpt-4o'") == 1
            assert len(reported) == 1
            caplog.set_level("INFO")
            await psql.execute("""
                UPDATE "Providers" SET "apiBase" = 'https://good.example' WHERE name = 'openai';
                UPDATE "LLMModels" SET fallback = NULL;
            """)
            await until(lambda: not configuration.problems)
            assert configuration.snapshot.providers["openai"].base_url == "https://good.example"
            assert "in force again" in caplog.text
        finally:
            await configuration.close()


async def test_a_database_that_goes_away_leaves_everything_as_it_is(postgres_url: str) -> None:
    async with connected(postgres_url) as psql, following(postgres_url) as configuration:
        made = await keys.create(psql, hasher)
        assert await configuration.reached(made.revision, 1)
        name = await psql.fetchval("SELECT current_database()")
        try:
            async with connected(database_url(postgres_url, "postgres")) as admin:
                await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
                await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
                await until(lambda: not configuration.fresh)
                assert grant(configuration, made) is not None
                assert not await configuration.reached(made.revision + 10**6, 0.05)
                await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        finally:
            await until(lambda: configuration.fresh, 10)
        async with connected(postgres_url) as again:
            another = await keys.create(again, hasher)
        await until(lambda: grant(configuration, another) is not None)


async def test_a_change_made_while_the_connection_was_lost_is_found(postgres_url: str) -> None:
    async with connected(postgres_url) as psql, following(postgres_url) as configuration:
        made = await keys.create(psql, hasher)
        assert await configuration.reached(made.revision, 1)
    async with following(postgres_url) as configuration:
        await end_connections(postgres_url)
        async with connected(postgres_url) as psql:
            await keys.revoke(psql, made.id)
        await until(lambda: grant(configuration, made).revoked, 3)


async def test_a_connection_into_nowhere_is_given_up(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert module.POLL_S + module.ANSWER_S <= 5
    monkeypatch.setattr(module, "POLL_S", 0.05)
    monkeypatch.setattr(module, "ANSWER_S", 0.2)
    with Relay(postgres_url) as relay:
        async with following(relay.url()) as configuration:
            relay.stall()
            await until(lambda: not configuration.fresh, 3)
            relay.mend()
            await until(lambda: configuration.fresh, 8)


async def test_a_database_that_is_away_at_the_start_is_waited_for(postgres_cluster: str, postgres_url: str) -> None:
    async with connected(postgres_cluster) as admin:
        name = urlsplit(postgres_url).path[1:]
        await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        configuration = Configuration(postgres_url)
        starting = asyncio.ensure_future(configuration.start())
        try:
            await asyncio.sleep(0.2)
            assert not starting.done()
            assert not configuration.fresh
            await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
            await asyncio.wait_for(starting, 5)
            assert configuration.fresh
        finally:
            await configuration.close()


# What is written down for starts without the database -----------------------------------------------------------------


@asynccontextmanager
async def out_of_reach(url: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Nobody can connect, until the function that is given is called."""
    name = urlsplit(url).path[1:]
    async with connected(database_url(url, "postgres")) as admin:

        async def back() -> None:
            await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")

        await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        try:
            yield back
        finally:
            await back()


async def test_a_start_while_the_database_is_away_goes_by_what_was_written_down(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_PATIENCE_S", 0.05)
    file = LastGoodFile(tmp_path, vault, None)
    async with connected(postgres_url) as psql:
        kept, revoked, deleted = [await keys.create(psql, hasher) for _ in range(3)]
        await keys.save_provider_keys(psql, vault, kept.id, {"openai": "sk-o"})
    first = Configuration(postgres_url, last_good=file)
    await first.start()
    await until(lambda: file.load() is not None, 5)
    before = first.snapshot
    await first.close()
    async with out_of_reach(postgres_url) as back:
        configuration = Configuration(postgres_url, last_good=LastGoodFile(tmp_path, vault, None))
        await asyncio.wait_for(configuration.start(), 5)
        try:
            assert configuration.snapshot.routes == before.routes
            assert dict(configuration.snapshot.keys) == dict(before.keys)
            assert configuration.snapshot.revision == before.revision
            assert not configuration.fresh
            assert 0 <= configuration.age_s < 60
            assert caplog.text.count("calls are served by the configuration of") == 1
            await back()
            async with connected(postgres_url) as psql:
                await keys.revoke(psql, revoked.id)
                await psql.execute('DELETE FROM "Users" WHERE id = $1', deleted.id)
                made = await keys.create(psql, hasher)
            await until(lambda: grant(configuration, made) is not None, 5)
            assert configuration.fresh
            assert grant(configuration, revoked).revoked
            assert grant(configuration, deleted) is None
            assert grant(configuration, kept) == grant(first, kept)
        finally:
            await configuration.close()


async def test_a_start_without_a_usable_file_waits_for_the_database(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_PATIENCE_S", 0.05)
    (tmp_path / FILE_NAME).write_text("junk")
    async with out_of_reach(postgres_url) as back:
        configuration = Configuration(postgres_url, last_good=LastGoodFile(tmp_path, vault, None))
        starting = asyncio.ensure_future(configuration.start())
        try:
            await until(lambda: "is not used" in caplog.text)
            await asyncio.sleep(0.2)
            assert not starting.done()
            assert caplog.text.count("is not used") == 1
            await back()
            await asyncio.wait_for(starting, 5)
            assert configuration.fresh
            assert "gpt-4o" in configuration.snapshot.routes
        finally:
            await configuration.close()


async def test_a_database_that_answers_slowly_is_not_away(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_PATIENCE_S", 0.05)
    file = LastGoodFile(tmp_path, vault, None)
    file.save(1, KeyTable(), NO_ROWS)
    configuration = Configuration(postgres_url, last_good=file)
    async with connected(postgres_url) as psql:
        lock = psql.transaction()
        await lock.start()
        await psql.execute("LOCK TABLE tollway.models")
        starting = asyncio.ensure_future(configuration.start())
        try:
            waiting = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted"
            async with asyncio.timeout(2):
                while not await psql.fetchval(waiting):
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            assert not starting.done()
            await lock.rollback()
            await asyncio.wait_for(starting, 5)
            assert configuration.fresh
            assert "gpt-4o" in configuration.snapshot.routes
            assert caplog.text == ""
        finally:
            await configuration.close()


async def test_a_burst_of_edits_is_written_down_together_and_its_end_too(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WRITING_REST_S", 0.3)
    file, saved = LastGoodFile(tmp_path, vault, None), []
    save = file.save
    monkeypatch.setattr(file, "save", lambda *what: saved.append(what[0]) or save(*what))
    configuration = Configuration(postgres_url, last_good=file)
    async with connected(postgres_url) as psql:
        await configuration.start()
        try:
            made = await keys.create(psql, hasher)
            for number in range(300):
                await psql.execute('UPDATE "Users" SET "requestsPerMinute" = $1', number)
            await until(lambda: grant(configuration, made).requests_per_minute == 299)
            digest = hasher(made.secret.reveal().encode())
            await until(
                lambda: (
                    (last := file.load()) is not None
                    and digest in last.keys
                    and last.keys[digest].requests_per_minute == 299
                ),
                5,
            )
            assert len(saved) < 30
        finally:
            await configuration.close()


async def test_who_does_not_write_leaves_the_file_alone(postgres_url: str, tmp_path: Path) -> None:
    configuration = Configuration(postgres_url, last_good=LastGoodFile(tmp_path, vault, None), writes=False)
    await configuration.start()
    await asyncio.sleep(0.1)
    await configuration.close()
    assert list(tmp_path.iterdir()) == []


async def test_a_file_that_cannot_be_written_is_said_once_and_harms_nobody(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_WRITING_REST_S", 0.01)
    home = tmp_path / "home"  # is not there
    configuration = Configuration(postgres_url, last_good=LastGoodFile(home, vault, None))
    async with connected(postgres_url) as psql:
        await configuration.start()
        try:
            for number in range(5):
                await psql.execute('INSERT INTO "LLMModels" (name, provider) VALUES ($1, $2)', f"m{number}", "openai")
                await until(lambda number=number: f"m{number}" in configuration.snapshot.routes)
            await until(lambda: "cannot be written down" in caplog.text)
            home.mkdir()
            await psql.execute('INSERT INTO "LLMModels" (name, provider) VALUES ($1, $2)', "last", "openai")
            file = LastGoodFile(home, vault, None)
            await until(
                lambda: (last := file.load()) is not None and "last" in {row.name for row in last.rows.models}, 5
            )
            assert caplog.text.count("cannot be written down") == 1
        finally:
            await configuration.close()


@pytest.fixture
def uncollected() -> Iterator[None]:
    with no_collection():
        yield


@pytest.mark.usefixtures("uncollected")
async def test_a_hundred_thousand_keys_load_at_once_and_change_one_by_one(postgres_url: str) -> None:
    longest_s = 0.0  # of work between two turns of the loop: not of waiting for a processor that others have

    async def watch_the_loop() -> None:
        nonlocal longest_s
        while True:
            before = time.thread_time()
            await asyncio.sleep(0.001)
            longest_s = max(longest_s, time.thread_time() - before)

    def the_hash(number: int) -> KeyHash:
        return KeyHash(hashlib.sha256(str(number).encode()).digest())

    async with connected(postgres_url) as psql:
        await psql.execute(
            "INSERT INTO tollway.virtual_keys (id, hash, hint) "
            "SELECT 'key_' || i, sha256(i::text::bytea), '…' FROM generate_series(1, 100000) i"
        )
        began = time.perf_counter()
        await psql.fetch("SELECT * FROM tollway.virtual_keys")
        fetching_s = time.perf_counter() - began
        watching = asyncio.ensure_future(watch_the_loop())
        try:
            began, worked_s = time.perf_counter(), time.thread_time()
            async with following(postgres_url) as configuration:
                assert time.perf_counter() - began < 10 * fetching_s  # one and a half times
                loading_s = time.thread_time() - worked_s
                assert len(configuration.snapshot.keys) == 100_000
                longest_s = 0.0
                for number in range(1, 11):
                    await psql.execute(
                        "UPDATE tollway.virtual_keys SET revoked_at = now() WHERE id = $1", f"key_{number}"
                    )
                    await until(lambda number=number: configuration.snapshot.keys[the_hash(number)].revoked)
                await psql.execute("UPDATE tollway.virtual_keys SET requests_per_minute = 7")
                await until(lambda: configuration.snapshot.keys[the_hash(100_000)].requests_per_minute == 7, 5)
        finally:
            watching.cancel()
        assert longest_s < loading_s / 5  # a thirtieth


async def test_many_edits_in_a_row_are_read_together(postgres_url: str) -> None:
    async with connected(postgres_url) as psql, following(postgres_url) as configuration:
        made = await keys.create(psql, hasher)
        revisions = set()
        for number in range(200):
            await psql.execute('UPDATE "Users" SET "requestsPerMinute" = $1', number)
            revisions.add(configuration.snapshot.revision)
        await until(lambda: grant(configuration, made).requests_per_minute == 199)
        assert len(revisions) < 100


async def test_a_closed_configuration_leaves_no_connection(postgres_url: str) -> None:
    async with following(postgres_url):
        pass
    async with connected(postgres_url) as connection:

        async def others() -> int:
            return await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tollway configuration' "
                "AND datname = current_database()"
            )

        async with asyncio.timeout(2):
            while await others():
                await asyncio.sleep(0.01)


async def test_a_url_that_is_wrong_is_tried_again_and_said_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts, connect = [], module.connect

    def counted(*arguments: object, **named: object) -> object:
        attempts.append(arguments)
        return connect(*arguments, **named)

    monkeypatch.setattr(module, "connect", counted)
    configuration = Configuration("postgresql://nobody:canary@127.0.0.1:1/nowhere")
    starting = asyncio.ensure_future(configuration.start())
    await until(lambda: len(attempts) >= 3, 3)
    assert not starting.done()
    await configuration.close()
    starting.cancel()
    assert len(caplog.records) == 1
    assert "canary" not in caplog.text
