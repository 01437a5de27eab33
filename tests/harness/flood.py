"""
A node whose devices flood it, both ways, while pods change: real apiserver, hub, broker and two edgecores.

    with Flood(directory, broker="mosquitto") as flood:
        idle = flood.changes(seconds=5)
        flood.begin(reports=10_000, wishes=1_000, bulk=True)
        busy = flood.changes(seconds=10)
        flood.end()                              # every last value is where it belongs, or AssertionError

Reports come from tests.harness.flooder, wishes from tests.harness.watchlines, for no apiserver makes 1,000 edits a
second beside all this. `changes` patches pods of each node at even times, and times each: to its event on a watch of
the apiserver, and to its event on a watch of the node's local API, which is after its commit there. It does not wait
for one before it makes the next, or what holds all of them up for a second would be one slow change among many quick
ones. And each node's come from a connection of their own: whoever came after the other's answer would always come
right after what held that up, and never into it.

With a BadLine the flooded node is behind it, and the calling thread must be in its cloud; the other node is not
behind it.
"""

import contextlib
import http.client
import itertools
import json
import re
import sys
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from apimachinery.resources import DEVICES
from cloudhub import crds
from tests.harness.badline import BadLine
from tests.harness.commanded import Commanded
from tests.harness.flooder import name_of
from tests.harness.mosquitto import Mosquitto, free_port
from tests.harness.plainapi import WITHIN_S, Api
from tests.harness.site import Site

FLOODED, OTHER = NODES = ("flooded", "other")
LEASE_S, GRACE_S, HEARTBEAT_S = 1.0, 4.0, 1.0
BULK_BYTES = 3_000_000  # of text; with what is around it in JSON just under the link's 3 MiB
CONFIG = f"""
join: {{advertise: [ADDRESS]}}
link: {{heartbeatSeconds: {HEARTBEAT_S:g}}}
nodes: {{graceSeconds: {GRACE_S:g}, renewSeconds: {LEASE_S:g}}}
"""
ASK_S = 3.0
LOOK_S = 0.25  # between two looks at every Device's status, each of which is work for the apiserver
PODS = 10  # of each node; changed by turns, PER_S of each node a second
PER_S = 20
MARK = re.compile(rb'"mark":"([0-9]+)"')
NAME = re.compile(rb'"name":"([a-z]+-[0-9]+)"')
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
CORE = "/api/v1/namespaces/default"
GROUP = f"/apis/{DEVICES.api_version}/namespaces/default"


class Change(NamedTuple):
    """One change of a pod, in ms from the PATCH."""

    node: str
    seen: float
    """Until a watch of the apiserver told it."""
    held: float
    """Until the node's own API told it: it was committed there."""

    @property
    def pushed(self) -> float:
        """From the one to the other: hub, link and the edge's commit."""
        return self.held - self.seen


class Sightings:
    """When which change of which pod was seen; a later one of the same pod counts for those that it overtook."""

    def __init__(self) -> None:
        self._marks: dict[str, tuple[list[int], list[float]]] = {}

    def saw(self, at: float, line: bytes) -> None:
        name, mark = NAME.search(line), MARK.search(line)
        if name is not None and mark is not None:
            marks, times = self._marks.setdefault(name[1].decode(), ([], []))
            if not marks or int(mark[1]) > marks[-1]:
                times.append(at)
                marks.append(int(mark[1]))

    def when(self, pod: str, mark: int) -> float | None:
        marks, times = self._marks.get(pod, ((), ()))
        place = bisect_left(marks, mark)
        return times[place] if place < len(marks) else None


