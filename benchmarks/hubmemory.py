"""
What a connected idle node costs the hub in memory.

Resident memory of a hub with nodes less that of the same hub before they came, when it held all the objects already;
so what an object costs, which the hub keeps once whoever holds it, is a figure of its own. Idle: all is acknowledged,
and a second has passed.
"""

import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.fanout import with_tls
from benchmarks.figures import Curve, Figure, Measured, growth
from benchmarks.pair import Pair

HELD = 100
NODES = (100, 1000)
QUICK_NODES = (4, 8)
OWNING = 100  # nodes, with HELD objects each that no other node has
SETTLE_S = 1.0
TARGET_KB = {False: 20.0, True: 50.0}


def measure(runs: int, quick: bool, pki: Path) -> Iterator[list[Measured]]:
    """Once for each case whatever the runs: memory repeats within a percent, and each needs a fresh hub."""
    nodes = QUICK_NODES if quick else NODES
    for tls in (False, True):
        points: list[tuple[float, float]] = []
        each_kb = 0.0
        for count in nodes:
            with Pair(count, pki=pki if tls else None, everywhere=HELD) as pair:
                each_kb, resident = idle(pair)
            points.append((count, resident))
        yield [
            Figure(
                f"memory per idle node, {nodes[-1]:,} nodes hold the same {HELD} objects, {with_tls(tls)}",
                "KB",
                [each_kb],
                TARGET_KB[tls],
                is_promise=True,
            ),
            Curve("memory", f"{HELD} objects that all hold, {with_tls(tls)}", points),
            growth(f"memory of the hub over nodes, {with_tls(tls)}", points),
        ]
    owning = QUICK_NODES[-1] if quick else OWNING
    held = 2 if quick else HELD
    with Pair(owning, pods=owning * held) as pair:
        each_kb, _ = idle(pair)
        objects_kb = (pair.alone_mb - pair.empty_mb) * 1024 / (owning * held)
    yield [
        Figure(
            f"memory per idle node, {owning:,} nodes hold {held} pods each of their own, no TLS",
            "KB",
            [each_kb],
            note="besides the pods themselves",
        ),
        Figure("memory of the hub for a pod of 4 KB that it keeps", "KB", [objects_kb]),
    ]


def idle(pair: Pair) -> tuple[float, float]:
    """KB per node, and MB in all."""
    time.sleep(SETTLE_S)
    resident: float = pair.hub.ask("memory")["resident"]
    return (resident - pair.alone_mb) * 1024 / pair.nodes, resident
