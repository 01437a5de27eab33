"""
One hub process and two that share a port: what a push costs, and what each node costs the apiserver and every worker.

Real processes: the embedded apiserver, `cloudcore run --workers N`, and a swarm on mutual TLS. One object that all
nodes hold is edited again and again. On a machine with two cores the load takes as much as the hub, so that pushes per
second say little about workers there; the hub's processor per push says whether sharing the port costs anything, and
with it what more cores would give.

A node's Lease is renewed by one worker and told to all of them: measured apart, with the client and the watch that
cloudcore has, in this process.
"""

import asyncio
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from apimachinery.events import Change
from apimachinery.keys import ObjectKey
from apimachinery.resources import CONFIG_MAPS, LEASES, NODE_LEASE_NAMESPACE, PODS
from apimachinery.watchcache import WatchCache
from benchmarks import procfs
from benchmarks.figures import Figure
from cloudhub.apiclient import ApiClient
from cloudhub.fences import claim_of
from cloudhub.projection import Projection
from cloudhub.reading import Sent
from cloudhub.reflector import Reflector
from tests.harness.site import Process, Site

WORKERS = (1, 2)
NODES, QUICK_NODES = 100, 10
EDITS, QUICK_EDITS = 400, 20
EDIT_S = 0.01  # from one to the next: 10,000 pushes a second are wanted, more than one worker can
IDLE_S, QUICK_IDLE_S = 20.0, 3.0
LEASES_EACH, QUICK_LEASES = 400, 40
WATCHES = 4
WITHIN_S = 300.0  # each node joins, which asks the apiserver, and this machine may be busy
POLL_S = 0.02
LANES = 8  # as cloudhub.nodes has them
BODY_BYTES = 600
SHARED = ObjectKey(CONFIG_MAPS, "default", "shared")


def measure(runs: int, quick: bool) -> Iterator[list[Figure]]:
    """Fan-out and idle with one worker and with two; then Leases."""
    nodes = QUICK_NODES if quick else NODES
    found: dict[tuple[str, str], list[float]] = {}

    def add(name: str, unit: str, value: float) -> None:
        found.setdefault((name, unit), []).append(value)

    with tempfile.TemporaryDirectory(prefix="bench-workers-") as directory, Site(Path(directory)) as site:
        asyncio.run(_place(site, nodes))
        for run in range(runs):
            for workers in WORKERS:
                cloud = site.start_cloud(flags=("--workers", str(workers)))
                swarm = _swarm(site, nodes, is_first=run == 0 and workers == WORKERS[0])
                _until_in_sync(site, nodes)
                hubs = _pids(site, cloud)
                before = _cpu(hubs)
                time.sleep(QUICK_IDLE_S if quick else IDLE_S)
                idle = (_cpu(hubs) - before) / (QUICK_IDLE_S if quick else IDLE_S) / nodes * 1e6
                pushes, seconds, spent = _fan_out(site, hubs, swarm, nodes, QUICK_EDITS if quick else EDITS)
                about = f"{workers} worker" + "s" * (workers > 1)
                add(
                    f"{about}, {nodes} nodes: hub's processor per push and its ack",
                    "us",
                    spent[0] / pushes * 1e6,
                )
                add(f"{about}: the swarm's processor for it", "us", spent[1] / pushes * 1e6)
                add(f"{about}: pushes per second beside the load and the apiserver", "/s", pushes / seconds)
                add(f"{about}: memory of all hub processes", "MB", sum(procfs.memory(pid).resident for pid in hubs))
                add(f"{about}, idle: hub's processor per node and second", "us", idle)
                swarm.stop()
                cloud.stop()
        renewal, event = asyncio.run(_leases(site, QUICK_LEASES if quick else LEASES_EACH))
        add("a Lease renewed: processor of the worker that has the node", "us", renewal)
        add("a Lease renewed: processor of every worker, for the watch", "us", event)
    yield [Figure(name, unit, values) for (name, unit), values in found.items()]


async def _place(site: Site, nodes: int) -> None:
    """A pod for each node of the swarm, and the object that all of them name."""
    async with ApiClient.from_kubeconfig(site.kubeconfig) as client:
        await client.create(CONFIG_MAPS, "default", {"metadata": {"name": SHARED.name}, "data": _data(0)})
        for number in range(nodes):
            volume = {"name": "v", "configMap": {"name": SHARED.name}}
            container = {"name": "c", "image": "i"}
            spec = {"nodeName": f"hollow-{number}", "containers": [container], "volumes": [volume]}
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"pod-{number}"}, "spec": spec}
            await client.create(PODS, "default", pod)


def _data(number: int) -> dict[str, str]:
    return {"value": f"{number:08}", "rest": "x" * (BODY_BYTES - 200)}


