"""The table of protobuf fields is well-formed and complete for the kinds that are served."""

import re

from apiserver.builtins import BUILT_IN, REVIEWS
from apiserver.protobuf import messages

READ_ELSEWHERE = {"int", "bool", "string", "bytes", "double"} | {
    "Time", "MicroTime", "Quantity", "IntOrString", "ExtraValue", "FieldsV1",
}  # fmt: skip
JSON_ONLY = {"CustomResourceDefinition", "EndpointSlice"}
"""Kinds whose field numbers are not here: clients send them as JSON, or nobody does."""


def test_every_type_that_is_used_is_described() -> None:
    used = {field.type for fields in messages().values() for field in fields.values()}
    assert used - READ_ELSEWHERE <= set(messages())


def test_every_kind_that_is_served_is_described() -> None:
    assert {found.resource.kind for found in (*BUILT_IN, *REVIEWS)} - JSON_ONLY <= set(messages())


def test_names_are_those_of_json() -> None:
    for fields in messages().values():
        names = [field.name for field in fields.values()]
        assert len(names) == len(set(names))
        assert all(re.fullmatch(r"[A-Za-z][A-Za-z0-9]*", name) for name in names)


def test_metadata_is_field_one_of_every_kind_and_its_name_the_first_of_it() -> None:
    known = messages()
    assert (known["ConfigMap"][1].type, known["ObjectMeta"][1].name) == ("ObjectMeta", "name")
    for found in BUILT_IN:
        if found.resource.kind not in JSON_ONLY:
            assert known[found.resource.kind][1].type == "ObjectMeta"
