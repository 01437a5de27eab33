"""
Writes as plans: what a create, an update or a delete would change, worked out against what there is.

A plan is made and committed by the storage's one writer, so nothing changes between looking and
writing, and `resourceVersion` checks are exact. A dry run is a plan that is not committed.

Invariants
    a plan never changes the bodies it was made from
    what a plan puts is valid: names, metadata and, where there is one, the schema were checked
    an update that changes nothing writes nothing, so that it makes no event and no new revision

Pure: time, uid and randomness come in as Facts.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from apimachinery.errors import AlreadyExists, ApiError, BadRequest, Cause, Conflict, Forbidden, NotFound
from apimachinery.keys import ObjectKey, Resource
from apimachinery.objects import JSON, Object, canonical
from apimachinery.resources import NAMESPACES
from apiserver import metadata
from apiserver.admission import Admission
from apiserver.definitions import Catalogue, Definition
from apiserver.metadata import Facts, metadata_of
from apiserver.requests import ApiRequest

PROTECTED_NAMESPACES = ("default", "kube-node-lease", "kube-system")
CRD_FINALIZER = "customresourcecleanup.apiextensions.k8s.io"


class View(Protocol):
    """What a plan may look at: the state all earlier plans have left."""

    def get(self, key: ObjectKey) -> Object | None: ...

    def all_of(self, resource: Resource, namespace: str = "") -> Sequence[Object]: ...

    def dependents(self, uid: str) -> Sequence[ObjectKey]:
        """Objects that name this uid among their owners."""

    def lives(self, uid: str) -> bool:
        """Whether there is an object with this uid."""

    @property
    def catalogue(self) -> Catalogue: ...


class Put(NamedTuple):
    """Store this body; its resourceVersion is set when it is committed."""

    key: ObjectKey
    body: dict[str, JSON]


class Remove(NamedTuple):
    """Remove the object; `body` is its last state, which watchers get."""

    key: ObjectKey
    body: dict[str, JSON]


class Plan(NamedTuple):
    """What to write, in order, and what to answer."""

    status: int
    writes: tuple[Put | Remove, ...]
    answer: Mapping[str, JSON] | None = None
    """None: the object of the first write, as it is once committed."""
    warnings: tuple[str, ...] = ()


Change = Callable[[dict[str, JSON]], dict[str, JSON]]
"""From a copy of the object as it is to what the client wants: a PUT returns its body, a PATCH applies itself."""


class DeleteOptions(NamedTuple):
    """metav1.DeleteOptions, as far as it matters here."""

    uid: str = ""
    resource_version: str = ""
    orphan: bool = False


def create(view: View, asked: ApiRequest, body: dict[str, JSON], facts: Facts, admission: Admission) -> Plan:
    """Make a new object of a client's body, which is taken over."""
    definition = _definition(view, asked.resource)
    _check_envelope(body, asked)
    _check_namespace(view, asked)
    _check_not_leaving(view, definition)
    metadata.stamp_new(body, definition, asked.namespace, facts)
    warnings = admission.admit(body, None, definition, view.catalogue, facts, asked.field_validation)
    key = ObjectKey(asked.resource, asked.namespace, metadata_of(body)["name"])
    if view.get(key) is not None:
        raise AlreadyExists(
            f'{key.resource.collection} "{key.name}" already exists',
            kind=key.resource.plural,
            group=key.resource.group,
            name=key.name,
        )
    return Plan(201, (Put(key, body),), warnings=warnings)


