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
from apimachinery.objects import JSON, LAST_APPLIED, Object, lookup, revision_of
from apimachinery.resources import CUSTOM_RESOURCE_DEFINITIONS, DEVICES, LEASES, NODE_LEASE_NAMESPACE, NODES
from cloudhub.fences import REPLICA_ANNOTATION, TERM_ANNOTATION
from cloudhub.placement import STANDARD_RULES
from cloudhub.reading import Sent, decoded, sent, text

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


_NEVER = _Kept(Object(ObjectKey(NODES, "", ""), ObjectVersion("", ""), {}, b""), {})
"""Stands for what was not seen before."""


class Projection:
    """
    The objects of one resource as nodes see them, each made of the last time it was seen.

    Of a pod that is changed the spec mostly is what it was, of a device all but the status: a member that was sent in
    the same bytes is copied from the last body. 500 bytes are kept for that of each object with such a member.
    """

    def __init__(self, resource: Resource, look: Look | None = None) -> None:
        self._look = look
        self._kept: dict[ObjectKey, _Kept] = {}
        self._bookkeeping = _BOOKKEEPING if resource.collection in _STANDARD else _FENCES
        self._special = _BY_COLLECTION.get(resource.collection, {})
        self._usual = {"apiVersion": text(resource.api_version), "kind": text(resource.kind)}

    def seen(self, item: Sent) -> Object:
        """
        The object as nodes see it; the very one that was returned before where they see no difference.

        O(size of what changed), but for a digest of all. Raises Unavailable for what is not JSON.
        """
        before = self._kept.get(item.key, _NEVER)
        kept: dict[str, _Member] = {}
        same: list[str] = []
        parts: list[bytes | memoryview] = []
        start = 0
        for name, raw in sorted(item.members.items()):
            head = _HEADS.get(name) or _head(name)
            start += len(head)
            part: bytes | memoryview | None
            if name == "metadata":
                part = text(_stripped(item.metadata, self._bookkeeping))
            elif (size := len(sent_as := memoryview(raw))) < MIN_KEPT_BYTES or self._special.get(name) is _unseen:
                # Nearly every object has these two, and they are written as they were sent.
                part = self._usual.get(name)
                if part is None or size != len(part) or sent_as != part:
                    part = self._part(item, name)
            else:
                digest = hashlib.sha256(sent_as).digest()
                had = before.members.get(name)
                if had is None or had.digest != digest:
                    part = self._part(item, name)
                    kept[name] = _Member(digest, start, start + len(part or b""))
                else:
                    part = memoryview(before.object.body)[had.start : had.stop]
                    kept[name] = had if had.start == start else _Member(digest, start, start + len(part))
                    same.append(name)
            if part is None:
                start -= len(head)
                kept.pop(name, None)
                continue
            parts += (head, part)
            start += len(part)
        parts[0] = b"{" + parts[0][1:]
        parts.append(b"}")
        return self._made(item, b"".join(parts), before.object, kept, same)

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

    def _made(
        self, item: Sent, body: bytes, last: Object, members: Mapping[str, _Member], same: Collection[str]
    ) -> Object:
        """last: the object as it was returned before; of members that are kept."""
        is_new = last is _NEVER.object
        found = None if self._look is None else self._look(item, last.found, same)
        item.release()
        if body != last.body:
            version = ObjectVersion(item.version.uid, revision_of(body))
            labels = last.labels if item.metadata.get("labels") == last.labels else item.labels
            last = Object(item.key if is_new else last.key, version, labels, body, found)
        if members:
            self._kept[last.key] = _Kept(last, members)
        elif not is_new:
            del self._kept[last.key]
        return last


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


def is_unseen(collection: str, path: str) -> bool:
    """Whether nodes do not see the field at this dotted path, so that a change of it is none to the hub either."""
    first, _, rest = path.partition(".")
    if first == "metadata":
        return rest.partition(".")[0] in _NOT_SEEN
    return _BY_COLLECTION.get(collection, {}).get(first) is _unseen


def is_projected_specially(resource: Resource) -> bool:
    """Whether more than bookkeeping is removed from this kind."""
    return resource.collection in _BY_COLLECTION
