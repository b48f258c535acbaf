"""``tollway prices`` and ``tollway models sync`` as processes on a database of their own."""

import asyncio
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from fakes.connections import connected
from integration.test_cli import KEY, Commands, execute

LEDGER = """
INSERT INTO tollway.ledger (call_id, attempt, key_id, model, provider, upstream_model, started_at, outcome, state,
    charged, input_tokens, output_tokens, cached_input_tokens, reasoning_tokens, others, service_tier, cost)
VALUES ('{id}', 1, '{key}', '{model}', 'openai', {upstream}, '{at}', 'ok', 'exact', true, {tokens}, NULL, NULL, {cost})
"""


@pytest.fixture
def tollway(tmp_path: Path, postgres_url: str) -> Commands:
    return Commands(tmp_path, DATABASE_URL=postgres_url, ENCRYPTION_KEY=KEY)


def values(url: str, query: str) -> list[Any]:
    async def run() -> list[Any]:
        async with connected(url) as connection:
            return [row[0] for row in await connection.fetch(query)]

    return asyncio.run(run())


def test_a_price_is_set_shown_compared_and_removed(tollway: Commands) -> None:
    assert tollway.json("prices", "list") == []
    done = tollway.run(
        *("prices", "set", "gpt-5.6-sol", "--input", "3.2", "--rate", "input=6.4>272000", "--rate", "output=9@flex"),
        *("--from", "2026-11-01", "--until", "2999-01-01", "--note", "our contract", "--json"),
    )
    row = json.loads(done.stdout)
    assert "fast, flex, priority have no price of their own for input any more" in done.stderr
    assert (row["model"], row["note"], len(row["rates"])) == ("gpt-5.6-sol", "our contract", 3)
    shown = {
        (rate["bucket"], rate["tier"], rate["above"]): (rate["usd"], rate["source"])
        for rate in tollway.json("prices", "show", "gpt-5.6-sol")
    }
    assert shown["input", None, 0] == ("3.2", "prices")
    assert shown["input", None, 272_000] == ("6.4", "prices")
    assert shown["output", "flex", 0] == ("9", "prices")
    assert shown["output", None, 0] == ("20", "built-in")
    assert shown["cache_write", "priority", 272_000][1] == "built-in"
    before = tollway.json("prices", "show", "gpt-5.6-sol", "--at", "2026-10-31")
    assert next(rate["usd"] for rate in before if rate["bucket"] == "input") == "4"
    difference = tollway.json("prices", "diff")
    assert {one["model"] for one in difference} == {"gpt-5.6-sol"}
    assert {one["what"] for one in difference} == {"set here"}
    first = next(one for one in difference if one["model"] == "gpt-5.6-sol" and (one["tier"], one["above"]) == ("", 0))
    assert (first["bucket"], Decimal(first["usd"]), Decimal(first["listedUsd"])) == ("input", Decimal("3.2"), 4)
    assert "input=3.2, " in tollway.out("prices", "list", "--model", "gpt-5.6-sol")
    assert "is removed" in tollway.out("prices", "remove", str(row["id"]))
    assert tollway.json("prices", "list") == []
    assert "no price" in tollway.fails(1, "prices", "remove", str(row["id"]))


