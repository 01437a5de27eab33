"""
Faults against real processes: kill -9, half-open and slow links, brokers and hubs that come and go.

One cloud serves the whole file; each test has nodes of its own and leaves the cloud running, or starts it
anew. What a test measures it prints as "figure: ...", which `pytest -s` shows.
"""

import asyncio
import contextlib
import json
import os
import queue
import random
import re
import shutil
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from apimachinery.errors import NotFound
from apimachinery.events import Change, EventType
from apimachinery.keys import Node, ObjectKey, ObjectVersion
from apimachinery.objects import Object
from apimachinery.resources import DEVICE_STATUSES, DEVICES, NODES, PODS
from cloudhub.apiclient import ApiClient
from cloudhub.placement import STANDARD_RULES, Placement, with_definitions
from cloudhub.projection import project
from componentbase import statusz
from componentbase.errors import CommandError
from devicetwin.documents import TWIN_PREFIX, read_documents
from devicetwin.messages import DeviceId
from link.peer import Role
from link.transports import OPEN_S
from link.websocket import PATH
from metamanager.store import Store
from tests.conftest import KUBECTLS, find_tool
from tests.harness.mosquitto import Mosquitto, free_port
from tests.harness.pahoclient import hang_up
from tests.harness.pods import deployed_pod
from tests.harness.proxy import Proxy
from tests.harness.sides import Side
from tests.harness.site import Process, Site
from tests.test_websocket import serving

T = TypeVar("T")

HEARTBEAT_S = 1.0
DEAD_S = 2.5 * HEARTBEAT_S
NODE_GRACE_S = 3.0
REPORT_INTERVAL_S = 0.1
HUBS = ("cloud", "second")
PATIENT = ("patient", "other")
"""Replicas that do not notice by themselves that a link is dead."""
BULK = "bulk"
BULK_PODS = 2000
PROPERTIES = tuple(f"p{number}" for number in range(10))

CLOUD = f"""
link: {{heartbeatSeconds: %g, graceSeconds: 60}}
nodes: {{graceSeconds: {NODE_GRACE_S}}}
reports: {{minIntervalSeconds: {REPORT_INTERVAL_S}}}
"""


def figure(what: str, value: object) -> None:
    print(f"figure: {what}: {value}")


class Line(Site):
    """A site whose edges reach the hub through whatever the test puts in between."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._runner = asyncio.Runner()
        self._client: ApiClient | None = None
        self.hubs: list[str] = []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            self._runner.run(self._client.close())
        self._runner.close()
        super().__exit__(kind, error, trace)

    def start_hub(self, name: str = "cloud", heartbeat_s: float = HEARTBEAT_S) -> Process:
        """A cloudcore that notices silence soon; its ports are kept over restarts."""
        if name not in self.hubs:
            self.hubs.append(name)
        config = self.directory / f"{name}.yaml"
        config.write_text(CLOUD % heartbeat_s)
        for port in ("link", "join"):
            self.ports.setdefault(f"{name}-{port}", free_port())
        process = self.start(
            name,
            *("cloudcore", "run", "--config", str(config)),
            *("--kubeconfig", str(self.hub_kubeconfig()), "--data-dir", str(self.directory / name)),
            *("--listen", f"127.0.0.1:{self.ports[f'{name}-link']}"),
            *("--join-listen", f"127.0.0.1:{self.ports[f'{name}-join']}"),
        )
        self.until(lambda: self.hub(name).get("link"), "cloudcore serves", process)
        return process

    def enrol(self, node: str, hub_port: int | None = None, hub_host: str = "127.0.0.1") -> None:
        """Join, and dial the hub at this port from now on."""
        self.ports["join"] = self.ports["cloud-join"]
        self.join(node)
        if hub_port is not None:
            self.redirect(node, hub_port, hub_host)

    def redirect(self, node: str, hub_port: int, hub_host: str = "127.0.0.1") -> None:
        path = self.directory / node / "edgecore.yaml"
        text, count = re.subn(r"(?m)^(  link:) .*$", rf'\1 "{hub_host}:{hub_port}"', path.read_text())
        assert count == 1, "edgecore.yaml says once where the hub is"
        path.write_text(text)

    def hub(self, name: str = "cloud") -> Mapping[str, Any]:
        """What `cloudcore status` knows, without the start of a command; {} where it does not run."""
        return ask(self.directory / name / "cloudcore.sock")

    def edge(self, node: str) -> Mapping[str, Any]:
        return ask(self.directory / node / "edgecore.sock")

    def session(self, node: str, name: str = "cloud") -> Mapping[str, Any]:
        """The hub's line on a node; {} where it knows of none."""
        return next((each for each in self.hub(name).get("nodes", ()) if each["node"] == node), {})

    def kill_hub(self, name: str = "cloud") -> None:
        """kill -9, after a look at what it leaves behind."""
        self.assert_nothing_was_healed(name)
        self.processes[name].kill()

    def assert_nothing_was_healed(self, name: str) -> None:
        """No fault may ever need the self-heal, which would hide it."""
        figures = self.metrics("cloudcore", name)
        assert (figures["hub_divergences_total"], figures["hub_healed_total"]) == (0, 0), name

    def is_quiet(self, node: str, *hubs: str) -> bool:
        """The node holds all there is, as far as both ends know."""
        sessions = [self.session(node, name) for name in hubs or ("cloud",)]
        return bool(
            self.edge(node).get("inSync")
            and any(each and each["connected"] and each["synced"] and not each["dirty"] for each in sessions)
        )

    def soon(self, condition: Callable[[], object], what: str, within_s: float = 30.0) -> float:
        """Wait for it; how long that took."""
        start = looked = time.monotonic()
        while not condition():
            now = time.monotonic()
            if now > start + within_s:
                logs = "\n".join(f"---- {each.name}\n{each.tail(12)}" for each in self.processes.values())
                raise AssertionError(f"not within {within_s} s: {what}\n{logs}")
            # A look costs those who are asked as much as us: it rests the longer, the longer it took.
            time.sleep(min(max(0.01, 4 * (now - looked)), 0.05))
            looked = time.monotonic()
        return time.monotonic() - start

    def do(self, work: Callable[[ApiClient], Awaitable[T]]) -> T:
        """Run a coroutine with the file's one client of the apiserver."""

        async def run() -> T:
            if self._client is None:
                self._client = ApiClient.from_kubeconfig(self.kubeconfig)
            return await work(self._client)

        return self._runner.run(run())

    def equal(self, node: str) -> int:
        """Stop the edge when all is quiet: its store is, object by object, what the apiserver says. How many."""

        def is_settled() -> bool:
            # Nodes change by themselves, when one is given up: so their list is the same before and after.
            before = self.do(versions_of_nodes)
            wanted.clear()
            wanted.update(self.do(lambda client: expected(client, node)) if self.is_quiet(node, *self.hubs) else {})
            after = self.do(versions_of_nodes)
            return bool(wanted) and before == after and self.is_quiet(node, *self.hubs)

        wanted: dict[ObjectKey, Object] = {}
        self.soon(is_settled, f"{node} is settled")
        assert self.processes[node].stop() == 0
        found = asyncio.run(held(self.directory / node / "edge.db"))
        assert {str(key) for key in found} == {str(key) for key in wanted}
        assert [str(key) for key, item in wanted.items() if found[key] != (item.version, item.body)] == []
        return len(wanted)


