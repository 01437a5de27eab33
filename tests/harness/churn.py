"""
A line at work: objects made, changed and deleted, links cut, nodes that come and go for good, devices that report.

Each of these is a loop of its own at a moderate rate, until the time is up; meanwhile what every process takes is
written down. The number of objects does not grow, and whatever is made is new: a name is never given twice, so that
what is kept of a name, a node or a client after it is gone adds up.
"""

import asyncio
import contextlib
import itertools
import json
import os
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from apimachinery.errors import NotFound
from apimachinery.keys import ObjectKey
from apimachinery.resources import CONFIG_MAPS, DEVICES, LEASES, NODES, PODS, SECRETS
from benchmarks.procfs import cpu_s
from cloudhub.apiclient import ApiClient
from cloudhub.placement import STANDARD_RULES, Placement, with_definitions
from cloudhub.roster import NAME_PREFIX
from cloudhub.vault import NAMESPACE
from edgehub.swarmcommand import LINK_FILE
from tests.harness.proxy import Proxy
from tests.test_faults import PROPERTIES, Line, device_body, knows, noise, publisher

EDGE = "edge"
SWARM = "swarm"
GUESTS = 2
"""Nodes that come together, and go for good."""
WITHIN_S = 120.0
POD_BYTES = 1500
PERIODIC = ("api", "cloud", EDGE, SWARM)
"""The processes that are looked at."""


_PLACEMENT = Placement(with_definitions(STANDARD_RULES))
KEEPING = ("api descriptors", "cloud descriptors", "hub_tasks")
KEPT = 5
"""Connections of the hub to the apiserver that are kept for the next request, at either end, each with its task."""


class Pace(NamedTuple):
    """How much there is, and how fast it changes."""

    seconds: float
    nodes: int
    pods_each: int
    devices: int
    edits_per_s: float
    reports_per_s: float
    cut_s: float
    """Between two cuts of all links."""
    guests_s: float
    """Between two visits of nodes that leave for good."""
    mappers_s: float
    """How long a client of the broker stays."""
    sample_s: float


class Sample(NamedTuple):
    """What was there at a moment."""

    at_s: float
    figures: dict[str, float]
    """`PROCESS KIND`: kB of memory, numbers of descriptors and threads, seconds of processor. Counts; kB of files."""


