"""What a client is told of its losses."""

from golden import call

from tollway.providers.mistral.draft import MAX_WARNINGS, Draft


def test_warnings_are_bounded_said_once_and_fit_a_header() -> None:
    draft = Draft(call({}), "m")
    for number in range(100):
        draft.warn("dropped", f"x{number}")
        draft.warn("dropped", "a\r\nb")
    assert len(draft.warnings) == MAX_WARNINGS
    assert draft.warnings[:3] == ["dropped=x0", "dropped=unknown", "dropped=x1"]
