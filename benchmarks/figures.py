"""
Figures: what was measured, over how many runs, and how it is printed.

A figure is the median of its runs, never the best of them; what the runs spread over stands beside it. Times are
pooled over the runs before their percentiles are taken, for the 99th of forty samples says nothing.

Pure: no clock, no files.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field


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
    value: float = field(init=False)

    def __post_init__(self) -> None:
        self.value = statistics.median(self.values)

    @property
    def is_met(self) -> bool | None:
        return None if self.target is None else self.value <= self.target

    def as_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "unit": self.unit,
            "value": self.value,
            "runs": self.values,
            "target": self.target,
            "note": self.note,
        }


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


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest sample that so many percent of them do not exceed. `ordered` is not empty and sorted."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def table(figures: Iterable[Figure]) -> str:
    """For a terminal and for a Markdown page alike."""
    rows = [("what", "median", "runs from..to", "target", "note"), ("---", "---:", "---:", "---:", "---")]
    for each in figures:
        low, high = min(each.values), max(each.values)
        spread = f"{shown(low)} .. {shown(high)}" if len(each.values) > 1 else ""
        target = "" if each.target is None else f"≤ {shown(each.target)} {'met' if each.is_met else 'NOT MET'}"
        rows.append((each.name, f"{shown(each.value)} {each.unit}", spread, target, each.note))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for number, row in enumerate(rows):
        cells = [
            cell.ljust(width) if column in (0, 4) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        if number == 1:
            cells = [
                ("-" * (width - 1) + ":") if mark.endswith(":") else "-" * width
                for mark, width in zip(row, widths, strict=True)
            ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def shown(value: float) -> str:
    """Three digits that mean something."""
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    return f"{value:,.{max(0, 2 - size)}f}" if size < 3 else f"{value:,.0f}"


def as_json(families: Mapping[str, Sequence[Figure]], machine: Mapping[str, object]) -> dict[str, object]:
    """The file that a run leaves."""
    return {
        "machine": dict(machine),
        "families": {name: [each.as_json() for each in figures] for name, figures in families.items()},
    }
