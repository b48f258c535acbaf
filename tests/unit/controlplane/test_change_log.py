"""Administrative changes leave a line each, a flood of them a count, and what changes nothing leaves none."""

import logging

import pytest
from starlette.requests import Request

from tollway.controlplane.change_log import MAX_LINES_PER_S, ChangeLog

REQUEST = Request({"type": "http", "method": "POST", "path": "/", "headers": [(b"x-request-id", b"req_1")]})


def test_what_has_no_line_is_told_though_no_change_follows(caplog: pytest.LogCaptureFixture) -> None:
    now = [10.0]
    log = ChangeLog(lambda: now[0])
    with caplog.at_level(logging.INFO, "tollway.changes"):
        for number in range(MAX_LINES_PER_S + 7):
            log.key_made(REQUEST, f"key_{number}")
        now[0] = 11.0
        log.turn()
    assert len(caplog.records) == MAX_LINES_PER_S + 1
    assert caplog.records[-1].getMessage() == "7 more changes were made, too many for a line each"


def test_a_save_that_names_no_provider_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "tollway.changes"):
        ChangeLog().provider_keys_saved(REQUEST, "key_1", {}, by_key=True)
    assert not caplog.records
