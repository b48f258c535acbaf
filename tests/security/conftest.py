"""Shares the fixtures of a running gateway."""

import pytest

from fakes import fixtures


def pytest_configure(config: pytest.Config) -> None:
    """Register them once, whichever folder is collected first: there is one shared gateway for a whole run."""
    if not config.pluginmanager.is_registered(fixtures):
        config.pluginmanager.register(fixtures)
