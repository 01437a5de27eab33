"""
CustomResourceDefinitions as objects: what makes one acceptable, and the status that says it is served.

There is nothing to wait for here (no other server has to learn of it), so a definition that is accepted
is Established in the same write; only a clash of names with another kind keeps it from that.

Pure: the time is an argument.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from apimachinery.errors import Cause
from apimachinery.objects import JSON, lookup
from apiserver.definitions import Catalogue, Definition, from_crd
from apiserver.jsonpath import compile_path
from apiserver.schemas import definition_causes, unknown_keywords

_GROUP = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+")
_PLURAL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_VERSION = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_KIND = re.compile(r"[A-Za-z]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?")


def fill_in(crd: dict[str, JSON]) -> None:
    """The defaults of a definition's own fields."""
    spec = crd.get("spec")
    if not isinstance(spec, dict):
        return
    names = spec.get("names")
    if isinstance(names, dict) and isinstance(names.get("kind"), str):
        names.setdefault("singular", names["kind"].lower())
        names.setdefault("listKind", f"{names['kind']}List")
    spec.setdefault("conversion", {"strategy": "None"})


def causes_of(crd: Mapping[str, JSON]) -> list[Cause]:
    """What is wrong with a definition; [] when nothing is."""
    return list(_causes(crd))


def _causes(crd: Mapping[str, JSON]) -> Iterator[Cause]:
    group, plural = lookup(crd, "spec.group"), lookup(crd, "spec.names.plural")
    for path, pattern in (
        ("spec.group", _GROUP),
        ("spec.names.plural", _PLURAL),
        ("spec.names.kind", _KIND),
    ):
        value = lookup(crd, path)
        if not value:
            yield Cause(path, "FieldValueRequired", "Required value")
        elif not isinstance(value, str) or not pattern.fullmatch(value):
            yield Cause(path, "FieldValueInvalid", f'Invalid value: "{value}": must match {pattern.pattern}')
    name = lookup(crd, "metadata.name")
    if group and plural and name != f"{plural}.{group}":
        message = f'Invalid value: "{name}": must be spec.names.plural+"."+spec.group'
        yield Cause("metadata.name", "FieldValueInvalid", message)
    scope = lookup(crd, "spec.scope")
    if scope not in ("Cluster", "Namespaced"):
        kind = "FieldValueNotSupported" if scope else "FieldValueRequired"
        told = f'Unsupported value: "{scope}": supported values: "Cluster", "Namespaced"' if scope else "Required value"
        yield Cause("spec.scope", kind, told)
    if (strategy := lookup(crd, "spec.conversion.strategy")) not in (None, "None"):
        message = f'Unsupported value: "{strategy}": supported values: "None"; this server calls no webhooks'
        yield Cause("spec.conversion.strategy", "FieldValueNotSupported", message)
    yield from _version_causes(lookup(crd, "spec.versions"))


def _version_causes(versions: JSON) -> Iterator[Cause]:
    if not isinstance(versions, list) or not versions:
        yield Cause("spec.versions", "FieldValueRequired", "Required value: at least one version is needed")
        return
    stored = 0
    for place, version in enumerate(versions):
        path = f"spec.versions[{place}]"
        if not isinstance(version, Mapping):
            yield Cause(path, "FieldValueInvalid", "Invalid value: must be an object")
            continue
        stored += version.get("storage") is True
        name = version.get("name")
        if not isinstance(name, str) or not _VERSION.fullmatch(name):
            yield Cause(f"{path}.name", "FieldValueInvalid", f'Invalid value: "{name}": must be a version such as v1')
        for flag in ("served", "storage"):
            if not isinstance(version.get(flag), bool):
                yield Cause(f"{path}.{flag}", "FieldValueRequired", "Required value")
        schema = lookup(version, "schema.openAPIV3Schema")
        if schema is None:
            message = "Required value: schemas are required"
            yield Cause(f"{path}.schema.openAPIV3Schema", "FieldValueRequired", message)
        else:
            yield from definition_causes(schema, f"{path}.schema.openAPIV3Schema")
        yield from _column_causes(version.get("additionalPrinterColumns"), f"{path}.additionalPrinterColumns")
    if stored != 1:
        message = "Invalid value: must have exactly one version marked as storage version"
        yield Cause("spec.versions", "FieldValueInvalid", message)


def _column_causes(columns: JSON, path: str) -> Iterator[Cause]:
    for place, column in enumerate(columns if isinstance(columns, list) else ()):
        if not isinstance(column, Mapping) or not column.get("name") or not column.get("type"):
            yield Cause(f"{path}[{place}]", "FieldValueRequired", "Required value: name, type and jsonPath are needed")
            continue
        try:
            compile_path(str(column.get("jsonPath") or ""))
        except ValueError as exc:
            yield Cause(f"{path}[{place}].jsonPath", "FieldValueInvalid", f"Invalid value: {exc}")


