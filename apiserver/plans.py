"""
Writes as plans: what a create, an update or a delete would change, worked out against what there is.

A plan is made and committed by the storage's one writer, so nothing changes between looking and
writing, and `resourceVersion` checks are exact. A dry run is a plan that is not committed.

Invariants
    a plan never changes the bodies it was made from
    what a plan puts is valid: names, metadata and, where there is one, the schema were checked; whether JSON can hold
        it shows when it is written, and NotJSON may come out of here, too
    an update that changes nothing writes nothing, so that it makes no event and no new revision

Pure: time, uid and randomness come in as Facts.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from apimachinery.errors import AlreadyExists, ApiError, BadRequest, Cause, Conflict, Forbidden, NotFound
from apimachinery.keys import ObjectKey, Resource
from apimachinery.objects import JSON, Object, canonical
from apimachinery.resources import CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES
from apiserver import managed, metadata, signing
from apiserver.admission import Admission
from apiserver.definitions import Catalogue, Definition
from apiserver.managed import Managers, Writer
from apiserver.metadata import Facts, metadata_of
from apiserver.requests import ApiRequest
from apiserver.scale import scaling
from apiserver.typed import Comparison
from componentbase.jsonbytes import read

PROTECTED_NAMESPACES = ("default", "kube-node-lease", "kube-system")
CRD_FINALIZER = "customresourcecleanup.apiextensions.k8s.io"
FOREGROUND_FINALIZER = "foregroundDeletion"
ORPHAN_FINALIZER = "orphan"


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
"""
From the object as it is, which is left as it is, to what the client wants, which may share parts with it: a PUT
returns its body, a PATCH applies itself.
"""


class DeleteOptions(NamedTuple):
    """metav1.DeleteOptions, as far as it matters here."""

    uid: str = ""
    resource_version: str = ""
    propagation: str = ""
    """What becomes of dependents: "Background", "Foreground", "Orphan", or "" for what the finalizers say."""


def create(view: View, asked: ApiRequest, body: dict[str, JSON], facts: Facts, admission: Admission) -> Plan:
    """Make a new object of a client's body, which is taken over."""
    definition = _definition(view, asked.resource)
    _check_envelope(body, asked)
    _check_namespace(view, asked)
    _check_not_leaving(view, definition)
    metadata.stamp_new(body, definition, asked.namespace, facts)
    warnings = admission.admit(body, None, definition, view.catalogue, facts, asked.field_validation)
    but = managed.ignored("", has_status=definition.has_status)
    writer = _writer(asked, managed.UPDATE)
    _note(body, managed.after_create(body, admission.type_of(definition), writer, facts.now, but))
    key = ObjectKey(view.catalogue.place_of(asked.resource), asked.namespace, metadata_of(body)["name"])
    if view.get(key) is not None:
        canonical(body)  # a body that cannot be written at all is told that
        raise AlreadyExists(
            f'{key.resource.collection} "{key.name}" already exists',
            kind=key.resource.plural,
            group=key.resource.group,
            name=key.name,
        )
    return Plan(201, (Put(key, body),), warnings=warnings)


def update(view: View, asked: ApiRequest, change: Change, facts: Facts, admission: Admission) -> Plan:
    """Replace or patch an object, its status or its Scale."""
    definition = _definition(view, asked.resource)
    key = place_of(view, asked)
    current = _held(view, key) | {"apiVersion": asked.resource.api_version}
    if asked.subresource == "scale":
        change = scaling(change, definition)
    wanted = _apart(change(current))
    _check_envelope(wanted, asked)
    _check_version(wanted, current, asked, unconditional=not definition.is_custom)
    managers = managed.given(wanted, current, asked.subresource)
    wanted = _confined(wanted, current, asked, definition)
    warnings = admission.admit(wanted, current, definition, view.catalogue, facts, asked.field_validation)
    made = managed.difference(current, wanted, admission.type_of(definition))
    but = managed.ignored(asked.subresource, current, wanted, has_status=definition.has_status)
    managers = managed.after_update(made, managers, _writer(asked, managed.UPDATE), facts.now, but)
    return _replaced(key, definition, current, wanted, made, managers, warnings)


def apply(view: View, asked: ApiRequest, config: dict[str, JSON], facts: Facts, admission: Admission) -> Plan:
    """Apply a client's fields to an object or its status, which is made where it is missing and whole."""
    definition = _definition(view, asked.resource)
    _check_envelope(config, asked)
    of, but = admission.type_of(definition), managed.ignored(asked.subresource, has_status=definition.has_status)
    managed.check_config(config, of, asked.resource.api_version)
    writer = _writer(asked, managed.APPLY)
    if view.get(place_of(view, asked)) is None and not asked.subresource:
        return _applied_anew(view, asked, definition, config, writer, facts, admission)
    key = place_of(view, asked)
    current = _held(view, key) | {"apiVersion": asked.resource.api_version}
    _check_version(config, current, asked, unconditional=True)
    but = managed.ignored(asked.subresource, current, config, has_status=definition.has_status)
    managers = managed.held_by(current)
    wanted, managers = managed.applied(current, config, of, managers, writer, facts.now, but, force=bool(asked.force))
    wanted = _confined(_apart(wanted), current, asked, definition)
    warnings = admission.admit(wanted, current, definition, view.catalogue, facts, asked.field_validation)
    made = managed.difference(current, wanted, of)
    return _replaced(key, definition, current, wanted, made, managers, warnings)


