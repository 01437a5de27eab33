"""
What a run leaves: one JSON file, and what docs/performance.md shows of it.

A family that was measured takes the place of what the file had of it, and the others stay as they are, each with the
time and the load at which it was measured. The page has its figures between marks, so that they are never typed:

    <!-- bench promises -->     the table of what is promised
    <!-- bench machine -->      on what, when, under which load
    <!-- bench FAMILY -->       a family's table
    <!-- end -->
"""

import json
import os
import re
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from benchmarks import procfs
from benchmarks.figures import Curve, Figure, Measured, table
from benchmarks.plots import PLOTS, draw, joined
from componentbase.release import VERSION

LIBRARIES = ("websockets", "msgpack", "uvloop", "cryptography", "orjson")
QUIET_LOAD = 1.2  # per core, with the measured processes in it
_BLOCK = re.compile(r"(<!-- bench (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclass
class Family:
    """What one family measured, and when."""

    runs: int
    machine: str = field(default_factory=lambda: describe(machine()))
    measured_at: str = field(default_factory=lambda: time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()))
    load_before: float = field(default_factory=lambda: os.getloadavg()[0])
    load_highest: float = 0.0
    seconds: float = 0.0
    figures: list[Figure] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    error: str = ""

    def add(self, measured: Sequence[Measured]) -> None:
        self.figures += [each for each in measured if isinstance(each, Figure)]
        self.curves += [each for each in measured if isinstance(each, Curve)]
        self.load_highest = max(self.load_highest, os.getloadavg()[0])

    @property
    def load(self) -> str:
        return f"load {self.load_before:.1f} before, up to {self.load_highest:.1f}"

    @property
    def was_disturbed(self) -> bool:
        """Whether others were at work when it began."""
        return self.load_before > QUIET_LOAD * (os.cpu_count() or 1)

    def as_json(self) -> dict[str, object]:
        facts = {name: value for name, value in vars(self).items() if name not in ("figures", "curves")}
        figures, curves = ([each.as_json() for each in found] for found in (self.figures, self.curves))
        return {**facts, "figures": figures, "curves": curves}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Self:
        made = cls(**{name: value for name, value in told.items() if name not in ("figures", "curves")})
        made.figures = [Figure.from_json(each) for each in told["figures"]]
        made.curves = [Curve.from_json(each) for each in told["curves"]]
        return made


def read(path: Path) -> dict[str, Family]:
    """Families by name; none where there is no file, or one of another make."""
    try:
        told = json.loads(path.read_text())
        return {name: Family.from_json(family) for name, family in told["families"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def write(path: Path, families: Mapping[str, Family]) -> None:
    """The file, with the facts of this machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    told = {"machine": machine(), "families": {name: family.as_json() for name, family in families.items()}}
    path.write_text(json.dumps(told, indent=1) + "\n")


def machine() -> dict[str, object]:
    """What a figure must be read with."""
    libraries = {name: version(name) for name in LIBRARIES}
    return procfs.machine() | {"fairlead": VERSION, "openssl": ssl.OPENSSL_VERSION, **libraries}


def describe(facts: Mapping[str, object]) -> str:
    """In a line."""
    return (
        f"{facts['cores']} cores of {facts['processor']}, {facts['memory_gb']} GB, Linux {facts['kernel']}, "
        f"Python {facts['python']}, {facts['openssl']}"
    )


def promises(families: Mapping[str, Family]) -> list[Figure]:
    """The figures of the first table, in the order of their families."""
    return [figure for family in families.values() for figure in family.figures if figure.is_promise]


def write_plots(directory: Path, families: Mapping[str, Family]) -> list[Path]:
    """One file for each plot that there is something for."""
    directory.mkdir(parents=True, exist_ok=True)
    plots = joined(curve for family in families.values() for curve in family.curves)
    written = []
    for name, curves in plots.items():
        written.append(directory / f"{name}.svg")
        written[-1].write_text(draw(PLOTS[name], curves))
    return written


def fill(page: str, families: Mapping[str, Family]) -> str:
    """The page with its blocks as these results say; a block that they say nothing of stays."""

    def block(found: re.Match[str]) -> str:
        begin, name, end = found.groups()
        text = "\n".join(_block(name, families))
        return f"{begin}{text}\n{end}" if text else found[0]

    return _BLOCK.sub(block, page)


def _block(name: str, families: Mapping[str, Family]) -> Iterator[str]:
    if name == "promises":
        yield _narrow(table(promises(families)))
    elif name == "machine":
        yield "\n".join(dict.fromkeys(f"{family.machine}." for family in families.values()))
        yield ""
        yield from ("| family | measured | runs | seconds | load |", "|---|---|---:|---:|---|")
        for each, family in families.items():
            yield f"| {each} | {family.measured_at} | {family.runs} | {family.seconds:.0f} | {family.load} |"
    elif name in families and families[name].figures:
        family = families[name]
        yield f"*{family.measured_at}, {family.load}.*"
        yield ""
        yield _narrow(table(family.figures))


def _narrow(text: str) -> str:
    """Without the spaces that line columns up in a terminal."""
    return re.sub(r" {2,}", " ", re.sub(r"-{3,}", "---", text))
