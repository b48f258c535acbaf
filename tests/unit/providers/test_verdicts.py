"""What providers' sentences mean: collected from the servers that people run, with what must not be taken for it.

The sentences are those of public bug reports and documentation, with other numbers.
"""

import pytest
from golden import cases
from linear import assert_linear

from tollway.providers import verdicts
from tollway.providers.verdicts import is_about_the_key, is_too_long, is_unpaid, speaks_of_an_account

SENTENCES = cases("verdicts.json")


def sentences(kind: str) -> pytest.MarkDecorator:
    """One test for each sentence of this kind."""
    return pytest.mark.parametrize("text", SENTENCES[kind].values(), ids=SENTENCES[kind].keys())


@sentences("too long")
def test_a_prompt_that_does_not_fit_is_recognised_by_what_the_sentence_means(text: str) -> None:
    assert is_too_long(text)
    assert is_too_long(text.lower())
    assert not is_unpaid(text)


@sentences("not too long")
def test_other_sentences_about_length_tokens_and_context_are_not_taken_for_it(text: str) -> None:
    assert not is_too_long(text)


@sentences("unpaid")
def test_an_account_without_money_is_recognised(text: str) -> None:
    assert is_unpaid(text)
    assert not is_too_long(text)


@sentences("not unpaid")
def test_a_rate_limit_or_a_word_of_the_clients_is_no_lack_of_money(text: str) -> None:
    assert not is_unpaid(text)


def test_a_quota_that_comes_back_by_itself_is_a_rate() -> None:
    text = "You exceeded your current quota, please check your plan and billing details."
    assert is_unpaid(text)
    assert not is_unpaid(text, waits=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("API key not valid. Please pass a valid API key.", True),
        ("Incorrect API key provided: ***", True),
        ("API_KEY_INVALID", True),
        ("Missing API key", True),
        ("Invalid 'tools[0].parameters': api_key is not a valid type", False),
        ("Invalid value: temperature", False),
    ],
)
def test_a_bad_key_is_recognised(text: str, expected: bool) -> None:
    assert is_about_the_key(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Rate limit reached for gpt-4o in organization *** on tokens per min", True),
        ("You are on the free plan", True),
        ("Your project's quota", True),
        ("Incorrect API key provided", True),
        ("Rate limit exceeded, slow down", False),
        ("Overloaded", False),
        ("CUDA out of memory", False),
        ("Internal server error while the answer was made", False),
    ],
)
def test_what_speaks_of_an_account_is_told_apart(text: str, expected: bool) -> None:
    assert speaks_of_an_account(text) is expected


PIECES = (
    *(
        "a",
        " ",
        "-",
        "'",
        '"',
        "`",
        "aA",
        "://",
        "a://",
        "exceed ",
        "context ",
        "exceeds a a a a a a ",
        "input 1 ",
        "1,",
    ),
    *("prompt ", "max tokens ", "balance a a a ", "quota ", "hit a ", "spend ", "account a ", "billing a a "),
    *(
        "more than a ",
        "max a a context length ",
        "input length 1 a a a a ",
        "api key a ",
        "free tier a a a a a ",
        "上下文",
    ),
)


@pytest.mark.parametrize("piece", PIECES)
def test_the_worst_text_takes_linear_time(piece: str) -> None:
    assert_linear(verdicts, piece)