def update(view: View, asked: ApiRequest, change: Change, facts: Facts, admission: Admission) -> Plan:
    """Replace or patch an object, or its status."""
    definition = _definition(view, asked.resource)
    current = _held(view, asked.key)
    wanted = change(copy.deepcopy(current))
    _check_envelope(wanted, asked)
    _check_version(wanted, current, asked, unconditional=not definition.is_custom)
    if asked.subresource == "status":
        wanted = _with_status_of(current, wanted)
    else:
        if definition.has_status:
            _keep_status(wanted, current)
        metadata.keep_identity(wanted, current)
    metadata_of(wanted)["resourceVersion"] = metadata_of(current).get("resourceVersion")
    warnings = admission.admit(wanted, current, definition, view.catalogue, facts, asked.field_validation)
    if metadata.counts_generations(definition) and _wish(wanted, definition) != _wish(current, definition):
        metadata_of(wanted)["generation"] = int(metadata_of(current).get("generation") or 0) + 1
    if wanted == current:
        return Plan(200, (), answer=current, warnings=warnings)
    if metadata_of(wanted).get("deletionTimestamp") and not _is_held_back(wanted):
        return Plan(200, (Remove(asked.key, wanted),), warnings=warnings)
    return Plan(200, (Put(asked.key, wanted),), warnings=warnings)


def delete(view: View, key: ObjectKey, options: DeleteOptions, facts: Facts) -> Plan:
    """Remove an object, or mark it for removal where a finalizer or its content holds it back."""
    current = _held(view, key)
    held = metadata_of(current)
    if options.uid and options.uid != held.get("uid"):
        raise _conflict(
            key, f"Precondition failed: UID in precondition: {options.uid}, UID in object meta: {held.get('uid')}"
        )
    if options.resource_version and options.resource_version != held.get("resourceVersion"):
        raise _conflict(
            key,
            f"Precondition failed: ResourceVersion in precondition: {options.resource_version}, "
            f"ResourceVersion in object meta: {held.get('resourceVersion')}",
        )
    if key.resource == NAMESPACES and key.name in PROTECTED_NAMESPACES:
        raise Forbidden(f'namespaces "{key.name}" is forbidden: this namespace may not be deleted')
    orphaned = _orphaned(view, str(held.get("uid"))) if options.orphan else []
    definition = view.catalogue.by_kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition")
    is_crd = definition is not None and key.resource == definition.resource
    if is_crd and not held.get("deletionTimestamp"):
        held["finalizers"] = [*(held.get("finalizers") or []), CRD_FINALIZER]
    if key.resource == NAMESPACES:
        current["status"] = (current.get("status") or {}) | {"phase": "Terminating"}
    if key.resource == NAMESPACES or _is_held_back(current):
        if held.get("deletionTimestamp"):
            return Plan(200, (), answer=current)
        held["deletionTimestamp"] = facts.now
        held["deletionGracePeriodSeconds"] = 0
        return Plan(200, (Put(key, current), *orphaned))
    return Plan(200, (Remove(key, current), *orphaned), answer=_deleted(key, str(held.get("uid") or "")))


def _definition(view: View, resource: Resource) -> Definition:
    definition = view.catalogue.of(resource)
    if definition is None:  # its CustomResourceDefinition went while the request waited
        raise NotFound("the server could not find the requested resource")
    return definition


def _held(view: View, key: ObjectKey) -> dict[str, JSON]:
    found = view.get(key)
    if found is None:
        resource = key.resource
        raise NotFound(
            f'{resource.collection} "{key.name}" not found', kind=resource.plural, group=resource.group, name=key.name
        )
    return found.parse()


def _check_envelope(body: dict[str, JSON], asked: ApiRequest) -> None:
    """The body must be of the kind, namespace and name that the URL says."""
    resource = asked.resource
    for field, expected in (("apiVersion", resource.api_version), ("kind", resource.kind)):
        given = body.setdefault(field, expected)
        if given != expected:
            what = "API version" if field == "apiVersion" else "kind"
            raise BadRequest(f"the {what} in the data ({given}) does not match the expected {what} ({expected})")
    held = metadata_of(body)
    if resource.namespaced and held.get("namespace") not in (None, "", asked.namespace):
        raise BadRequest(
            f"the namespace of the provided object does not match the namespace sent on the request: "
            f"{held.get('namespace')} instead of {asked.namespace}"
        )
    if asked.name:
        if not held.get("name"):
            held["name"] = asked.name
        if held["name"] != asked.name:
            raise BadRequest(
                f"the name of the object ({held['name']}) does not match the name on the URL ({asked.name})"
            )


