"""
What is known of a kind that is served: its names, its columns, its fields to select by, its schema.

Built-in kinds are data in `apiserver.builtins`; others are read from CustomResourceDefinitions, whole
ones in the embedded apiserver and reduced ones (no schemas) at the edge. A Catalogue is what a server
serves at one moment; when a definition comes or goes, a new Catalogue takes the old one's place.

Invariants
    a Catalogue never changes after it was made
    from_crd never raises: a definition with a hole in it defines less
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from apimachinery.keys import Resource
from apimachinery.objects import JSON, lookup

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
READ_VERBS = ("get", "list", "watch")


@dataclass(frozen=True, slots=True)
class Column:
    """A printer column of a CustomResourceDefinition version (additionalPrinterColumns)."""

    name: str
    type: str
    """ "string", "integer", "number", "boolean" or "date"."""
    json_path: str
    """The subset that Kubernetes allows here, for example ".spec.nodeName"."""
    description: str = ""
    format: str = ""
    priority: int = 0
    """0 shows always, more only with `kubectl get -o wide`."""


@dataclass(frozen=True, slots=True)
class Subresource:
    """What can be asked below an object of a kind, beside its status."""

    name: str
    """For example "scale"."""
    group: str
    version: str
    kind: str
    """Of what is asked and answered there."""
    verbs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ScalePaths:
    """Where a kind keeps what its scale subresource shows; dotted paths such as "spec.replicas"."""

    spec: str
    status: str
    selector: str = ""


@dataclass(frozen=True, slots=True)
class Definition:
    """One kind in one version."""

    resource: Resource
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    singular_name: str = ""
    verbs: tuple[str, ...] = ALL_VERBS
    has_status: bool = False
    """The status subresource: a plain write leaves `status` alone, a write to /status leaves the rest alone."""
    scale: ScalePaths | None = None
    """For the scale subresource; None where there is none."""
    has_tokens: bool = False
    """The token subresource: a TokenRequest is created there and answered, nothing is stored."""
    columns: tuple[Column, ...] = ()
    selectable: tuple[str, ...] = ()
    """Dotted paths for field selectors, besides metadata.name and metadata.namespace."""
    schema: Mapping[str, JSON] | None = None
    """openAPIV3Schema; None where there is none to hold objects to."""
    is_custom: bool = False
    """From a CustomResourceDefinition: no strategic merge patch, and generation counts always."""
    subresources: tuple[Subresource, ...] = ()
    """Others than the status, where the server knows any."""
    stored_version: str = ""
    """The version objects are kept in; "" for this one. Where it is another, this one is a view of it."""
    stored_schema: Mapping[str, JSON] | None = None
    """That version's openAPIV3Schema, where it is another version."""

    @property
    def is_view(self) -> bool:
        """Whether objects are kept in another version of the kind."""
        return bool(self.stored_version) and self.stored_version != self.resource.version

    @property
    def has_approval(self) -> bool:
        """Whether there is a place below the objects where it is written that they are granted, and nothing else."""
        return any(below.name == "approval" for below in self.subresources)

    @property
    def singular(self) -> str:
        return self.singular_name or self.resource.kind.lower()

    @property
    def list_kind(self) -> str:
        return f"{self.resource.kind}List"


