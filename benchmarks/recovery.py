"""
What it costs to come back: bytes on the link, requests to the apiserver, seconds.

Apiserver, cloudcore and edgecore are processes of their own; the link goes through tests/harness/proxy.py, which
counts what it forwards and delays it where a round trip is to take 200 ms. Bytes are those of the TCP stream both ways,
TLS and websocket included. Requests are those that the apiserver logged while something was measured, without those
that this benchmark made. What a hub writes to say that a node is there (Nodes and Leases) is counted apart.

The pods are those of tests/harness/pods.py, 4.2 KB each on average; they are written into the apiserver's database
before it starts, because 12,000 requests would take longer than all that is measured.
"""

import asyncio
import contextlib
import random
import re
import shutil
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import yaml

from apimachinery.keys import ObjectKey
from apimachinery.resources import PODS
from apiserver import plans
from apiserver.admission import Admission
from apiserver.database import Durability
from apiserver.requests import ApiRequest, Verb
from apiserver.storage import Storage
from apiserver.writes import facts
from benchmarks.figures import Figure
from benchmarks.fleet import Fleet
from cloudhub.apiclient import ApiClient
from componentbase.endpoints import Endpoint
from tests.harness.devapi import apply_device_definitions
from tests.harness.pods import deployed_pod
from tests.harness.proxy import Proxy
from tests.harness.site import Site

HELD = (10, 1_000, 10_000)
KILLED_HELD = 1_000
FLEET, FLEET_PODS = 200, 10
UPDATES = 1000
ROUND_TRIP_S = 0.2
WITHIN_S = 60.0
SETTLED_S = 0.5  # as long as nothing moves on the link; what follows an edit follows it within milliseconds
LANES = 8
PUT_AT_ONCE = 500  # in one transaction