def test_a_list_that_has_changed_is_shown_before_the_gateway_takes_it_over(
    tollway: Commands, postgres_url: str
) -> None:
    execute(
        postgres_url,
        """UPDATE tollway.builtin_prices SET periods = '[{"rates": [{"bucket": "input", "usd": "99"}]}]'
           WHERE model = 'gpt-4o'""",
    )
    changes = [one for one in tollway.json("prices", "diff") if one["what"] == "new list"]
    assert {one["model"] for one in changes} == {"gpt-4o"}
    by_bucket = {(one["bucket"], one["tier"]): (one["usd"], one["listedUsd"]) for one in changes}
    assert by_bucket["input", ""] == ("99", "2.5")
    assert by_bucket["output", ""] == (None, "10")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("no-model", "--input", "1"), "there is no model"),
        (("gpt-4o",), "between one and"),
        (("gpt-image-2.6-flare", "--input", "1"), "give both"),
        (("gpt-4o", "--rate", "input=1>5"), "none for shorter"),
        (("gpt-4o", "--input", "1", "--from", "2027-02-01", "--until", "2027-01-01"), ": it ends after it begins\n"),
        (("gpt-4o", "--input", "1", "--until", "2020-01-01"), ": it ends after it begins\n"),
        (("gpt-4o", "--input", "1", "--note", "x" * 2000), ": a note has at most 1000 letters\n"),
        (("gpt-4o", "--input", "1", "--from", "0001-01-01"), ": valid from is a moment\n"),
        (("gpt-4o", "--rate", "input=1@PRIORITY"), "no answer is billed by"),
        (("gpt-4o", *(word for n in range(999) for word in ("--rate", f"input=1@t{n}"))), "could not be used"),
        (("demo/new", "--rate", "input=1@priority", "--rate", "output=1@priority"), "give both"),
        (("demo/new", "--rate", "requests=1/1000"), "give both"),
    ],
)
def test_a_price_that_cannot_be_is_refused_with_a_reason(
    tollway: Commands, postgres_url: str, words: tuple[str, ...], reason: str
) -> None:
    execute(postgres_url, """INSERT INTO "LLMModels" (name, provider) VALUES ('demo/new', 'demo')""")
    assert reason in tollway.fails(1, "prices", "set", *words)


def test_a_price_that_is_set_adds_to_those_before_it(tollway: Commands) -> None:
    tollway.run("prices", "set", "gpt-4o", "--input", "3")
    tollway.run("prices", "set", "gpt-4o", "--output", "12")
    usual = {rate["bucket"]: rate["usd"] for rate in tollway.json("prices", "show", "gpt-4o") if not rate["tier"]}
    assert (usual["input"], usual["output"]) == ("3", "12")
    late = tollway.run("prices", "set", "gpt-4o", "--input", "4", "--from", "2026-01-01")
    assert "other prices of input stand before these" in late.stderr


def test_a_number_that_no_row_can_have_is_refused(tollway: Commands) -> None:
    assert "9223372036854775807" in tollway.fails(2, "prices", "remove", "99999999999999999999")


@pytest.mark.parametrize("rate", ["input", "gold=1", "input=-1", "input=1>x", "input=1.2.3"])
def test_a_rate_that_cannot_be_read_is_refused_with_an_example(tollway: Commands, rate: str) -> None:
    done = tollway.run("prices", "set", "gpt-4o", "--rate", rate)
    assert done.returncode == 2 and done.stdout == ""


def test_what_has_no_price_says_how_to_set_one(tollway: Commands, postgres_url: str) -> None:
    execute(postgres_url, """INSERT INTO "LLMModels" (name, provider) VALUES ('no-price', 'openai')""")
    assert "prices set no-price" in tollway.fails(1, "prices", "show", "no-price")
    tollway.out("prices", "set", "no-price", "--input", "0.2", "--output", "0.6")
    models = {model["name"]: model for model in tollway.json("models", "list")}
    assert (models["no-price"]["price"], Decimal(models["no-price"]["outputCostPer1k"])) == (
        "prices",
        Decimal("0.0006"),
    )


