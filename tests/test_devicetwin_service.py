"""
The twins against a real mosquitto and the real store, with an unmodified paho client as the mapper.

Nothing is waited for by time: each wait polls for what it waits for and fails after a deadline.
"""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from apimachinery.keys import ObjectKey, ObjectVersion, Resource
from apimachinery.kubeevents import KubeEvent
from apimachinery.objects import JSON, canonical, revision_of
from apimachinery.resources import DEVICE_MODELS, DEVICES
from componentbase.brokers import BrokerAddress
from devicetwin.bus import Bus
from devicetwin.feed import StoreFeed
from devicetwin.messages import Channel, Delta, DeviceConfig, DeviceId, MapperState, mapper_state_topic
from devicetwin.service import TURN_S, Turn, TwinService
from devicetwin.wire import subscriptions
from link.frames import Batch, Cursor, ReportEntry
from link.frames import Delta as LinkDelta
from metamanager.errors import StoreError
from metamanager.store import Store
from tests.harness.mosquitto import Mosquitto
from tests.harness.pahoclient import hang_up, vanish

DEADLINE_S = 15.0
THERMO = DeviceId("default", "thermo-1")
TWIN = "$hw/events/device/default/thermo-1/twin/"


async def until(is_so: Callable[[], Any], what: str = "") -> Any:
    """What `is_so` returns once it is true."""
    deadline = time.monotonic() + DEADLINE_S
    while not (found := is_so()):
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        await asyncio.sleep(0.01)
    return found


class MapperClient:
    """A mapper as anybody writes one: paho with its own thread."""

    def __init__(self, port: int, name: str = "mapper", will: tuple[str, bytes] | None = None) -> None:
        self.received: list[tuple[str, dict[str, Any]]] = []
        self.raw: list[tuple[str, bytes, bool]] = []
        self.subscribed = 0
        self._up = threading.Event()
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name, clean_session=False)
        if will:
            self.client.will_set(*will, qos=1, retain=True)
        self.client.reconnect_delay_set(0.05, 0.2)  # type: ignore[arg-type]
        self.client.on_connect = self._on_connect
        self.client.on_subscribe = self._on_subscribe
        self.client.on_message = self._on_message
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert self._up.wait(DEADLINE_S)

    def _on_connect(self, client: mqtt.Client, *_: object) -> None:
        client.subscribe([("$hw/events/device/+/+/#", 1), ("$hw/events/node/#", 1)])

    def _on_subscribe(self, *_: object) -> None:
        self.subscribed += 1
        self._up.set()

    def _on_message(self, client: object, userdata: object, message: mqtt.MQTTMessage) -> None:
        self.raw.append((message.topic, bytes(message.payload), message.retain))
        with contextlib.suppress(ValueError):
            self.received.append((message.topic, json.loads(message.payload)))

    def say(self, topic: str, payload: object, *, retain: bool = False) -> mqtt.MQTTMessageInfo:
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        return self.client.publish(topic, data, qos=1, retain=retain)

    def report(self, name: str, value: str, event_id: str = "e", device: DeviceId = THERMO) -> None:
        twin = {name: {"actual": {"value": value}, "metadata": {"type": "int"}}}
        self.say(Channel.TWIN_UPDATE.topic(device), {"event_id": event_id, "timestamp": 1, "twin": twin})

    def on(self, topic: str, event_id: str | None = None) -> list[dict[str, Any]]:
        return [payload for at, payload in self.received if at == topic and event_id in (None, payload.get("event_id"))]

    def stop(self) -> None:
        hang_up(self.client)

    def die(self) -> None:
        """As if killed: the socket goes without a DISCONNECT."""
        vanish(self.client)


