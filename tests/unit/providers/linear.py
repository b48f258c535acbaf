"""Holds the expressions of a module against the worst texts: none may take more than linear time."""

import re
import time
from types import ModuleType

_SHORT, _LONG = 40_000, 160_000
_NOISE_S = 0.005
"""What is below is noise: a quadratic search in so long a text takes seconds."""


def assert_linear(module: ModuleType, piece: str) -> None:
    """Four times the text takes about four times as long; a quadratic expression takes sixteen times."""
    expressions = [value for value in vars(module).values() if isinstance(value, re.Pattern)]
    assert expressions
    assert _seconds(expressions, piece, _LONG) < 10 * max(_seconds(expressions, piece, _SHORT), _NOISE_S)


def _seconds(expressions: list[re.Pattern[str]], piece: str, size: int) -> float:
    text = (piece * (size // len(piece) + 1))[:size]
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        for expression in expressions:
            expression.search(text if isinstance(expression.pattern, str) else text.encode())
        best = min(best, time.perf_counter() - began)
    return best
