"""Metadata: names, labels, owners, and what the server stamps on an object."""

from typing import Any

import pytest

from apimachinery.errors import BadRequest, Invalid
from apimachinery.keys import Resource
from apimachinery.resources import CONFIG_MAPS, DEVICES, NAMESPACES, NODES, PODS
from apiserver.definitions import Definition
from apiserver.metadata import Facts, change_causes, check, invalid, keep_identity, metadata_of, owner_uids, stamp_new

FACTS = Facts("2027-01-15T08:00:00Z", "uid-1", "x7k2q")


PLAIN = Definition(CONFIG_MAPS)


def stamped(metadata: dict[str, Any], definition: Definition = PLAIN) -> dict[str, Any]:
    body: dict[str, Any] = {"metadata": metadata}
    stamp_new(body, definition, "ns", FACTS)
    made: dict[str, Any] = body["metadata"]
    return made


def test_a_new_object_gets_uid_time_and_namespace() -> None:
    made = stamped(
        {"name": "a", "uid": "mine", "selfLink": "x", "managedFields": [], "deletionTimestamp": "x", "generation": 9}
    )
    assert made == {"name": "a", "namespace": "ns", "uid": "uid-1", "creationTimestamp": FACTS.now}


def test_kinds_with_a_wish_start_at_generation_1() -> None:
    assert stamped({"name": "a"}, Definition(PODS, has_status=True))["generation"] == 1
    assert stamped({"name": "a"}, Definition(DEVICES, is_custom=True))["generation"] == 1


def test_cluster_scoped_objects_have_no_namespace() -> None:
    assert "namespace" not in stamped({"name": "a", "namespace": "x"}, Definition(NODES))


def test_a_name_is_generated_and_not_too_long() -> None:
    assert stamped({"generateName": "job-"})["name"] == "job-x7k2q"
    assert len(stamped({"generateName": "j" * 100})["name"]) == 63


def test_without_a_name_nothing_is_made() -> None:
    with pytest.raises(Invalid, match="name or generateName is required"):
        stamped({})


def test_a_new_object_must_not_bring_a_version() -> None:
    with pytest.raises(BadRequest, match="resourceVersion should not be set"):
        stamped({"name": "a", "resourceVersion": "5"})


def test_identity_survives_any_update() -> None:
    body: dict[str, Any] = {"metadata": {"name": "a", "uid": "other", "generation": 99, "deletionTimestamp": "x"}}
    keep_identity(body, {"metadata": {"name": "a", "uid": "u", "creationTimestamp": "t", "generation": 3}})
    assert body["metadata"] == {"name": "a", "uid": "u", "creationTimestamp": "t", "generation": 3}


def problems(metadata: dict[str, Any], resource: Resource = CONFIG_MAPS) -> list[str]:
    return [cause.field for cause in check({"metadata": metadata}, Definition(resource))]


@pytest.mark.parametrize(
    ("finalizers", "words"),
    [
        (["example.com/a", "foregroundDeletion"], []),
        (["a b"], ['Invalid value: "a b": is not a qualified name']),
        (
            ["orphan", "foregroundDeletion"],
            [
                "Invalid value: ['orphan', 'foregroundDeletion']: "
                "finalizer orphan and foregroundDeletion cannot be both set"
            ],
        ),
    ],
)
def test_finalizers_are_names_and_do_not_contradict(finalizers: list[str], words: list[str]) -> None:
    found = check({"metadata": {"name": "a", "finalizers": finalizers}}, PLAIN)
    assert [cause.message for cause in found] == words


def test_what_is_being_deleted_gets_no_new_finalizer() -> None:
    leaving = {"metadata": {"deletionTimestamp": FACTS.now, "finalizers": ["a/a", "b/b"]}}
    assert change_causes({"metadata": {"finalizers": ["a/a"]}}, leaving) == []
    assert change_causes({"metadata": {"finalizers": ["c/c"]}}, {"metadata": {}}) == []
    (cause,) = change_causes({"metadata": {"finalizers": ["a/a", "c/c"]}}, leaving)
    assert cause.reason == "FieldValueForbidden"
    assert cause.message.endswith('found new finalizers []string{"c/c"}')


