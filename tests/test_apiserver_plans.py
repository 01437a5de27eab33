"""Plans: create, update, delete and their refusals, against a View that is a dictionary."""

import copy
from collections.abc import Sequence
from typing import Any

import pytest

from apimachinery.errors import AlreadyExists, ApiError, BadRequest, Conflict, Forbidden, Invalid, NotFound
from apimachinery.keys import ObjectKey, Resource
from apimachinery.objects import Object, from_json
from apimachinery.resources import CONFIG_MAPS, CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES, NODES, PODS
from apiserver import plans
from apiserver.admission import Admission
from apiserver.builtins import BUILT_IN
from apiserver.definitions import Catalogue, Definition
from apiserver.metadata import Facts, owner_uids
from apiserver.plans import CRD_FINALIZER, DeleteOptions, Plan, Put, Remove
from apiserver.requests import ApiRequest, Verb

LAMPS = Resource("example.com", "v1", "lamps", "Lamp", True)
NOW = "2027-01-15T08:00:00Z"


class Held:
    """A View over a dictionary, which takes plans in at once."""

    def __init__(self) -> None:
        self.catalogue = Catalogue([*BUILT_IN, Definition(LAMPS, is_custom=True, has_status=True)])
        self.objects: dict[ObjectKey, Object] = {}
        self.revision = 0
        for resource, name in ((NAMESPACES, "d"), (CUSTOM_RESOURCE_DEFINITIONS, "lamps.example.com")):
            self.take(
                Plan(200, (Put(ObjectKey(resource, "", name), {"metadata": {"name": name, "uid": f"uid-{name}"}}),))
            )

    def get(self, key: ObjectKey) -> Object | None:
        return self.objects.get(key)

    def all_of(self, resource: Resource, namespace: str = "") -> Sequence[Object]:
        return [
            item for key, item in self.objects.items() if key.resource == resource and namespace in ("", key.namespace)
        ]

    def dependents(self, uid: str) -> Sequence[ObjectKey]:
        return [key for key, item in self.objects.items() if uid in owner_uids(item.parse())]

    def lives(self, uid: str) -> bool:
        return any(item.version.uid == uid for item in self.objects.values())

    def take(self, plan: Plan) -> Plan:
        for write in plan.writes:
            self.revision += 1
            body = copy.deepcopy(write.body)
            body["metadata"]["resourceVersion"] = str(self.revision)
            if isinstance(write, Put):
                self.objects[write.key] = from_json(write.key.resource, body)
            else:
                del self.objects[write.key]
        return plan

    # Short ways to say things.

    def create(self, resource: Resource, body: dict[str, Any], namespace: str = "d", **options: Any) -> Plan:
        namespace = namespace if resource.namespaced else ""
        asked = ApiRequest(verb=Verb.CREATE, resource=resource, namespace=namespace, **options)
        facts = Facts(NOW, f"uid-{self.revision}", "x7k2q")
        return self.take(plans.create(self, asked, copy.deepcopy(body), facts, Admission()))

    def update(
        self, resource: Resource, change: dict[str, Any], name: str = "a", subresource: str = "", **options: Any
    ) -> Plan:
        """`change` goes over the present body, top-level field by field; metadata is merged."""
        namespace = "d" if resource.namespaced else ""
        asked = ApiRequest(
            verb=Verb.UPDATE, resource=resource, namespace=namespace, name=name, subresource=subresource, **options
        )

        def changed(current: dict[str, Any]) -> dict[str, Any]:
            return current | change | {"metadata": current["metadata"] | change.get("metadata", {})}

        return self.take(plans.update(self, asked, changed, Facts(NOW, "unused", ""), Admission()))

    def delete(self, resource: Resource, name: str = "a", **options: Any) -> Plan:
        key = ObjectKey(resource, "d" if resource.namespaced else "", name)
        return self.take(plans.delete(self, key, DeleteOptions(**options), Facts(NOW, "unused", "")))

    def body(self, resource: Resource, name: str = "a") -> dict[str, Any]:
        found = self.objects[ObjectKey(resource, "d" if resource.namespaced else "", name)].parse()
        return found


@pytest.fixture
def held() -> Held:
    return Held()


