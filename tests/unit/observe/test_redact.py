"""Nothing secret, nothing unprintable, nothing endless gets into a log line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpu_time import QUADRATIC, growth
from tollway.domain.keys import Secret, new_virtual_key
from tollway.observe.redact import Redactor

KNOWN = Secret("correct horse battery")
PLAIN = Redactor()


@pytest.mark.parametrize(
    "text",
    [
        "Incorrect API key provided: CANARY. You can find",
        "authorization: Bearer CANARY",
        "Authorization: Token CANARY",
        '{"Authorization": "Custom CANARY"}',
        "OPENAI_API_KEY=CANARY",
        "AWS_SECRET_ACCESS_KEY=CANARY",
        "client_secret: CANARY",
        '"refresh_token":"CANARY"',
        "Authorization:Basic CANARY",
        '{"api_key": "CANARY"}',
        "api-key=CANARY&x=1",
        "password = CANARY",
        "postgresql://user:CANARY@host/db",
        "https://CANARY@host/v1",
        "the key CANARY, and more",
        "'CANARY'",
    ],
)
@pytest.mark.parametrize(
    "canary",
    [
        *("hf_abcdefGHIJKLmnopqrSTUVwxyzabcdefgh", "AIza" + "abCD" * 8, "gsk_" + "abCD" * 9, "xai-" + "abCD" * 9),
        "sk-proj-Abc_123-defGHI456jklMNO",
        "sk-tw-" + "aB3" * 17,
        "Qm9uam91cjEyMzQ1Njc4OTBhYmNkZWZnaGlq",
    ],
)
def test_a_planted_secret_is_masked(text: str, canary: str) -> None:
    cleaned = PLAIN.clean(text.replace("CANARY", canary), 200)
    assert canary not in cleaned
    assert canary[-8:] not in cleaned
    assert "***" in cleaned


def test_a_virtual_key_keeps_only_its_prefix() -> None:
    assert PLAIN.clean(f"key {new_virtual_key()} used", 200) == "key sk-tw*** used"


def test_what_is_known_is_masked_wherever_it_stands() -> None:
    redactor = Redactor([KNOWN, Secret("horse"), Secret("")])
    assert redactor.clean(f"say {KNOWN.reveal()}!", 200) == "say ***!"
    assert redactor.clean("a horse is a horse", 200) == "a horse is a horse", "too short to be masked in words"


@pytest.mark.parametrize(
    "text",
    [
        "req_6a1c2f4dd3b5f0a1b2c300000001 ended: rate_limited",
        "key_3hK9aZ81bQ2mX7Lp has 60 requests per minute",
        "cannot use /home/ann/.local/share/tollway: Permission denied",
        "max_tokens: 100, token limit exceeded, completion tokens=5, secret of success",
        "gpt-4o-mini-2024-07-18 answered 200 in 1.25 s",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert PLAIN.clean(text, 200) == text


def test_control_characters_are_escaped() -> None:
    assert PLAIN.clean("a\x1b[31mb\r\nc\u2028d\u202ee\0", 200) == r"a\x1b[31mb\r\nc\u2028d\u202ee\x00"


def test_letters_of_all_scripts_stay() -> None:
    assert PLAIN.clean("Grüße, 東京 🚀", 200) == "Grüße, 東京 🚀"


def test_long_text_is_cut() -> None:
    assert PLAIN.clean("word " * 1000, 20) == ("word " * 4) + "…"


@pytest.mark.parametrize("at", range(0, 60, 3))
def test_a_secret_at_the_cut_is_not_shown_in_part(at: int) -> None:
    secret = "aB3dE6gH9j" * 5
    cleaned = Redactor([Secret(secret)]).clean("x" * at + " " + secret + " tail" * 1000, 40)
    assert "aB3dE6" not in cleaned


@given(st.text(), st.integers(1, 100))
def test_any_text_becomes_one_printable_line(text: str, limit: int) -> None:
    cleaned = Redactor([KNOWN]).clean(text, limit)
    assert cleaned.isprintable()
    assert len(cleaned) <= limit + 1
    assert KNOWN.reveal() not in cleaned


PIECES = st.sampled_from(
    [
        "sk-",
        "hf_",
        "AIza",
        "abcdefghijkl",
        "Bearer ",
        "basic",
        " ",
        "/",
        "://",
        "@",
        "token",
        "=",
        "a1B2",
        "-",
        "x" * 9,
        "7" * 31,
    ]
)


@given(st.lists(PIECES, max_size=6).map("".join))
def test_the_short_cut_for_harmless_values_changes_nothing(text: str) -> None:
    padded = PLAIN.clean(text + "\n", 200)  # what has a line end is never taken for harmless
    assert PLAIN.clean(text, 200) + r"\n" == padded


@pytest.mark.parametrize("letter", ["a", "s", "-", ":", "/", "=", "1", " ", "bearer ", "sk-", "://", "api_key="])
def test_the_worst_text_takes_linear_time(letter: str) -> None:
    quarter, whole = (letter * (size // len(letter)) for size in (25_000, 100_000))
    assert growth(lambda text: PLAIN.clean(text, len(text)), quarter, whole) < QUADRATIC
