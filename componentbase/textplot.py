"""
A value over time, drawn with characters: for a terminal that may be anything, or no terminal at all.

A value holds until the next one. Each column is a piece of time and shows everything the value was in it, from the
lowest to the highest, so that a short peak is seen however many hours are drawn.

Pure.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

MIN_WIDTH, MIN_HEIGHT = 16, 2


class Point(NamedTuple):
    """From this moment on the value is this."""

    at: float
    value: float | None
    """None: not known from here on; nothing is drawn."""


def plot(
    points: Sequence[Point],
    since: float,
    until: float,
    time_label: Callable[[float], str],
    *,
    width: int = 72,
    height: int = 12,
    mark: str = "*",
) -> list[str]:
    """
    The lines of a drawing of `width` by `height` characters, and axes to its left and below.

    points: in the order of time; what lies outside since..until matters only as the value at `since`. time_label: what
    to write below for a time. Empty when no value is known between since and until.
    """
    width, height = max(width, MIN_WIDTH), max(height, MIN_HEIGHT)
    columns = _columns(points, since, until, width)
    known = [each for each in columns if each is not None]
    if not known:
        return []
    low, high = min(each[0] for each in known), max(each[1] for each in known)
    span = high - low
    rows = [[" "] * width for _ in range(height)]
    for column, each in enumerate(columns):
        if each is None:
            continue
        bottom, top = (round((value - low) / span * (height - 1)) if span else height // 2 for value in each)
        for row in range(bottom, top + 1):
            rows[height - 1 - row][column] = mark
    labels = {0: _number(high), height - 1: _number(low)} if span else {height - 1 - height // 2: _number(low)}
    margin = max(map(len, labels.values()))
    lines = [f"{labels.get(row, ''):>{margin}} |{''.join(cells).rstrip()}".rstrip() for row, cells in enumerate(rows)]
    lines.append(f"{'':>{margin}} +{'-' * width}")
    begin, end = time_label(since), time_label(until)
    lines.append(f"{'':>{margin}}  {begin}{end:>{max(1, width - len(begin))}}")
    return lines


def _columns(points: Sequence[Point], since: float, until: float, width: int) -> list[tuple[float, float] | None]:
    """The lowest and the highest value in each piece of time, None where none is known."""
    step = (until - since) / width
    columns: list[tuple[float, float] | None] = []
    value: float | None = None
    place = 0
    for column in range(width):
        while place < len(points) and points[place].at <= since + column * step:
            value = points[place].value
            place += 1
        seen = [] if value is None else [value]
        end = until if column == width - 1 else since + (column + 1) * step
        while place < len(points) and (points[place].at < end or (column == width - 1 and points[place].at <= end)):
            value = points[place].value
            if value is not None:
                seen.append(value)
            place += 1
        columns.append((min(seen), max(seen)) if seen else None)
    return columns


def _number(value: float) -> str:
    return f"{value:.10g}" if math.isfinite(value) else "?"
