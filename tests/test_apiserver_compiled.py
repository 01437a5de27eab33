"""What is called sound is left alone and found right by the long way; and what is right is called sound."""

import copy
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.resources import DEVICES
from apiserver.definitions import from_crd
from apiserver.schemas import Schema
from cloudhub import crds
from tests.test_apiserver_schemas import SCHEMA

KEPT = "x-kubernetes-preserve-unknown-fields"
NAMES = st.sampled_from(["a", "b", "name"])
SCALARS = (
    st.none() | st.booleans() | st.integers(-2, 3) | st.sampled_from([0.5, 1.0]) | st.sampled_from(["", "a", "bc"])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8
)
COMMON = {"nullable": st.booleans(), "default": st.sampled_from(["a", 1])}
LEAVES = st.one_of(
    st.fixed_dictionaries(
        {"type": st.just("string")},
        optional={
            "minLength": st.integers(0, 2), "maxLength": st.integers(0, 2), "pattern": st.sampled_from(["^a", "c$"]),
            "enum": st.sampled_from([["a", "bc"], ["a", None], ["a", 1]]), "format": st.sampled_from(["byte", "none"]),
            **COMMON,
        },
    ),
    st.fixed_dictionaries(
        {"type": st.sampled_from(["integer", "number"])},
        optional={
            "minimum": st.integers(-1, 1), "exclusiveMinimum": st.booleans(), "maximum": st.integers(0, 2),
            "exclusiveMaximum": st.booleans(), "multipleOf": st.just(2), "format": st.just("int32"), **COMMON,
        },
    ),
    st.fixed_dictionaries({"type": st.just("boolean")}, optional=COMMON),
    st.fixed_dictionaries({"x-kubernetes-int-or-string": st.just(True)}, optional=COMMON),
    st.fixed_dictionaries({KEPT: st.just(True)}, optional={"nullable": st.booleans(), "enum": st.just(["a"])}),
)  # fmt: skip


def nested(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    of_lists = {
        "minItems": st.integers(0, 1), "maxItems": st.integers(1, 3), "uniqueItems": st.booleans(),
        "nullable": st.booleans(), "x-kubernetes-list-type": st.sampled_from(["atomic", "set", "map"]),
        "x-kubernetes-list-map-keys": st.just(["name"]),
    }  # fmt: skip
    of_objects = {
        "properties": st.dictionaries(NAMES, inner, max_size=3), "required": st.lists(NAMES, min_size=1, max_size=2),
        "additionalProperties": st.booleans() | inner, KEPT: st.booleans(), "nullable": st.booleans(),
        "maxProperties": st.integers(0, 2), "x-kubernetes-embedded-resource": st.just(True),
        "anyOf": st.just([{"required": ["a"]}, {"required": ["b"]}]), "default": st.just({}),
    }  # fmt: skip
    return st.fixed_dictionaries({"type": st.just("array")}, optional={"items": inner, **of_lists}) | (
        st.fixed_dictionaries({"type": st.just("object")}, optional=of_objects)
    )


SCHEMAS = st.recursive(LEAVES, nested, max_leaves=4)


def is_left_alone(schema: Schema, body: dict[str, Any]) -> bool:
    """The long way."""
    after = copy.deepcopy(body)
    schema.prune(after)
    schema.default(after)
    return repr(after) == repr(body) and not schema.causes(after)


@given(SCHEMAS, VALUES)
def test_what_is_sound_is_left_alone_and_right(schema: dict[str, Any], value: Any) -> None:
    ready = Schema({"type": "object", "properties": {"spec": schema}})
    body = {"kind": "Thing", "metadata": {"name": "a"}, "spec": value}
    assert not ready.is_sound(body) or is_left_alone(ready, body)


USUAL = (
    st.sampled_from(["a1", "auto", "2026-01-01T00:00:00Z", "", "x y"])
    | st.integers(0, 11)
    | st.sampled_from([0.5, 1.0])
)
SPECS = st.fixed_dictionaries(
    {"node": st.sampled_from(["n1", "", "N", "toolong"]), "mode": st.sampled_from(["auto", "off", "on"])},
    optional={
        "count": USUAL, "ratio": USUAL, "since": USUAL, "blob": USUAL, "port": USUAL, "unknown": USUAL,
        "maybe": USUAL | st.none(), "free": st.dictionaries(NAMES, VALUES, max_size=2),
        "labels": st.dictionaries(NAMES, USUAL, max_size=2), "tags": st.lists(st.sampled_from(["a", "b"]), max_size=2),
        "choice": st.dictionaries(NAMES, st.just("x"), max_size=2),
        "items": st.lists(
            st.fixed_dictionaries({"name": st.sampled_from(["a", "b"])}, optional={"weight": USUAL}), max_size=4
        ),
    },
)  # fmt: skip


@given(SPECS)
def test_of_the_usual_rules_none_takes_the_long_way(spec: dict[str, Any]) -> None:
    ready = Schema(SCHEMA)
    body = {"metadata": {"name": "a"}, "spec": {"maybe": "x", **spec}}
    assert ready.is_sound(body) == is_left_alone(ready, body)


def test_a_device_with_its_status_is_sound() -> None:
    schema = next(
        one.schema
        for value in yaml.safe_load_all(crds.text())
        for one in from_crd(value)
        if one.resource == DEVICES and one.schema is not None
    )
    body: dict[str, Any] = {
        "apiVersion": DEVICES.api_version,
        "kind": "Device",
        "metadata": {"name": "a", "managedFields": [{"manager": "x"}]},
        "spec": {"nodeName": "n", "properties": [{"name": "p", "desired": {"value": "1"}, "reportCycle": 5}]},
        "status": {
            "twins": [{"propertyName": "p", "sync": "synced", "reported": {"value": "1", "metadata": {"t": "1"}}}],
            "conditions": [{"type": "Online", "status": "True", "lastTransitionTime": "2026-11-26T10:00:00Z"}],
        },
    }
    ready = Schema(schema)
    assert ready.is_sound(body)
    body["status"]["twins"] *= 2
    assert not ready.is_sound(body)


@pytest.mark.parametrize(
    "root",
    [
        {"additionalProperties": {"type": "string"}},
        {"properties": {"metadata": {"type": "object", "properties": {"name": {"type": "string", "default": "x"}}}}},
        {"x-kubernetes-embedded-resource": True},
    ],
)
def test_a_schema_that_says_more_of_an_objects_metadata_takes_the_long_way(root: dict[str, Any]) -> None:
    assert not Schema({"type": "object", **root}).is_sound({"metadata": {"name": "a"}})
