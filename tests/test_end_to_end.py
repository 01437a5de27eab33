"""The line, end to end: real processes, real kubectl, real mosquitto, kill -9."""

import asyncio
import json
import queue
import random
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from apimachinery.errors import NotFound
from apimachinery.events import Change, EventType
from apimachinery.keys import Node, ObjectKey, ObjectVersion
from apimachinery.objects import Object
from apimachinery.resources import CONFIG_MAPS, DEVICES, PODS
from cloudhub.apiclient import ApiClient
from cloudhub.placement import STANDARD_RULES, Placement, with_definitions
from cloudhub.projection import project
from metamanager.store import Store
from tests.conftest import KUBECTLS, find_tool
from tests.harness.mosquitto import Mosquitto
from tests.harness.pahoclient import hang_up
from tests.harness.site import Site

NODE = "edge-1"
EDITS = 500

MODEL = """
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: thermo, namespace: default}
spec:
  protocol: custom
  properties:
  - {name: temperature, type: INT, accessMode: ReadOnly, minimum: "-40", maximum: "125", unit: C}
  - {name: setpoint, type: INT, accessMode: ReadWrite, minimum: "0", maximum: "60"}
"""
DEVICE = """
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {name: thermo-1, namespace: default, labels: {description: demo}}
spec:
  deviceModelRef: {name: thermo}
  nodeName: edge-1
  protocol: {protocolName: custom, configData: {slaveID: 1}}
  properties:
  - {name: temperature, collectCycle: 10000, reportCycle: 10000, reportToCloud: true}
  - {name: setpoint, desired: {value: "20", metadata: {type: integer}}}
"""


class Mapper:
    """An existing MQTT mapper: an unmodified client that knows topics and payloads, and nothing of us."""

    def __init__(self, port: int) -> None:
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="some-mapper")
        self._heard: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()
        self._backlog: list[tuple[str, dict[str, Any]]] = []
        self._client.on_message = lambda _, __, message: self._heard.put(
            (message.topic, json.loads(message.payload) if message.payload else {})
        )
        # What is said before the broker knows of the subscription is said to nobody.
        subscribed = threading.Event()
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._client.subscribe("$hw/events/#", 1)
        assert subscribed.wait(10)

    def publish(self, topic: str, payload: object) -> None:
        text = payload if isinstance(payload, str) else json.dumps(payload)
        self._client.publish(topic, text, 1).wait_for_publish(10)

    def report(self, name: str, value: str, event_id: str = "e") -> None:
        twin = {name: {"actual": {"value": value}, "metadata": {"type": "int"}}}
        self.publish(
            "$hw/events/device/default/thermo-1/twin/update", {"event_id": event_id, "timestamp": 1, "twin": twin}
        )

    def hear(self, topic: str, **members: object) -> dict[str, Any]:
        """A message on a topic that has these members, each message once, in whatever order they came."""
        by = time.monotonic() + 15
        while True:
            for place, (heard_topic, payload) in enumerate(self._backlog):
                if heard_topic == topic and all(payload.get(name) == value for name, value in members.items()):
                    del self._backlog[place]
                    return payload
            try:
                self._backlog.append(self._heard.get(timeout=max(0.0, by - time.monotonic())))
            except queue.Empty:
                raise AssertionError(f"nothing on {topic} with {members}; heard {self._backlog}") from None

    def close(self) -> None:
        hang_up(self._client)


@contextmanager
def a_mapper(port: int) -> Iterator[Mapper]:
    mapper = Mapper(port)
    try:
        yield mapper
    finally:
        mapper.close()


DELTA = "$hw/events/device/default/thermo-1/twin/update/delta"
RESULT = "$hw/events/device/default/thermo-1/twin/update/result"


def reported(site: Site, kind: str = "devicestatuses") -> dict[str, str]:
    """Reported values by property, "" for none."""
    twins = site.device("thermo-1", kind).get("status", {}).get("twins", [])
    return {twin["propertyName"]: (twin.get("reported") or {}).get("value", "") for twin in twins}


