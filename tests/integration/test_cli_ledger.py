"""``tollway usage`` and ``tollway ledger`` as processes."""

import csv
import io
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from fakes.commands import KEY, Commands, execute
from tollway.domain.prices import Rate, price_of, rates_json
from tollway.domain.usage import Bucket, Usage

ENTRY = """
INSERT INTO tollway.ledger (call_id, attempt, key_id, model, provider, started_at, outcome, state,
    input_tokens, output_tokens, cost, charged, priced)
VALUES ('{0}', {1}, '{2}', '{3}', '{4}', '{5}', 'ok', '{6}', 10, 5, {7}, {8}, {9})
"""
RATES = (
    Rate(Bucket.INPUT, Decimal("2.5")),
    Rate(Bucket.INPUT, Decimal("5"), above=200),
    Rate(Bucket.CACHE_READ, Decimal("0.25")),
    Rate(Bucket.CACHE_WRITE, Decimal("3")),
    Rate(Bucket.OUTPUT, Decimal("10")),
    *(Rate(bucket, Decimal("5"), tier="flex") for bucket in (Bucket.CACHE_WRITE, Bucket.CACHE_READ, Bucket.OUTPUT)),
    Rate(Bucket.INPUT, Decimal("2"), tier="flex"),
    Rate(Bucket.INPUT, Decimal("3"), tier="flex", above=200),
    Rate(Bucket.WEB_SEARCHES, Decimal("10"), per=1000),
)


@pytest.fixture
def tollway(tmp_path: Path, postgres_url: str) -> Commands:
    return Commands(tmp_path, DATABASE_URL=postgres_url, ENCRYPTION_KEY=KEY)


@pytest.fixture
def ledger(postgres_url: str) -> None:
    key, there = ("key_a", "gpt-4o", "openai"), ("key_b", "mistral-embed", "mistral")
    execute(
        postgres_url,
        r"INSERT INTO tollway.virtual_keys (id, name, hash, hint) VALUES ('key_a', 'Ann', sha256('\x00'), '')",
        ENTRY.format("a1", 1, *key, "2027-01-01 10:00Z", "exact", "0.0000000001", True, True),
        ENTRY.format("a2", 2, *key, "2027-01-02 10:00Z", "estimated", "0.2", True, True),
        ENTRY.format("a2", 1, *key, "2027-01-02 10:00Z", "none", "0", False, True),
        ENTRY.format("a3", 1, *key, "2027-01-02 11:00Z", "none", "0", False, True),
        ENTRY.format("b1", 1, *there, "2027-01-02 12:00Z", "exact", "0", True, False),
        ENTRY.format("old", 1, *key, "2020-01-01 10:00Z", "exact", "7", True, True),
    )


@pytest.mark.usefixtures("ledger")
def test_usage_is_summed_up_exactly(tollway: Commands) -> None:
    since = ("--from", "2027-01-01")
    first, second = tollway.json("usage", *since)
    assert first == {
        "key": "key_a",
        "keyName": "Ann",
        "requests": 3,
        "answeredRequests": 2,
        "failedRequests": 1,
        "attempts": 4,
        "waivedAttempts": 2,
        "inputTokens": 20,
        "cachedInputTokens": 0,
        "outputTokens": 10,
        "reasoningTokens": 0,
        "cost": "0.2000000001",
        "unpricedRequests": 0,
        "estimatedRequests": 1,
        "doubtfulRequests": 0,
    }
    assert (second["key"], second["keyName"], second["unpricedRequests"]) == ("key_b", None, 1)
    days = tollway.json("usage", "--by", "day", *since)
    assert [(day["day"], day["requests"]) for day in days] == [("2027-01-01", 1), ("2027-01-02", 3)]
    assert [one["provider"] for one in tollway.json("usage", "--by", "provider", *since)] == ["openai", "mistral"]
    (of_key,) = tollway.json("usage", "--by", "model", "--key", "key_b", *since)
    assert of_key["model"] == "mistral-embed"
    (until,) = tollway.json("usage", "--since", "2027-01-01", "--until", "2027-01-02")
    assert until["requests"] == 1


@pytest.mark.usefixtures("ledger")
def test_usage_is_shown_with_names_and_a_total(tollway: Commands) -> None:
    head, _, ann, other, total = tollway.out("usage", "--by", "day,key", "--from", "2027-01-02").splitlines()
    assert head.split()[:5] == ["day", "key", "name", "requests", "failed"]
    assert ann.split() == ["2027-01-02", "key_a", "Ann", "2", "1", "2", "10", "5", "0.2", "0", "1", "0"]
    assert other.split()[1:5] == ["key_b", "-", "1", "0"]
    assert total.split() == ["total", "3", "1", "2", "20", "10", "0.2", "1", "1", "0"]


