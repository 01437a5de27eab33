"""Tests for cloudhub.statuswriter, with a cache that real reflectors keep and a server over real sockets."""

import asyncio
import datetime
import json
import logging
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from apimachinery.errors import ApiError, Conflict, Forbidden, Invalid, Unavailable
from apimachinery.events import Change
from apimachinery.keys import Node, ObjectKey, Resource
from apimachinery.kubeevents import KubeEvent
from apimachinery.objects import Object, from_json
from apimachinery.resources import DEVICE_MODELS, DEVICE_STATUSES, DEVICES, LEASES, NODE_LEASE_NAMESPACE, NODES
from apimachinery.watchcache import WatchCache
from apiserver.messages import Request
from cloudhub.apiclient import ApiClient
from cloudhub.buckets import Rate
from cloudhub.conflation import Conflation
from cloudhub.fences import REPLICA_ANNOTATION, TERM_ANNOTATION, Fences
from cloudhub.nodes import NodeLifecycle
from cloudhub.pace import LONG_S
from cloudhub.presence import Presence
from cloudhub.reading import Sent
from cloudhub.reflector import Reflector
from cloudhub.statuswriter import StatusWriter
from link.frames import RefusedReport, Report, ReportAck, ReportEntry, Span, Traffic
from tests.harness.devapi import apply_device_definitions, dev_api
from tests.harness.tinyapi import Logged, TinyApi, kubeconfig, tiny_api

DEVICE = Traffic.DEVICES
EDGE = Node("edge-1")
NODES_HERE = (EDGE, Node("edge-2"))
LAMP = ObjectKey(DEVICES, "default", "lamp")
LAMP_STATUS = ObjectKey(DEVICE_STATUSES, "default", "lamp")
NODE = ObjectKey(NODES, "", "edge-1")
NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)

MODEL = {
    "metadata": {"name": "lamp-model"},
    "spec": {
        "properties": [
            {"name": "level", "type": "INT", "minimum": "0", "maximum": "100"},
            {"name": "mode", "type": "STRING"},
        ]
    },
}


def lamp(node: str = "edge-1", **desired: str) -> dict[str, Any]:
    properties: list[dict[str, Any]] = [{"name": "level"}, {"name": "mode"}]
    for entry in properties:
        if entry["name"] in desired:
            entry["desired"] = {"value": desired[entry["name"]]}
    return {
        "metadata": {"name": "lamp"},
        "spec": {"nodeName": node, "deviceModelRef": {"name": "lamp-model"}, "properties": properties},
    }


def reported(name: str, value: str | None, key: ObjectKey = LAMP, **more: Any) -> ReportEntry:
    content = {"observedAt": 1700, **more} | ({"value": value} if value is not None else {})
    return ReportEntry(key, f"property/{name}", json.dumps(content).encode())


