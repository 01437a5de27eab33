"""
The line that is measured: apiserver, cloudcore, edgecore as processes of their own, and clients of both ends here.

    with Line("embedded", devices=20) as line, line.watch("devices") as seen, line.listen() as heard:
        line.patch(3, 25)

The clients are as plain as can be, so that what is measured is the line: http.client on a kept-alive connection, and
paho with quality of service 0. Each notes when something was there, by the monotonic clock all share.
"""

import base64
import contextlib
import http.client
import json
import queue
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
import yaml
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.forwarder import Forwarder
from tests.conftest import KUBECTLS, find_tool
from tests.harness.mosquitto import Mosquitto, free_port
from tests.harness.site import ROOT, Site
from tests.harness.watchreader import following

NODE = "edge-1"
WITHIN_S = 20.0
GROUP = "/apis/devices.kubeedge.io/v1beta1"
DELTAS = "$hw/events/device/+/+/twin/update/delta"

MODEL = """
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: thermo, namespace: default}
spec:
  protocol: custom
  properties:
  - {name: temperature, type: INT, accessMode: ReadOnly, unit: C}
  - {name: setpoint, type: INT, accessMode: ReadWrite}
"""
DEVICE = """
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {name: NAME, namespace: default, labels: {description: measured}}
spec:
  deviceModelRef: {name: thermo}
  nodeName: edge-1
  protocol: {protocolName: custom, configData: {slaveID: 1}}
  properties:
  - {name: temperature, collectCycle: 10000, reportCycle: 10000, reportToCloud: true}
  - {name: setpoint, desired: {value: "0", metadata: {type: integer}}}
"""


def name_of(number: int) -> str:
    return f"thermo-{number:03}"


class Line:
    """One cloud, one edge, some devices."""

    def __init__(self, broker: str, devices: int = 1, *, edgecore: Path | None = None, counted: bool = False) -> None:
        """
        broker: "embedded" or "mosquitto". edgecore: a console script to start instead of this tree's.
        counted: the link goes through a forwarder that counts its bytes, which delays it by some 0.1 ms.
        """
        self.broker = broker
        self._counted = counted
        self.devices = devices
        self.kubectl = next(tool for name in (*reversed(KUBECTLS), "kubectl") if (tool := find_tool(name)))
        self._edgecore = edgecore
        self._directory = Path(tempfile.mkdtemp(prefix="bench-"))
        self._stack = contextlib.ExitStack()
        self.edge: subprocess.Popen[bytes] | None = None
        self.link: Forwarder

    def __enter__(self) -> Self:
        self._stack.callback(shutil.rmtree, self._directory, ignore_errors=True)
        self.site = self._stack.enter_context(Site(self._directory))
        self.mosquitto = self._stack.enter_context(Mosquitto()) if find_tool("mosquitto") else None
        self._stack.callback(self.stop_edge)
        self.site.start_cloud()
        self.site.apply_crds(self.kubectl)
        self.site.kubectl(self.kubectl, "apply", "-f", "-", stdin=MODEL)
        self.add_devices(range(self.devices))
        self.site.join(NODE)
        if self._counted:
            self.link = self._stack.enter_context(Forwarder(self.site.ports["link"]))
            config = self._directory / NODE / "edgecore.yaml"
            settings = yaml.safe_load(config.read_text())
            settings["cloud"]["link"] = f"127.0.0.1:{self.link.port}"
            config.write_text(yaml.safe_dump(settings))
        self.start_edge(self.broker)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def add_devices(self, numbers: range) -> None:
        # kubectl asks no more than 50 times a second, and has a minute for each of its runs here.
        for first in numbers[::200]:
            some = range(first, min(first + 200, numbers.stop))
            text = "---".join(DEVICE.replace("NAME", name_of(number)) for number in some)
            self.site.kubectl(self.kubectl, "apply", "-f", "-", stdin=text)

    # The edge

    def start_edge(self, broker: str, *, wait: bool = True, local_api: bool = True) -> None:
        """Start edgecore, with a local API or without; returns when it is in sync and its broker has it, or at once."""
        self.broker = broker
        assert broker == "embedded" or self.mosquitto is not None, "mosquitto is missing: run scripts/setup-tools"
        self.mqtt_port = free_port() if broker == "embedded" else self.mosquitto.port if self.mosquitto else 0
        self.api_port = free_port()
        program = [sys.executable, "-m", "edgecore"] if self._edgecore is None else [str(self._edgecore)]
        arguments = ["--data-dir", str(self._directory / NODE), "--api", f"127.0.0.1:{self.api_port}"]
        arguments += ["--mqtt", broker if broker == "embedded" else f"mqtt://127.0.0.1:{self.mqtt_port}"]
        arguments += ["--mqtt-listen", f"127.0.0.1:{self.mqtt_port}"] if broker == "embedded" else []
        if not local_api:
            configuration = self._directory / NODE / "without-api.yaml"
            text = (self._directory / NODE / "edgecore.yaml").read_text()
            configuration.write_text(
                re.sub(r"^(api:\n(?: .*\n)*? +enabled:) true", r"\1 false", text, flags=re.MULTILINE)
            )
            arguments += ["--config", str(configuration)]
        with (self._directory / "edge.log").open("ab") as log:
            self.edge = subprocess.Popen(
                [*program, "run", *arguments],
                stdout=log,
                stderr=log,
                env=self.site.environment,
                cwd=ROOT if self._edgecore is None else self._directory,
            )
        if wait:
            self.site.until(self._edge_is_ready, f"{NODE} is in sync:\n{self.edge_log()}")

    def edge_log(self) -> str:
        return (self._directory / "edge.log").read_text()

    def _edge_is_ready(self) -> bool:
        status = self.site.edge_status(NODE)
        return bool(status.get("inSync") and status.get("mqttConnected") and status.get("devices") == self.devices)

    def stop_edge(self) -> None:
        if self.edge is not None:
            self.edge.terminate()
            self.edge.wait(10)
            self.edge = None

    # Clients of the apiserver

    def connect(self) -> http.client.HTTPSConnection:
        """A connection to the apiserver, with its headers in `_headers`."""
        kubeconfig = yaml.safe_load(self.site.kubeconfig.read_text())
        cluster, user = kubeconfig["clusters"][0]["cluster"], kubeconfig["users"][0]["user"]
        context = ssl.create_default_context()
        if "certificate-authority-data" in cluster:
            context.load_verify_locations(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        else:
            context.load_verify_locations(self.site.kubeconfig.parent / cluster["certificate-authority"])
        server = urlsplit(cluster["server"])
        self._headers = {"Authorization": f"Bearer {user['token']}"}
        connection = http.client.HTTPSConnection(str(server.hostname), server.port or 443, context=context, timeout=600)
        connection.connect()
        return connection

    def list(self, connection: http.client.HTTPSConnection, plural: str) -> list[dict[str, Any]]:
        """All objects of one of the device kinds."""
        connection.request("GET", f"{GROUP}/{plural}", headers=self._headers)
        items: list[dict[str, Any]] = json.loads(connection.getresponse().read())["items"]
        return items

    @contextlib.contextmanager
    def patcher(self) -> Iterator[Callable[[int, int], float]]:
        """Set a device's setpoint with a PATCH on a kept-alive connection; returns when the request was sent."""
        connection = self.connect()
        headers = {**self._headers, "Content-Type": "application/merge-patch+json"}

        def patch(device: int, value: int) -> float:
            began = time.perf_counter()
            connection.request("PATCH", f"{GROUP}/namespaces/default/devices/{name_of(device)}", wish(value), headers)
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status == 200, body
            return began

        try:
            yield patch
        finally:
            connection.close()

    @contextlib.contextmanager
    def watch(self, plural: str, told: Callable[[dict[str, Any]], tuple[str, str] | None]) -> Iterator["Sightings"]:
        """What a watch on `plural` tells, and when."""
        connection = self.connect()
        connection.request("GET", f"{GROUP}/{plural}", headers=self._headers)
        version = json.loads(connection.getresponse().read())["metadata"]["resourceVersion"]
        sightings = Sightings()

        def saw(at: float, line: bytes) -> None:
            if (what := told(json.loads(line)["object"])) is not None:
                sightings.saw(what, at)

        path = f"{GROUP}/{plural}?watch=true&resourceVersion={version}"
        with following(connection, path, saw, self._headers):
            yield sightings

    # Clients of the broker

    @contextlib.contextmanager
    def client(
        self, topic: str = "", told: Callable[[str, dict[str, Any]], tuple[str, str] | None] | None = None
    ) -> Iterator[tuple[mqtt.Client, "Sightings"]]:
        """A connected paho client; what comes on `topic` is noted as `told` reads it."""
        sightings = Sightings()
        ready = threading.Event()
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="benchmark")

        def heard(_: object, __: object, message: mqtt.MQTTMessage) -> None:
            at = time.perf_counter()
            if told is not None and message.payload:
                what = told(message.topic, json.loads(message.payload))
                if what is not None:
                    sightings.saw(what, at)

        client.on_message = heard
        client.on_connect = lambda *_: client.subscribe(topic or DELTAS, 0) and None
        client.on_subscribe = lambda *_: ready.set()
        # Without this each publication of quality of service 1 waits for a delayed acknowledgement.
        client.on_socket_open = _without_delay
        client.connect("127.0.0.1", self.mqtt_port)
        client.loop_start()
        assert ready.wait(WITHIN_S), "the broker does not answer"
        try:
            yield client, sightings
        finally:
            client.disconnect()
            client.loop_stop()