@pytest.mark.usefixtures("ledger")
def test_usage_as_csv(tollway: Commands) -> None:
    rows = list(csv.DictReader(io.StringIO(tollway.out("usage", "--by", "model,day", "--from", "2027-01-01", "--csv"))))
    assert [(row["model"], row["day"], row["cost"]) for row in rows] == [
        ("gpt-4o", "2027-01-01", "0.0000000001"),
        ("gpt-4o", "2027-01-02", "0.2"),
        ("mistral-embed", "2027-01-02", "0"),
    ]
    assert tollway.out("usage", "--csv", "--to", "1999-01-01").startswith("key,keyName,requests,")


@pytest.mark.usefixtures("ledger")
def test_no_name_of_a_key_is_a_formula(tollway: Commands, postgres_url: str) -> None:
    execute(
        postgres_url,
        """UPDATE tollway.virtual_keys SET name = '=HYPERLINK("http://x")'""",
        ENTRY.format("c1", 1, "key_b", "gpt-4o", "openai", "2027-01-03 10:00Z", "exact", "-0.5", True, True),
    )
    rows = list(csv.DictReader(io.StringIO(tollway.out("usage", "--from", "2027-01-01", "--csv"))))
    assert [(row["keyName"], row["cost"]) for row in rows] == [
        ('\'=HYPERLINK("http://x")', "0.2000000001"),
        ("", "-0.5"),
    ]


@pytest.mark.usefixtures("ledger")
def test_a_key_that_nobody_has_or_had_is_an_error(tollway: Commands) -> None:
    for words in (("usage",), ("ledger", "verify"), ("prices", "rerate", "--from", "2027-01-01", "--to", "2027-01-02")):
        assert "there is no key 'nope'" in tollway.fails(1, *words, "--key", "nope")
    assert tollway.json("usage", "--key", "key_b", "--from", "9999-12-31") == []
    assert "is no date" in tollway.fails(2, "usage", "--from", "9999-12-31T23:00:00-10:00")
    assert "later than --from" in tollway.fails(2, "usage", "--from", "2027-01-02", "--to", "2027-01-01")


def test_a_full_disk_is_said_so(tollway: Commands) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tollway", "ledger", "verify"],
            env=tollway.environ,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 1 and done.stderr.startswith("tollway: cannot write the output: ")


def test_what_usage_cannot_tell_is_refused(tollway: Commands) -> None:
    assert "is none of day, key, model, provider" in tollway.fails(2, "usage", "--by", "day,user")
    assert "is no full hour" in tollway.fails(2, "usage", "--from", "2027-01-01T10:30")


@pytest.mark.usefixtures("ledger")
def test_books_that_differ_are_shown(tollway: Commands, postgres_url: str) -> None:
    assert tollway.out("ledger", "verify") == "The books agree.\n"
    assert tollway.json("ledger", "verify", "--key", "key_a") == []
    execute(
        postgres_url,
        "UPDATE tollway.key_totals SET total_cost = 1 WHERE key_id = 'key_b'",
        "SET session_replication_role = replica; UPDATE tollway.ledger SET cost = 8 WHERE call_id = 'old'",
    )
    done = tollway.run("ledger", "verify")
    assert done.returncode == 1 and "differ in 2 sums" in done.stderr
    assert [line.split()[-2:] for line in done.stdout.splitlines()[2:]] == [["1", "0"], ["7", "8"]]
    assert "2020-01-01 10:00:00+00 key_a gpt-4o openai" in done.stdout
    assert len(tollway.run("ledger", "verify", "--key", "key_b", "--json").stdout.split('"check"')) == 2


@pytest.mark.usefixtures("ledger")
def test_old_entries_are_forgotten_and_their_sums_stay(tollway: Commands) -> None:
    before = tollway.json("usage", "--from", "2019-01-01")
    assert tollway.out("ledger", "prune", "--before", "2026-01-01", "--dry-run").startswith("1 entries would")
    assert tollway.out("ledger", "prune", "--before", "2026-01-01").startswith("1 entries are")
    assert tollway.json("usage", "--from", "2019-01-01") == before
    assert tollway.out("ledger", "verify") == "The books agree.\n"
    assert "no entry of the ledger is of old" in tollway.fails(1, "ledger", "explain", "old")
    assert "to come" in tollway.fails(2, "ledger", "prune", "--before", "2999-01-01")