class Hub:
    """What stands around a StatusWriter in cloudcore."""

    def __init__(self, api: TinyApi, client: ApiClient) -> None:
        self.api = api
        self.client = client
        self.cache = WatchCache()
        self.acks: list[tuple[str, ReportAck]] = []
        self.open: dict[tuple[str, Traffic, int], ReportEntry] = {}
        """What was reported and not acknowledged."""
        self.refused: list[RefusedReport] = []
        self.last: dict[tuple[ObjectKey, str], ReportEntry] = {}
        self._numbers: Counter[tuple[str, Traffic]] = Counter()
        self.events: list[KubeEvent] = []
        self.fences = Fences("here")
        self.nodes = NodeLifecycle(client, Presence(), self.fences, lambda *_: None)
        self.writer: StatusWriter[str] = StatusWriter(
            client,
            self.cache,
            self._acknowledge,
            self.fences,
            self.nodes.confirm,
            announce=self.events.append,
            min_interval_s=0.02,
            jitter=lambda: 0.01,
            now=lambda: NOW,
        )
        # No Lease is to be had, until a test is about one.
        for node in NODES_HERE:
            self.fences.opened(node, 1)
            self.fences.give_up(node)
        self.lag = 0
        """By how many events the writer is told late of an object."""
        self._late: deque[Object | Sent] = deque()
        self.count = 0
        """Values reported."""

    def _acknowledge(self, session: str, ack: ReportAck) -> None:
        self.acks.append((session, ack))
        for first, last in ack.settled:
            for number in range(first, last + 1):
                del self.open[session, ack.traffic, number]
        for number, reason in ack.refused:
            entry = self.open.pop((session, ack.traffic, number))
            self.refused.append(RefusedReport(entry.key, entry.field, reason))
        for first, last in ack.later:
            for number in range(first, last + 1):
                entry = self.open.pop((session, ack.traffic, number))
                again = partial(self._report_again, entry, session)
                asyncio.get_running_loop().call_later(0.03, again)  # as an edge does, which waits for longer

    def _report_again(self, entry: ReportEntry, session: str) -> None:
        """Unless there is a newer value by now, which has taken its place."""
        if entry is self.last[entry.key, entry.field]:
            self.report(entry, session=session)

    def observe(self, item: Object | Sent) -> None:
        self._late.append(item)
        while len(self._late) > self.lag:
            self.writer.observe(self._late.popleft())

    def changed(self, changes: list[Change]) -> None:
        self.writer.changed(changes)

    def report(self, *entries: ReportEntry, node: Node = EDGE, session: str = "s") -> None:
        self.count += len(entries)
        for traffic in Traffic:
            mine = tuple(each for each in entries if (each.key.resource.group == DEVICES.group) is (traffic is DEVICE))
            if mine:
                first = self._numbers[session, traffic] + 1
                self._numbers[session, traffic] += len(mine)
                self.open |= {(session, traffic, number): each for number, each in enumerate(mine, first)}
                self.last |= {(each.key, each.field): each for each in mine}
                self.writer.accept(node, session, Report(first, mine, traffic))

    async def taken(self, *entries: ReportEntry) -> tuple[RefusedReport, ...]:
        """Report, wait until all of it is acknowledged, and give what was refused."""
        before = len(self.refused)
        self.report(*entries)
        await until(lambda: not self.open)
        return tuple(self.refused[before:])

    def twins(self, key: ObjectKey = LAMP) -> dict[str, str]:
        return {twin["propertyName"]: twin["reported"]["value"] for twin in self.api.objects[key]["status"]["twins"]}

    def condition(self, kind: str) -> Mapping[str, Any]:
        for entry in (self.api.objects[LAMP].get("status") or {}).get("conditions", ()):
            if entry["type"] == kind:
                found: Mapping[str, Any] = entry
                return found
        return {}

    def writes(self) -> list[str]:
        return [
            f"{entry.method} {entry.path.rpartition('v1beta1/namespaces/default/')[2]}"
            for entry in self.api.requests
            if entry.method in ("PATCH", "POST", "PUT")
        ]


async def until(condition: Callable[[], object], within_s: float = 20.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.005)


async def settle(hub: Hub) -> None:
    """Wait until nothing has been asked of the server for a while."""
    asked = -1
    while asked != len(hub.api.requests):
        asked = len(hub.api.requests)
        for _ in range(4):
            await asyncio.sleep(0.02)


async def furnish(api: TinyApi, *, model: bool = True, node: bool = True, device: dict[str, Any] | None = None) -> None:
    if model:
        await api.put(DEVICE_MODELS, MODEL, "default")
    if node:
        await api.put(NODES, {"metadata": {"name": "edge-1"}})
    await api.put(DEVICES, device or lamp(), "default")


@asynccontextmanager
async def running(
    tmp_path: Path, api: TinyApi | None = None, *more: Resource, free: Rate | None = None
) -> AsyncIterator[Hub]:
    """free: of the states of Devices how many need not wait; None where none ever does."""
    async with tiny_api(api) as api:
        if not api.objects:
            await furnish(api)
        (tmp_path / "kubeconfig").write_text(kubeconfig(api.url))
        async with ApiClient.from_kubeconfig(tmp_path / "kubeconfig") as client:
            hub = Hub(api, client)
            async with asyncio.TaskGroup() as tasks:
                reflectors = [
                    Reflector(
                        client,
                        resource,
                        hub.cache,
                        hub,
                        observe=hub.observe,
                        conflation=Conflation(asyncio.get_running_loop().time(), free)
                        if free is not None and resource == DEVICES
                        else None,
                        jitter=lambda: 0.01,
                    )
                    for resource in (DEVICES, DEVICE_MODELS, NODES, *more)
                ]
                started = [
                    tasks.create_task(each.run(), name=f"reflector[{each.resource.plural}]") for each in reflectors
                ]
                for each in reflectors:
                    await each.wait_synced()
                started.append(tasks.create_task(hub.writer.run(), name="status"))
                await until(lambda: api.watchers == len(reflectors))
                yield hub
                for task in started:
                    task.cancel()