def test_an_object_has_one_controller() -> None:
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "uid": "u", "controller": True}
    both = [owner | {"name": "one"}, owner | {"name": "two"}]
    (cause,) = check({"metadata": {"name": "a", "ownerReferences": both}}, PLAIN)
    assert 'Found "true" in references for one and two' in cause.message
    assert problems({"name": "a", "ownerReferences": [both[0], both[1] | {"controller": False}]}) == []


@pytest.mark.parametrize("name", ["a", "a.b-c", "0", "x" * 253])
def test_good_names(name: str) -> None:
    assert problems({"name": name}) == []


@pytest.mark.parametrize("name", ["A", "-a", "a-", "a_b", "a..b", "x" * 254, "ü", ""])
def test_bad_names(name: str) -> None:
    assert problems({"name": name}) == ["metadata.name"]


def test_a_namespace_is_a_label() -> None:
    assert problems({"name": "a.b"}, NAMESPACES) == ["metadata.name"]


def test_roles_may_have_any_name() -> None:
    assert problems({"name": "system:node"}, Resource("rbac.authorization.k8s.io", "v1", "roles", "Role", True)) == []


@pytest.mark.parametrize(
    ("metadata", "fields"),
    [
        ({"labels": {"a/b": "c", "x": ""}}, []),
        ({"labels": {"a/b/c": "c"}}, ["metadata.labels"]),
        ({"labels": {"a": "not ok"}}, ["metadata.labels"]),
        ({"labels": {"a": "x" * 64}}, ["metadata.labels"]),
        ({"annotations": {"a": "anything at all"}}, []),
        ({"annotations": {"no blanks": "x"}}, ["metadata.annotations"]),
        ({"annotations": {"a": "x" * 300_000}}, ["metadata.annotations"]),
        ({"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}]}, []),
        (
            {"ownerReferences": [{"kind": "Pod"}]},
            [f"metadata.ownerReferences[0].{f}" for f in ("apiVersion", "name", "uid")],
        ),
    ],
)
def test_labels_annotations_and_owners(metadata: dict[str, Any], fields: list[str]) -> None:
    assert problems({"name": "a"} | metadata) == fields


@pytest.mark.parametrize(
    "metadata",
    [
        {"labels": {"a": 1}},
        {"labels": []},
        {"annotations": {"a": None}},
        {"finalizers": "x"},
        {"finalizers": [1]},
        {"ownerReferences": {}},
        {"ownerReferences": [1]},
        {"name": 5},
    ],
)
def test_wrong_types_are_bad_requests(metadata: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        check({"metadata": {"name": "a"} | metadata}, Definition(CONFIG_MAPS))


def test_metadata_must_be_an_object() -> None:
    with pytest.raises(BadRequest):
        metadata_of({"metadata": []})
    body: dict[str, Any] = {}
    metadata_of(body)["name"] = "a"
    assert body == {"metadata": {"name": "a"}}


def test_owner_uids_of_any_body() -> None:
    assert owner_uids({"metadata": {"ownerReferences": [{"uid": "a"}, {"uid": 5}, 7]}}) == ("a",)
    assert owner_uids({"metadata": None}) == ()


def test_one_cause_and_several_read_as_in_kubernetes() -> None:
    causes = check({"metadata": {"name": "A", "labels": {"a": "b c"}}}, Definition(DEVICES))
    assert str(invalid(DEVICES, "A", causes[:1])).startswith(
        'Device.devices.kubeedge.io "A" is invalid: metadata.name: '
    )
    assert str(invalid(PODS, "A", causes)).startswith('Pod "A" is invalid: [metadata.name: ')
