"""A credential becomes a header line, or nothing."""

import pytest

from tollway.domain.failures import FailureKind, UpstreamFailure
from tollway.domain.keys import Secret
from tollway.providers.signing.bearer import authorization, without_secret


def test_a_secret_becomes_one_header_line() -> None:
    assert authorization(Secret("sk-abc")) == b"authorization: Bearer sk-abc\r\n"


@pytest.mark.parametrize("text", ["", "a b", "a\r\nx: y", "a\n", "\0", "é", "a\t", "\x7f"])
def test_a_secret_that_fits_no_header_becomes_nothing(text: str) -> None:
    assert authorization(Secret(text)) is None


def test_a_provider_that_repeats_our_credential_is_not_repeated() -> None:
    line = authorization(Secret("hush"))
    assert line is not None
    failure = UpstreamFailure(FailureKind.REQUEST, "bad key hush", 400, code="hush", param=None)
    told = without_secret(failure, line)
    assert (told.message, told.code, told.param, told.status) == ("bad key ***", "***", None, 400)


def test_a_failure_without_our_credential_stays_as_it_is() -> None:
    failure = UpstreamFailure(FailureKind.REQUEST, "bad", 400)
    assert without_secret(failure, b"authorization: Bearer hush\r\n") is failure
    assert without_secret(failure, b"") is failure
