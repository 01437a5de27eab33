"""Tests for cloudhub.nodes, against a server that speaks the real protocol over real sockets."""

import asyncio
import datetime
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from apimachinery.errors import ApiError, Conflict, Forbidden, NotFound, Unavailable
from apimachinery.events import Change
from apimachinery.keys import Node, ObjectKey
from apimachinery.objects import lookup
from apimachinery.resources import LEASES, NAMESPACES, NODE_LEASE_NAMESPACE, NODES
from apimachinery.watchcache import WatchCache
from apiserver.messages import Request
from cloudhub.apiclient import ApiClient
from cloudhub.devices import entries
from cloudhub.fences import REPLICA_ANNOTATION, TERM_ANNOTATION, Fences, Permit, Standing
from cloudhub.identities import EDGE_LABEL
from cloudhub.nodes import NodeLifecycle
from cloudhub.presence import Presence
from cloudhub.reflector import Reflector
from tests.harness.devapi import dev_api
from tests.harness.tinyapi import TinyApi, kubeconfig, tiny_api

EDGE = Node("edge-1")
NODE = ObjectKey(NODES, "", "edge-1")
LEASE = ObjectKey(LEASES, NODE_LEASE_NAMESPACE, "edge-1")
NUMBERS = itertools.count(1)
START = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)


class Hub:
    """A hub's view of nodes, following an apiserver."""

    def __init__(self, api: TinyApi, client: ApiClient, renew_s: float, grace_s: float) -> None:
        self.api = api
        self.cache = WatchCache()
        self.clock = START
        self.fences = Fences(f"replica-{next(NUMBERS)}")
        self.overtaken: list[tuple[Node, int, int, bool]] = []
        self.nodes = NodeLifecycle(
            client,
            Presence(renew_s=renew_s, grace_s=grace_s),
            self.fences,
            lambda *told: self.overtaken.append(told),
            labels=self._labels,
            jitter=lambda: 0.05,
            now=self._now,
        )
        self.reflectors = [
            Reflector(client, NODES, self.cache, self, jitter=lambda: 0.01),
            Reflector(client, LEASES, self.cache, self, observe=self.nodes.observe_lease, jitter=lambda: 0.01),
        ]

    async def _labels(self, node: Node) -> Mapping[str, str]:
        return {"site": f"of {node}", EDGE_LABEL: "wished otherwise"}

    def _now(self) -> datetime.datetime:
        self.clock += datetime.timedelta(microseconds=1)
        return self.clock

    def changed(self, changes: list[Change]) -> None:
        self.nodes.changed(changes)

    def ready(self) -> Mapping[str, Any]:
        for entry in entries(lookup(self.api.objects.get(NODE, {}), "status.conditions"), "type"):
            if entry["type"] == "Ready":
                found: Mapping[str, Any] = entry
                return found
        return {}


@asynccontextmanager
async def running(
    tmp_path: Path, api: TinyApi | None = None, *, renew_s: float = 0.05, grace_s: float = 0.25
) -> AsyncIterator[Hub]:
    async with tiny_api(api) as api:
        (tmp_path / "kubeconfig").write_text(kubeconfig(api.url))
        async with ApiClient.from_kubeconfig(tmp_path / "kubeconfig") as client:
            hub = Hub(api, client, renew_s, grace_s)
            async with asyncio.TaskGroup() as tasks:
                started = [tasks.create_task(each.run(), name=each.resource.plural) for each in hub.reflectors]
                for each in hub.reflectors:
                    await each.wait_synced()
                started.append(tasks.create_task(hub.nodes.run(), name="nodes"))
                yield hub
                for task in started:
                    task.cancel()


async def until(condition: Callable[[], object], within_s: float = 20.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.005)


def edge_node(ready: str = "True") -> dict[str, Any]:
    return {
        "metadata": {"name": "edge-1", "labels": {EDGE_LABEL: ""}},
        "status": {"conditions": [{"type": "DiskPressure", "status": "False"}, {"type": "Ready", "status": ready}]},
    }


def ready_writes(api: TinyApi) -> int:
    return len(api.asked("PATCH", "/nodes/edge-1/status"))


async def test_a_lease_that_is_renewed_less_often_lasts_as_much_longer(tmp_path: Path) -> None:
    async with running(tmp_path, renew_s=60.0, grace_s=300.0) as hub:
        hub.nodes.session_up(EDGE, 1)
        await until(lambda: LEASE in hub.api.objects)
        assert hub.api.objects[LEASE]["spec"]["leaseDurationSeconds"] == 240