def ask(path: Path) -> Mapping[str, Any]:
    try:
        return statusz.ask(path, "it")
    except CommandError:
        return {}


async def versions_of_nodes(client: ApiClient) -> list[tuple[ObjectKey, ObjectVersion]]:
    listed, _ = await client.list(NODES)
    return [(each.key, each.version) for each in listed]


async def expected(client: ApiClient, node: str) -> dict[ObjectKey, Object]:
    """What this node should hold: everything listed, placed and projected afresh."""
    placement = Placement(with_definitions(STANDARD_RULES))
    objects: dict[ObjectKey, Object] = {}
    for resource in placement.resources():
        listed, _ = await client.list(resource)
        for item in listed:
            objects[item.key] = project(item)
            placement.observe(Change(1, EventType.ADDED, objects[item.key], None))
    return {key: objects[key] for key in placement.keys(Node(node)) if key in objects}


async def held(path: Path) -> dict[ObjectKey, object]:
    store = await Store.open(path)
    try:
        found: dict[ObjectKey, object] = {}
        for key, version in await store.held():
            stored = await store.get(key)
            assert stored is not None
            found[key] = (version, stored.object.body)
        return found
    finally:
        await store.close()


def pod(name: str, node: str, text: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": {"text": text}},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]},
    }


def noise(rng: random.Random, size: int) -> str:
    """Text that does not compress to nothing."""
    return f"{rng.getrandbits(size * 4):0{size}x}"


async def in_parallel(work: Iterable[Any], lanes: int = 8) -> None:
    """Await what an iterable of coroutines gives, a few at a time."""
    rest = iter(work)

    async def lane() -> None:
        for each in rest:
            await each

    async with asyncio.TaskGroup() as tasks:
        for number in range(lanes):
            tasks.create_task(lane(), name=f"lane[{number}]")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    kubectl = next(tool for name in (*KUBECTLS, "kubectl") if (tool := find_tool(name)))
    with Line(tmp_path_factory.mktemp("line")) as line:
        line.start_hub()
        line.apply_crds(kubectl)
        line.do(make_model)
        yield line


@pytest.fixture
def line(shared: Line) -> Iterator[Line]:
    """The site with its cloud up; what else a test starts ends with the test."""
    if not shared.processes["cloud"].is_running():
        shared.start_hub()
    yield shared
    for name in HUBS:
        if name in shared.processes and shared.processes[name].is_running():
            shared.assert_nothing_was_healed(name)
    for name, process in list(shared.processes.items()):
        if name not in ("api", "cloud"):
            if process.is_running():
                process.kill()
            del shared.processes[name]


@pytest.fixture(scope="module")
def bulk(shared: Line) -> Line:
    """The site with 2,000 pods of about 4.5 KB for one node, b0 to b1999, as Deployments make them."""
    rng = random.Random(1)
    start = time.monotonic()

    def numbered(number: int) -> dict[str, Any]:
        value = deployed_pod(number, BULK, rng)
        value["metadata"]["name"] = f"b{number}"
        return value

    shared.do(
        lambda client: in_parallel(client.create(PODS, "default", numbered(number)) for number in range(BULK_PODS))
    )
    shared.soon(lambda: shared.hub().get("objects", 0) >= BULK_PODS, "the hub has them all")
    figure(f"apiserver takes {BULK_PODS} pods in", f"{time.monotonic() - start:.1f} s")
    return shared


# ---- devices


async def make_model(client: ApiClient) -> None:
    properties = [{"name": name, "type": "INT", "accessMode": "ReadWrite"} for name in PROPERTIES]
    await client.create(
        ObjectKey(DEVICES, "", "").resource._replace(plural="devicemodels", kind="DeviceModel"),
        "default",
        {
            "apiVersion": DEVICES.api_version,
            "kind": "DeviceModel",
            "metadata": {"name": "counter"},
            "spec": {"protocol": "custom", "properties": properties},
        },
    )