class Churn:
    """One line with all that happens to it; `done` counts what did. Its links are there while its block lasts."""

    def __init__(self, line: Line, pace: Pace, seed: int, log: Path) -> None:
        """line: with its hub up and the definitions of devices and their model applied. log: a JSON line per sample."""
        self.done: Counter[str] = Counter()
        self.samples: list[Sample] = []
        self.before: dict[str, float] = {}
        """As a sample's figures, at rest before the first of them."""
        self._line = line
        self._pace = pace
        self._log = log
        self._rng = random.Random(seed)
        self._numbers = itertools.count()
        self._nodes = [EDGE, *(f"{SWARM}-{number}" for number in range(pace.nodes))]
        self._pods: list[str] = []
        self._devices: list[str] = []
        self._proxy = Proxy(line.ports["cloud-link"])

    def __enter__(self) -> Self:
        self._proxy.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._proxy.__exit__(kind, error, trace)

    async def run(self, client: ApiClient) -> None:
        """Bring everything up, have it happen, and leave it running. Raises AssertionError where something is left."""
        line = self._line
        await self._begin(client)
        loops: dict[str, tuple[float, Callable[[ApiClient], Awaitable[None]]]] = {
            "edit": (1 / self._pace.edits_per_s, self._edit),
            "cut": (self._pace.cut_s, self._cut),
            "guests": (self._pace.guests_s, self._receive_guests),
            "mapper": (0.0, self._map),
            "reader": (self._pace.cut_s, self._read_locally),
            "sample": (self._pace.sample_s, self._sample),
        }
        until = time.monotonic() + self._pace.seconds
        async with asyncio.TaskGroup() as tasks:
            for name, (pause_s, step) in loops.items():
                tasks.create_task(self._repeat(client, name, pause_s, step, until), name=name)
        await asyncio.to_thread(self._settle)
        await asyncio.to_thread(line.soon, lambda: not self.left_over(), "nothing is left over", WITHIN_S)
        assert await self._is_hub_even(client)

    def left_over(self) -> dict[str, float]:
        """What is counted that there is more of than before it all began, by how much."""
        now = self._look()
        more = {name: now[name] - count for name, count in self.before.items() if is_count(name)}
        return {name: by for name, by in more.items() if by > (KEPT if name in KEEPING else 0)}

    async def _repeat(
        self,
        client: ApiClient,
        name: str,
        pause_s: float,
        step: Callable[[ApiClient], Awaitable[None]],
        until: float,
    ) -> None:
        """Steps at a rate until the time is up; one that takes long is followed by the next at once."""
        began = time.monotonic()
        for number in itertools.count(1):
            now, due = time.monotonic(), began + number * pause_s
            if max(now, due) >= until:
                return
            await asyncio.sleep(max(0.0, due - now))
            await step(client)
            self.done[name] += 1

    async def _begin(self, client: ApiClient) -> None:
        line, pace = self._line, self._pace
        for number in range(len(self._nodes) * pace.pods_each):
            self._pods.append(await self._make_pod(client, self._nodes[number % len(self._nodes)]))
        for _ in range(pace.devices):
            await self._make_device(client)
        await asyncio.to_thread(line.enrol, EDGE, self._proxy.port)
        await asyncio.to_thread(line.start_edge, EDGE, wait=False)
        home = line.directory / SWARM
        arguments = ("swarm", "--nodes", str(pace.nodes), "--prefix", SWARM, "--data-dir", str(home))
        self._joining = ("--cloud", f"127.0.0.1:{line.ports['join']}", "--token", line.token())
        await asyncio.to_thread(line.run, "edgecore", *arguments, *self._joining, "--seconds", "0")
        (home / f"{SWARM}-0" / LINK_FILE).write_text(f"127.0.0.1:{self._proxy.port}\n")
        line.start(SWARM, "edgecore", *arguments)
        await self._make_map(client)
        await asyncio.to_thread(self._settle)
        while not await self._is_hub_even(client):
            await asyncio.sleep(0.05)
        self.before = await asyncio.to_thread(self._look)

    def _settle(self) -> None:
        """Everybody holds all there is."""
        line, wanted = self._line, set(self._nodes)

        def in_sync() -> set[str]:
            nodes = line.hub().get("nodes", ())
            return {each["node"] for each in nodes if each["connected"] and each["synced"] and not each["dirty"]}

        line.soon(lambda: wanted <= in_sync(), "all nodes are in sync", WITHIN_S)
        line.soon(lambda: knows(line, EDGE, len(self._devices)), "the edge knows its devices")

    async def _is_hub_even(self, client: ApiClient) -> bool:
        """All nodes have their Lease, and the hub's cache as many objects as the apiserver."""
        counts = {each: len((await client.list(each))[0]) for each in _PLACEMENT.resources()}
        objects = self._line.hub().get("objects")
        return counts[LEASES] == counts[NODES] == len(self._nodes) and objects == sum(counts.values())

    # What happens

    async def _edit(self, client: ApiClient) -> None:
        draw = self._rng.random()
        if draw < 0.05:
            await self._replace_device(client)
        elif draw < 0.1:
            name, value = self._rng.choice(self._devices), str(self._rng.randrange(100))
            desired = [{"name": each, "desired": {"value": value}} for each in PROPERTIES]
            await client.patch(ObjectKey(DEVICES, "default", name), {"spec": {"properties": desired}})
        elif draw < 0.15:
            await self._make_map(client)
        elif draw < 0.4:
            name = self._pods.pop(self._rng.randrange(len(self._pods)))
            body = await client.get(ObjectKey(PODS, "default", name))
            await client.delete(ObjectKey(PODS, "default", name))
            self._pods.append(await self._make_pod(client, body["spec"]["nodeName"]))
        else:
            note = {"metadata": {"annotations": {"text": noise(self._rng, 20)}}}
            await client.patch(ObjectKey(PODS, "default", self._rng.choice(self._pods)), note)

    async def _make_pod(self, client: ApiClient, node: str) -> str:
        name = f"pod-{next(self._numbers)}"
        body = {
            "metadata": {"name": name, "annotations": {"text": noise(self._rng, POD_BYTES // 2)}},
            "spec": {
                "nodeName": node,
                "containers": [{"name": "c", "image": "i"}],
                "volumes": [{"name": "v", "configMap": {"name": "shared"}}],
            },
        }
        await client.create(PODS, "default", {"apiVersion": "v1", "kind": "Pod", **body})
        return name

    async def _make_map(self, client: ApiClient) -> None:
        """What all nodes refer to, made anew now and then."""
        data = {"text": noise(self._rng, POD_BYTES // 2)}
        if self._rng.random() < 0.9:
            try:
                await client.patch(ObjectKey(CONFIG_MAPS, "default", "shared"), {"data": data})
            except NotFound:
                pass
            else:
                return
        with contextlib.suppress(NotFound):
            await client.delete(ObjectKey(CONFIG_MAPS, "default", "shared"))
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shared"}, "data": data}
        await client.create(CONFIG_MAPS, "default", body)

    async def _make_device(self, client: ApiClient) -> None:
        name = f"device-{next(self._numbers)}"
        await client.create(DEVICES, "default", device_body(name, EDGE))
        self._devices.append(name)

    async def _replace_device(self, client: ApiClient) -> None:
        name = self._devices.pop(self._rng.randrange(len(self._devices)))
        await client.delete(ObjectKey(DEVICES, "default", name))
        await self._make_device(client)

    async def _cut(self, _: ApiClient) -> None:
        """All links at once, the edge's among them."""
        self._proxy.cut()
        self._proxy.connections.clear()

    async def _receive_guests(self, client: ApiClient) -> None:
        """Nodes that join, hold something, leave, and are deleted with all that was theirs."""
        line, prefix = self._line, f"guest-{next(self._numbers)}"
        names = [f"{prefix}-{number}" for number in range(GUESTS)]
        pods = [await self._make_pod(client, name) for name in names]
        arguments = ("swarm", "--nodes", str(GUESTS), "--prefix", prefix, "--data-dir", str(line.directory / "guests"))
        swarm = line.start("guests", "edgecore", *arguments, *self._joining)
        for name in names:
            await self._appeared(client, name)
        swarm.kill()
        for name, pod in zip(names, pods, strict=True):
            await client.delete(ObjectKey(PODS, "default", pod))
            await client.delete(ObjectKey(NODES, "", name))
            await client.delete(ObjectKey(SECRETS, NAMESPACE, f"{NAME_PREFIX}{name}"))

    async def _appeared(self, client: ApiClient, node: str) -> None:
        """The hub has let it in, made its Node, and pushed all that it should hold."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                with contextlib.suppress(NotFound):
                    await client.get(ObjectKey(NODES, "", node))
                    if (await asyncio.to_thread(self._line.session, node)).get("synced"):
                        return
                await asyncio.sleep(0.05)

    async def _map(self, _: ApiClient) -> None:
        """A new client of the broker that reports for one of the devices, and goes."""
        until = time.monotonic() + self._pace.mappers_s
        device, name = self._rng.choice(self._devices), f"mapper-{next(self._numbers)}"
        with publisher(self._line.ports[f"{EDGE}-mqtt"], device, name) as mapper:
            while time.monotonic() < until:
                mapper.report({self._rng.choice(PROPERTIES): self._rng.randrange(1000)})
                self.done["report"] += 1
                await asyncio.sleep(1 / self._pace.reports_per_s)
            self.done["report acknowledged"] += len(mapper.acked)

    async def _read_locally(self, _: ApiClient) -> None:
        """A list and the beginning of a watch at the node's API."""
        for query in ("", "?watch=true"):
            reader, writer = await asyncio.open_connection("127.0.0.1", self._line.ports[f"{EDGE}-api"])
            writer.write(f"GET /api/v1/pods{query} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            assert (await reader.readline()).startswith(b"HTTP/1.1 200"), query
            await reader.readuntil(b"\r\n\r\n")
            writer.close()
            await writer.wait_closed()

    # What is looked at

    async def _sample(self, _: ApiClient) -> None:
        figures = await asyncio.to_thread(self._look)
        self.samples.append(Sample(time.monotonic(), figures))
        at_s = self.samples[-1].at_s - self.samples[0].at_s
        with self._log.open("a") as log:
            print(json.dumps({"at_s": round(at_s, 1), **figures, "done": self.done}), file=log)

    def _look(self) -> dict[str, float]:
        line = self._line
        figures: dict[str, float] = {}
        for name in PERIODIC:
            process = line.processes[name]
            figures[f"{name} resident"], figures[f"{name} anonymous"] = process.rss_kb()
            figures[f"{name} descriptors"] = len(os.listdir(f"/proc/{process.pid}/fd"))
            figures[f"{name} threads"] = len(os.listdir(f"/proc/{process.pid}/task"))
            figures[f"{name} processor"] = cpu_s(process.pid)
        hub, edge = line.metrics("cloudcore", "cloud"), line.metrics("edgecore", EDGE)
        figures |= {name: hub[name] for name in ("hub_objects", "hub_tasks", "hub_nodes_connected")}
        figures |= {name: edge[name] for name in ("edge_objects", "edge_tasks", "edge_devices")}
        figures["hub nodes known"] = len(line.hub()["nodes"])
        for name, path in (
            ("edge file", line.directory / EDGE / "edge.db"),
            ("api file", line.directory / "api" / "apiserver.db"),
        ):
            figures[name] = sum(each.stat().st_size for each in path.parent.glob(f"{path.name}*")) / 1024
        return figures


def is_count(name: str) -> bool:
    """Of a sample's figures those that count something of which there is no more at rest for all that has been."""
    return name.rpartition(" ")[2] in ("descriptors", "threads") or name.startswith(("hub_", "edge_"))