def _swarm(site: Site, nodes: int, *, is_first: bool) -> Process:
    joining = ("--cloud", f"127.0.0.1:{site.ports['join']}", "--token", site.token()) if is_first else ()
    return site.start(
        *("swarm", "edgecore", "swarm", "--nodes", str(nodes), "--data-dir", str(site.directory / "swarm")), *joining
    )


def _until_in_sync(site: Site, nodes: int) -> None:
    by = time.monotonic() + WITHIN_S
    synced = -1
    while synced != nodes:
        assert time.monotonic() < by, f"{synced} of {nodes} nodes are in sync after {WITHIN_S:g} s"
        time.sleep(POLL_S)
        known = site.ask("cloudcore", "cloud").get("nodes", ())
        synced = sum(bool(each["connected"] and each["synced"]) for each in known)


def _pids(site: Site, cloud: Process) -> list[int]:
    workers = site.ask("cloudcore", "cloud").get("workers")
    return [cloud.pid] if workers is None else [each["pid"] for each in workers]


def _cpu(pids: list[int]) -> float:
    return sum(map(procfs.cpu_s, pids))


def _pushed(site: Site) -> float:
    figures = site.metrics("cloudcore", "cloud")
    return sum(value for name, value in figures.items() if name.startswith("hub_deltas_total"))


def _fan_out(
    site: Site, hubs: list[int], swarm: Process, nodes: int, edits: int
) -> tuple[float, float, tuple[float, float]]:
    """Pushes, the seconds they took, the processor seconds of the hub and of the swarm."""
    pushed, hub, load, began = _pushed(site), _cpu(hubs), procfs.cpu_s(swarm.pid), time.monotonic()
    asyncio.run(_edit(site, edits))
    _until_in_sync(site, nodes)
    seconds = time.monotonic() - began
    return _pushed(site) - pushed, seconds, (_cpu(hubs) - hub, procfs.cpu_s(swarm.pid) - load)


async def _edit(site: Site, edits: int) -> None:
    async with ApiClient.from_kubeconfig(site.kubeconfig) as client:
        for number in range(edits):
            due = time.monotonic() + EDIT_S
            await client.patch(SHARED, {"data": _data(time.time_ns() % 10**8)})
            await asyncio.sleep(max(0.0, due - time.monotonic()) if number + 1 < edits else 0.0)


# ---- Leases


class _Counting:
    """A consumer of reflectors that is told of every Lease that any of them sees."""

    def __init__(self) -> None:
        self.seen = 0

    def changed(self, changes: list[Change]) -> None: ...

    def observe(self, lease: Sent) -> None:
        claim_of(lease.parse(), time.time_ns() // 1_000_000)
        self.seen += 1


async def _leases(site: Site, count: int) -> tuple[float, float]:
    """Microseconds of this process for one renewal, and for one event of a watch."""
    async with ApiClient.from_kubeconfig(site.kubeconfig) as client:
        names = [f"lease-{number}" for number in range(count)]
        for name in names:
            body = {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": {"name": name}, "spec": _spec()}
            await client.create(LEASES, NODE_LEASE_NAMESPACE, body)
        await _renewed(client, names)  # from here on the connections are there
        alone = await _renewed(client, names)
        told = _Counting()
        async with asyncio.TaskGroup() as tasks:
            reflectors = [
                Reflector(client, LEASES, WatchCache(), told, projection=Projection(LEASES), observe=told.observe)
                for _ in range(WATCHES)
            ]
            running = [tasks.create_task(each.run(), name="watch") for each in reflectors]
            for each in reflectors:
                await each.wait_synced()
            listed = told.seen
            began = time.process_time()
            await _renewed(client, names)
            while told.seen < listed + WATCHES * count:  # noqa: ASYNC110 - what watches tell, nothing announces
                await asyncio.sleep(0.01)
            watched = time.process_time() - began
            for task in running:
                task.cancel()
    return alone / count * 1e6, (watched - alone) / count / WATCHES * 1e6


async def _renewed(client: ApiClient, names: list[str]) -> float:
    """Each renewed once; processor seconds."""
    rest = iter(names)

    async def lane() -> None:
        for name in rest:
            await client.patch(ObjectKey(LEASES, NODE_LEASE_NAMESPACE, name), {"spec": _spec()})

    began = time.process_time()
    async with asyncio.TaskGroup() as tasks:
        for number in range(LANES):
            tasks.create_task(lane(), name=f"lane[{number}]")
    return time.process_time() - began


def _spec() -> dict[str, object]:
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{time.time_ns() % 10**6:06}Z"
    return {"holderIdentity": "lease", "leaseDurationSeconds": 40, "renewTime": moment}
