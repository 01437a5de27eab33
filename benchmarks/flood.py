"""
What pods feel of a flood: 10,000 reports and 1,000 changed wishes a second of one node, and large bodies besides.

tests/harness/flood.py says what runs and how it is timed. Idle and flooded are measured in one run, one after the
other, on the same cores as the load and its source: so the ratio says more than the milliseconds do. What is offered
is what is due; what is taken of it is told, for two cores take less: the rest is pushed back to who reports, and the
last values are told until they are heard. That is checked at the end, and fails the family.

The steps say at which part of that flood the machine has no time left: what every process takes of the two cores, and
what a change of a pod takes then.

Over a line of 1 Mbit/s the bound is the line's: a change waits for what is under way in its direction, of devices and
of bulk at most what docs/why/isolation.md computes, and for what the line itself queues, and then for its own round
trip.
"""

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import procfs
from benchmarks.figures import Curve, Figure, Measured, percentile
from link.frames import CHUNK_WINDOW_BYTES, DEVICE_WINDOW_BYTES, PROMPT_S
from tests.harness.badline import BadLine, why_not
from tests.harness.flood import FLOODED, HEARTBEAT_S, LEASE_S, OTHER, Change, Flood

RUNS = (("websocket", "mosquitto"), ("quic", "embedded"))  # each pairing is a minute; all four are the soak's
DEVICES = 50  # each of them has its last value told, written and looked at in the end
REPORTS, WISHES = 10_000, 1_000
IDLE_S, FLOOD_S, SETTLE_S = 10.0, 12.0, 1.0  # 200 samples and 240: of 60, a 99th percentile is the slowest
STEPS, STEP_S = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0), 6.0  # parts of the flood
P99_MS, TIMES_NODE, TIMES_OTHER = 50.0, 5.0, 2.0
LATE_S = 2 * LEASE_S  # between two renewals: with graceSeconds of 4 renewals, another replica would doubt the node then
GROWN_MB = 10.0  # of each process, from one half of the flood to the other
NARROW_S = 60.0  # a body of 3 MB takes 25 of them
NARROW_RATE, NARROW_DELAY_S, NARROW_QUEUE = 1_000_000, 0.02, 32 << 10
NARROW_AHEAD_S = sum(  # docs/why/isolation.md: what a window holds of the line, and what it may have grown
    max(window * 8 / NARROW_RATE + PROMPT_S, 2 * NARROW_DELAY_S + 2 * PROMPT_S)
    for window in (DEVICE_WINDOW_BYTES, CHUNK_WINDOW_BYTES)
)
NARROW_MS = (NARROW_AHEAD_S + NARROW_QUEUE * 8 / NARROW_RATE + 2 * NARROW_DELAY_S) * 1000


def measure(runs: int, quick: bool) -> Iterator[Sequence[Measured]]:
    """With mosquitto over websocket and the embedded broker over QUIC."""
    seconds = 4.0 if quick else FLOOD_S
    for transport, broker in RUNS:
        found = []
        for _ in range(runs):
            with (
                tempfile.TemporaryDirectory(prefix="bench-") as directory,
                Flood(Path(directory), broker, DEVICES, transport=transport) as flood,
            ):
                found.append(flooded(flood, f"{broker} broker, {transport}", seconds, P99_MS))
        yield [_of_runs(figures) for figures in zip(*found, strict=True)]


def narrow(runs: int, quick: bool) -> Iterator[Sequence[Measured]]:
    """Over a line of 1 Mbit/s. Raises AssertionError where none can be made."""
    if why := why_not():
        raise AssertionError(f"no bad line can be made here: {why}")
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as directory,
        BadLine() as line,
        line.cloud,
        Flood(Path(directory), line=line) as flood,
    ):
        line.set(rate=NARROW_RATE, delay_s=NARROW_DELAY_S, queue_bytes=NARROW_QUEUE)
        yield flooded(flood, "1 Mbit/s, RTT 40 ms", 10.0 if quick else NARROW_S, NARROW_MS, None)


def steps(runs: int, quick: bool) -> Iterator[Sequence[Measured]]:
    """More and more of the flood, without large bodies; once each, whatever the runs."""
    tails: dict[str, list[tuple[float, float]]] = {FLOODED: [], OTHER: []}
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as directory,
        Flood(Path(directory), RUNS[0][1], DEVICES, transport=RUNS[0][0]) as flood,
    ):
        for part in STEPS[:2] if quick else STEPS:
            flood.flow(REPORTS * part, WISHES * part)
            flood.changes(SETTLE_S)
            watched = {name: process.pid for name, process in flood.processes.items()}
            began, used, busy = time.perf_counter(), {n: procfs.cpu_s(p) for n, p in watched.items()}, procfs.busy_s()
            changes = flood.changes(2.0 if quick else STEP_S)
            took = time.perf_counter() - began
            row = f"{REPORTS * part:,.0f} reports/s, {WISHES * part:,.0f} wishes/s"
            yield [
                *(
                    Figure(f"{row} | {about}, p{percent}", "ms", [percentile(_held(changes, node), percent)])
                    for node, about in ((FLOODED, "its pods"), (OTHER, "another node's"))
                    for percent in (50, 99)
                ),
                *(
                    Figure(f"{row} | {about}", "cores", [(procfs.cpu_s(watched[name]) - used[name]) / took])
                    for name, about in (("cloud", "hub"), (FLOODED, "edge"), ("api", "apiserver"))
                ),
                Figure(f"{row} | in all", "cores", [(procfs.busy_s() - busy) / took]),
            ]
            if part:
                for node, points in tails.items():
                    points.append((REPORTS * part, percentile(_held(changes, node), 99)))
        flood.end()
    yield [
        Curve("flood", f"pods of {about}", tails[node]) for node, about in ((FLOODED, "the node"), (OTHER, "another"))
    ]