async def test_the_very_first_report_is_there_in_both_places(tmp_path: Path) -> None:
    async with running(tmp_path) as hub:
        assert await hub.taken(reported("level", "40", desired="40", type="int")) == ()
        assert hub.twins() == hub.twins(LAMP_STATUS) == {"level": "40"}
        made = hub.api.objects[LAMP_STATUS]
        owner = made["metadata"]["ownerReferences"][0]
        assert (owner["kind"], owner["name"], owner["controller"]) == ("Device", "lamp", True)
        assert owner["uid"] == hub.api.objects[LAMP]["metadata"]["uid"]
        assert made["status"]["twins"][0] == {
            "propertyName": "level",
            "reported": {"value": "40", "metadata": {"timestamp": "1700", "type": "int"}},
            "observedDesired": {"value": "40", "metadata": {"timestamp": "1700"}},
        }


async def test_where_the_loop_is_busy_one_device_is_written_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudhub.pace.YOUNG_S", 60.0)  # whoever waits for long makes room for another
    names = [f"lamp-{number}" for number in range(6)]
    async with running(tmp_path) as hub:
        for name in names:
            await hub.api.put(DEVICES, {**lamp(), "metadata": {"name": name}}, "default")
        await settle(hub)
        under_way = list[int]()
        hub.report(*(reported("level", "1", LAMP._replace(name=name)) for name in names))
        while hub.open:
            under_way.append(hub.writer._busy)
            time.sleep(2 * LONG_S)  # noqa: ASYNC251  somebody else has the loop
            await asyncio.sleep(0)
        assert max(under_way) == 1


async def test_a_later_report_costs_one_request_per_place(tmp_path: Path) -> None:
    async with running(tmp_path) as hub:
        await hub.taken(reported("level", "1"), reported("mode", "eco"))
        await settle(hub)
        before = len(hub.api.requests)
        await hub.taken(reported("level", "2"))
        assert hub.twins() == hub.twins(LAMP_STATUS) == {"level": "2", "mode": "eco"}
        assert [entry.method for entry in hub.api.requests[before:]] == ["PATCH", "PATCH"]


async def test_a_report_that_changes_nothing_costs_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as hub:
        await hub.taken(reported("level", "1"))
        await settle(hub)
        before = len(hub.api.requests)
        await hub.taken(reported("level", "1"))
        assert len(hub.api.requests) == before


async def test_our_own_writes_come_back_as_no_change(tmp_path: Path) -> None:
    async with running(tmp_path) as hub:
        revision = hub.cache.revision
        await until(lambda: hub.condition("Valid"))
        await hub.taken(reported("level", "1"))
        await settle(hub)
        assert hub.cache.revision == revision
        assert len(hub.writes()) == 3  # conditions at the start, then the two places


async def test_a_burst_ends_with_the_last_value(tmp_path: Path) -> None:
    async with running(tmp_path) as hub:
        for number in range(200):
            hub.report(reported("level", str(number)))
        await until(lambda: not hub.open)
        assert hub.twins() == hub.twins(LAMP_STATUS) == {"level": "199"}
        assert len(hub.writes()) < 12


async def test_a_hub_that_starts_over_a_settled_cluster_writes_and_reads_nothing(tmp_path: Path) -> None:
    api = TinyApi()
    async with running(tmp_path, api) as hub:
        await hub.taken(reported("level", "1"))
        await settle(hub)
    api.requests.clear()
    async with running(tmp_path, api) as hub:
        await settle(hub)
        assert {entry.path.rpartition("/")[2] for entry in api.requests} == {"devices", "devicemodels", "nodes"}


async def test_a_restarted_hub_merges_with_what_is_there(tmp_path: Path) -> None:
    api = TinyApi()
    async with running(tmp_path, api) as hub:
        await hub.taken(reported("level", "1"))
    async with running(tmp_path, api) as hub:
        await hub.taken(reported("mode", "eco"))
        assert hub.twins() == hub.twins(LAMP_STATUS) == {"level": "1", "mode": "eco"}


async def test_conflicts_are_read_again(tmp_path: Path) -> None:
    async with running(tmp_path) as hub:
        await hub.taken(reported("level", "1"))
        status = hub.api.objects[LAMP_STATUS]
        await hub.api.put(
            DEVICE_STATUSES,
            {"metadata": status["metadata"], "status": {**status["status"], "extensions": {"a": 1}}},
            "default",
        )
        await hub.taken(reported("mode", "eco"))
        after = hub.api.objects[LAMP_STATUS]["status"]
        assert hub.twins(LAMP_STATUS) == {"level": "1", "mode": "eco"}
        assert after["extensions"] == {"a": 1}


