"""What the store can answer by itself, what must come first, and what is only a part."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from apimachinery.resources import CONFIG_MAPS, CUSTOM_RESOURCE_DEFINITIONS, LEASES, NODES
from link.frames import Interest
from tests.harness.edgeapi import CONFIG, NODE_BODY, POD_BODY, EdgeApi, edge_and_cloud
from tests.test_apiserver_crds import crd

LAMPS = "/apis/example.com/v1/namespaces/default/lamps"


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[EdgeApi]:
    async with edge_and_cloud(tmp_path) as edge:
        yield edge


async def test_what_is_the_nodes_own_is_complete_by_itself(edge: EdgeApi) -> None:
    await edge.cloud.ask("POST", "/api/v1/nodes", NODE_BODY | {"metadata": {"name": "other"}})
    assert (await edge.get("/api/v1/nodes")).names == ["edge-1"]
    assert (await edge.get("/api/v1/pods")).names == ["web"]
    assert (await edge.get("/api/v1/nodes/other")).status == 404
    assert (await edge.get("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases")).names == []
    assert edge.link.interests.selections == []
    assert (await edge.get("/apis/coordination.k8s.io/v1/namespaces/default/leases")).names == []
    assert edge.link.interests.selections == [Interest(LEASES, "default")]


async def test_what_a_pod_refers_to_is_served_by_name_and_a_list_needs_the_rest(edge: EdgeApi) -> None:
    spec = {**POD_BODY["spec"], "volumes": [{"name": "v", "configMap": {"name": "used"}}]}
    for name in ("used", "unused"):
        await edge.cloud.ask("POST", CONFIG, {"metadata": {"name": name}})
    pod = POD_BODY | {"metadata": {"name": "two", "namespace": "default"}, "spec": spec}
    await edge.cloud.ask("POST", "/api/v1/namespaces/default/pods", pod)
    await edge.until_held(CONFIG_MAPS, "used")
    assert (await edge.get(f"{CONFIG}/used")).status == 200
    assert edge.link.interests.selections == []
    edge.cloud.go()
    part = await edge.get(CONFIG)
    assert part.names == ["used"]
    assert part.headers["warning"].startswith("299 - \"this is only this node's own part of configmaps")
    assert (await edge.get(f"{CONFIG}/unused")).status == 503
    edge.cloud.come_back()
    whole = await edge.get(CONFIG)
    assert (whole.names, "warning" in whole.headers) == (["unused", "used"], False)


async def test_who_may_not_list_gets_the_part_and_is_told_why(edge: EdgeApi) -> None:
    edge.cloud.refusals[Interest(CONFIG_MAPS, "default")] = (403, "nodes see what their pods use")
    part = await edge.get(CONFIG)
    assert (part.status, part.names) == (200, [])
    assert "nodes see what their pods use" in part.headers["warning"]
    edge.cloud.refusals[Interest(CONFIG_MAPS, "default", "x")] = (403, "nodes see what their pods use")
    refused = await edge.get(f"{CONFIG}/x")
    assert (refused.status, refused.body["details"]["name"]) == (403, "x")
    assert 'configmaps "x" is forbidden: this node cannot get resource "configmaps"' in refused.body["message"]


async def test_any_custom_kind_is_found_and_shown_as_its_definition_says(edge: EdgeApi) -> None:
    body = crd()
    body["spec"]["versions"][0]["additionalPrinterColumns"] = [
        {"name": "Watts", "type": "integer", "jsonPath": ".spec.watts"}
    ]
    assert (await edge.get(LAMPS)).status == 404
    await edge.cloud.ask("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", body)
    await edge.cloud.ask("POST", LAMPS, {"metadata": {"name": "l"}, "spec": {"watts": 5}})
    await edge.until(lambda: _is_found(edge))
    assert (await edge.get(LAMPS)).names == ["l"]
    await edge.until_held(CUSTOM_RESOURCE_DEFINITIONS, "lamps.example.com")
    table = await edge.get(LAMPS, accept="application/json;as=Table;v=v1;g=meta.k8s.io")
    assert [column["name"] for column in table.body["columnDefinitions"]] == ["Name", "Watts"]
    edge.cloud.go()
    assert (await edge.get(LAMPS)).names == ["l"]
    assert (await edge.get("/apis/example.com/v1")).body["resources"][0]["name"] == "lamps"


async def _is_found(edge: EdgeApi) -> bool:
    return (await edge.get(LAMPS)).status == 200


async def test_a_version_that_only_the_cluster_knows_counts_as_none_given(edge: EdgeApi) -> None:
    marked = (1 << 62) + 5
    assert (await edge.get(f"/api/v1/nodes?resourceVersion={marked}")).names == ["edge-1"]
    async with edge.watch(f"/api/v1/nodes?resourceVersion={marked}") as event:
        assert (await event())["object"]["code"] == 410
    assert (await edge.until_held(NODES, "edge-1"))["kind"] == "Node"


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/api/v1/services?labelSelector=a%3D%3D%3Db", 400),
        ("/api/v1/services?fieldSelector=spec.colour%3Dred", 400),
        ("/api/v1/services?resourceVersion=soon", 422),
        ("/api/v1/namespaces/default/services/..", 400),
        ("/api/v1/namespaces//services", 404),
        ("/api/v1/nosuch", 404),
        ("/apis", 200),
        ("/somewhere/else/at/all", 404),
    ],
)
async def test_what_cannot_be_asked_asks_nothing_of_the_cloud(edge: EdgeApi, target: str, status: int) -> None:
    answer = await edge.get(target)
    assert answer.status == status
    assert status == 200 or answer.body["kind"] == "Status"
    assert edge.link.interests.selections == []