def measure(runs: int, quick: bool) -> Iterator[list[Figure]]:
    """All of it, on three sites: how long a hub takes to start depends on all that its cluster holds."""
    held = HELD[:2] if quick else HELD
    with Ground(held) as ground:
        for count in held:
            yield ground.node(count).first_sync()
            yield ground.node(count).nothing_changed(runs)
        for count in held[1:]:
            for delay_s in (0.0, ROUND_TRIP_S / 2):
                yield ground.node(count).one_percent_changed(runs, delay_s)
        yield ground.node(held[1]).one_field_changed(5 * runs)
    with Ground((KILLED_HELD,)) as ground:
        node = ground.node(KILLED_HELD)
        node.first_sync()
        yield from node.killed(runs, UPDATES // 10 if quick else UPDATES)
    with Ground((), 20 if quick else FLEET) as ground:
        yield ground.hub_restarted(runs)


class Spent(NamedTuple):
    """What something cost."""

    up: int
    down: int
    requests: Mapping[str, int]
    seconds: float


class Ground:
    """One cloud, a few nodes that hold much, and a fleet of nodes that hold little."""

    def __init__(self, held: Iterable[int], fleet: int = 0, prefix: str = "fleet-") -> None:
        """held: how many pods each of the first has; fleet: how many nodes hold FLEET_PODS each."""
        self._directory = Path(tempfile.mkdtemp(prefix="bench-"))
        self._stack = contextlib.ExitStack()
        self._held = {f"held-{count}": count for count in held}
        self._fleet = [f"{prefix}{number}" for number in range(fleet)]
        self._nodes: dict[int, Held] = {}
        self._runner = asyncio.Runner()
        self._client: ApiClient

    def __enter__(self) -> Self:
        self._stack.callback(shutil.rmtree, self._directory, ignore_errors=True)
        self.site = self._stack.enter_context(Site(self._directory))
        self.site.processes["api"].stop()
        self._runner.run(self._fill())
        api = ("apiserver.dev", "run", "--data-dir", str(self._directory / "api"), "--log-level", "debug")
        process = self.site.start("api", *api, "--listen", f"127.0.0.1:{self.site.ports['api']}")
        self.site.until(self.site._api_answers, "the apiserver answers", process)
        self._client = self._runner.run(self._connect())
        # A hub asks again and again for kinds that are not defined, and that would be counted.
        self._runner.run(apply_device_definitions(self._client))
        self._stack.callback(lambda: self._runner.run(self._client.close()))
        self.start_hub()
        for name, count in self._held.items():
            self.site.join(name)
            self._nodes[count] = Held(self, name, count, self._stack.enter_context(Proxy(self.site.ports["link"])))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
        self._runner.close()

    async def _fill(self) -> None:
        """Every node's pods, straight into the database; their namespace is there from the apiserver's first start."""
        rng, admission = random.Random(1), Admission()
        wanted = self._held | dict.fromkeys(self._fleet, FLEET_PODS)
        asked = ApiRequest(verb=Verb.CREATE, resource=PODS, namespace="default")
        url = f"sqlite:///{self._directory / 'api' / 'apiserver.db'}"
        async with Storage.open(url, durability=Durability.CRASH) as storage:
            for node, count in wanted.items():
                for first in range(0, count, PUT_AT_ONCE):
                    numbers = range(first, min(first + PUT_AT_ONCE, count))

                    def make(view: plans.View, node: str = node, numbers: range = numbers) -> plans.Plan:
                        writes: list[plans.Put | plans.Remove] = []
                        for number in numbers:
                            body = deployed_pod(number, node, rng)
                            body["metadata"]["name"] = pod_name(node, number)
                            writes += plans.create(view, asked, body, facts(), admission).writes
                        return plans.Plan(201, tuple(writes))

                    await storage.commit(make)

    async def _connect(self) -> ApiClient:
        return ApiClient.from_kubeconfig(self.site.kubeconfig)

    def node(self, count: int) -> "Held":
        return self._nodes[count]

    def start_hub(self) -> None:
        """Returns when it serves. Site.start_cloud would start a command again and again to see that."""
        link, join = (f"127.0.0.1:{self.site.ports[name]}" for name in ("link", "join"))
        where = ("--kubeconfig", str(self.site.kubeconfig), "--data-dir", str(self._directory / "cloud"))
        process = self.site.start("cloud", "cloudcore", "run", *where, "--listen", link, "--join-listen", join)
        wait(lambda: self.site.ask("cloudcore", "cloud").get("link") or not process.is_running(), "cloudcore serves")

    def hub_nodes(self) -> list[Mapping[str, Any]]:
        return list(self.site.ask("cloudcore", "cloud").get("nodes", ()))

    def session(self, node: str) -> Mapping[str, Any]:
        return next((each for each in self.hub_nodes() if each["node"] == node), {})

    # The apiserver

    def edit(self, edits: Iterable[tuple[str, Mapping[str, Any]]], done: Callable[[], None] = lambda: None) -> None:
        """Merge patches of pods, a few at a time."""
        rest = iter(edits)

        async def lane() -> None:
            for name, patch in rest:
                await self._client.patch(ObjectKey(PODS, "default", name), patch)
                done()

        async def run() -> None:
            async with asyncio.TaskGroup() as tasks:
                for number in range(LANES):
                    tasks.create_task(lane(), name=f"lane[{number}]")

        self._runner.run(run())

    def requests_since(self, place: int) -> tuple[Counter[str], int]:
        """What the apiserver answered after this place of its log, and the place where the log ends now."""
        text = (self._directory / "api.log").read_bytes()
        counted: Counter[str] = Counter()
        for method, path in re.findall(rb"answered method=(\w+) path=(\S+)", text[place:]):
            if re.search(rb"/(nodes|leases)/" if method == b"GET" else rb"/(nodes|leases)\b", path):
                counted["presence"] += 1
            elif method == b"GET":
                counted["reads"] += 1
            else:
                counted["own" if b"/pods/" in path else "writes"] += 1
        return counted, len(text)

    # A hub that starts again

    def hub_restarted(self, runs: int) -> list[Figure]:
        """kill -9 of a hub with a fleet, and started again at once."""
        found: defaultdict[str, list[float]] = defaultdict(list)
        with Proxy(self.site.ports["link"]) as proxy:
            fleet = Fleet(self._fleet, self._directory, proxy.port)
            fleet.enrol(Endpoint("127.0.0.1", self.site.ports["join"]), self.site.token())
            with fleet:
                wait(lambda: fleet.synced == len(self._fleet), "the fleet is in sync")
                assert all(len(store.objects) >= FLEET_PODS for store in fleet.stores.values())
                for _ in range(runs):
                    settle(proxy)
                    self.site.processes["cloud"].kill()
                    began = time.monotonic()
                    wait(lambda: not fleet.connected, "the fleet has noticed")
                    up, down = proxy.up, proxy.down
                    _, place = self.requests_since(0)
                    self.start_hub()
                    serving = time.monotonic()
                    wait(lambda: fleet.connected == len(self._fleet), "the fleet is back")
                    found["linked"].append(time.monotonic() - began)
                    wait(lambda: fleet.synced == len(self._fleet), "the fleet is in sync")
                    found["synced"].append(time.monotonic() - began)
                    settle(proxy)
                    found["ups"].append((proxy.up - up) / len(self._fleet))
                    found["downs"].append((proxy.down - down) / len(self._fleet))
                    counted, _ = self.requests_since(place)
                    found["reads"].append(counted["reads"])
                    found["writes"].append(counted["writes"] + counted["own"])
                    found["presence"].append(counted["presence"])
                    found["served"].append(serving - began)
        about = f"kill -9 of a hub with {len(self._fleet)} nodes of {FLEET_PODS} pods, nothing changed"
        return [
            Figure(f"{about}: up per node", "B", found["ups"]),
            Figure(f"{about}: down per node", "B", found["downs"]),
            Figure(f"{about}: lists, watches and other reads of the apiserver", "", found["reads"]),
            Figure(f"{about}: writes for the sync", "", found["writes"]),
            Figure(f"{about}: requests about Nodes and Leases", "", found["presence"]),
            Figure(f"{about}: until the hub serves", "s", found["served"], note="from the kill on"),
            Figure(f"{about}: until all links are back", "s", found["linked"], note="from the kill on"),
            Figure(f"{about}: until all are in sync", "s", found["synced"], note="from the kill on"),
        ]


class Held:
    """One edgecore behind a proxy."""

    def __init__(self, ground: Ground, name: str, count: int, proxy: Proxy) -> None:
        self.name = name
        self.count = count
        self.proxy = proxy
        self._ground = ground
        self._rng = random.Random(name)
        config = ground.site.directory / name / "edgecore.yaml"
        settings = yaml.safe_load(config.read_text())
        settings["cloud"]["link"] = f"127.0.0.1:{proxy.port}"
        config.write_text(yaml.safe_dump(settings))

    @property
    def status(self) -> Mapping[str, Any]:
        return self._ground.site.ask("edgecore", self.name)

    def is_quiet(self) -> bool:
        session = self._ground.session(self.name)
        return bool(
            self.status.get("inSync") and session.get("connected") and session.get("synced") and not session["dirty"]
        )

    def _measured(self, start: Callable[[], None]) -> Spent:
        """What the connection costs that `start` causes, from its SYN until all is in sync and at rest."""
        before = len(self.proxy.connections)
        _, place = self._ground.requests_since(0)
        start()
        wait(lambda: len(self.proxy.connections) > before, "it dials")
        began = time.monotonic()
        wait(self.is_quiet, f"{self.name} is in sync")
        seconds = time.monotonic() - began
        settle(self.proxy)
        assert len(self.proxy.connections) == before + 1, "one connection is measured"
        connection = self.proxy.connections[-1]
        counted, _ = self._ground.requests_since(place)
        return Spent(connection.up, connection.down, counted, seconds)

    def _figures(self, about: str, spent: list[Spent], *, timed: bool = True) -> list[Figure]:
        found = [
            Figure(f"{about}: up", "B", [float(each.up) for each in spent]),
            Figure(f"{about}: down", "B", [float(each.down) for each in spent]),
            Figure(
                f"{about}: requests for the sync",
                "",
                [float(sum(each.requests.values()) - each.requests["presence"]) for each in spent],
            ),
            Figure(
                f"{about}: requests about Nodes and Leases", "", [float(each.requests["presence"]) for each in spent]
            ),
        ]
        return [*found, Figure(f"{about}: until in sync", "s", [each.seconds for each in spent])] if timed else found

    def first_sync(self) -> list[Figure]:
        def start() -> None:
            self._ground.site.start_edge(self.name, wait=False)

        return self._figures(f"first sync of {self.count:,} pods", [self._measured(start)])

    def nothing_changed(self, runs: int) -> list[Figure]:
        spent = [self._measured(self.proxy.cut) for _ in range(runs)]
        return self._figures(f"reconnect, nothing changed of {self.count:,} pods", spent)

    def one_percent_changed(self, runs: int, delay_s: float) -> list[Figure]:
        """The line is dead while the edits are made, and alive again when the hub has seen them all."""
        spent = []
        for _ in range(runs):
            self.proxy.stall()
            names = [pod_name(self.name, number) for number in self._rng.sample(range(self.count), self.count // 100)]
            self._ground.edit((name, self._changed()) for name in names)
            settle(self.proxy)
            self.proxy.delay_s = delay_s
            spent.append(self._measured(self.proxy.heal))
            self.proxy.delay_s = 0.0
        about = f"1 % changed of {self.count:,} pods while away, round trip {2000 * delay_s:.0f} ms"
        return self._figures(about, spent)

    def _changed(self) -> dict[str, Any]:
        return {"metadata": {"annotations": {"checksum/config": f"{self._rng.getrandbits(256):064x}"}}}

    def one_field_changed(self, runs: int) -> list[Figure]:
        spent = []
        for number in range(runs):
            settle(self.proxy)
            up, down = self.proxy.up, self.proxy.down
            _, place = self._ground.requests_since(0)
            replicas = {"metadata": {"labels": {"app.kubernetes.io/version": f"2.{number}.0"}}}
            self._ground.edit([(pod_name(self.name, number), replicas)])
            wait(lambda: self.proxy.down > down, "it is pushed")  # noqa: B023
            wait(self.is_quiet, "it has arrived")
            settle(self.proxy)
            counted, _ = self._ground.requests_since(place)
            counted["own"] -= 1
            spent.append(Spent(self.proxy.up - up, self.proxy.down - down, counted, 0.0))
        return self._figures("one field of a pod of 4 KB changed", spent, timed=False)

    def killed(self, runs: int, updates: int) -> Iterator[list[Figure]]:
        """kill -9 in the middle of updates that do not wait, and started again at once."""
        for victim in (self.name, "cloud"):
            started, linked, synced, after = [], [], [], []
            for _ in range(runs):
                began, serving, back, updated = self._killed_once(victim, updates)
                wait(self.is_quiet, "in sync again")
                quiet = time.monotonic()
                started.append(serving - began)
                linked.append(back - began)
                synced.append(quiet - began)
                after.append(max(0.0, quiet - max(updated, back)))
            who = "the hub" if victim == "cloud" else "the edge"
            about = f"kill -9 of {who} amid {updates:,} updates of {self.count:,} pods"
            yield [
                Figure(f"{about}: until it {'serves' if victim == 'cloud' else 'runs'} again", "s", started),
                Figure(f"{about}: until the link is back", "s", linked),
                Figure(f"{about}: until in sync", "s", synced, note="the updates go on meanwhile"),
                Figure(f"{about}: in sync after the last update and the link", "s", after),
            ]

    def _killed_once(self, victim: str, updates: int) -> tuple[float, float, float, float]:
        """When it was killed, when it served again, when the link was back, when the last update was made."""
        ground, done = self._ground, 0

        def count() -> None:
            nonlocal done
            done += 1

        def kill_and_start() -> tuple[float, float, float]:
            wait(lambda: done >= updates // 2, "half of the updates")
            ground.site.processes[victim].kill()
            began = time.monotonic()
            if victim == self.name:
                ground.site.start_edge(self.name, wait=False)
                wait(lambda: self.status, "edgecore runs")
                serving = time.monotonic()
                wait(lambda: self.status.get("connected"), "the node is back")
            else:
                ground.start_hub()
                serving = time.monotonic()
                wait(lambda: ground.session(self.name).get("connected"), "the node is back")
            return began, serving, time.monotonic()

        with ThreadPoolExecutor(1) as thread:
            times = thread.submit(kill_and_start)
            numbers = [number % self.count for number in range(updates)]
            ground.edit(((pod_name(self.name, number), self._changed()) for number in numbers), count)
            updated = time.monotonic()
            return *times.result(), updated


def pod_name(node: str, number: int) -> str:
    return f"{node}-{number:05}"


def wait(condition: Callable[[], object], what: str) -> None:
    by = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < by, f"not within {WITHIN_S:g} s: {what}"
        time.sleep(0.005)


def settle(proxy: Proxy) -> None:
    """Wait until nothing has moved on the link for a while."""
    seen, since = -1, time.monotonic()
    while time.monotonic() < since + SETTLED_S:
        if (now := proxy.up + proxy.down) != seen:
            seen, since = now, time.monotonic()
        time.sleep(0.01)
