"""
Structural schemas: what a custom resource must look like, what it gets by default, what is cut off it.

The rules are checked by `jsonschema`; this module translates the OpenAPI dialect of Kubernetes to it and
its errors back into the sentences that kubectl users know. Pruning and defaulting, which JSON Schema
does not know, are walks of their own (`apiserver.pruning`).

Invariants
    prune and default are idempotent; what validates before a default is filled in validates after it,
    as long as the default itself does (the definition is checked for that)
    apiVersion, kind and metadata of the whole object are never touched: they are not the schema's

Pure. Rules in CEL (x-kubernetes-validations) are not evaluated.
"""

import base64
import ipaddress
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import partial
from typing import cast

import jsonschema
from jsonschema.protocols import Validator

from apimachinery.errors import Cause
from apimachinery.objects import JSON
from apiserver import pruning
from apiserver.compiled import EMBEDDED, INT_OR_STRING, LIST_KEYS, LIST_TYPE, compiled
from apiserver.pruning import PRESERVE, ROOT_FIELDS

MAX_CAUSES = 20  # more than anybody reads; a list of 10,000 wrong items shall not make 10,000 sentences
MAX_VALUE_SHOWN = 200
MAX_DEPTH = 64  # of a schema; the deepest in use (pod templates) has about 20

_MAP_TYPE = "x-kubernetes-map-type"
_COPIED = (
    "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum", "maxLength", "minLength", "pattern", "format",
    "maxItems", "minItems", "uniqueItems", "multipleOf", "maxProperties", "minProperties", "required", "enum",
)  # fmt: skip
KEYWORDS = frozenset(
    (
        *_COPIED, "$ref", "$schema", "additionalItems", "additionalProperties", "allOf", "anyOf", "default",
        "definitions", "dependencies", "description", "example", "externalDocs", "id", "items", "not", "nullable",
        "oneOf", "patternProperties", "properties", "title", "type",
    )
)  # fmt: skip
"""What JSONSchemaProps knows, besides x-kubernetes-*."""
TYPES = ("array", "boolean", "integer", "number", "object", "string")


class Schema:
    """One version's openAPIV3Schema, made ready."""

    def __init__(self, schema: Mapping[str, JSON]) -> None:
        """Raises jsonschema.SchemaError or ValueError for what `definition_causes` would have found."""
        self._schema = schema
        self._validator = _validator_of(_translated(schema, root=True))
        self._sound = compiled(
            schema,
            lambda part: _validator_of(_translated(part)).is_valid,
            {name: partial(_FORMATS.conforms, format=name) for name in _FORMATS.checkers},
        )

    def is_sound(self, body: Mapping[str, JSON]) -> bool:
        """Whether there is nothing to prune, to default or to say; False also where finding out takes the long way."""
        return self._sound(body)

    def unknown_fields(self, body: Mapping[str, JSON]) -> list[str]:
        """The paths of the fields that `prune` would cut off."""
        return pruning.unknown_fields(body, self._schema)

    def prune(self, body: dict[str, JSON]) -> None:
        """Cut off what the schema does not know."""
        pruning.prune(body, self._schema)

    def default(self, body: dict[str, JSON]) -> None:
        """Fill in defaults where a field is missing, or null without being allowed to."""
        pruning.default(body, self._schema)

    def causes(self, body: Mapping[str, JSON]) -> list[Cause]:
        """What is wrong, at most MAX_CAUSES; [] when nothing is. Each `message` is complete without the field."""
        causes: list[Cause] = []
        for error in self._validator.iter_errors(body):
            causes += _causes(error)
            if len(causes) >= MAX_CAUSES:
                break
        if not causes:
            causes += _list_causes(body, self._schema, "")
        return sorted(set(causes[:MAX_CAUSES]))


def _validator_of(schema: Mapping[str, JSON]) -> Validator:
    return cast(Validator, jsonschema.Draft4Validator(schema, format_checker=_FORMATS))


def definition_causes(schema: JSON, path: str) -> list[Cause]:
    """What is wrong with a schema itself, as a CustomResourceDefinition at `path` brings it."""
    causes: list[Cause] = []
    _check_definition(schema, path, causes, depth=0, is_structure=True)
    if not causes:
        try:
            jsonschema.Draft4Validator.check_schema(_translated(schema, root=True))
            causes += _wrong_defaults(schema, path)
        except (jsonschema.SchemaError, ValueError, TypeError) as exc:
            message = exc.message if isinstance(exc, jsonschema.SchemaError) else str(exc)
            causes.append(Cause(path, "FieldValueInvalid", f"Invalid value: {message}"))
    return causes[:MAX_CAUSES]


