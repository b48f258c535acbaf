"""Shares the real PostgreSQL."""

import pytest

from fakes import postgres


def pytest_configure(config: pytest.Config) -> None:
    """Register it once, whichever folder is collected first: there is one cluster for a whole run."""
    if not config.pluginmanager.is_registered(postgres):
        config.pluginmanager.register(postgres)