def condition(site: Site, name: str) -> dict[str, Any]:
    found = site.device("thermo-1").get("status", {}).get("conditions", [])
    return next((each for each in found if each["type"] == name), {})


def set_point(site: Site, kubectl: Path, value: str) -> None:
    properties = [{"name": "temperature"}, {"name": "setpoint", "desired": {"value": value}}]
    patch = json.dumps({"spec": {"properties": properties}})
    site.kubectl(kubectl, "patch", "device", "thermo-1", "--type", "merge", "-p", patch)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A cloud for several nodes, one after another."""
    with Site(tmp_path_factory.mktemp("cloud")) as site:
        site.start_cloud()
        site.apply_crds(next(tool for name in (*KUBECTLS, "kubectl") if (tool := find_tool(name))))
        yield site
        for name in ("cloud", "api"):
            assert site.processes[name].stop() == 0


@pytest.mark.parametrize("broker", ["mosquitto", "embedded"])
@pytest.mark.timeout(180)
def test_a_kubectl_edit_reaches_a_device_and_its_answer_reaches_kubectl(
    cloud: Site, kubectl: Path, broker: str
) -> None:
    site, node = cloud, f"{kubectl.name}-{broker}"
    with Mosquitto() as mosquitto:
        site.join(node)
        site.start_edge(node, mqtt=f"mqtt://127.0.0.1:{mosquitto.port}" if broker == "mosquitto" else "embedded")
        port = mosquitto.port if broker == "mosquitto" else site.ports[f"{node}-mqtt"]
        with a_mapper(port) as mapper:
            # kubectl apply: the mapper learns of the device and of what it should be.
            site.kubectl(kubectl, "apply", "-f", "-", stdin=MODEL + "---" + DEVICE.replace(NODE, node))
            added = mapper.hear(f"$hw/events/node/{node}/membership/updated", removed_devices=None)
            assert added["added_devices"][0]["id"] == "default/thermo-1"
            mapper.hear(DELTA, delta={"setpoint": "20"})

            # The very first report of a property arrives, at both places.
            mapper.report("temperature", "21", "first")
            assert mapper.hear(RESULT, event_id="first")["twin"]["temperature"]["actual"]["value"] == "21"
            site.until(lambda: reported(site).get("temperature") == "21", "the first report")
            site.until(lambda: reported(site, "devices").get("temperature") == "21", "the first report")

            # The device obeys, and says so.
            assert condition(site, "Synced")["status"] == "False"
            mapper.report("setpoint", "20")
            mapper.publish("$hw/events/device/default/thermo-1/state/update", {"event_id": "s", "state": "online"})
            site.kubectl(kubectl, "wait", "--for=condition=Synced", "--timeout=20s", "device/thermo-1")
            site.until(lambda: site.device("thermo-1").get("status", {}).get("state") == "online", "online")

            # kubectl patch: at once a delta on MQTT.
            set_point(site, kubectl, "25")
            mapper.hear(DELTA, delta={"setpoint": "25"})
            line = site.kubectl(kubectl, "get", "devices", "thermo-1").stdout.splitlines()
            assert line[0].split() == ["NAME", "NODE", "MODEL", "ONLINE", "SYNCED", "AGE"]
            assert line[1].split()[:4] == ["thermo-1", node, "thermo", "True"]

            # The node itself.
            assert re.search(rf"(?m)^{node} +Ready ", site.kubectl(kubectl, "get", "nodes").stdout)
            lease = json.loads(
                site.kubectl(kubectl, "get", "lease", node, "-n", "kube-node-lease", "-o", "json").stdout
            )
            assert lease["spec"]["holderIdentity"]

            # kubectl delete: the mapper is told, the status goes with its device.
            site.kubectl(kubectl, "delete", "device", "thermo-1")
            gone = mapper.hear(f"$hw/events/node/{node}/membership/updated", added_devices=None)
            assert gone["removed_devices"][0]["id"] == "default/thermo-1"
            site.until(
                lambda: not site.kubectl(kubectl, "get", "devicestatuses", "-o", "name").stdout,
                "the status is collected",
            )
        assert site.processes[node].stop() == 0


@pytest.mark.timeout(120)
def test_the_local_api_answers_without_the_cloud_and_after_a_restart(kubectl: Path, tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        site.start_cloud()
        site.apply_crds(kubectl)
        site.join(NODE)

        # Before the first sync ever: 503, never an empty list.
        site.processes["cloud"].stop()
        edge = site.start_edge(NODE, wait=False)
        site.until(lambda: site.ask("edgecore", NODE).get("api"), "edgecore serves", edge)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{site.local_api(NODE)}/api/v1/pods")
        assert refused.value.code == 503
        assert refused.value.headers["Retry-After"]
        refused.value.close()
        edge.stop()

        site.start_cloud()
        manifest = """
