"""Structural schemas: Kubernetes' sentences, defaults, pruning, and definitions that are wrong themselves."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiserver.schemas import MAX_CAUSES, Schema, definition_causes, unknown_keywords

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["spec"],
    "properties": {
        "apiVersion": {"type": "string"},
        "metadata": {"type": "object"},
        "spec": {
            "type": "object",
            "required": ["node"],
            "properties": {
                "node": {"type": "string", "minLength": 1, "maxLength": 5, "pattern": "^[a-z0-9]*$"},
                "count": {"type": "integer", "minimum": 1, "maximum": 10, "format": "int32"},
                "ratio": {"type": "number", "minimum": 0, "exclusiveMinimum": True},
                "mode": {"type": "string", "enum": ["auto", "off"], "default": "auto"},
                "since": {"type": "string", "format": "date-time"},
                "blob": {"type": "string", "format": "byte"},
                "maybe": {"type": "string", "nullable": True, "default": "x"},
                "port": {"x-kubernetes-int-or-string": True},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "items": {
                    "type": "array",
                    "maxItems": 3,
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"],
                    "items": {
                        "type": "object",
                        "required": ["name"],
                        "properties": {"name": {"type": "string"}, "weight": {"type": "integer", "default": 1}},
                    },
                },
                "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                "choice": {
                    "type": "object",
                    "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
                    "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
                },
            },
        },
    },
}
READY = Schema(SCHEMA)


def told(**spec: Any) -> list[str]:
    return [f"{cause.field}: {cause.message}" for cause in READY.causes({"spec": {"node": "n1"} | spec})]


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"count": "3"}, 'spec.count: Invalid value: "string": spec.count in body must be of type integer: "string"'),
        ({"count": 1.5}, 'spec.count: Invalid value: "number": spec.count in body must be of type integer: "number"'),
        ({"node": None}, 'spec.node: Invalid value: "null": spec.node in body must be of type string: "null"'),
        ({"items": {}}, 'spec.items: Invalid value: "object": spec.items in body must be of type array: "object"'),
        ({"count": 0}, "spec.count: Invalid value: 0: spec.count in body should be greater than or equal to 1"),
        ({"count": 11}, "spec.count: Invalid value: 11: spec.count in body should be less than or equal to 10"),
        ({"ratio": 0}, "spec.ratio: Invalid value: 0: spec.ratio in body should be greater than 0"),
        ({"node": ""}, 'spec.node: Invalid value: "": spec.node in body should be at least 1 chars long'),
        ({"node": "toolong"}, "spec.node: Too long: may not be longer than 5"),
        ({"node": "A"}, "spec.node: Invalid value: \"A\": spec.node in body should match '^[a-z0-9]*$'"),
        ({"mode": "on"}, 'spec.mode: Unsupported value: "on": supported values: "auto", "off"'),
        ({"since": "now"}, 'spec.since: Invalid value: "now": spec.since in body must be of type date-time: "now"'),
        ({"blob": "%"}, 'spec.blob: Invalid value: "%": spec.blob in body must be of type byte: "%"'),
        ({"items": [{}]}, "spec.items[0].name: Required value"),
        ({"items": [{"name": str(n)} for n in range(4)]}, "spec.items: Too many: 4: must have at most 3 items"),
        ({"items": [{"name": "a"}, {"name": "a"}]}, 'spec.items[1]: Duplicate value: {"name": "a"}'),
        ({"tags": ["a", "b", "a"]}, 'spec.tags[2]: Duplicate value: "a"'),
        (
            {"labels": {"a": 1}},
            'spec.labels.a: Invalid value: "integer": spec.labels.a in body must be of type string: "integer"',
        ),
        ({"port": True}, 'spec.port: Invalid value: "boolean": spec.port in body must be of type integer: "boolean"'),
        ({"choice": {}}, 'spec.choice: Invalid value: {}: "spec.choice" must validate one and only one schema (oneOf)'),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_kubernetes_words(spec: dict[str, Any], sentence: str) -> None:
    assert [text.replace('{"name":"a"}', '{"name": "a"}') for text in told(**spec)] == [sentence]


@pytest.mark.parametrize(
    "spec",
    [
        {"count": 10, "ratio": 0.1, "mode": "off", "since": "2027-01-15T08:00:00.5+01:00", "blob": "AAA="},
        {"port": 80},
        {"port": "http"},
        {"maybe": None},
        {"free": {"any": ["thing"]}},
        {"items": [{"name": "a"}, {"name": "b"}], "tags": ["a", "b"], "choice": {"a": "x"}},
    ],
)
def test_what_is_right_has_no_causes(spec: dict[str, Any]) -> None:
    assert told(**spec) == []


def test_all_causes_are_given_up_to_a_limit() -> None:
    assert len(told(count="x", mode="on", port=[])) == 3
    assert len(told(labels={str(n): n for n in range(100)})) == MAX_CAUSES


def test_a_missing_spec_is_required() -> None:
    (cause,) = READY.causes({})
    assert (cause.field, cause.message, cause.reason) == ("spec", "Required value", "FieldValueRequired")


def test_defaults_are_filled_in_also_inside_lists_and_for_forbidden_nulls() -> None:
    body: dict[str, Any] = {"spec": {"mode": None, "maybe": None, "items": [{"name": "a"}]}}
    READY.default(body)
    assert body["spec"] == {"mode": "auto", "maybe": None, "items": [{"name": "a", "weight": 1}]}


def test_unknown_fields_are_named_and_cut_off_but_not_where_they_are_preserved() -> None:
    body: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "K",
        "metadata": {"whatever": 1},
        "extra": 1,
        "spec": {"nodeNam": "n", "free": {"x": {"y": 1}}, "labels": {"z": "z"}, "items": [{"name": "a", "hue": 1}]},
    }
    expected = ["extra", "spec.nodeNam", "spec.items[0].hue"]
    before = copy.deepcopy(body)
    assert READY.unknown_fields(body) == expected
    assert body == before
    READY.prune(body)
    assert body["spec"] == {"free": {"x": {"y": 1}}, "labels": {"z": "z"}, "items": [{"name": "a"}]}
    assert (body["kind"], body["metadata"]) == ("K", {"whatever": 1})
    assert "extra" not in body


FIELDS = st.sampled_from([*SCHEMA["properties"]["spec"]["properties"], "name", "a", "zzz"])
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda value: (
        st.lists(value, max_size=3)
        | st.dictionaries(
            st.sampled_from([*SCHEMA["properties"]["spec"]["properties"], "name", "a", "zzz"]), value, max_size=4
        )
    ),
)


@given(st.dictionaries(st.sampled_from(["spec", "status", "metadata"]), JSON_VALUES))
def test_pruning_and_defaulting_are_idempotent_and_judging_never_fails(body: dict[str, Any]) -> None:
    READY.causes(body)
    READY.prune(body)
    READY.default(body)
    once = copy.deepcopy(body)
    READY.prune(body)
    READY.default(body)
    assert body == once
    assert READY.unknown_fields(body) == []


def test_a_good_definition_has_no_causes() -> None:
    assert definition_causes(SCHEMA, "schema") == []


@pytest.mark.parametrize(
    ("schema", "field"),
    [
        ("string", "s"),
        ({"type": "array"}, "s.type"),
        ({"type": "object", "properties": {"a": {}}}, "s.properties[a].type"),
        ({"type": "object", "properties": {"a": {"type": "text"}}}, "s.properties[a].type"),
        ({"type": "object", "properties": {"a": 3}}, "s.properties[a]"),
        ({"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}}, "s.properties[a].pattern"),
        ({"type": "object", "properties": {"a": {"type": "string", "minLength": "x"}}}, "s"),
        ({"type": "object", "properties": {"a": {"type": "integer", "default": "x"}}}, "s.properties[a].default"),
        ({"type": "object", "properties": {"l": {"type": "array", "items": {}}}}, "s.properties[l].items.type"),
    ],
)
def test_a_wrong_definition_is_refused_with_the_place(schema: Any, field: str) -> None:
    assert field in [cause.field for cause in definition_causes(schema, "s")]


def test_an_endlessly_nested_schema_is_refused() -> None:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(200):
        schema = {"type": "object", "properties": {"a": schema}}
    assert definition_causes(schema, "s")


def test_misspelt_keywords_are_found() -> None:
    schema = {
        "type": "object",
        "propertis": {},
        "properties": {"a": {"type": "string", "patern": "x", "x-kubernetes-y": 1}},
    }
    assert list(unknown_keywords(schema, "s")) == ["s.propertis", "s.properties.a.patern"]


ITEMS = {"type": "object", "properties": {"name": {"type": "string"}}}


@pytest.mark.parametrize(
    ("field", "place", "words"),
    [
        ({"type": "array", "x-kubernetes-list-type": "bag"}, "x-kubernetes-list-type", "Unsupported value"),
        ({"type": "object", "x-kubernetes-map-type": "loose"}, "x-kubernetes-map-type", "Unsupported value"),
        ({"type": "object", "x-kubernetes-list-type": "set"}, "type", "must be array if"),
        (
            {"type": "array", "items": ITEMS, "x-kubernetes-list-type": "map"},
            "x-kubernetes-list-map-keys",
            "must not be empty",
        ),
        (
            {"type": "array", "items": ITEMS, "x-kubernetes-list-map-keys": ["name"]},
            "x-kubernetes-list-type",
            "must be map if",
        ),
        (
            {"type": "array", "items": ITEMS, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"]},
            "x-kubernetes-list-map-keys[0]",
            "must all be names of item properties",
        ),
        (
            {"type": "string", "x-kubernetes-embedded-resource": True, "x-kubernetes-preserve-unknown-fields": True},
            "type",
            "must be object if",
        ),
        ({"type": "object", "x-kubernetes-embedded-resource": True}, "properties", "must not be empty"),
    ],
)  # fmt: skip
def test_extensions_that_make_no_sense_are_refused_with_the_place(field: Any, place: str, words: str) -> None:
    (cause,) = definition_causes({"type": "object", "properties": {"x": field}}, "schema")
    assert cause.field == f"schema.properties[x].{place}"
    assert words in cause.message


def test_an_embedded_object_says_what_it_is() -> None:
    template = {"type": "object", "x-kubernetes-embedded-resource": True, "x-kubernetes-preserve-unknown-fields": True}
    schema = Schema({"type": "object", "properties": {"template": template}})
    assert schema.causes({"template": {"apiVersion": "v1", "kind": "Pod", "spec": {}}}) == []
    assert [cause.field for cause in schema.causes({"template": {"kind": ""}})] == [
        "template.apiVersion",
        "template.kind",
    ]