def device_body(name: str, node: str) -> dict[str, Any]:
    spec = {
        "deviceModelRef": {"name": "counter"},
        "nodeName": node,
        "protocol": {"protocolName": "custom"},
        "properties": [{"name": each} for each in PROPERTIES],
    }
    return {
        "apiVersion": DEVICES.api_version,
        "kind": DEVICES.kind,
        "metadata": {"name": name},
        "spec": spec,
    }


def make_device(line: Line, name: str, node: str) -> None:
    line.do(lambda client: client.create(DEVICES, "default", device_body(name, node)))


def reported(line: Line, device: str) -> dict[str, int]:
    """Reported values in the DeviceStatus."""

    async def get(client: ApiClient) -> dict[str, Any]:
        try:
            return await client.get(ObjectKey(DEVICE_STATUSES, "default", device))
        except NotFound:
            return {}

    twins = (line.do(get).get("status") or {}).get("twins") or ()
    values = ((each["propertyName"], (each.get("reported") or {}).get("value")) for each in twins)
    return {name: int(value) for name, value in values if value}


class Publisher:
    """A device's client that, as a rule, never sends anything twice, so that a PUBACK is all there is to rely on."""

    def __init__(self, port: int, device: str, name: str = "device", *, again: bool = False) -> None:
        """again: connect again and send again what was not acknowledged, as MQTT clients do."""
        self.acked: set[int] = set()
        self.sent: dict[int, tuple[str, int]] = {}
        self.heard: queue.Queue[dict[str, Any]] = queue.Queue()
        self.lost = False
        self._topic = f"$hw/events/device/default/{device}/twin"
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name, reconnect_on_failure=again)
        self._client.reconnect_delay_set(1, 1)
        self._client.max_inflight_messages_set(0)
        self._client.on_publish = lambda _client, _data, mid, *_: self.acked.add(mid)
        self._client.on_message = lambda _client, _data, message: self.heard.put(json.loads(message.payload))
        self._client.on_disconnect = self._disconnected
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._client.subscribe([(f"{self._topic}/update/result", 1), (f"{self._topic}/get/result", 1)])

    def report(self, values: Mapping[str, int]) -> None:
        twin = {name: {"actual": {"value": str(value)}, "metadata": {"type": "int"}} for name, value in values.items()}
        event = "-".join(f"{name}.{value}" for name, value in values.items())
        payload = json.dumps({"event_id": event, "timestamp": 1, "twin": twin})
        mid = self._client.publish(f"{self._topic}/update", payload, 1).mid
        for name, value in values.items():
            self.sent[mid] = (name, value)

    def ask(self) -> dict[str, Any]:
        """twin/get, and its answer."""
        self._client.publish(f"{self._topic}/get", json.dumps({"event_id": "ask", "timestamp": 1}), 1)
        while (answer := self.heard.get(timeout=10)).get("event_id") != "ask":
            pass
        return answer

    def acknowledged(self) -> dict[str, int]:
        """The last acknowledged value of each property."""
        found: dict[str, int] = {}
        for mid, (name, value) in self.sent.items():
            if mid in self.acked:
                found[name] = max(value, found.get(name, 0))
        return found

    def close(self) -> None:
        hang_up(self._client)

    def _disconnected(self, *_: object) -> None:
        self.lost = True


@contextlib.contextmanager
def publisher(port: int, device: str, name: str = "device", *, again: bool = False) -> Iterator[Publisher]:
    client = Publisher(port, device, name, again=again)
    try:
        yield client
    finally:
        client.close()


def connected(line: Line, node: str) -> bool:
    return bool(line.edge(node).get("mqttConnected"))


def knows(line: Line, node: str, devices: int) -> bool:
    return connected(line, node) and line.edge(node)["devices"] == devices


# ---- MQTT durability


async def last_committed(path: Path, device: str) -> int:
    """The greatest value in the twin of a process that was killed."""
    store = await Store.open(path)
    try:
        twin = read_documents(await store.documents(TWIN_PREFIX)).twins[DeviceId("default", device)]
        return max((int(each.reported.value) for each in twin.properties.values() if each.reported), default=0)
    finally:
        await store.close()


