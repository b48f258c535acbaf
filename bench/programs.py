"""What is measured, as the measurements see it: a program, the mock provider behind it, the place of both."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench import exchange, processes


@dataclass(frozen=True, slots=True)
class Program:
    """A running program that answers chat requests on a loopback port."""

    name: str
    port: int
    worker: int
    """The process that carries the requests: its CPU and its memory are what is compared."""
    key: str = "sk-none"
    background: Mapping[str, processes.Family] = field(default_factory=dict)
    """What else works for the requests, by name; reported beside it so that nothing is hidden."""
    model: str = exchange.MODEL
    """What is asked for."""
    ledger: Callable[[], int] | None = None
    """How many calls it has accounted for so far; None: it keeps no accounts."""

    def background_cpu_s(self) -> dict[str, float]:
        """CPU time so far of each family in the background."""
        return {name: family.cpu_s() for name, family in self.background.items()}


@dataclass(frozen=True, slots=True)
class Upstream:
    """A mock provider, as a proxy has to know it."""

    port: int
    worker: int
    authority: Path | None = None
    """PEM file of the authority that signed its certificate; None: it speaks plain HTTP."""

    @property
    def url(self) -> str:
        """What goes before ``/v1``."""
        return f"http{'s' if self.authority else ''}://127.0.0.1:{self.port}"


@dataclass(frozen=True, slots=True)
class Place:
    """Where one run keeps its files, and which core is whose."""

    folder: Path
    program_core: int
    other_core: int

    def make(self, name: str) -> Path:
        """A new folder for the files of one program."""
        path = self.folder / f"{len(list(self.folder.iterdir())):02}-{name}"
        path.mkdir()
        return path


def clean_environment(**settings: str) -> dict[str, str]:
    """The environment of a program under test: nothing inherited that could steer it, like proxies or its settings."""
    kept = ("HOME", "LANG", "LC_ALL", "PATH", "TMPDIR", "USER")
    return {name: os.environ[name] for name in kept if name in os.environ} | settings
