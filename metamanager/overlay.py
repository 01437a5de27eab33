"""
What was written on the node while the cloud was away, laid over what the cloud pushed.

The objects that the cloud pushed are never changed: their versions are what the link's digest and deltas are made of.
A local write is kept beside them, as a patch of the object or, for an object that the cloud does not have yet, as the
whole of it. What clients see is the one laid over the other, so what the cloud changes meanwhile shows wherever
the node did not write. The write goes up once the cloud is back (metamanager.deferred), and then the patch goes.

Invariants
    at most one write per object and subresource: the last, which holds what those before it changed
    a write whose object is gone, is another one or belongs to somebody else now is given up: the cloud is right

Pure: no clock, no I/O.
"""

import json
from collections.abc import Mapping
from typing import NamedTuple

from apimachinery.keys import ObjectKey, ObjectVersion
from apimachinery.objects import JSON, Object, canonical, lookup, revision_of
from apimachinery.resources import LEASES
from apiserver import strategic


class StoredObject(NamedTuple):
    """An object and the local revision at which it came into this state."""

    object: Object
    revision: int


class LocalWrite(NamedTuple):
    """One write that the cloud does not have yet."""

    seq: int
    """Grows with each write; the same object's next write has another."""
    key: ObjectKey
    subresource: str
    """ "" or "status"."""
    uid: str
    """Of the object it changes, or that the node gave to the object it makes."""
    creates: bool
    """Whether `value` is a whole object, and not a strategic merge patch of one."""
    user: str
    """On whose behalf; "" for the node itself."""
    revision: int
    """The local one at which it was made."""
    at_ms: int
    """When, in milliseconds since 1970."""
    value: bytes
    """Canonical JSON."""


def shown(held: StoredObject | None, writes: Mapping[str, LocalWrite]) -> StoredObject | None:
    """What clients see of an object. writes: by subresource."""
    for write in writes.values():
        if not write.creates and held is not None:
            held = StoredObject(_patched(held.object, write), max(held.revision, write.revision))
        elif write.creates and held is None:
            held = StoredObject(_made(write), write.revision)
    return held


def survives(write: LocalWrite, wanted: Object | None) -> bool:
    """Whether a write still counts once the cloud says that its object is `wanted`."""
    if write.creates:
        return wanted is None  # it is in the cluster now, whoever brought it there
    if wanted is None or wanted.version.uid != write.uid:
        return False
    # A Lease that somebody else holds now was lost while nobody could say so.
    return wanted.key.resource != LEASES or _holder(json.loads(write.value)) == _holder(wanted.parse())


def _holder(lease: Mapping[str, JSON]) -> JSON:
    return lookup(lease, "spec.holderIdentity")


def _patched(item: Object, write: LocalWrite) -> Object:
    body = canonical(strategic.merge(item.parse(), json.loads(write.value)))
    return item._replace(version=ObjectVersion(item.version.uid, revision_of(body)), body=body)


def _made(write: LocalWrite) -> Object:
    labels = lookup(json.loads(write.value), "metadata.labels") or {}
    return Object(write.key, ObjectVersion(write.uid, revision_of(write.value)), labels, write.value)
