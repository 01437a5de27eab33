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
    project never changes the object it is given
    restored(body, live) of a body that is projected is what it was projected from, but for what the caller changed
"""

from collections.abc import Callable, Mapping

from apimachinery.keys import ObjectVersion, Resource
from apimachinery.objects import JSON, Object, canonical, lookup, revision_of
from apimachinery.resources import CUSTOM_RESOURCE_DEFINITIONS, DEVICES, LEASES, NODE_LEASE_NAMESPACE, NODES
from cloudhub.fences import REPLICA_ANNOTATION, TERM_ANNOTATION
from cloudhub.placement import STANDARD_RULES

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

_FENCES = frozenset({TERM_ANNOTATION, REPLICA_ANNOTATION})
_BOOKKEEPING = frozenset({LAST_APPLIED, *_FENCES})
_STANDARD = frozenset({CUSTOM_RESOURCE_DEFINITIONS.collection, *(rule.resource.collection for rule in STANDARD_RULES)})

Projection = Callable[[dict[str, JSON]], None]
"""Removes, in a body of its own, what a node must not see of one kind."""


def project(item: Object) -> Object:
    """The object as nodes see it. O(size of the body)."""
    body = item.parse()
    _strip_metadata(body, _BOOKKEEPING if item.key.resource.collection in _STANDARD else _FENCES)
    if (special := _BY_COLLECTION.get(item.key.resource.collection)) is not None:
        special(body)
    data = canonical(body)
    return item._replace(version=ObjectVersion(item.version.uid, revision_of(data)), body=data)


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


def _strip_metadata(body: dict[str, JSON], bookkeeping: frozenset[str]) -> None:
    metadata = dict(body.get("metadata") or {})
    metadata.pop("managedFields", None)
    metadata.pop("resourceVersion", None)
    metadata.pop("selfLink", None)
    annotations = metadata.get("annotations")
    if isinstance(annotations, Mapping) and not bookkeeping.isdisjoint(annotations):
        kept = {name: text for name, text in annotations.items() if name not in bookkeeping}
        metadata["annotations"] = kept
        if not kept:
            del metadata["annotations"]
    body["metadata"] = metadata


def _device(body: dict[str, JSON]) -> None:
    # The node is where the status comes from. KubeEdge's legacy status.reportToCloud is a wish, but one that
    # spec.stateReport has replaced.
    body.pop("status", None)


def _lease(body: dict[str, JSON]) -> None:
    # Of a node's own Lease only: who waits for another's, as for that of a leader, must see that it is renewed.
    if isinstance(body.get("spec"), dict) and body["metadata"].get("namespace") == NODE_LEASE_NAMESPACE:
        body["spec"].pop("renewTime", None)


def _node(body: dict[str, JSON]) -> None:
    # An apiserver without the kind's schema takes what the node says of itself, whatever that is.
    for condition in _mappings(lookup(body, "status.conditions")):
        condition.pop("lastHeartbeatTime", None)


def _definition(body: dict[str, JSON]) -> None:
    """What an API server at the edge needs to serve the kind: its names, columns and conditions, not its schema."""
    spec = body.get("spec")
    conditions = lookup(body.pop("status", None), "conditions")
    if conditions:
        body["status"] = {"conditions": conditions}  # `kubectl wait --for=condition=established` works on a node
    if not isinstance(spec, dict):
        return
    spec.pop("conversion", None)
    for version in _mappings(spec.get("versions")):
        version.pop("schema", None)


_BY_COLLECTION: dict[str, Projection] = {
    DEVICES.collection: _device,
    LEASES.collection: _lease,
    NODES.collection: _node,
    CUSTOM_RESOURCE_DEFINITIONS.collection: _definition,
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
