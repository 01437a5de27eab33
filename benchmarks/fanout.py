"""
One change for all nodes, and one change for each: what a core of the hub carries.

Hub and swarm have a core each, and the loop in C (benchmarks/climit.py) runs on the same two in turn with every round
of the hub's, for the machine is shared and drifts. Rates are per second of the hub's own processor time: with a swarm
in Python the swarm is the slower end.
"""

from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import climit
from benchmarks.climit import Limit
from benchmarks.figures import Curve, Figure, Measured, Times, growth
from benchmarks.pair import Pair

NODES = (10, 100, 1000)
QUICK_NODES = (4, 8)
FRAMES = 5000  # of the hub's, per run, or twenty rounds
PUSHES = 60_000  # of the C loop's, per run: a second
MOST_ROUNDS = 300  # of both: a round to few nodes is all waiting for each other
TARGETS = {False: 30_000.0, True: 18_000.0}
RATIO = 0.33
LAST_ACK_MS = 60.0


def measure(runs: int, quick: bool, pki: Path) -> Iterator[list[Measured]]:
    """Without TLS and with it, over nodes; then the distinct objects."""
    nodes = QUICK_NODES if quick else NODES
    try:
        programs: Path | None = climit.build()
        missing = ""
    except climit.Missing as exc:
        programs, missing = None, f"no loop in C to compare with: {exc}"
    for tls in (False, True):
        rates: list[tuple[float, float]] = []
        limits: list[tuple[float, float]] = []
        lasts: list[tuple[float, float]] = []
        limit_lasts: list[tuple[float, float]] = []
        for count in nodes:
            hub, limit, times = _alternating(runs, quick, count, pki if tls else None, programs)
            rates.append((count, median(hub)))
            lasts.append((count, times.figures()[0].value))
            if limit:
                limits.append((count, median(each.per_core for each in limit)))
                limit_lasts.append((count, median(each.round_p50_ms for each in limit)))
            yield _table(count, tls, hub, limit, times, missing, count == nodes[-1])
            if count == nodes[-1]:
                yield [times.distribution("lastack", f"{count:,} nodes, {with_tls(tls)}")]
        yield [
            Curve("throughput", f"hub, {with_tls(tls)}", rates),
            Curve("lastacks", f"hub, {with_tls(tls)}", lasts),
            *([Curve("throughput", f"loop in C, {with_tls(tls)}", limits)] if limits else []),
            *([Curve("lastacks", f"loop in C, {with_tls(tls)}", limit_lasts)] if limits else []),
            growth(f"processor time of one change over nodes, {with_tls(tls)}", [(x, x / y) for x, y in rates]),
        ]


def distinct(runs: int, quick: bool, pki: Path) -> Iterator[list[Measured]]:
    """Watch events of 4 KB pods, each for its own node."""
    nodes = QUICK_NODES[-1] if quick else NODES[-1]
    rounds = 2 if quick else 3
    for tls in (False, True):
        rates = []
        with Pair(nodes, pki=pki if tls else None, pods=nodes) as pair:
            pair.hub.ask("distinct 1")
            for _ in range(runs):
                rates.append(per_core(pair.hub.ask(f"distinct {rounds}")))
        yield [
            Figure(
                f"distinct pods of 4 KB, one for each of {nodes:,} nodes, {with_tls(tls)}: per hub core",
                "1/s",
                rates,
                None if tls else 12_000.0,
                at_least=True,
                is_promise=True,
                note="watch event to acknowledgement, the event's parsing included",
            )
        ]


def _alternating(
    runs: int, quick: bool, count: int, pki: Path | None, programs: Path | None
) -> tuple[list[float], list[Limit], Times]:
    """Rates of the hub, what the loop in C did, and the hub's times until the last acknowledgement."""
    hub: list[float] = []
    limit: list[Limit] = []
    times = Times("")
    rounds = 2 if quick else max(20, min(MOST_ROUNDS, FRAMES // count))
    pushes = min(PUSHES, MOST_ROUNDS * count) // (100 if quick else 1)
    with Pair(count, pki=pki, everywhere=1) as pair:
        pair.hub.ask("fanout 5")  # caches, and what Python specialises on its way
        for _ in range(runs):
            if programs is not None:
                limit.append(climit.run(programs, count, pushes, tls=pki is not None))
            answer = pair.hub.ask(f"fanout {rounds}")
            hub.append(per_core(answer))
            times.begin_run()
            for milliseconds in answer["milliseconds"]:
                times.add(milliseconds)
    return hub, limit, times


def _table(
    count: int, tls: bool, hub: list[float], limit: list[Limit], times: Times, missing: str, is_promise: bool
) -> list[Measured]:
    about = f"fan-out of 600 B to {count:,} nodes, {with_tls(tls)}"
    target = TARGETS[tls] if is_promise else None
    times.name = f"watch event -> the last of {count:,} nodes has acknowledged, {with_tls(tls)}"
    last = times.figures()
    last[0].target = LAST_ACK_MS if is_promise and not tls else None
    for each in last:
        each.is_promise = is_promise
    found = [
        Figure(f"{about}: frames per hub core", "1/s", hub, target, missing, at_least=True, is_promise=is_promise),
        *last,
    ]
    if limit:
        ratios = [ours / theirs.per_core for ours, theirs in zip(hub, limit, strict=True)]
        ratio = RATIO if is_promise else None
        found.insert(
            1, Figure(f"{about}: of the loop in C", "", ratios, ratio, "", at_least=True, is_promise=is_promise)
        )
        found.insert(
            2, Figure(f"the loop in C, {count:,} clients, {with_tls(tls)}", "1/s", [each.per_core for each in limit])
        )
    return list(found)


def per_core(answer: dict[str, Any]) -> float:
    rate: float = answer["frames"] / answer["processor_s"]
    return rate


def with_tls(tls: bool) -> str:
    return "mutual TLS" if tls else "no TLS"