async def test_a_device_whose_states_wait_is_written_without_a_conflict(tmp_path: Path) -> None:
    async with running(tmp_path, free=Rate(per_s=1e-9, burst=0.5)) as hub:
        await hub.taken(reported("level", "1"))
        await settle(hub)
        for number in range(2, 5):
            device = hub.api.objects[LAMP]
            await hub.api.put(DEVICES, {**device, **lamp(level=str(number)), "metadata": device["metadata"]}, "default")
            await settle(hub)
            await hub.taken(reported("level", str(number)))
        assert hub.twins() == {"level": "4"}
        assert hub.writer.counters()["conflicts"] == 0


async def test_what_the_watch_tells_late_is_passed_over(tmp_path: Path) -> None:
    """Each later write would be made at a version that is gone, as long as the watch lags behind the writes."""
    async with running(tmp_path) as hub:
        await hub.taken(reported("level", "1"))
        await settle(hub)
        hub.lag = 1
        for value in ("2", "3", "4", "5"):
            await hub.taken(reported("level", value))
            await settle(hub)
        assert hub.twins() == hub.twins(LAMP_STATUS) == {"level": "5"}
        assert hub.writer.counters()["conflicts"] == 0


async def test_an_apiserver_that_goes_back_is_believed(tmp_path: Path) -> None:
    """As after a restore: the watch tells less than it told itself."""
    async with running(tmp_path) as hub:
        await settle(hub)
        old = hub.api.objects[LAMP]
        await hub.taken(reported("level", "1"))
        await settle(hub)
        before = hub.writer.counters()["conflicts"]
        hub.writer.observe(from_json(DEVICES, old))
        await hub.taken(reported("level", "2"))
        assert hub.writer.counters()["conflicts"] == before + 1
        assert hub.twins() == {"level": "2"}


async def test_a_conflict_is_read_and_written_again_at_once(tmp_path: Path) -> None:
    """And not when everybody else has had its turn, when somebody will have changed it again."""
    async with running(tmp_path) as hub:
        await hub.taken(reported("level", "1"))
        await settle(hub)
        edits, asked = 0, len(hub.api.requests)

        def edited(request: Request) -> ApiError | None:
            nonlocal edits
            if request.method != "PATCH" or "/devices/lamp/status" not in request.path or edits == 2:
                return None
            edits += 1
            return Conflict("the object has been modified")

        hub.api.answer = edited
        await hub.taken(reported("level", "2"))
        counters = hub.writer.counters()
        assert [each.method for each in hub.api.requests[asked:]] == ["PATCH", "GET", "PATCH", "GET", "PATCH", "PATCH"]
        assert (counters["conflicts"], counters["retries"]) == (2, 0)
        assert hub.twins() == hub.twins(LAMP_STATUS) == {"level": "2"}


async def test_a_device_made_again_inherits_no_reports(tmp_path: Path) -> None:
    async with running(tmp_path) as hub:
        await hub.taken(reported("level", "1"), ReportEntry(LAMP, "state", b'{"state":"online"}'))
        await hub.api.delete(LAMP)
        await hub.api.put(DEVICES, lamp(), "default")  # the old DeviceStatus is not collected yet
        await until(lambda: hub.condition("Valid"))
        await hub.taken(reported("mode", "eco"))
        assert hub.twins() == hub.twins(LAMP_STATUS) == {"mode": "eco"}
        after = hub.api.objects[LAMP_STATUS]
        assert after["metadata"]["ownerReferences"][0]["uid"] == hub.api.objects[LAMP]["metadata"]["uid"]
        assert "state" not in after["status"]


