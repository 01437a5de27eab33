"""
Line charts as SVG, for docs/performance.md: text that a diff can show, readable on light and on dark.

A chart is its axes and its lines; what is drawn is decided by benchmarks.figures.Curve. Pure: text out.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import NamedTuple

from benchmarks.figures import Curve, shown

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 78, 20, 44, 56
LINE_HEIGHT = 17
COLOURS = ("#3b82f6", "#ea580c", "#16a34a", "#a855f7", "#db2777", "#0891b2")  # each with 3:1 on white and on #0d1117
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1f2328; }
.title { font-size: 15px; font-weight: 600; }
.paper { fill: #ffffff; } .grid { stroke: #8b949e; stroke-opacity: .3; } .axis { stroke: #8b949e; }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3; } .paper { fill: #0d1117; } }
"""


class Chart(NamedTuple):
    """The frame of a plot."""

    title: str
    x: str
    y: str
    log_x: bool = True
    log_y: bool = False


PLOTS: Mapping[str, Chart] = {
    "throughput": Chart("Fan-out of one 600 B object", "nodes", "pushed and acknowledged per second of a core"),
    "lastacks": Chart("From a watch event until the last node has acknowledged, p50", "nodes", "ms", log_y=True),
    "lastack": Chart("From a watch event until the last node has acknowledged", "ms", "% of the changes, no later"),
    "latency": Chart("Latency added by hub, link and edge commit", "ms", "% of the changes, no later"),
    "memory": Chart("Resident memory of the hub", "connected nodes", "MB", log_y=True),
    "objects": Chart("One change, by the objects that a node holds", "objects per node", "microseconds", log_y=True),
    "changenodes": Chart("One pod's change, by the nodes that are connected", "nodes", "hub processor, us", log_y=True),
    "churn": Chart("Anonymous memory under churn", "minutes", "MB", log_x=False),
    "flood": Chart("A pod's change while devices flood a node, p99", "reports offered per second", "ms", log_y=True),
    "rate": Chart("Pods changed, each on one of 100 nodes", "changes per second asked for", "microseconds", log_y=True),
}


class Scale:
    """Values along one axis to pixels."""

    def __init__(self, values: Sequence[float], first: float, last: float, *, log: bool) -> None:
        """values: not empty; above 0 where `log`. first, last: pixels."""
        self._log = log
        self._first, self._last = first, last
        low, high = min(values), max(values)
        if log:
            self.low = 10.0 ** math.floor(math.log10(low) + 1e-9)
            self.high = max(10.0 ** math.ceil(math.log10(high) - 1e-9), self.low * 10)
        else:
            step = _step(high)
            self.low, self.high = 0.0, step * math.ceil(high / step - 1e-9) or 1.0

    def place(self, value: float) -> float:
        if self._log:
            part = math.log10(value / self.low) / math.log10(self.high / self.low)
        else:
            part = (value - self.low) / (self.high - self.low)
        return self._first + part * (self._last - self._first)

    def marks(self) -> Iterator[float]:
        """Powers of ten, with 2 and 5 between them where they are few; or about five even steps."""
        if not self._log:
            step = _step(self.high)
            yield from (step * number for number in range(round(self.high / step) + 1))
            return
        powers = range(round(math.log10(self.low)), round(math.log10(self.high)) + 1)
        between = (1, 2, 5) if len(powers) <= 3 else (1,)
        yield from (mark for power in powers for each in between if (mark := each * 10.0**power) <= self.high * 1.001)


def draw(chart: Chart, curves: Sequence[Curve]) -> str:
    """The whole file. Points that a logarithmic axis cannot show are left out."""
    lines = [(curve.name, [point for point in curve.points if _fits(chart, point)]) for curve in curves]
    points = [point for _, each in lines for point in each]
    assert points, "a chart shows something"
    top = TOP + LINE_HEIGHT * len(lines)
    xs = Scale([x for x, _ in points], LEFT, WIDTH - RIGHT, log=chart.log_x)
    ys = Scale([y for _, y in points], HEIGHT - BOTTOM, top, log=chart.log_y)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape(chart.title)}</title><style>{STYLE}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}"/>',
        _text(LEFT, 24, chart.title, kind="title"),
    ]
    for mark in xs.marks():
        parts.append(_line(xs.place(mark), top, xs.place(mark), HEIGHT - BOTTOM, "grid"))
        parts.append(_text(xs.place(mark), HEIGHT - BOTTOM + 18, _label(mark), anchor="middle"))
    for mark in ys.marks():
        parts.append(_line(LEFT, ys.place(mark), WIDTH - RIGHT, ys.place(mark), "grid"))
        parts.append(_text(LEFT - 8, ys.place(mark) + 4, _label(mark), anchor="end"))
    parts.append(_line(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, "axis"))
    parts.append(_line(LEFT, top, LEFT, HEIGHT - BOTTOM, "axis"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, chart.x, anchor="middle"))
    middle = (top + HEIGHT - BOTTOM) / 2
    parts.append(f'<g transform="rotate(-90 16 {middle:.0f})">{_text(16, middle, chart.y, anchor="middle")}</g>')
    for number, (name, each) in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{xs.place(x):.1f},{ys.place(y):.1f}" for x, y in each)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{xs.place(x):.1f}" cy="{ys.place(y):.1f}" r="3" fill="{colour}"/>' for x, y in each]
        height = TOP + LINE_HEIGHT * number
        parts.append(f'<rect x="{LEFT}" y="{height - 9}" width="14" height="4" fill="{colour}"/>')
        parts.append(_text(LEFT + 20, height - 3, name))
    return "\n".join([*parts, "</svg>"]) + "\n"


def joined(curves: Iterable[Curve]) -> dict[str, list[Curve]]:
    """By plot; what several families tell of one line is one line, in the order of its points."""
    points: defaultdict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for curve in curves:
        points[curve.plot, curve.name] += curve.points
    plots: defaultdict[str, list[Curve]] = defaultdict(list)
    for (plot, name), each in points.items():
        plots[plot].append(Curve(plot, name, sorted(each)))
    return dict(plots)


def _fits(chart: Chart, point: tuple[float, float]) -> bool:
    return (point[0] > 0 or not chart.log_x) and (point[1] > 0 or not chart.log_y)


def _step(high: float) -> float:
    """1, 2 or 5 times a power of ten, so that there are four to ten steps."""
    power = 10.0 ** math.floor(math.log10(high / 4)) if high > 0 else 1.0
    return next(step * power for step in (1, 2, 5, 10) if high / (step * power) <= 8)


def _label(mark: float) -> str:
    return f"{mark:,.0f}" if mark >= 1 or mark == 0 else shown(mark).rstrip("0")


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, *, anchor: str = "start", kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