def _check_namespace(view: View, asked: ApiRequest) -> None:
    if not asked.resource.namespaced:
        return
    namespace = _held(view, ObjectKey(NAMESPACES, "", asked.namespace))
    if metadata_of(namespace).get("deletionTimestamp"):
        raise Forbidden(
            f'{asked.resource.collection} is forbidden: unable to create new content in namespace "{asked.namespace}" '
            "because it is being terminated"
        )


def _check_not_leaving(view: View, definition: Definition) -> None:
    if not definition.is_custom:
        return
    crds = view.catalogue.by_kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition")
    assert crds is not None, "definitions of custom resources are built in"
    found = view.get(ObjectKey(crds.resource, "", definition.resource.collection))
    if found is None or metadata_of(found.parse()).get("deletionTimestamp"):
        raise Forbidden("create not allowed while custom resource definition is terminating")


def _check_version(
    wanted: Mapping[str, JSON], current: Mapping[str, JSON], asked: ApiRequest, *, unconditional: bool
) -> None:
    """Optimistic concurrency: who names a version must name the present one."""
    given, held = metadata_of(wanted), metadata_of(current)
    if given.get("uid") not in (None, "", held.get("uid")):
        raise _conflict(
            asked.key,
            f"Precondition failed: UID in precondition: {given['uid']}, UID in object meta: {held.get('uid')}",
        )
    version = given.get("resourceVersion")
    if not version:
        if unconditional:
            return
        message = "Invalid value: 0x0: must be specified for an update"
        cause = Cause("metadata.resourceVersion", "FieldValueInvalid", message)
        raise metadata.invalid(asked.resource, asked.name, [cause])
    if version != held.get("resourceVersion"):
        raise _conflict(
            asked.key,
            "the object has been modified; please apply your changes to the latest version and try again",
        )


def _conflict(key: ObjectKey, why: str) -> ApiError:
    return Conflict(
        f'Operation cannot be fulfilled on {key.resource.collection} "{key.name}": {why}',
        kind=key.resource.plural,
        group=key.resource.group,
        name=key.name,
    )


def _with_status_of(current: Mapping[str, JSON], wanted: Mapping[str, JSON]) -> dict[str, JSON]:
    result = copy.deepcopy(dict(current))
    if "status" in wanted:
        result["status"] = wanted["status"]
    else:
        result.pop("status", None)
    return result


def _keep_status(wanted: dict[str, JSON], current: Mapping[str, JSON]) -> None:
    if "status" in current:
        wanted["status"] = copy.deepcopy(current["status"])
    else:
        wanted.pop("status", None)


def _wish(body: Mapping[str, JSON], definition: Definition) -> bytes:
    """What `generation` counts the versions of: all but the metadata, and the status where it has its own way in."""
    left_out = ("metadata", "status") if definition.has_status else ("metadata",)
    return canonical({name: value for name, value in body.items() if name not in left_out})


def _is_held_back(body: Mapping[str, JSON]) -> bool:
    return bool(metadata_of(body).get("finalizers"))


def _orphaned(view: View, uid: str) -> list[Put]:
    """The dependents without their reference to this owner."""
    puts = []
    for key in view.dependents(uid):
        found = view.get(key)
        if found is None:
            continue
        body = found.parse()
        held = metadata_of(body)
        held["ownerReferences"] = [owner for owner in held["ownerReferences"] if owner.get("uid") != uid]
        if not held["ownerReferences"]:
            del held["ownerReferences"]
        puts.append(Put(key, body))
    return puts


def _deleted(key: ObjectKey, uid: str) -> dict[str, JSON]:
    resource = key.resource
    details = {"name": key.name, "kind": resource.plural, "uid": uid}
    if resource.group:
        details["group"] = resource.group
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def done() -> dict[str, JSON]:
    """The Status that says that something was done."""
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": {}}