async def test_kubeedges_own_definition_without_a_status_subresource(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    api = TinyApi()
    api.with_status.discard("devices.devices.kubeedge.io")
    with caplog.at_level(logging.WARNING, "cloudhub.statuswriter"):
        async with running(tmp_path, api) as hub:
            await hub.taken(reported("level", "1"))
            await hub.taken(reported("level", "2"))
            assert hub.twins(LAMP_STATUS) == {"level": "2"}
            assert "status" not in hub.api.objects[LAMP]
    assert len(caplog.records) == 1


async def test_values_wait_while_there_is_no_place_for_them(tmp_path: Path) -> None:
    api = TinyApi()
    api.with_status.discard("devices.devices.kubeedge.io")
    api.served.discard(DEVICE_STATUSES)
    async with running(tmp_path, api) as hub:
        hub.report(reported("level", "1"))
        await until(lambda: len(api.asked("POST", "/devicestatuses")) >= 2)
        assert hub.acks == []
        api.served.add(DEVICE_STATUSES)
        await until(lambda: hub.acks)
        assert hub.twins(LAMP_STATUS) == {"level": "1"}


async def test_an_apiserver_that_is_down_loses_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with running(tmp_path) as hub:
        await settle(hub)
        failed = 0

        def down(request: Request) -> Exception | None:
            nonlocal failed
            failed += request.method == "PATCH" or "devicestatuses" in request.path
            return Unavailable("down") if "lamp" in request.path else None

        hub.api.answer = down  # type: ignore[assignment]
        with caplog.at_level(logging.WARNING, "cloudhub.statuswriter"):
            for number in range(50):
                hub.report(reported("level", str(number)))
                await asyncio.sleep(0.002)
            await until(lambda: failed >= 5)
            assert hub.acks == []
            hub.api.answer = lambda request: None
            await until(lambda: not hub.open)
        assert hub.twins() == {"level": "49"}
        assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_what_the_apiserver_refuses_is_refused_with_its_reason(tmp_path: Path) -> None:
    async with running(tmp_path) as hub:
        await settle(hub)

        def strict(request: Request) -> Exception | None:
            return Invalid("mode: too strange") if b"strange" in request.body else None

        hub.api.answer = strict  # type: ignore[assignment]
        refused = await hub.taken(reported("level", "7"), reported("mode", "strange"))
        assert refused == (RefusedReport(LAMP, "property/mode", "mode: too strange"),)
        assert hub.twins() == hub.twins(LAMP_STATUS) == {"level": "7"}
        hub.api.answer = lambda request: Forbidden("no right") if request.method == "PATCH" else None
        refused = await hub.taken(reported("level", "8"))
        assert [each.reason for each in refused] == ["no right"]


@pytest.mark.parametrize(
    ("node", "entry", "reason"),
    [
        (Node("edge-2"), reported("level", "1"), "there is no such device on node edge-2"),
        (
            EDGE,
            reported("level", "1", ObjectKey(DEVICES, "default", "ghost")),
            "there is no such device on node edge-1",
        ),
        (EDGE, reported("ghost", "1"), "the Device does not list this property"),
        (EDGE, ReportEntry(LAMP, "property/level", b"{}"), "observedAt must be an integer"),
        (EDGE, ReportEntry(LAMP, "spec", b"{}"), 'devices.devices.kubeedge.io has no field "spec" to report'),
        (
            EDGE,
            ReportEntry(ObjectKey(NODES, "", "edge-2"), "nodeInfo", b"{}"),
            "a node may report of no other node",
        ),
    ],
)
async def test_who_may_report_what(tmp_path: Path, node: Node, entry: ReportEntry, reason: str) -> None:
    async with running(tmp_path) as hub:
        await settle(hub)
        before = hub.writes()
        hub.report(entry, node=node)
        await until(lambda: hub.acks)
        assert hub.refused == [RefusedReport(entry.key, entry.field, reason)]
        assert hub.writes() == before


async def test_nobody_is_told_after_the_session_closed(tmp_path: Path) -> None:
    async with running(tmp_path) as hub:
        hub.report(reported("level", "1"), session="old")
        hub.writer.session_closed("old")
        hub.open.clear()
        await hub.taken(reported("level", "2"))
        assert {session for session, _ in hub.acks} == {"s"}


# ---- conditions


async def test_an_invalid_device_shows_it_at_once(tmp_path: Path) -> None:
    async with running(tmp_path) as hub:
        await until(lambda: hub.condition("Valid").get("status") == "True")
        await hub.client.patch(LAMP, {"spec": lamp(level="200")["spec"]})
        await until(lambda: hub.condition("Valid").get("status") == "False")
        assert hub.condition("Valid") == {
            "type": "Valid",
            "status": "False",
            "reason": "DesiredInvalid",
            "message": "level: 200 is above the model's maximum of 100",
            "lastTransitionTime": "2030-01-01T00:00:00Z",
            "observedGeneration": 2,
        }
        assert LAMP_STATUS not in hub.api.objects


async def test_a_device_becomes_valid_when_its_model_and_node_appear(tmp_path: Path) -> None:
    api = TinyApi()
    await furnish(api, model=False, node=False)
    async with running(tmp_path, api) as hub:
        await until(lambda: hub.condition("Valid").get("reason") == "ModelNotFound")
        await api.put(DEVICE_MODELS, MODEL, "default")
        await until(lambda: hub.condition("Valid").get("reason") == "NodeNotFound")
        await api.put(NODES, {"metadata": {"name": "edge-1"}})
        await until(lambda: hub.condition("Valid").get("status") == "True")
        stricter = json.loads(json.dumps(MODEL))
        stricter["spec"]["properties"].pop()
        await api.put(DEVICE_MODELS, stricter, "default")
        await until(lambda: hub.condition("Valid").get("reason") == "UnknownProperty")
        await api.delete(NODE)
        await until(lambda: hub.condition("Valid").get("reason") == "NodeNotFound")


async def test_synced_follows_desired_and_reported(tmp_path: Path) -> None:
    async with running(tmp_path) as hub:
        await until(lambda: hub.condition("Synced").get("reason") == "NothingDesired")
        await hub.client.patch(LAMP, {"spec": lamp(level="40")["spec"]})
        await until(lambda: hub.condition("Synced").get("reason") == "Pending")
        await hub.taken(reported("level", "10", desired="40", problem="the bulb is broken"))
        assert hub.condition("Synced")["reason"] == "Rejected"
        await hub.taken(reported("level", "40", desired="40"))
        assert hub.condition("Synced")["status"] == "True"


async def test_a_state_makes_online(tmp_path: Path) -> None:
    async with running(tmp_path) as hub:
        await hub.taken(ReportEntry(LAMP, "state", b'{"state":"online","lastOnlineTime":"2030-01-01T00:00:00Z"}'))
        assert hub.condition("Online")["status"] == "True"
        assert hub.api.objects[LAMP_STATUS]["status"]["state"] == "online"


async def test_a_node_that_is_not_ready_makes_online_unknown_and_its_heartbeats_ask_nothing(tmp_path: Path) -> None:
    def ready(status: str, beat: str) -> dict[str, Any]:
        conditions = [{"type": "Ready", "status": status, "lastHeartbeatTime": beat}]
        return {"metadata": {"name": "edge-1"}, "status": {"conditions": conditions}}

    async with running(tmp_path) as hub:
        await hub.api.put(NODES, ready("True", "1"))
        await hub.taken(ReportEntry(LAMP, "state", b'{"state":"online"}'))
        assert hub.condition("Online")["status"] == "True"
        await hub.api.put(NODES, ready("Unknown", "1"))
        await until(lambda: hub.condition("Online")["reason"] == "NodeNotReady")
        await settle(hub)
        asked = len(hub.api.requests)
        for beat in range(9):
            await hub.api.put(NODES, ready("Unknown", str(beat)))
        await settle(hub)
        assert len(hub.api.requests) == asked
        await hub.api.put(NODES, ready("True", "10"))
        await until(lambda: hub.condition("Online")["status"] == "True")


async def test_a_device_that_turns_invalid_is_told_by_the_replica_that_wrote_it(tmp_path: Path) -> None:
    api = TinyApi()
    other = tmp_path / "other"
    other.mkdir()
    async with running(tmp_path, api) as first, running(other, api) as second:
        await until(lambda: first.condition("Valid").get("status") == "True")
        for level, valid in (("900", "False"), ("9", "True"), ("901", "False")):
            await first.client.patch(LAMP, {"spec": lamp(level=level)["spec"]})
            await until(lambda: first.condition("Valid").get("status") == valid)  # noqa: B023 - called at once
            await settle(first)
        said = sorted(event.reason for event in (*first.events, *second.events))
        assert said == ["DeviceInvalid", "DeviceInvalid", "DeviceValid"]


async def test_two_replicas_agree_and_come_to_rest(tmp_path: Path) -> None:
    api = TinyApi()
    other = tmp_path / "other"
    other.mkdir()
    async with running(tmp_path, api) as first, running(other, api) as second:
        for number in range(5):
            await first.client.patch(LAMP, {"spec": lamp(level=str(number))["spec"]})
            await second.taken(reported("level", str(number), desired=str(number)))
        await settle(first)
        assert first.condition("Synced")["status"] == "True"
        assert first.twins() == first.twins(LAMP_STATUS) == {"level": "4"}


# ---- nodes


async def test_a_nodes_own_report(tmp_path: Path) -> None:
    content = {
        "nodeInfo": {"architecture": "arm64"},
        "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}],
        "capacity": {"cpu": "4"},
    }
    entry = ReportEntry(NODE, "nodeInfo", json.dumps(content).encode())
    async with running(tmp_path) as hub:
        assert await hub.taken(entry) == ()
        status = hub.api.objects[NODE]["status"]
        assert status == {**content, "allocatable": {"cpu": "4"}}
        await settle(hub)
        before = len(hub.api.requests)
        await hub.taken(entry)
        assert len(hub.api.requests) == before


async def test_a_report_of_a_node_waits_for_the_node(tmp_path: Path) -> None:
    api = TinyApi()
    await furnish(api, node=False)
    async with running(tmp_path, api) as hub:
        hub.report(ReportEntry(NODE, "nodeInfo", b'{"capacity":{"cpu":"4"}}'))
        await settle(hub)
        assert not any(ack.settled or ack.refused for _, ack in hub.acks), (
            "perhaps it is the edge's again, to be sent later"
        )
        await api.put(NODES, {"metadata": {"name": "edge-1"}})
        await until(lambda: any(ack.settled for _, ack in hub.acks))
        assert api.objects[NODE]["status"]["capacity"] == {"cpu": "4"}


# ---- where other replicas may have a newer session of the node


async def take_elsewhere(hub: Hub, term: int) -> None:
    """Another replica takes the Lease for a session of this term."""
    metadata = {"name": "edge-1", "annotations": {TERM_ANNOTATION: str(term), REPLICA_ANNOTATION: "there"}}
    await hub.api.put(LEASES, {"metadata": metadata, "spec": {}}, NODE_LEASE_NAMESPACE)


async def fenced(hub: Hub) -> None:
    """From here on it counts whose Lease it is; this replica has it, for term 2, and has written `level`."""
    await settle(hub)
    hub.fences.opened(EDGE, 2)
    await hub.taken(reported("level", "1"))
    await settle(hub)


async def write_elsewhere(hub: Hub, value: str) -> None:
    """Another replica writes `level` into both places."""
    for key in (LAMP_STATUS, LAMP):
        body = json.loads(json.dumps(hub.api.objects[key]))
        body["status"]["twins"][0]["reported"] = {"value": value, "metadata": {"timestamp": "1800"}}
        await hub.api.put(key.resource, body, "default")
    await settle(hub)


def leases_asked(hub: Hub, since: int) -> list[str]:
    return [entry.method for entry in hub.api.requests[since:] if "/leases/" in entry.path]


def carries(entry: Logged) -> bool:
    """Whether a request has something in it that was reported."""
    return bool(((entry.body or {}).get("status") or {}).get("twins"))


async def test_reports_are_written_once_the_lease_is_taken_and_then_without_asking(tmp_path: Path) -> None:
    async with running(tmp_path) as hub:
        await fenced(hub)
        taken = next(place for place, entry in enumerate(hub.api.requests) if entry.path.endswith("/leases"))
        written = [place for place, entry in enumerate(hub.api.requests) if carries(entry)]
        assert taken < min(written)
        asked = len(hub.api.requests)
        for value in ("2", "3"):
            await hub.taken(reported("level", value))
        assert hub.twins() == hub.twins(LAMP_STATUS) == {"level": "3"}
        assert leases_asked(hub, asked) == []


async def test_what_another_replica_wrote_is_written_over_once_the_lease_is_seen_to_be_ours(tmp_path: Path) -> None:
    async with running(tmp_path) as hub:
        await fenced(hub)
        await write_elsewhere(hub, "7")
        asked = len(hub.api.requests)
        await hub.taken(reported("level", "8"))
        assert hub.twins() == hub.twins(LAMP_STATUS) == {"level": "8"}
        assert "GET" in leases_asked(hub, asked)
        await settle(hub)
        asked = len(hub.api.requests)
        await hub.taken(reported("level", "9"))
        assert leases_asked(hub, asked) == []


async def test_what_the_node_said_since_through_another_replica_is_not_undone(tmp_path: Path) -> None:
    async with running(tmp_path) as hub:
        await fenced(hub)
        await take_elsewhere(hub, 3)
        await write_elsewhere(hub, "7")
        hub.report(reported("level", "2"))
        await until(lambda: hub.writer.counters()["conflicts"] >= 3)
        hub.writer.session_closed("s")
        await settle(hub)
        assert hub.twins() == hub.twins(LAMP_STATUS) == {"level": "7"}
        assert hub.open


async def test_a_report_that_waits_for_the_lease_is_written_when_it_can_be_had(tmp_path: Path) -> None:
    async with running(tmp_path) as hub:
        await settle(hub)
        hub.fences.opened(EDGE, 2)
        hub.api.answer = lambda request: Unavailable("not now") if "/leases" in request.path else None
        hub.report(reported("level", "1"))
        await until(lambda: hub.writer.counters()["retries"] >= 2)
        assert not any(map(carries, hub.api.requests))
        hub.api.answer = lambda request: None
        await until(lambda: hub.acks)
        assert hub.twins() == hub.twins(LAMP_STATUS) == {"level": "1"}


async def test_nothing_is_written_for_a_node_that_the_device_has_left(tmp_path: Path) -> None:
    """The cache does not know it yet; the version at which the status would be written does."""
    async with running(tmp_path) as hub:
        await fenced(hub)
        moved = json.loads(json.dumps(hub.api.objects[LAMP]))
        moved["spec"]["nodeName"] = "edge-2"
        moved["metadata"]["resourceVersion"] = "100000"
        hub.writer.observe(from_json(DEVICES, moved))
        hub.report(reported("level", "2"))
        await until(lambda: hub.writer.counters()["conflicts"] >= 3)
        hub.writer.session_closed("s")
        await settle(hub)
        assert hub.twins() == hub.twins(LAMP_STATUS) == {"level": "1"}


async def test_a_nodes_own_facts_are_not_undone_either(tmp_path: Path) -> None:
    async with running(tmp_path) as hub:
        await fenced(hub)
        await take_elsewhere(hub, 3)
        hub.report(ReportEntry(NODE, "nodeInfo", b'{"capacity":{"cpu":"4"}}'))
        await until(lambda: hub.writer.counters()["conflicts"] >= 2)
        hub.writer.session_closed("s")
        await settle(hub)
        assert "capacity" not in (hub.api.objects[NODE].get("status") or {})


# ---- over the embedded apiserver


async def test_a_device_of_the_embedded_apiserver(tmp_path: Path) -> None:
    async with dev_api(tmp_path / "api") as client:
        await apply_device_definitions(client)
        await client.create(DEVICE_MODELS, "default", kind_of(DEVICE_MODELS, MODEL))
        await client.create(NODES, "", kind_of(NODES, {"metadata": {"name": "edge-1"}}))
        await client.create(DEVICES, "default", kind_of(DEVICES, lamp(level="40")))
        cache, acks = WatchCache(), asyncio.Queue[ReportAck](maxsize=9)
        fences = Fences("here")
        nodes = NodeLifecycle(client, Presence(), fences, lambda *_: None)
        writer: StatusWriter[str] = StatusWriter(
            client, cache, lambda _, ack: acks.put_nowait(ack), fences, nodes.confirm
        )
        fences.opened(EDGE, 1)
        async with asyncio.TaskGroup() as tasks:
            reflectors = [
                Reflector(client, resource, cache, writer, observe=writer.observe)
                for resource in (DEVICES, DEVICE_MODELS, NODES)
            ]
            started = [tasks.create_task(each.run(), name=each.resource.plural) for each in reflectors]
            for each in reflectors:
                await each.wait_synced()
            started.append(tasks.create_task(writer.run(), name="status"))
            state = ReportEntry(LAMP, "state", b'{"state":"online","lastOnlineTime":"2030-01-01T00:00:00Z"}')
            writer.accept(EDGE, "s", Report(1, (reported("level", "10", desired="40"), state), DEVICE))
            assert (await acks.get()).settled == (Span(1, 2),)
            writer.accept(EDGE, "s", Report(3, (reported("level", "40", desired="40"),), DEVICE))
            assert (await acks.get()).settled == (Span(3, 3),)
            for task in started:
                task.cancel()
        device, status = await client.get(LAMP), await client.get(LAMP_STATUS)
        verdicts = ("desired", "sync", "reason")
        assert [{**each, **dict.fromkeys(verdicts)} for each in device["status"]["twins"]] == [
            {**each, **dict.fromkeys(verdicts)} for each in status["status"]["twins"]
        ]
        assert device["status"]["twins"][0]["sync"] == "synced"
        assert device["status"]["syncedProperties"] == "1/1"
        assert status["status"]["twins"][0]["reported"]["value"] == "40"
        lease = await client.get(ObjectKey(LEASES, NODE_LEASE_NAMESPACE, "edge-1"))
        assert lease["metadata"]["annotations"] == {TERM_ANNOTATION: "1", REPLICA_ANNOTATION: "here"}
        assert device["status"]["state"] == status["status"]["state"] == "online"
        assert {entry["type"]: entry["status"] for entry in device["status"]["conditions"]} == {
            "Valid": "True",
            "Synced": "True",
            "Online": "True",
        }
        assert device["metadata"]["generation"] == 1
        assert status["metadata"]["ownerReferences"][0]["uid"] == device["metadata"]["uid"]


def kind_of(resource: Resource, value: Mapping[str, Any]) -> dict[str, Any]:
    return {"apiVersion": resource.api_version, "kind": resource.kind, **value}