def change_causes(crd: Mapping[str, JSON], current: Mapping[str, JSON]) -> list[Cause]:
    """
    What must not be changed in a definition, because the objects that are there were stored under it.

    Moving the storage version is allowed in Kubernetes and not yet here, where a key names the version.
    """
    causes = []
    for path in ("spec.scope", "spec.names.kind"):
        if lookup(crd, path) != lookup(current, path):
            message = f'Invalid value: "{lookup(crd, path)}": field is immutable'
            causes.append(Cause(path, "FieldValueInvalid", message))
    stored, held = stored_version(crd), stored_version(current)
    if stored != held:
        message = f'Forbidden: this server cannot move the storage version from "{held}" to "{stored}"'
        causes.append(Cause("spec.versions", "FieldValueForbidden", message))
    return causes


def stored_version(crd: Mapping[str, JSON]) -> str | None:
    """The version that a definition wants its objects stored in."""
    stored = _stored(crd)
    return None if stored is None else str(stored.get("name"))


def defined_by(crd: Mapping[str, JSON]) -> Iterator[Definition]:
    """What an established definition defines, with the version that all of it is stored in."""
    stored = _stored(crd) or {}
    schema = lookup(stored, "schema.openAPIV3Schema")
    for one in from_crd(crd):
        is_view = one.resource.version != stored.get("name") and isinstance(schema, Mapping)
        yield replace(one, stored_version=str(stored.get("name") or ""), stored_schema=schema if is_view else None)


def _stored(crd: Mapping[str, JSON]) -> Mapping[str, JSON] | None:
    versions = lookup(crd, "spec.versions")
    for version in versions if isinstance(versions, list) else ():
        if isinstance(version, Mapping) and version.get("storage") is True:
            return version
    return None


def unknown_fields(crd: Mapping[str, JSON]) -> list[str]:
    """Paths of misspelt keywords in the schemas."""
    versions = lookup(crd, "spec.versions")
    found: list[str] = []
    for place, version in enumerate(versions if isinstance(versions, list) else ()):
        schema = lookup(version, "schema.openAPIV3Schema")
        if schema is not None:
            found += unknown_keywords(schema, f"spec.versions[{place}].schema.openAPIV3Schema")
    return found


def establish(crd: dict[str, JSON], catalogue: Catalogue, now: str) -> None:
    """Write the status: accepted names and the conditions that `kubectl wait` looks for."""
    spec = crd["spec"]
    clash = _clash(crd, catalogue)
    before = {
        condition.get("type"): condition
        for condition in lookup(crd, "status.conditions") or []
        if isinstance(condition, Mapping)
    }

    def condition(kind: str, *, holds: bool, reason: str, message: str) -> dict[str, JSON]:
        status = "True" if holds else "False"
        held = before.get(kind, {})
        since = held.get("lastTransitionTime", now) if held.get("status") == status else now
        return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since}

    crd["status"] = {
        "acceptedNames": spec["names"] if not clash else {"plural": "", "kind": ""},
        "conditions": [
            condition(
                "NamesAccepted",
                holds=not clash,
                reason="MultipleNamesNotAllowed" if clash else "NoConflicts",
                message=clash or "no conflicts found",
            ),
            condition(
                "Established",
                holds=not clash,
                reason="NotAccepted" if clash else "InitialNamesAccepted",
                message="not all names are accepted" if clash else "the initial names have been accepted",
            ),
        ],
        "storedVersions": [version["name"] for version in spec["versions"] if version.get("storage")],
    }


def is_established(crd: Mapping[str, JSON]) -> bool:
    conditions = lookup(crd, "status.conditions")
    return any(
        isinstance(condition, Mapping) and (condition.get("type"), condition.get("status")) == ("Established", "True")
        for condition in (conditions if isinstance(conditions, list) else ())
    )


def _clash(crd: Mapping[str, JSON], catalogue: Catalogue) -> str:
    """Why the names cannot be had, "" when they can."""
    for mine in from_crd(crd):
        for other in catalogue:
            if other.resource.group != mine.resource.group:
                continue
            same_plural = other.resource.plural == mine.resource.plural
            if same_plural and not other.is_custom:
                return f'"{mine.resource.plural}" is a built-in resource'
            if not same_plural and other.resource.kind == mine.resource.kind:
                return f'"{mine.resource.kind}" is already in use by {other.resource.collection}'
    return ""
