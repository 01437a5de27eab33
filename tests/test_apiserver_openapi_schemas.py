"""The schemas of documents: complete, and in version 2 no stricter than the kind."""

import json
from typing import Any

import pytest

from apimachinery.keys import Resource
from apiserver import openapi_schemas as schemas
from apiserver.builtins import BUILT_IN
from apiserver.definitions import Definition
from tests.test_apiserver_openapi import fields

SPEC: dict[str, Any] = {
    "type": "object",
    "description": "What is wanted.",
    "required": ["watts"],
    "properties": {
        "watts": {"type": "integer", "minimum": 1},
        "port": {"x-kubernetes-int-or-string": True},
        "hue": {"type": "string", "nullable": True, "description": "A colour."},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": {"a": {}}},
        "tags": {"type": "object", "additionalProperties": {"type": "string"}},
        "list": {"type": "array", "items": {"type": "object"}},
    },
}  # fmt: skip
LAMP = Definition(
    Resource("example.com", "v1", "lamps", "Lamp", True),
    schema={"type": "object", "properties": {"spec": SPEC}},
    is_custom=True,
)
NAME = "com.example.v1.Lamp"


def references(schema: Any) -> set[str]:
    if isinstance(schema, dict):
        found = {schema["$ref"]} if isinstance(schema.get("$ref"), str) else set()
        return found.union(*(references(below) for below in schema.values()))
    return set().union(*map(references, schema)) if isinstance(schema, list) else set()


@pytest.mark.parametrize(("made", "prefix"), [(schemas.v3, "#/components/schemas/"), (schemas.v2, "#/definitions/")])
def test_a_document_has_all_that_it_refers_to(made: Any, prefix: str) -> None:
    found = made([*BUILT_IN, LAMP])
    assert references(list(found.values())) <= {prefix + name for name in found}
    assert {schemas.name_of(definition) for definition in (*BUILT_IN, LAMP)} <= set(found)


def test_a_document_has_no_more_than_it_needs() -> None:
    assert set(schemas.v3([LAMP])) == {
        NAME, "io.k8s.api.ObjectMeta", "io.k8s.api.OwnerReference", "io.k8s.api.ManagedFieldsEntry",
    }  # fmt: skip


def test_version_3_says_what_the_definition_says() -> None:
    assert schemas.v3([LAMP])[NAME]["properties"]["spec"] == SPEC
    assert schemas.v3([LAMP])[NAME][schemas.GVK] == [{"group": "example.com", "version": "v1", "kind": "Lamp"}]


def test_version_2_has_no_type_where_it_would_refuse_what_is_allowed() -> None:
    spec = schemas.v2([LAMP])[NAME]["properties"]["spec"]
    assert (spec["type"], spec["required"], spec["description"]) == ("object", ["watts"], "What is wanted.")
    assert spec["properties"] == {
        "watts": {"type": "integer"},
        "port": {"x-kubernetes-int-or-string": True, "type": "string", "format": "int-or-string"},
        "hue": {"description": "A colour."},
        "free": {"x-kubernetes-preserve-unknown-fields": True},
        "tags": {"type": "object", "additionalProperties": {"type": "string"}},
        "list": {"type": "array", "items": {"type": "object"}},
    }


def test_a_kind_without_a_schema_may_have_any_field() -> None:
    bare = Definition(Resource("example.com", "v1", "nodes", "Node", True), is_custom=True)
    found = schemas.v3([bare])["com.example.v1.Node"]
    assert "spec" not in found["properties"], "not the Node that is built in"
    assert found["x-kubernetes-preserve-unknown-fields"] is True


def test_the_protobuf_form_says_the_same() -> None:
    definition = schemas.v2([LAMP])[NAME]
    named = dict(fields(schemas.protobuf(NAME, definition)))
    assert named[1].decode() == NAME
    assert _read(named[2]) == definition


def _read(data: bytes) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for number, value in fields(data):
        match number:
            case 1 | 2 | 4:
                made[{1: "$ref", 2: "format", 4: "description"}[number]] = value.decode()
            case 19:
                made.setdefault("required", []).append(value.decode())
            case 21 | 23:
                made["additionalProperties" if number == 21 else "items"] = _read(dict(fields(value))[1])
            case 22:
                made["type"] = dict(fields(value))[1].decode()
            case 25:
                pairs = [dict(fields(entry)) for _, entry in fields(value)]
                made["properties"] = {pair[1].decode(): _read(pair[2]) for pair in pairs}
            case 31:
                pair = dict(fields(value))
                made[pair[1].decode()] = json.loads(dict(fields(pair[2]))[2])
            case _:
                raise AssertionError(number)
    return made