async def test_a_session_makes_the_node_ready_and_keeps_its_lease(tmp_path: Path) -> None:
    async with running(tmp_path) as hub:
        hub.nodes.session_up(EDGE, 1)
        await until(lambda: hub.ready() and LEASE in hub.api.objects)
        node, lease = hub.api.objects[NODE], hub.api.objects[LEASE]
        assert node["metadata"]["labels"] == {
            "kubernetes.io/hostname": "edge-1",
            EDGE_LABEL: "",
            "site": "of edge-1",
        }
        assert (hub.ready()["status"], hub.ready()["reason"]) == ("True", "EdgeConnected")
        assert lease["spec"]["holderIdentity"] == "edge-1"
        assert lease["spec"]["leaseDurationSeconds"] == 40
        assert len(lease["spec"]["renewTime"]) == len("2030-01-01T00:00:00.000001Z")
        assert lease["metadata"]["ownerReferences"][0]["uid"] == node["metadata"]["uid"]
        first = lease["spec"]["renewTime"]
        await until(lambda: hub.api.objects[LEASE]["spec"]["renewTime"] > first)
        hub.nodes.session_up(EDGE, 2)  # a newer session took over
        await until(lambda: len(hub.api.asked("PATCH", "/leases/edge-1")) > 4)
        assert ready_writes(hub.api) == 1


async def test_renewing_a_lease_is_no_change_for_anybody(tmp_path: Path) -> None:
    async with running(tmp_path) as hub:
        hub.nodes.session_up(EDGE, 3)
        await until(lambda: len(hub.api.asked("PATCH", "/leases/edge-1")) > 2)
        revision = hub.cache.revision
        await until(lambda: len(hub.api.asked("PATCH", "/leases/edge-1")) > 5)
        assert hub.cache.revision == revision


async def test_a_node_whose_session_is_gone_is_given_up_and_comes_back(tmp_path: Path) -> None:
    async with running(tmp_path) as hub:
        hub.nodes.session_up(EDGE, 4)
        await until(lambda: hub.ready() and LEASE in hub.api.objects)
        hub.nodes.session_down(EDGE)
        await until(lambda: hub.ready()["status"] == "Unknown")
        assert hub.ready()["reason"] == "EdgeDisconnected"
        renewals = len(hub.api.asked("PATCH", "/leases/edge-1"))
        hub.nodes.session_up(EDGE, 5)
        await until(lambda: hub.ready()["status"] == "True")
        await until(lambda: len(hub.api.asked("PATCH", "/leases/edge-1")) > renewals)
        assert ready_writes(hub.api) == 3


async def test_a_hub_that_starts_gives_up_what_nobody_hears_of(tmp_path: Path) -> None:
    api = TinyApi()
    await api.put(NODES, edge_node())
    await api.put(NODES, {"metadata": {"name": "master"}, "status": {"conditions": []}})
    await api.put(LEASES, {"metadata": {"name": "edge-1"}, "spec": {}}, NODE_LEASE_NAMESPACE)
    async with running(tmp_path, api) as hub:
        await until(lambda: hub.ready()["status"] == "Unknown")
        conditions = api.objects[NODE]["status"]["conditions"]
        assert conditions[0] == {"type": "DiskPressure", "status": "False"}
        assert api.asked("PATCH", "/nodes/master") == []


async def test_a_hub_that_starts_over_a_ready_node_writes_only_its_lease(tmp_path: Path) -> None:
    api = TinyApi()
    await api.put(NODES, edge_node())
    await api.put(LEASES, {"metadata": {"name": "edge-1"}, "spec": {}}, NODE_LEASE_NAMESPACE)
    async with running(tmp_path, api) as hub:
        hub.nodes.session_up(EDGE, 6)
        await until(lambda: len(api.asked("PATCH", "/leases/edge-1")) >= 3)
        assert {entry.path for entry in api.requests if entry.method in ("PATCH", "POST", "PUT")} == {
            "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/edge-1"
        }


async def test_another_replica_that_renews_the_lease_keeps_the_node(tmp_path: Path) -> None:
    api = TinyApi()
    other = tmp_path / "other"
    other.mkdir()
    async with running(tmp_path, api, grace_s=1.0) as idle, running(other, api, grace_s=1.0) as serving:
        serving.nodes.session_up(EDGE, 7)
        await until(lambda: idle.ready().get("status") == "True")
        await until(lambda: len(api.asked("PATCH", "/leases/edge-1")) >= 24)  # longer than that
        assert idle.ready()["status"] == "True"
        serving.nodes.session_down(EDGE)
        await until(lambda: idle.ready()["status"] == "Unknown")
        assert ready_writes(api) <= 4  # each replica may try; one wins, the other sees that it is done


async def test_a_ready_that_somebody_took_away_is_given_back(tmp_path: Path) -> None:
    async with running(tmp_path) as hub:
        hub.nodes.session_up(EDGE, 8)
        await until(lambda: hub.ready().get("status") == "True")
        await hub.api.put(NODES, edge_node("Unknown"))
        await until(lambda: hub.ready()["status"] == "True")


