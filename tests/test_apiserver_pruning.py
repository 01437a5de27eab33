"""Pruning and defaulting by a structural schema."""

from typing import Any

import pytest

from apiserver.pruning import default, prune, unknown_fields

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "a": {"type": "string", "default": "x"},
                "b": {"type": "string", "nullable": True, "default": "y"},
                "c": {"type": "string"},
                "port": {"x-kubernetes-int-or-string": True},
                "free": {
                    "type": "object",
                    "x-kubernetes-preserve-unknown-fields": True,
                    "properties": {"known": {"type": "object", "properties": {"x": {"type": "string"}}}},
                },
                "template": {
                    "type": "object",
                    "x-kubernetes-embedded-resource": True,
                    "properties": {"spec": {"type": "object", "properties": {"x": {"type": "string"}}}},
                },
                "list": {
                    "type": "array",
                    "items": {"type": "object", "properties": {"d": {"type": "integer", "default": 1}}},
                },
                "map": {
                    "type": "object",
                    "additionalProperties": {"type": "object", "properties": {"d": {"default": 2}}},
                },
            },
        },
    },
}


@pytest.mark.parametrize(
    ("spec", "pruned", "gone"),
    [
        ({"a": "1", "q": 1}, {"a": "1"}, ["spec.q"]),
        (
            {"free": {"q": {"r": 1}, "known": {"x": "1", "q": 1}}},
            {"free": {"q": {"r": 1}, "known": {"x": "1"}}},
            ["spec.free.known.q"],
        ),
        (
            {"template": {"apiVersion": "v1", "kind": "P", "metadata": {"q": 1}, "q": 1, "spec": {"x": "1", "q": 1}}},
            {"template": {"apiVersion": "v1", "kind": "P", "metadata": {"q": 1}, "spec": {"x": "1"}}},
            ["spec.template.q", "spec.template.spec.q"],
        ),
        (
            {"list": [{"d": 2, "q": 1}], "map": {"k": {"q": 1}}},
            {"list": [{"d": 2}], "map": {"k": {}}},
            ["spec.list[0].q", "spec.map.k.q"],
        ),
        ({"port": "http"}, {"port": "http"}, []),
    ],
)
def test_what_the_schema_does_not_know_is_cut_off(spec: Any, pruned: Any, gone: list[str]) -> None:
    body = {"apiVersion": "v1", "kind": "X", "metadata": {"anything": 1}, "spec": spec}
    unknown = unknown_fields(body, SCHEMA)
    prune(body, SCHEMA)
    assert body == {"apiVersion": "v1", "kind": "X", "metadata": {"anything": 1}, "spec": pruned}
    assert unknown == gone
    assert unknown_fields(body, SCHEMA) == []


@pytest.mark.parametrize(
    ("spec", "filled"),
    [
        ({}, {"a": "x", "b": "y"}),
        ({"a": None, "b": None, "c": None, "port": None}, {"a": "x", "b": None}),
        ({"a": "1", "b": "2", "list": [{}, {"d": 5}]}, {"a": "1", "b": "2", "list": [{"d": 1}, {"d": 5}]}),
        ({"a": "1", "b": "2", "map": {"k": {}}}, {"a": "1", "b": "2", "map": {"k": {"d": 2}}}),
    ],
)
def test_defaults_are_filled_in_and_nulls_that_may_not_be_go(spec: Any, filled: Any) -> None:
    body = {"metadata": {"labels": None}, "spec": spec}
    default(body, SCHEMA)
    assert body == {"metadata": {"labels": None}, "spec": filled}
    default(body, SCHEMA)
    assert body["spec"] == filled


def test_nothing_is_filled_into_what_is_not_there() -> None:
    body: dict[str, Any] = {}
    default(body, SCHEMA)
    assert body == {}