apiVersion: v1
kind: ConfigMap
metadata: {name: conf}
data: {greeting: hello}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  nodeName: edge-1
  containers: [{name: web, image: nginx, envFrom: [{configMapRef: {name: conf}}]}]
---
"""
        site.kubectl(kubectl, "apply", "-f", "-", stdin=manifest + MODEL + "---" + DEVICE)
        site.start_edge(NODE)
        local = site.local_api(NODE)

        def has_all() -> bool:
            listing = ("get", "devices,pods,configmaps", "-A")
            found = site.kubectl(kubectl, *listing, server=local, check=False).stdout
            return all(each in found for each in ("thermo-1", "web", "conf"))

        # In sync it is with what the hub has seen by then, which need not be all that was applied just now.
        site.until(has_all, "all of it has come")
        for name in ("cloud", NODE):
            assert site.processes[name].stop() == 0
        site.start_edge(NODE, wait=False)
        site.until(lambda: site.ask("edgecore", NODE).get("api"), "edgecore serves again")
        assert has_all()
        assert site.kubectl(kubectl, "get", "pods", "-l", "app=web", "-o", "name", server=local).stdout == "pod/web\n"
        body = json.loads(site.kubectl(kubectl, "get", "configmap", "conf", "-o", "json", server=local).stdout)
        assert body["data"] == {"greeting": "hello"}
        written = site.kubectl(kubectl, "delete", "pod", "web", server=local, check=False)
        assert written.returncode == 1
        status = site.edge_status(NODE)
        assert not status["connected"]
        assert "cannot connect" in status["problem"]


class Editor:
    """Somebody who edits: pods with what they refer to, config maps, devices, all with one apiserver client."""

    def __init__(self, client: ApiClient, rng: random.Random) -> None:
        self._client = client
        self._rng = rng

    async def edit(self, number: int) -> None:
        what = self._rng.randrange(4)
        name = f"x{self._rng.randrange(12)}"
        if what == 0:
            await self._put(ObjectKey(CONFIG_MAPS, "default", name), {"data": {"n": str(number)}})
        elif what == 1:
            volumes = [{"name": "v", "configMap": {"name": f"x{self._rng.randrange(12)}"}}]
            spec: dict[str, Any] = {
                "nodeName": self._rng.choice([NODE, NODE, "another"]),
                "containers": [{"name": "c", "image": f"i:{number}"}],
                "volumes": volumes,
            }
            await self._put(ObjectKey(PODS, "default", name), {"spec": spec})
        elif what == 2:
            properties = [{"name": "setpoint", "desired": {"value": str(number % 60)}}]
            spec = {"nodeName": NODE, "deviceModelRef": {"name": "thermo"}, "properties": properties}
            await self._put(ObjectKey(DEVICES, "default", name), {"spec": spec})
        else:
            resource = self._rng.choice([CONFIG_MAPS, PODS, DEVICES])
            try:
                await self._client.delete(ObjectKey(resource, "default", name))
            except NotFound:
                return

    async def _put(self, key: ObjectKey, content: dict[str, Any]) -> None:
        body = {
            "apiVersion": key.resource.api_version,
            "kind": key.resource.kind,
            "metadata": {"name": key.name},
            **content,
        }
        try:
            await self._client.patch(key, content)
        except NotFound:
            await self._client.create(key.resource, key.namespace, body)


async def expected(client: ApiClient) -> dict[ObjectKey, Object]:
    """What the apiserver says this node should hold: everything listed, placed and projected afresh."""
    placement = Placement(with_definitions(STANDARD_RULES))
    objects: dict[ObjectKey, Object] = {}
    for resource in placement.resources():
        listed, _ = await client.list(resource)
        for item in listed:
            objects[item.key] = project(item)
            placement.observe(Change(1, EventType.ADDED, objects[item.key], None))
    return {key: objects[key] for key in placement.keys(Node(NODE)) if key in objects}


async def held(path: Path) -> dict[ObjectKey, tuple[ObjectVersion, bytes]]:
    store = await Store.open(path)
    try:
        found = {}
        for key, version in await store.held():
            stored = await store.get(key)
            assert stored is not None
            found[key] = (version, stored.object.body)
        return found
    finally:
        await store.close()


@pytest.mark.timeout(180)
def test_killed_in_the_middle_of_500_edits_everything_is_equal_afterwards(tmp_path: Path) -> None:
    kubectl = next(tool for name in (*KUBECTLS, "kubectl") if (tool := find_tool(name)))
    rng = random.Random(1)
    with Site(tmp_path) as site:
        site.start_cloud()
        site.apply_crds(kubectl)
        site.kubectl(kubectl, "apply", "-f", "-", stdin=MODEL)
        site.join(NODE)
        site.start_edge(NODE)

        async def edit_and_kill() -> None:
            async with ApiClient.from_kubeconfig(site.kubeconfig) as client:
                editor = Editor(client, rng)
                for number in range(EDITS):
                    await editor.edit(number)
                    if number in (100, 300):
                        site.processes[NODE].kill()
                        site.start_edge(NODE, wait=False)
                    if number in (200, 400):
                        site.processes["cloud"].kill()
                        await asyncio.to_thread(site.start_cloud)

        asyncio.run(edit_and_kill())

        async def compare() -> tuple[dict[ObjectKey, tuple[ObjectVersion, bytes]], dict[ObjectKey, Object]]:
            async with ApiClient.from_kubeconfig(site.kubeconfig) as client:
                wanted = await expected(client)
            return await held(tmp_path / NODE / "edge.db"), wanted

        def is_quiet() -> bool:
            nodes = site.ask("cloudcore", "cloud").get("nodes", [])
            return bool(
                site.ask("edgecore", NODE).get("inSync") and any(node["synced"] and not node["dirty"] for node in nodes)
            )

        site.until(is_quiet, "the link is up and quiet")
        time.sleep(1.0)  # status writes of the last devices are still under way, and Nodes and Leases move with them
        site.until(is_quiet, "the link is up and quiet")

        # No fault needed the self-heal; asking for it by hand changes nothing.
        figures = site.metrics("cloudcore", "cloud")
        assert figures["hub_divergences_total"] == figures["hub_healed_total"] == 0
        assert figures["hub_nodes_in_sync"] == 1
        surveyed = figures["hub_surveyed_total"]  # 1 where edits came between the hub's start and the node's return
        for program, arguments in (("cloudcore", (NODE, "--data-dir", "cloud")), ("edgecore", ("--data-dir", NODE))):
            *rest, directory = arguments
            told = site.run(program, "resync", *rest, str(site.directory / directory)).stdout
            assert "is compared now" in told
            surveyed += 1
            # Quiet it may still be called before the link that is closed for it is gone.
            site.until(lambda: site.metrics("cloudcore", "cloud")["hub_surveyed_total"] >= surveyed, "it is compared")  # noqa: B023
            site.until(is_quiet, "the link is up and quiet again")
        figures = site.metrics("cloudcore", "cloud")
        assert figures["hub_surveyed_total"] == surveyed, "once for each who asked"
        assert site.metrics("edgecore", NODE)["edge_in_sync"] == 1

        assert site.processes[NODE].stop() == 0
        assert site.processes["cloud"].stop() == 0
        found, wanted = asyncio.run(compare())
        assert len(wanted) > 15
        assert {key: body for key, (_, body) in found.items()} == {key: item.body for key, item in wanted.items()}
        assert {key: version for key, (version, _) in found.items()} == {
            key: item.version for key, item in wanted.items()
        }