def _without_delay(_: object, __: object, sock: Any) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class Sightings:
    """(device, value) pairs and when each was first seen."""

    def __init__(self) -> None:
        self._at: dict[tuple[str, str], float] = {}
        self._news: queue.SimpleQueue[tuple[tuple[str, str], float]] = queue.SimpleQueue()

    def saw(self, what: tuple[str, str], at: float) -> None:
        self._news.put((what, at))

    def wait(self, device: str, value: str, within_s: float = WITHIN_S) -> float:
        """When it was seen, on the perf_counter clock."""
        by = time.monotonic() + within_s
        while (device, value) not in self._at:
            try:
                what, at = self._news.get(timeout=max(0.001, by - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"not within {within_s:g} s: {device} with {value}") from None
            self._at.setdefault(what, at)
        return self._at[device, value]


def wish(value: int) -> str:
    """A merge patch for the setpoint."""
    properties = [{"name": "temperature"}, {"name": "setpoint", "desired": {"value": str(value)}}]
    return json.dumps({"spec": {"properties": properties}})


def desired_in(device: dict[str, Any]) -> tuple[str, str] | None:
    """What a Device asks of its setpoint."""
    for each in device["spec"].get("properties", ()):
        if each["name"] == "setpoint" and "desired" in each:
            return device["metadata"]["name"], each["desired"]["value"]
    return None


def reported_in(status: dict[str, Any]) -> tuple[str, str] | None:
    """What a DeviceStatus says of the temperature."""
    for each in status.get("status", {}).get("twins", ()):
        if each["propertyName"] == "temperature" and each.get("reported"):
            return status["metadata"]["name"], each["reported"]["value"]
    return None


def delta_in(topic: str, payload: dict[str, Any]) -> tuple[str, str] | None:
    """What a delta message asks of the setpoint."""
    value = payload.get("delta", {}).get("setpoint")
    return None if value is None else (topic.split("/")[4], value)