def entries(url: str) -> None:
    call = {"key": "key_a", "model": "gpt-5.6", "upstream": "'gpt-5.6-sol'", "at": "2026-11-10 10:00Z"}
    execute(
        url,
        """INSERT INTO "LLMModels" (name, provider) VALUES ('gpt-5.6', 'openai')""",
        "UPDATE tollway.models SET upstream_name = 'gpt-5.6-sol' WHERE name = 'gpt-5.6'",
        # As a price without sizes, cache writes and tiers has billed them.
        LEDGER.format(id="long", tokens="300000, 1000, 0, 0", cost="1.22", **call).replace("NULL, NULL", "NULL, NULL"),
        LEDGER.format(id="written", tokens="100000, 1000, 0, 0", cost="0.42", **call).replace(
            "NULL, NULL", """'{"cache_write": 99000}', NULL"""
        ),
        LEDGER.format(id="tier", tokens="1000, 1000, 0, 0", cost="0.024", **{**call, "key": "key_b"}).replace(
            "NULL, NULL", "NULL, 'priority'"
        ),
        LEDGER.format(id="unknown", tokens="9, 9, 0, 0", cost="5", **{**call, "model": "gone", "upstream": "'x'"}),
        LEDGER.format(id="outside", tokens="300000, 0, 0, 0", cost="1", **{**call, "at": "2026-11-12 00:00Z"}),
    )


RANGE = ("--from", "2026-11-10", "--to", "2026-11-12")
TOTALS = "SELECT total_cost FROM tollway.key_totals ORDER BY key_id"


def test_rerating_shows_the_difference_and_enters_it_once(tollway: Commands, postgres_url: str) -> None:
    entries(postgres_url)
    shown = tollway.json("prices", "rerate", *RANGE)
    a, b = shown["keys"]
    assert (a["key"], a["calls"], a["unknownCalls"]) == ("key_a", 3, 1)
    assert Decimal(a["billed"]) == Decimal("6.64")
    assert Decimal(a["wouldBe"]) == Decimal("2.43") + Decimal("0.519") + 5
    assert Decimal(b["difference"]) == Decimal("0.048") - Decimal("0.024")
    assert shown["adjustments"] == 0 and not shown["applied"]
    assert values(postgres_url, TOTALS) == [Decimal("7.64"), Decimal("0.024")], "nothing was entered"

    applied = tollway.json("prices", "rerate", *RANGE, "--apply")
    assert applied["adjustments"] == 2
    after = [Decimal("7.949") + 1, Decimal("0.048")]
    assert values(postgres_url, TOTALS) == after
    again = tollway.json("prices", "rerate", *RANGE, "--apply")
    assert again["adjustments"] == 0 and {Decimal(key["difference"]) for key in again["keys"]} == {0}
    assert values(postgres_url, TOTALS) == after
    assert values(postgres_url, "SELECT DISTINCT kind FROM tollway.ledger WHERE cause LIKE 'rerated%'") == [
        "adjustment"
    ]
    assert values(postgres_url, "SELECT sum(requests) FROM tollway.usage_hours") == [5], "adjustments are no requests"


def test_another_change_of_prices_adds_only_what_is_missing(tollway: Commands, postgres_url: str) -> None:
    entries(postgres_url)
    tollway.json("prices", "rerate", *RANGE, "--apply")
    tollway.run(
        "prices", "set", "gpt-5.6", "--input", "1", "--output", "1", "--cache-write", "1", "--from", "2026-01-01"
    )
    applied = tollway.json("prices", "rerate", *RANGE, "--key", "key_a", "--model", "gpt-5.6", "--apply")
    assert applied["adjustments"] == 1
    assert Decimal(applied["keys"][0]["wouldBe"]) == Decimal("0.301") + Decimal("0.101")
    a, _ = values(postgres_url, TOTALS)
    assert a == Decimal("0.402") + 5 + 1


def test_what_has_no_price_any_more_keeps_its_cost_and_its_adjustments(tollway: Commands, postgres_url: str) -> None:
    execute(
        postgres_url,
        """INSERT INTO "LLMModels" (name, provider) VALUES ('mine', 'openai')""",
        LEDGER.format(
            id="c", tokens="1000000, 0, 0, 0", cost="3", key="key_a", model="mine", upstream="NULL", at="2026-11-10"
        ),
    )
    words = ("prices", "rerate", *RANGE, "--apply")
    row = tollway.json("prices", "set", "mine", "--input", "6", "--output", "6", "--from", "2026-01-01")
    assert Decimal(tollway.json(*words)["keys"][0]["difference"]) == 3
    tollway.out("prices", "remove", str(row["id"]))
    again = tollway.json(*words)
    assert (again["adjustments"], Decimal(again["keys"][0]["wouldBe"])) == (0, 6)
    assert values(postgres_url, TOTALS) == [6]


