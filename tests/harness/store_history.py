"""
Deltas and reports for tests of the store, and a history that is a function of a seed and a number.

Apart from the tests, so that a child process that is to be killed starts without their libraries.
"""

import random

from apimachinery.keys import ObjectKey, ObjectVersion, Resource
from apimachinery.kubeevents import EventType, KubeEvent, new_event
from apimachinery.objects import canonical, revision_of
from apimachinery.resources import CONFIG_MAPS, NODES
from link.frames import Batch, Cursor, Delta, ReportEntry
from link.packing import pack, pack_against

BROKEN = b"]"
GADGETS = Resource("example.com", "v1", "gadgets", "Gadget", True)


def upsert(resource: Resource, name: str, value: object, uid: str = "u", **labels: str) -> Delta:
    namespace = "default" if resource.namespaced else ""
    metadata = {"name": name, "uid": uid} | ({"namespace": namespace} if namespace else {})
    if labels:
        metadata |= {"labels": labels}  # type: ignore[dict-item]
    body = canonical(
        {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata, "data": {"value": value}}
    )
    return Delta(ObjectKey(resource, namespace, name), ObjectVersion(uid, revision_of(body)), body)


def removal(delta: Delta) -> Delta:
    return Delta(delta.key, None, b"")


def broken(delta: Delta) -> Delta:
    return delta._replace(body=delta.body + BROKEN)


def told(delta: Delta, against: Delta) -> Delta:
    """The same change as the hub tells it to a node that holds `against`."""
    assert against.version is not None
    return delta._replace(
        body=pack_against(delta.body, against.body), base=against.version.revision, size=len(delta.body)
    )


def packed(delta: Delta) -> Delta:
    """The same change as the hub tells it where nothing is held."""
    return delta._replace(body=pack(delta.body), size=len(delta.body))


def batch(seq: int, *deltas: Delta, synced: bool = False) -> Batch:
    return Batch(Cursor("epoch", seq), deltas, synced)


def deltas_of(seed: int, seq: int) -> tuple[Delta, ...]:
    chance = random.Random(f"{seed}/{seq}")
    made = [upsert(CONFIG_MAPS, f"c{chance.randrange(40)}", f"{seq}-{'x' * chance.randrange(2000)}") for _ in range(20)]
    return tuple(removal(delta) if chance.random() < 0.2 else delta for delta in made)


def report_of(seq: int) -> ReportEntry:
    return ReportEntry(ObjectKey(GADGETS, "default", "g"), f"property/{seq % 5}", str(seq).encode())


# A history in which every number does the same three things, and one in SETTLE_EVERY a fourth: apply a batch, save a
# document with a report and an Event, and settle. So the rows that report and Event get are known: 2 n - 1 and 2 n.

SETTLE_EVERY = 7


def event_of(seq: int) -> KubeEvent:
    about = ObjectKey(NODES, "", "edge-1")
    return new_event(
        about, "edge-1", EventType.NORMAL, "Tested", f"for the {seq}. time", at="2030-01-31T12:00:00Z", unique=f"{seq}x"
    )


def settled_at(seq: int) -> int:
    """The row through which the settling of number `seq` goes: not all that is there."""
    return 2 * (seq - 3)
