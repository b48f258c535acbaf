"""A call that takes several requests to its provider."""

from types import SimpleNamespace
from typing import Any

import pytest

from tollway.dataplane import attempts
from tollway.providers.base import ChatResult


@pytest.mark.parametrize(
    ("closed", "on_gone", "sent"), [(False, None, 2), (True, None, 0), (True, lambda: None, 2)], ids=str
)
async def test_what_nobody_waits_for_is_not_sent(
    monkeypatch: pytest.MonkeyPatch, closed: bool, on_gone: Any, sent: int
) -> None:
    """A client that left while the first answer was read; unless its model's answers are read for nobody, too."""
    result = ChatResult(b"", None)
    messages: list[bytes] = []

    async def fetch(_: Any, __: Any, message: bytes) -> ChatResult:
        messages.append(message)
        return result

    monkeypatch.setattr(attempts, "_fetch", fetch)
    attempt: Any = SimpleNamespace(
        call=SimpleNamespace(request=SimpleNamespace(closed=closed, on_gone=on_gone)),
        further=[b"second", b"third"],
        adapter=SimpleNamespace(join=len),
    )
    joined: Any = await attempts._fetch_further(SimpleNamespace(), attempt, result)  # type: ignore[arg-type]
    assert (len(messages), joined) == (sent, sent + 1)