@pytest.mark.parametrize(
    "kills", [5, pytest.param(100, marks=[pytest.mark.soak, pytest.mark.timeout(0)])], ids=["5", "100"]
)
@pytest.mark.parametrize("broker", ["embedded", "mosquitto"])
@pytest.mark.timeout(90)
def test_what_was_acknowledged_to_a_device_survives_kill_9_in_the_middle_of_bursts(
    line: Line, broker: str, kills: int
) -> None:
    node = f"mqtt-{broker}-{kills}"
    rng = random.Random(3)
    with contextlib.ExitStack() as stack:
        mosquitto = stack.enter_context(Mosquitto(persistent=True)) if broker == "mosquitto" else None
        url = "embedded" if mosquitto is None else f"mqtt://127.0.0.1:{mosquitto.port}"
        line.enrol(node, line.ports["cloud-link"])
        make_device(line, node, node)
        line.start_edge(node, mqtt=url, wait=False)
        port = line.ports[f"{node}-mqtt"] if mosquitto is None else mosquitto.port
        line.soon(lambda: knows(line, node, 1), "the node knows its device")
        due: dict[str, int] = {}
        value = acknowledged = amid = 0
        for round_ in range(kills):
            before = value
            with publisher(port, node, f"device-{round_}") as device:
                after = rng.randrange(1, 120)
                for number in range(150):
                    if number == after:
                        # An answer comes after the commit, so these are committed and the rest will be on its way.
                        line.soon(lambda: device.heard.qsize() >= after, "the first are answered")  # noqa: B023
                    value += 1
                    device.report({rng.choice(PROPERTIES): value})
                time.sleep(rng.random() * 0.02)  # anywhere in the work on a batch
                line.processes[node].kill()
                if mosquitto is not None:
                    line.soon(lambda: len(device.acked) >= 150, "mosquitto has them all")
                acknowledged += len(device.acked)
                due |= device.acknowledged()
            amid += before < asyncio.run(last_committed(line.directory / node / "edge.db", node)) < value
            if mosquitto is not None and round_ % 5 == 2:
                # What the broker promised to keep while nobody was there, it keeps over its own restart.
                mosquitto.stop()
                mosquitto.start()
            line.start_edge(node, mqtt=url, wait=False)
            line.soon(lambda: connected(line, node), "edgecore is back at the broker")

        def arrived() -> bool:
            found = reported(line, node)
            return all(found.get(name, 0) >= last for name, last in due.items())

        took = line.soon(arrived, f"what was acknowledged: {due}")
        assert max(reported(line, node).values()) <= value
        figure(
            f"{broker}: acknowledged of {value} over {kills} kills, {amid} of them between two commits",
            f"{acknowledged}; all there {took:.1f} s after the last",
        )
        assert amid >= kills // 3, "the kills are to come in the middle"
        line.soon(lambda: line.edge(node)["reportsWaiting"] == 0, "nothing is left to send")


@pytest.mark.timeout(150)  # a node that found no broker looks again within 15 s, and there are four rounds
def test_a_broker_killed_after_the_answer_loses_nothing(line: Line) -> None:
    node = "mqtt-killed"
    with Mosquitto(persistent=True) as mosquitto:
        line.enrol(node, line.ports["cloud-link"])
        make_device(line, node, node)
        line.start_edge(node, mqtt=f"mqtt://127.0.0.1:{mosquitto.port}", wait=False)
        value = 0
        for round_ in range(4):
            line.soon(lambda: knows(line, node, 1), "edgecore is at the broker")
            with publisher(mosquitto.port, node) as device:
                for _ in range(20):
                    value += 1
                    device.report({"p0": value})
                answers = 0
                while answers < 20:
                    assert "p0" in device.heard.get(timeout=10)["twin"]
                    answers += 1
                mosquitto.kill() if round_ % 2 else mosquitto.stop()
            line.soon(lambda: not connected(line, node), "edgecore notices")
            line.soon(lambda: reported(line, node).get("p0") == value, "the cloud has it without a broker")  # noqa: B023
            mosquitto.start()


# ---- the cloud away


@pytest.mark.timeout(90)
def test_reports_made_while_the_cloud_is_down_arrive_also_after_a_restart_of_the_edge(line: Line) -> None:
    node = "orphan"
    line.enrol(node, line.ports["cloud-link"])
    make_device(line, node, node)
    line.start_edge(node)
    line.soon(lambda: knows(line, node, 1), "the node knows its device")
    line.kill_hub()
    last: dict[str, int] = {}
    port = line.ports[f"{node}-mqtt"]
    for round_ in range(2):
        with publisher(port, node) as device:
            for number in range(300):
                name = PROPERTIES[number % len(PROPERTIES)]
                last[name] = 1000 * round_ + number
                device.report({name: last[name]})
            line.soon(lambda: len(device.acked) == 300, "all are taken")
        assert line.edge(node)["reportsWaiting"] >= len(PROPERTIES)
        if not round_:
            line.processes[node].kill()
            line.start_edge(node, wait=False)
            line.soon(lambda: connected(line, node), "edgecore is back")
    line.start_hub()
    took = line.soon(lambda: reported(line, node) == last, f"the last values {last}", 60)
    figure("reports of an outage all there, after the cloud was back", f"{took:.1f} s")
    line.soon(lambda: line.edge(node)["reportsWaiting"] == 0, "nothing is left to send")


@pytest.mark.parametrize("burst", [10, 100])
@pytest.mark.timeout(60)
def test_twenty_bursts_of_reports_end_with_the_right_last_value(line: Line, burst: int) -> None:
    node = f"burst-{burst}"
    line.enrol(node, line.ports["cloud-link"])
    make_device(line, node, node)
    line.start_edge(node)
    line.soon(lambda: knows(line, node, 1), "the node knows its device")
    value = 0
    times = []
    with publisher(line.ports[f"{node}-mqtt"], node) as device:
        for _ in range(20):
            for _ in range(burst):
                value += 1
                device.report({"p0": value})
            times.append(line.soon(lambda: reported(line, node).get("p0") == value, f"{value}"))  # noqa: B023
    figure(f"burst of {burst}: last value in the cluster after", f"{max(times):.2f} s at worst of 20")


# ---- the node alone


SLOW_DNS = """
import socket, time
_real = socket.getaddrinfo
def getaddrinfo(host, *args, **kwargs):
    if host and str(host).endswith(".invalid"):
        time.sleep(20)  # a resolver whose servers do not answer
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    return _real(host, *args, **kwargs)
socket.getaddrinfo = getaddrinfo
"""


def local(line: Line, node: str, path: str) -> tuple[dict[str, Any], str]:
    """An answer of the local API, and how stale it says it is."""
    with urllib.request.urlopen(f"{line.local_api(node)}{path}", timeout=5) as answer:
        return json.loads(answer.read()), answer.headers["x-fairlead-stale-seconds"]


