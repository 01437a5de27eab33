"""
A certificate that is used from two places: whose it is, where from, how often that showed.

A node has one connection at a time, and begins the next when the last one has ended. So it never hears that the one
it has was superseded, unless somebody else connected in its name: a copy of its disk, or a thief of its key. Who
hears it waits for a minute, and says so in its next Hello (link.frames.Hello.superseded). No broken line, no change
of address or of replica and no clock makes an honest node hear it. One thing does, once: it begins behind its
own last term, for its disk was rolled back, or was full and did not keep it, and the last words of the machine as it
was before come late; so it must show PROVEN times. Nothing is asked of the replica that the other one is connected
to, for the Lease tells who is superseded (cloudhub.fences).

What it cannot see: two that are never connected at the same time; a copy that takes the place of one which has been
switched off; and where both sides lie. A node can lie about itself only.

Invariants
    what is kept is bounded: MOST nodes, ADDRESSES of each

Pure state: no clock, no I/O.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from apimachinery.keys import Node, ObjectKey
from apimachinery.kubeevents import EventType, KubeEvent, new_event
from apimachinery.resources import NODES

PROVEN = 2
WINDOW_S = 3600.0  # a pair shows itself every minute or so, to any of the hub processes that there are
MOST = 1024  # nodes; of more those go that showed it least lately. 300 B each
ADDRESSES = 4
QUIET_S = 60.0  # between two Events of one node
CLONED = "CertificateUsedTwice"


class Clone(NamedTuple):
    """A node whose certificate is used from two places, it seems."""

    node: Node
    times: int
    """How often it showed at this hub process, never WINDOW_S apart."""
    since: str
    last: str
    """RFC 3339 in UTC."""
    addresses: tuple[str, ...]
    """Where connections of it came from, the newest last; without ports."""

    @property
    def is_proven(self) -> bool:
        return self.times >= PROVEN

    def __str__(self) -> str:
        return (
            f"the certificate of node {self.node} is used from two places ({', '.join(self.addresses)}): "
            "another machine connected in its name while it was connected"
        )


class _Record:
    __slots__ = ("clone", "event_at", "seen_at")

    def __init__(self, clone: Clone) -> None:
        self.clone = clone
        self.seen_at = 0.0
        self.event_at: float | None = None


class Clones:
    """Those that showed themselves at one hub process since it started. now_s: on a clock that only moves forward."""

    def __init__(self) -> None:
        self._records: OrderedDict[Node, _Record] = OrderedDict()

    def shown(self, node: Node, remotes: Iterable[str], at: str, now_s: float) -> Clone:
        """
        A node said that it was superseded.

        remotes: HOST:PORT of the connection that it found here, if any, and of its own. at: now, in RFC 3339.
        """
        record = self._records.pop(node, None)
        if record is None or now_s > record.seen_at + WINDOW_S:
            record = _Record(Clone(node, 0, at, at, ()))
        was = record.clone
        hosts = [remote.rpartition(":")[0] or remote for remote in remotes]
        addresses = tuple(dict.fromkeys([*(each for each in was.addresses if each not in hosts), *hosts]))
        record.clone = Clone(node, was.times + 1, was.since, at, addresses[-ADDRESSES:])
        record.seen_at = now_s
        self._records[node] = record
        if len(self._records) > MOST:
            self._records.popitem(last=False)
        return record.clone

    def event(self, clone: Clone, now_s: float) -> KubeEvent | None:
        """What to say on the Node of one that is proven, now and then."""
        record = self._records[clone.node]
        if not clone.is_proven or (record.event_at is not None and now_s < record.event_at + QUIET_S):
            return None
        record.event_at = now_s
        unique = hashlib.sha256(f"{clone.node} {CLONED}".encode()).hexdigest()[:16]
        about = ObjectKey(NODES, "", clone.node)
        return new_event(about, clone.node, EventType.WARNING, CLONED, str(clone), at=clone.last, unique=unique)

    def proven(self) -> list[Clone]:
        """In the order of their names."""
        return sorted(each.clone for each in self._records.values() if each.clone.is_proven)