def _check_definition(schema: JSON, path: str, causes: list[Cause], *, depth: int, is_structure: bool) -> None:
    if not isinstance(schema, Mapping) or depth > MAX_DEPTH:
        causes.append(Cause(path, "FieldValueInvalid", "Invalid value: must be a schema, which is an object"))
        return
    kind = schema.get("type")
    if kind is None or kind == "":
        if is_structure and not (schema.get(INT_OR_STRING) or schema.get(PRESERVE)):
            causes.append(
                Cause(f"{path}.type", "FieldValueRequired", "Required value: must not be empty for specified fields")
            )
    elif kind not in TYPES:
        supported = ", ".join(f'"{name}"' for name in TYPES)
        causes.append(
            Cause(
                f"{path}.type",
                "FieldValueNotSupported",
                f"Unsupported value: {_shown(kind)}: supported values: {supported}",
            )
        )
    if depth == 0 and kind != "object":
        causes.append(
            Cause(f"{path}.type", "FieldValueInvalid", f"Invalid value: {_shown(kind)}: must be object at the root")
        )
    if isinstance(pattern := schema.get("pattern"), str):
        try:
            re.compile(pattern)
        except re.error as exc:
            message = f"Invalid value: {_shown(pattern)}: must be a valid regular expression, but isn't: {exc}"
            causes.append(Cause(f"{path}.pattern", "FieldValueInvalid", message))
    causes += _extension_causes(schema, path)
    for place, below, is_field in _children(schema, path):
        _check_definition(below, place, causes, depth=depth + 1, is_structure=is_structure and is_field)


def _extension_causes(schema: Mapping[str, JSON], path: str) -> Iterator[Cause]:
    """What is wrong with the x-kubernetes-* fields that say how lists and objects are merged and kept."""
    for name, allowed in ((LIST_TYPE, ("atomic", "map", "set")), (_MAP_TYPE, ("atomic", "granular"))):
        given = schema.get(name)
        if given is not None and given not in allowed:
            supported = ", ".join(f'"{value}"' for value in allowed)
            message = f"Unsupported value: {_shown(given)}: supported values: {supported}"
            yield Cause(f"{path}.{name}", "FieldValueNotSupported", message)
    if schema.get(LIST_TYPE) is not None and schema.get("type") != "array":
        message = f"Invalid value: {_shown(schema.get('type'))}: must be array if {LIST_TYPE} is specified"
        yield Cause(f"{path}.type", "FieldValueInvalid", message)
    keys = schema.get(LIST_KEYS)
    if schema.get(LIST_TYPE) == "map" and not keys:
        message = f"Required value: must not be empty if {LIST_TYPE} is map"
        yield Cause(f"{path}.{LIST_KEYS}", "FieldValueRequired", message)
    elif keys and schema.get(LIST_TYPE) != "map":
        message = f"Invalid value: {_shown(schema.get(LIST_TYPE))}: must be map if {LIST_KEYS} is non-empty"
        yield Cause(f"{path}.{LIST_TYPE}", "FieldValueInvalid", message)
    items = schema.get("items")
    properties = items.get("properties") if isinstance(items, Mapping) else None
    for place, key in enumerate(keys if isinstance(keys, list) else ()):
        if not isinstance(properties, Mapping) or key not in properties:
            message = f"Invalid value: {_shown(key)}: entries in {LIST_KEYS} must all be names of item properties"
            yield Cause(f"{path}.{LIST_KEYS}[{place}]", "FieldValueInvalid", message)
    if schema.get(EMBEDDED):
        if schema.get("type") != "object":
            message = f"Invalid value: {_shown(schema.get('type'))}: must be object if {EMBEDDED} is true"
            yield Cause(f"{path}.type", "FieldValueInvalid", message)
        if not schema.get("properties") and not schema.get(PRESERVE):
            message = f"Required value: must not be empty if {EMBEDDED} is true without {PRESERVE}"
            yield Cause(f"{path}.properties", "FieldValueRequired", message)


