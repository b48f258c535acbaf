"""Measures and their table. A ratio is the median of the ratios of the rounds, each taken within one round."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

BARE = "bare upstream"
NGINX = "nginx"
TOLLWAY = "Tollway"
COLUMNS = (BARE, NGINX, TOLLWAY)


@dataclass(frozen=True, slots=True)
class Measure:
    """One line of the table."""

    what: str
    unit: str
    samples: Mapping[str, Sequence[float]]
    """Program -> one value per round, in the order of the rounds."""
    at_most: float | None = None
    """The project's target for Tollway's value."""
    ratio_at_most: float | None = None
    """The project's target for Tollway's value over nginx's."""

    def ratios(self) -> list[float]:
        """Tollway over nginx, round by round; none where a difference drowned in noise and came out negative."""
        pairs = list(zip(self.samples.get(TOLLWAY, ()), self.samples.get(NGINX, ()), strict=False))
        if any(value <= 0 for pair in pairs for value in pair):
            return []
        return [tollway / nginx for tollway, nginx in pairs]

    def met(self) -> bool | None:
        """Is the target met? None: there is none, or nothing to hold against it."""
        if self.at_most is not None and self.samples.get(TOLLWAY):
            return median(self.samples[TOLLWAY]) <= self.at_most
        if self.ratio_at_most is not None and self.ratios():
            return median(self.ratios()) <= self.ratio_at_most
        return None


def markdown(
    facts: Sequence[tuple[str, str]], chapters: Mapping[str, Sequence[Measure]], notes: Sequence[str] = ()
) -> str:
    """The whole report."""
    parts = ["# Tollway beside nginx", _table([("machine", ""), *facts])]
    for title, measures in chapters.items():
        heading = ("", "unit", *COLUMNS, "Tollway / nginx", "target")
        parts += [f"## {title}", _table([heading, *map(_line, measures)])]
    if notes:
        parts += ["## Notes", "\n".join(f"- {note}" for note in notes)]
    parts += ["## Every round", _table([("", "unit", *COLUMNS), *_rounds(chapters)])]
    return "\n\n".join(parts) + "\n"


def number(value: float) -> str:
    """Three significant digits, and never fewer than the whole number has."""
    if value and abs(value) < 100:
        digits = 2 if abs(value) < 10 else 1
        return f"{value:.{digits}f}"
    return f"{value:,.0f}"


def _line(measure: Measure) -> tuple[str, ...]:
    values = [number(median(measure.samples[name])) if measure.samples.get(name) else "" for name in COLUMNS]
    return (measure.what, measure.unit, *values, _spread(measure.ratios()), _target(measure))


def _spread(ratios: Sequence[float]) -> str:
    if not ratios:
        return ""
    middle = f"{median(ratios):.2f}x"
    return middle if len(ratios) == 1 else f"{middle} ({min(ratios):.2f} to {max(ratios):.2f})"


def _target(measure: Measure) -> str:
    met = measure.met()
    if met is None:
        return ""
    limit = f"{measure.at_most:g}" if measure.at_most is not None else f"{measure.ratio_at_most:g}x"
    return f"≤ {limit}: {'met' if met else 'MISSED'}"


def _rounds(chapters: Mapping[str, Sequence[Measure]]) -> list[tuple[str, ...]]:
    return [
        (
            f"{title}: {measure.what}",
            measure.unit,
            *(" ".join(map(number, measure.samples.get(it, ()))) for it in COLUMNS),
        )
        for title, measures in chapters.items()
        for measure in measures
        if any(len(values) > 1 for values in measure.samples.values())
    ]


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return "\n".join([line(rows[0]), line(["-" * width for width in widths]), *map(line, rows[1:])])