class Edge:
    """A store, a feed, a bus and the service: what edgecore joins."""

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory
        self.port = port
        self.seq = 0

    async def open(self) -> None:
        self.store = await Store.open(self.directory / "edge.db")
        self.make(self.store)

    def make(self, twin_store: Any, **settings: Any) -> None:
        settings = {"yields": lambda: False, **settings}
        address = BrokerAddress.parse(f"mqtt://127.0.0.1:{self.port}")
        self.bus = Bus(address, "fairlead-edge1", subscriptions("edge1"))
        self.service = TwinService(
            "edge1", twin_store, StoreFeed(self.store), self.bus, store_errors=(StoreError,), **settings
        )

    async def run(self) -> None:
        try:
            await self.service.run()
        finally:
            await self.store.close()

    async def push(self, *bodies: tuple[Resource, str, Mapping[str, JSON] | None], synced: bool = True) -> None:
        self.seq += 1
        deltas = []
        for resource, name, body in bodies:
            key = ObjectKey(resource, "default", name)
            data = b"" if body is None else canonical(body)
            version = None if body is None else ObjectVersion(f"uid-{name}", revision_of(data))
            deltas.append(LinkDelta(key, version, data))
        await self.store.apply([Batch(Cursor("epoch", self.seq), tuple(deltas), synced)])

    async def reports(self) -> dict[tuple[str, str], Any]:
        pending = await self.store.pending_reports(0, 1 << 20)
        return {(entry.key.name, entry.field): json.loads(entry.value) for _, entry in pending}


MODEL: dict[str, JSON] = {
    "metadata": {"name": "thermostat", "namespace": "default", "uid": "m"},
    "spec": {
        "properties": [
            {"name": "temperature", "type": "INT", "accessMode": "ReadOnly", "unit": "C"},
            {"name": "setpoint", "type": "INT", "accessMode": "ReadWrite", "minimum": "5", "maximum": "35"},
        ]
    },
}


def device(setpoint: str = "", name: str = "thermo-1") -> dict[str, JSON]:
    wish = {"desired": {"value": setpoint}} if setpoint else {}
    return {
        "metadata": {"name": name, "namespace": "default", "uid": f"u-{name}", "labels": {"description": "demo"}},
        "spec": {
            "deviceModelRef": {"name": "thermostat"},
            "nodeName": "edge1",
            "protocol": {"protocolName": "simulated", "configData": {"seed": 7}},
            "properties": [{"name": "temperature", "collectCycle": 500}, {"name": "setpoint", **wish}],
        },
    }


@contextlib.asynccontextmanager
async def edge_running(edge: Edge) -> AsyncIterator[Edge]:
    task = asyncio.create_task(edge.run(), name="edge")
    try:
        yield edge
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def mosquitto() -> Iterator[Mosquitto]:
    # mosquitto drops what is beyond 1,000 messages for one client without a word; docs/mqtt.md says so.
    with Mosquitto("max_queued_messages 0", persistent=True) as broker:
        yield broker


@pytest.fixture
async def edge(tmp_path: Path, mosquitto: Mosquitto) -> AsyncIterator[Edge]:
    edge = Edge(tmp_path, mosquitto.port)
    await edge.open()
    await edge.push((DEVICE_MODELS, "thermostat", MODEL), (DEVICES, "thermo-1", device()))
    async with edge_running(edge):
        await until(lambda: edge.service.status().bus.connected)
        yield edge


@pytest.fixture
def mapper(mosquitto: Mosquitto) -> Iterator[MapperClient]:
    client = MapperClient(mosquitto.port)
    yield client
    client.stop()


async def test_a_report_is_answered_documented_and_queued_for_the_cloud_the_first_one_too(
    edge: Edge, mapper: MapperClient
) -> None:
    mapper.report("temperature", "21", "e1")
    (result,) = await until(lambda: mapper.on(TWIN + "update/result", "e1"))
    assert result["twin"]["temperature"]["actual"]["value"] == "21"
    assert result["twin"]["temperature"]["metadata"] == {"type": "int"}
    (document,) = await until(lambda: mapper.on(TWIN + "update/document", "e1"))
    assert document["twin"]["temperature"]["last"] is None
    report = (await edge.reports())["thermo-1", "property/temperature"]
    assert (report["value"], report["type"]) == ("21", "int")
    assert json.loads((await edge.store.documents("twin/"))["twin/default/thermo-1/temperature"])["reported"]


async def test_a_desired_value_of_the_cloud_reaches_the_device_as_a_delta(edge: Edge, mapper: MapperClient) -> None:
    await edge.push((DEVICES, "thermo-1", device("22")))
    (delta,) = await until(lambda: mapper.on(TWIN + "update/delta"))
    assert delta["delta"] == {"setpoint": "22"}
    mapper.report("setpoint", "22", "done")
    await until(lambda: mapper.on(TWIN + "update/result", "done"))
    assert edge.service.status().open_wishes == 0
    report = (await edge.reports())["thermo-1", "property/setpoint"]
    assert (report["value"], report["desired"]) == ("22", "22")


