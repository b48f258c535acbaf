"""What a call's headers and the row of its model say about its translation."""

from types import SimpleNamespace
from typing import Any

import pytest

from tollway.dataplane.serve import with_wishes
from tollway.domain.asked import Asked
from tollway.routing.snapshot import Provider, Target

ASKED = Asked(model="m", max_output_tokens=5)


def wishes(headers: dict[bytes, bytes], *, strict: bool = False, show_reasoning: bool = False) -> Asked:
    call: Any = SimpleNamespace(request=SimpleNamespace(headers=headers))
    provider = Provider("p", "mistral", "https://host.example")
    return with_wishes(ASKED, call, Target("m", "m", provider, None, strict, show_reasoning))


def test_without_a_wish_the_call_stays_what_it_is() -> None:
    assert wishes({}) is ASKED


@pytest.mark.parametrize("value", [b"false", b"", b"1", b"TRUE"])
def test_a_wish_is_the_word_true(value: bytes) -> None:
    assert wishes({b"x-tollway-strict": value, b"x-tollway-reasoning": value}) is ASKED


def test_a_header_or_the_row_is_enough() -> None:
    for asked in (wishes({b"x-tollway-strict": b"true"}), wishes({}, strict=True)):
        assert (asked.strict, asked.show_reasoning, asked.max_output_tokens) == (True, False, 5)
    for asked in (wishes({b"x-tollway-reasoning": b"true"}), wishes({}, show_reasoning=True)):
        assert (asked.strict, asked.show_reasoning) == (False, True)
