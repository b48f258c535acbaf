"""Holds the expressions of a module against the worst texts: none may take more than linear time."""

import re
from types import ModuleType

from cpu_time import QUADRATIC, growth

QUARTER, WHOLE = 40_000, 160_000


def assert_linear(module: ModuleType, piece: str) -> None:
    """Four times the text takes about four times as long; a quadratic expression takes sixteen times."""
    expressions = [value for value in vars(module).values() if isinstance(value, re.Pattern)]
    assert expressions

    def search(text: str) -> None:
        for expression in expressions:
            expression.search(text if isinstance(expression.pattern, str) else text.encode())

    quarter, whole = ((piece * (size // len(piece) + 1))[:size] for size in (QUARTER, WHOLE))
    assert growth(search, quarter, whole) < QUADRATIC
