"""
The schemas in OpenAPI documents: of whole kinds, and of all that these are made of.

`kubectl explain` reads them, old clients validate with them, and patches of built-in kinds are made by what
they say of lists. Version 2 of OpenAPI knows less than custom resources may say, so there they are cut to
what it knows, as kube-apiserver cuts them: rather no type than one that refuses what is allowed.

Pure.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from apimachinery.objects import JSON, canonical
from apiserver import kinds
from apiserver.definitions import Definition
from apiserver.pruning import PRESERVE

GVK = "x-kubernetes-group-version-kind"
_PARTS = "io.k8s.api."  # before the names of what kinds are made of; clients show what is behind the last dot
_INT_OR_STRING = "x-kubernetes-int-or-string"
_V2_COPIED = ("description", "format", "required", "type")


def kind_of(definition: Definition) -> dict[str, str]:
    """How a document says which kind something is about."""
    resource = definition.resource
    return {"group": resource.group, "version": resource.version, "kind": resource.kind}


def name_of(definition: Definition) -> str:
    """The name of a kind's schema in the document's components."""
    resource = definition.resource
    reversed_group = reversed((resource.group or "core.api.k8s.io").split("."))
    return ".".join((*reversed_group, resource.version, resource.kind))


def v3(definitions: Sequence[Definition]) -> dict[str, JSON]:
    """The components of version 3 that these kinds need, by name."""
    return _collected(definitions, "#/components/schemas/")


def v2(definitions: Iterable[Definition]) -> dict[str, JSON]:
    """The definitions of version 2 that these kinds need, by name."""
    return {name: _reduced(schema) for name, schema in _collected(definitions, "#/definitions/").items()}


def _collected(definitions: Iterable[Definition], prefix: str) -> dict[str, JSON]:
    found: dict[str, JSON] = {}
    wanted: list[str] = []
    for definition in definitions:
        own = definition.schema
        if own is None and definition.is_custom:
            own = kinds.OPEN
        whole = _referring(kinds.root_schema(definition.resource.kind, own), prefix, wanted)
        found[name_of(definition)] = whole | {GVK: [kind_of(definition)]}
    while wanted:
        name = wanted.pop()
        if _PARTS + name not in found:
            found[_PARTS + name] = _referring(kinds.definitions()[name], prefix, wanted)
    return found


def _referring(schema: JSON, prefix: str, wanted: list[str]) -> JSON:
    """The schema with references into this document. Adds the names of what it refers to."""
    if isinstance(schema, list):
        return [_referring(below, prefix, wanted) for below in schema]
    if not isinstance(schema, Mapping):
        return schema
    made = {name: _referring(below, prefix, wanted) for name, below in schema.items() if name != "$ref"}
    if isinstance(name := schema.get("$ref"), str):
        wanted.append(name)
        made["$ref"] = f"{prefix}{_PARTS}{name}"
    return made


def _reduced(schema: JSON) -> dict[str, JSON]:
    """A schema of version 3 as version 2 can say it."""
    if not isinstance(schema, Mapping):
        return {}
    made = {name: value for name, value in schema.items() if name.startswith("x-kubernetes-")}
    if "$ref" in schema:
        return made | {"$ref": schema["$ref"]}
    if schema.get(_INT_OR_STRING):
        return made | {"type": "string", "format": "int-or-string"}
    if schema.get("nullable") or (schema.get(PRESERVE) and GVK not in schema):
        return made | {name: schema[name] for name in ("description",) if name in schema}
    made |= {name: schema[name] for name in _V2_COPIED if name in schema}
    if isinstance(properties := schema.get("properties"), Mapping):
        made["properties"] = {name: _reduced(below) for name, below in properties.items()}
    if "items" in schema:
        made["items"] = _reduced(schema["items"])
    if isinstance(extra := schema.get("additionalProperties"), Mapping):
        made["additionalProperties"] = _reduced(extra)
    return made


# Field numbers of gnostic's OpenAPIv2.proto. A message is the concatenation of its fields.


def protobuf(name: str, schema: Mapping[str, JSON]) -> bytes:
    """A definition of version 2 as a NamedSchema."""
    return field(1, name) + field(2, b"".join(_schema_fields(schema)))


def _schema_fields(schema: Mapping[str, JSON]) -> Iterator[bytes]:
    for number, name in ((1, "$ref"), (2, "format"), (4, "description")):
        if schema.get(name):
            yield field(number, str(schema[name]))
    for name in schema.get("required") or ():
        yield field(19, str(name))
    if "additionalProperties" in schema:
        yield field(21, field(1, b"".join(_schema_fields(schema["additionalProperties"]))))
    if schema.get("type"):
        yield field(22, field(1, str(schema["type"])))
    if "items" in schema:
        yield field(23, field(1, b"".join(_schema_fields(schema["items"]))))
    if schema.get("properties"):
        yield field(25, b"".join(field(1, protobuf(name, below)) for name, below in schema["properties"].items()))
    for name, value in schema.items():
        if name.startswith("x-"):
            yield field(31, extension(name, value))


def extension(name: str, value: JSON) -> bytes:
    """A NamedAny. Its text is YAML, of which JSON is a part."""
    return field(1, name) + field(2, field(2, canonical(value)))


def field(number: int, value: bytes | str) -> bytes:
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