def _children(schema: Mapping[str, JSON], path: str) -> Iterator[tuple[str, JSON, bool]]:
    """(path, schema, whether it describes a field and not a condition) of all schemas directly below one."""
    properties = schema.get("properties")
    for name, below in properties.items() if isinstance(properties, Mapping) else ():
        yield f"{path}.properties[{name}]", below, True
    if "items" in schema:
        yield f"{path}.items", schema["items"], True
    if not isinstance(schema.get("additionalProperties", True), bool):
        yield f"{path}.additionalProperties", schema["additionalProperties"], True
    for keyword in ("allOf", "anyOf", "oneOf"):
        alternatives = schema.get(keyword)
        for place, below in enumerate(alternatives if isinstance(alternatives, list) else ()):
            yield f"{path}.{keyword}[{place}]", below, False
    if "not" in schema:
        yield f"{path}.not", schema["not"], False


def unknown_keywords(schema: JSON, path: str) -> Iterator[str]:
    """The paths of fields in a schema that no schema has, such as a misspelt keyword."""
    if not isinstance(schema, Mapping):
        return
    for name in schema:
        if name not in KEYWORDS and not name.startswith("x-kubernetes-"):
            yield f"{path}.{name}"
    for place, below, _ in _children(schema, path):
        yield from unknown_keywords(below, place.replace("[", ".").replace("]", ""))


def _wrong_defaults(schema: Mapping[str, JSON], path: str) -> Iterator[Cause]:
    for place, below, is_field in _children(schema, path):
        if is_field and isinstance(below, Mapping):
            if "default" in below and not _validator_of(_translated(below)).is_valid(below["default"]):
                message = f"Invalid value: {_shown(below['default'])}: must be valid by its own schema"
                yield Cause(f"{place}.default", "FieldValueInvalid", message)
            yield from _wrong_defaults(below, place)


# ---- to JSON Schema, draft 4, which is what OpenAPI 3.0 grew from


def _translated(schema: Mapping[str, JSON], *, root: bool = False, depth: int = 0) -> dict[str, JSON]:
    if depth > MAX_DEPTH:
        raise ValueError(f"the schema is nested more than {MAX_DEPTH} deep")
    out = {name: schema[name] for name in _COPIED if name in schema}
    if schema.get(INT_OR_STRING):
        out["type"] = ["integer", "string"]
    elif schema.get("type"):
        out["type"] = [schema["type"]]
    if schema.get("nullable") and "type" in out:
        out["type"] = [*out["type"], "null"]
        if "enum" in out:
            out["enum"] = [*out["enum"], None]

    def below(value: JSON) -> dict[str, JSON]:
        return _translated(value, depth=depth + 1) if isinstance(value, Mapping) else {}

    if isinstance(properties := schema.get("properties"), Mapping):
        # The object's own metadata is judged by other rules than the schema's.
        out["properties"] = {
            name: below(value) for name, value in properties.items() if not (root and name in ROOT_FIELDS)
        }
    if "items" in schema:
        out["items"] = below(schema["items"])
    extra = schema.get("additionalProperties")
    if isinstance(extra, Mapping):
        out["additionalProperties"] = below(extra)
    for keyword in ("allOf", "anyOf", "oneOf"):
        if isinstance(alternatives := schema.get(keyword), list) and alternatives:
            out[keyword] = [below(value) for value in alternatives]
    if "not" in schema:
        out["not"] = below(schema["not"])
    return out


def _is_date_time(text: str) -> bool:
    return "T" in text.upper() and datetime.fromisoformat(text).tzinfo is not None


def _is_date(text: str) -> bool:
    return len(text) == 10 and bool(datetime.fromisoformat(text))


# Formats of other names mean nothing, as in Kubernetes. A predicate may also raise ValueError.
_TEXT_FORMATS: Mapping[str, Callable[[str], bool]] = {
    "byte": lambda text: base64.b64decode(text, validate=True) is not None,
    "date": _is_date,
    "date-time": _is_date_time,
    "ipv4": lambda text: bool(ipaddress.IPv4Address(text)),
    "ipv6": lambda text: bool(ipaddress.IPv6Address(text)),
}
_INTEGER_FORMATS = {"int32": 31, "int64": 63}


def _format_checker() -> jsonschema.FormatChecker:
    def of_text(predicate: Callable[[str], bool]) -> Callable[[object], bool]:
        return lambda value: not isinstance(value, str) or predicate(value)

    def of_integer(bits: int) -> Callable[[object], bool]:
        return lambda value: not isinstance(value, int) or -(1 << bits) <= value < 1 << bits

    checker = jsonschema.FormatChecker(formats=())
    for name, predicate in _TEXT_FORMATS.items():
        checker.checks(name, raises=ValueError)(of_text(predicate))
    for name, bits in _INTEGER_FORMATS.items():
        checker.checks(name)(of_integer(bits))
    return checker


