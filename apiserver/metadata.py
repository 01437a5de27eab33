"""
The rules for metadata: which names, labels and owners an object may have, and what the server fills in.

Pure: time, uid and the random suffix of a generated name are arguments.
"""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from apimachinery.errors import BadRequest, Cause, Invalid
from apimachinery.keys import Resource
from apimachinery.objects import JSON
from apiserver.definitions import Definition

MAX_ANNOTATION_BYTES = 256 << 10  # apimachinery's TotalAnnotationSizeLimitB
MAX_GENERATED_NAME = 63

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_QUALIFIED = re.compile(
    r"([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    "with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_FREE_NAMES = ("certificates.k8s.io", "rbac.authorization.k8s.io")
"""Groups whose names are any path segment, such as system:node."""


class Facts(NamedTuple):
    """What a write needs to know of the world, and cannot know without clock and chance."""

    now: str
    """RFC 3339, in seconds, UTC."""
    uid: str
    """For the object, should one be made."""
    suffix: str
    """Five characters for a generated name."""


def stamp_new(body: dict[str, JSON], definition: Definition, namespace: str, facts: Facts) -> None:
    """Make a client's object the server's: name, namespace, uid and time. Raises Invalid or BadRequest."""
    metadata = metadata_of(body)
    resource = definition.resource
    if metadata.get("resourceVersion"):
        raise BadRequest("resourceVersion should not be set on objects to be created")
    if not metadata.get("name"):
        prefix = metadata.get("generateName")
        if not prefix or not isinstance(prefix, str):
            cause = Cause("metadata.name", "FieldValueRequired", "Required value: name or generateName is required")
            raise invalid(resource, "", [cause])
        metadata["name"] = prefix[: MAX_GENERATED_NAME - len(facts.suffix)] + facts.suffix
    if resource.namespaced:
        metadata["namespace"] = namespace
    else:
        metadata.pop("namespace", None)
    for name in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "managedFields", "resourceVersion"):
        metadata.pop(name, None)
    metadata["uid"] = facts.uid
    metadata["creationTimestamp"] = facts.now
    if counts_generations(definition):
        metadata["generation"] = 1
    else:
        metadata.pop("generation", None)


def keep_identity(body: dict[str, JSON], current: Mapping[str, JSON]) -> None:
    """What no update may change is as it was, whatever the client sent."""
    metadata, held = metadata_of(body), metadata_of(current)
    for name in (
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "namespace",
    ):
        if name in held:
            metadata[name] = held[name]
        else:
            metadata.pop(name, None)
    metadata.pop("managedFields", None)
    metadata.pop("selfLink", None)


def counts_generations(definition: Definition) -> bool:
    """Kinds with a wish and a status of it: metadata.generation numbers the wishes."""
    return definition.is_custom or definition.has_status


def metadata_of(body: Mapping[str, JSON]) -> dict[str, JSON]:
    """The body's metadata, made if missing in a dict. Raises BadRequest when it is something else."""
    metadata = body.get("metadata")
    if metadata is None and isinstance(body, dict):
        metadata = body["metadata"] = {}
    if not isinstance(metadata, dict):
        raise BadRequest("metadata must be an object")
    return metadata


def check(body: Mapping[str, JSON], definition: Definition) -> list[Cause]:
    """What is wrong with an object's metadata. Raises BadRequest where it has the wrong JSON types."""
    metadata = metadata_of(body)
    for name in ("labels", "annotations"):
        pairs = metadata.get(name)
        if pairs is None:
            metadata.pop(name, None)
        elif not isinstance(pairs, dict) or any(not isinstance(value, str) for value in pairs.values()):
            raise BadRequest(
                f"{definition.resource.kind} in version {definition.resource.version!r} cannot be handled: "
                f"metadata.{name} must be an object of strings"
            )
    finalizers = metadata.get("finalizers")
    if finalizers is None:
        finalizers = []
    if not isinstance(finalizers, list) or any(not isinstance(name, str) for name in finalizers):
        raise BadRequest("metadata.finalizers must be a list of strings")
    if not finalizers:
        metadata.pop("finalizers", None)
    return [
        *_name_causes(metadata, definition.resource),
        *_label_causes(metadata),
        *_finalizer_causes(finalizers),
        *_owner_causes(metadata),
    ]


def change_causes(body: Mapping[str, JSON], current: Mapping[str, JSON]) -> list[Cause]:
    """What is wrong with how an update changes the metadata."""
    held, before = metadata_of(body), metadata_of(current)
    if not before.get("deletionTimestamp"):
        return []
    new = [name for name in held.get("finalizers") or () if name not in (before.get("finalizers") or ())]
    if not new:
        return []
    shown = ", ".join(f'"{name}"' for name in new)
    message = (
        "Forbidden: no new finalizers can be added if the object is being deleted, "
        f"found new finalizers []string{{{shown}}}"
    )
    return [Cause("metadata.finalizers", "FieldValueForbidden", message)]