def test_a_created_object_is_complete(held: Held) -> None:
    plan = held.create(LAMPS, {"metadata": {"name": "a"}, "spec": {"x": 1}, "status": {"mine": 1}})
    assert plan.status == 201
    body = held.body(LAMPS)
    assert (body["apiVersion"], body["kind"]) == ("example.com/v1", "Lamp")
    assert body["metadata"]["generation"] == 1
    assert "status" not in body


@pytest.mark.parametrize(
    ("body", "namespace", "error", "words"),
    [
        ({"metadata": {"name": "a"}, "kind": "Pod"}, "d", BadRequest, "kind in the data"),
        ({"metadata": {"name": "a"}, "apiVersion": "v2"}, "d", BadRequest, "API version in the data"),
        ({"metadata": {"name": "a", "namespace": "e"}}, "d", BadRequest, "namespace of the provided object"),
        ({"metadata": {"name": "a"}}, "missing", NotFound, 'namespaces "missing" not found'),
        ({"metadata": {"name": "A"}}, "d", Invalid, 'ConfigMap "A" is invalid'),
        ({"metadata": {"name": "taken"}}, "d", AlreadyExists, 'configmaps "taken" already exists'),
        ({"metadata": 5}, "d", BadRequest, "metadata must be an object"),
    ],
)
def test_refused_creations(held: Held, body: dict[str, Any], namespace: str, error: type[ApiError], words: str) -> None:
    held.create(CONFIG_MAPS, {"metadata": {"name": "taken"}})
    with pytest.raises(error, match=words):
        held.create(CONFIG_MAPS, body, namespace)


def test_nothing_is_created_in_a_namespace_that_is_leaving(held: Held) -> None:
    held.create(CONFIG_MAPS, {"metadata": {"name": "a"}})
    held.delete(NAMESPACES, "d")
    assert held.body(NAMESPACES, "d")["status"]["phase"] == "Terminating"
    with pytest.raises(Forbidden, match="being terminated"):
        held.create(CONFIG_MAPS, {"metadata": {"name": "b"}})


def test_an_update_of_the_wish_raises_the_generation_and_one_of_the_metadata_does_not(held: Held) -> None:
    held.create(LAMPS, {"metadata": {"name": "a"}, "spec": {"x": 1}})
    held.update(LAMPS, {"metadata": {"labels": {"l": "1"}}})
    assert held.body(LAMPS)["metadata"]["generation"] == 1
    held.update(LAMPS, {"spec": {"x": 2}})
    assert held.body(LAMPS)["metadata"]["generation"] == 2


def test_status_and_wish_have_separate_ways_in(held: Held) -> None:
    held.create(LAMPS, {"metadata": {"name": "a"}, "spec": {"x": 1}})
    held.update(LAMPS, {"spec": {"x": 9}, "status": {"s": 1}, "metadata": {"labels": {"l": "1"}}}, subresource="status")
    body = held.body(LAMPS)
    assert (body["spec"], body["status"], body["metadata"]["generation"]) == ({"x": 1}, {"s": 1}, 1)
    assert "labels" not in body["metadata"]
    held.update(LAMPS, {"spec": {"x": 2}, "status": {"s": 2}})
    assert (held.body(LAMPS)["spec"], held.body(LAMPS)["status"]) == ({"x": 2}, {"s": 1})


def test_an_update_that_changes_nothing_writes_nothing(held: Held) -> None:
    held.create(LAMPS, {"metadata": {"name": "a"}, "spec": {"x": 1}})
    plan = held.update(LAMPS, {"spec": {"x": 1}})
    assert plan.writes == ()
    assert plan.answer == held.body(LAMPS)


def test_identity_cannot_be_changed(held: Held) -> None:
    held.create(CONFIG_MAPS, {"metadata": {"name": "a"}})
    before = held.body(CONFIG_MAPS)["metadata"]
    held.update(CONFIG_MAPS, {"metadata": {"creationTimestamp": "x", "generation": 7}, "data": {"x": "1"}})
    after = held.body(CONFIG_MAPS)["metadata"]
    assert after == before | {"resourceVersion": after["resourceVersion"]}


@pytest.mark.parametrize(
    ("metadata", "error", "words"),
    [
        ({"resourceVersion": "1"}, Conflict, "the object has been modified"),
        ({"uid": "other"}, Conflict, "UID in precondition"),
        ({"resourceVersion": ""}, Invalid, "must be specified for an update"),
        ({"name": "b"}, BadRequest, "does not match the name on the URL"),
        ({"namespace": "e"}, BadRequest, "namespace of the provided object"),
    ],
)
def test_refused_updates(held: Held, metadata: dict[str, Any], error: type[ApiError], words: str) -> None:
    held.create(LAMPS, {"metadata": {"name": "a"}})
    with pytest.raises(error, match=words):
        held.update(LAMPS, {"metadata": metadata, "spec": {"new": 1}})