_FORMATS = _format_checker()


# ---- back to Kubernetes' sentences


def _causes(error: "jsonschema.ValidationError") -> list[Cause]:
    field = _path(error.absolute_path)
    value: JSON = error.instance
    limit: JSON = error.validator_value
    shown = _shown(value)

    def invalid(text: str) -> list[Cause]:
        return [Cause(field, "FieldValueInvalid", f"Invalid value: {shown}: {field} in body {text}")]

    def combined(text: str) -> list[Cause]:
        return [Cause(field, "FieldValueInvalid", f'Invalid value: {shown}: "{field}" {text}')]

    match error.validator:
        case "type":
            wanted = next(iter(limit)) if isinstance(limit, list) else limit
            actual = _type_of(value)
            message = f'Invalid value: "{actual}": {field} in body must be of type {wanted}: "{actual}"'
            return [Cause(field, "FieldValueTypeInvalid", message)]
        case "required":
            missing = [name for name in limit if name not in value]
            below = f"{field}." if error.absolute_path else ""
            return [Cause(f"{below}{name}", "FieldValueRequired", "Required value") for name in missing]
        case "enum":
            values = ", ".join(_shown(choice) for choice in limit if choice is not None)
            return [Cause(field, "FieldValueNotSupported", f"Unsupported value: {shown}: supported values: {values}")]
        case "minimum":
            strict = isinstance(error.schema, Mapping) and error.schema.get("exclusiveMinimum")
            return invalid(f"should be greater than {'' if strict else 'or equal to '}{_shown(limit)}")
        case "maximum":
            strict = isinstance(error.schema, Mapping) and error.schema.get("exclusiveMaximum")
            return invalid(f"should be less than {'' if strict else 'or equal to '}{_shown(limit)}")
        case "minLength":
            return invalid(f"should be at least {limit} chars long")
        case "maxLength":
            return [Cause(field, "FieldValueTooLong", f"Too long: may not be longer than {limit}")]
        case "minItems":
            return invalid(f"should have at least {limit} items")
        case "maxItems":
            return [Cause(field, "FieldValueTooMany", f"Too many: {len(value)}: must have at most {limit} items")]
        case "pattern":
            return invalid(f"should match '{limit}'")
        case "format":
            return invalid(f"must be of type {limit}: {shown}")
        case "multipleOf":
            return invalid(f"should be a multiple of {limit}")
        case "oneOf":
            return combined("must validate one and only one schema (oneOf)")
        case "anyOf":
            return combined("must validate at least one schema (anyOf)")
        case "not":
            return combined("must not validate the schema (not)")
    return invalid(f"does not fit {error.validator}: {_shown(limit)}")


def _list_causes(value: JSON, schema: JSON, path: str) -> Iterator[Cause]:
    """Lists that are sets or maps by keys have no entry twice, and an object in an object says what it is."""
    if not isinstance(schema, Mapping):
        return
    if isinstance(value, list):
        keys = schema.get(LIST_KEYS)
        seen: set[str] = set()
        for place, item in enumerate(value):
            match schema.get(LIST_TYPE):
                case "map" if isinstance(item, Mapping) and isinstance(keys, list):
                    identity: JSON = {key: item.get(key) for key in keys}
                case "set":
                    identity = item
                case _:
                    identity = None
            if identity is not None:
                text = json.dumps(identity, sort_keys=True, ensure_ascii=False)
                if text in seen:
                    yield Cause(f"{path}[{place}]", "FieldValueDuplicate", f"Duplicate value: {_shown(identity)}")
                seen.add(text)
            yield from _list_causes(item, schema.get("items"), f"{path}[{place}]")
    elif isinstance(value, Mapping):
        for name in ("apiVersion", "kind") if schema.get(EMBEDDED) else ():
            if not value.get(name):
                yield Cause(f"{path}.{name}", "FieldValueRequired", "Required value: must not be empty")
        for name, item in value.items():
            below = pruning.schema_of(schema, name)
            if isinstance(below, Mapping):
                yield from _list_causes(item, below, f"{path}.{name}" if path else name)


def _path(parts: Iterable[str | int]) -> str:
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "<nil>"


def _type_of(value: JSON) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
    return "object"


def _shown(value: JSON) -> str:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return text if len(text) <= MAX_VALUE_SHOWN else text[: MAX_VALUE_SHOWN - 3] + "..."