async def test_conditions_that_are_none_are_put_right_and_end_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as hub:
        hub.nodes.session_up(EDGE, 8)
        for odd in (7, ["x", {"type": 7}]):
            await until(lambda: hub.ready().get("status") == "True")
            await hub.api.put(NODES, edge_node("True") | {"status": {"conditions": odd}})
            await until(lambda: hub.ready().get("status") == "True")


async def test_a_deleted_node_stays_deleted_until_its_next_session(tmp_path: Path) -> None:
    async with running(tmp_path) as hub:
        hub.nodes.session_up(EDGE, 9)
        await until(lambda: LEASE in hub.api.objects)
        await hub.api.delete(NODE)
        asked = len(hub.api.requests)
        for _ in range(4):
            await asyncio.sleep(0.05)
        assert NODE not in hub.api.objects
        assert len(hub.api.requests) <= asked + 2  # what was under way
        hub.nodes.session_down(EDGE)
        hub.nodes.session_up(EDGE, 10)
        await until(lambda: hub.ready().get("status") == "True")


async def test_a_conflict_is_read_again(tmp_path: Path) -> None:
    api = TinyApi()
    conflicts = 2

    def answer(request: Request) -> ApiError | None:
        nonlocal conflicts
        if request.path.endswith("/nodes/edge-1/status") and conflicts:
            conflicts -= 1
            return Conflict("changed meanwhile")
        return None

    api.answer = answer
    async with running(tmp_path, api) as hub:
        hub.nodes.session_up(EDGE, 11)
        await until(lambda: hub.ready().get("status") == "True")
        assert conflicts == 0


async def test_a_cluster_without_the_lease_namespace_gets_it(tmp_path: Path) -> None:
    api = TinyApi()
    namespace = ObjectKey(NAMESPACES, "", NODE_LEASE_NAMESPACE)

    def answer(request: Request) -> ApiError | None:
        if request.method == "POST" and request.path.endswith("/leases") and namespace not in api.objects:
            return NotFound('namespaces "kube-node-lease" not found')
        return None

    api.answer = answer
    async with running(tmp_path, api) as hub:
        hub.nodes.session_up(EDGE, 12)
        await until(lambda: LEASE in api.objects)
        assert namespace in api.objects


async def test_a_right_that_is_missing_is_told_once_and_used_when_granted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudhub.nodes.full_jitter_s", lambda failures, jitter: -0.99)
    api = TinyApi()
    refusals = 0

    def answer(request: Request) -> ApiError | None:
        nonlocal refusals
        if request.method == "POST":
            refusals += 1
            return Forbidden("nodes is forbidden")
        return None

    api.answer = answer
    with caplog.at_level(logging.WARNING, "cloudhub.nodes"):
        async with running(tmp_path, api) as hub:
            hub.nodes.session_up(EDGE, 13)
            await until(lambda: refusals >= 5)
            assert [record.message[:24] for record in caplog.records] == [
                "the apiserver refuses th",
                "cannot tell the apiserve",
            ]
            api.answer = lambda request: None
            await until(lambda: hub.ready().get("status") == "True")


# Whose session is the last one


def claimed(api: TinyApi) -> tuple[str, str]:
    """(term, replica) as the Lease has it."""
    found = api.objects.get(LEASE, {"metadata": {}})["metadata"].get("annotations") or {}
    return found.get(TERM_ANNOTATION, ""), found.get(REPLICA_ANNOTATION, "")


async def test_a_replica_is_told_as_soon_as_another_has_a_newer_session(tmp_path: Path) -> None:
    api = TinyApi()
    (tmp_path / "other").mkdir()
    async with running(tmp_path, api, renew_s=60.0) as first, running(tmp_path / "other", api, renew_s=60.0) as second:
        first.nodes.session_up(EDGE, 5)
        await until(lambda: first.fences.standing(EDGE) is Standing.HELD)
        second.nodes.session_up(EDGE, 6)
        await until(lambda: first.overtaken)
        assert first.overtaken[0] == (EDGE, 5, 6, True)
        await until(lambda: second.fences.standing(EDGE) is Standing.HELD)
        assert claimed(api) == ("6", second.fences.replica)
        assert not second.overtaken


async def test_a_session_with_an_old_term_never_takes_the_lease(tmp_path: Path) -> None:
    api = TinyApi()
    async with running(tmp_path, api) as hub:
        hub.nodes.session_up(EDGE, 5)
        await until(lambda: claimed(api)[0] == "5")
        hub.nodes.session_down(EDGE)
    async with running(tmp_path, api) as hub:
        hub.nodes.session_up(EDGE, 5)
        await until(lambda: hub.overtaken)
        assert hub.overtaken[0] == (EDGE, 5, 5, False)
        assert claimed(api)[1] != hub.fences.replica


