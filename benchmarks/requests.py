"""
What syncing asks of the apiserver: nothing, whatever changes and whoever comes back.

The embedded apiserver, a real cloudcore and `edgecore swarm`, which joins its nodes as any node joins. Counted is what
the apiserver logs while pods change and while all nodes connect anew, without the benchmark's own edits and without
what says that a node is there (its Node and Lease), which is written whatever there is to sync.
"""

import time
from collections import Counter
from collections.abc import Iterator

from benchmarks.figures import Figure, Measured
from benchmarks.recovery import Ground, pod_name, wait

NODES, QUICK_NODES = 50, 3
EDITS = 5  # of pods of each node
QUIET_S = 1.0  # what follows an edit follows it within milliseconds


def measure(runs: int, quick: bool) -> Iterator[list[Measured]]:
    """Pods changed, then all nodes gone and back."""
    nodes = QUICK_NODES if quick else NODES
    edits = EDITS * nodes
    pushes: list[float] = []
    storms: list[Counter[str]] = []
    with Ground((), nodes, prefix="hollow-") as ground:
        swarm = ("edgecore", "swarm", "--nodes", str(nodes), "--data-dir", str(ground.site.directory / "swarm"))
        cloud = ("--cloud", f"127.0.0.1:{ground.site.ports['join']}", "--token", ground.site.token())
        process = ground.site.start("swarm", *swarm, *cloud)
        wait(lambda: _in_sync(ground) == nodes, "the swarm is in sync")
        for run in range(runs):
            time.sleep(QUIET_S)
            _, place = ground.requests_since(0)
            pushed = _pushed(ground) + edits
            ground.edit(
                (pod_name(f"hollow-{number % nodes}", number // nodes), {"metadata": {"labels": {"edit": f"r{run}"}}})
                for number in range(edits)
            )
            wait(lambda pushed=pushed: _pushed(ground) >= pushed, "the edits are pushed")  # type: ignore[misc]
            wait(lambda: _in_sync(ground) == nodes, "and acknowledged")
            time.sleep(QUIET_S)
            counted, place = ground.requests_since(place)
            pushes.append(float(counted["reads"] + counted["writes"] + counted["own"] - edits))
            process.kill()
            wait(lambda: not _connected(ground), "the hub has noticed")
            process = ground.site.start("swarm", *swarm)
            wait(lambda: _in_sync(ground) == nodes, "the swarm is back")
            time.sleep(QUIET_S)
            storms.append(ground.requests_since(place)[0])
    yield [
        Figure(f"apiserver requests for {edits} pushes to {nodes} nodes", "", pushes, 0.0, is_promise=True),
        Figure(
            f"apiserver requests for {nodes} nodes that start anew and hold nothing",
            "",
            [float(each["reads"] + each["writes"] + each["own"]) for each in storms],
            0.0,
            "lists among them would show here",
            is_promise=True,
        ),
        Figure("... that say that a node is there", "", [float(each["presence"]) for each in storms]),
    ]


def _in_sync(ground: Ground) -> int:
    return sum(bool(each["connected"] and each["synced"] and not each["dirty"]) for each in ground.hub_nodes())


def _pushed(ground: Ground) -> float:
    """Objects that the hub has pushed, to whichever node."""
    return ground.site.metrics("cloudcore", "cloud")["hub_deltas_total"]


def _connected(ground: Ground) -> int:
    return sum(bool(each["connected"]) for each in ground.hub_nodes())