def _finalizer_causes(finalizers: list[str]) -> Iterator[Cause]:
    for name in finalizers:
        if not _QUALIFIED.fullmatch(name):
            yield Cause("metadata.finalizers", "FieldValueInvalid", f'Invalid value: "{name}": is not a qualified name')
    if "orphan" in finalizers and "foregroundDeletion" in finalizers:
        message = f"Invalid value: {finalizers}: finalizer orphan and foregroundDeletion cannot be both set"
        yield Cause("metadata.finalizers", "FieldValueInvalid", message)


def _name_causes(metadata: Mapping[str, JSON], resource: Resource) -> Iterator[Cause]:
    name = metadata.get("name")
    if not isinstance(name, str):
        raise BadRequest("metadata.name must be a string")
    shown = f'Invalid value: "{name[:260]}": '
    if resource.group in _FREE_NAMES:
        return
    if resource.plural == "namespaces" and not resource.group:
        if not _LABEL_NAME.fullmatch(name):
            yield Cause("metadata.name", "FieldValueInvalid", shown + _LABEL_RULE)
    elif len(name) > 253:
        yield Cause("metadata.name", "FieldValueInvalid", shown + "must be no more than 253 characters")
    elif not _SUBDOMAIN.fullmatch(name):
        yield Cause("metadata.name", "FieldValueInvalid", shown + _SUBDOMAIN_RULE)


def _label_causes(metadata: Mapping[str, JSON]) -> Iterator[Cause]:
    for key, value in (metadata.get("labels") or {}).items():
        if not _QUALIFIED.fullmatch(key):
            yield Cause("metadata.labels", "FieldValueInvalid", f'Invalid value: "{key}": is not a qualified name')
        if not _LABEL_VALUE.fullmatch(value):
            message = (
                f'Invalid value: "{value}": a valid label must be an empty string or consist of at most 63 '
                "alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
            )
            yield Cause("metadata.labels", "FieldValueInvalid", message)
    size = 0
    for key, value in (metadata.get("annotations") or {}).items():
        size += len(key.encode()) + len(value.encode())
        if not _QUALIFIED.fullmatch(key.lower()):
            yield Cause("metadata.annotations", "FieldValueInvalid", f'Invalid value: "{key}": is not a qualified name')
    if size > MAX_ANNOTATION_BYTES:
        message = f"Too long: may not be more than {MAX_ANNOTATION_BYTES} bytes"
        yield Cause("metadata.annotations", "FieldValueTooLong", message)


def _owner_causes(metadata: Mapping[str, JSON]) -> Iterator[Cause]:
    owners = metadata.get("ownerReferences")
    if owners is None:
        return
    if not isinstance(owners, list) or any(not isinstance(owner, dict) for owner in owners):
        raise BadRequest("metadata.ownerReferences must be a list of objects")
    for place, owner in enumerate(owners):
        for name in ("apiVersion", "kind", "name", "uid"):
            if not isinstance(owner.get(name), str) or not owner[name]:
                field = f"metadata.ownerReferences[{place}].{name}"
                yield Cause(field, "FieldValueRequired", "Required value: must not be empty")
    controllers = [owner.get("name") for owner in owners if owner.get("controller") is True]
    if len(controllers) > 1:
        message = (
            "Invalid value: Only one reference can have Controller set to true. "
            f'Found "true" in references for {controllers[0]} and {controllers[1]}'
        )
        yield Cause("metadata.ownerReferences", "FieldValueInvalid", message)


def owner_uids(body: Mapping[str, JSON]) -> tuple[str, ...]:
    """The uids of an object's owners."""
    metadata = body.get("metadata")
    owners = metadata.get("ownerReferences") if isinstance(metadata, Mapping) else None
    return tuple(
        owner["uid"]
        for owner in (owners if isinstance(owners, list) else ())
        if isinstance(owner, Mapping) and isinstance(owner.get("uid"), str)
    )


def invalid(resource: Resource, name: str, causes: list[Cause]) -> Invalid:
    """The 422 for some causes, in Kubernetes' words."""
    kind = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    sentences = [f"{cause.field}: {cause.message}" for cause in causes]
    told = sentences[0] if len(sentences) == 1 else f"[{', '.join(sentences)}]"
    return Invalid(
        f'{kind} "{name}" is invalid: {told}', causes=causes, kind=resource.kind, group=resource.group, name=name
    )
