"""
An object as a node sees it: less than the apiserver holds.

Two reasons. Bookkeeping of the apiserver's (managed fields, kubectl's last-applied copy) is half the
bytes of many objects and means nothing at the edge. And a change that the node itself caused must not
come back to it as a change: patching a Device's status bumps the Device's resourceVersion, renewing a
Lease bumps the Lease's. So a projected object's version is a digest of what is left, and a change the
node cannot see is no change.

Invariants
    project(x).version == project(y).version exactly when the node would see the same bytes
    project never changes the object it is given
"""

from collections.abc import Callable, Mapping

from apimachinery.keys import ObjectVersion, Resource
from apimachinery.objects import JSON, Object, canonical, revision_of
from apimachinery.resources import CUSTOM_RESOURCE_DEFINITIONS, DEVICES, LEASES, NODES
from cloudhub.fences import REPLICA_ANNOTATION, TERM_ANNOTATION

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

_BOOKKEEPING = frozenset({LAST_APPLIED, TERM_ANNOTATION, REPLICA_ANNOTATION})

Projection = Callable[[dict[str, JSON]], None]
"""Removes, in a body of its own, what a node must not see of one kind."""


def project(item: Object) -> Object:
    """The object as nodes see it. O(size of the body)."""
    body = item.parse()
    _strip_metadata(body)
    if (special := _BY_COLLECTION.get(item.key.resource.collection)) is not None:
        special(body)
    data = canonical(body)
    return item._replace(version=ObjectVersion(item.version.uid, revision_of(data)), body=data)


def _strip_metadata(body: dict[str, JSON]) -> None:
    metadata = dict(body.get("metadata") or {})
    metadata.pop("managedFields", None)
    metadata.pop("resourceVersion", None)
    metadata.pop("selfLink", None)
    annotations = metadata.get("annotations")
    if isinstance(annotations, Mapping) and not _BOOKKEEPING.isdisjoint(annotations):
        kept = {name: text for name, text in annotations.items() if name not in _BOOKKEEPING}
        metadata["annotations"] = kept
        if not kept:
            del metadata["annotations"]
    body["metadata"] = metadata


def _device(body: dict[str, JSON]) -> None:
    # The node is where the status comes from. KubeEdge's legacy status.reportToCloud is a wish, but one that
    # spec.stateReport has replaced.
    body.pop("status", None)


def _lease(body: dict[str, JSON]) -> None:
    if isinstance(body.get("spec"), dict):
        body["spec"].pop("renewTime", None)


def _node(body: dict[str, JSON]) -> None:
    status = body.get("status")
    if isinstance(status, dict):
        for condition in status.get("conditions") or ():
            if isinstance(condition, dict):
                condition.pop("lastHeartbeatTime", None)


def _definition(body: dict[str, JSON]) -> None:
    """What an API server at the edge needs to serve the kind: its names and columns, not its schema."""
    spec = body.get("spec")
    body.pop("status", None)
    if not isinstance(spec, dict):
        return
    spec.pop("conversion", None)
    for version in spec.get("versions") or ():
        if isinstance(version, dict):
            version.pop("schema", None)


_BY_COLLECTION: dict[str, Projection] = {
    DEVICES.collection: _device,
    LEASES.collection: _lease,
    NODES.collection: _node,
    CUSTOM_RESOURCE_DEFINITIONS.collection: _definition,
}


def is_projected_specially(resource: Resource) -> bool:
    """Whether more than bookkeeping is removed from this kind."""
    return resource.collection in _BY_COLLECTION