async def test_a_desired_value_out_of_range_stays_here_and_its_problem_goes_up(
    edge: Edge, mapper: MapperClient
) -> None:
    await edge.push((DEVICES, "thermo-1", device("50")))
    mapper.say(TWIN + "get", {"event_id": "g"})
    (result,) = await until(lambda: mapper.on(TWIN + "get/result", "g"))
    assert result["twin"] == {}
    assert mapper.on(TWIN + "update/delta") == []
    assert "above the model's maximum" in (await edge.reports())["thermo-1", "property/setpoint"]["problem"]


@pytest.mark.parametrize(
    ("topic", "payload", "answer", "code", "event_id"),
    [
        (TWIN + "update", b"not json", TWIN + "update/result", 400, ""),
        (TWIN + "update", b'{"event_id":"x","twin":{"t":{"actual":{"value":1}}}}', TWIN + "update/result", 400, "x"),
        (TWIN + "update", b'{"event_id":"x","twin":{"temperature":{"actual":{"value":"hot"}}}}', TWIN + "update/result", 400, "x"),  # noqa: E501
        (TWIN + "update", b"x" * 300_000, TWIN + "update/result", 413, ""),
        (TWIN + "get", b"", TWIN + "get/result", 400, ""),
        (TWIN + "cloud_updated", b'{"event_id":"c","twin":{}}', TWIN + "update/result", 403, "c"),
        ("$hw/events/device/default/thermo-1/state/update", b'{"event_id":"s","state":"asleep"}', "$hw/events/device/default/thermo-1/state/update/result", 400, "s"),  # noqa: E501
        ("$hw/events/device/default/nosuch/twin/update", b'{"event_id":"n","twin":{}}', "$hw/events/device/default/nosuch/twin/update/result", 404, "n"),  # noqa: E501
    ],
)  # fmt: skip
async def test_rubbish_is_answered_where_its_sender_looks_and_nothing_stops(
    edge: Edge, mapper: MapperClient, topic: str, payload: bytes, answer: str, code: int, event_id: str
) -> None:
    mapper.say("$hw/events/device/default/thermo-1/twin/nonsense", b"\xff\x00")
    mapper.say(topic, payload)
    (error,) = await until(lambda: mapper.on(answer))
    assert (error["code"], error["event_id"]) == (code, event_id)
    mapper.report("temperature", "20", "after")
    await until(lambda: [r for r in mapper.on(TWIN + "update/result", "after") if "twin" in r])


async def test_the_configuration_is_retained_and_taken_away_with_the_device(
    edge: Edge, mosquitto: Mosquitto, mapper: MapperClient
) -> None:
    topic = Channel.CONFIG.topic(THERMO)
    payload = await until(lambda: next((each[1] for each in mapper.raw if each[0] == topic), None))
    config = DeviceConfig.decode(payload)
    assert (config.id, config.node, config.model) == (THERMO, "edge1", "thermostat")
    assert (config.protocol.name, config.protocol.data) == ("simulated", {"seed": 7})
    assert [(each.name, each.type, each.writable, each.collect_cycle_ms) for each in config.properties] == [
        ("temperature", "INT", False, 500),
        ("setpoint", "INT", True, 0),
    ]
    late = MapperClient(mosquitto.port, "late")
    await until(lambda: (topic, payload, True) in late.raw)
    await edge.push((DEVICES, "thermo-1", None))
    await until(lambda: (topic, b"", False) in late.raw)
    late.stop()
    members = "$hw/events/node/edge1/membership/updated"
    assert [each for each in mapper.on(members) if each["removed_devices"]]
    assert await edge.store.documents("twin/") == {}


