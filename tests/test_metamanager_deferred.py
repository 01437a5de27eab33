"""Local writes on their way up: taken, refused, repeated, overtaken by what the cloud says."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from metamanager import deferred as module
from tests.harness.edgeapi import POD, EdgeApi, edge_and_cloud
from tests.test_metamanager_offline import EVENT, EVENTS, LEASE, NODE_STATUS, STRATEGIC


@pytest.fixture
async def edge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[EdgeApi]:
    monkeypatch.setattr(module, "LOOK_S", 0.02)
    monkeypatch.setattr(module, "RETRY_S", 0.02)
    async with edge_and_cloud(tmp_path) as edge:
        yield edge


async def phase(edge: EdgeApi, value: str) -> Any:
    return await edge.ask("PATCH", f"{POD}/status", {"status": {"phase": value}}, STRATEGIC)


async def is_drained(edge: EdgeApi) -> bool:
    return not await edge.store.local_writes()


async def test_a_status_goes_up_once_the_cloud_is_back_and_clients_see_no_step_back(edge: EdgeApi) -> None:
    edge.cloud.go()
    await phase(edge, "Running")
    last = await phase(edge, "Succeeded")
    async with edge.watch(f"/api/v1/pods?resourceVersion={last.version}&timeoutSeconds=1") as event:
        edge.cloud.come_back()
        await edge.until(lambda: is_drained(edge))
        assert (await edge.cloud.ask("GET", POD))["status"]["phase"] == "Succeeded"
        assert (await edge.get(POD)).body == last.body
        with pytest.raises(StopAsyncIteration):
            await event()
    assert [call.method for call in edge.cloud.calls if "status" in call.target] == ["PATCH"], "the last value only"


async def test_only_what_the_node_changed_goes_up(edge: EdgeApi) -> None:
    edge.cloud.go()
    condition = {"type": "DiskPressure", "status": "True"}
    await edge.ask("PATCH", NODE_STATUS, {"status": {"conditions": [condition]}}, STRATEGIC)
    unknown = {"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}
    await edge.cloud.ask("PATCH", NODE_STATUS, unknown, STRATEGIC)
    edge.cloud.come_back()
    await edge.until(lambda: is_drained(edge))
    conditions = (await edge.cloud.ask("GET", NODE_STATUS))["status"]["conditions"]
    assert {each["type"]: each["status"] for each in conditions} == {"DiskPressure": "True", "Ready": "Unknown"}
    assert (await edge.get("/api/v1/nodes/edge-1")).body["status"]["conditions"] == conditions


async def test_a_pod_that_is_another_one_by_now_gets_nothing_of_the_old_ones(edge: EdgeApi) -> None:
    edge.cloud.go()
    await phase(edge, "Failed")
    pod = await edge.cloud.ask("GET", POD)
    await edge.cloud.ask("DELETE", POD)
    del pod["metadata"]["uid"], pod["metadata"]["resourceVersion"]
    await edge.cloud.ask("POST", POD.rpartition("/")[0], pod)
    edge.cloud.come_back()
    await edge.until(lambda: is_drained(edge))
    assert (await edge.cloud.ask("GET", POD))["status"]["phase"] == "Pending"
    assert (await edge.get(POD)).body["status"]["phase"] == "Pending"


@pytest.mark.parametrize("taken", [True, False], ids=["taken by another", "still held"])
async def test_a_renewal_counts_if_the_lease_is_still_held(edge: EdgeApi, taken: bool) -> None:
    spec = {"holderIdentity": "me", "leaseTransitions": 1}
    await edge.cloud.ask("POST", LEASE, {"metadata": {"name": "leader"}, "spec": spec})
    await edge.get(LEASE)
    edge.cloud.go()
    renewal = {"spec": {"renewTime": "2030-01-01T00:00:00.000000Z"}}
    await edge.ask("PATCH", f"{LEASE}/leader", renewal)
    if taken:
        await edge.cloud.ask(
            "PATCH", f"{LEASE}/leader", {"spec": {"holderIdentity": "you"}}, "application/merge-patch+json"
        )
    edge.cloud.come_back()
    await edge.until(lambda: is_drained(edge))
    expected = spec | {"holderIdentity": "you"} if taken else spec | renewal["spec"]
    assert (await edge.cloud.ask("GET", f"{LEASE}/leader"))["spec"] == expected


async def test_a_lease_that_somebody_took_unheard_is_not_taken_back(edge: EdgeApi) -> None:
    await edge.cloud.ask("POST", LEASE, {"metadata": {"name": "leader"}, "spec": {"holderIdentity": "me"}})
    await edge.get(LEASE)
    edge.cloud.go()
    await edge.ask("PATCH", f"{LEASE}/leader", {"spec": {"renewTime": "now"}})
    edge.cloud.holds_back = True
    await edge.cloud.ask(
        "PATCH", f"{LEASE}/leader", {"spec": {"holderIdentity": "you"}}, "application/merge-patch+json"
    )
    edge.cloud.come_back()
    await edge.until(lambda: is_drained(edge))
    assert (await edge.cloud.ask("GET", f"{LEASE}/leader"))["spec"] == {"holderIdentity": "you"}


async def test_an_event_is_made_once_also_where_the_answer_was_lost(edge: EdgeApi) -> None:
    edge.cloud.loses_answers = True
    made = await edge.ask("POST", EVENTS, EVENT | {"metadata": {"name": "killed"}})
    assert made.status == 201
    edge.cloud.loses_answers = False
    await edge.until(lambda: is_drained(edge))
    events = (await edge.cloud.ask("GET", EVENTS))["items"]
    assert [each["metadata"]["name"] for each in events] == ["killed"]
    assert (await edge.store.parked()).total == 0
    edge.cloud.go()
    await edge.ask("POST", EVENTS, EVENT | {"metadata": {"name": "again"}})
    edge.cloud.come_back()
    await edge.until(lambda: is_drained(edge))
    assert (await edge.cloud.ask("GET", f"{EVENTS}/again"))["reason"] == "Killed"


async def test_what_the_apiserver_never_takes_is_taken_back_and_told(edge: EdgeApi) -> None:
    edge.cloud.go()
    await phase(edge, "Running")
    edge.cloud.answers_with = 422
    edge.cloud.come_back()
    await edge.until(lambda: is_drained(edge))
    assert (await edge.get(POD)).body["status"]["phase"] == "Pending"
    parked = await edge.store.parked()
    assert (parked.total, parked.last[0].field, parked.last[0].reason) == (1, "status", "the apiserver answered 422")


async def test_what_the_apiserver_cannot_take_now_is_tried_again_and_holds_up_nothing(edge: EdgeApi) -> None:
    edge.cloud.go()
    await phase(edge, "Running")
    edge.cloud.answers_with = 500
    edge.cloud.come_back()
    await edge.until(lambda: _was_tried(edge, 3))
    assert not await is_drained(edge)
    edge.cloud.answers_with = 0
    await edge.until(lambda: is_drained(edge))
    assert (await edge.cloud.ask("GET", POD))["status"]["phase"] == "Running"


async def _was_tried(edge: EdgeApi, times: int) -> bool:
    return len([call for call in edge.cloud.calls if call.method == "PATCH"]) >= times


async def test_a_write_is_no_larger_on_its_way_than_the_store_takes_and_the_link_with_it(edge: EdgeApi) -> None:
    edge.cloud.go()
    large = EVENT | {"message": "\N{SNOWMAN}" * 600_000}  # six bytes each where escaped, over the link's limit
    assert (await edge.ask("POST", EVENTS, json.dumps(large, ensure_ascii=False).encode())).status == 201
    await phase(edge, "Succeeded")
    edge.cloud.come_back()
    await edge.until(lambda: is_drained(edge))
    assert (await edge.cloud.ask("GET", POD))["status"]["phase"] == "Succeeded"
    assert [each["message"] for each in (await edge.cloud.ask("GET", EVENTS))["items"]] == [large["message"]]
