"""The fixtures of every test that talks to a running gateway; each folder's conftest registers this module once."""

import asyncio
import itertools
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from fakes.gateway import Gateway, Tenant, new_tenant
from fakes.upstream import Upstream


class StartGateway(Protocol):
    """Starts a gateway of the test's own; settings as in the environment."""

    def __call__(self, **settings: str) -> Gateway: ...


@pytest.fixture(scope="session")
def openai_provider() -> Iterator[Upstream]:
    """The scripted OpenAI of all gateways."""
    with Upstream() as upstream:
        yield upstream


@pytest.fixture(scope="session")
def mistral_provider() -> Iterator[Upstream]:
    """The scripted Mistral of all gateways."""
    with Upstream() as upstream:
        yield upstream


@pytest.fixture(scope="session")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, openai_provider: Upstream, mistral_provider: Upstream
) -> Iterator[Gateway]:
    """The gateway that most tests share. It must end cleanly, and must not have printed any test's secret."""
    running = Gateway(tmp_path_factory.mktemp("shared") / "home", openai_provider, mistral_provider, {})
    try:
        running.start()
        yield running
        running.stop()
    finally:
        running.end()


@pytest.fixture
def tenant(gateway: Gateway) -> Tenant:
    """A customer of the shared gateway whose key has no limits."""
    return asyncio.run(new_tenant(gateway))


@pytest.fixture(scope="session")
def prepared_home(
    tmp_path_factory: pytest.TempPathFactory, openai_provider: Upstream, mistral_provider: Upstream
) -> Path:
    """A home whose database is made and seeded, so that a gateway for one test starts in a second."""
    home = tmp_path_factory.mktemp("prepared") / "home"
    first = Gateway(home, openai_provider, mistral_provider, {})
    try:
        first.start()
        first.stop()
    finally:
        first.end()
    return home


@pytest.fixture(scope="session")
def gateway_factory(
    tmp_path_factory: pytest.TempPathFactory, prepared_home: Path, openai_provider: Upstream, mistral_provider: Upstream
) -> Callable[[dict[str, str]], Gateway]:
    """A gateway that is not started yet, on a copy of the prepared home."""
    numbers = itertools.count(1)

    def make(settings: dict[str, str]) -> Gateway:
        home = tmp_path_factory.mktemp(f"own{next(numbers)}") / "home"
        copy = shutil.which("cp")
        assert copy is not None
        subprocess.run([copy, "-a", str(prepared_home), str(home)], check=True)  # owners and modes as they are
        return Gateway(home, openai_provider, mistral_provider, settings)

    return make


@pytest.fixture
def start_gateway(gateway_factory: Callable[[dict[str, str]], Gateway]) -> Iterator[StartGateway]:
    """For tests that kill, stop or configure a gateway. Those that still run at the end must stop cleanly."""
    started: list[Gateway] = []

    def start(**settings: str) -> Gateway:
        running = gateway_factory(settings)
        started.append(running)
        return running.start()

    try:
        yield start
        for running in started:
            if running.process.poll() is None:
                running.stop()
            running.assert_nothing_given_away()
    finally:
        for running in started:
            running.end()
