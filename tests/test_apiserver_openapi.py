"""OpenAPI: what kubectl looks for is in every form of it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from apimachinery.errors import NotAcceptable
from apimachinery.keys import Resource
from apiserver import openapi
from apiserver.builtins import BUILT_IN, REVIEWS
from apiserver.definitions import Catalogue, Definition

SCHEMA: dict[str, Any] = {"type": "object", "properties": {"spec": {"type": "object"}}}
LAMPS = Definition(Resource("example.com", "v1", "lamps", "Lamp", True), schema=SCHEMA, is_custom=True)
CATALOGUE = Catalogue([*BUILT_IN, *REVIEWS, LAMPS])
GVK = {"group": "example.com", "version": "v1", "kind": "Lamp"}
PATH = "/apis/example.com/v1/namespaces/{namespace}/lamps/{name}"


def load(*parts: str, accept: str = "application/json") -> Any:
    response = openapi.answer(parts, accept, CATALOGUE)
    assert response is not None
    assert isinstance(response.body, bytes)
    return json.loads(response.body)


def test_v2_says_that_a_patch_can_be_validated_and_rehearsed() -> None:
    patch = load("v2")["paths"][PATH]["patch"]
    assert patch["x-kubernetes-group-version-kind"] == GVK
    assert {"dryRun", "fieldValidation"} <= {parameter["name"] for parameter in patch["parameters"]}


def test_v3_has_a_document_per_group_version_with_the_schemas_of_custom_resources() -> None:
    index = load("v3")["paths"]
    assert index["apis/example.com/v1"] == {"serverRelativeURL": "/openapi/v3/apis/example.com/v1"}
    document = load("v3", "apis", "example.com", "v1")
    assert document["paths"][PATH]["patch"]["x-kubernetes-group-version-kind"] == GVK
    schema = document["components"]["schemas"]["com.example.v1.Lamp"]
    assert schema["x-kubernetes-group-version-kind"] == [GVK]
    assert schema["properties"]["spec"] == SCHEMA["properties"]["spec"]
    assert "/api/v1/nodes/{name}" in load("v3", "api", "v1")["paths"]


def test_kinds_that_cannot_be_patched_have_no_paths() -> None:
    assert not any("accessreviews" in path for path in load("v2")["paths"])


def test_what_is_not_there_is_none() -> None:
    assert openapi.answer(["v3", "apis", "example.com", "v9"], "", CATALOGUE) is None
    assert openapi.answer(["v1"], "", CATALOGUE) is None


def test_v3_is_json_only() -> None:
    with pytest.raises(NotAcceptable):
        openapi.answer(["v3"], "application/com.github.proto-openapi.spec.v3@v1.0+protobuf", CATALOGUE)


def fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The length-delimited fields of a protobuf message, read independently of how they are written."""
    place = 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = data[place]
            place += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while place < len(data):
        tag = varint()
        assert tag & 7 == 2
        size = varint()
        yield tag >> 3, data[place : place + size]
        place += size
    assert place == len(data)


def test_the_protobuf_form_says_the_same_as_the_json_form() -> None:
    response = openapi.answer(["v2"], openapi.PROTOBUF_ASKED, CATALOGUE)
    assert response is not None
    assert isinstance(response.body, bytes)
    document = dict(fields(response.body))
    assert document[1] == b"2.0"
    paths = {}
    for number, item in fields(document[8]):
        assert number == 2
        named = dict(fields(item))
        operation = dict(fields(named[2]))[8]
        parameters = []
        for field, value in fields(operation):
            if field == 8:
                query = dict(fields(dict(fields(dict(fields(dict(fields(value))[1]))[2]))[3]))
                parameters.append(query[4].decode())
        extension = dict(fields(dict(fields(operation))[13]))
        assert extension[1] == b"x-kubernetes-group-version-kind"
        paths[named[1].decode()] = (parameters, dict(fields(extension[2]))[2].decode())
    expected = load("v2")["paths"]
    assert set(paths) == set(expected)
    parameters, kind = paths[PATH]
    assert parameters == [parameter["name"] for parameter in expected[PATH]["patch"]["parameters"]]
    assert json.loads(kind) == GVK