async def test_the_membership_is_told_on_request(edge: Edge, mapper: MapperClient) -> None:
    await edge.push((DEVICES, "thermo-2", device(name="thermo-2")))
    mapper.say("$hw/events/node/edge1/membership/get", {"event_id": "g2"})
    (members,) = await until(lambda: mapper.on("$hw/events/node/edge1/membership/get/result", "g2"))
    assert members["devices"][0] == {"id": "default/thermo-1", "name": "thermo-1", "description": "demo"}
    await until(
        lambda: [
            each
            for each in mapper.on("$hw/events/node/edge1/membership/updated")
            if each["added_devices"] and each["added_devices"][0]["id"] == "default/thermo-2"
        ]
    )


async def test_a_dead_mapper_turns_its_devices_offline(edge: Edge, mosquitto: Mosquitto, mapper: MapperClient) -> None:
    topic = mapper_state_topic("m1")
    mortal = MapperClient(mosquitto.port, "mortal", will=(topic, MapperState("w", 0, "offline").encode()))
    mortal.say(topic, MapperState("", 0, "online", (THERMO,)).encode(), retain=True)
    mortal.say("$hw/events/device/default/thermo-1/state/update", {"event_id": "s", "state": "online"})
    results = "$hw/events/device/default/thermo-1/state/update/result"
    (online,) = await until(lambda: mapper.on(results))
    assert online["event_id"] == "s"
    mortal.die()
    await until(lambda: [each for each in mapper.on(results) if each["device"]["state"] == "offline"])
    state = (await edge.reports())["thermo-1", "state"]
    assert (state["state"], state["lastOnlineTime"]) == ("offline", online["device"]["lastOnlineTime"])
    assert await edge.store.documents("mapper/") == {}


async def test_a_killed_broker_is_waited_for_and_told_everything_again(
    edge: Edge, mosquitto: Mosquitto, mapper: MapperClient, caplog: pytest.LogCaptureFixture
) -> None:
    mosquitto.kill()
    await until(lambda: not edge.service.status().bus.connected)
    await edge.push((DEVICES, "thermo-1", device("25")), (DEVICES, "thermo-3", device(name="thermo-3")))
    await until(lambda: edge.service.status().devices == 2)
    assert edge.service.status().bus.problem
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert 1 <= len(warnings) <= 2  # the connection that broke, and that the port refuses; not one per attempt
    mosquitto.start()
    # The broker may have lost the mapper's session, and the mapper come back after the edge: so it asks, as it must.
    await until(lambda: mapper.subscribed == 2 and edge.service.status().bus.connected)
    mapper.say(TWIN + "get", {"event_id": "g"})
    await until(lambda: mapper.on(TWIN + "update/delta"))
    assert mapper.on(TWIN + "update/delta")[-1]["delta"] == {"setpoint": "25"}
    topic = Channel.CONFIG.topic(DeviceId("default", "thermo-3"))
    await until(lambda: [each for each in mapper.raw if each[0] == topic])
    await until(lambda: edge.service.status().bus.connected)
    mapper.report("temperature", "18", "again")
    await until(lambda: mapper.on(TWIN + "update/result", "again"))


async def test_reports_that_came_while_edgecore_was_away_are_taken_when_it_is_back(
    tmp_path: Path, mosquitto: Mosquitto, mapper: MapperClient
) -> None:
    edge = Edge(tmp_path, mosquitto.port)
    await edge.open()
    await edge.push(
        (DEVICE_MODELS, "thermostat", MODEL), (DEVICES, "thermo-1", device()), (DEVICES, "gone", device(name="gone"))
    )
    gone = Channel.CONFIG.topic(DeviceId("default", "gone"))
    async with edge_running(edge):
        await until(lambda: edge.service.status().bus.connected)
        mapper.report("temperature", "1", "e0")
        await until(lambda: mapper.on(TWIN + "update/result", "e0"))
        await until(lambda: [each for each in mapper.raw if each[0] == gone])
    for number in range(50):
        mapper.report("temperature", str(number), f"away-{number}")
    await edge.open()
    await edge.push((DEVICES, "gone", None))
    async with edge_running(edge):
        await until(lambda: mapper.on(TWIN + "update/result", "away-49"))
        assert [each for each in range(50) if not mapper.on(TWIN + "update/result", f"away-{each}")] == []
        assert (await edge.reports())["thermo-1", "property/temperature"]["value"] == "49"
        # What left while edgecore was away has no configuration on the broker any more.
        await until(lambda: (gone, b"", False) in mapper.raw)
        assert not [each for each in await edge.store.documents("twin/") if "thermo-1" not in each]


