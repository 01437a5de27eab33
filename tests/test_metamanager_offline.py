"""What a node may write while the cloud is away, and what it may not."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from apimachinery.resources import LEASES
from apiserver.requests import ApiRequest, Verb
from metamanager.interests import FETCH_S
from metamanager.offline import MAX_LOCAL_EVENTS, is_nodes_own
from tests.harness.edgeapi import CONFIG, POD, EdgeApi, edge_and_cloud, started

STRATEGIC = "application/strategic-merge-patch+json"
NODE_STATUS = "/api/v1/nodes/edge-1/status"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
EVENTS = "/api/v1/namespaces/default/events"
EVENT = {
    "metadata": {"generateName": "web."},
    "involvedObject": {"kind": "Pod", "name": "web", "namespace": "default"},
    "reason": "Killed",
    "type": "Warning",
}


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[EdgeApi]:
    """Cut off, with a Lease that somebody here holds."""
    async with edge_and_cloud(tmp_path) as edge:
        body = {"metadata": {"name": "leader"}, "spec": {"holderIdentity": "me", "leaseTransitions": 1}}
        await edge.cloud.ask("POST", LEASE, body)
        assert (await edge.get(LEASE)).names == ["leader"]
        edge.cloud.go()
        yield edge


async def test_the_status_of_what_is_the_nodes_own_is_taken_and_seen(edge: EdgeApi) -> None:
    version = (await edge.get("/api/v1/pods")).version
    async with edge.watch(f"/api/v1/pods?resourceVersion={version}") as event:
        answer = await edge.ask("PATCH", f"{POD}/status", {"status": {"phase": "Running"}}, STRATEGIC)
        assert (answer.status, answer.body["status"]["phase"]) == (200, "Running")
        assert await event() == {"type": "MODIFIED", "object": answer.body}
    assert (await edge.get(POD)).body == answer.body
    assert (await edge.get("/api/v1/pods?fieldSelector=status.phase%3DRunning")).names == ["web"]
    conditions = {"conditions": [{"type": "DiskPressure", "status": "True"}]}
    node = await edge.ask("PATCH", NODE_STATUS, {"status": conditions}, STRATEGIC)
    assert sorted(each["type"] for each in node.body["status"]["conditions"]) == ["DiskPressure", "Ready"]


async def test_a_put_must_be_based_on_what_is_seen(edge: EdgeApi) -> None:
    pod = (await edge.get(POD)).body
    first = await edge.ask("PUT", f"{POD}/status", pod | {"status": {"phase": "Running"}, "spec": {}})
    assert (first.status, first.body["status"]) == (200, {"phase": "Running"})
    assert first.body["spec"] == pod["spec"], "a write of the status leaves the rest alone"
    late = await edge.ask("PUT", f"{POD}/status", pod | {"status": {"phase": "Failed"}})
    assert (late.status, late.body["reason"]) == (409, "Conflict")
    other = await edge.ask("PUT", f"{POD}/status", {"metadata": {"name": "web", "uid": "another"}})
    assert other.status == 409
    without = await edge.ask("PUT", f"{POD}/status", {"metadata": {"name": "web"}, "status": {"phase": "Failed"}})
    assert (without.status, without.body["status"]["phase"]) == (200, "Failed")


async def test_what_changes_nothing_is_no_write(edge: EdgeApi) -> None:
    first = await edge.ask("PATCH", f"{POD}/status", {"status": {"phase": "Running"}}, STRATEGIC)
    writes, revision = await edge.store.local_writes(), edge.store.feed.revision
    again = await edge.ask("PATCH", f"{POD}/status", {"status": {"phase": "Running"}}, STRATEGIC)
    put = await edge.ask("PUT", f"{POD}/status", first.body)
    assert (again.status, again.body, put.status, put.body) == (200, first.body, 200, first.body)
    assert (await edge.store.local_writes(), edge.store.feed.revision) == (writes, revision)


async def test_a_dry_run_changes_nothing(edge: EdgeApi) -> None:
    dry = await edge.ask("PATCH", f"{POD}/status?dryRun=All", {"status": {"phase": "Running"}}, STRATEGIC)
    assert (dry.status, dry.body["status"]["phase"]) == (200, "Running")
    assert await edge.store.local_writes() == []


async def test_a_lease_is_renewed_by_whoever_holds_it_and_by_nobody_else(edge: EdgeApi) -> None:
    lease = (await edge.get(f"{LEASE}/leader")).body
    renewed = await edge.ask("PUT", f"{LEASE}/leader", lease | {"spec": lease["spec"] | {"renewTime": "now"}})
    assert (renewed.status, renewed.body["spec"]["renewTime"]) == (200, "now")
    again = await edge.ask("PUT", f"{LEASE}/leader", renewed.body | {"spec": lease["spec"] | {"renewTime": "later"}})
    assert again.status == 200
    stolen = await edge.ask("PATCH", f"{LEASE}/leader", {"spec": {"holderIdentity": "you"}})
    assert (stolen.status, "retry-after" in stolen.headers) == (503, False)
    assert "where all can see it" in stolen.body["message"]
    assert len(await edge.store.local_writes()) == 1


async def test_events_are_made_changed_and_read(edge: EdgeApi) -> None:
    made = await edge.ask("POST", EVENTS, EVENT)
    assert made.status == 201
    name = made.body["metadata"]["name"]
    assert name.startswith("web.")
    assert (await edge.get(f"{EVENTS}/{name}")).body == made.body
    counted = await edge.ask("PATCH", f"{EVENTS}/{name}", {"count": 2}, STRATEGIC)
    assert (counted.status, counted.body["count"]) == (200, 2)
    assert (await edge.ask("PATCH", f"{EVENTS}/unknown", {"count": 2}, STRATEGIC)).status == 404
    taken = EVENT | {"metadata": {"name": name}}
    assert (await edge.ask("POST", EVENTS, taken)).body["reason"] == "AlreadyExists"
    wrong = EVENT | {"involvedObject": {"namespace": "other"}}
    assert (await edge.ask("POST", EVENTS, wrong)).status == 400
    invalid = EVENT | {"metadata": {"name": "No Name"}}
    assert (await edge.ask("POST", EVENTS, invalid)).status == 422


async def test_too_many_events_cost_the_oldest_and_nothing_else(edge: EdgeApi) -> None:
    await edge.ask("PATCH", f"{POD}/status", {"status": {"phase": "Running"}}, STRATEGIC)
    names = [
        (await edge.ask("POST", EVENTS, EVENT | {"metadata": {"name": f"e{number}"}})).body["metadata"]["name"]
        for number in range(MAX_LOCAL_EVENTS + 2)
    ]
    kept = [write.key.name for write in await edge.store.local_writes()]
    assert kept == ["web", *names[2:]]


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("POST", CONFIG, {"metadata": {"name": "x"}}),
        ("PATCH", f"{CONFIG}/x", {"data": {}}),
        ("DELETE", POD, None),
        ("PATCH", POD, {"metadata": {"labels": {"a": "b"}}}),
        ("PATCH", "/api/v1/nodes/other/status", {"status": {}}),
        ("PATCH", "/api/v1/namespaces/default/pods/elsewhere/status", {"status": {}}),
        ("POST", LEASE, {"metadata": {"name": "new"}}),
        ("DELETE", f"{LEASE}/leader", None),
        ("POST", "/api/v1/namespaces/default/serviceaccounts/default/token", {"spec": {}}),
    ],
)
async def test_everything_else_is_refused_at_once_with_the_reason(
    edge: EdgeApi, method: str, target: str, body: Any
) -> None:
    began = time.monotonic()
    answer = await edge.ask(method, target, body)
    assert time.monotonic() - began < FETCH_S / 2  # as long as a reader waits for what may come
    assert (answer.status, answer.body["reason"]) == (503, "ServiceUnavailable")
    assert "not connected to the cloud" in answer.body["message"]
    assert "retry-after" not in answer.headers, "kubectl would try ten times"
    assert await edge.store.local_writes() == []


@pytest.mark.parametrize(
    ("body", "media_type", "status"),
    [
        (b"no json", "application/json", 400),
        (b"[]", "application/json", 400),
        ({"metadata": {"name": "other"}}, "application/json", 400),
        ({"kind": "Node", "metadata": {"name": "web"}}, "application/json", 400),
    ],
)
async def test_a_body_that_is_not_the_object_is_refused(edge: EdgeApi, body: Any, media_type: str, status: int) -> None:
    assert (await edge.ask("PUT", f"{POD}/status", body, media_type)).status == status
    assert (await edge.ask("PATCH", f"{POD}/status", b"x", "text/plain")).status == 415


async def test_what_was_taken_survives_a_restart(tmp_path: Path) -> None:
    async with edge_and_cloud(tmp_path) as edge:
        edge.cloud.go()
        taken = await edge.ask("PATCH", f"{POD}/status", {"status": {"phase": "Running"}}, STRATEGIC)
        await edge.store.close()
        async with started(tmp_path, edge.cloud) as again:
            assert (await again.get(POD)).body == taken.body


def test_which_requests_may_be_the_nodes_own() -> None:
    lease = ApiRequest(verb=Verb.UPDATE, resource=LEASES, namespace="kube-node-lease", name="edge-1")
    assert is_nodes_own(lease, "edge-1")
    assert not is_nodes_own(ApiRequest(verb=Verb.DELETE, resource=LEASES, name="x"), "edge-1")
