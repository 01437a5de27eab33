"""
OpenAPI documents: as much as kubectl needs to trust the server with validation and dry runs, and to explain.

kubectl looks up in them whether a kind's PATCH knows `fieldValidation` and `dryRun`, and what its fields are.
Older kubectl accepts version 2 in protobuf only, so that form is written too: a few messages, by hand.

Pure. The schemas (`apiserver.openapi_schemas`) are imported by the first who asks: on the edge few do.
"""

from collections.abc import Iterator, Sequence

from apimachinery.errors import NotAcceptable
from apimachinery.objects import JSON
from apiserver.definitions import Catalogue, Definition
from apiserver.messages import Response, json_response

PROTOBUF_ASKED = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
PROTOBUF_GIVEN = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"  # no media type may have an "@"
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
    """The Swagger document."""
    from apiserver import openapi_schemas as schemas

    parameters = [{"in": "query", "name": name, "type": "string", "uniqueItems": True} for name in _QUERY]
    paths = {
        path: {"patch": {schemas.GVK: schemas.kind_of(definition), "parameters": parameters, "responses": {}}}
        for path, definition in _object_paths(catalogue)
    }
    return {"swagger": "2.0", "info": _TITLE, "paths": paths, "definitions": schemas.v2(catalogue)}


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
    from apiserver import openapi_schemas as schemas

    parameters = [{"in": "query", "name": name, "schema": {"type": "string"}} for name in _QUERY]
    paths: dict[str, JSON] = {}
    for path, definition in _object_paths(definitions):
        content = {"schema": {"$ref": f"#/components/schemas/{schemas.name_of(definition)}"}}
        responses = {"200": {"description": "OK", "content": {"application/json": content}}}
        marked: dict[str, JSON] = {schemas.GVK: schemas.kind_of(definition)}
        paths[path] = {
            "get": marked | {"responses": responses},
            "patch": marked | {"parameters": parameters, "responses": responses},
        }
    components = {"schemas": schemas.v3(definitions)}
    return {"openapi": "3.0.0", "info": _TITLE, "paths": paths, "components": components}


def _object_paths(definitions: Catalogue | Sequence[Definition]) -> Iterator[tuple[str, Definition]]:
    for definition in definitions:
        if "patch" in definition.verbs:
            yield definition.resource.path("{namespace}", "{name}"), definition


# Field numbers of gnostic's OpenAPIv2.proto. A message is the concatenation of its fields.


def v2_protobuf(catalogue: Catalogue) -> bytes:
    """The same as `v2`, as a gnostic openapi.v2.Document."""
    from apiserver import openapi_schemas as schemas

    field = schemas.field
    parameters = b"".join(map(_query_parameter, _QUERY))
    paths = b""
    for path, definition in _object_paths(catalogue):
        operation = parameters + field(13, schemas.extension(schemas.GVK, schemas.kind_of(definition)))
        paths += field(2, field(1, path) + field(2, field(8, operation)))  # NamedPathItem{name, PathItem{patch}}
    info = field(1, _TITLE["title"]) + field(2, _TITLE["version"])
    definitions = b"".join(field(1, schemas.protobuf(*named)) for named in schemas.v2(catalogue).items())
    return field(1, "2.0") + field(2, info) + field(8, paths) + field(9, definitions)


def _query_parameter(name: str) -> bytes:
    from apiserver.openapi_schemas import field

    schema = field(2, "query") + field(4, name) + field(6, "string")
    # Operation.parameters{ParametersItem.parameter{Parameter.non_body_parameter{NonBodyParameter.query}}}
    return field(8, field(1, field(2, field(3, schema))))