@pytest.fixture
def explained(postgres_url: str) -> Decimal:
    """A call of two attempts by a price of several rates; what it cost."""
    price = price_of(RATES)
    usage = Usage(
        input=100,
        cache_read=900,
        output=7,
        reasoning=3,
        others={"cache_write": 50, "web_searches": 2},
        service_tier="flex",
    )
    amount, doubt = price.bill(usage)
    cost = Decimal(amount).scaleb(-price.scale)
    execute(
        postgres_url,
        f"INSERT INTO tollway.price_cards VALUES ({price.id}, '{rates_json(RATES).decode()}')",
        ENTRY.format("req_1-2", 1, "key_a", "m", "openai", "2027-01-02 10:00Z", "none", "0", False, True),
        f"""INSERT INTO tollway.ledger (call_id, attempt, key_id, model, provider, upstream_model, started_at, outcome,
            state, input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, others, service_tier, cost,
            charged, price_id)
            VALUES ('req_1-2', 2, 'key_a', 'm', 'mistral', 'large', '2027-01-02', 'ok', 'exact',
            {usage.input_tokens}, {usage.cached_input_tokens}, {usage.output_tokens}, 3,
            '{{"cache_write": 50, "web_searches": 2}}', 'flex', {cost}, true, {price.id})""",
    )
    assert not doubt
    return cost


def test_a_figure_is_explained(tollway: Commands, explained: Decimal) -> None:
    billed, waived = tollway.json("ledger", "explain", "req_1-2")
    assert (billed["verdict"], waived["verdict"]) == ("as computed", "on the house")
    assert Decimal(billed["computed"]) == Decimal(billed["cost"]) == explained
    assert (billed["ratesAbove"], billed["ratesTier"], billed["upstreamModel"]) == (200, "flex", "large")
    assert {line["bucket"]: line["units"] for line in billed["lines"]} == {
        "input": 100,
        "cache_read": 900,
        "output": 7,
        "reasoning": 3,
        "cache_write": 50,
        "web_searches": 2,
    }
    (one,) = tollway.json("ledger", "explain", "req_1-2-2")
    assert one == billed
    text = tollway.out("ledger", "explain", "req_1-2-2")
    assert (
        f"${explained.normalize():f} (as computed)" in text and "flex tier, for prompts of more than 200 tokens" in text
    )


def test_a_figure_that_is_not_what_its_rates_come_to_is_told(
    tollway: Commands, postgres_url: str, explained: Decimal
) -> None:
    execute(
        postgres_url,
        f"SET session_replication_role = replica; UPDATE tollway.ledger SET cost = {explained} * 2 WHERE charged",
    )
    assert "NOT what its rates come to" in tollway.out("ledger", "explain", "req_1-2-2")
    execute(postgres_url, "DELETE FROM tollway.price_cards")
    assert "its rates are not kept" in tollway.out("ledger", "explain", "req_1-2-2")


@pytest.mark.usefixtures("ledger")
def test_a_providers_export_is_compared_with_the_entries(tollway: Commands, postgres_url: str, tmp_path: Path) -> None:
    execute(
        postgres_url, "SET session_replication_role = replica; UPDATE tollway.ledger SET status = 200 WHERE charged"
    )
    head = "date,model,api_key_id,num_model_requests,input_tokens,output_tokens\n"
    export = tmp_path / "usage.csv"
    export.write_text(f"{head}2027-01-01,gpt-4o,x,1,10,5\n2027-01-02,gpt-4o-2024-08-06,x,2,21,10\n")
    (differing,) = tollway.json("ledger", "reconcile", str(export), "--provider", "openai")
    assert (differing["day"], differing["model"], differing["key"]) == ("2027-01-02", "gpt-4o", None)
    assert differing["provider"] == {"requests": 2, "inputTokens": 21, "cachedInputTokens": None, "outputTokens": 10}
    assert (differing["ledger"]["requests"], differing["ledger"]["inputTokens"]) == (1, 30)
    words = ("ledger", "reconcile", str(export), "--provider", "openai")
    assert len(tollway.json(*words, "--all", "--match", "x=key_a")) == 2
    assert "agree" in tollway.run(*words, "--to", "2027-01-02").stderr
    assert "21" in tollway.out(*words)
    assert "is none of openai, mistral" in tollway.fails(2, "ledger", "reconcile", str(export), "--provider", "other")
    export.write_text(
        '{"data": [{"start_time": 1798761600, "results": [{"model": "gpt-4o", "input_tokens": 0,'
        ' "object": "organization.usage.embeddings.result"}]}]}'
    )
    assert tollway.json(*words) == [], "the entries are of no embeddings"
    export.write_text(f"{head}2027-01-01,gpt-4o,x,1,10,5\n")
    assert "later than --from" in tollway.fails(2, *words, "--from", "2027-01-02", "--to", "2027-01-01")
    assert "no key 'nope'" in tollway.fails(1, *words, "--match", "x=nope")
    assert "no date" in tollway.fails(2, *words, "--to", "9999-12-31T23:00:00-10:00")
    export.write_text(f"{head}9999-12-31,gpt-4o,x,1,10,5\n")
    assert "no day of usage" in tollway.fails(1, *words)
    export.write_text("no")
    assert "is no export of openai" in tollway.fails(1, *words)