@pytest.mark.parametrize("dns", ["fails", "hangs"])
@pytest.mark.timeout(120)
def test_a_node_without_any_network_starts_serves_and_catches_up(
    line: Line, dns: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = f"alone-{dns}"
    line.enrol(node, line.ports["cloud-link"])
    make_device(line, node, node)
    line.do(lambda client: client.create(PODS, "default", pod(node, node, "one")))
    line.start_edge(node)
    with publisher(line.ports[f"{node}-mqtt"], node) as device:
        device.report({"p1": 7})
        line.soon(lambda: reported(line, node).get("p1") == 7, "the first report")
    line.soon(lambda: line.is_quiet(node), "in sync")
    assert line.processes[node].stop() == 0

    def answers() -> bool:
        with contextlib.suppress(OSError):
            return bool(local(line, node, "/api/v1/pods")[0]["items"])
        return False

    line.environment["PYTHONPATH"] = str(tmp_path)  # so that both are started anew, and neither forked
    start = time.monotonic()
    line.start_edge(node, wait=False)
    line.soon(answers, "the local API answers")
    with_network_s = time.monotonic() - start
    assert line.processes[node].stop() == 0

    line.redirect(node, 10000, "hub.invalid")
    if dns == "hangs":
        (tmp_path / "sitecustomize.py").write_text(SLOW_DNS)
    start = time.monotonic()
    line.start_edge(node, wait=False)
    monkeypatch.delitem(line.environment, "PYTHONPATH")
    line.soon(answers, "the local API answers")
    api_s = time.monotonic() - start
    line.soon(lambda: connected(line, node), "the broker is there")
    with publisher(line.ports[f"{node}-mqtt"], node) as device:
        twin = device.ask()["twin"]
        figure(
            f"no network, DNS {dns}: local API after (with it), twin/get after",
            f"{api_s:.2f} s ({with_network_s:.2f} s), {time.monotonic() - start:.2f} s",
        )
        assert twin["p1"]["actual"]["value"] == "7"
        device.report({"p1": 8})
        line.soon(lambda: len(device.acked) == 2, "the report is taken")
    # Who waited for the link would wait until that gives up, or longer.
    assert api_s < with_network_s + OPEN_S / 2, "it waits for nobody"
    line.soon(lambda: int(local(line, node, "/api/v1/pods")[1]) >= 1, "it says how stale it is")
    told = line.run("edgecore", "status", "--data-dir", str(line.directory / node)).stdout
    assert "not connected to hub.invalid:10000" in told
    assert re.search(r"objects, as of \d+ s ago", told)
    assert re.search(r"reports +[1-9]\d* waiting", told)

    line.do(
        lambda client: client.patch(ObjectKey(PODS, "default", node), {"metadata": {"annotations": {"text": "two"}}})
    )
    stopping = time.monotonic()
    assert line.processes[node].stop() == 0
    figure(f"no network, DNS {dns}: stopped within", f"{time.monotonic() - stopping:.2f} s")
    line.redirect(node, line.ports["cloud-link"])
    line.start_edge(node)
    line.soon(lambda: reported(line, node).get("p1") == 8, "the report that waited")
    line.soon(lambda: line.is_quiet(node), "in sync")
    found, stale = local(line, node, f"/api/v1/namespaces/default/pods/{node}")
    assert (found["metadata"]["annotations"]["text"], stale) == ("two", "0")
    line.equal(node)


# ---- bad links


def ready(line: Line, node: str) -> str:
    """The status of the Node's Ready condition, "" for none."""

    async def get(client: ApiClient) -> dict[str, Any]:
        try:
            return await client.get(ObjectKey(NODES, "", node))
        except NotFound:
            return {}

    conditions = (line.do(get).get("status") or {}).get("conditions") or ()
    return next((str(each["status"]) for each in conditions if each["type"] == "Ready"), "")


@pytest.mark.timeout(60)
def test_a_half_open_link_is_noticed_by_both_sides_and_replaced(line: Line) -> None:
    node = "half-open"
    with Proxy(line.ports["cloud-link"]) as proxy:
        line.enrol(node, proxy.port)
        line.start_edge(node)
        line.soon(lambda: ready(line, node) == "True", "the node is ready")
        noticed: dict[str, float] = {}
        proxy.stall()
        heard = {"edge": proxy.connections[-1].down_at, "hub": proxy.connections[-1].up_at}
        start = time.monotonic()
        while len(noticed) < 2 and time.monotonic() < start + 10:
            for side, is_up in (
                ("edge", line.edge(node)["connected"]),
                ("hub", line.session(node)["connected"]),
            ):
                if not is_up:
                    noticed.setdefault(side, time.monotonic() - heard[side])
            time.sleep(0.02)
        figure("half-open link noticed, after the last that was heard", noticed)
        # Never sooner, whatever the machine does; later by what this loop and a busy machine add, not by as much again.
        assert all(DEAD_S <= noticed[side] < 2 * DEAD_S for side in ("edge", "hub"))
        line.soon(lambda: ready(line, node) == "Unknown", "the Node is not ready")
        line.do(lambda client: client.create(PODS, "default", pod("half-open", node, "meanwhile")))
        proxy.heal()
        back = line.soon(lambda: line.is_quiet(node), "the node is back")
        line.soon(lambda: ready(line, node) == "True", "the node is ready again")
        figure("half-open link: in sync again, after the network was back", f"{back:.1f} s")

        # The edge alone loses the connection: the hub learns of it by the new one, and ends the old one first.
        log = line.processes["cloud"].log
        before, dialled = len(log.read_text()), len(proxy.connections)
        proxy.sever()
        # That it is away may be over before anybody looks: the first redial waits for half a second at most.
        line.soon(lambda: len(proxy.connections) > dialled, "the edge notices, and dials again")
        line.soon(lambda: line.is_quiet(node), "the node is back")
        events = [
            what
            for text in log.read_text()[before:].splitlines()
            if node in text
            and (what := next((each for each in ("session ended", "session opened") if each in text), ""))
        ]
        assert events == ["session ended", "session opened"]
        assert proxy.open_count == 1
        line.equal(node)


@pytest.mark.timeout(90)
def test_a_slow_line_makes_progress_and_is_not_given_up(line: Line) -> None:
    """A frame that takes many heartbeats to arrive is no silence."""
    node = "modem"
    rng = random.Random(8)
    with Proxy(line.ports["cloud-link"], rate=20_000) as proxy:
        for number in range(40):
            body = pod(f"{node}-{number}", node, noise(rng, 2000))
            line.do(lambda client: client.create(PODS, "default", body))  # noqa: B023
        line.enrol(node, proxy.port)
        line.start_edge(node, wait=False)
        took = line.soon(lambda: line.is_quiet(node), "in sync over 20 KB/s", 40)
        figure("90 KB of objects over 20 KB/s", f"{took:.1f} s, {len(proxy.connections)} connection(s)")
        assert len(proxy.connections) == 1
        line.equal(node)


def join_bulk(line: Line, hub_port: int) -> None:
    """The bulk node as a machine that was never in sync, and takes the place of the one before."""
    shutil.rmtree(line.directory / BULK, ignore_errors=True)
    line.ports["join"] = line.ports["cloud-join"]
    line.join(BULK, line.token("--replace", "--nodes", BULK))
    line.redirect(BULK, hub_port)


async def annotate(client: ApiClient, names: Iterable[str], text: Callable[[], str], lanes: int = 8) -> None:
    """Change a pod's annotation, for each of the names."""
    await in_parallel(
        (
            client.patch(ObjectKey(PODS, "default", name), {"metadata": {"annotations": {"text": text()}}})
            for name in names
        ),
        lanes,
    )


@pytest.mark.timeout(180)
def test_a_first_sync_of_2000_objects_over_200_ms_takes_less_than_3_s(bulk: Line, line: Line) -> None:
    """Half of that on a machine that has nothing else to do; on one that has, it may take a second or third try."""
    tries: list[float] = []
    while min(tries, default=3.0) >= 3.0 and len(tries) < 3:
        with Proxy(line.ports["cloud-link"], delay_s=0.1) as proxy:
            join_bulk(line, proxy.port)
            line.start_edge(BULK, wait=False)
            line.soon(lambda: proxy.connections, "it dials")
            start = time.monotonic()
            line.soon(lambda: line.edge(BULK).get("inSync"), "in sync")
            tries.append(time.monotonic() - start)
            said = f"{tries[-1]:.2f} s, {proxy.down} bytes down"
            figure(f"first sync of {BULK_PODS} pods over 200 ms, from the SYN on", said)
            assert line.edge(BULK)["objects"] >= BULK_PODS
            assert len(proxy.connections) == 1
            line.equal(BULK)
    assert min(tries) < 3.0


async def update_and_kill(line: Line, client: ApiClient, victim: str, rng: random.Random) -> tuple[float, float]:
    """Kill and start again in the middle of 1,000 updates that do not wait; when that was, and the link was back."""
    done = 0

    async def update(number: int) -> None:
        nonlocal done
        await client.patch(
            ObjectKey(PODS, "default", f"b{number}"), {"metadata": {"annotations": {"text": noise(rng, 600)}}}
        )
        done += 1

    def kill_and_start() -> tuple[float, float]:
        line.soon(lambda: done >= 500, "half of the updates")
        line.kill_hub() if victim == "cloud" else line.processes[victim].kill()
        killed_at = time.monotonic()
        if victim == "cloud":
            line.start_hub()
            line.soon(lambda: line.session(BULK).get("connected"), "the node is back")
        else:
            line.start_edge(BULK, wait=False)
            line.soon(lambda: line.edge(BULK).get("connected"), "the node is back")
        return killed_at, time.monotonic()

    async with asyncio.TaskGroup() as tasks:
        times = tasks.create_task(asyncio.to_thread(kill_and_start), name="kill")
        tasks.create_task(in_parallel(update(number) for number in range(1000)), name="updates")
    return times.result()


@pytest.mark.timeout(240)
def test_kill_9_of_either_side_in_the_middle_of_1000_updates(bulk: Line, line: Line) -> None:
    rng = random.Random(5)
    with Proxy(line.ports["cloud-link"]) as proxy:
        join_bulk(line, proxy.port)
        line.start_edge(BULK)
        for victim in (BULK, "cloud"):
            killed_at, linked_at = line.do(lambda client: update_and_kill(line, client, victim, rng))  # noqa: B023
            updated_at = time.monotonic()
            line.soon(lambda: line.is_quiet(BULK), "in sync again", 40)
            quiet_at = time.monotonic()
            figure(
                f"kill -9 of {victim} amid 1000 updates",
                f"link up again after {linked_at - killed_at:.1f} s, in sync after {quiet_at - killed_at:.1f} s, "
                f"which is {quiet_at - updated_at:.1f} s after the last update",
            )
            line.equal(BULK)
            if victim != "cloud":
                line.start_edge(BULK)


async def watched_delays(line: Line, node: str, client: ApiClient, count: int, pause_s: float) -> list[float]:
    """From a change at the apiserver to its event on a watch of the node's local API, one after another, in s."""
    port = line.ports[f"{node}-api"]
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    writer.write(b"GET /api/v1/pods?watch=true HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    delays = []
    try:
        for number in range(count):
            mark = f"mark-{number}-"
            start = time.monotonic()
            await client.patch(ObjectKey(PODS, "default", f"{node}-0"), {"metadata": {"annotations": {"text": mark}}})
            async with asyncio.timeout(20):
                while mark.encode() not in await reader.readline():
                    pass
            delays.append(time.monotonic() - start)
            await asyncio.sleep(pause_s)
    finally:
        writer.close()
    return delays


def percentile(values: Iterable[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


@pytest.mark.parametrize(
    ("how", "changes"),
    [
        ("trickles", 300),
        pytest.param("trickles", BULK_PODS, marks=pytest.mark.soak),
        pytest.param("stopped", BULK_PODS, marks=pytest.mark.soak),
    ],
)
@pytest.mark.timeout(180)
def test_a_node_that_does_not_read_costs_bounded_memory_and_delays_nobody(
    bulk: Line, line: Line, how: str, changes: int
) -> None:
    fast = f"fast-{how}-{changes}"
    rng = random.Random(fast)  # the same texts again would change nothing
    line.do(lambda client: client.create(PODS, "default", pod(f"{fast}-0", fast, "begin")))
    line.enrol(fast, line.ports["cloud-link"])
    line.start_edge(fast)
    # A fresh hub, so that its memory tells of this test only.
    line.kill_hub()
    line.start_hub()
    cloud = line.processes["cloud"]
    with Proxy(line.ports["cloud-link"]) as proxy:
        join_bulk(line, proxy.port)
        line.start_edge(BULK)
        line.soon(lambda: line.is_quiet(fast), "both are in sync")
        idle = line.do(lambda client: watched_delays(line, fast, client, 60, 0.002))
        before = cloud.rss_kb()[0]
        if how == "stopped":
            os.kill(line.processes[BULK].pid, signal.SIGSTOP)
        else:
            proxy.rate = 2048
        names = [f"b{number}" for number in range(changes)]
        peak = before

        async def flood(client: ApiClient) -> list[float]:
            nonlocal peak
            delays: list[float] = []

            async def measure() -> None:
                nonlocal peak
                while True:
                    delays.extend(await watched_delays(line, fast, client, 20, 0.02))
                    peak = max(peak, cloud.rss_kb()[0])

            async with asyncio.TaskGroup() as tasks:
                probe = tasks.create_task(measure(), name="probe")
                # One lane: several would measure how the apiserver shares one processor, not the hub.
                await annotate(client, names, lambda: noise(rng, 4000), lanes=1)
                probe.cancel()
            return delays

        loaded = line.do(flood)
        peak = max(peak, cloud.rss_kb()[0])
        dirty, sent = line.session(BULK).get("dirty"), proxy.down
        again = line.do(lambda client: watched_delays(line, fast, client, 60, 0.002))
        figure(
            f"{how} reader, {changes} x 4 KB changed for it",
            f"hub's RSS {before >> 10} -> {peak >> 10} MB; {dirty} dirty; change to another node, p50/p99 in ms: "
            + ", ".join(
                f"{name} {1000 * percentile(delays, 0.5):.1f}/{1000 * percentile(delays, 0.99):.1f} (n={len(delays)})"
                for name, delays in (("idle", idle), ("during", loaded), ("after", again))
            ),
        )
        assert sent, "it was connected"
        # The new bodies are 6 MB more in the cache, the old ones are kept for deltas: both are the objects', not its.
        assert peak - before < 40 << 10
        # Who waited for that node would wait two seconds for each of its pods. A machine that is busy with something
        # else holds up one in many, which of sixty are the slowest two or three.
        assert percentile(again, 0.95) < 5 * percentile(idle, 0.95) + 0.05
        assert percentile(loaded, 0.95) < 0.5
        if how == "stopped":
            line.soon(lambda: not line.session(BULK)["connected"], "the hub gives it up")
            os.kill(line.processes[BULK].pid, signal.SIGCONT)
        else:
            assert line.session(BULK)["connected"], "it trickles, so it lives"
            proxy.rate = None
        line.soon(lambda: line.is_quiet(BULK), "in sync after all", 40)
        line.equal(BULK)


@pytest.mark.timeout(60)
def test_pods_bound_to_a_node_that_was_just_made_all_arrive(line: Line) -> None:
    """KubeEdge: 316 of 1,000 pods bound right after their node was created were never sent."""
    node, count = "newborn", 300
    line.enrol(node, line.ports["cloud-link"])
    line.start_edge(node, wait=False)

    async def bind(client: ApiClient) -> float:
        async with asyncio.timeout(20):
            while True:
                try:
                    await client.get(ObjectKey(NODES, "", node))
                except NotFound:
                    await asyncio.sleep(0.001)
                else:
                    break
        start = time.monotonic()
        await in_parallel(client.create(PODS, "default", pod(f"n{number}", node, "x")) for number in range(count))
        return start

    start = line.do(bind)
    bound = time.monotonic()

    def arrived() -> bool:
        return len(local(line, node, "/api/v1/namespaces/default/pods")[0]["items"]) == count

    line.soon(lambda: line.edge(node).get("inSync") and arrived(), "all are there")
    now = time.monotonic()
    figure(
        f"{count} pods bound to a new node in {bound - start:.1f} s all there", f"{now - bound:.2f} s after the last"
    )
    line.soon(lambda: line.is_quiet(node), "in sync")
    line.equal(node)


@pytest.mark.timeout(90)
def test_a_node_moved_between_two_replicas_amid_edits_is_equal_at_the_end(line: Line) -> None:
    node, moves = "mover", 6
    rng = random.Random(9)
    line.start_hub("second")
    names = [f"m{number}" for number in range(40)]
    with Proxy(line.ports["cloud-link"]) as proxy:
        line.do(lambda client: in_parallel(client.create(PODS, "default", pod(name, node, "0")) for name in names))
        line.enrol(node, proxy.port)
        line.start_edge(node)
        line.soon(lambda: ready(line, node) == "True", "the node is ready")
        seen: list[str] = []

        async def edit(client: ApiClient) -> None:
            for move in range(moves):
                proxy.target = line.ports["second-link" if move % 2 == 0 else "cloud-link"]
                # Half of the moves leave the old hub believing in its session until its heartbeat fails.
                proxy.cut() if move % 3 else proxy.sever()
                for number in range(40):
                    name = rng.choice(names)
                    key = ObjectKey(PODS, "default", name)
                    try:
                        if rng.random() < 0.2:
                            await client.delete(key)
                        else:
                            await client.patch(key, {"metadata": {"annotations": {"text": f"{move}.{number}"}}})
                    except NotFound:
                        await client.create(PODS, "default", pod(name, node, f"{move}.{number}"))
                    if number % 10 == 0:
                        body = await client.get(ObjectKey(NODES, "", node))
                        seen.extend(each["status"] for each in body["status"]["conditions"] if each["type"] == "Ready")
                await asyncio.to_thread(line.soon, lambda: line.edge(node).get("connected"), "it is connected")

        line.do(edit)
        line.soon(lambda: line.is_quiet(node, *HUBS), "in sync")
        took = line.soon(lambda: sum(is_live(line, node, hub) for hub in HUBS) == 1, "one live session", 5)
        figure(
            f"{moves} moves between two hubs",
            f"{len(proxy.connections)} connections, ready {set(seen)}, one session after {took:.1f} s",
        )
        assert set(seen) == {"True"}
        assert is_live(line, node, "cloud"), "the last move led there"
        line.soon(lambda: line.is_quiet(node), "in sync")
        # The hub that lost the node does not give it up while the other one renews its Lease.
        end = time.monotonic() + 1.2 * NODE_GRACE_S
        while time.monotonic() < end:
            assert ready(line, node) == "True"
            time.sleep(0.05)
        line.equal(node)


def test_a_replica_whose_link_is_half_open_undoes_no_report_and_ends_its_session(line: Line) -> None:
    """Its heartbeat would tell it after 75 s; the node's Lease, which the other replica takes, tells it at once."""
    node, device, moves = "fenced", "fenced-d", 6
    for name in PATIENT:
        line.start_hub(name, heartbeat_s=30.0)
    make_device(line, device, node)
    with Proxy(line.ports[f"{PATIENT[0]}-link"]) as proxy:
        line.enrol(node, proxy.port)
        line.start_edge(node)
        line.soon(lambda: knows(line, node, 1), "the device is known")
        ended: list[float] = []
        value = 0
        with publisher(line.ports[f"{node}-mqtt"], device) as mapper:
            for move in range(moves):
                left, entered = PATIENT[move % 2], PATIENT[(move + 1) % 2]
                line.soon(partial(is_live, line, node, left), "it is connected")
                proxy.target = line.ports[f"{entered}-link"]
                for step in range(60):
                    value += 1
                    mapper.report({"p0": value})
                    if step == 30:
                        proxy.sever()  # the replica that the node leaves hears nothing
                    time.sleep(0.01)
                line.soon(partial(is_live, line, node, entered), "it is connected to the other one")
                ended.append(line.soon(partial(is_over, line, node, left), "the first has ended", 10))
                line.soon(partial(stands, line, device, value), f"the last value is {value}")
            line.soon(lambda: line.edge(node)["reportsWaiting"] == 0, "every report is taken")
        # Whatever a replica that was left still had to write would come within its retries.
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            assert reported(line, device)["p0"] == value
        figure(f"{moves} moves amid reports, replica left half-open: ends its session after", ended)
        assert all("at another replica" in line.processes[name].log.read_text() for name in PATIENT)


def is_live(line: Line, node: str, hub: str) -> bool:
    return bool(line.session(node, hub).get("connected"))


def is_over(line: Line, node: str, hub: str) -> bool:
    return not is_live(line, node, hub)


def stands(line: Line, device: str, value: int) -> bool:
    return reported(line, device).get("p0") == value


async def test_a_peer_that_asks_on_and_never_reads_is_cut() -> None:
    """What is pushed is bounded by the window; answers to Pings would not be."""
    hub = Side(Role.HUB)
    ping = b"\x89\xfd" + bytes(4) + bytes(125)  # RFC 6455, section 5.5.2: masked, 125 bytes
    async with serving(hub.opened) as listener, asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(
            f"GET {PATH} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        await reader.readuntil(b"\r\n\r\n")
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 64 << 20:
                writer.write(ping * 1000)
                sent += len(ping) * 1000
                await writer.drain()
        writer.close()
        figure("bytes of Pings from a peer that never reads, until it was cut", sent)
        assert sent < 64 << 20
        assert "does not read" in str(await hub.lost)
