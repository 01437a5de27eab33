"""Who gets what: the index against a recomputation from the objects alone."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from apimachinery.events import EventType, WatchEvent
from apimachinery.keys import Node, ObjectKey, Resource
from apimachinery.objects import Object, from_json
from apimachinery.resources import (
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    DEVICE_MODELS,
    DEVICES,
    LEASES,
    NODES,
    PODS,
    SECRETS,
    SERVICE_ACCOUNTS,
)
from apimachinery.watchcache import WatchCache
from cloudhub.placement import EVERYWHERE, STANDARD_RULES, Affected, By, Placement, Rule, with_definitions
from cloudhub.projection import Projection
from cloudhub.reading import sent

N1, N2 = Node("n1"), Node("n2")
POLICIES = Resource("example.com", "v1", "policies", "Policy", True)


def an_object(resource: Resource, name: str, namespace: str = "default", **content: Any) -> Object:
    labels = content.pop("labels", {})
    metadata = {"name": name, "namespace": namespace, "uid": name, "labels": labels}
    return from_json(resource, {"metadata": metadata, **content})


class Cluster:
    """A cache with an index that follows it."""

    def __init__(self, rules: tuple[Rule, ...] = STANDARD_RULES) -> None:
        self.cache = WatchCache()
        self.placement = Placement(rules)

    def put(self, item: Object) -> list[Affected]:
        return self._take(WatchEvent(EventType.MODIFIED, item, "1"))

    def delete(self, item: Object) -> list[Affected]:
        return self._take(WatchEvent(EventType.DELETED, item, "1"))

    def _take(self, event: WatchEvent) -> list[Affected]:
        return [pair for change in self.cache.apply(event) for pair in self.placement.observe(change)]


def a_pod(node: str, name: str = "web", **spec: Any) -> Object:
    return an_object(PODS, name, spec={"nodeName": node, **spec})


EVERY_WAY_TO_REFER: dict[str, Any] = {
    "volumes": [
        {"configMap": {"name": "c1"}},
        {"secret": {"secretName": "s1"}},
        {"projected": {"sources": [{"configMap": {"name": "c2"}}, {"secret": {"name": "s2"}}]}},
        {"csi": {"nodePublishSecretRef": {"name": "s3"}}},
    ],
    "containers": [
        {
            "envFrom": [{"configMapRef": {"name": "c3"}}, {"secretRef": {"name": "s4"}}],
            "env": [
                {"valueFrom": {"configMapKeyRef": {"name": "c4"}}},
                {"valueFrom": {"secretKeyRef": {"name": "s5"}}},
            ],
        }
    ],
    "initContainers": [{"envFrom": [{"configMapRef": {"name": "c5"}}]}],
    "imagePullSecrets": [{"name": "s6"}],
    "serviceAccountName": "robot",
}


def names(placement: Placement, node: Node, resource: Resource) -> list[str]:
    return sorted(key.name for key in placement.keys(node) if key.resource == resource)


def test_a_pod_brings_everything_it_refers_to_and_takes_it_away() -> None:
    cluster = Cluster()
    pod = a_pod("n1", **EVERY_WAY_TO_REFER)
    affected = cluster.put(pod)
    assert names(cluster.placement, N1, CONFIG_MAPS) == ["c1", "c2", "c3", "c4", "c5"]
    assert names(cluster.placement, N1, SECRETS) == ["s1", "s2", "s3", "s4", "s5", "s6"]
    assert names(cluster.placement, N1, SERVICE_ACCOUNTS) == ["robot"]
    assert Affected(N1, ObjectKey(SECRETS, "default", "s3")) in affected
    assert list(cluster.placement.keys(N2)) == []
    assert len(cluster.delete(pod)) == len(affected)
    assert list(cluster.placement.keys(N1)) == []


def test_what_two_pods_share_stays_until_the_last_is_gone() -> None:
    cluster = Cluster()
    shared = [{"configMap": {"name": "c"}}]
    one, other = a_pod("n1", "one", volumes=shared), a_pod("n1", "other", volumes=shared)
    cluster.put(one)
    cluster.put(other)
    key = ObjectKey(CONFIG_MAPS, "default", "c")
    assert Affected(N1, key) not in cluster.delete(one)
    assert cluster.placement.is_placed(N1, key)
    assert Affected(N1, key) in cluster.delete(other)
    assert not cluster.placement.is_placed(N1, key)


def test_a_pod_that_moves_takes_its_things_along() -> None:
    cluster = Cluster()
    cluster.put(a_pod("n1", volumes=[{"configMap": {"name": "c"}}]))
    affected = cluster.put(a_pod("n2", volumes=[{"configMap": {"name": "c"}}]))
    key = ObjectKey(CONFIG_MAPS, "default", "c")
    assert cluster.placement.nodes(key) == {N2}
    assert {Affected(N1, key), Affected(N2, key)} <= set(affected)


def test_a_config_map_made_after_its_pod_is_sent_once_it_is_there() -> None:
    cluster = Cluster()
    cluster.put(a_pod("n1", volumes=[{"configMap": {"name": "late"}}]))
    late = an_object(CONFIG_MAPS, "late", data={})
    assert cluster.put(late) == [Affected(N1, late.key)]


def test_a_device_brings_its_model() -> None:
    cluster = Cluster()
    cluster.put(an_object(DEVICES, "d", spec={"nodeName": "n1", "deviceModelRef": {"name": "m"}}))
    assert names(cluster.placement, N1, DEVICE_MODELS) == ["m"]
    cluster.put(an_object(DEVICES, "d", spec={"nodeName": "n1", "deviceModelRef": {"name": "other"}}))
    assert names(cluster.placement, N1, DEVICE_MODELS) == ["other"]


def test_a_node_gets_its_own_node_and_lease_only() -> None:
    cluster = Cluster()
    cluster.put(an_object(NODES, "n1", ""))
    cluster.put(an_object(LEASES, "n1", "kube-node-lease"))
    cluster.put(an_object(LEASES, "n1", "elsewhere"))
    assert [str(key) for key in cluster.placement.keys(N1)] == [
        "nodes/n1",
        "leases.coordination.k8s.io/kube-node-lease/n1",
    ]


def test_rules_for_anything_else() -> None:
    rules = (
        Rule(POLICIES, By.ALL_NODES, namespace="shared"),
        Rule(POLICIES, By.LABEL, "example.com/node"),
        Rule(POLICIES, By.FIELD, "spec.target.node"),
    )
    cluster = Cluster(rules)
    for_all = an_object(POLICIES, "a", "shared")
    cluster.put(for_all)
    cluster.put(an_object(POLICIES, "b", labels={"example.com/node": "n1"}))
    cluster.put(an_object(POLICIES, "c", spec={"target": {"node": "n2"}}))
    cluster.put(an_object(POLICIES, "d", spec={"target": "odd"}))
    assert names(cluster.placement, N1, POLICIES) == ["a", "b"]
    assert names(cluster.placement, N2, POLICIES) == ["a", "c"]
    assert cluster.placement.nodes(for_all.key) == {EVERYWHERE}
    assert cluster.placement.is_placed(Node("never-heard-of"), for_all.key)
    assert cluster.delete(for_all) == [Affected(EVERYWHERE, for_all.key)]


def test_definitions_of_placed_custom_resources_go_everywhere() -> None:
    cluster = Cluster(with_definitions(STANDARD_RULES))
    cluster.put(an_object(CUSTOM_RESOURCE_DEFINITIONS, "devices.devices.kubeedge.io", ""))
    cluster.put(an_object(CUSTOM_RESOURCE_DEFINITIONS, "others.example.com", ""))
    assert names(cluster.placement, N1, CUSTOM_RESOURCE_DEFINITIONS) == ["devices.devices.kubeedge.io"]
    assert with_definitions((Rule(PODS, By.ALL_NODES),)) == (Rule(PODS, By.ALL_NODES),)
    assert set(cluster.placement.resources()) >= {PODS, DEVICES, CUSTOM_RESOURCE_DEFINITIONS}


PLACES = st.sampled_from(["n1", "n2", ""])
REFERRED = st.lists(st.sampled_from(["c1", "c2"]), max_size=2)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("pod"), st.sampled_from(["p1", "p2"]), PLACES, REFERRED),
        st.tuples(st.just("device"), st.sampled_from(["d1", "d2"]), PLACES, REFERRED),
        st.tuples(st.just("delete"), st.sampled_from(["p1", "p2", "d1", "d2"]), st.just(""), st.just([])),
    ),
    max_size=25,
)


@given(STEPS)
def test_the_index_equals_a_recomputation(steps: list[tuple[str, str, str, list[str]]]) -> None:
    cluster = Cluster()
    # These are looked at as they are read, those of the recomputation when they are placed.
    read = {each: Projection(each, cluster.placement.look) for each in (PODS, DEVICES)}
    objects: dict[str, Object] = {}
    for what, name, node, referred in steps:
        before = {each: set(cluster.placement.keys(each)) for each in (N1, N2)}
        if what == "delete":
            affected = cluster.delete(objects.pop(name)) if name in objects else []
        elif what == "pod":
            objects[name] = a_pod(node, name, volumes=[{"configMap": {"name": each}} for each in referred])
            affected = cluster.put(read[PODS].seen(sent(objects[name])))
        else:
            body = {"nodeName": node, "deviceModelRef": {"name": (referred or [""])[0]}}
            objects[name] = an_object(DEVICES, name, spec=body)
            affected = cluster.put(read[DEVICES].seen(sent(objects[name])))
        for each in (N1, N2):
            changed = before[each] ^ set(cluster.placement.keys(each))
            assert changed <= {key for to, key in affected if to == each}, "what came or went was told"
    fresh = Cluster()
    for item in objects.values():
        fresh.put(item)
    for each in (N1, N2):
        assert set(cluster.placement.keys(each)) == set(fresh.placement.keys(each))
        assert all(each in cluster.placement.nodes(key) for key in cluster.placement.keys(each))
    for item in objects.values():
        cluster.delete(item)
    assert not cluster.placement._holders
    assert not cluster.placement._on_node
    assert not cluster.placement._bounds


def test_what_decides_on_a_resource_is_itself_and_what_refers_to_it() -> None:
    placement = Placement()
    assert placement.deciding(PODS) == {"pods"}
    assert placement.deciding(CONFIG_MAPS) == {"configmaps", "pods"}
    assert placement.deciding(DEVICE_MODELS) == {DEVICE_MODELS.collection, DEVICES.collection}