class FullStore:
    """A store whose disk is full until `space` is set: what the service's Protocol asks for, and no more."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.space = True
        self.refused = 0
        self.reports: list[ReportEntry] = []
        """All that were saved, oldest first; the store itself keeps the last of each."""

    async def documents(self, prefix: str = "") -> dict[str, bytes]:
        return await self.store.documents(prefix)

    async def save(
        self,
        documents: Mapping[str, bytes | None],
        reports: Sequence[ReportEntry],
        events: Sequence[KubeEvent],
        samples: Mapping[tuple[ObjectKey, str], tuple[int, str | None]],
        gone: Sequence[ObjectKey],
    ) -> None:
        if not self.space:
            self.refused += 1
            raise StoreError(self.store.path, "no space left on the device")
        await self.store.save(documents, reports, events, samples, gone)
        self.reports += reports


async def test_what_could_not_be_stored_is_not_acknowledged_and_comes_again_after_a_restart(
    tmp_path: Path, mosquitto: Mosquitto, mapper: MapperClient
) -> None:
    edge = Edge(tmp_path, mosquitto.port)
    await edge.open()
    await edge.push((DEVICE_MODELS, "thermostat", MODEL), (DEVICES, "thermo-1", device()))
    disk = FullStore(edge.store)
    edge.make(disk)
    async with edge_running(edge):
        await until(lambda: edge.service.status().bus.connected)
        mapper.report("temperature", "1", "before")
        await until(lambda: mapper.on(TWIN + "update/result", "before"))
        disk.space = False
        mapper.report("temperature", "33", "kept")
        (error,) = await until(lambda: mapper.on(TWIN + "update/result", "kept"))
        assert error["code"] == 500
        assert "no space left" in error["reason"]
        assert edge.service.status().store_problem
    await edge.open()
    async with edge_running(edge):
        await until(lambda: [each for each in mapper.on(TWIN + "update/result", "kept") if "twin" in each])
        assert (await edge.reports())["thermo-1", "property/temperature"]["value"] == "33"


async def test_a_full_disk_that_has_space_again_needs_no_restart(
    tmp_path: Path, mosquitto: Mosquitto, mapper: MapperClient
) -> None:
    edge = Edge(tmp_path, mosquitto.port)
    await edge.open()
    await edge.push((DEVICE_MODELS, "thermostat", MODEL), (DEVICES, "thermo-1", device()))
    disk = FullStore(edge.store)
    edge.make(disk)
    async with edge_running(edge):
        await until(lambda: edge.service.status().bus.connected)
        disk.space = False
        mapper.report("temperature", "33", "kept")
        await until(lambda: disk.refused)
        disk.space = True
        await until(lambda: [each for each in mapper.on(TWIN + "update/result", "kept") if "twin" in each])
        assert edge.service.status().store_problem == ""


async def test_the_broker_is_not_called_before_the_node_was_told_what_it_holds(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    edge = Edge(tmp_path, mosquitto.port)
    await edge.open()
    await edge.push((DEVICES, "thermo-1", device("22")), synced=False)
    async with edge_running(edge):
        assert not edge.service.status().ready
        await edge.push((DEVICE_MODELS, "thermostat", MODEL))
        await until(lambda: edge.service.status().bus.connected)
        assert edge.service.status().devices == 1


async def test_a_burst_is_taken_whole(edge: Edge, mapper: MapperClient) -> None:
    for number in range(2000):
        mapper.report("temperature", str(number), f"b{number}")
    await until(lambda: mapper.on(TWIN + "update/result", "b1999"))
    assert len(mapper.on(TWIN + "update/result")) == 2000
    assert (await edge.reports())["thermo-1", "property/temperature"]["value"] == "1999"
    status = edge.service.status().bus
    assert (status.dropped_in, status.dropped_out) == (0, 0)


async def test_a_delta_as_a_mapper_reads_it(edge: Edge, mapper: MapperClient) -> None:
    await edge.push((DEVICES, "thermo-1", device("22")))
    topic = Channel.TWIN_DELTA.topic(THERMO)
    payload = await until(lambda: next((each[1] for each in mapper.raw if each[0] == topic), None))
    assert Delta.decode(payload).version_of("setpoint") == 1


async def test_who_subscribes_late_finds_the_current_twin_and_nothing_of_a_device_that_went(
    edge: Edge, mapper: MapperClient, mosquitto: Mosquitto
) -> None:
    mapper.report("temperature", "21", "e1")
    topic = Channel.TWIN.topic(THERMO)
    await until(lambda: any("temperature" in each["twin"] for each in mapper.on(topic)), "the current twin")
    late = MapperClient(mosquitto.port, "late")
    try:
        (first,) = await until(lambda: late.on(topic), "the retained twin")
        assert (first["twin"]["temperature"]["actual"]["value"], first["delta"]) == ("21", {})
        await edge.push((DEVICES, "thermo-1", None))
        await until(lambda: (topic, b"", False) in late.raw, "it is taken away")
    finally:
        late.stop()
    after = MapperClient(mosquitto.port, "after")
    try:
        after.say(Channel.TWIN_GET.topic(THERMO), {"event_id": "g"})
        await until(lambda: after.on(Channel.TWIN_GET_RESULT.topic(THERMO)), "an answer, behind what is retained")
        assert not after.on(topic)
    finally:
        after.stop()


async def test_silence_makes_a_reading_stale_and_a_dead_mapper_an_event(tmp_path: Path, mosquitto: Mosquitto) -> None:
    edge = Edge(tmp_path, mosquitto.port)
    edge.store = await Store.open(tmp_path / "edge.db")
    disk = FullStore(edge.store)
    edge.make(disk, stale_after_ms=1500)
    await edge.push((DEVICE_MODELS, "thermostat", MODEL), (DEVICES, "thermo-1", device()))
    will = (mapper_state_topic("m1"), MapperState("", 0, "offline").encode())
    async with edge_running(edge):
        await until(lambda: edge.service.status().bus.connected)
        mapper = MapperClient(mosquitto.port, will=will)
        watcher = MapperClient(mosquitto.port, "watcher")
        try:
            mapper.say(will[0], MapperState("", 0, "online", (THERMO,)).encode(), retain=True)
            mapper.say(Channel.STATE_UPDATE.topic(THERMO), {"state": "online"})
            twin = {"temperature": {"actual": {"value": "21", "metadata": {"timestamp": 77}}}}
            mapper.say(TWIN + "update", {"event_id": "e1", "twin": twin})
            await until(lambda: watcher.on(TWIN + "update/result", "e1"), "the report is taken")
            # Of all that was reported, for on a slow machine the last may be stale by now.
            reported = next(json.loads(each.value) for each in disk.reports if each.field == "property/temperature")
            assert (reported["deviceAt"], reported.get("stale")) == (77, None)

            def turned() -> list[dict[str, Any]]:
                documents = [each["twin"].get("temperature") for each in watcher.on(TWIN + "update/document")]
                return [each for each in documents if each and each["current"]["actual"]["metadata"].get("stale")]

            await until(turned, "the document says that it is stale")
            assert (await edge.reports())["thermo-1", "property/temperature"]["stale"] is True
            mapper.die()
            await until(lambda: len(watcher.on(Channel.STATE_UPDATE_RESULT.topic(THERMO))) > 1, "it is offline")
            pending = await edge.store.pending_reports(0, 1 << 20)
            (event,) = [json.loads(entry.value) for _, entry in pending if entry.field == "event"]
            assert (event["reason"], event["involvedObject"]["name"]) == ("MapperGone", "thermo-1")
            assert edge.service.status().missed == 0
        finally:
            watcher.stop()


@pytest.mark.parametrize("yields", [True, False])
async def test_while_the_cluster_changes_something_devices_rest_as_long_as_they_worked(*, yields: bool) -> None:
    loop = asyncio.get_running_loop()
    turn = Turn(lambda: yields)
    began = loop.time()
    while not turn.is_over:
        assert loop.time() < began + DEADLINE_S
    turn.stop()
    await asyncio.sleep(0.02)  # for something else
    turn.go_on()
    resting = loop.time()
    await turn.next()
    assert loop.time() - resting >= (TURN_S if yields else 0.0)
    # What was held before counts no more. A turn is so short that it may be over by now all the same.
    assert turn.is_over <= (loop.time() - resting >= TURN_S)