async def test_a_lease_is_taken_over_and_kept_with_one_request_each(tmp_path: Path) -> None:
    api = TinyApi()
    await api.put(NODES, edge_node())
    metadata = {"name": "edge-1", "annotations": {TERM_ANNOTATION: "4", REPLICA_ANNOTATION: "gone"}}
    await api.put(LEASES, {"metadata": metadata, "spec": {}}, NODE_LEASE_NAMESPACE)
    async with running(tmp_path, api) as hub:
        api.requests.clear()
        hub.nodes.session_up(EDGE, 5)
        await until(lambda: len(api.asked("PATCH")) >= 3)
        assert {entry.method for entry in api.requests} - {"WATCH"} == {"PATCH"}
        assert claimed(api) == ("5", hub.fences.replica)


async def test_whoever_writes_the_lease_besides_does_not_keep_it_from_being_taken(tmp_path: Path) -> None:
    """A kubelet, or an apiserver that was restored from a backup."""
    api = TinyApi()
    async with running(tmp_path, api) as hub:
        hub.nodes.session_up(EDGE, 5)
        await until(lambda: claimed(api)[0] == "5")
        await api.put(LEASES, {"metadata": {"name": "edge-1"}, "spec": {}}, NODE_LEASE_NAMESPACE)
        await until(lambda: claimed(api)[0] == "5")
        await api.delete(LEASE)
        await until(lambda: claimed(api)[0] == "5")
        assert not hub.overtaken


async def test_a_lease_that_is_refused_for_good_costs_the_fence_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    api = TinyApi()
    api.answer = lambda request: Forbidden("no leases for you") if "/leases/" in request.path else None
    await api.put(NODES, edge_node("Unknown"))
    await api.put(LEASES, {"metadata": {"name": "edge-1"}, "spec": {}}, NODE_LEASE_NAMESPACE)
    with caplog.at_level(logging.WARNING, "cloudhub.nodes"):
        async with running(tmp_path, api) as hub:
            hub.nodes.session_up(EDGE, 5)
            await until(lambda: hub.fences.permit(EDGE, 5, 10**9) is Permit.WRITE)
            await until(lambda: hub.ready().get("status") == "True")
    assert "the apiserver refuses the node's Lease" in caplog.text


async def test_all_who_ask_at_the_same_time_cost_one_request(tmp_path: Path) -> None:
    api = TinyApi()
    async with running(tmp_path, api, renew_s=60.0) as hub:
        hub.nodes.session_up(EDGE, 5)
        await until(lambda: hub.ready().get("status") == "True" and hub.fences.standing(EDGE) is Standing.HELD)
        learned = hub.fences.tick()
        asked = len(api.requests)
        async with asyncio.TaskGroup() as tasks:
            for number in range(5):
                tasks.create_task(hub.nodes.confirm(EDGE, 5, learned), name=f"confirm[{number}]")
        assert hub.fences.permit(EDGE, 5, learned) is Permit.WRITE
        assert [(entry.method, entry.path.rpartition("/")[2]) for entry in api.requests[asked:]] == [("GET", "edge-1")]
        api.answer = lambda request: Unavailable("not now") if "/leases/" in request.path else None
        with pytest.raises(Unavailable):
            await hub.nodes.confirm(EDGE, 5, hub.fences.tick())


async def test_a_node_of_the_embedded_apiserver(tmp_path: Path) -> None:
    async with dev_api(tmp_path / "api") as client:
        cache = WatchCache()
        nodes = NodeLifecycle(client, Presence(renew_s=0.05, grace_s=0.3), Fences("r"), lambda *_: None)
        reflectors = [
            Reflector(client, NODES, cache, nodes),
            Reflector(client, LEASES, cache, nodes, observe=nodes.observe_lease),
        ]

        def ready() -> str:
            node = cache.get(NODE)
            conditions = (node.parse().get("status") or {}).get("conditions") if node else None
            return str(conditions[0]["status"]) if conditions else ""

        async with asyncio.TaskGroup() as tasks:
            started = [tasks.create_task(each.run(), name=each.resource.plural) for each in reflectors]
            for each in reflectors:
                await each.wait_synced()
            started.append(tasks.create_task(nodes.run(), name="nodes"))
            nodes.session_up(EDGE, 14)
            await until(lambda: ready() == "True" and cache.get(LEASE) is not None)
            revision = cache.revision
            first = (await client.get(LEASE))["spec"]["renewTime"]
            async with asyncio.timeout(5.0):
                while (await client.get(LEASE))["spec"]["renewTime"] == first:
                    await asyncio.sleep(0.02)
            assert cache.revision == revision, "renewing a Lease is no change for anybody"
            nodes.session_down(EDGE)
            await until(lambda: ready() == "Unknown")
            for task in started:
                task.cancel()
