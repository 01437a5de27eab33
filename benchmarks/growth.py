"""
How the cost of one change grows: with the objects that a node holds, with the nodes, with the rate.

Processor time is the hub's. Changes come at a rate that it bears, so that the latency is that of one change and not of
a queue; where the rate itself is what grows, the last point shows where it ceases to bear it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.figures import Curve, Figure, Measured, growth, percentile
from benchmarks.pair import Pair

OBJECTS = (10, 100, 1000, 10_000)
HOLDING = 10  # nodes that all hold as many
NODES = (10, 100, 1000)
RATES = (100, 300, 1000, 3000, 10_000)
PACE = 50  # changes a second where the rate is not what grows
CHANGES, MOST = 120, 5000


def measure(runs: int, quick: bool, pki: Path) -> Iterator[list[Measured]]:
    """Once each, whatever the runs: a curve is told by its points together."""
    changes = 5 if quick else CHANGES
    costs: list[tuple[float, float]] = []
    waits: list[tuple[float, float]] = []
    with Pair(HOLDING, everywhere=1) as pair:
        held = 1
        for objects in OBJECTS[:2] if quick else OBJECTS:
            pair.hub.ask(f"everywhere {objects - held}")
            held = objects
            cost, p50, _ = _one_change(pair, f"shared {PACE} {changes}")
            costs.append((objects, cost * HOLDING))
            waits.append((objects, p50))
    yield [
        Curve("objects", f"a change that {HOLDING} nodes hold: processor, us", costs),
        Curve("objects", "until acknowledged, p50, us", [(x, y * 1000) for x, y in waits]),
        growth(f"processor time of a change that {HOLDING} nodes hold, over objects per node", costs),
        growth("until it is acknowledged, p50, over objects per node", waits),
    ]
    costs, waits = [], []
    for nodes in (2, 4) if quick else NODES:
        with Pair(nodes, pods=nodes) as pair:
            cost, p50, _ = _one_change(pair, f"own {PACE} {changes}")
            costs.append((nodes, cost))
            waits.append((nodes, p50))
    yield [
        Curve("changenodes", "a pod of one node", costs),
        growth("processor time of a pod's change, over nodes connected", costs),
        growth("until it is acknowledged, p50, over nodes connected", waits),
    ]
    costs, waits = [], []
    tails: list[tuple[float, float]] = []
    with Pair(4 if quick else NODES[1], pods=8 if quick else 2 * NODES[1]) as pair:
        for rate in RATES[:2] if quick else RATES:
            cost, p50, p99 = _one_change(pair, f"own {rate} {changes if quick else min(MOST, 2 * rate)}")
            costs.append((rate, cost))
            waits.append((rate, p50))
            tails.append((rate, p99))
    yield [
        Curve("rate", "processor per change, us", costs),
        Curve("rate", "until acknowledged, p50, us", [(x, y * 1000) for x, y in waits]),
        Curve("rate", "until acknowledged, p99, us", [(x, y * 1000) for x, y in tails]),
        growth("processor time of a pod's change, over changes per second", costs),
        Figure(f"pods changed {RATES[0]} times a second: until acknowledged, p50", "ms", [waits[0][1]]),
    ]


def _one_change(pair: Pair, command: str) -> tuple[float, float, float]:
    """Processor microseconds per frame, p50 and p99 in milliseconds."""
    answer: dict[str, Any] = pair.hub.ask(command)
    ordered = sorted(answer["milliseconds"])
    cost = answer["processor_s"] / answer["frames"] * 1e6
    return cost, percentile(ordered, 50), percentile(ordered, 99)
