"""
Figures for Prometheus, in its text format (version 0.0.4); the few lines it takes, rather than a library on the edge.

A name ends in _total for what only grows and in its unit otherwise, as prometheus.io/docs/practices/naming asks.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metric(NamedTuple):
    """One figure."""

    name: str
    help: str
    value: float
    labels: Mapping[str, str] = {}


def render(metrics: Iterable[Metric], common: Mapping[str, str] = {}) -> bytes:
    """
    The page. Metrics of one name must follow each other; the first one's help is theirs.

    common: labels that all of them get.
    """
    lines: list[str] = []
    last = ""
    for metric in metrics:
        if metric.name != last:
            last = metric.name
            kind = "counter" if metric.name.endswith("_total") else "gauge"
            lines += [f"# HELP {metric.name} {_escaped(metric.help)}", f"# TYPE {metric.name} {kind}"]
        labels = ",".join(
            f'{name}="{_escaped(text, quote=True)}"' for name, text in {**common, **metric.labels}.items()
        )
        lines.append(f"{metric.name}{'{' + labels + '}' if labels else ''} {_number(metric.value)}")
    return ("\n".join(lines) + "\n").encode()


def merged(pages: Iterable[bytes]) -> bytes:
    """
    Pages of render() as one, in which the lines of a name follow each other, as the format demands.

    What tells the pages apart is in their labels already (render's `common`).
    """
    found: dict[str, list[str]] = {}
    for page in pages:
        lines: list[str] = []
        is_first = False
        for line in page.decode().splitlines():
            if line.startswith("# HELP "):
                name = line.split(" ", 3)[2]
                is_first = name not in found
                lines = found.setdefault(name, [])
            if is_first or not line.startswith("#"):
                lines.append(line)
    return "".join(f"{line}\n" for lines in found.values() for line in lines).encode()


def _escaped(text: str, *, quote: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quote else text


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
