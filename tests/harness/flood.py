"""
A node whose devices flood it, both ways, while pods change: real apiserver, hub, broker and two edgecores.

    with Flood(directory, broker="mosquitto") as flood:
        idle = flood.changes(seconds=5)
        flood.begin(reports=10_000, wishes=1_000, bulk=True)
        busy = flood.changes(seconds=10)
        flood.end()                              # every last value is where it belongs, or AssertionError

Reports come from tests.harness.flooder, wishes from tests.harness.watchlines, for no apiserver makes 1,000 edits a second
beside all this. `changes` patches a pod of either node by turns and times it: to its event on a watch of the
apiserver, and to its event on a watch of the node's local API, which is after its commit there.
"""

import base64
import contextlib
import http.client
import json
import os
import queue
import random
import re
import selectors
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from apimachinery.devices import PROPERTY_FIELD as PROPERTY_FIELD
from apimachinery.resources import DEVICES
from cloudhub import crds
from tests.harness.flooder import name_of
from tests.harness.mosquitto import Mosquitto
from tests.harness.site import ROOT, Process, Site

FLOODED, OTHER = NODES = ("flooded", "other")
LEASE_S, GRACE_S, HEARTBEAT_S = 1.0, 4.0, 1.0
BULK_BYTES = 3_000_000  # of text; with what is around it in JSON just under the link's 3 MiB
CONFIG = f"""
link: {{heartbeatSeconds: {HEARTBEAT_S:g}}}
nodes: {{graceSeconds: {GRACE_S:g}, renewSeconds: {LEASE_S:g}}}
"""
WITHIN_S = 60.0
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
CORE = "/api/v1/namespaces/default"
GROUP = f"/apis/{DEVICES.api_version}/namespaces/default"