def flooded(flood: Flood, where: str, seconds: float, most_ms: float, times: float | None = TIMES_NODE) -> list[Figure]:
    """
    Idle, then flooded for so long. Raises AssertionError where a last value is missing at the end.

    most_ms, times: what a change of the node's pods may take, and how much more than idle; None where a line decides.
    """
    idle = flood.changes(min(IDLE_S, seconds))
    flood.begin(REPORTS, WISHES, bulk=True)
    flood.changes(SETTLE_S if seconds > SETTLE_S else 1.0)
    before, began = flood.flooder.ask("stats"), time.perf_counter()
    wished, sessions = flood.wishes.ask("stats")["wished"], flood.sessions
    busy = flood.changes(seconds / 2)
    half = flood.resident_mb()
    busy += flood.changes(seconds / 2)
    took, now = time.perf_counter() - began, flood.flooder.ask("stats")
    grown = {name: size - half[name] for name, size in flood.resident_mb().items()}
    renewals = flood.longest_renewals_s(began)
    wished, sessions = flood.wishes.ask("stats")["wished"] - wished, flood.sessions - sessions
    settling = time.perf_counter()
    flood.end()
    settled_s = time.perf_counter() - settling
    node_idle, node_busy = _p99(idle, FLOODED), _p99(busy, FLOODED)
    other_idle, other_busy = _p99(idle, OTHER), _p99(busy, OTHER)
    samples = f"{sum(each.node == FLOODED for each in busy)} samples"
    return [
        *_figures(f"pod of the flooded node, {where}: idle", idle, FLOODED),
        *_figures(f"pod of the flooded node, {where}: flooded", busy, FLOODED, most_ms, samples),
        Figure(f"pod of the flooded node, {where}: p99 over idle", "x", [node_busy / node_idle], times),
        *_figures(f"pod of another node, {where}: idle", idle, OTHER),
        *_figures(f"pod of another node, {where}: flooded", busy, OTHER),
        Figure(f"pod of another node, {where}: p99 over idle", "x", [other_busy / other_idle], TIMES_OTHER),
        Figure(f"reports offered, {where}", "1/s", [(now["offered"] - before["offered"]) / took]),
        Figure(f"reports taken by the broker, {where}", "1/s", [(now["acked"] - before["acked"]) / took]),
        Figure(f"wishes changed, {where}", "1/s", [wished / took], note="in the watch that cloudcore reads"),
        Figure(f"wishes told to the mapper, {where}", "1/s", [(now["wishes"] - before["wishes"]) / took]),
        Figure(f"ConfigMaps of 3 MB held, one after the other, {where}", "", [flood.bulks]),
        Figure(
            f"longest time between two renewals of a Lease, {where}",
            "s",
            [max(renewals.values())],
            LATE_S,
            note=f"one is due every {LEASE_S:g} s",
            is_worst=True,
        ),
        Figure(
            f"links that were given up, {where}",
            "",
            [sessions],
            0.0,
            note=f"for silence of {2.5 * HEARTBEAT_S:g} s",
            is_worst=True,
        ),
        Figure(f"times that a node was not Ready, {where}", "", [len(flood.unready)], 0.0, is_worst=True),
        Figure(
            f"memory that a process gained meanwhile, {where}",
            "MB",
            [max(grown.values())],
            GROWN_MB,
            note=max(grown, key=lambda name: grown[name]),
        ),
        Figure(f"until every last value was in its place, {where}", "s", [settled_s], note="mapper and Device.status"),
    ]


def _of_runs(figures: Sequence[Figure]) -> Figure:
    """One figure of each run."""
    return replace(figures[0], values=[each.value for each in figures])


def _held(changes: Sequence[Change], node: str) -> list[float]:
    """In order."""
    return sorted(each.held for each in changes if each.node == node)


def _p99(changes: Sequence[Change], node: str) -> float:
    return percentile(_held(changes, node), 99)


def _figures(
    name: str, changes: Sequence[Change], node: str, most_ms: float | None = None, note: str = ""
) -> list[Figure]:
    """From the PATCH to the node's own watch; and the part of it that is not the apiserver's."""
    held = _held(changes, node)
    pushed = sorted(each.pushed for each in changes if each.node == node)
    return [
        Figure(f"{name}, PATCH -> held, p50", "ms", [percentile(held, 50)]),
        Figure(f"{name}, PATCH -> held, p99", "ms", [percentile(held, 99)], most_ms, note=note),
        Figure(f"{name}, told by the apiserver -> held, p99", "ms", [percentile(pushed, 99)]),
    ]