def test_prices_that_cannot_be_used_hold_up_no_other_models(tollway: Commands, postgres_url: str) -> None:
    entries(postgres_url)
    rows = """INSERT INTO tollway.prices (model, rates) SELECT 'gpt-5.6', '[{"bucket": "input", "usd": "1"}]'"""
    execute(
        postgres_url,
        f"{rows} FROM generate_series(1, 101)",
        LEDGER.format(
            id="o", tokens="1000000, 0, 0, 0", cost="1", key="key_c", model="gpt-4o", upstream="NULL", at="2026-11-10"
        ),
    )
    done = tollway.run("prices", "rerate", *RANGE, "--json")
    keys = {one["key"]: one for one in json.loads(done.stdout)["keys"]}
    assert "The prices of gpt-5.6 cannot be used" in done.stderr
    assert (keys["key_a"]["unknownCalls"], Decimal(keys["key_c"]["wouldBe"])) == (3, Decimal("2.5"))


def test_a_later_attempt_is_rerated_by_the_price_at_its_calls_start(tollway: Commands, postgres_url: str) -> None:
    call = {"tokens": "1000000, 0, 0, 0", "key": "key_a", "model": "gpt-4o", "upstream": "NULL"}
    first = LEDGER.format(id="c", cost="0", at="2026-11-10 09:59:59Z", **call)
    execute(
        postgres_url,
        first.replace("'exact', true", "'none', false"),
        LEDGER.format(id="c", cost="2.5", at="2026-11-10 10:00:01Z", **call).replace("'c', 1", "'c', 2"),
    )
    tollway.run("prices", "set", "gpt-4o", "--input", "9", "--from", "2026-11-10T10:00")
    (one,) = tollway.json("prices", "rerate", *RANGE)["keys"]
    assert Decimal(one["wouldBe"]) == Decimal("2.5")


def test_rerating_is_of_whole_days(tollway: Commands) -> None:
    assert tollway.run("prices", "rerate", "--from", "2026-11-10T10:00", "--to", "2026-11-12").returncode == 2
    assert tollway.run("prices", "rerate", "--from", "2026-11-10", "--to", "2026-11-10").returncode == 2
    assert "There are no calls" in tollway.run("prices", "rerate", *RANGE).stderr


def test_models_that_came_later_are_shown_and_added(tollway: Commands, postgres_url: str) -> None:
    execute(
        postgres_url,
        """DELETE FROM "LLMModels" WHERE name IN ('whisper-1', 'tts-1', 'gpt-4o')""",
        """UPDATE tollway.installation
           SET seeded_models = array_remove(array_remove(seeded_models, 'whisper-1'), 'tts-1')""",
    )
    names = """SELECT name FROM "LLMModels" WHERE name IN ('whisper-1', 'tts-1', 'gpt-4o') ORDER BY name"""
    shown = {row["name"]: row["state"] for row in tollway.json("models", "sync", "--dry-run")}
    assert shown == {"whisper-1": "would be added", "tts-1": "would be added", "gpt-4o": "removed here"}
    assert values(postgres_url, names) == []
    assert {row["state"] for row in tollway.json("models", "sync")} == {"added"}
    assert tollway.json("models", "sync") == []
    assert "but for 1 that somebody has removed" in tollway.run("models", "sync").stderr
    assert values(postgres_url, names) == ["tts-1", "whisper-1"]
    assert [row["state"] for row in tollway.json("models", "sync", "gpt-4o")] == ["added"]
    assert values(postgres_url, names) == ["gpt-4o", "tts-1", "whisper-1"]
    assert tollway.json("models", "sync") == []
    assert "is there already" in tollway.fails(1, "models", "sync", "gpt-4o")
