"""The command line as processes: on a database of its own, on an embedded one, and where there is none."""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import asyncpg
import pytest

from fakes.commands import KEY, Commands, execute
from tollway.database import EmbeddedDatabase
from tollway.domain.keys import Secret, is_well_formed
from tollway.home import Home
from tollway.settings import Settings, read


@pytest.fixture
def tollway(tmp_path: Path, postgres_url: str) -> Commands:
    return Commands(tmp_path, DATABASE_URL=postgres_url, ENCRYPTION_KEY=KEY)


def test_a_key_lives_from_its_making_to_its_revocation(tollway: Commands) -> None:
    made = tollway.json("keys", "create", "--name", "Team Search", "--tokens-per-minute", "none", "--model", "gpt-4o")
    assert is_well_formed(made["virtualKey"])
    shown = tollway.json("keys", "show", made["id"])
    assert (shown["name"], shown["state"], shown["models"]) == ("Team Search", "valid", ["gpt-4o"])
    assert (shown["requestsPerMinute"], shown["tokensPerMinute"], shown["totalCost"]) == (60, None, "0")
    assert made["virtualKey"] not in str(shown)

    by_secret = tollway.json(
        "keys", "limits", made["virtualKey"], "--requests-per-minute", "2", "--all-models", "--expires", "2999-01-01"
    )
    assert (by_secret["id"], by_secret["requestsPerMinute"], by_secret["models"]) == (made["id"], 2, None)
    assert by_secret["expiresAt"].startswith("2999-01-01")
    assert tollway.json("keys", "limits", made["id"]) == tollway.json("keys", "show", made["id"])

    rotated = tollway.json("keys", "rotate", made["id"], "--overlap", "1h")
    assert rotated["id"] == made["id"]
    assert rotated["virtualKey"] != made["virtualKey"]
    for secret in (made["virtualKey"], rotated["virtualKey"]):
        assert tollway.json("keys", "show", secret)["previousValidUntil"] is not None

    assert tollway.json("keys", "revoke", made["id"])["state"] == "revoked"
    assert "no valid key" in tollway.fails(1, "keys", "show", rotated["virtualKey"])
    assert "is revoked" in tollway.fails(1, "keys", "rotate", made["id"])
    assert [key["state"] for key in tollway.json("keys", "list")] == ["revoked"]


def test_people_get_tables_and_the_secret_once(tollway: Commands) -> None:
    done = tollway.run("keys", "create", "--name", "for people")
    assert done.returncode == 0
    assert "not shown again" in done.stderr
    listing = tollway.out("keys", "list")
    assert "for people" in listing
    assert "sk-tw-" in listing
    secret = done.stdout.split()[-1]
    assert is_well_formed(secret)
    assert secret not in listing


def test_an_empty_list_says_what_to_do(tollway: Commands) -> None:
    done = tollway.run("keys", "list")
    assert (done.returncode, done.stdout) == (0, "")
    assert "tollway keys create" in done.stderr
    assert tollway.json("keys", "list") == []


def test_models_are_listed_with_prices_and_fallbacks(tollway: Commands, postgres_url: str) -> None:
    execute(postgres_url, """INSERT INTO "LLMModels" (name, provider) VALUES ('no-price', 'openai')""")
    models = {model["name"]: model for model in tollway.json("models", "list")}
    assert models["gpt-3.5-turbo"]["fallback"] == ["mistral-small-latest"]
    assert Decimal(models["gpt-3.5-turbo"]["inputCostPer1k"]) == Decimal("0.0005")
    assert (models["gpt-3.5-turbo"]["price"], models["demo/echo"]["price"]) == ("built-in", "set")
    assert (models["no-price"]["inputCostPer1k"], models["no-price"]["price"]) == (None, "unknown")
    assert "demo/echo" in tollway.out("models", "list")


def test_psql_and_url_reach_the_database(tollway: Commands, postgres_url: str) -> None:
    assert tollway.out("db", "url") == postgres_url + "\n"
    assert tollway.out("db", "psql", "-At", "-c", 'SELECT count(*) FROM "Providers"') == "3\n"
    assert tollway.run("db", "psql", "-c", "SELECT nonsense").returncode == 1


def test_migrate_prepares_an_empty_database(tmp_path: Path, empty_postgres_url: str) -> None:
    tollway = Commands(tmp_path, DATABASE_URL=empty_postgres_url, ENCRYPTION_KEY=KEY)
    assert "tollway db migrate" in tollway.fails(1, "keys", "list")
    for _ in range(2):
        assert "schema version" in tollway.run("db", "migrate").stdout
    assert tollway.json("models", "list")


