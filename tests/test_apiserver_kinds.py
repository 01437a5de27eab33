"""Schemas of built-in kinds: the protobuf table with the lists' keys."""

from typing import Any

import jsonschema
import pytest

from apiserver import kinds, protobuf
from apiserver.builtins import BUILT_IN


def references(schema: Any) -> set[str]:
    if isinstance(schema, dict):
        found = {schema["$ref"]} if isinstance(schema.get("$ref"), str) else set()
        return found.union(*(references(below) for below in schema.values()))
    return set().union(*map(references, schema)) if isinstance(schema, list) else set()


def test_every_reference_leads_somewhere() -> None:
    assert set().union(*map(references, kinds.definitions().values())) <= set(kinds.definitions())


def test_every_key_of_a_list_is_a_field_of_its_entries() -> None:
    keyed = 0
    for name, schema in kinds.definitions().items():
        for field, one in schema["properties"].items():
            keys = [*one.get("x-kubernetes-list-map-keys", ()), one.get("x-kubernetes-patch-merge-key")]
            for key in filter(None, keys):
                keyed += 1
                if "$ref" in one["items"]:  # what is newer than the protobuf table is not known that deeply
                    assert key in kinds.definitions()[one["items"]["$ref"]]["properties"], f"{name}.{field} by {key}"
    assert keyed > 40
    for name, field in kinds._lists():
        assert field in kinds.definitions()[name]["properties"], f"{name} has no {field}"


def test_no_field_is_in_both_tables() -> None:
    for name, fields in kinds._newer().items():
        held = {field.name for field in protobuf.messages()[name].values()}
        assert not held & {field.name for field in fields}, name


def test_schemas_are_schemas() -> None:
    for schema in kinds.definitions().values():
        jsonschema.Draft4Validator.check_schema(schema)


@pytest.mark.parametrize("kind", [definition.resource.kind for definition in BUILT_IN])
def test_every_kind_has_metadata(kind: str) -> None:
    properties = kinds.root_schema(kind)["properties"]
    assert properties["metadata"] == {"$ref": "ObjectMeta"}
    assert properties["kind"] == properties["apiVersion"] == {"type": "string"}


def test_fields_that_stand_in_their_parent_are_there() -> None:
    assert {"configMap", "secret", "name"} <= kinds.definitions()["Volume"]["properties"].keys()
    assert "volumeSource" not in kinds.definitions()["Volume"]["properties"]
    assert kinds.definitions()["Probe"]["properties"]["httpGet"] == {"$ref": "HTTPGetAction"}


def test_a_custom_kind_keeps_its_own_schema_but_for_the_metadata() -> None:
    own = {"type": "object", "properties": {"metadata": {"type": "object"}, "spec": {"type": "string"}}}
    made = kinds.root_schema("Thing", own, prefix="#/x/")
    assert made["properties"]["metadata"] == {"$ref": "#/x/ObjectMeta"}
    assert made["properties"]["spec"] == {"type": "string"}
    assert kinds.root_schema("Thing")["x-kubernetes-preserve-unknown-fields"] is True
