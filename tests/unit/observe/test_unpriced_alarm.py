"""A model without a price is told at its first call, and then once an hour with what came meanwhile."""

import pytest

from tollway.observe.unpriced import EVERY_S, UnpricedAlarm


def test_a_line_for_each_model_at_once_and_then_once_an_hour(caplog: pytest.LogCaptureFixture) -> None:
    alarm = UnpricedAlarm()
    for now in (0.0, 1.0, EVERY_S - 1):
        alarm.note("a", "openai", now)
    alarm.note("b", "openai", 2.0)
    alarm.note("", "openai", 3.0)
    alarm.note("a", "openai", EVERY_S)
    told = [(record.args, record.calls) for record in caplog.records]  # type: ignore[attr-defined]
    assert told == [
        (("a", "openai"), 1),
        (("b", "openai"), 1),
        (("a call without a model", "openai"), 1),
        (("a", "openai"), 3),
    ]
    assert {record.levelname for record in caplog.records} == {"WARNING"}