def test_another_encryption_key_is_refused(tollway: Commands) -> None:
    assert tollway.run("db", "migrate").returncode == 0
    line = tollway.fails(2, "db", "migrate", ENCRYPTION_KEY="ab" * 32)
    assert line.startswith("tollway: ENCRYPTION_KEY: is not the key")


@pytest.mark.parametrize(
    ("words", "environ", "code", "said"),
    [
        (("keys", "list"), {}, 1, "there is no gateway under"),
        (("db", "url"), {}, 1, "the embedded PostgreSQL does not run"),
        (("keys", "list"), {"DATABASE_URL": "postgresql://u:canary@127.0.0.1:1/d"}, 1, "PostgreSQL: "),
        (("keys", "list"), {"DATABASE_URL": "mysql://canary"}, 2, "DATABASE_URL: must begin"),
        (("keys", "create"), {"DATABASE_URL": "postgresql://u:canary@127.0.0.1:1/d"}, 1, "PostgreSQL: "),
        (("keys", "create", "--tokens-per-minute", "lots"), {}, 2, "neither a whole number"),
        (("keys", "limits", "key_1", "--model", "a", "--all-models"), {}, 2, "exclude each other"),
    ],
    ids=repr,
)
def test_what_cannot_be_done_is_one_clear_line(
    tmp_path: Path, words: tuple[str, ...], environ: dict[str, str], code: int, said: str
) -> None:
    line = Commands(tmp_path).fails(code, *words, **environ)
    assert said in line
    assert "canary" not in line


def test_a_key_that_is_not_there_is_said_so(tollway: Commands) -> None:
    for word in ("show", "revoke", "rotate", "limits"):
        assert "there is no key 'key_none'" in tollway.fails(1, "keys", word, "key_none")


@pytest.fixture(scope="module")
def embedded_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("cli") / "home"
    done = Commands(home.parent, TOLLWAY_HOME=str(home)).run("db", "migrate")
    assert done.returncode == 0, done
    return home


def test_without_a_running_gateway_the_embedded_database_is_started_for_as_long(embedded_home: Path) -> None:
    tollway = Commands(embedded_home.parent, TOLLWAY_HOME=str(embedded_home))
    made = tollway.json("keys", "create")
    assert made["id"] in [key["id"] for key in tollway.json("keys", "list")]
    assert tollway.out("db", "psql", "-At", "-c", "SELECT 1") == "1\n"
    assert "does not run" in tollway.fails(1, "db", "url"), "it was stopped again"


@contextlib.contextmanager
def running_gateway(home_path: Path) -> Iterator[Callable[[], str]]:
    """What a running gateway holds: the lock on its home, and its database, when it is asked to open it."""
    settings = read({"TOLLWAY_HOME": str(home_path)})
    assert isinstance(settings, Settings)
    home = Home(home_path)
    database = EmbeddedDatabase(home, settings, home.encryption_key())
    with home.locked():
        try:
            yield lambda: asyncio.run(database.open()).reveal()
        finally:
            asyncio.run(database.close())


def test_commands_work_while_the_gateway_runs(embedded_home: Path) -> None:
    tollway = Commands(embedded_home.parent, TOLLWAY_HOME=str(embedded_home))
    with running_gateway(embedded_home) as open_database:
        url = open_database()
        assert tollway.out("db", "url") == url + "\n"
        assert tollway.json("keys", "create")["id"]
        assert asyncio.run(version(url)), "and it was left running"


async def version(url: str) -> str:
    connection = await asyncpg.connect(url)
    try:
        return str(await connection.fetchval("SHOW server_version"))
    finally:
        await connection.close()


def test_a_command_waits_for_a_gateway_that_is_starting(embedded_home: Path) -> None:
    tollway = Commands(embedded_home.parent, TOLLWAY_HOME=str(embedded_home))
    with running_gateway(embedded_home) as open_database:
        waiting = subprocess.Popen(
            [sys.executable, "-m", "tollway", "keys", "list", "--json"],
            env=tollway.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(1.0)
        open_database()
        out, _ = waiting.communicate(timeout=30)
    assert waiting.returncode == 0
    assert isinstance(json.loads(out), list)


def test_the_generated_key_is_for_its_owner_alone(embedded_home: Path) -> None:
    path = embedded_home / "encryption_key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert embedded_home.stat().st_mode & 0o777 == 0o700
    first = Home(embedded_home).encryption_key()
    assert first == Home(embedded_home).encryption_key()
    assert isinstance(first, Secret) and len(first.reveal()) == 64
