"""
Figures and curves: what was measured, over how many runs, and how it is printed.

A figure is the median of its runs, never the best of them, and the worst of what must not happen at all; what the runs
spread over stands beside it. Times are pooled over the runs before their percentiles are taken, for the 99th of forty
samples says nothing.

Pure: no clock, no files.
"""

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

LINEAR = 1.05  # 0.05 is what two runs differ by
SEPARATOR = " | "
PERCENTS = (1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 98, 99, 99.5, 100)


@dataclass
class Figure:
    """One line of the table."""

    name: str
    unit: str
    values: list[float]
    """One per run."""
    target: float | None = None
    """At most this; None where nothing is promised."""
    note: str = ""
    at_least: bool = False
    """The target is the least that it may be, not the most."""
    is_promise: bool = False
    """One of the rows of the first table of docs/performance.md."""
    is_worst: bool = False
    """The worst of the runs counts, and not their median: it must not happen."""
    value: float = field(init=False)

    def __post_init__(self) -> None:
        self.value = max(self.values) if self.is_worst else statistics.median(self.values)

    @property
    def is_met(self) -> bool | None:
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target

    def as_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "unit": self.unit,
            "value": self.value,
            "runs": self.values,
            "target": self.target,
            "note": self.note,
            "at_least": self.at_least,
            "is_promise": self.is_promise,
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Self:
        made = cls(told["name"], told["unit"], told["runs"], told["target"], told["note"])
        made.at_least, made.is_promise, made.value = told["at_least"], told["is_promise"], told["value"]
        return made


@dataclass
class Curve:
    """How something grows: one line of one of the plots."""

    plot: str
    """A name among benchmarks.plots.PLOTS."""
    name: str
    points: list[tuple[float, float]]

    def as_json(self) -> dict[str, object]:
        return {"plot": self.plot, "name": self.name, "points": self.points}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Self:
        return cls(told["plot"], told["name"], [(x, y) for x, y in told["points"]])


Measured = Figure | Curve


def growth(what: str, points: Sequence[tuple[float, float]]) -> Figure:
    """
    The slope of log y over log x by least squares: 0 where y does not depend on x, 1 where it is linear.

    Of two points or more, all above 0. Nothing may grow faster than what it grows with.
    """
    slope, _ = statistics.linear_regression([math.log(x) for x, _ in points], [math.log(y) for _, y in points])
    return Figure(f"{what}: grows with the power of", "", [slope], LINEAR)


def drift(points: Sequence[tuple[float, float]]) -> float:
    """
    How fast y rises with x: the median of the slopes between any two of the points (the estimator of Theil and Sen).

    A fifth of the points may be anything, such as a look in the midst of something. Two points or more, no x twice.
    """
    pairs = itertools.combinations(points, 2)
    return statistics.median((y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in pairs)


class Times:
    """Samples of one time in milliseconds, by run."""

    def __init__(self, name: str, note: str = "") -> None:
        self.name = name
        self.note = note
        self.runs: list[list[float]] = []

    def begin_run(self) -> None:
        self.runs.append([])

    def add(self, milliseconds: float) -> None:
        self.runs[-1].append(milliseconds)

    def figures(self) -> list[Figure]:
        """p50 with the runs' own beside it, and p99 of all samples together."""
        runs = [run for run in self.runs if run]
        if not runs:
            return []
        pooled = sorted(sample for run in runs for sample in run)
        middle = Figure(f"{self.name}, p50", "ms", [percentile(sorted(run), 50) for run in runs], note=self.note)
        middle.value = percentile(pooled, 50)
        return [middle, Figure(f"{self.name}, p99", "ms", [percentile(pooled, 99)], note=f"{len(pooled)} samples")]

    def distribution(self, plot: str, name: str) -> Curve:
        """Milliseconds, and the percentage of all samples that took no longer."""
        pooled = sorted(sample for run in self.runs for sample in run)
        return Curve(plot, name, [(percentile(pooled, percent), percent) for percent in PERCENTS])


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest sample that so many percent of them do not exceed. `ordered` is not empty and sorted."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def table(figures: Iterable[Figure]) -> str:
    """For a terminal and for a Markdown page alike. Figures that are named "row | column" make a table of these."""
    listed = list(figures)
    if listed and all(SEPARATOR in each.name for each in listed):
        return _lined_up(_grid(listed), left=(0,))
    rows = [("what", "median", "runs from..to", "target", "note")]
    for each in listed:
        low, high = min(each.values), max(each.values)
        spread = f"{shown(low)} .. {shown(high)}" if len(each.values) > 1 else ""
        rows.append((each.name, f"{shown(each.value)} {each.unit}".strip(), spread, _target(each), each.note))
    return _lined_up(rows, left=(0, 4))


def _grid(figures: Sequence[Figure]) -> list[tuple[str, ...]]:
    """Rows and columns in the order in which they come first; a figure that there is not is an empty cell."""
    cells = {tuple(each.name.split(SEPARATOR, 1)): f"{shown(each.value)} {each.unit}".strip() for each in figures}
    columns = list(dict.fromkeys(column for _, column in cells))
    rows = dict.fromkeys(row for row, _ in cells)
    return [("", *columns), *((row, *(cells.get((row, column), "") for column in columns)) for row in rows)]


def _lined_up(rows: Sequence[tuple[str, ...]], left: Sequence[int]) -> str:
    """The first row is the heads; columns but those in `left` are set to the right."""
    widths = [max(3, *(len(row[column]) for row in rows)) for column in range(len(rows[0]))]
    lines = [
        " | ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    marks = ["-" * width if column in left else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    lines.insert(1, " | ".join(marks))
    return "\n".join(f"| {line} |" for line in lines)


def _target(figure: Figure) -> str:
    if figure.target is None:
        return ""
    sign = "≥" if figure.at_least else "≤"
    return f"{sign} {shown(figure.target)} {'met' if figure.is_met else 'NOT MET'}"


def shown(value: float) -> str:
    """Three digits that mean something."""
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    return f"{value:,.{max(0, 2 - size)}f}" if size < 3 else f"{value:,.0f}"
