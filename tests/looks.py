"""How much of a text expressions are given at once, whatever the machine: a call into C keeps the interpreter."""

import re
from types import ModuleType

import pytest


class Looks:
    """What the expressions of some modules were given."""

    def __init__(self) -> None:
        self.longest = 0

    def note(self, given: int) -> None:
        self.longest = max(self.longest, given)


class Watched:
    """An expression that notes it."""

    def __init__(self, expression: re.Pattern[bytes], looks: Looks) -> None:
        self._expression = expression
        self._looks = looks

    def __getattr__(self, name: str) -> object:
        def call(*arguments: object) -> object:
            text = next(argument for argument in arguments if isinstance(argument, bytes | memoryview))
            places = [argument for argument in arguments if isinstance(argument, int)]
            start = places[0] if places else 0
            end = min(places[1], len(text)) if len(places) > 1 else len(text)
            self._looks.note(end - start)
            return method(*arguments)

        method = getattr(self._expression, name)
        return call


def watch(monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> Looks:
    """Watch every expression that these modules have."""
    looks = Looks()
    for module in modules:
        for name, value in list(vars(module).items()):
            if isinstance(value, re.Pattern):
                monkeypatch.setattr(module, name, Watched(value, looks))
    return looks
