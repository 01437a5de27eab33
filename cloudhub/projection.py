"""
An object as a node sees it: less than the apiserver holds.

Two reasons. Bookkeeping of the apiserver's (managed fields, kubectl's last-applied copy) is half the
bytes of many objects and means nothing at the edge; of kinds that no standard rule places, the last-applied copy stays,
for they are at the edge because somebody there works with them, perhaps with `kubectl apply`. And a change that the
node itself caused must not come back to it as a change: patching a Device's status bumps the Device's resourceVersion,
renewing a Lease bumps the Lease's. So a projected object's version is a digest of what is left, and a change the
node cannot see is no change.

Invariants
    project(x).version == project(y).version exactly when the node would see the same bytes
    what Projection.seen() makes does not depend on what it saw before, and its bytes are canonical
    restored(body, live) of a body that is projected is what it was projected from, but for what the caller changed
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple, Protocol

from apimachinery.keys import ObjectKey, ObjectVersion, Resource
from apimachinery.objects import JSON, Object, lookup, revision_of
from apimachinery.resources import CUSTOM_RESOURCE_DEFINITIONS, DEVICES, LEASES, NODE_LEASE_NAMESPACE, NODES
from cloudhub.fences import REPLICA_ANNOTATION, TERM_ANNOTATION
from cloudhub.placement import STANDARD_RULES
from cloudhub.reading import Sent, decoded, sent, text

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

_FENCES = frozenset({TERM_ANNOTATION, REPLICA_ANNOTATION})
_BOOKKEEPING = frozenset({LAST_APPLIED, *_FENCES})
_STANDARD = frozenset({CUSTOM_RESOURCE_DEFINITIONS.collection, *(rule.resource.collection for rule in STANDARD_RULES)})

MIN_KEPT_BYTES = (
    256  # of a member: to decode and write a smaller one takes no longer than to tell whether it is the same
)


class Look(Protocol):
    """Who wants to know something of each object; cloudhub.placement.Placement.look is one."""

    def __call__(self, item: Sent, before: object, same: Collection[str]) -> object:
        """
        What there is to know, for Object.found.

        before: what was found when the object was read the last time, None at first. same: its members that have not
        changed since.
        """


class _Member(NamedTuple):
    """A member of a body, so that it need not be made again."""

    digest: bytes
    """Of what it was sent as."""
    start: int
    stop: int


class _Kept(NamedTuple):
    object: Object
    members: Mapping[str, _Member]
    """Those of MIN_KEPT_BYTES and more."""


class Projection:
    """
    The objects of one resource as nodes see them, each made of the last time it was seen.

    Of a pod that is changed the spec mostly is what it was, of a node or a device all but the status: a member that was
    sent in the same bytes is copied from the last body. 200 bytes are kept per object for that.
    """

    def __init__(self, resource: Resource, look: Look | None = None) -> None:
        self._resource = resource
        self._look = look
        self._kept: dict[ObjectKey, _Kept] = {}
        self._bookkeeping = _BOOKKEEPING if resource.collection in _STANDARD else _FENCES
        self._special = _BY_COLLECTION.get(resource.collection, {})

    def seen(self, item: Sent) -> Object:
        """
        The object as nodes see it; the very one that was returned before where they see no difference.

        O(size of what changed), but for a digest of all. Raises Unavailable for what is not JSON.
        """
        before = self._kept.get(item.key)
        kept: dict[str, _Member] = {}
        same: list[str] = []
        parts: list[bytes | memoryview] = []
        start = 0
        for name, raw in sorted(item.members.items()):
            digest = b""
            part: bytes | memoryview | None
            if name == "metadata":
                part = text(_stripped(item.metadata, self._bookkeeping))
            elif len(memoryview(raw)) < MIN_KEPT_BYTES:
                part = self._part(item, name)
            else:
                digest = hashlib.sha256(raw).digest()
                had = None if before is None else before.members.get(name)
                if before is not None and had is not None and had.digest == digest:
                    part = memoryview(before.object.body)[had.start : had.stop]
                    same.append(name)
                else:
                    part = self._part(item, name)
            if part is None:
                continue
            head = _HEADS.get(name) or _head(name)
            parts += (head, part)
            start += len(head) + len(part)
            if digest:
                kept[name] = _Member(digest, start - len(part), start)
        parts[0] = b"{" + parts[0][1:]
        parts.append(b"}")
        return self._keep(item, b"".join(parts), before, kept, same)

    def gone(self, item: Sent) -> None:
        """It was deleted."""
        self._kept.pop(item.key, None)

    def keep_only(self, objects: Iterable[Object]) -> None:
        """These are all that there are."""
        keys = {item.key for item in objects}
        for key in self._kept.keys() - keys:
            del self._kept[key]

    def _part(self, item: Sent, name: str) -> bytes | None:
        """A member as nodes see it, None where they do not."""
        special = self._special.get(name)
        if special is None:
            return text(item.member(name))
        value = special(decoded(item.members[name]), item.key.namespace)
        return None if value is _UNSEEN else text(value)

    def _keep(
        self, item: Sent, body: bytes, before: _Kept | None, kept: Mapping[str, _Member], same: Collection[str]
    ) -> Object:
        last = None if before is None else before.object
        found = None if self._look is None else self._look(item, None if last is None else last.found, same)
        if last is not None and last.body == body and last.version.uid == item.version.uid:
            made = last
        else:
            labels = item.labels
            if last is not None and last.labels == labels:
                labels = last.labels
            version = ObjectVersion(item.version.uid, revision_of(body))
            made = Object(item.key if last is None else last.key, version, labels, body, found)
        if kept:
            self._kept[made.key] = _Kept(made, kept)
        elif before is not None:
            del self._kept[made.key]
        return made


def project(item: Object | Sent) -> Object:
    """One object as nodes see it. O(size of the body)."""
    return Projection(item.key.resource).seen(sent(item) if isinstance(item, Object) else item)


def restored(resource: Resource, body: dict[str, JSON], live: Mapping[str, JSON]) -> dict[str, JSON]:
    """
    A body that somebody made of a projected object, with what the projection took away, for a PUT over `live`.

    What the caller says himself stands, be it nonsense: the apiserver will tell him. Changes `body`, and returns it.
    """
    metadata = body.setdefault("metadata", {})
    had = lookup(live, "metadata.annotations")
    if isinstance(metadata, dict) and isinstance(had, Mapping):
        taken = {name: text for name, text in had.items() if name in _BOOKKEEPING}
        said = metadata.get("annotations") or {}
        if taken and isinstance(said, dict):
            metadata["annotations"] = {**taken, **said}
    if (special := _BACK.get(resource.collection)) is not None:
        special(body, live)
    return body


_HEADS = {name: f',"{name}":'.encode() for name in ("apiVersion", "data", "kind", "metadata", "spec", "status", "type")}


def _head(name: str) -> bytes:
    return b"," + text(name) + b":"


def _stripped(metadata: Mapping[str, JSON], bookkeeping: frozenset[str]) -> dict[str, JSON]:
    left = {name: value for name, value in metadata.items() if name not in _NOT_SEEN}
    annotations = left.get("annotations")
    if isinstance(annotations, Mapping) and not bookkeeping.isdisjoint(annotations):
        kept = {name: text for name, text in annotations.items() if name not in bookkeeping}
        left["annotations"] = kept
        if not kept:
            del left["annotations"]
    return left


_NOT_SEEN = frozenset({"managedFields", "resourceVersion", "selfLink"})

_UNSEEN = object()

Special = Callable[[JSON, str], JSON]
"""A member as a node sees it, _UNSEEN if it does not; given the member, which it may change, and the namespace."""


def _unseen(_value: JSON, _namespace: str) -> JSON:
    return _UNSEEN


def _lease_spec(spec: JSON, namespace: str) -> JSON:
    # Of a node's own Lease only: who waits for another's, as for that of a leader, must see that it is renewed.
    if isinstance(spec, dict) and namespace == NODE_LEASE_NAMESPACE:
        spec.pop("renewTime", None)
    return spec


def _node_status(status: JSON, _namespace: str) -> JSON:
    # An apiserver without the kind's schema takes what the node says of itself, whatever that is.
    for condition in _mappings(lookup(status, "conditions")):
        condition.pop("lastHeartbeatTime", None)
    return status


def _definition_spec(spec: JSON, _namespace: str) -> JSON:
    """What an API server at the edge needs to serve the kind: its names, columns and conditions, not its schema."""
    if isinstance(spec, dict):
        spec.pop("conversion", None)
        for version in _mappings(spec.get("versions")):
            version.pop("schema", None)
    return spec


def _definition_status(status: JSON, _namespace: str) -> JSON:
    conditions = lookup(status, "conditions")
    # `kubectl wait --for=condition=established` works on a node
    return {"conditions": conditions} if conditions else _UNSEEN


_BY_COLLECTION: Mapping[str, Mapping[str, Special]] = {
    # The node is where a Device's status comes from. KubeEdge's legacy status.reportToCloud is a wish, but one that
    # spec.stateReport has replaced.
    DEVICES.collection: {"status": _unseen},
    LEASES.collection: {"spec": _lease_spec},
    NODES.collection: {"status": _node_status},
    CUSTOM_RESOURCE_DEFINITIONS.collection: {"spec": _definition_spec, "status": _definition_status},
}


def _definition_back(body: dict[str, JSON], live: Mapping[str, JSON]) -> None:
    spec, had = body.get("spec"), live.get("spec")
    if not isinstance(spec, dict) or not isinstance(had, Mapping):
        return
    if "conversion" in had:
        spec.setdefault("conversion", had["conversion"])
    schemas = {each["name"]: each.get("schema") for each in _mappings(had.get("versions"))}
    for version in _mappings(spec.get("versions")):
        name = version.get("name")
        if isinstance(name, str) and (schema := schemas.get(name)) is not None:
            version.setdefault("schema", schema)


def _lease_back(body: dict[str, JSON], live: Mapping[str, JSON]) -> None:
    renewed = lookup(live, "spec.renewTime")
    if renewed is not None and isinstance(body.get("spec"), dict):
        body["spec"].setdefault("renewTime", renewed)


def _node_back(body: dict[str, JSON], live: Mapping[str, JSON]) -> None:
    had = _mappings(lookup(live, "status.conditions"))
    beats = {each["type"]: each.get("lastHeartbeatTime") for each in had}
    for condition in _mappings(lookup(body, "status.conditions")):
        kind = condition.get("type")
        if isinstance(kind, str) and (beat := beats.get(kind)) is not None:
            condition.setdefault("lastHeartbeatTime", beat)


def _mappings(value: JSON) -> list[dict[str, JSON]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


_BACK: dict[str, Callable[[dict[str, JSON], Mapping[str, JSON]], None]] = {
    CUSTOM_RESOURCE_DEFINITIONS.collection: _definition_back,
    LEASES.collection: _lease_back,
    NODES.collection: _node_back,
}
"""A Device's status is not among them: a PUT of the Device does not change it, and one of its status says all of it."""


def is_projected_specially(resource: Resource) -> bool:
    """Whether more than bookkeeping is removed from this kind."""
    return resource.collection in _BY_COLLECTION
