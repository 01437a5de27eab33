"""Nodes: each gets what its pods need, and no way of asking or writing gets it what is another's."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.errors import Forbidden
from apimachinery.events import Change, EventType
from apimachinery.objects import from_json
from apimachinery.resources import PODS
from apiserver.attributes import Attributes, attributes_of
from apiserver.nodes import MIRROR, Nodes, node_of, references
from apiserver.users import User, authenticated
from tests.harness.cluster import Cluster, cluster

NAMED = "system:node:n1"
API = "/api/v1/namespaces/d"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


def pod(name: str, node: str, **spec: Any) -> dict[str, Any]:
    containers = [{"name": "c", "image": "i"}]
    return {
        "metadata": {"name": name, "namespace": "d"},
        "spec": {"nodeName": node, "containers": containers, **spec},
    }


@pytest.mark.parametrize(
    ("name", "groups", "node"),
    [
        (NAMED, ("system:nodes",), "n1"),
        (NAMED, ("system:authenticated",), None),
        ("n1", ("system:nodes",), None),
    ],
)
def test_a_node_is_known_by_name_and_group(name: str, groups: tuple[str, ...], node: str | None) -> None:
    assert node_of(User(name, groups)) == node


def test_a_pod_refers_to_what_it_names_anywhere() -> None:
    spec = {
        "serviceAccountName": "sa",
        "imagePullSecrets": [{"name": "pull"}],
        "volumes": [
            {"secret": {"secretName": "s1"}},
            {"configMap": {"name": "c1"}},
            {"persistentVolumeClaim": {"claimName": "p1"}},
            {"projected": {"sources": [{"secret": {"name": "s2"}}, {"configMap": {"name": "c2"}}, {"x": 1}]}},
            {"csi": {"nodePublishSecretRef": {"name": "s3"}}},
            {"flexVolume": {"secretRef": {"name": "s6"}}},
            {"cephfs": {"secretRef": {"name": "s7"}}},
            {"azureFile": {"secretName": "s8"}},
            {"emptyDir": {}},
        ],
        "containers": [
            {
                "envFrom": [{"secretRef": {"name": "s4"}}, {"configMapRef": {"name": "c3"}}],
                "env": [{"valueFrom": {"secretKeyRef": {"name": "s5"}}}, {"value": "x"}],
            }
        ],
        "initContainers": [{"env": [{"valueFrom": {"configMapKeyRef": {"name": "c4"}}}]}],
    }
    found = set(references(pod("p", "n", **spec)))
    assert {name for plural, _, name in found if plural == "secrets"} == {
        "pull",
        "s1",
        "s2",
        "s3",
        "s4",
        "s5",
        "s6",
        "s7",
        "s8",
    }
    assert {name for plural, _, name in found if plural == "configmaps"} == {"c1", "c2", "c3", "c4"}
    assert {("serviceaccounts", "d", "sa"), ("persistentvolumeclaims", "d", "p1")} <= found
    assert {namespace for _, namespace, _ in found} == {"d"}


@pytest.mark.parametrize("spec", [{}, {"volumes": "x", "containers": [7, None]}, {"imagePullSecrets": [{"name": 7}]}])
def test_a_pod_that_cannot_be_read_refers_to_nothing(spec: dict[str, Any]) -> None:
    assert list(references({"metadata": {"namespace": "d"}, "spec": spec})) == []


STEPS = st.lists(
    st.tuples(st.sampled_from("pq"), st.sampled_from(["", "n1", "n2", None]), st.sampled_from(["s", "t"])), max_size=20
)


@given(STEPS)
def test_the_index_equals_looking_at_every_pod(steps: list[tuple[str, str | None, str]]) -> None:
    index = Nodes()
    held: dict[str, tuple[str, str]] = {}
    for name, node, secret in steps:
        item = from_json(PODS, pod(name, node or "", volumes=[{"secret": {"secretName": secret}}]))
        index.observe(Change(1, EventType.DELETED if node is None else EventType.MODIFIED, item, None))
        if node is None:
            held.pop(name, None)
        else:
            held[name] = (node, secret)
    for node in ("n1", "n2"):
        for secret in ("s", "t"):
            asked = Attributes(verb="get", resource="secrets", namespace="d", name=secret)
            assert index.allows(node, asked) is ((node, secret) in held.values())
    assert not index.allows("", Attributes(verb="get", resource="secrets", namespace="d", name="s"))


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Cluster]:
    nodes = {name: authenticated(f"system:node:{name}", ("system:nodes",)) for name in ("n1", "n2")}
    async with cluster(tmp_path, **nodes) as made:
        await made("POST", "/api/v1/namespaces", {"metadata": {"name": "kube-node-lease"}})
        for name in ("used", "unused"):
            await made("POST", f"{API}/secrets", {"metadata": {"name": name}})
        volumes = [{"secret": {"secretName": "used"}}]
        await made("POST", f"{API}/pods", pod("mine", "n1", volumes=volumes))
        await made("POST", f"{API}/pods", pod("other", "n2"))
        for name in ("n1", "n2"):
            await made("POST", "/api/v1/nodes", {"metadata": {"name": name}}, token=name)
        yield made


@pytest.mark.parametrize(
    ("method", "target", "allowed"),
    [
        ("GET", f"{API}/secrets/used", True),
        ("GET", f"{API}/secrets?fieldSelector=metadata.name%3Dused&watch=1", True),
        ("GET", f"{API}/secrets/unused", False),
        ("GET", f"{API}/secrets", False),
        ("GET", "/api/v1/secrets", False),
        ("GET", "/api/v1/namespaces/e/secrets/used", False),
        ("PUT", f"{API}/secrets/used", False),
        ("GET", f"{API}/pods/mine", True),
        ("GET", f"{API}/pods/other", False),
        ("DELETE", f"{API}/pods/mine", True),
        ("DELETE", f"{API}/pods/other", False),
        ("DELETE", f"{API}/pods", False),
        ("PATCH", f"{API}/pods/mine/status", True),
        ("PATCH", f"{API}/pods/mine", False),
        ("PATCH", f"{API}/pods/other/status", False),
        ("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1&watch=1", True),
        ("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn2&watch=1", False),
        ("GET", "/api/v1/pods?fieldSelector=spec.nodeName!%3Dn1", False),
        ("GET", "/api/v1/pods", False),
        ("GET", "/api/v1/nodes/n1", True),
        ("GET", "/api/v1/nodes/n2", False),
        ("GET", "/api/v1/nodes?fieldSelector=metadata.name%3Dn1&watch=1", True),
        ("GET", "/api/v1/nodes", False),
        ("PATCH", "/api/v1/nodes/n1/status", True),
        ("PATCH", "/api/v1/nodes/n2/status", False),
        ("DELETE", "/api/v1/nodes/n1", False),
        ("PUT", f"{LEASES}/n1", True),
        ("PUT", f"{LEASES}/n2", False),
        ("PUT", "/apis/coordination.k8s.io/v1/namespaces/d/leases/n1", False),
        ("PUT", "/apis/storage.k8s.io/v1/csinodes/n1", True),
        ("POST", f"{API}/serviceaccounts/default/token", True),
        ("POST", f"{API}/serviceaccounts/robot/token", False),
        ("POST", f"{API}/events", True),
        ("GET", "/api/v1/services?watch=1", True),
        ("GET", "/apis", True),
        ("GET", "/metrics", False),
        ("GET", f"{API}/configmaps/kube-root-ca.crt", False),
    ],
)
async def test_a_node_may_what_is_its_own(api: Cluster, method: str, target: str, allowed: bool) -> None:
    user = authenticated(NAMED, ("system:nodes",))
    assert api.authorizer.allows(user, attributes_of(method, target))[0] is allowed


async def test_a_node_makes_only_itself(api: Cluster) -> None:
    told = await api.refused("POST", "/api/v1/nodes", {"metadata": {"name": "n3"}}, token="n1")
    assert isinstance(told, Forbidden)
    assert isinstance(await api.refused("POST", LEASES, {"metadata": {"name": "n2"}}, token="n1"), Forbidden)
    await api("POST", LEASES, {"metadata": {"name": "n1"}}, token="n1")


async def test_a_node_cannot_make_a_pod_that_would_show_it_a_secret(api: Cluster) -> None:
    body = pod("mirror", "n1")
    assert "mirror pods" in str(await api.refused("POST", f"{API}/pods", body, token="n1"))
    body["metadata"]["annotations"] = {MIRROR: "x"}
    await api("POST", f"{API}/pods", body, token="n1")
    wanting = pod("wanting", "n1", volumes=[{"secret": {"secretName": "unused"}}])
    wanting["metadata"]["annotations"] = {MIRROR: "x"}
    assert "reference secrets" in str(await api.refused("POST", f"{API}/pods", wanting, token="n1"))
    elsewhere = pod("elsewhere", "n2")
    elsewhere["metadata"]["annotations"] = {MIRROR: "x"}
    assert "set to itself" in str(await api.refused("POST", f"{API}/pods", elsewhere, token="n1"))


async def test_a_node_gets_tokens_for_its_own_pods_only(api: Cluster) -> None:
    await api("POST", f"{API}/serviceaccounts", {"metadata": {"name": "default"}})
    place = f"{API}/serviceaccounts/default/token"

    def bound_to(name: str) -> dict[str, Any]:
        return {"spec": {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": name}}}

    assert (await api("POST", place, bound_to("mine"), token="n1"))["status"]["token"]
    for body in ({}, bound_to("other")):
        assert "not bound to a pod on it" in str(await api.refused("POST", place, body, token="n1"))


async def test_a_node_is_no_account_by_a_pod_that_it_made_itself(api: Cluster) -> None:
    """Else it made one in kube-system, and was what the ServiceAccount default is there."""
    await api("POST", f"{API}/serviceaccounts", {"metadata": {"name": "default"}})
    body = pod("static", "n1")
    body["metadata"]["annotations"] = {MIRROR: "x"}
    await api("POST", f"{API}/pods", body, token="n1")
    bound = {"spec": {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "static"}}}
    await api.refused("POST", f"{API}/serviceaccounts/default/token", bound, token="n1")
    unmarked = {"metadata": {"annotations": {MIRROR: None}}}
    answer = await api("PATCH", f"{API}/pods/static/status", unmarked, token="n1")
    assert answer["metadata"]["annotations"] == {MIRROR: "x"}, "nor can it be made another one"