def test_built_in_kinds_may_be_updated_without_a_version(held: Held) -> None:
    held.create(CONFIG_MAPS, {"metadata": {"name": "a"}})
    held.update(CONFIG_MAPS, {"metadata": {"resourceVersion": None}, "data": {"x": "1"}})
    assert held.body(CONFIG_MAPS)["data"] == {"x": "1"}


def test_a_missing_object_is_not_found(held: Held) -> None:
    with pytest.raises(NotFound, match=r'lamps\.example\.com "a" not found'):
        held.update(LAMPS, {})
    with pytest.raises(NotFound):
        held.delete(LAMPS)


def test_a_deleted_object_is_gone_and_the_answer_names_it(held: Held) -> None:
    held.create(LAMPS, {"metadata": {"name": "a"}})
    plan = held.delete(LAMPS)
    assert plan.answer is not None
    assert plan.answer["details"]["kind"] == "lamps"
    assert held.all_of(LAMPS) == []


def test_a_finalizer_holds_an_object_back_until_it_is_taken_away(held: Held) -> None:
    held.create(LAMPS, {"metadata": {"name": "a", "finalizers": ["x.y/z"]}})
    held.delete(LAMPS)
    assert held.body(LAMPS)["metadata"]["deletionTimestamp"] == NOW
    assert held.delete(LAMPS).writes == ()
    (write,) = held.update(LAMPS, {"metadata": {"finalizers": []}}).writes
    assert isinstance(write, Remove)
    assert held.all_of(LAMPS) == []


@pytest.mark.parametrize("options", [{"uid": "other"}, {"resource_version": "999"}])
def test_preconditions_of_a_deletion(held: Held, options: dict[str, str]) -> None:
    held.create(LAMPS, {"metadata": {"name": "a"}})
    with pytest.raises(Conflict, match="Precondition failed"):
        held.delete(LAMPS, **options)


def test_orphans_lose_their_reference_to_the_owner_only(held: Held) -> None:
    held.create(NODES, {"metadata": {"name": "a"}})
    uid = held.body(NODES)["metadata"]["uid"]
    owners = [
        {"apiVersion": "v1", "kind": "Node", "name": "a", "uid": uid},
        {"apiVersion": "v1", "kind": "Node", "name": "b", "uid": "o"},
    ]
    held.create(PODS, {"metadata": {"name": "one", "ownerReferences": owners[:1]}})
    held.create(PODS, {"metadata": {"name": "both", "ownerReferences": owners}})
    held.delete(NODES, propagation="Orphan")
    assert "ownerReferences" not in held.body(PODS, "one")["metadata"]
    assert held.body(PODS, "both")["metadata"]["ownerReferences"] == owners[1:]


@pytest.mark.parametrize("name", plans.PROTECTED_NAMESPACES)
def test_some_namespaces_stay(held: Held, name: str) -> None:
    held.create(NAMESPACES, {"metadata": {"name": name}})
    with pytest.raises(Forbidden):
        held.delete(NAMESPACES, name)


def test_a_definition_waits_for_its_objects_and_takes_no_new_ones(held: Held) -> None:
    held.delete(CUSTOM_RESOURCE_DEFINITIONS, "lamps.example.com")
    assert held.body(CUSTOM_RESOURCE_DEFINITIONS, "lamps.example.com")["metadata"]["finalizers"] == [CRD_FINALIZER]
    with pytest.raises(Forbidden, match="terminating"):
        held.create(LAMPS, {"metadata": {"name": "a"}})


def test_a_plan_leaves_what_it_was_made_from_alone(held: Held) -> None:
    held.create(LAMPS, {"metadata": {"name": "a", "finalizers": ["x"]}, "spec": {"l": [1]}})
    before = held.objects[ObjectKey(LAMPS, "d", "a")]
    copied = before._replace(labels=dict(before.labels), body=bytes(before.body))
    held.update(LAMPS, {"spec": {"l": [2]}})
    held.delete(LAMPS)
    assert before == copied