def _applied_anew(
    view: View,
    asked: ApiRequest,
    definition: Definition,
    config: dict[str, JSON],
    writer: Writer,
    facts: Facts,
    admission: Admission,
) -> Plan:
    _check_namespace(view, asked)
    _check_not_leaving(view, definition)
    if uid := metadata_of(config).get("uid"):
        why = f"uid mismatch: the provided object specified uid {uid}, and no existing object was found"
        raise _conflict(asked.key, why)
    of, but = admission.type_of(definition), managed.ignored("", has_status=definition.has_status)
    body, managers = managed.applied(None, config, of, {}, writer, facts.now, but, force=bool(asked.force))
    body = copy.deepcopy(body)
    metadata.stamp_new(body, definition, asked.namespace, facts)
    warnings = admission.admit(body, None, definition, view.catalogue, facts, asked.field_validation)
    _note(body, managers)
    return Plan(201, (Put(place_of(view, asked), body),), warnings=warnings)


def _apart(body: dict[str, JSON]) -> dict[str, JSON]:
    """
    A copy whose fields and metadata can be set. What is below stays shared with the body it came from.

    Parts that a write leaves alone are then the same parts, which `typed.compare` sees without looking inside;
    copies of a large object cost more than all else that is done with it.
    """
    return {**body, "metadata": dict(metadata_of(body))}


def _confined(
    wanted: dict[str, JSON], current: dict[str, JSON], asked: ApiRequest, definition: Definition
) -> dict[str, JSON]:
    """What is wanted, with all as it is that a write at this place does not reach."""
    if definition.has_approval:
        signing.judge(wanted, current, asked)
    if asked.subresource in ("status", "approval"):
        kept = _apart(current)
        _take_status(kept, wanted)
        return kept
    if definition.has_approval:
        wanted["spec"] = current["spec"]  # as kube-apiserver: it is left as it is without a word
    if definition.has_status:
        _take_status(wanted, current)
    metadata.keep_identity(wanted, current)
    metadata_of(wanted)["resourceVersion"] = metadata_of(current).get("resourceVersion")
    return wanted


def _take_status(into: dict[str, JSON], of: Mapping[str, JSON]) -> None:
    if "status" in of:
        into["status"] = of["status"]
    else:
        into.pop("status", None)


def _replaced(
    key: ObjectKey,
    definition: Definition,
    current: dict[str, JSON],
    wanted: dict[str, JSON],
    made: Comparison,
    managers: Managers,
    warnings: tuple[str, ...],
) -> Plan:
    """The plan that puts what is wanted in the place of what is there. made: the difference, but for managedFields."""
    _note(wanted, managers)
    if not any(made) and metadata_of(wanted).get("managedFields") == metadata_of(current).get("managedFields"):
        return Plan(200, (), answer=current, warnings=warnings)
    if metadata.counts_generations(definition) and _is_new_wish(made, definition):
        metadata_of(wanted)["generation"] = int(metadata_of(current).get("generation") or 0) + 1
    if metadata_of(wanted).get("deletionTimestamp") and not _is_held_back(wanted):
        return Plan(200, (Remove(key, wanted),), warnings=warnings)
    return Plan(200, (Put(key, wanted),), warnings=warnings)


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
    before = list(held.get("finalizers") or [])
    policy = options.propagation or _policy_of(before)
    orphaned = _orphaned(view, str(held.get("uid"))) if policy == "Orphan" else []
    finalizers = [name for name in before if name not in (FOREGROUND_FINALIZER, ORPHAN_FINALIZER)]
    if policy == "Foreground":
        finalizers.append(FOREGROUND_FINALIZER)
    is_marked = bool(held.get("deletionTimestamp"))
    if key.resource == CUSTOM_RESOURCE_DEFINITIONS and not is_marked:
        finalizers.append(CRD_FINALIZER)
    set_finalizers(held, finalizers)
    if key.resource == NAMESPACES:
        current["status"] = (current.get("status") or {}) | {"phase": "Terminating"}
    if key.resource != NAMESPACES and not finalizers:
        return Plan(200, (Remove(key, current), *orphaned), answer=_deleted(key, str(held.get("uid") or "")))
    if is_marked and finalizers == before:
        return Plan(200, tuple(orphaned), answer=current)
    if not is_marked:
        held["deletionTimestamp"] = facts.now
        held["deletionGracePeriodSeconds"] = 0
    status = 202 if policy == "Foreground" and options.propagation else 200
    return Plan(status, (Put(key, current), *orphaned))


def _policy_of(finalizers: Sequence[str]) -> str:
    if ORPHAN_FINALIZER in finalizers:
        return "Orphan"
    return "Foreground" if FOREGROUND_FINALIZER in finalizers else "Background"


def set_finalizers(held: dict[str, JSON], finalizers: Sequence[str]) -> None:
    """Set an object's finalizers in its metadata; none leave no list."""
    if finalizers:
        held["finalizers"] = list(finalizers)
    else:
        held.pop("finalizers", None)


def place_of(view: View, asked: ApiRequest) -> ObjectKey:
    """Where the object that is asked for is kept; another version of it may be asked for."""
    return ObjectKey(view.catalogue.place_of(asked.resource), asked.namespace, asked.name)


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
    body: dict[str, JSON] = read(found.body)
    return body


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


def _is_new_wish(made: Comparison, definition: Definition) -> bool:
    """Whether `generation` counts this: all but the metadata, and the status where it has its own way in."""
    left_out = {"f:metadata", "f:status"} if definition.has_status else {"f:metadata"}
    return any(fields.keys() - left_out for fields in made)


def _writer(asked: ApiRequest, operation: str) -> Writer:
    return Writer(asked.field_manager or "unknown", operation, asked.resource.api_version, asked.subresource)


def _note(body: dict[str, JSON], managers: Managers) -> None:
    """Write the managers into the object."""
    if managers:
        metadata_of(body)["managedFields"] = managed.written(managers)
    else:
        metadata_of(body).pop("managedFields", None)


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
