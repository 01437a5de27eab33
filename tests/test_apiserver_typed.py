"""Typed values: what differs, what is claimed, what a merge makes of two."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.objects import canonical
from apiserver import fieldsets, kinds
from apiserver.typed import (
    ANY,
    Type,
    compare,
    errors,
    fieldset_of,
    merge,
    same,
    unknown_fields,
    with_named_fields,
    without,
)

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "one": {"type": "integer"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}},
        "list": {"type": "array", "items": {"type": "string"}},
        "set": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
        "map": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name", "port"],
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "port": {"type": "integer", "default": 80},
                    "value": {"type": "string"},
                },
            },
        },
        "free": {"x-kubernetes-preserve-unknown-fields": True},
    },
}
TYPE = Type(SCHEMA)

TEXT = st.sampled_from(["a", "b", "c"])
ENTRIES = st.lists(
    st.fixed_dictionaries({"name": TEXT}, optional={"port": st.sampled_from([1, 2]), "value": TEXT}),
    max_size=3,
    unique_by=lambda entry: (entry["name"], entry.get("port", 80)),
)
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "one": st.integers(0, 3),
        "labels": st.dictionaries(TEXT, TEXT, max_size=2),
        "whole": st.dictionaries(TEXT, TEXT, max_size=2),
        "list": st.lists(TEXT, max_size=2),
        "set": st.lists(TEXT, max_size=3, unique=True),
        "map": ENTRIES,
        "free": st.recursive(
            st.sampled_from([1, True, None, "a"]), lambda inner: st.dictionaries(TEXT, inner, max_size=2)
        ),
    },
)


def told(fields: Any) -> list[str]:
    return [fieldsets.shown(path) for path in fieldsets.paths(fields)]


@given(VALUES)
def test_what_is_equal_differs_in_nothing_and_merges_to_itself(value: Any) -> None:
    assert not any(compare(value, dict(value), TYPE))
    assert same(merge(value, value, TYPE), value)


@given(VALUES, VALUES)
def test_what_is_added_one_way_is_removed_the_other(old: Any, new: Any) -> None:
    there, back = compare(old, new, TYPE), compare(new, old, TYPE)
    assert set(told(there.added)) == set(told(back.removed))
    assert set(told(there.changed)) == set(told(back.changed))
    assert any(there) == (not same(old, new)) or _differs_in_order(old, new)


def _differs_in_order(old: Any, new: Any) -> bool:
    return any(old.get(name) != new.get(name) for name in ("map", "set"))


@given(VALUES, VALUES)
def test_a_merge_has_all_that_was_applied_and_all_that_was_not_said(live: Any, applied: Any) -> None:
    merged = merge(live, applied, TYPE)
    claimed = fieldset_of(applied, TYPE)
    assert not fieldsets.intersection(compare(applied, merged, TYPE).changed, claimed)
    # An empty map that is applied says nothing about what is in it.
    assert not [
        path for path in told(compare(applied, merged, TYPE).removed) if path != ".free" and path.count(".") > 1
    ]
    assert not compare(live, merged, TYPE).removed or "free" in applied
    assert same(merge(merged, applied, TYPE), merged)


@given(VALUES)
def test_without_all_its_fields_nothing_is_left_of_a_value(value: Any) -> None:
    everything = with_named_fields(fieldset_of(value, TYPE), TYPE)
    left = without(value, everything, TYPE)
    assert not any(left.values())
    assert same(without(value, {}, TYPE), value)


def test_differences_are_found_at_the_grain_of_the_schema() -> None:
    old = {"one": 1, "labels": {"a": "1"}, "whole": {"a": "1"}, "list": ["a"], "set": ["a"], "map": [{"name": "x"}]}
    new = {
        "labels": {"a": "2", "b": "1"},
        "whole": {"a": "2"},
        "list": ["a", "b"],
        "set": ["b"],
        "map": [{"name": "x", "value": "v"}, {"name": "x", "port": 1}],
    }
    found = compare(old, new, TYPE)
    assert told(found.changed) == [".list", ".whole", ".labels.a"]
    assert told(found.removed) == [".one", '.set[="a"]']
    assert told(found.added) == [
        ".labels.b",
        '.map[name="x",port=1]',
        '.map[name="x",port=1].name',
        '.map[name="x",port=1].port',
        '.map[name="x",port=80].value',
        '.set[="b"]',
    ]


def test_claims_are_leaves_entries_and_keys() -> None:
    value = {"labels": {"a": "1"}, "whole": {"a": "1"}, "map": [{"name": "x"}], "free": {"a": {"b": 1}}}
    assert fieldset_of(value, TYPE) == {
        "f:labels": {"f:a": {}},
        "f:whole": {},
        "f:map": {'k:{"name":"x","port":80}': {".": {}, "f:name": {}}},
        "f:free": {"f:a": {".": {}, "f:b": {}}},
    }
    assert fieldset_of({"labels": {}}, TYPE) == {"f:labels": {}}


@pytest.mark.parametrize(
    ("live", "applied", "merged"),
    [
        ("abc", "ca", "bca"),
        ("ab", "xa", "xab"),
        ("abc", "", "abc"),
        ("", "ba", "ba"),
        ("abc", "xy", "abcxy"),
        ("abcd", "db", "acdb"),
    ],
)
def test_a_merged_list_keeps_the_applied_order(live: str, applied: str, merged: str) -> None:
    assert merge({"set": list(live)}, {"set": list(applied)}, TYPE)["set"] == list(merged)


def test_a_change_of_shape_takes_the_parts_along() -> None:
    found = compare({"free": {"a": {"b": 1}}}, {"free": {"a": 1}}, TYPE)
    assert told(found.changed) == [".free.a"]
    assert told(found.removed) == [".free.a.b"]
    assert not found.added


def test_one_and_true_are_not_the_same() -> None:
    assert told(compare({"a": {"x": 1}}, {"a": {"x": True}}, ANY).changed) == [".a.x"]
    assert not same([1, {"a": 0}], [1, {"a": False}])


ALIKE = st.recursive(
    st.sampled_from([None, False, True, 0, 1, 0.0, -0.0, 1.0, "", "a"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
)


@given(ALIKE, ALIKE)
def test_the_same_is_what_is_written_alike(left: Any, right: Any) -> None:
    assert same(left, right) == (canonical(left) == canonical(right))
    assert same(left, copy.deepcopy(left))


@pytest.mark.parametrize("step", [lambda inner: {"a": inner}, lambda inner: [inner]])
def test_what_is_nested_as_deeply_as_json_is_read_is_compared(step: Callable[[Any], Any]) -> None:
    one: Any = 1
    other: Any = 1
    for _ in range(800):
        one, other = step(one), step(other)
    assert same(one, other)


def test_entries_that_cannot_be_told_apart_make_a_list_one_thing() -> None:
    old, new = {"map": [{"name": "x"}, {"name": "x"}]}, {"map": [{"name": "x"}]}
    assert compare(old, new, TYPE).changed == {"f:map": {}}
    assert compare({"map": [{}]}, new, TYPE).changed == {"f:map": {}}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"two": 1}, [".two: field not declared in schema"]),
        ({"labels": []}, [".labels: expected map, got list"]),
        ({"set": {}}, [".set: expected list, got map"]),
        ({"one": [1]}, [".one: expected integer, got list"]),
        ({"set": ["a", "a"]}, ['.set: duplicate entries for key [="a"]']),
        ({"set": [{}]}, [".set: element 0: associative list without keys has an element that's not a scalar"]),
        (
            {"map": [{"value": "v"}]},
            [
                '.map: element 0: associative list with keys has an element that omits key field "name" '
                "(and doesn't have default value)"
            ],
        ),
        ({"map": ["a"]}, [".map: element 0: associative list with keys may not have non-map elements"]),
        ({"map": [{"name": "x", "what": 1}]}, ['.map[name="x",port=80].what: field not declared in schema']),
        ({"free": {"x": 1}, "one": "many", "labels": None, "list": [1]}, []),
    ],
)
def test_errors_name_the_place(value: Any, words: list[str]) -> None:
    assert list(errors(value, TYPE)) == words


def test_unknown_fields_are_found_where_something_is_new() -> None:
    old = {"two": 1, "map": [{"name": "x", "what": 1}], "labels": {"any": "1"}, "free": {"x": 1}}
    assert list(unknown_fields(old, None, TYPE)) == ["two", "map[0].what"]
    assert list(unknown_fields(old, old, TYPE)) == []
    assert list(unknown_fields(old | {"three": 1}, old, TYPE)) == ["two", "three"]


def test_a_schema_may_refer_to_itself() -> None:
    tree = Type(
        {"$ref": "#/components/schemas/Tree"},
        {"Tree": {"type": "object", "properties": {"below": {"$ref": "Tree"}, "leaf": {"type": "string"}}}},
    )
    assert fieldset_of({"below": {"below": {"leaf": "x"}}}, tree) == {"f:below": {"f:below": {"f:leaf": {}}}}


def test_built_in_kinds_have_their_keys() -> None:
    pod = Type(kinds.root_schema("Pod"), kinds.definitions())
    value = {"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 1}]}], "nodeSelector": {"a": "b"}}}
    assert told(fieldset_of(value, pod)) == [
        ".spec.nodeSelector",
        '.spec.containers[name="c"]',
        '.spec.containers[name="c"].name',
        '.spec.containers[name="c"].ports[containerPort=1,protocol="TCP"]',
        '.spec.containers[name="c"].ports[containerPort=1,protocol="TCP"].containerPort',
    ]
