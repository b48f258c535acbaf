"""A credential becomes a header line, or nothing."""

import pytest

from tollway.domain.keys import Secret
from tollway.providers.signing.bearer import authorization


def test_a_secret_becomes_one_header_line() -> None:
    assert authorization(Secret("sk-abc")) == b"authorization: Bearer sk-abc\r\n"


@pytest.mark.parametrize("text", ["", "a b", "a\r\nx: y", "a\n", "\0", "é", "a\t", "\x7f"])
def test_a_secret_that_fits_no_header_becomes_nothing(text: str) -> None:
    assert authorization(Secret(text)) is None
