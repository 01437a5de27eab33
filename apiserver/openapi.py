"""
OpenAPI documents: as much as kubectl needs to trust the server with validation and dry runs.

kubectl looks up in them whether a kind's PATCH knows `fieldValidation` and `dryRun`; what the fields of
built-in kinds are it knows itself, and those of custom resources are here from their schemas. Older
kubectl accepts version 2 in protobuf only, so that form is written too: a few messages, by hand.

Pure.
"""

from collections.abc import Iterator, Sequence

from apimachinery.errors import NotAcceptable
from apimachinery.objects import JSON
from apiserver.definitions import Catalogue, Definition
from apiserver.messages import Response, json_response

PROTOBUF_ASKED = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
PROTOBUF_GIVEN = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"  # no media type may have an "@"
_GVK = "x-kubernetes-group-version-kind"
_QUERY = ("dryRun", "fieldManager", "fieldValidation", "force")
_TITLE = {"title": "Kubernetes", "version": "unversioned"}


def answer(parts: Sequence[str], accept: str, catalogue: Catalogue) -> Response | None:
    """The document under /openapi/..., None where there is none."""
    match parts:
        case ["v2"]:
            if PROTOBUF_ASKED in accept.replace(" ", ""):
                return Response(200, [("content-type", PROTOBUF_GIVEN)], v2_protobuf(catalogue))
            return json_response(200, v2(catalogue))
        case ["v3", *_] if accept and not any(kind in accept for kind in ("json", "*/*", "application/*")):
            raise NotAcceptable("only the following media types are accepted: application/json")
        case ["v3"]:
            return json_response(200, v3_index(catalogue))
        case ["v3", "api", version]:
            return _v3(catalogue, "", version)
        case ["v3", "apis", group, version]:
            return _v3(catalogue, group, version)
    return None


def v2(catalogue: Catalogue) -> JSON:
    """The Swagger document, with paths but without definitions."""
    parameters = [{"in": "query", "name": name, "type": "string", "uniqueItems": True} for name in _QUERY]
    paths = {
        path: {"patch": {_GVK: _kind(definition), "parameters": parameters, "responses": {}}}
        for path, definition in _object_paths(catalogue)
    }
    return {"swagger": "2.0", "info": _TITLE, "paths": paths, "definitions": {}}


def v3_index(catalogue: Catalogue) -> JSON:
    """Where the documents of the group versions are."""
    places = (
        f"apis/{group}/{version}" if group else f"api/{version}"
        for group, versions in catalogue.groups().items()
        for version in versions
    )
    return {"paths": {place: {"serverRelativeURL": f"/openapi/v3/{place}"} for place in places}}


def _v3(catalogue: Catalogue, group: str, version: str) -> Response | None:
    definitions = catalogue.in_version(group, version)
    return json_response(200, v3(definitions)) if definitions else None


def v3(definitions: Sequence[Definition]) -> JSON:
    """The document of one group version."""
    parameters = [{"in": "query", "name": name, "schema": {"type": "string"}} for name in _QUERY]
    paths: dict[str, JSON] = {}
    schemas: dict[str, JSON] = {}
    for path, definition in _object_paths(definitions):
        name = _schema_name(definition)
        content = {"schema": {"$ref": f"#/components/schemas/{name}"}}
        responses = {"200": {"description": "OK", "content": {"application/json": content}}}
        marked: dict[str, JSON] = {_GVK: _kind(definition)}
        paths[path] = {
            "get": marked | {"responses": responses},
            "patch": marked | {"parameters": parameters, "responses": responses},
        }
        schemas[name] = dict(definition.schema or {"type": "object"}) | {_GVK: [_kind(definition)]}
    return {"openapi": "3.0.0", "info": _TITLE, "paths": paths, "components": {"schemas": schemas}}


def _object_paths(definitions: Catalogue | Sequence[Definition]) -> Iterator[tuple[str, Definition]]:
    for definition in definitions:
        if "patch" in definition.verbs:
            yield definition.resource.path("{namespace}", "{name}"), definition


def _kind(definition: Definition) -> dict[str, str]:
    resource = definition.resource
    return {"group": resource.group, "version": resource.version, "kind": resource.kind}


def _schema_name(definition: Definition) -> str:
    resource = definition.resource
    reversed_group = reversed((resource.group or "core.api.k8s.io").split("."))
    return ".".join((*reversed_group, resource.version, resource.kind))


# Field numbers of gnostic's OpenAPIv2.proto. A message is the concatenation of its fields.


def v2_protobuf(catalogue: Catalogue) -> bytes:
    """The same as `v2`, as a gnostic openapi.v2.Document."""
    parameters = b"".join(map(_query_parameter, _QUERY))
    paths = b""
    for path, definition in _object_paths(catalogue):
        kind = "".join(f'{name}: "{value}"\n' for name, value in _kind(definition).items())
        extension = _field(1, _GVK) + _field(2, _field(2, kind))  # NamedAny{name, Any{yaml}}
        operation = parameters + _field(13, extension)
        paths += _field(2, _field(1, path) + _field(2, _field(8, operation)))  # NamedPathItem{name, PathItem{patch}}
    info = _field(1, _TITLE["title"]) + _field(2, _TITLE["version"])
    return _field(1, "2.0") + _field(2, info) + _field(8, paths) + _field(9, b"")


def _query_parameter(name: str) -> bytes:
    schema = _field(2, "query") + _field(4, name) + _field(6, "string")
    # Operation.parameters{ParametersItem.parameter{Parameter.non_body_parameter{NonBodyParameter.query}}}
    return _field(8, _field(1, _field(2, _field(3, schema))))


def _field(number: int, value: bytes | str) -> bytes:
    """A length-delimited protobuf field."""
    content = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