class Child:
    """A module of the harness in its process, that answers lines with lines of JSON."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
        )
        self.pid = self._process.pid

    def ask(self, command: str = "") -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None, "made with pipes"
        if command:
            self._process.stdin.write(command.encode() + b"\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"it ended, with {self._process.wait()}"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


class Api:
    """A kept-alive connection to an apiserver, or to a node's local API."""

    def __init__(self, connection: http.client.HTTPConnection, token: str = "") -> None:
        self._connection = connection
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """Raises AssertionError for any answer but success."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        content = None if body is None else json.dumps(body)
        self._connection.request(method, path, content, {**self._headers, "Content-Type": kind})
        answer = self._connection.getresponse()
        told = answer.read()
        assert answer.status in (200, 201), told[:500]
        value: dict[str, Any] = json.loads(told)
        return value

    def lines(self, path: str) -> Iterator[tuple[float, bytes]]:
        """Lines of a watch, and when they came."""
        self._connection.request("GET", path, headers=self._headers)
        answer = self._connection.getresponse()
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException, AttributeError):
            while line := answer.readline():
                yield time.perf_counter(), line

    def close(self) -> None:
        if self._connection.sock is not None:
            with contextlib.suppress(OSError):
                self._connection.sock.shutdown(socket.SHUT_RDWR)
        self._connection.close()


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


class Flood(Site):
    """The site, with its load."""

    def __init__(self, directory: Path, broker: str = "embedded", devices: int = 100, values: int = 2) -> None:
        """values: properties in one report."""
        super().__init__(directory)
        self.broker = broker
        self.devices = devices
        self.values = values
        self._stack = contextlib.ExitStack()
        self.flooder: Child
        self.wishes: Child
        self._threads: list[threading.Thread] = []
        self._stop = threading.Event()
        self._marks: dict[str, queue.SimpleQueue[tuple[float, bytes]]] = {}
        self.renewals: dict[str, list[float]] = {node: [] for node in NODES}
        """When each node's Lease was seen to be renewed."""
        self.unready: list[str] = []
        """Nodes that were seen not to be Ready, with when."""
        self.bulks = 0
        """Large ConfigMaps sent."""
        self._number = 0

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
        self._stop.set()
        self._stack.close()
        for thread in self._threads:
            thread.join(10)
        super().__exit__(kind, error, trace)

    def _begin(self) -> None:
        self.wishes = self._child("tests.harness.watchlines", str(self.ports["api"]), str(self.kubeconfig))
        self._relayed = self.directory / "kubeconfig-relayed"
        port = self.wishes.ask()["port"]
        config = json.loads(super().hub_kubeconfig().read_text())
        config["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{port}"}
        self._relayed.write_text(json.dumps(config))
        self.api = self.connect()
        self._define()
        settings = self.directory / "cloudcore.yaml"
        settings.write_text(CONFIG)
        self.start_cloud(flags=("--config", str(settings)))
        for node in NODES:
            self.join(node)
        mqtt = "embedded"
        if self.broker == "mosquitto":
            mosquitto = self._stack.enter_context(Mosquitto())
            mqtt = f"mqtt://127.0.0.1:{mosquitto.port}"
        self.start_edge(FLOODED, mqtt=mqtt)
        self.start_edge(OTHER)
        self.mqtt_port = mosquitto.port if self.broker == "mosquitto" else self.ports[f"{FLOODED}-mqtt"]
        self.until(lambda: self.ask("edgecore", FLOODED).get("mqttConnected"), "edgecore has the broker")
        for node in NODES:
            self._make_pod(node)
        for number in range(self.devices):
            self.api.ask("POST", f"{GROUP}/devices", self._device(number))
        self.until(lambda: self.ask("edgecore", FLOODED).get("devices") == self.devices, "all devices are there")
        self.flooder = self._child(
            "tests.harness.flooder", str(self.mqtt_port), str(self.devices), "--values", str(self.values)
        )
        for name, path, api in (
            *((f"seen[{node}]", "", self.connect()) for node in ()),
            ("cluster", f"{CORE}/pods?watch=true", self.connect()),
            *((node, f"{CORE}/pods?watch=true", self.local(node)) for node in NODES),
        ):
            self._marks[name] = queue.SimpleQueue()
            self._follow(name, path, api, self._mark)
        self._follow("leases", f"{LEASES}?watch=true", self.connect(), self._renewed)
        self._follow("nodes", "/api/v1/nodes?watch=true", self.connect(), self._node)
        for node in NODES:
            self._change(node)

    def _child(self, module: str, *arguments: str) -> Child:
        child = Child(module, *arguments)
        self._stack.callback(child.close)
        return child

    def hub_kubeconfig(self) -> Path:
        return self._relayed

    def connect(self) -> Api:
        """To the real apiserver, as admin."""
        config = json.loads(self.kubeconfig.read_text())
        authority = base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"]).decode()
        context = ssl.create_default_context(cadata=authority)
        connection = http.client.HTTPSConnection("127.0.0.1", self.ports["api"], timeout=WITHIN_S, context=context)
        return self._opened(Api(connection, config["users"][0]["user"]["token"]))

    def local(self, node: str) -> Api:
        """The node's local API."""
        return self._opened(
            Api(http.client.HTTPConnection("127.0.0.1", self.ports[f"{node}-api"], timeout=WITHIN_S))
        )

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

    def _device(self, number: int) -> dict[str, Any]:
        properties: list[dict[str, Any]] = [{"name": f"p{each}", "reportToCloud": True} for each in range(self.values)]
        properties.append({"name": "setpoint", "desired": {"value": "0"}})
        return {
            "apiVersion": DEVICES.api_version,
            "kind": DEVICES.kind,
            "metadata": {"name": name_of("thermo", number)},
            "spec": {
                "deviceModelRef": {"name": "thermo"},
                "nodeName": FLOODED,
                "protocol": {"protocolName": "custom"},
                "properties": properties,
            },
        }

    def _make_pod(self, node: str) -> None:
        spec: dict[str, Any] = {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}
        if node == FLOODED:
            spec["volumes"] = [{"name": "bulk", "configMap": {"name": "bulk"}}]
            self.api.ask("POST", f"{CORE}/configmaps", {"metadata": {"name": "bulk"}, "data": {"text": ""}})
        self.api.ask("POST", f"{CORE}/pods", {"metadata": {"name": node}, "spec": spec})

    # What is seen

    def _follow(self, name: str, path: str, api: Api, told: Any) -> None:
        def read() -> None:
            for at, line in api.lines(path):
                told(name, at, line)

        thread = threading.Thread(target=read, name=f"watch[{name}]", daemon=True)
        thread.start()
        self._threads.append(thread)

    def _mark(self, name: str, at: float, line: bytes) -> None:
        self._marks[name].put((at, line))

    def _renewed(self, _: str, at: float, line: bytes) -> None:
        node = json.loads(line)["object"]["metadata"]["name"]
        if node in self.renewals:
            self.renewals[node].append(at)

    def _node(self, _: str, at: float, line: bytes) -> None:
        node = json.loads(line)["object"]
        ready = [each for each in node.get("status", {}).get("conditions", ()) if each["type"] == "Ready"]
        if ready and ready[0]["status"] != "True":
            self.unready.append(f"{node['metadata']['name']} at {at:.1f}: {ready[0]}")

    # The load

    def begin(self, reports: float, wishes: float, *, bulk: bool) -> None:
        """From now on: reports and changed wishes a second, a large ConfigMap as soon as the last one is held."""
        self.flooder.ask(f"flood {reports}")
        self.wishes.ask(f"wish {wishes}")
        if bulk:
            thread = threading.Thread(target=self._bulk, name="bulk", daemon=True)
            thread.start()
            self._threads.append(thread)

    def _bulk(self) -> None:
        api, rng = self.connect(), random.Random(1)  # noqa: S311 - the same each time
        while not self._stop.is_set():
            self.send_bulk(api, rng)
            self._stop.wait(0.2)

    def send_bulk(self, api: Api, rng: random.Random) -> None:
        """Returns when the node holds it."""
        text = base64.b64encode(rng.randbytes(BULK_BYTES * 3 // 4)).decode()
        version = api.ask("PATCH", f"{CORE}/configmaps/bulk", {"data": {"text": text}})["metadata"]["resourceVersion"]
        del version
        self.bulks += 1

    def _change(self, node: str) -> Change:
        self._number += 1
        mark = f'"mark-{self._number}"'.encode()
        began = time.perf_counter()
        self.api.ask("PATCH", f"{CORE}/pods/{node}", {"metadata": {"annotations": {"mark": f"mark-{self._number}"}}})
        seen, held = (self._when(name, mark) for name in ("cluster", node))
        return Change(node, (seen - began) * 1000, (held - began) * 1000)

    def _when(self, name: str, mark: bytes) -> float:
        while True:
            at, line = self._marks[name].get(timeout=WITHIN_S)
            if mark in line:
                return at

    def changes(self, seconds: float, pause_s: float = 0.01) -> list[Change]:
        """A pod of each node by turns, for so long."""
        found: list[Change] = []
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            for node in NODES:
                found.append(self._change(node))
                time.sleep(pause_s)
        return found

    def end(self) -> dict[str, Any]:
        """Stop the load; returns the flooder's figures once every last value is where it belongs."""
        self._stop.set()
        self.wishes.ask("wish 0")
        self.flooder.ask("flood 0")
        for number in range(self.devices):
            properties = [{"name": f"p{each}"} for each in range(self.values)]
            properties.append({"name": "setpoint", "desired": {"value": str(5_000_000 + number)}})  # type: ignore[dict-item]
            self.api.ask("PATCH", f"{GROUP}/devices/{name_of('thermo', number)}", {"spec": {"properties": properties}})
        told = self.flooder.ask("settle")
        wanted = {name_of("thermo", number): str(5_000_000 + number) for number in range(self.devices)}
        self.until(lambda: self.flooder.ask("stats")["wished"] == wanted, "the mapper has every last wish")
        self.until(lambda: self._reported() == told["last"], "every last value is in its Device's status")
        return told

    def _reported(self) -> dict[str, str]:
        found = {}
        for each in self.api.ask("GET", f"{GROUP}/devices")["items"]:
            twins = each.get("status", {}).get("twins", ())
            values = {
                (twin.get("reported") or {}).get("value") for twin in twins if twin["propertyName"].startswith("p")
            }
            found[each["metadata"]["name"]] = values.pop() if len(values) == 1 else str(sorted(map(str, values)))
        return found

    def resident_mb(self) -> Mapping[str, float]:
        return {name: process.rss_kb()[0] / 1024 for name, process in self.processes.items()}
