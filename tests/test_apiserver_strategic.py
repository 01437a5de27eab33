"""Strategic merge patch, by examples of what kubectl sends."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.errors import BadRequest
from apiserver.strategic import diff, merge

POD = {
    "kind": "Pod",
    "metadata": {"finalizers": ["a"], "labels": {"x": "1", "y": "2"}},
    "spec": {
        "containers": [
            {"name": "one", "image": "i1", "ports": [{"containerPort": 80}], "env": [{"name": "A", "value": "1"}]},
            {"name": "two", "image": "i2"},
        ],
        "tolerations": [{"key": "k"}],
        "volumes": [{"name": "v", "emptyDir": {}}],
    },
}


def patched(patch: dict[str, Any], current: dict[str, Any] = POD) -> Any:
    before = copy.deepcopy(current)
    result = merge(current, patch)
    assert current == before
    return result


def test_objects_merge_and_null_removes() -> None:
    assert patched({"metadata": {"labels": {"x": None, "z": "3"}}})["metadata"]["labels"] == {"y": "2", "z": "3"}


def test_list_entries_merge_by_key_at_every_depth() -> None:
    patch = {
        "spec": {
            "containers": [
                {"name": "one", "env": [{"name": "B", "value": "2"}], "ports": [{"containerPort": 80, "name": "web"}]}
            ]
        }
    }
    one = patched(patch)["spec"]["containers"][0]
    assert one["env"] == [{"name": "B", "value": "2"}, {"name": "A", "value": "1"}]
    assert one["ports"] == [{"containerPort": 80, "name": "web"}]
    assert one["image"] == "i1"


def test_an_entry_can_be_deleted() -> None:
    result = patched({"spec": {"containers": [{"name": "two", "$patch": "delete"}]}})
    assert [entry["name"] for entry in result["spec"]["containers"]] == ["one"]


def test_an_untagged_list_is_replaced() -> None:
    assert patched({"spec": {"tolerations": [{"key": "n"}]}})["spec"]["tolerations"] == [{"key": "n"}]


def test_an_object_or_a_list_can_be_replaced_as_a_whole() -> None:
    assert patched({"metadata": {"$patch": "replace", "labels": {"q": "1"}}})["metadata"] == {"labels": {"q": "1"}}
    result = patched({"spec": {"containers": [{"name": "n"}, {"$patch": "replace"}]}})
    assert result["spec"]["containers"] == [{"name": "n"}]
    assert patched({"metadata": {"$patch": "delete"}})["metadata"] == {}


def test_retained_keys_drop_the_others() -> None:
    result = patched(
        {"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}]}}
    )
    assert result["spec"]["volumes"] == [{"name": "v", "hostPath": {"path": "/"}}]


def test_sets_merge_and_lose_members() -> None:
    assert patched({"metadata": {"finalizers": ["a", "b"]}})["metadata"]["finalizers"] == ["a", "b"]
    assert patched({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}})["metadata"]["finalizers"] == []


def test_an_order_is_obeyed() -> None:
    patch = {
        "spec": {
            "$setElementOrder/containers": [{"name": "new"}, {"name": "two"}, {"name": "one"}],
            "containers": [{"name": "new"}],
        }
    }
    assert [entry["name"] for entry in patched(patch)["spec"]["containers"]] == ["new", "two", "one"]


def test_merge_keys_depend_on_the_kind_where_they_must() -> None:
    service = {"kind": "Service", "spec": {"ports": [{"port": 80, "name": "a"}]}}
    assert patched({"spec": {"ports": [{"port": 80, "name": "b"}]}}, service)["spec"]["ports"] == [
        {"port": 80, "name": "b"}
    ]
    node = {
        "kind": "Node",
        "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Disk", "status": "x"}]},
    }
    result = patched({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}, node)
    assert [entry["status"] for entry in result["status"]["conditions"]] == ["False", "x"]


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        ({"spec": {"containers": [{"image": "x"}]}}, 'merge key "name"'),
        ({"metadata": {"$patch": "explode"}}, "unknown directive"),
    ],
)
def test_refusals(patch: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        patched(patch)


def test_endless_nesting_is_refused() -> None:
    patch: dict[str, Any] = {}
    for _ in range(150):
        patch = {"a": patch}
    with pytest.raises(BadRequest, match="nested"):
        patched(patch)


NAMES = st.sampled_from(["a", "b", "conditions", "addresses", "podIPs"])
ENTRIES = st.fixed_dictionaries(
    {"type": st.sampled_from("xyz"), "ip": st.sampled_from("12")}, optional={"status": st.sampled_from(["True", "no"])}
)
LISTS = st.lists(ENTRIES, max_size=3, unique_by=(lambda item: item["type"], lambda item: item["ip"])) | st.lists(
    st.integers(0, 2), max_size=3
)
VALUES = st.recursive(st.integers(0, 3) | LISTS, lambda below: st.dictionaries(NAMES, below, max_size=4), max_leaves=8)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=4).map(lambda value: {"kind": "Node"} | value)


@given(OBJECTS, OBJECTS)
def test_a_difference_leads_from_the_one_to_the_other(current: Any, wanted: Any) -> None:
    assert merge(current, diff(current, wanted)) == wanted
    assert diff(current, current) == {}


def test_a_difference_names_the_conditions_that_changed_and_no_others() -> None:
    held = {"kind": "Node", "conditions": [{"type": "Ready", "status": "True"}, {"type": "Disk", "status": "False"}]}
    wanted = {"kind": "Node", "conditions": [{"type": "Ready", "status": "False"}, {"type": "Disk", "status": "False"}]}
    assert diff(held, wanted) == {"conditions": [{"type": "Ready", "status": "False"}]}
    assert diff(held, {"kind": "Node", "conditions": []})["conditions"][0] == {"type": "Ready", "$patch": "delete"}


def test_a_set_tells_what_left_it() -> None:
    held = {"metadata": {"finalizers": ["a", "b"]}}
    wanted = {"metadata": {"finalizers": ["b", "c"]}}
    assert merge(held, diff(held, wanted)) == wanted
