"""
Ten thousand nodes on one hub process, and how long they take to come back; a thousand that are all cut off at once.

A restart is kill -9 and another process on the same port, from the kill on: it has its objects to load, and the nodes'
redials are as they ship. Each node holds 100 objects of 600 B. A storm is the hub alive and all of its connections cut;
its bytes are the kernel's count of each connection's stream, so those without TLS are what the link itself costs.
"""

import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import certificates
from benchmarks.fanout import per_core, with_tls
from benchmarks.figures import Curve, Figure, Measured, percentile
from benchmarks.hubmemory import HELD, idle
from benchmarks.pair import Pair

NODES, QUICK_NODES = 10_000, 8
RESTARTED_S = {False: 30.0, True: 60.0}
STORM_NODES = 1000
STORM_S, STORM_BYTES = 3.0, 1024.0
WITHIN_S = 600.0


def measure(runs: int, quick: bool, pki: Path) -> Iterator[list[Measured]]:
    """One restart each, whatever the runs: it is the longest of all that is measured."""
    nodes = QUICK_NODES if quick else NODES
    for tls in (False, True):
        if tls:
            certificates.make(pki, nodes)
        began = time.monotonic()
        with Pair(nodes, pki=pki if tls else None, everywhere=HELD) as pair:
            connected = time.monotonic() - began
            each_kb, resident = idle(pair)
            pair.hub.kill()
            began = time.monotonic()
            pair.start_hub()
            serving = time.monotonic() - began
            pair.hub.ask(f"wait {nodes}", WITHIN_S)
            restarted = time.monotonic() - began
            facts = pair.swarm.ask("")
            assert facts["synced"] == nodes, facts
            about = f"{nodes:,} nodes, {with_tls(tls)}"
            figures: list[Measured] = [
                Figure(f"{about}: from nothing to all in sync", "s", [connected], note="processes' start included"),
                Figure(f"{about}: memory per node", "KB", [each_kb]),
                Figure(f"{about}: the hub serves again after kill -9", "s", [serving]),
                Figure(
                    f"{about}: hub killed and started again: all in sync",
                    "s",
                    [restarted],
                    RESTARTED_S[tls],
                    is_promise=True,
                ),
                Curve("memory", f"{HELD} objects that all hold, {with_tls(tls)}", [(nodes, resident)]),
            ]
            yield figures
            answer = pair.hub.ask("fanout 3", WITHIN_S)
            last = percentile(sorted(answer["milliseconds"]), 50)
            figures = [
                Figure(f"fan-out of 600 B to {about}: frames per hub core", "1/s", [per_core(answer)]),
                Figure(f"watch event -> the last of {about}, has acknowledged", "ms", [last]),
                Curve("throughput", f"hub, {with_tls(tls)}", [(nodes, per_core(answer))]),
                Curve("lastacks", f"hub, {with_tls(tls)}", [(nodes, last)]),
            ]
            if not tls:
                few = min(nodes, 100)
                pair.hub.ask(f"pods {few} {nodes}", WITHIN_S)
                answer = pair.hub.ask(f"own 100 {few}")
                cost = answer["processor_s"] / answer["frames"] * 1e6
                figures.append(Curve("changenodes", "a pod of one node", [(nodes, cost)]))
            yield figures


def storm(runs: int, quick: bool, pki: Path) -> Iterator[list[Measured]]:
    """All connections of 1,000 nodes with 100 objects cut at once."""
    nodes = QUICK_NODES if quick else STORM_NODES
    for tls in (False, True):
        with Pair(nodes, pki=pki if tls else None, everywhere=HELD) as pair:
            storms = [pair.hub.ask("drop") for _ in range(runs)]
        about = f"storm of {nodes:,} nodes with {HELD} objects each, nothing changed, {with_tls(tls)}"
        per_node = [each["up"] + each["down"] for each in storms]
        yield [
            Figure(f"{about}: all in sync", "s", [each["seconds"] for each in storms], STORM_S, is_promise=True),
            Figure(
                f"{about}: bytes per node, both ways",
                "B",
                per_node,
                None if tls else STORM_BYTES,
                "with the handshake" if tls else "the upgrade to websocket included",
                is_promise=not tls,
            ),
            Figure(f"{about}: bytes of objects sent", "B", [float(each["push_bytes"]) for each in storms], 0.0),
        ]
