"""
Interests and calls, end to end: the edge's side of the link in this process, cloudcore and the apiserver as processes
of their own, with the rights that docs/operations.md gives the hub, and with RBAC deciding.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import yaml

from apimachinery.errors import NotFound
from apimachinery.keys import ObjectKey, Resource
from apimachinery.objects import JSON
from apimachinery.resources import (
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    LEASES,
    NAMESPACES,
    PODS,
    SERVICE_ACCOUNTS,
)
from cloudhub.apiclient import ApiClient
from cloudhub.closed import REASON
from link.errors import LinkClosed
from link.frames import Interest
from tests.harness.linked_edge import LinkedEdge, linked_edge
from tests.harness.mosquitto import free_port
from tests.harness.proxy import Proxy
from tests.harness.site import Site

NODE = "edge-1"
RECHECK_S = 1.0
WIDGETS = Resource("example.com", "v1", "widgets", "Widget", True)
GADGETS = Resource("example.com", "v1", "gadgets", "Gadget", True)
ROLES = Resource("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", False)
BINDINGS = Resource("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", False)
OPERATOR = "system:serviceaccount:shop:operator"
STRANGER = "system:serviceaccount:shop:stranger"
ALL_WIDGETS, ALL_GADGETS = Interest(WIDGETS), Interest(GADGETS)
WIDGETS_PATH = "/apis/example.com/v1/namespaces/shop/widgets"


def definition(resource: Resource) -> dict[str, JSON]:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": resource.collection},
        "spec": {
            "group": resource.group,
            "scope": "Namespaced",
            "names": {"plural": resource.plural, "kind": resource.kind},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                    "subresources": {"status": {}},
                }
            ],
        },
    }


def widget(name: str, size: int, **metadata: JSON) -> dict[str, JSON]:
    return {
        "apiVersion": "example.com/v1",
        "kind": "Widget",
        "metadata": {"name": name, "namespace": "shop", **metadata},
        "spec": {"size": size},
    }


def role(name: str, verbs: list[str], *resources: str) -> dict[str, JSON]:
    rules = [{"apiGroups": ["example.com", ""], "resources": list(resources), "verbs": verbs}]
    return {"metadata": {"name": name}, "rules": rules}


def binding(called: str, role: str, **subject: str) -> dict[str, JSON]:
    return {
        "metadata": {"name": called},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [subject],
    }


async def prepare(admin: ApiClient) -> None:
    """The cluster before anybody joins."""
    for resource in (WIDGETS, GADGETS):
        await admin.create(CUSTOM_RESOURCE_DEFINITIONS, "", definition(resource))
    await admin.create(NAMESPACES, "", {"metadata": {"name": "shop"}})
    for name in ("operator", "stranger"):
        await admin.create(SERVICE_ACCOUNTS, "shop", {"metadata": {"name": name}})
    await admin.create(ROLES, "", role("reads-widgets", ["get", "list", "watch"], "widgets"))
    await admin.create(BINDINGS, "", binding("nodes-read", "reads-widgets", kind="Group", name="system:nodes"))
    verbs = ["get", "list", "watch", "create", "update", "patch", "delete"]
    await admin.create(ROLES, "", role("works", verbs, "widgets", "widgets/status", "configmaps"))
    subject = {"kind": "ServiceAccount", "name": "operator", "namespace": "shop"}
    await admin.create(BINDINGS, "", binding("operator-works", "works", **subject))
    spec = {"nodeName": NODE, "serviceAccountName": "operator", "containers": [{"name": "c", "image": "i"}]}
    await admin.create(PODS, "shop", {"metadata": {"name": "operator"}, "spec": spec})
    for number in range(2):
        await admin.create(WIDGETS, "shop", widget(f"w{number}", number))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("interest")
    with Site(directory) as made:

        async def prepared() -> None:
            async with ApiClient.from_kubeconfig(made.kubeconfig) as admin:
                await prepare(admin)

        asyncio.run(prepared())
        (directory / "cloud.yaml").write_text(yaml.safe_dump({"interest": {"recheckSeconds": RECHECK_S}}))
        start(made)
        made.join(NODE)
        yield made


def start(site: Site) -> None:
    site.start_cloud(flags=("--config", str(site.directory / "cloud.yaml")))


@pytest.fixture
async def admin(site: Site) -> AsyncIterator[ApiClient]:
    async with ApiClient.from_kubeconfig(site.kubeconfig) as client:
        yield client


@pytest.fixture
async def edge(site: Site) -> AsyncIterator[LinkedEdge]:
    async with linked_edge(site.directory / NODE, NODE, site.ports["link"]) as made:
        await made.until(lambda: made.connector.status.synced)
        yield made


def key(name: str, resource: Resource = WIDGETS) -> ObjectKey:
    return ObjectKey(resource, "shop", name)


async def size_held(edge: LinkedEdge, name: str) -> int | None:
    body = await edge.body(key(name))
    return None if body is None else body["spec"]["size"]


async def test_an_interest_is_granted_pushed_and_survives_a_hub_that_is_killed(
    site: Site, admin: ApiClient, edge: LinkedEdge
) -> None:
    edge.connector.want([ALL_WIDGETS])
    await edge.until(lambda: edge.is_complete(ALL_WIDGETS))
    assert await edge.names(WIDGETS) == ["w0", "w1"]
    assert edge.book.resources == (WIDGETS,)
    assert await edge.names(CUSTOM_RESOURCE_DEFINITIONS) == [WIDGETS.collection], "its definition comes along"
    await admin.patch(key("w0"), {"spec": {"size": 10}})

    async def is_pushed() -> bool:
        return await size_held(edge, "w0") == 10

    await edge.until(is_pushed)
    site.processes["cloud"].kill()
    await edge.until(lambda: not edge.connector.status.connected)
    await admin.patch(key("w1"), {"spec": {"size": 11}})
    edge.batches.clear()
    await asyncio.to_thread(start, site)

    async def has_caught_up() -> bool:
        return edge.connector.status.synced and await size_held(edge, "w1") == 11

    await edge.until(has_caught_up)
    assert [delta.key.name for batch in edge.batches for delta in batch.deltas] == ["w1"], "nothing is sent twice"


async def test_a_quiet_hub_restart_lists_and_sends_nothing_that_is_held(site: Site, edge: LinkedEdge) -> None:
    edge.connector.want([ALL_WIDGETS])
    await edge.until(lambda: edge.is_complete(ALL_WIDGETS))
    site.processes["cloud"].kill()
    await edge.until(lambda: not edge.connector.status.connected)
    edge.batches.clear()
    await asyncio.to_thread(start, site)
    await edge.until(lambda: edge.connector.status.synced)
    assert [batch.deltas for batch in edge.batches] == [()]
    metrics = site.metrics("cloudcore", "cloud")
    assert metrics["hub_identical_total"] == 1, "its Hello waited until the interest was decided"
    assert metrics["hub_surveyed_total"] == metrics["hub_undecided_total"] == metrics["hub_deltas_total"] == 0


async def test_a_refused_interest_is_told_and_granted_once_it_may_and_ends_when_it_may_not(
    admin: ApiClient, edge: LinkedEdge
) -> None:
    edge.connector.want([ALL_GADGETS])
    await edge.until(lambda: edge.refusal(ALL_GADGETS)[0] == 403)
    assert edge.refusal(ALL_GADGETS)[1] == (
        'gadgets.example.com is forbidden: User "system:node:edge-1" cannot list resource "gadgets" '
        'in API group "example.com" at the cluster scope'
    )
    gadget = {**widget("g0", 1), "kind": "Gadget"}
    await admin.create(GADGETS, "shop", gadget)
    await admin.create(ROLES, "", role("reads-gadgets", ["get", "list", "watch"], "gadgets"))
    await admin.create(BINDINGS, "", binding("gadgets", "reads-gadgets", kind="User", name=f"system:node:{NODE}"))
    await edge.until(lambda: edge.is_complete(ALL_GADGETS))
    assert await edge.names(GADGETS) == ["g0"]
    await admin.delete(ObjectKey(BINDINGS, "", "gadgets"))
    await edge.until(lambda: edge.refusal(ALL_GADGETS)[0] == 403)

    async def has_left() -> bool:
        return await edge.names(GADGETS) == []

    await edge.until(has_left)


async def test_what_there_is_not_is_refused_until_there_is(admin: ApiClient, edge: LinkedEdge) -> None:
    things = Resource("example.com", "v1", "things", "Thing", True)
    interest = Interest(things, "shop", user=OPERATOR)
    await admin.create(ROLES, "", role("reads-things", ["list", "watch"], "things"))
    subject = {"kind": "ServiceAccount", "name": "operator", "namespace": "shop"}
    await admin.create(BINDINGS, "", binding("things", "reads-things", **subject))
    edge.connector.want([interest])
    await edge.until(lambda: edge.refusal(interest)[0] == 404)
    await admin.create(CUSTOM_RESOURCE_DEFINITIONS, "", definition(things))
    await edge.until(lambda: edge.is_complete(interest))
    await admin.delete(ObjectKey(CUSTOM_RESOURCE_DEFINITIONS, "", things.collection))
    await edge.until(lambda: edge.refusal(interest)[0] == 404)


async def test_a_serviceaccount_is_believed_where_its_pod_runs(admin: ApiClient, edge: LinkedEdge) -> None:
    mine, not_mine = Interest(CONFIG_MAPS, "shop", user=OPERATOR), Interest(CONFIG_MAPS, "shop", user=STRANGER)
    edge.connector.want([mine, not_mine])
    await edge.until(lambda: edge.is_complete(mine))
    code, reason = edge.refusal(not_mine)
    assert (code, reason) == (403, 'no pod on node "edge-1" uses the ServiceAccount "shop/stranger"')
    answer, _ = await edge.call("GET", "/version", user=STRANGER)
    assert answer.head.status == 403
    answer, _ = await edge.call("GET", "/version", user="system:admin")
    assert answer.head.status == 403


async def test_leases_beyond_those_of_nodes_are_watched_once_somebody_wants_them(
    admin: ApiClient, edge: LinkedEdge
) -> None:
    interest = Interest(LEASES, "shop", "leader", OPERATOR)
    rules = [{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "watch"]}]
    await admin.create(ROLES, "", {"metadata": {"name": "reads-leases"}, "rules": rules})
    subject = {"kind": "ServiceAccount", "name": "operator", "namespace": "shop"}
    await admin.create(BINDINGS, "", binding("leases", "reads-leases", **subject))
    edge.connector.want([interest])
    await edge.until(lambda: edge.is_complete(interest))
    lease = {
        "metadata": {"name": "leader"},
        "spec": {"holderIdentity": "a", "renewTime": "2026-01-01T00:00:00.000000Z"},
    }
    await admin.create(LEASES, "shop", lease)
    await admin.patch(key("leader", LEASES), {"spec": {"renewTime": "2026-01-01T00:00:02.000000Z"}})

    async def is_seen_to_renew() -> bool:
        body = await edge.body(key("leader", LEASES))
        return body is not None and body["spec"]["renewTime"] == "2026-01-01T00:00:02.000000Z"

    await edge.until(is_seen_to_renew)
    assert await edge.names(LEASES) == ["edge-1", "leader"], "its own is still there"


async def test_the_apiserver_sees_who_asks(edge: LinkedEdge) -> None:
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    for user, name, groups in (
        ("", "system:node:edge-1", {"system:nodes", "system:authenticated"}),
        (OPERATOR, OPERATOR, {"system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"}),
    ):
        answer, body = await edge.call("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", review, user=user)
        assert answer.head.status == 201, body
        info = body["status"]["userInfo"]
        assert (info["username"], set(info["groups"])) == (name, groups)


async def test_what_is_created_patched_and_deleted_by_call_comes_back_by_push(
    admin: ApiClient, edge: LinkedEdge
) -> None:
    edge.connector.want([ALL_WIDGETS])
    await edge.until(lambda: edge.is_complete(ALL_WIDGETS))
    refused, body = await edge.call("POST", WIDGETS_PATH, widget("made", 1))
    assert refused.head.status == 403, "the node itself may read only"
    assert 'User "system:node:edge-1" cannot create resource "widgets"' in body["message"]
    made, _ = await edge.call("POST", WIDGETS_PATH, widget("made", 1), user=OPERATOR)
    assert made.head.status == 201
    await edge.until(lambda: holds(edge, "made", made.head.revision))
    patched, _ = await edge.call("PATCH", f"{WIDGETS_PATH}/made", {"spec": {"size": 2}}, user=OPERATOR)
    assert patched.head.status == 200
    await edge.until(lambda: holds(edge, "made", patched.head.revision))
    assert await size_held(edge, "made") == 2
    status = {**widget("made", 2), "status": {"ready": True}}
    written, _ = await edge.call(
        "PUT", f"{WIDGETS_PATH}/made/status", status, base=patched.head.revision, user=OPERATOR
    )
    assert written.head.status == 200
    await edge.until(lambda: holds(edge, "made", written.head.revision))
    deleted, _ = await edge.call("DELETE", f"{WIDGETS_PATH}/made", base=patched.head.revision, user=OPERATOR)
    assert deleted.head.status == 409, "somebody wrote its status since"
    deleted, _ = await edge.call("DELETE", f"{WIDGETS_PATH}/made", base=written.head.revision, user=OPERATOR)
    assert (deleted.head.status, deleted.head.revision) == (200, "")
    await edge.until(lambda: is_gone(edge, "made"))
    with pytest.raises(NotFound):
        await admin.get(key("made"))


async def holds(edge: LinkedEdge, name: str, revision: str) -> bool:
    found = await edge.store.get(key(name))
    return found is not None and found.object.version.revision == revision


async def is_gone(edge: LinkedEdge, name: str) -> bool:
    return await edge.store.get(key(name)) is None


async def test_a_base_that_is_not_what_the_cluster_has_is_a_conflict(admin: ApiClient, edge: LinkedEdge) -> None:
    last = "kubectl.kubernetes.io/last-applied-configuration"
    await admin.create(WIDGETS, "shop", widget("based", 1, annotations={last: "{}"}))
    edge.connector.want([ALL_WIDGETS])

    async def is_held() -> bool:
        return await edge.store.get(key("based")) is not None

    await edge.until(is_held)
    found = await edge.store.get(key("based"))
    assert found is not None
    base, body = found.object.version.revision, json.loads(found.object.body)
    assert body["metadata"]["annotations"] == {last: "{}"}, "kubectl apply works at the edge"
    assert "managedFields" not in body["metadata"]
    body["spec"]["size"] = 2
    put, told = await edge.call("PUT", f"{WIDGETS_PATH}/based", body, base=base, user=OPERATOR)
    assert put.head.status == 200, told
    again, told = await edge.call("PUT", f"{WIDGETS_PATH}/based", body, base=base, user=OPERATOR)
    assert (again.head.status, told["reason"]) == (409, "Conflict")
    assert told["message"] == (
        'Operation cannot be fulfilled on widgets.example.com "based": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )
    operations = [{"op": "replace", "path": "/spec/size", "value": 3}]
    kind = "application/json-patch+json"
    for each, status in ((base, 409), (put.head.revision, 200)):
        patched, told = await edge.call(
            "PATCH", f"{WIDGETS_PATH}/based", operations, base=each, user=OPERATOR, content_type=kind
        )
        assert patched.head.status == status, told
    assert (await admin.get(key("based")))["spec"] == {"size": 3}


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", f"{WIDGETS_PATH}?watch=true", 400),
        ("GET", "/api/v1/watch/pods", 400),
        ("GET", "/api/v1/namespaces/shop/pods/operator/log?follow=1", 400),
        ("POST", "/api/v1/namespaces/shop/pods/operator/exec?command=sh", 400),
        ("GET", "/api/v1/../../version", 400),
        ("GET", "//127.0.0.1/api", 400),
        ("GET", "http://127.0.0.1/api", 400),
        ("CONNECT", "/api", 405),
        ("GET", "/version", 200),
        ("GET", "/nowhere", 404),
        ("GET", f"{WIDGETS_PATH}/nothing", 404),
    ],
)
async def test_what_is_passed_on_and_what_is_not(edge: LinkedEdge, method: str, target: str, status: int) -> None:
    answer, body = await edge.call(method, target, user=OPERATOR if target.startswith("/apis") else "")
    expected = (status, 403) if target == "/nowhere" else (status,)
    assert answer.head.status in expected, body
    assert answer.head.content_type.startswith("application/json")


async def test_a_large_answer_does_not_hold_up_a_push(site: Site, admin: ApiClient) -> None:
    """Over a line of 4 Mbit/s the answer takes six seconds; the pod is there long before."""
    large = "x" * 950_000
    for number in range(3):
        await admin.create(CONFIG_MAPS, "shop", {"metadata": {"name": f"large{number}"}, "data": {"a": large}})
    with Proxy(site.ports["link"], rate=500_000) as proxy:
        async with linked_edge(site.directory / NODE, NODE, proxy.port) as edge:
            await edge.until(lambda: edge.connector.status.synced)
            target = "/api/v1/namespaces/shop/configmaps"
            asking = asyncio.create_task(edge.call("GET", target, user=OPERATOR), name="asking")
            already = proxy.down
            await edge.until(lambda: proxy.down > already + 300_000)
            spec = {"nodeName": NODE, "containers": [{"name": "c", "image": "i"}]}
            await admin.create(PODS, "shop", {"metadata": {"name": "urgent"}, "spec": spec})

            async def has_come() -> bool:
                return await edge.store.get(key("urgent", PODS)) is not None

            await edge.until(has_come)
            assert not asking.done()
            assert proxy.down < already + 2_000_000, "the pod came while most of the answer was still to come"
            answer, body = await asking
            assert answer.head.status == 200
            assert sum(len(item["data"].get("a", "")) for item in body["items"]) == 3 * len(large)
    for number in range(3):
        await admin.delete(key(f"large{number}", CONFIG_MAPS))


async def test_an_answer_that_is_too_large_says_so(admin: ApiClient, edge: LinkedEdge) -> None:
    for number in range(4):
        await admin.create(CONFIG_MAPS, "shop", {"metadata": {"name": f"l{number}"}, "data": {"a": "x" * 950_000}})
    answer, body = await edge.call("GET", "/api/v1/namespaces/shop/configmaps", user=OPERATOR)
    assert (answer.head.status, body["reason"]) == (413, "RequestEntityTooLarge")
    for number in range(4):
        await admin.delete(key(f"l{number}", CONFIG_MAPS))


async def test_without_a_link_nothing_is_asked(tmp_path: Path, site: Site) -> None:
    nowhere = tmp_path / "edge"
    nowhere.mkdir()
    (nowhere / "pki").symlink_to(site.directory / NODE / "pki")
    async with linked_edge(nowhere, NODE, 1) as edge:
        with pytest.raises(LinkClosed):
            await edge.call("GET", "/version")


async def test_a_hub_that_is_configured_so_serves_what_is_placed_and_nothing_else(tmp_path: Path, site: Site) -> None:
    config = tmp_path / "closed.yaml"
    config.write_text("interest: {enabled: false}\n")
    ports = {"link": free_port(), "join": free_port()}
    closed = await asyncio.to_thread(lambda: site.start_cloud("closed", flags=("--config", str(config)), **ports))
    (tmp_path / "pki").symlink_to(site.directory / NODE / "pki")
    async with linked_edge(tmp_path, NODE, ports["link"], interests=[ALL_WIDGETS]) as edge:
        await edge.until(lambda: edge.connector.status.synced)
        assert await edge.names(PODS), "its pod is there"
        code, reason = edge.refusal(ALL_WIDGETS)
        assert (code, reason) == (403, REASON)
        answer, body = await edge.call("GET", "/version")
        assert (answer.head.status, body["message"]) == (403, REASON)
    assert closed.stop() == 0


async def test_status_and_metrics_tell_of_it(site: Site, edge: LinkedEdge) -> None:
    edge.connector.want([ALL_WIDGETS, ALL_GADGETS])
    await edge.until(lambda: edge.is_complete(ALL_WIDGETS) and edge.refusal(ALL_GADGETS)[0] == 403)
    await edge.call("GET", "/version")
    told = site.run("cloudcore", "status", "--data-dir", str(site.directory / "cloud")).stdout
    assert "interest   2 selections, 1 not granted; watched for nodes: " in told
    assert re.search(r"^calls      .*\d+ x 200", told, re.MULTILINE)
    metrics = site.metrics("cloudcore", "cloud")
    assert (metrics["hub_interests"], metrics["hub_interests_refused"]) == (2, 1)
    assert metrics['hub_call_answers_total{code="200"}'] >= 1
    assert metrics["hub_access_reviews_total"] >= 3