class Flood(Site):
    """The site, with its load."""

    def __init__(
        self,
        directory: Path,
        broker: str = "embedded",
        devices: int = 100,
        values: int = 2,
        *,
        line: BadLine | None = None,
        transport: str = "websocket",
        lines: Sequence[str] = (),
    ) -> None:
        """values: properties in one report. transport: "websocket" or "quic". lines: of mosquitto.conf."""
        super().__init__(directory)
        self._line = line
        self._transport = transport
        self._lines = lines
        self.mosquitto: Mosquitto
        self.broker = broker
        self.devices = devices
        self.values = values
        self._stack = contextlib.ExitStack()
        self.flooder: Commanded
        self.wishes: Commanded
        self._bulks: Commanded
        self._threads: list[threading.Thread] = []
        self._sightings: dict[str, Sightings] = {}
        self.renewals: dict[str, list[float]] = {node: [] for node in NODES}
        """When each node's Lease was seen to be renewed."""
        self.unready: list[str] = []
        """Nodes that were seen not to be Ready, with when."""
        self._changing: dict[str, Api] = {}
        """The connection by which each node's pods are changed."""
        self._marks = itertools.count(1)

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            self._begin()
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        for thread in self._threads:
            thread.join(10)
        super().__exit__(kind, error, trace)

    def _begin(self) -> None:
        self.wishes = self._child("tests.harness.watchlines", str(self.ports["api"]), str(self.kubeconfig))
        bulk = ("default", "bulk", str(BULK_BYTES), str(self.directory / FLOODED / "edge.db"))
        self._bulks = self._child("tests.harness.bulks", str(self.ports["api"]), str(self.kubeconfig), *bulk)
        self._relayed = self.directory / "kubeconfig-relayed"
        port = self.wishes.answer()["port"]
        config = json.loads(super().hub_kubeconfig().read_text())
        config["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{port}"}
        self._relayed.write_text(json.dumps(config))
        self.api = self.connect()
        self._define()
        settings = self.directory / "cloudcore.yaml"
        address = "127.0.0.1" if self._line is None else self._line.cloud.address
        settings.write_text(CONFIG.replace("ADDRESS", address))
        listen = ("--listen", f"{'0.0.0.0' if self._line else address}:{self.ports['link']}")
        hub_flags, flags = self._carried()
        self.start_cloud(flags=("--config", str(settings), *listen, *hub_flags))
        for node in NODES:
            self.join(node)
        if self._line is not None:
            path = self.directory / FLOODED / "edgecore.yaml"
            link = f'\\1 "{address}:{self.ports["link"]}"'
            path.write_text(re.sub(r"(?m)^(  link:) .*$", link, path.read_text(), count=1))
        mqtt = "embedded"
        with self._near(FLOODED):
            if self.broker == "mosquitto":
                self.mosquitto = self._stack.enter_context(Mosquitto(*self._lines))
                mqtt = f"mqtt://127.0.0.1:{self.mosquitto.port}"
            self.start_edge(FLOODED, mqtt=mqtt, flags=flags)
        self.start_edge(OTHER, flags=flags)
        self.mqtt_port = self.mosquitto.port if self.broker == "mosquitto" else self.ports[f"{FLOODED}-mqtt"]
        self.until(lambda: self.ask("edgecore", FLOODED).get("mqttConnected"), "edgecore has the broker")
        for node in NODES:
            self.make_pods(node)
        self.make_devices(FLOODED, "thermo", self.devices)
        with self._near(FLOODED):
            self.flooder = self._child(
                "tests.harness.flooder", str(self.mqtt_port), str(self.devices), "--values", str(self.values)
            )
        self.watch_pods("cluster", self.connect())
        for node in NODES:
            self.watch_pods(node, self.local(node))
        self._follow("leases", f"{LEASES}?watch=true", self.connect(), self._renewed)
        self._follow("nodes", "/api/v1/nodes?watch=true", self.connect(), self._node)
        self.changes(0.5)

    def _carried(self) -> tuple[Sequence[str], Sequence[str]]:
        """What cloudcore and edgecore are told of the transport."""
        port = str(free_port())
        host = "0.0.0.0" if self._line else "127.0.0.1"  # a namespace of its own
        return ("--quic-listen", f"{host}:{port}"), ("--transport", self._transport, "--quic-port", port)

    def _near(self, node: str) -> contextlib.AbstractContextManager[object]:
        """Where the node is: what connects to it, or is started for it, does so here."""
        return self._line.edge if self._line is not None and node == FLOODED else contextlib.nullcontext()

    def _child(self, module: str, *arguments: str) -> Commanded:
        child = Commanded(None, module, *arguments)
        self._stack.callback(child.kill)
        return child

    def hub_kubeconfig(self) -> Path:
        return self._relayed

    def connect(self) -> Api:
        """To the real apiserver, as admin."""
        return self._opened(Api.as_admin(self.kubeconfig, self.ports["api"]))

    def local(self, node: str) -> Api:
        """The node's local API."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[f"{node}-api"], timeout=WITHIN_S)
        with self._near(node):
            connection.connect()
        return self._opened(Api(connection))

    def _opened(self, api: Api) -> Api:
        self._stack.callback(api.close)
        return api

    # What there is

    def _define(self) -> None:
        import yaml

        for each in yaml.safe_load_all(crds.text()):
            self.api.ask("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", each)
        properties = [{"name": f"p{number}", "type": "INT", "accessMode": "ReadOnly"} for number in range(self.values)]
        properties.append({"name": "setpoint", "type": "INT", "accessMode": "ReadWrite"})
        model = {
            "apiVersion": DEVICES.api_version,
            "kind": "DeviceModel",
            "metadata": {"name": "thermo"},
            "spec": {"protocol": "custom", "properties": properties},
        }
        self.until(lambda: self._is_made(f"{GROUP}/devicemodels", model), "the definitions are established")

    def _is_made(self, path: str, value: object) -> bool:
        try:
            self.api.ask("POST", path, value)
        except AssertionError:
            return False
        return True

    def make_devices(self, node: str, prefix: str, count: int) -> None:
        """Returns when the node has them."""
        for number in range(count):
            self.api.ask("POST", f"{GROUP}/devices", self._device(node, name_of(prefix, number)))
        self.until(lambda: self.ask("edgecore", node).get("devices") == count, f"{node} has all devices")

    def _device(self, node: str, name: str) -> dict[str, Any]:
        properties: list[dict[str, Any]] = [{"name": f"p{each}", "reportToCloud": True} for each in range(self.values)]
        properties.append({"name": "setpoint", "desired": {"value": "0"}})
        return {
            "apiVersion": DEVICES.api_version,
            "kind": DEVICES.kind,
            "metadata": {"name": name},
            "spec": {
                "deviceModelRef": {"name": "thermo"},
                "nodeName": node,
                "protocol": {"protocolName": "custom"},
                "properties": properties,
            },
        }

    def make_pods(self, node: str) -> None:
        spec: dict[str, Any] = {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}
        if node == FLOODED:
            spec["volumes"] = [{"name": "bulk", "configMap": {"name": "bulk"}}]
            self.api.ask("POST", f"{CORE}/configmaps", {"metadata": {"name": "bulk"}, "data": {"text": ""}})
            # The apiserver keeps a few that were replaced, for watches that were away: from now on as many as it ever
            # will. No node is sent one yet, for no pod refers to it.
            for text in ("a" * BULK_BYTES, "b" * BULK_BYTES, "c" * BULK_BYTES, ""):
                self.api.ask("PATCH", f"{CORE}/configmaps/bulk", {"data": {"text": text}})
        for number in range(PODS):
            self.api.ask("POST", f"{CORE}/pods", {"metadata": {"name": f"{node}-{number}"}, "spec": spec})

    # What is seen

    def watch_pods(self, name: str, api: Api) -> None:
        """Note what this API tells of pods, under a name: "cluster", or the node's."""
        self._sightings[name] = Sightings()
        self._follow(name, f"{CORE}/pods?watch=true", api, self._sightings[name].saw)

    def _follow(self, name: str, path: str, api: Api, told: Callable[[float, bytes], None]) -> None:
        def read() -> None:
            for at, line in api.lines(path):
                told(at, line)

        self._run(read, f"watch[{name}]")

    def _run(self, work: Callable[[], None], name: str) -> None:
        thread = threading.Thread(target=work, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _renewed(self, at: float, line: bytes) -> None:
        node = json.loads(line)["object"]["metadata"]["name"]
        if node in self.renewals:
            self.renewals[node].append(at)

    def _node(self, at: float, line: bytes) -> None:
        node = json.loads(line)["object"]
        ready = [each for each in node.get("status", {}).get("conditions", ()) if each["type"] == "Ready"]
        if ready and ready[0]["status"] != "True" and node["metadata"]["name"] in NODES:
            self.unready.append(f"{node['metadata']['name']} at {at:.1f}: {ready[0]}")

    # The load

    def begin(self, reports: float, wishes: float, *, bulk: bool) -> None:
        """From now on: reports and changed wishes a second, a large ConfigMap as soon as the last one is held."""
        self.flow(reports, wishes)
        if bulk:
            self._bulks.ask("begin")

    def flow(self, reports: float, wishes: float) -> None:
        """From now on so many a second."""
        self.flooder.ask(f"flood {reports}")
        self.wishes.ask(f"wish {wishes}")

    @property
    def bulks(self) -> int:
        """Large ConfigMaps that the node has committed, one after the other."""
        return int(self._bulks.ask("stats")["held"])

    def changes(
        self, seconds: float, nodes: Sequence[str] = NODES, *, per_s: float = PER_S, within_s: float = WITHIN_S
    ) -> list[Change]:
        """Pods of each of these nodes, so many a second. AssertionError where one does not come within `within_s`."""
        for node in nodes:
            if node not in self._changing:
                self._changing[node] = self.connect()
        with ThreadPoolExecutor(len(nodes)) as threads:
            offsets = [place / len(nodes) / per_s for place in range(len(nodes))]
            running = threads.map(lambda node, offset: self._change(node, seconds, per_s, offset), nodes, offsets)
            made = list(itertools.chain.from_iterable(running))
        by = time.perf_counter() + within_s
        found = []
        for node, pod, mark, at in made:
            seen, held = (self._sighted(name, pod, mark, by) for name in ("cluster", node))
            found.append(Change(node, (seen - at) * 1000, (held - at) * 1000))
        return found

    def _change(self, node: str, seconds: float, per_s: float, offset_s: float) -> list[tuple[str, str, int, float]]:
        """Node, pod, mark and time of each change that was made."""
        made, api = [], self._changing[node]
        began = time.perf_counter() + offset_s
        for turn in range(round(seconds * per_s)):
            time.sleep(max(0.0, began + turn / per_s - time.perf_counter()))
            pod, mark, at = f"{node}-{turn % PODS}", next(self._marks), time.perf_counter()
            api.ask("PATCH", f"{CORE}/pods/{pod}", {"metadata": {"annotations": {"mark": str(mark)}}})
            made.append((node, pod, mark, at))
            if time.perf_counter() > began + seconds:
                break  # the apiserver does not take so many
        return made

    def _sighted(self, name: str, pod: str, mark: int, by: float) -> float:
        while (at := self._sightings[name].when(pod, mark)) is None:
            assert time.perf_counter() < by, f"{name}: change {mark} of {pod} did not come"
            time.sleep(0.005)
        return at

    def end(self) -> dict[str, Any]:
        """Stop the load; returns the flooder's figures once every last value is where it belongs."""
        self._bulks.ask("stop")
        wished = self.wishes.ask("wish 0")["wished"]
        self.flooder.ask("flood 0")
        self.api = self.connect()  # the other one was not used for minutes, perhaps, and then an apiserver ends it
        self.wish(5_000_000)
        told = self.flooder.ask("settle")
        self.until_heard(5_000_000)
        self.until(lambda: self._has_reported(told["last"]), "every last value is in its Device's status")
        return {**told, "wished": wished}

    def wish(self, first: int) -> None:
        """Set each Device's wish at the apiserver: numbers from this one on."""
        for number in range(self.devices):
            properties: list[dict[str, Any]] = [{"name": f"p{each}"} for each in range(self.values)]
            properties.append({"name": "setpoint", "desired": {"value": str(first + number)}})
            self.api.ask("PATCH", f"{GROUP}/devices/{name_of('thermo', number)}", {"spec": {"properties": properties}})

    def until_heard(self, first: int) -> None:
        """Wait for these wishes at the mapper, which asks now and then: a broker that is full drops messages."""
        ask_at = time.monotonic() + ASK_S

        def heard() -> bool:
            nonlocal ask_at
            if self.heard(first):
                return True
            if time.monotonic() > ask_at:
                ask_at = time.monotonic() + ASK_S
                self.flooder.ask("ask")
            return False

        self.until(heard, "the mapper has every last wish")

    def heard(self, first: int) -> bool:
        """Whether these wishes are the last that the mapper heard."""
        wanted = {name_of("thermo", number): str(first + number) for number in range(self.devices)}
        return bool(self.flooder.ask("stats")["wished"] == wanted)

    def _has_reported(self, last: Mapping[str, str]) -> bool:
        if self._reported() == last:
            return True
        time.sleep(LOOK_S)
        return False

    def _reported(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for each in self.api.ask("GET", f"{GROUP}/devices")["items"]:
            if each["spec"]["nodeName"] != FLOODED:
                continue
            twins = each.get("status", {}).get("twins", ())
            values = {
                (twin.get("reported") or {}).get("value") for twin in twins if twin["propertyName"].startswith("p")
            }
            found[each["metadata"]["name"]] = " ".join(sorted(map(str, values)))
        return found

    def longest_renewals_s(self, since: float) -> dict[str, float]:
        """By node the longest time between two renewals of its Lease after `since`, or since the last one."""
        now = time.perf_counter()
        longest = {}
        for node, renewals in self.renewals.items():
            times = [since, *(at for at in renewals if at >= since), now]
            longest[node] = max(later - at for at, later in itertools.pairwise(times))
        return longest

    @property
    def sessions(self) -> float:
        """How many the hub has begun: one more for each link that either end gave up."""
        return self.metrics("cloudcore", "cloud")["hub_sessions_total"]

    def resident_mb(self) -> Mapping[str, float]:
        return {name: process.rss_kb()[0] / 1024 for name, process in self.processes.items()}
