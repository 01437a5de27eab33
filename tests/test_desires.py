"""What a node should hold, object by object and all of it."""

from apimachinery.events import EventType, WatchEvent
from apimachinery.keys import Node, ObjectKey, ObjectVersion
from apimachinery.objects import Object, from_json
from apimachinery.resources import CONFIG_MAPS, PODS
from apimachinery.watchcache import WatchCache
from cloudhub.desires import Desires
from cloudhub.interests import Interests, scope_of
from cloudhub.outbox import Outbox
from cloudhub.placement import Placement
from link.fields import MAX_BODY_BYTES
from link.frames import Interest
from tests.harness.hubsite import POLICIES

NODE = Node("n1")


class Bench:
    def __init__(self) -> None:
        self.cache, self.placement, self.interests = WatchCache(), Placement(), Interests()
        self.outbox = Outbox("epoch")
        self.desires = Desires(self.cache, self.placement, self.interests, {NODE: self.outbox})

    def put(self, item: Object) -> Object:
        for change in self.cache.apply(WatchEvent(EventType.MODIFIED, item, "1")):
            self.placement.observe(change)
        return item

    def pod(self, name: str, node: str = NODE) -> Object:
        metadata = {"name": name, "namespace": "default", "uid": name}
        return self.put(from_json(PODS, {"metadata": metadata, "spec": {"nodeName": node}}))

    def policy(self, name: str) -> Object:
        return self.put(from_json(POLICIES, {"metadata": {"name": name, "namespace": "default", "uid": name}}))


def test_what_is_placed_or_granted_is_desired_in_the_version_that_there_is() -> None:
    bench = Bench()
    here, there, policy = bench.pod("here"), bench.pod("there", "n2"), bench.policy("a")
    assert bench.desires.all_of(NODE) == {here.key: here.version}
    assert bench.desires.version(NODE, there.key) is None
    scope = scope_of(Interest(POLICIES))
    bench.interests.set_scopes(NODE, frozenset({scope}), frozenset())
    assert bench.desires.all_of(NODE) == {here.key: here.version, policy.key: policy.version}
    assert bench.desires.version(NODE, ObjectKey(POLICIES, "default", "gone")) is None


def test_what_is_not_decided_yet_stays_as_the_node_holds_it() -> None:
    bench = Bench()
    old, new = bench.policy("a"), bench.policy("b")
    bench.outbox.adopt([(old.key, old.version)], {})
    bench.interests.set_scopes(NODE, frozenset(), frozenset({scope_of(Interest(POLICIES))}))
    assert bench.desires.version(NODE, old.key) == old.version
    assert bench.desires.version(NODE, new.key) is None


def test_what_is_too_large_for_the_link_is_desired_by_nobody() -> None:
    bench = Bench()
    pod = bench.pod("web")
    bench.put(pod._replace(version=ObjectVersion("web", "large"), body=pod.body + b" " * MAX_BODY_BYTES))
    assert bench.desires.all_of(NODE) == {}


def test_what_decides_upon_an_object_is_what_places_it_or_its_own_collection() -> None:
    bench = Bench()
    found = bench.desires.deciding([ObjectKey(CONFIG_MAPS, "default", "c"), ObjectKey(POLICIES, "default", "a")])
    assert {PODS.collection, POLICIES.collection} <= found
    assert bench.desires.deciding([]) == frozenset()
