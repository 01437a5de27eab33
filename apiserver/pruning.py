"""
Values cut and filled to a structural schema: what JSON Schema does not know and custom resources live by.

Invariants
    prune and default are idempotent
    apiVersion, kind and metadata of the whole object, and of objects embedded in it, are never touched

Pure, and needs no library: views of other versions are made with it where nothing is validated.
"""

import copy
from collections.abc import Iterator, Mapping

from apimachinery.objects import JSON

ROOT_FIELDS = ("apiVersion", "kind", "metadata")
PRESERVE = "x-kubernetes-preserve-unknown-fields"


def unknown_fields(body: Mapping[str, JSON], schema: Mapping[str, JSON]) -> list[str]:
    """The paths of the fields that `prune` would cut off."""
    return list(_unknown(dict(body), schema, "", root=True, cut=False))


def prune(body: dict[str, JSON], schema: Mapping[str, JSON]) -> None:
    """Cut off what the schema does not know."""
    for _ in _unknown(body, schema, "", root=True, cut=True):
        pass


def default(value: JSON, schema: JSON, *, root: bool = True) -> None:
    """
    Fill in defaults where a field is missing, or null without being allowed to.

    A null that is not allowed and has no default goes, as if it had not been said.
    """
    if not isinstance(schema, Mapping):
        return
    if isinstance(value, list):
        for item in value:
            default(item, schema.get("items"), root=False)
    elif isinstance(value, dict):
        properties = schema.get("properties")
        for name, below in properties.items() if isinstance(properties, Mapping) else ():
            if not isinstance(below, Mapping) or (root and name in ROOT_FIELDS):
                continue
            is_null = name in value and value[name] is None and not below.get("nullable")
            if "default" in below and (is_null or name not in value):
                value[name] = copy.deepcopy(below["default"])
            elif is_null:
                del value[name]
        for name, item in value.items():
            default(item, schema_of(schema, name), root=False)


def schema_of(schema: Mapping[str, JSON], name: str) -> JSON:
    """The schema for a field; True where anything goes, None where the field is unknown."""
    properties = schema.get("properties")
    if isinstance(properties, Mapping) and name in properties:
        return properties[name]
    extra = schema.get("additionalProperties")
    if isinstance(extra, Mapping) or extra is True:
        return extra
    return True if schema.get(PRESERVE) else None


def _unknown(value: JSON, schema: JSON, path: str, *, root: bool, cut: bool) -> Iterator[str]:
    if not isinstance(schema, Mapping):
        return
    if isinstance(value, list):
        for place, item in enumerate(value):
            yield from _unknown(item, schema.get("items"), f"{path}[{place}]", root=False, cut=cut)
    elif isinstance(value, dict):
        root = root or bool(schema.get("x-kubernetes-embedded-resource"))
        for name in list(value):
            if root and name in ROOT_FIELDS:
                continue
            place_of = f"{path}.{name}" if path else name
            below = schema_of(schema, name)
            if below is None:
                yield place_of
                if cut:
                    del value[name]
            else:
                yield from _unknown(value[name], below, place_of, root=False, cut=cut)