class Catalogue:
    """What is served: definitions by their place in the API."""

    def __init__(self, definitions: Iterable[Definition]) -> None:
        """A definition that comes later takes the place of an earlier one with the same group, version and plural."""
        self._by_place = {
            (found.resource.group, found.resource.version, found.resource.plural): found for found in definitions
        }

    def __iter__(self) -> Iterator[Definition]:
        return iter(self._by_place.values())

    def __len__(self) -> int:
        return len(self._by_place)

    def resolve(self, group: str, version: str, plural: str) -> Resource | None:
        """As `apiserver.requests.parse` wants it."""
        found = self._by_place.get((group, version, plural))
        return None if found is None else found.resource

    def of(self, resource: Resource) -> Definition | None:
        return self._by_place.get((resource.group, resource.version, resource.plural))

    def by_kind(self, group: str, version: str, kind: str) -> Definition | None:
        """The definition a body's apiVersion and kind mean."""
        for found in self._by_place.values():
            resource = found.resource
            if (resource.group, resource.version, resource.kind) == (group, version, kind):
                return found
        return None

    def place_of(self, resource: Resource) -> Resource:
        """The resource under which the objects of one that is served are kept: itself, or its stored version."""
        found = self.of(resource)
        version = found.stored_version if found is not None else ""
        return resource._replace(version=version) if version else resource

    def places(self) -> list[Resource]:
        """All resources that objects are kept under."""
        return list(dict.fromkeys(self.place_of(found.resource) for found in self))

    def groups(self) -> dict[str, list[str]]:
        """Versions by group, the core group ("") first, versions in the order of `version_order`."""
        ordered = sorted(self, key=lambda found: (found.resource.group, version_order(found.resource.version)))
        groups: dict[str, list[str]] = {}
        for found in ordered:
            versions = groups.setdefault(found.resource.group, [])
            if found.resource.version not in versions:
                versions.append(found.resource.version)
        return groups

    def in_version(self, group: str, version: str) -> list[Definition]:
        return [found for found in self if (found.resource.group, found.resource.version) == (group, version)]


_VERSION = re.compile(r"v([1-9][0-9]*)(?:(alpha|beta)([1-9][0-9]*))?")


def version_order(version: str) -> tuple[int, int, int, str]:
    """Sorts versions as clients prefer them: v2, v1, v2beta1, v1alpha1, then others by name."""
    match = _VERSION.fullmatch(version)
    if match is None:
        return 3, 0, 0, version
    major, stage, minor = match.groups()
    return {None: 0, "beta": 1, "alpha": 2}[stage], -int(major), -int(minor or 0), version


def from_crd(crd: Mapping[str, JSON]) -> list[Definition]:
    """
    What a CustomResourceDefinition defines: one Definition per served version.

    crd: the body, whole or as an edge holds it. Names come from spec.names (the applied wish), which is
    what status.acceptedNames becomes once there is no conflict; judging conflicts is the writer's task.
    """
    spec = _mapping(crd.get("spec"))
    names = _mapping(spec.get("names"))
    group, plural, kind = spec.get("group"), names.get("plural"), names.get("kind")
    if not (isinstance(group, str) and isinstance(plural, str) and isinstance(kind, str) and group and plural and kind):
        return []
    found: list[Definition] = []
    for version in _mappings(spec.get("versions")):
        if not isinstance(version.get("name"), str) or not version.get("served", False):
            continue
        subresources = _mapping(version.get("subresources"))
        schema = lookup(version, "schema.openAPIV3Schema")
        found.append(
            Definition(
                resource=Resource(group, version["name"], plural, kind, spec.get("scope") != "Cluster"),
                short_names=_texts(names.get("shortNames")),
                categories=_texts(names.get("categories")),
                singular_name=str(names.get("singular") or ""),
                has_status="status" in subresources,
                scale=_scale(subresources.get("scale")),
                columns=tuple(map(_column, _mappings(version.get("additionalPrinterColumns")))),
                selectable=tuple(
                    str(entry.get("jsonPath") or "").lstrip(".") for entry in _mappings(version.get("selectableFields"))
                ),
                schema=schema if isinstance(schema, Mapping) else None,
                is_custom=True,
            )
        )
    return found


def _scale(value: JSON) -> ScalePaths | None:
    names = ("specReplicasPath", "statusReplicasPath", "labelSelectorPath")
    spec, status, selector = (str(_mapping(value).get(name) or "").removeprefix(".") for name in names)
    return ScalePaths(spec, status, selector) if spec and status else None


def _column(entry: Mapping[str, JSON]) -> Column:
    priority = entry.get("priority")
    return Column(
        name=str(entry.get("name") or ""),
        type=str(entry.get("type") or "string"),
        json_path=str(entry.get("jsonPath") or ""),
        description=str(entry.get("description") or ""),
        format=str(entry.get("format") or ""),
        priority=priority if isinstance(priority, int) else 0,
    )


def _mapping(value: JSON) -> Mapping[str, JSON]:
    return value if isinstance(value, Mapping) else {}


def _mappings(value: JSON) -> Sequence[Mapping[str, JSON]]:
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []


def _texts(value: JSON) -> tuple[str, ...]:
    return tuple(entry for entry in value if isinstance(entry, str)) if isinstance(value, list) else ()
